package sender

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/webhook"
)

// backlog is what is held for one webhook whose lane is ours: it reads HELD, and gives the lane what may be sent, in
// order. It ends when nothing is held any more, when the webhook is switched off, or when the lane is not ours any more.
//
// Deliveries with the same key form a line, of which only the first may be sent. Without an order each is a line of its
// own. While the receiver is not well, one delivery at a time is sent as a probe.
type backlog struct {
	s               *Sender
	shop, webhookID string
	woken           chan struct{}

	mu      sync.Mutex // guards what follows
	lines   map[string]*line
	turn    []*line // lines whose first delivery may be sent now, in the order of their turns
	out     int     // deliveries with the lane
	writing int     // of these: their exchange is over, and what came of it is being written
	sum     int     // deliveries in lines
	bytes   int     // of payload that is in memory

	parked map[uint64]*waiting // deliveries whose payload is not, by their sequence

	next    uint64           // sequence in HELD to read on from
	unread  bool             // there may be more
	atEnd   bool             // there was not when it was read the last time
	wishes  bool             // somebody may have asked for what is held to be cancelled
	floor   uint64           // up to here every event was matched, and what is held of them has been read
	latest  uint64           // the last event of which something was held
	noted   map[string]tries // of the attempts of deliveries that have not been read yet
	loaded  bool             // noted has been read
	emptied time.Time
	ends    bool // the webhook was switched off or deleted: what is left is for a backlog to come

	why     string // the receiver is not well; empty: it is
	since   time.Time
	probe   time.Time             // the time of the next probe
	allow   int                   // deliveries that may be with the lane at once: more with each that succeeds
	resting map[*line]*time.Timer // lines whose first delivery waits for its time
}

// line is held deliveries that are sent one after the other, in the order in which their events were accepted.
type line struct {
	key  string
	list []*waiting
	busy bool // it has its turn, or waits for its time, or its first is out
	out  bool // its first is with the lane
}

// waiting is one held delivery.
type waiting struct {
	sequence uint64 // in HELD
	order    uint64 // its event's in EVENTS; 0: none is kept
	accepted time.Time
	tries    tries
	j        *job // nil: its payload is not in memory
	line     *line
	cancel   string // its attempt, which is under way, is the last
	answered bool   // its exchange is over, and what came of it is being written
}

// fresh says that what is held waits for nothing but its turn.
func (h *waiting) fresh() bool { return h.j != nil && time.Since(h.j.d.MatchedAt) < longWait }

const (
	readAtOnce = 256
	readBytes  = 4 << 20
	// maxPayload is about how much payload of one backlog is in memory.
	maxPayload = 8 << 20
	// fetchAtOnce is how many payloads are read together of those that are not.
	fetchAtOnce = 64
	// aheadInLines is how many deliveries a backlog has in line that may be sent in their turn, beside those that are on their way.
	aheadInLines = 512
	// maxInLines is how many deliveries an ordered backlog knows of: those behind one that is stuck are among them.
	maxInLines = 200_000
	// floorEvery is how soon it is asked again how far events were matched.
	floorEvery = 2 * time.Millisecond
	// orderedIdle is how long an ordered lane without deliveries stays with its owner.
	orderedIdle = 10 * time.Second
)

func newBacklog(s *Sender, shop, webhookID string) *backlog {
	return &backlog{
		s: s, shop: shop, webhookID: webhookID, woken: make(chan struct{}, 1), lines: map[string]*line{}, noted: map[string]tries{}, parked: map[uint64]*waiting{},
		next: 1, unread: true, wishes: true, allow: 1, resting: map[*line]*time.Timer{},
	}
}

// hint says that there may be more to read.
func (b *backlog) hint() {
	b.mu.Lock()
	b.unread = true
	b.mu.Unlock()
	b.wake()
}

func (b *backlog) wake() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
}

// broke says that the receiver is not well, and asks for a rest (0: it does not say).
func (b *backlog) broke(why string, rest time.Duration) {
	b.mu.Lock()
	defer b.wake()
	defer b.mu.Unlock()
	if b.why == "" {
		b.since = time.Now()
	}
	b.why, b.allow = why, 1
	b.probe = time.Now().Add(max(firstProbe, min(rest, longestRest)))
	b.rouse()
}

// suspect has the receiver of a lane that was taken over probed before more is sent.
func (b *backlog) suspect(e entry) {
	b.why, b.since, b.probe = e.Reason, e.Since.AsTime(), time.Now()
}

// longestRest is how long a receiver may ask not to be probed.
const longestRest = time.Hour

// probes says whether what is sent now is a probe.
func (b *backlog) probes() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why != ""
}

// impatient says whether a delivery has been held for a receiver that is not well for longer than its schedule would
// have gone on. Both have to be so long ago: what was delayed, or is sent again by a job, was matched long before.
func (b *backlog) impatient(j *job) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	patience := j.w.Policy.Patience()
	return b.why != "" && time.Since(b.since) > patience && time.Since(j.d.MatchedAt) > patience
}

// unwellFor is how long the receiver has not been well.
func (b *backlog) unwellFor() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.since)
}

