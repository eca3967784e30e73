package sender

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/webhook"
)

// job is one delivery on its way through a lane.
type job struct {
	d contract.Delivery
	m bus.Message // from DELIVERIES or LATER; nil when the delivery was held
	w *webhook.Webhook

	// Of a delivery that was held:
	from *backlog
	held *waiting

	header nats.Header // has the trace
	queued time.Time   // when it began to wait for its lane
	placed bool        // it has its places; guarded by the lanes' lock
	under  *underway   // while it has

	late time.Duration // after its event's acceptance it came to its lane; 0: it did not go straight there
}

// straight says that the delivery has not waited for anything but those before it: how late it is tells how busy all are.
func (j *job) straight() bool {
	return j.from == nil && j.d.Attempt == 1 && j.d.Deferred == 0 && !j.d.ByHand() && !j.d.Bulk && j.w.Delay == 0
}

// size is how much of the memory for what waits the job takes.
func (j *job) size() int { return len(j.d.Data) + 1024 }

// lane is one webhook's part of the sender. It exists while anything goes on in it.
type lane struct {
	id, shop   string
	busy       int    // exchanges under way
	queue      []*job // waits for the lane, in order
	held       bool   // what comes is held, and not taken
	why        string // it holds
	unwell     bool   // because its receiver is not well
	health     health
	failing    []later       // failed since the last success, or put off, and waiting for their time; none while the lane holds
	host       *host         // where its receiver is; nil: it has always answered
	shut       time.Time     // is among the webhooks in a row that could not connect there, which began then
	silent     time.Time     // the same of its shop's that were not answered
	waits      bool          // is in the host's lanes
	puttingOff int           // deliveries that will be among failing
	pace       *rate.Limiter // nil: no limit
	took       time.Duration // what an exchange takes with this receiver
	used       time.Time
	ready      bool // in lanes.ready or lanes.crowding
	queued     bool // in lanes.queued
	waking     bool // a timer will pump it
}

// lanes are all lanes that are not idle. A delivery goes through when its webhook's lane has a place for it and the
// sender has one; else it waits in its lane's queue, in memory, while the bus keeps it. Places that become free go round
// the lanes that wait, so that none is served before another has had its turn. A lane whose queue does not get shorter
// because its receiver is slow is to be held instead: nothing waits behind it but its own.
type lanes struct {
	run   func(*job) // begins an exchange; called with the lock
	broke func(hold) // is told of what is to be held because a receiver is not well; called with the lock
	share func() int // among how many senders a webhook's limits are shared out
	limit int        // of exchanges under way, in all lanes

	mu       sync.Mutex // guards what follows, and the lanes themselves
	room     sync.Cond  // is signalled when what waits becomes less
	all      map[string]*lane
	ready    []*lane // have a job and a place for it, and wait for one of the sender's
	crowding []*lane // the same, of shops that have enough of them
	queued   []*lane // had something in their queue when they were looked at last, or since
	running  int
	waiting  int // jobs in queues
	bytes    int // their size
	failing  int // deliveries that can be called back
	hosts    map[string]*host
	crowd    crowd
	typical  time.Duration // what an exchange takes with receivers that are quick
	closed   bool
}

// Bounds of what waits in memory, in all lanes.
const (
	maxWaiting = 4096
	maxBytes   = 64 << 20
)

func newLanes(limit int, share func() int) *lanes {
	l := &lanes{share: share, limit: limit, all: map[string]*lane{}, hosts: map[string]*host{}}
	l.room.L = &l.mu
	return l
}

// of gives a webhook's lane. It is called with the lock.
func (l *lanes) of(webhookID string) *lane {
	ln := l.all[webhookID]
	if ln == nil {
		ln = &lane{id: strings.Clone(webhookID)}
		l.all[ln.id] = ln
	}
	ln.used = time.Now()
	return ln
}

// admission says what became of a job that asked to be admitted.
type admission int

const (
	admitted admission = iota
	overflow           // it is to be held: the lane holds, or is too slow for what comes
	closed             // the sender stops
)

