package sender

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// read reads on in HELD.
func (b *backlog) read(ctx context.Context, w *webhook.Webhook, ordered bool) error {
	if !b.loaded {
		if err := b.readTries(ctx); err != nil {
			return err
		}
	}
	for {
		b.mu.Lock()
		room := b.room(w)
		unread, atEnd := b.unread, b.atEnd
		wanted := room > 0 && (unread || ordered && b.unripe())
		b.unread = unread && !wanted // a hint that comes from now on counts
		b.mu.Unlock()
		if !wanted {
			return nil
		}
		floor := uint64(0)
		if ordered && atEnd { // asked before it is read: what is held of all events up to it is there
			var err error
			if floor, err = b.s.matched.Of(ctx, b.shop); err != nil {
				b.hint()
				return err
			}
			if !unread && floor <= b.floor {
				return nil
			}
		}
		batch, more, err := b.s.behind.List(ctx, contract.Held, contract.HeldSubject(b.webhookID), b.next, min(room, readAtOnce), readBytes)
		if err != nil {
			b.hint()
			return err
		}
		b.mu.Lock()
		unreadable := b.add(ctx, batch, w)
		b.unread, b.atEnd = b.unread || more, !more
		if !more {
			b.floor = max(b.floor, floor)
		}
		b.mu.Unlock()
		for _, at := range unreadable { // else the lane would never be empty
			if err := b.s.behind.Remove(ctx, contract.Held, at); err != nil {
				return err
			}
		}
		if !more && (floor > 0 || !ordered) {
			return nil
		}
	}
}

// room is how many deliveries more are to be in lines. It is none before half of those that wait for nothing but their turn are on
// their way: the bus counts what lies behind with each reading, which costs it as much for one delivery as for hundreds. Beyond
// maxInLines there is some only while nothing can be sent before it is known what lies behind. It is called with the lock.
func (b *backlog) room(w *webhook.Webhook) int {
	enough, inLine := aheadInLines, b.sum-b.out
	if b.why != "" {
		enough = readAtOnce / 16 // to probe with
	}
	switch w.Policy.Ordered {
	case profile.ByKey: // others may be behind those of a key that waits
		inLine = b.ripe(enough)
		if b.sum >= maxInLines && (inLine > 0 || b.anyRipe()) {
			return 0
		}
	case profile.ByWebhook:
		if !b.anyRipe() {
			inLine = 0
		}
	}
	if inLine > enough/2 {
		return 0
	}
	return enough - inLine
}

// anyRipe says whether all events were matched that came before any of those that are first in their lines. It is called with the lock.
func (b *backlog) anyRipe() bool {
	for _, l := range b.lines {
		if l.list[0].order <= b.floor {
			return true
		}
	}
	return false
}

// ripe is how many lines, up to enough, have a first delivery that may be sent in its turn. It is called with the lock.
func (b *backlog) ripe(enough int) (n int) {
	for _, l := range b.turn {
		if l.list[0].order <= b.floor {
			n++
		}
		if n == enough {
			break
		}
	}
	return n
}

// unripe says whether what is first in its line waits for the floor to rise. It is called with the lock.
func (b *backlog) unripe() bool {
	return b.latest > b.floor && slices.ContainsFunc(b.turn, func(l *line) bool { return l.list[0].order > b.floor })
}

// readTries reads what is noted of the attempts of held deliveries.
func (b *backlog) readTries(ctx context.Context) error {
	for next, more := uint64(1), true; more; {
		var batch []bus.Stored
		var err error
		if batch, more, err = b.s.behind.List(ctx, contract.Held, contract.TriesSubjects(b.webhookID), next, readAtOnce, readBytes); err != nil {
			return err
		}
		for _, raw := range batch {
			next = raw.Sequence + 1
			t := &busv1.Tries{}
			if err := proto.Unmarshal(raw.Data, t); err != nil {
				b.s.env.Log.ErrorContext(ctx, "what is noted of a delivery's attempts cannot be read", slog.String("subject", raw.Subject), slog.Any("error", err))
				continue
			}
			b.noted[contract.DeliveryOfTries(raw.Subject)] = tries{int(t.Attempt), int(t.Uncounted), t.Due.AsTime()}
		}
	}
	b.loaded = true
	return nil
}

