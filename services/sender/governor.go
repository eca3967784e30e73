package sender

import (
	"slices"
	"sync"
	"time"
)

// governor bounds what all lanes of this sender together send of what they hold, so that a backlog which its receiver takes
// as fast as it comes does not cost the others their time. It looks at what must not suffer: how late the deliveries are
// that go straight through. When they become later than they were while nothing was drained, what is drained is halved;
// while they are not, it becomes more. When nothing else is sent there is nobody to yield to, and no bound.
//
// Its zero value is ready. What is held has a share at any time, and the lanes have their turns.
type governor struct {
	mu    sync.Mutex        // guards what follows
	pace                    // of all lanes
	now   sight             // what is seen of the present
	left  float64           // deliveries that may be sent at once
	since time.Time         // left was counted
	line  []*backlog        // waits for a turn
	turn  map[*backlog]bool // whether it has come, of those that asked for one
	timer *time.Timer       // gives turns; nil: nobody waits
}

// pace is how many held deliveries are sent in a second, and by what they are judged.
type pace struct {
	rate  float64       // 0: there is no bound
	usual time.Duration // how late a tenth of the others was when nothing was drained; 0: it is not known
}

// sight is a short time in which is counted what is sent.
type sight struct {
	began   time.Time
	late    []time.Duration // of those that go straight through
	drained int
}

const (
	// judgeEvery is how long a sight is; one with too few deliveries is longer.
	judgeEvery = 250 * time.Millisecond
	judgeAtMax = time.Second
	enoughSeen = 20
	// leastDrained is how many held deliveries are sent in a second however late the others are; it is also what a quarter
	// of the others' number is where that is more.
	leastDrained = 50
	// firstDrained is how many are sent in a second at first beside others.
	firstDrained = 1000
	// mostDrained is how many are as good as no bound.
	mostDrained = 20_000
	turnEvery   = 10 * time.Millisecond
)

// next is the pace after a sight.
func (p pace) next(s sight, took time.Duration) pace {
	if len(s.late) == 0 {
		p.rate = 0
		return p
	}
	late := slices.Clone(s.late)
	slices.Sort(late)
	tenth := late[len(late)*9/10]
	least := max(leastDrained, float64(len(s.late))/took.Seconds()/4)
	drained := float64(s.drained) / took.Seconds()
	unknown := p.usual == 0
	switch {
	case p.usual == 0:
		p.usual = late[len(late)/2] // it may be the end of a pile
	case tenth < p.usual: // drains make nobody earlier
		p.usual += (tenth - p.usual) / 2
	case drained <= least*1.1: // so few are hardly felt
		p.usual += (tenth - p.usual) / 16
	}
	if p.rate == 0 {
		p.rate = firstDrained
	}
	switch {
	case unknown && drained > least: // how late they are by themselves is seen first
		p.rate = least
	case tenth > p.usual+max(p.usual/4, time.Millisecond):
		p.rate = max(least, min(p.rate, drained)/2)
	case drained >= p.rate*0.8: // else more is of no use yet
		p.rate += max(least, p.rate/4)
	}
	p.rate = min(max(p.rate, least), mostDrained)
	return p
}

// saw is told of a delivery that goes straight through, how long after its acceptance it came to its lane.
func (g *governor) saw(late time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now.late = append(g.now.late, late)
	g.judge(time.Now())
}

// judge ends the sight when it is over. It is called with the lock.
func (g *governor) judge(now time.Time) {
	took := now.Sub(g.now.began)
	switch {
	case took > 2*judgeAtMax: // nothing was sent for a while
		g.now, g.rate = sight{began: now}, 0
	case took > judgeAtMax, took > judgeEvery && len(g.now.late) >= enoughSeen:
		g.pace = g.next(g.now, took)
		g.now = sight{began: now, late: g.now.late[:0]}
	}
}

// may says whether a lane may send one of what it holds now. If not, the lane is woken when it has its turn.
func (g *governor) may(b *backlog) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.count(now)
	switch come, asked := g.turn[b]; {
	case come:
		delete(g.turn, b)
	case asked:
		return false
	case g.rate == 0, len(g.line) == 0 && g.left >= 1:
		g.left--
	default:
		if g.turn == nil {
			g.turn = map[*backlog]bool{}
		}
		g.turn[b] = false
		g.line = append(g.line, b)
		if g.timer == nil {
			g.timer = time.AfterFunc(turnEvery, g.giveTurns)
		}
		return false
	}
	g.now.drained++
	return true
}

// count counts what may be sent by now. It is called with the lock.
func (g *governor) count(now time.Time) {
	g.judge(now)
	g.left = min(max(g.left, 0)+g.rate*now.Sub(g.since).Seconds(), max(1, g.rate*2*turnEvery.Seconds()))
	g.since = now
}

func (g *governor) giveTurns() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count(time.Now())
	for ; len(g.line) > 0 && (g.left >= 1 || g.rate == 0); g.left-- {
		g.turn[g.line[0]] = true
		g.line[0].wake()
		g.line = g.line[1:]
	}
	g.timer = nil
	if len(g.line) > 0 {
		g.timer = time.AfterFunc(turnEvery, g.giveTurns)
	}
}

// forget is for a lane that is at its end.
func (g *governor) forget(b *backlog) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.turn, b)
	g.line = slices.DeleteFunc(g.line, func(other *backlog) bool { return other == b })
}