// admit takes a job into its lane. It blocks while too much waits in memory for want of places of the sender's, which is
// so when the sender itself is too slow. What was held before is always admitted.
func (l *lanes) admit(j *job) admission {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := maxWaiting
	if !j.straight() { // so that there is always some for what is
		room /= 2
	}
	for {
		ln := l.of(j.d.WebhookID)
		switch {
		case l.closed:
			return closed
		case j.from == nil && ln.held && !j.d.ByHand(), j.from == nil && len(ln.queue) >= smallQueue && l.slow(ln, j.w, room):
			return overflow
		case j.from != nil || l.waiting < room && l.bytes < maxBytes:
			ln.shop = j.w.ShopID
			l.queue(ln, j)
			l.pump(ln)
			return admitted
		}
		l.room.Wait()
	}
}

const (
	// smallQueue is how many jobs may wait in any lane.
	smallQueue = 256
	// longWait is how long a job should wait in memory at most.
	longWait = 2 * time.Second
)

// slow says whether a lane has fallen behind because of its receiver, and not because the sender has too much to do:
// what is at its end would wait long, or longer than elsewhere, or takes the room of others.
func (l *lanes) slow(ln *lane, w *webhook.Webhook, room int) bool {
	const (
		longer = 4
		quick  = 10 * time.Millisecond // is not slow, whatever others are
	)
	others := l.running > ln.busy || l.waiting > len(ln.queue)
	if time.Since(ln.queue[0].queued) > longWait || others && len(ln.queue) >= room/2 {
		return true
	}
	wait := time.Duration(len(ln.queue)) * ln.took / time.Duration(l.places(w))
	if pace := w.Policy.RatePerSecond; pace > 0 {
		wait = max(wait, time.Duration(float64(len(ln.queue))/pace*float64(l.share())*float64(time.Second)))
	}
	return wait > longWait || ln.took > quick && ln.took > longer*l.typical
}

// places is how many exchanges this sender may have under way with a webhook.
func (l *lanes) places(w *webhook.Webhook) int {
	if w.Policy.Ordered == profile.ByWebhook {
		return 1
	}
	share := l.share()
	return max(1, (w.Policy.InFlight()+share-1)/share)
}

// shift takes what is first in a queue out of it. Its array must not go on keeping that: a lane's latest delivery would stay in
// memory as long as the lane.
func shift[T any](queue *[]T) (first T) {
	var none T
	first, (*queue)[0] = (*queue)[0], none
	if *queue = (*queue)[1:]; len(*queue) == 0 {
		*queue = nil // a lane is remembered for long after its latest delivery
	}
	return first
}

// quartile is the lower quartile of what there was and one value more, more or less: it falls by three steps for a value
// below it and rises by one for a value above. What takes long now and then does not move it.
func quartile(of, value time.Duration) time.Duration {
	step := max(of/64, time.Microsecond)
	switch {
	case of == 0:
		return value
	case value < of:
		return of - 3*step
	}
	return of + step
}

// note takes the result of an attempt into the lane's health, and says why the receiver is not well, or nothing. Then the
// lane holds from now on, with what was in its queue and, before that, what waits for a later attempt. When the receiver is found to
// be well after it was away, or its host to answer, note gives what waits, to be sent early; what was put off also when it was not. An attempt that was sent early and that
// nobody answered says no more of the receiver than is known: else probing its host would have the lane hold.
func (l *lanes) note(j *job, x *exchange, v verdict, early bool) (why string, back []called) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.of(j.d.WebhookID)
	now := time.Now()
	wasAway := ln.health.away(now)
	if !early || !x.unanswered() || x.retryAfter > 0 {
		why = ln.health.note(j.w.Policy, v, x, now)
	}
	back = l.heard(ln, j.w.URL, x, now)
	if v.status == delivered {
		waits := l.recall(ln, all)
		if wasAway {
			ln.health.back = now
		} else { // what failed waits for its time
			waits = slices.DeleteFunc(waits, func(d later) bool { return !d.putOff })
		}
		if len(waits) > 0 {
			back = append(back, called{ln.id, waits})
		}
	}
	if why != "" {
		ln.unwell = true
		if !ln.held || ln.why == "" {
			ln.why = why
		}
	}
	if why == "" || j.from != nil {
		return why, back
	}
	what := hold{why: why, broken: true, rest: x.retryAfter, shop: j.d.ShopID, webhookID: j.d.WebhookID}
	if !ln.held {
		ln.held, ln.why = true, why
		what.called, what.jobs = l.recall(ln, all), l.empty(ln)
	}
	l.broke(what) // before anything else can be held for it
	return why, back
}