// add puts what was read into its lines, and gives the places of what is no delivery. It is called with the lock.
func (b *backlog) add(ctx context.Context, batch []bus.Stored, w *webhook.Webhook) (unreadable []uint64) {
	var fresh []*waiting
	for _, raw := range batch {
		b.next = raw.Sequence + 1
		j, err := b.parse(raw, w)
		if err != nil {
			b.s.env.Log.ErrorContext(ctx, "a message in HELD is no delivery; it is left out", slog.Any("error", err))
			unreadable = append(unreadable, raw.Sequence)
			continue
		}
		// What is noted may be of an earlier time that it was held: then its number is no higher.
		if t := b.noted[j.d.ID]; t.attempt > j.d.Attempt {
			j.d.Attempt, j.d.Uncounted, j.d.Due = t.attempt, t.uncounted, t.due
		}
		delete(b.noted, j.d.ID) // from now on it is known with the delivery, and goes with it
		h := &waiting{sequence: raw.Sequence, accepted: j.d.AcceptedAt, j: j, tries: tries{j.d.Attempt, j.d.Uncounted, j.d.Due}}
		if w.Policy.IsOrdered() {
			h.order = cmp.Or(j.d.Sequence, 1)
			b.latest = max(b.latest, h.order)
			b.floor = max(b.floor, j.d.MatchedThrough)
		}
		j.held = h
		fresh = append(fresh, h)
	}
	for _, h := range fresh {
		key := lineOf(&h.j.d, w)
		l := b.lines[key]
		if l == nil {
			l = &line{key: key}
			b.lines[key] = l
		}
		h.line = l
		at, _ := slices.BinarySearchFunc(l.list, h, func(a, b *waiting) int { return cmp.Compare(a.order, b.order) })
		for at < len(l.list) && l.list[at].order == h.order {
			at++
		}
		if l.out && at == 0 {
			at = 1
		}
		l.list = slices.Insert(l.list, at, h)
		b.sum++
		if b.bytes += h.j.size(); b.bytes > maxPayload {
			b.park(h)
		}
		b.advance(l)
	}
	return unreadable
}

// lineOf is the line that a delivery belongs to.
func lineOf(d *contract.Delivery, w *webhook.Webhook) string {
	switch {
	case w.Policy.Ordered == profile.ByWebhook:
		return ""
	case w.Policy.Ordered == profile.ByKey && d.Key != "":
		return "key " + d.Key
	}
	return "delivery " + d.ID
}

func (b *backlog) parse(raw bus.Stored, w *webhook.Webhook) (*job, error) {
	d, err := contract.ParseDelivery(raw.Header, raw.Data)
	return &job{d: d, header: raw.Header, w: w, from: b}, err
}

// park leaves a delivery's payload on the bus.
func (b *backlog) park(h *waiting) {
	b.bytes -= h.j.size()
	h.j = nil
	b.parked[h.sequence] = h
}

// fetch reads a payload that was left on the bus, and those that were left behind it: they come next, more or less.
func (b *backlog) fetch(h *waiting, w *webhook.Webhook) bool {
	ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
	defer cancel()
	batch, _, err := b.s.behind.List(ctx, contract.Held, contract.HeldSubject(b.webhookID), h.sequence, fetchAtOnce, readBytes)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, raw := range batch {
		parked := b.parked[raw.Sequence]
		if parked == nil {
			continue
		}
		j, problem := b.parse(raw, w)
		if problem != nil {
			if parked == h {
				err = problem
			}
			continue
		}
		j.held, parked.j = parked, j
		b.bytes += j.size()
		delete(b.parked, raw.Sequence)
	}
	switch {
	case h.j != nil:
		return true
	case err == nil: // it was discarded meanwhile
		b.gone(h)
	default:
		b.s.env.Log.WarnContext(ctx, "a held delivery cannot be read, trying again", slog.String("webhook_id", b.webhookID), slog.Any("error", err))
		h.line.out = false
		b.out--
		b.rest(h.line, time.Second)
	}
	return false
}

// forget counts a delivery's payload no more. It is called with the lock.
func (b *backlog) forget(h *waiting) {
	if h.j != nil {
		b.bytes -= h.j.size()
	}
	delete(b.parked, h.sequence)
}
