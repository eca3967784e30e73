package sender

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
)

// laneChanged is told that a lane holds deliveries from now on, or does no longer, whoever says so.
func (s *Sender) laneChanged(webhookID string) {
	e, held := s.register.lane(webhookID)
	if !held {
		s.lanes.open(webhookID)
		return
	}
	if jobs := s.lanes.hold(webhookID); len(jobs) > 0 {
		s.holder.put(hold{jobs: jobs, why: e.Reason, shop: e.ShopId, webhookID: webhookID})
	}
}

// heard is told of what comes into HELD, whoever put it there: its lane's owner reads on, and what is sent in order finds
// an owner.
func (s *Sender) heard(ctx context.Context, subject string, h nats.Header) {
	webhookID := contract.WebhookOfHeld(subject)
	if b := s.backlogs.get(webhookID); b != nil {
		b.hint()
		return
	}
	if _, held := s.register.lane(webhookID); held {
		return
	}
	shop := contract.ShopOf(h)
	if w := s.webhooks.Get(shop, webhookID); w == nil || w.Off() != "" || !w.Policy.IsOrdered() {
		return
	}
	s.aside(ctx, func() { s.keep(ctx, hold{why: inOrder, shop: shop, webhookID: webhookID}) })
}

const (
	sweepEvery = 5 * time.Second
	// countEvery is how often it is looked for what is held without an owner: nothing but a process that died at the
	// wrong moment leaves any.
	countEvery = 30 * time.Second
	// lookBehindAfter is how long after a lane was let go other senders may still hold deliveries for it.
	lookBehindAfter = time.Second
)

// sweep sees to it, until ctx ends, that everything that is held has an owner who is alive.
func (s *Sender) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for counted := (time.Time{}); ; {
		s.adopt(ctx)
		now := time.Now()
		s.lanes.forget(now)
		s.register.forgetSilent(ctx, now)
		if now.Sub(counted) > countEvery {
			if err := s.findOwners(ctx); err == nil {
				counted = now
			} else if ctx.Err() == nil {
				s.env.Log.WarnContext(ctx, "it is not known whether all that is held has an owner, looking again", slog.Any("error", err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
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
			s.lanes.hold(e.WebhookId)
			b := newBacklog(s, e.ShopId, e.WebhookId)
			if e.Reason != inOrder {
				b.suspect(e)
			}
			s.backlogs.begin(b)
		}
	}
	for _, e := range s.register.ours() {
		s.backlogs.begin(newBacklog(s, e.ShopId, e.WebhookId)) // unless it is there, as it should be
	}
}

// findOwners finds owners for what is held without one.
func (s *Sender) findOwners(ctx context.Context) error {
	stream, err := s.env.Bus.Stream(ctx, contract.Held)
	if err != nil {
		return err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(contract.HeldSubjects))
	if err != nil {
		return err
	}
	for subject := range info.State.Subjects {
		if err := s.findOwner(ctx, contract.WebhookOfHeld(subject)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sender) findOwner(ctx context.Context, webhookID string) error {
	if _, held := s.register.lane(webhookID); held {
		return nil
	}
	batch, _, err := s.env.Bus.List(ctx, contract.Held, contract.HeldSubject(webhookID), 1, 1, readBytes)
	if err != nil || len(batch) == 0 {
		return err
	}
	shop := contract.ShopOf(batch[0].Header)
	w, err := s.webhooks.Fetch(ctx, shop, webhookID)
	switch {
	case err != nil:
		return err
	case w == nil:
		return s.discard(ctx, webhookID, batch[0].Sequence, wasDeleted)
	case w.Off() == "":
		s.keep(ctx, hold{why: "it is sent on", shop: shop, webhookID: webhookID})
	}
	return nil
}

// lookBehind looks for what was held for a lane while it was let go.
func (s *Sender) lookBehind(ctx context.Context, b *backlog) {
	for _, wait := range []time.Duration{0, lookBehindAfter} {
		select {
		case <-time.After(wait):
		case <-s.backlogs.ctx.Done():
			return
		}
		if err := s.findOwner(ctx, b.webhookID); err != nil && ctx.Err() == nil {
			s.env.Log.WarnContext(ctx, "what is held for a webhook waits for the sweeper", slog.String("webhook_id", b.webhookID), slog.Any("error", err))
		}
	}
}

// floor is how far events were matched, as lanes in order need to know: asked for them all together, and seldom.
type floor struct {
	mu    sync.Mutex // guards what follows
	asked time.Time
	at    uint64
}

// floorEvery is how soon it is asked again how far events were matched.
const floorEvery = 2 * time.Millisecond

func (f *floor) get(ctx context.Context, b *bus.Bus) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.asked) < floorEvery {
		return f.at, nil
	}
	at, err := b.Floor(ctx, contract.Matcher)
	if err != nil {
		return 0, err
	}
	f.at, f.asked = at, time.Now()
	return at, nil
}