// whyUnwell says why the lane's receiver is known not to be well; empty: it is not known to be so.
func (l *lanes) whyUnwell(webhookID string) (why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln := l.of(webhookID); ln.unwell {
		return ln.why
	}
	return ""
}

// unwell adds to a hold of a lane whose receiver is not well what waits for a later attempt.
func (l *lanes) unwell(what hold) hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.of(what.webhookID)
	ln.unwell, ln.why = true, what.why
	what.called = l.recall(ln, all)
	return what
}

// recovered says that a lane's receiver is well again.
func (l *lanes) recovered(webhookID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(webhookID).unwell = false
}

// empty takes a lane's queue, but for what is sent by hand.
func (l *lanes) empty(ln *lane) (out []*job) {
	var stay []*job
	for _, j := range ln.queue {
		if j.from != nil || j.d.ByHand() {
			stay = append(stay, j)
			continue
		}
		out = append(out, j)
		l.left(j)
	}
	ln.queue = stay
	return out
}

// hold makes a lane hold what comes, for the hold's reason unless it does so already for another, and adds what was in its
// queue. Unwell says that what waits for a later attempt is called back.
func (l *lanes) hold(what hold, unwell bool) hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.of(what.webhookID)
	if !ln.held {
		ln.held, ln.why = true, what.why
	}
	if unwell {
		ln.unwell, ln.why = true, what.why
		what.called = l.recall(ln, all)
	}
	what.why, what.jobs = ln.why, append(l.empty(ln), what.jobs...)
	return what
}

// late gives the lanes in which a delivery waits for longer than it should, with their shops. It looks at none but those that had something
// in their queue: nobody is admitted meanwhile, and there may be a hundred thousand lanes.
func (l *lanes) late(now time.Time) map[string]string {
	out := map[string]string{}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queued = slices.DeleteFunc(l.queued, func(ln *lane) bool {
		ln.queued = len(ln.queue) > 0
		if ln.queued && ln.queue[0].from == nil && !ln.queue[0].d.ByHand() && !ln.held && now.Sub(ln.queue[0].queued) > longWait {
			out[ln.id] = ln.queue[0].d.ShopID
		}
		return !ln.queued
	})
	return out
}

// open makes a lane take what comes.
func (l *lanes) open(webhookID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.of(webhookID)
	ln.held, ln.unwell = false, false
}

// withdraw takes a backlog's jobs out of its lane's queue, and says how many they were.
func (l *lanes) withdraw(b *backlog) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.of(b.webhookID)
	ln.queue = slices.DeleteFunc(ln.queue, func(j *job) bool {
		if j.from != b {
			return false
		}
		l.left(j)
		n++
		return true
	})
	return n
}

// placesOf is places for those without the lock.
func (l *lanes) placesOf(w *webhook.Webhook) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.places(w)
}

// close ends admission, and gives everything that waits.
func (l *lanes) close() (out []*job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, ln := range l.all {
		out = append(out, ln.queue...)
		ln.queue = nil
	}
	l.room.Broadcast()
	return out
}

// idleAfter is how long a lane in which nothing goes on is remembered, with what is known of its receiver's health.
const idleAfter = 10 * time.Minute

// forgetAtOnce is how many lanes are looked at before others may have the lock.
const forgetAtOnce = 256

// forget drops the lanes in which nothing goes on. It looks at all of them, and lets others have the lock again and again meanwhile.
func (l *lanes) forget(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	looked := 0
	for id, ln := range l.all { // nobody else takes one out; of those that come meanwhile some are not met
		if looked++; looked%forgetAtOnce == 0 {
			l.mu.Unlock()
			runtime.Gosched()
			l.mu.Lock()
		}
		before := len(ln.failing)
		ln.failing = slices.DeleteFunc(ln.failing, func(d later) bool { return now.Sub(d.due) > idleAfter }) // another sender had it
		l.failing -= before - len(ln.failing)
		idle := ln.busy == 0 && ln.puttingOff == 0 && len(ln.queue) == 0 && len(ln.failing) == 0 && !ln.held && !ln.waking
		if idle && (ln.health.failures == 0 && now.Sub(ln.used) > time.Minute || now.Sub(ln.used) > idleAfter) {
			delete(l.all, id)
		}
	}
	l.forgetHosts(now)
}