// run works on the backlog until ctx ends or there is nothing left to do.
func (b *backlog) run(ctx context.Context) {
	defer b.s.governor.forget(b)
	defer b.s.lanes.withdraw(b)
	for ctx.Err() == nil {
		e, known := b.s.register.lane(b.webhookID)
		if !known || e.Owner != b.s.register.me {
			return // somebody has taken us for dead
		}
		wait, more, err := b.step(ctx, e)
		if err != nil && ctx.Err() == nil {
			b.s.env.Log.WarnContext(ctx, "what is held for a webhook cannot be worked on, trying again", slog.String("webhook_id", b.webhookID), slog.Any("error", err))
			wait = time.Second
		} else if !more {
			return
		}
		if wait == 0 {
			continue
		}
		select {
		case <-b.woken:
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// step reads, sends, and says how long to wait for the next step unless something happens. More is false at the end.
func (b *backlog) step(ctx context.Context, e entry) (wait time.Duration, more bool, err error) {
	w := b.s.webhooks.Get(b.shop, b.webhookID)
	if w == nil || w.Off() != "" {
		if w, err = b.s.webhooks.Fetch(ctx, b.shop, b.webhookID); err != nil {
			return 0, true, err
		}
	}
	if err := b.grant(ctx); err != nil {
		return 0, true, err
	}
	b.mu.Lock()
	b.ends = b.ends || w == nil || w.Off() != ""
	ends, out := b.ends, b.out
	b.mu.Unlock()
	switch {
	case ends && out > 0: // what is under way ends first
		n := b.s.lanes.withdraw(b) // their lines have no more turns here, even if the webhook is on again by now
		b.mu.Lock()
		b.out -= n
		b.mu.Unlock()
		return 100 * time.Millisecond, true, nil
	case w == nil:
		if err := b.s.discardDeleted(ctx, b.webhookID); err != nil {
			return 0, true, err
		}
		return b.leave(ctx, e)
	case ends: // nothing is sent before it is on again
		if w.Off() != "" {
			if err := b.s.discardOutlived(ctx, b.webhookID); err != nil {
				return 0, true, err
			}
		}
		return b.leave(ctx, e)
	}
	ordered := w.Policy.IsOrdered()
	if err := b.read(ctx, w, ordered); err != nil {
		return 0, true, err
	}
	wait = b.send(w, ordered)
	b.mu.Lock()
	empty := b.sum == 0 && b.out == 0 && !b.unread
	if !empty {
		b.emptied = time.Time{}
	} else if b.emptied.IsZero() {
		b.emptied = time.Now()
	}
	leave := empty && (b.why == "" || time.Now().After(b.probe)) && (!ordered || time.Since(b.emptied) > orderedIdle)
	b.mu.Unlock()
	if leave {
		return b.leaveEmpty(ctx, e)
	}
	return wait, true, nil
}

// leaveEmpty lets the lane go, unless something is held after all.
func (b *backlog) leaveEmpty(ctx context.Context, e entry) (time.Duration, bool, error) {
	last, err := b.s.behind.Last(ctx, contract.Held, contract.HeldSubject(b.webhookID))
	if err != nil {
		return 0, true, err
	}
	if last >= b.next {
		b.hint()
		return 0, true, nil
	}
	// What is still noted is of deliveries that are not held any more: whoever sent them was killed before he could take the note away.
	for deliveryID := range b.noted {
		if _, err := b.s.behind.RemoveAll(ctx, contract.Held, contract.TriesSubject(b.webhookID, deliveryID)); err != nil {
			return 0, true, err
		}
		delete(b.noted, deliveryID)
	}
	return b.leave(ctx, e)
}

func (b *backlog) leave(ctx context.Context, e entry) (time.Duration, bool, error) {
	if _, err := b.s.register.letGo(ctx, e); err != nil {
		return 0, true, err
	}
	b.s.lanes.open(b.webhookID)
	return 0, false, nil
}

// advance gives a line its turn, or has it wait for its time. It is called with the lock.
func (b *backlog) advance(l *line) {
	if l.busy {
		return
	}
	if len(l.list) == 0 {
		delete(b.lines, l.key)
		return
	}
	l.busy = true
	if wait := time.Until(l.list[0].tries.due); wait > 0 && b.why == "" && l.list[0].order > 0 {
		b.rest(l, wait)
		return
	}
	at := len(b.turn)
	for l.list[0].order == 0 && at > 0 && b.turn[at-1].list[0].accepted.After(l.list[0].accepted) {
		at-- // it failed first, and was held last
	}
	b.turn = slices.Insert(b.turn, at, l)
}

// rest gives a line its turn after a while. It is called with the lock.
func (b *backlog) rest(l *line, wait time.Duration) {
	b.resting[l] = time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.wake()
		defer b.mu.Unlock()
		if b.resting[l] != nil {
			delete(b.resting, l)
			b.turn = append(b.turn, l)
		}
	})
}

// rouse gives all lines that rest their turn now. It is called with the lock.
func (b *backlog) rouse() {
	for l, timer := range b.resting {
		timer.Stop()
		delete(b.resting, l)
		b.turn = append(b.turn, l)
	}
}

// send gives the lane what may be sent, and says how long nothing more will be unless something happens.
func (b *backlog) send(w *webhook.Webhook, ordered bool) time.Duration {
	const long = time.Minute
	for {
		b.mu.Lock()
		now := time.Now()
		places := b.s.lanes.placesOf(w)
		full := b.out-b.writing >= min(b.allow, 2*places) || b.out >= 8*places
		if b.why != "" {
			full = b.out > 0
			if now.Before(b.probe) {
				defer b.mu.Unlock()
				return b.probe.Sub(now)
			}
		}
		if full {
			b.mu.Unlock()
			return long
		}
		l, unripe := b.take(ordered)
		if l == nil {
			b.mu.Unlock()
			if unripe {
				return floorEvery
			}
			if ordered {
				return orderedIdle / 2
			}
			return long
		}
		h := l.list[0]
		if drained := b.why == "" && (!ordered || !h.fresh()); drained && !b.s.governor.may(b) {
			b.turn = slices.Insert(b.turn, 0, l)
			b.mu.Unlock()
			return long
		}
		l.out = true
		b.out++
		parked := h.j == nil
		b.mu.Unlock()
		if parked && !b.fetch(h, w) {
			continue
		}
		h.j.w = w
		h.j.d.Attempt, h.j.d.Uncounted, h.j.d.Due = h.tries.attempt, h.tries.uncounted, h.tries.due
		if b.s.lanes.admit(h.j) != admitted {
			return long // the sender stops
		}
	}
}

// take takes the line whose turn it is; unripe says that there are others whose events' order is not certain yet. It is
// called with the lock.
func (b *backlog) take(ordered bool) (l *line, unripe bool) {
	for i, l := range b.turn {
		if ordered && l.list[0].order > b.floor {
			unripe = true
			continue
		}
		if i == 0 {
			shift(&b.turn)
		} else {
			b.turn = slices.Delete(b.turn, i, i+1)
		}
		return l, unripe
	}
	return nil, unripe
}

// gone takes a delivery that is at its end out of its line. It is called with the lock.
func (b *backlog) gone(h *waiting) {
	l := h.line
	b.forget(h)
	shift(&l.list)
	l.busy, l.out = false, false
	b.sum--
	b.out--
	b.advance(l)
}

// answered is told that the exchange of a delivery is over: the lane has room for another one while what came of it is written.
func (b *backlog) answered(j *job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j.held.answered = true
	b.writing++
	b.wake()
}

// followed says that others wait for what came of a delivery.
func (b *backlog) followed(h *waiting) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(h.line.list) > 1
}

