// Package pace finds how much of what can wait may be sent beside what must not: a backlog that is drained, a replay, a burst. It looks
// at how late the deliveries are that go straight through. When they become later than they were while little else was sent,
// what can wait is halved; while they are not, it becomes more.
package pace

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Pace is how much of what can wait is sent in a second. Its zero value is ready, and all its methods may be called at once.
type Pace struct {
	// Least is how many a second may be sent however late the others are; it is also a quarter of the others' number where that
	// is more. 0: 50. It is not to be changed once anything was told.
	Least float64

	mu   sync.Mutex // guards what follows
	set  setting
	now  sight     // what is seen of the present
	free time.Time // when all that was sent in turns has had its time
}

// setting is a pace, and by what it is judged.
type setting struct {
	rate  float64       // 0: there is no bound
	usual time.Duration // how late a tenth of the others was when little was sent; 0: it is not known
	eager bool          // nobody has been late since there are others
}

// sight is a short time in which is counted what is sent.
type sight struct {
	began time.Time
	late  []time.Duration // of those that go straight through
	sent  int             // of what can wait
}

const (
	// judgeEvery is how long a sight is; one with too few deliveries is longer.
	judgeEvery = 250 * time.Millisecond
	judgeAtMax = time.Second
	enoughSeen = 20
	// least is Pace.Least where nobody says otherwise.
	least = 50
	// step is how many more a second are sent after a sight in which nobody was late for those that were, or an eighth more.
	step = 20
	// first is how many are sent in a second at first beside others. They become twice as many after each sight until somebody was late.
	first = 100
	// most is how many are as good as no bound.
	most = 20_000
)

// Saw is told of what goes straight through, and how long after its event's acceptance it came to where it is looked at: a delivery
// to its lane, or an event to its match.
func (p *Pace) Saw(late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.late = append(p.now.late, late)
	p.judge(time.Now())
}

// Sent is told that n deliveries were sent that could wait.
func (p *Pace) Sent(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.sent += n
}

// Turn is Sent for who sends some at a time, also from several goroutines. It gives how long to wait before more are sent; 0 while
// there is no bound.
func (p *Pace) Turn(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.judge(now)
	p.now.sent += n
	if p.free.Before(now) {
		p.free = now
	}
	if p.set.rate > 0 {
		p.free = p.free.Add(time.Duration(float64(n) / p.set.rate * float64(time.Second)))
	}
	return p.free.Sub(now)
}

// PerSecond is how many deliveries that can wait may be sent in a second from now on. 0: there is no bound, as nothing else
// is sent to which they could yield.
func (p *Pace) PerSecond() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge(time.Now())
	return p.set.rate
}

// judge ends the sight when it is over. It is called with the lock.
func (p *Pace) judge(now time.Time) {
	took := now.Sub(p.now.began)
	switch {
	case took > 2*judgeAtMax: // nothing was sent for a while
		p.now, p.set.rate = sight{began: now}, 0
	case took > judgeAtMax, took > judgeEvery && len(p.now.late) >= enoughSeen:
		p.set = p.set.next(p.now, took, cmp.Or(p.Least, least))
		p.now = sight{began: now, late: p.now.late[:0]}
	}
}

// next is the setting after a sight, by which never less than least is sent.
func (s setting) next(seen sight, took time.Duration, least float64) setting {
	if len(seen.late) == 0 {
		s.rate = 0
		return s
	}
	late := slices.Clone(seen.late)
	slices.Sort(late)
	tenth := late[len(late)*9/10]
	least = max(least, float64(len(seen.late))/took.Seconds()/4)
	sent := float64(seen.sent) / took.Seconds()
	unknown := s.usual == 0
	switch {
	case s.usual == 0:
		s.usual = late[len(late)/2] // it may be the end of a pile
	case tenth < s.usual: // what can wait makes nobody earlier
		s.usual += (tenth - s.usual) / 2
	case sent <= least*1.1: // so few are hardly felt
		s.usual += (tenth - s.usual) / 16
	}
	if s.rate == 0 {
		s.rate, s.eager = first, true
	}
	switch {
	case unknown && sent > least: // how late they are by themselves is seen first
		s.rate = least
	case tenth > s.usual+max(s.usual/4, time.Millisecond/10):
		s.rate, s.eager = max(least, min(s.rate, sent)/2), false
	case sent < s.rate*0.8: // more is of no use yet
	case s.eager:
		s.rate *= 2
	default:
		s.rate += max(step, s.rate/8)
	}
	s.rate = min(max(s.rate, least), most)
	return s
}
