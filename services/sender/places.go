package sender

import (
	"time"

	"golang.org/x/time/rate"

	"shopbell.dev/pkg/webhook"
)

// reserve is how many of the sender's places are for shops that have no more than so many exchanges under way: one shop's receivers that hang
// cannot take all places, however many of them get something in the same moment.
func (l *lanes) reserve() int { return l.limit / 8 }

// mayTake says whether a shop may have one more of the sender's places. It is called with the lock.
func (l *lanes) mayTake(shop string) bool {
	free := l.limit - l.running
	return free > l.reserve() || free > 0 && l.crowd.part(shop).under < l.reserve()
}

// pump begins what a lane has places for. It is called with the lock.
func (l *lanes) pump(ln *lane) {
	for l.begin(ln, false) {
	}
}

// begin begins a lane's first job, if there is a place for it, which may be one that its shop has already (inTurn). It is called with the lock.
func (l *lanes) begin(ln *lane, inTurn bool) bool {
	if l.closed || len(ln.queue) == 0 {
		return false
	}
	j := ln.queue[0]
	switch {
	case ln.busy >= l.places(j.w):
		return false
	case l.running >= l.limit:
		l.line(&l.ready, ln)
		return false
	case !inTurn && !l.mayTake(j.w.ShopID):
		l.line(&l.crowding, ln)
		return false
	}
	if wait := ln.paced(j.w, l.share()); wait > 0 {
		if !ln.waking {
			ln.waking = true
			time.AfterFunc(wait, func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				ln.waking = false
				l.pump(ln)
			})
		}
		return false
	}
	shift(&ln.queue)
	ln.busy++
	l.running++
	j.placed, j.under = true, l.crowd.begin(j.w.ShopID)
	l.left(j)
	l.run(j)
	return true
}

// line puts a lane at the end of a line for places of the sender, unless it is in one.
func (l *lanes) line(line *[]*lane, ln *lane) {
	if !ln.ready {
		ln.ready = true
		*line = append(*line, ln)
	}
}

// next begins a job of the lane that is first in a line.
func (l *lanes) next(line *[]*lane, inTurn bool) {
	ln := shift(line)
	ln.ready = false
	if l.begin(ln, inTurn) && len(ln.queue) > 0 {
		l.line(line, ln)
	}
}

// paced is how long the lane has to wait for its rate. When it is 0 the job's part of the rate is taken.
func (ln *lane) paced(w *webhook.Webhook, share int) time.Duration {
	if w.Policy.RatePerSecond == 0 {
		ln.pace = nil
		return 0
	}
	limit := rate.Limit(w.Policy.RatePerSecond / float64(share))
	if ln.pace == nil {
		ln.pace = rate.NewLimiter(limit, 1)
	}
	now := time.Now()
	if ln.pace.Limit() != limit {
		ln.pace.SetLimitAt(now, limit)
	}
	r := ln.pace.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// queue puts a job at the end of its lane's queue. It is called with the lock.
func (l *lanes) queue(ln *lane, j *job) {
	j.queued = time.Now()
	ln.queue = append(ln.queue, j)
	if !ln.queued {
		ln.queued = true
		l.queued = append(l.queued, ln)
	}
	l.waiting++
	l.bytes += j.size()
	l.crowd.wait(j.w.ShopID, 1)
}

// left is told that a job is in its lane's queue no more. It is called with the lock.
func (l *lanes) left(j *job) {
	l.waiting--
	l.bytes -= j.size()
	l.crowd.wait(j.w.ShopID, -1)
	l.room.Broadcast()
}

// done gives back the places of a job whose exchange is over, or was not made (took is 0 then), and begins what waited
// for them. It may be called again, which does nothing.
func (l *lanes) done(j *job, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !j.placed {
		return
	}
	j.placed = false
	inTurn := l.crowd.part(j.w.ShopID).under > l.reserve()
	l.crowd.end(j.under)
	ln := l.of(j.d.WebhookID)
	ln.busy--
	l.running--
	if took > 0 {
		ln.took, l.typical = quartile(ln.took, took), quartile(l.typical, took)
	}
	if len(l.ready)+len(l.crowding) == 0 {
		l.pump(ln)
	} else if len(ln.queue) > 0 {
		l.line(&l.ready, ln) // others wait longer
	}
	if inTurn && len(l.crowding) > 0 {
		l.next(&l.crowding, true)
	}
	for len(l.ready) > 0 && l.running < l.limit {
		l.next(&l.ready, false)
	}
	for len(l.crowding) > 0 && l.mayTake(l.crowding[0].shop) {
		l.next(&l.crowding, false)
	}
}