// finished is told what came of a delivery.
func (b *backlog) finished(ctx context.Context, j *job, r result, err error) {
	h := j.held
	if err == nil && !r.stays {
		err = b.s.behind.Remove(ctx, contract.Held, h.sequence)
		if err == nil && h.tries.attempt > 1 {
			_, err = b.s.behind.RemoveAll(ctx, contract.Held, contract.TriesSubject(b.webhookID, j.d.ID))
		}
	}
	if err != nil && ctx.Err() == nil {
		b.s.env.Log.ErrorContext(ctx, "held delivery not finished, it is sent again", slog.String("delivery_id", j.d.ID), slog.Any("error", err))
	}
	b.mu.Lock()
	defer b.wake()
	defer b.mu.Unlock()
	if h.answered {
		h.answered = false
		b.writing--
	}
	b.wishes = b.wishes || h.cancel != "" // the wish can go, and the delivery too if it is still held
	if b.judge(j, r) {
		// What has failed before and waits for its time is called back, here and with the other senders.
		b.s.holder.put(b.s.lanes.unwell(hold{why: r.why, broken: true, rest: r.rest, shop: b.shop, webhookID: b.webhookID}))
	}
	if err == nil && !r.stays {
		b.gone(h)
		return
	}
	l := h.line
	l.out = false
	b.out--
	if err != nil {
		b.rest(l, time.Second)
		return
	}
	h.tries = r.next
	l.busy = false
	b.advance(l)
}

// judge takes in what an attempt says of the receiver, and says whether it is news that it is not well. It is called with
// the lock.
func (b *backlog) judge(j *job, r result) (unwell bool) {
	now := time.Now()
	switch {
	case r.well && b.why != "": // it is well again: what waits for its time does so no longer
		b.why, b.allow = "", 2
		b.rouse()
		b.s.lanes.recovered(b.webhookID)
	case r.well:
		b.allow = min(2*b.allow, 1<<16)
	case r.why != "" && b.why == "":
		b.why, b.since, b.allow = r.why, now, 1
		b.probe = now.Add(max(firstProbe, min(r.rest, longestRest)))
		b.rouse()
		return true
	case r.why != "":
		b.probe = now.Add(max(nextProbe(j.w.Policy, now.Sub(b.since), b.s.backlogs.count()), min(r.rest, longestRest)))
	}
	return false
}
