package sender

import (
	"context"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
)

// wished says that somebody may have asked for a held delivery to be cancelled.
func (b *backlog) wished() {
	b.mu.Lock()
	b.wishes = true
	b.mu.Unlock()
	b.wake()
}

// unheard says whether a wish has come that was not looked at.
func (b *backlog) unheard() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wishes
}

// grant cancels the held deliveries of which it was asked. It is the lane's owner who does it, so that nobody sends meanwhile what
// is cancelled; he may own the lane for that alone, while its webhook is off. Whoever is killed is followed by another, who finds
// the wishes where they lie.
func (b *backlog) grant(ctx context.Context) error {
	b.mu.Lock()
	wished := b.wishes
	b.wishes = false // one that comes from now on counts
	b.mu.Unlock()
	if !wished {
		return nil
	}
	err := b.grantAll(ctx)
	if err != nil {
		b.wished()
	}
	return err
}

func (b *backlog) grantAll(ctx context.Context) error {
	wishes := map[string]wish{} // by delivery
	err := b.s.eachHeld(ctx, contract.CancelSubjects(b.webhookID), func(raw bus.Stored) (bool, error) {
		d, _ := contract.ParseDelivery(raw.Header, raw.Data) // one that cannot be read is for no delivery, and goes
		wishes[d.ID] = wish{raw.Sequence, d.Cancel}
		return true, nil
	})
	if err != nil || len(wishes) == 0 {
		return err
	}
	later := map[string]bool{}
	err = b.s.eachHeld(ctx, contract.HeldSubject(b.webhookID), func(raw bus.Stored) (bool, error) {
		d, _ := contract.ParseDelivery(raw.Header, raw.Data) // what is no delivery was asked for by nobody
		asked, ok := wishes[d.ID]
		switch {
		case !ok:
			return true, nil
		case b.underWay(raw.Sequence, asked.reason):
			later[d.ID] = true
			return true, nil
		}
		if err := b.s.change(bus.Extract(ctx, raw.Header), &d, cancelled, asked.reason); err != nil {
			return false, err
		}
		if err := b.s.removeHeld(ctx, raw.Sequence, &d); err != nil {
			return false, err
		}
		b.drop(raw.Sequence)
		return true, nil
	})
	if err != nil {
		return err
	}
	for id, asked := range wishes {
		if later[id] {
			continue
		}
		if err := b.s.behind.Remove(ctx, contract.Held, asked.sequence); err != nil {
			return err
		}
	}
	return nil
}

// wish is that a held delivery be cancelled.
type wish struct {
	sequence uint64 // in HELD
	reason   string
}

// eachHeld gives what lies on a subject in HELD, in order, until there is no more or do says so.
func (s *Sender) eachHeld(ctx context.Context, subject string, do func(bus.Stored) (more bool, err error)) error {
	for next, more := uint64(1), true; more; {
		batch, left, err := s.behind.List(ctx, contract.Held, subject, next, readAtOnce, readBytes)
		if err != nil {
			return err
		}
		more = left
		for _, raw := range batch {
			next = raw.Sequence + 1
			if goOn, err := do(raw); err != nil || !goOn {
				return err
			}
		}
	}
	return nil
}

// removeHeld takes a delivery out of HELD, with what is noted of its attempts.
func (s *Sender) removeHeld(ctx context.Context, sequence uint64, d *contract.Delivery) error {
	if err := s.behind.Remove(ctx, contract.Held, sequence); err != nil {
		return err
	}
	_, err := s.behind.RemoveAll(ctx, contract.Held, contract.TriesSubject(d.WebhookID, d.ID))
	return err
}

// underWay says whether a delivery is with the lane. Its attempt is not cut off, but it is the last one.
func (b *backlog) underWay(sequence uint64, reason string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lines {
		if h := l.list[0]; l.out && h.sequence == sequence {
			h.cancel = reason
			return true
		}
	}
	return false
}

// unwanted is why no attempt is to follow the one of a held delivery that is under way, or empty.
func (b *backlog) unwanted(h *waiting) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return h.cancel
}

// drop takes a delivery out of its line that is not with the lane, if it is in one yet.
func (b *backlog) drop(sequence uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lines {
		for at, h := range l.list {
			if h.sequence == sequence {
				b.leaveOut(l, at)
				return
			}
		}
	}
}

// leaveOut is called with the lock.
func (b *backlog) leaveOut(l *line, at int) {
	b.forget(l.list[at])
	l.list = append(l.list[:at:at], l.list[at+1:]...)
	b.sum--
	if at > 0 {
		return
	}
	if timer := b.resting[l]; timer != nil {
		timer.Stop()
		delete(b.resting, l)
	}
	for i, other := range b.turn {
		if other == l {
			b.turn = append(b.turn[:i:i], b.turn[i+1:]...)
			break
		}
	}
	l.busy = false
	b.advance(l)
}
