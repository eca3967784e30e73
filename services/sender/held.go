package sender

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/webhook"
)

// hold keeps a delivery until its webhook is switched on again.
func (s *Sender) hold(ctx context.Context, m bus.Message, d *contract.Delivery, w *webhook.Webhook) error {
	record, err := changeMessage(d, held, w.Off())
	if err != nil {
		return err
	}
	if err := s.publish(ctx, record, d.Hold(sequence(m))); err != nil {
		return err
	}
	// Whoever switched the webhook on between our look and our publish has not seen this one. Look again: then either
	// we see that it is on, or he sees what we hold.
	now, err := s.webhooks.Fetch(ctx, d.ShopID, d.WebhookID)
	if err != nil || now == nil || now.Off() != "" {
		return err
	}
	return s.release(ctx, &contract.Release{ShopID: d.ShopID, WebhookID: d.WebhookID, Through: 1<<63 - 1})
}

// releaseBatch is how many held deliveries are let go together.
const releaseBatch = 100

// release sends on, or discards, what is held for a webhook. Whoever is killed meanwhile is followed by another, to
// whom what was sent on already is a repeat with the same ids.
func (s *Sender) release(ctx context.Context, r *contract.Release) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	stream, err := s.env.Bus.Stream(ctx, contract.Held)
	if err != nil {
		return err
	}
	for next := uint64(1); ; {
		var msgs []*nats.Msg
		var done []uint64
		for len(done) < releaseBatch {
			raw, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(contract.HeldSubject(r.WebhookID)))
			if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && raw.Sequence > r.Through {
				break
			}
			if err != nil {
				return fmt.Errorf("read what is held for %s: %w", r.WebhookID, err)
			}
			next = raw.Sequence + 1
			m, err := released(r, raw)
			if err != nil {
				return err
			}
			msgs, done = append(msgs, m), append(done, raw.Sequence)
		}
		if len(done) == 0 {
			return nil
		}
		if err := s.env.Bus.Publish(ctx, msgs...); err != nil {
			return err
		}
		for _, seq := range done {
			if err := stream.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
				return fmt.Errorf("remove what was held for %s: %w", r.WebhookID, err)
			}
		}
	}
}

func released(r *contract.Release, raw *jetstream.RawStreamMsg) (*nats.Msg, error) {
	d, err := contract.ParseDelivery(raw.Header, raw.Data)
	if err != nil {
		return nil, fmt.Errorf("read what is held for %s: %w", r.WebhookID, err)
	}
	var m *nats.Msg
	if r.Discard {
		m, err = changeMessage(&d, cancelled, "it was held, and discarded when the webhook was switched on again or deleted")
		if err != nil {
			return nil, err
		}
	} else {
		m = d.Released(raw.Sequence)
	}
	bus.Inject(bus.Extract(context.Background(), raw.Header), m)
	return m, nil
}
