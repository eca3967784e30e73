package sender

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/contract"
)

// laneChanged is told that a lane holds deliveries from now on, or does no longer, whoever says so.
func (s *Sender) laneChanged(webhookID string) {
	e, held := s.register.lane(webhookID)
	if !held {
		s.lanes.open(webhookID)
		return
	}
	s.holdLane(e.ShopId, webhookID, e.Reason, e.Unwell)
}

// heard is told of what comes into HELD, whoever put it there: its lane's owner reads on, and what is sent in order finds
// an owner.
func (s *Sender) heard(ctx context.Context, m *nats.Msg) {
	webhookID := contract.WebhookOfHeld(m.Subject)
	if b := s.backlogs.get(webhookID); b != nil {
		b.hint()
		return
	}
	if _, held := s.register.lane(webhookID); held {
		return
	}
	shop := contract.ShopOf(m.Header)
	if w := s.webhooks.Get(shop, webhookID); w == nil || w.Off() != "" || !w.Policy.IsOrdered() {
		return
	}
	s.aside(ctx, func() { s.keep(ctx, hold{why: inOrder, shop: shop, webhookID: webhookID}) })
}

// heardWish is told that somebody asks for a held delivery to be cancelled: its lane's owner does it, and a lane without one
// finds one for that.
func (s *Sender) heardWish(ctx context.Context, m *nats.Msg) {
	webhookID, shop := contract.WebhookOfHeld(m.Subject), contract.ShopOf(m.Header)
	if _, held := s.register.lane(webhookID); held && s.backlogs.get(webhookID) == nil {
		return // another's
	}
	s.aside(ctx, func() {
		if !s.stored(ctx, m.Subject) {
			return // the sweeper finds it
		}
		if b := s.backlogs.get(webhookID); b != nil {
			b.wished()
			return
		}
		s.keep(ctx, hold{why: isCancelled, shop: shop, webhookID: webhookID})
	})
}

// stored waits a moment until what was heard of is in HELD.
func (s *Sender) stored(ctx context.Context, subject string) bool {
	for range 20 {
		if at, err := s.behind.Last(ctx, contract.Held, subject); err != nil || at > 0 {
			return err == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	return false
}

const isCancelled = "a held delivery is cancelled"

const (
	sweepEvery = 5 * time.Second
	lateEvery  = 500 * time.Millisecond
	// countEvery is how often it is looked for what is held without an owner: nothing but a process that died at the
	// wrong moment leaves any.
	countEvery = 30 * time.Second
	// settled is how long after something was held its webhook is switched off, when its receiver's answer asked for it.
	settled = 5 * time.Second
	// lookBehindAfter is how long after a lane was let go other senders may still hold deliveries for it.
	lookBehindAfter = time.Second
)

// sweep sees to it, until ctx ends, that everything that is held has an owner who is alive.
func (s *Sender) sweep(ctx context.Context) {
	tick, late := time.NewTicker(sweepEvery), time.NewTicker(lateEvery)
	defer tick.Stop()
	defer late.Stop()
	for counted := (time.Time{}); ; {
		s.adopt(ctx)
		now := time.Now()
		s.lanes.forget(now)
		s.register.forgetSilent(ctx, now)
		if now.Sub(counted) > countEvery {
			all, err := s.findOwners(ctx)
			if err == nil && all {
				counted = now
			} else if err != nil && ctx.Err() == nil {
				s.env.Log.WarnContext(ctx, "it is not known whether all that is held has an owner, looking again", slog.Any("error", err))
			}
		}
		for again := true; again; {
			select {
			case <-ctx.Done():
				return
			case <-late.C:
				s.holdLate()
			case <-tick.C:
				again = false
			}
		}
	}
}

// holdLate has held what waits in memory for a receiver that takes nothing.
func (s *Sender) holdLate() {
	for webhookID, shop := range s.lanes.late(time.Now()) {
		s.holdLane(shop, webhookID, tooSlow, false)
	}
}

// adopt takes over the lanes that fall to us.
func (s *Sender) adopt(ctx context.Context) {
	for _, e := range s.register.orphans(time.Now()) {
		bound, cancel := context.WithTimeout(ctx, publishTimeout)
		ours, err := s.register.takeOver(bound, e)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				s.env.Log.WarnContext(ctx, "lane not taken over, trying again", slog.String("webhook_id", e.WebhookId), slog.Any("error", err))
			}
			return
		}
		if ours {
			s.holdLane(e.ShopId, e.WebhookId, e.Reason, e.Unwell)
			b := newBacklog(s, e.ShopId, e.WebhookId)
			if e.Unwell {
				b.suspect(e)
			}
			s.backlogs.begin(b)
		}
	}
	for _, e := range s.register.ours() {
		s.backlogs.begin(newBacklog(s, e.ShopId, e.WebhookId)) // unless it is there, as it should be
	}
}

// findOwners finds owners for what is held without one. All is false when it is to be looked again soon.
func (s *Sender) findOwners(ctx context.Context) (all bool, err error) {
	stream, err := s.behind.Stream(ctx, contract.Held)
	if err != nil {
		return false, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(contract.HeldSubjects))
	if err != nil {
		return false, err
	}
	all = true
	for subject := range info.State.Subjects {
		looked, err := s.findOwner(ctx, contract.WebhookOfHeld(subject), settled)
		if err != nil {
			return false, err
		}
		all = all && looked
	}
	return all, s.findGranters(ctx, stream)
}

// findGranters finds owners for lanes of which somebody asks for a held delivery to be cancelled, and was not heard.
func (s *Sender) findGranters(ctx context.Context, heldStream jetstream.Stream) error {
	info, err := heldStream.Info(ctx, jetstream.WithSubjectFilter(contract.AllCancelSubjects))
	if err != nil {
		return err
	}
	for subject := range info.State.Subjects {
		m, err := heldStream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		s.heardWish(ctx, &nats.Msg{Subject: subject, Header: m.Header})
	}
	return nil
}

// findOwner finds an owner for what is held for a webhook, if it is to be sent. Looked is false when it has not been held
// for so long yet.
func (s *Sender) findOwner(ctx context.Context, webhookID string, since time.Duration) (looked bool, err error) {
	if _, held := s.register.lane(webhookID); held {
		return true, nil
	}
	batch, _, err := s.behind.List(ctx, contract.Held, contract.HeldSubject(webhookID), 1, 1, readBytes)
	if err != nil || len(batch) == 0 {
		return true, err
	}
	if time.Since(batch[0].Time) < since {
		return false, nil
	}
	shop := contract.ShopOf(batch[0].Header)
	w, err := s.webhooks.Fetch(ctx, shop, webhookID)
	switch {
	case err != nil:
		return true, err
	case w == nil:
		return true, s.discardDeleted(ctx, webhookID)
	case w.Off() == "":
		s.keep(ctx, hold{why: "it is sent on", shop: shop, webhookID: webhookID})
	case s.outlived(batch[0]):
		s.keep(ctx, hold{why: w.Off(), shop: shop, webhookID: webhookID}) // for its owner, of whom there is one, to discard it
	}
	return true, nil
}

// lookBehind looks, a moment later, for what was held for a lane while it was let go.
func (s *Sender) lookBehind(ctx context.Context, webhookID string) {
	select {
	case <-time.After(lookBehindAfter):
	case <-s.backlogs.ctx.Done():
		return
	}
	if _, err := s.findOwner(ctx, webhookID, 0); err != nil && ctx.Err() == nil {
		s.env.Log.WarnContext(ctx, "what is held for a webhook waits for the sweeper", slog.String("webhook_id", webhookID), slog.Any("error", err))
	}
}
