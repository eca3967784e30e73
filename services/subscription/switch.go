package subscription

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/rpc"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// EnableWebhook switches a webhook on, tells of it if its receiver had switched it off, and then has what is held for it sent or
// discarded. Called again, it does the rest again: nothing stays held or untold because a process died in between. What is
// discarded is so from the moment in which the webhook is on.
func (s *Subscription) EnableWebhook(ctx context.Context, req *subscriptionv1.EnableWebhookRequest) (*shopbellv1.Webhook, error) {
	discard := req.GetHeld() == "discard"
	out, recovered, err := s.enable(ctx, req.GetShopId(), req.GetWebhookId(), discard)
	if err != nil {
		return nil, err
	}
	if recovered != nil {
		if out, err = s.tellRecovered(ctx, out, recovered); err != nil {
			return nil, err
		}
	}
	return out, s.release(ctx, req.GetShopId(), req.GetWebhookId(), discard)
}

// enable switches a webhook on, and gives what its shop is still to be told. With discard it notes in the same moment what is
// not to be sent: what lies in HELD now, and what senders who have seen by then that the webhook was off put there later.
func (s *Subscription) enable(ctx context.Context, shop, webhookID string, discard bool) (out *shopbellv1.Webhook, untold *busv1.Recovered, err error) {
	held := uint64(0)
	if discard && isID(webhookID) {
		if held, err = s.env.Bus.Last(ctx, contract.Held, contract.HeldSubject(webhookID)); err != nil {
			return nil, nil, busError("look for what is held", err)
		}
	}
	out, err = s.replace(ctx, shop, webhookID, "", func(state *busv1.WebhookState, revision uint64) (bool, error) {
		w := state.Webhook
		changed := discard || w.Status != webhook.Enabled
		if discard {
			state.Discarded = &busv1.Discarded{Revision: revision, Sequence: max(held, state.Discarded.GetSequence())}
		}
		if state.OffByReceiver {
			state.Recovered = &busv1.Recovered{At: timestamppb.Now(), Was: w.GetDisabledReason()}
		}
		w.Status, w.DisabledReason, w.DisabledAt, state.OffByReceiver = webhook.Enabled, nil, nil, false
		untold = state.Recovered
		return changed, nil
	})
	return out, untold, err
}

// tellRecovered tells that a webhook is on again, and notes that it was told.
func (s *Subscription) tellRecovered(ctx context.Context, w *shopbellv1.Webhook, r *busv1.Recovered) (*shopbellv1.Webhook, error) {
	at := r.GetAt().AsTime()
	err := s.tell(ctx, w.GetShopId(), notice.WebhookRecovered, fmt.Sprintf("%s.%d", w.GetId(), at.UnixNano()), notice.Data{
		WebhookID: w.GetId(), Label: w.GetLabel(), URL: w.GetUrl(), At: at, Reason: "it is switched on again; it was " + r.GetWas(),
	})
	if err != nil {
		return nil, busError("tell that the webhook is on again", err)
	}
	return s.change(ctx, w.GetShopId(), w.GetId(), "", func(state *busv1.WebhookState) (bool, error) {
		if !state.GetRecovered().GetAt().AsTime().Equal(at) {
			return false, nil
		}
		state.Recovered = nil
		return true, nil
	})
}

// tell publishes a notice.
func (s *Subscription) tell(ctx context.Context, shop, eventType, cause string, d notice.Data) error {
	e, err := notice.New(shop, s.shops.Get(shop).GetEnvironment(), eventType, cause, d)
	if err != nil {
		return err
	}
	m := e.Message()
	bus.Inject(ctx, m)
	return s.env.Bus.Publish(ctx, m)
}

// release has what is held for a webhook up to now sent or discarded.
func (s *Subscription) release(ctx context.Context, shop, webhookID string, discard bool) error {
	last, err := s.env.Bus.Last(ctx, contract.Held, contract.HeldSubject(webhookID))
	if err != nil {
		return busError("look for what is held", err)
	}
	if last == 0 {
		return nil
	}
	r := contract.Release{ShopID: shop, WebhookID: webhookID, Discard: discard, Through: last}
	m := r.Message()
	bus.Inject(ctx, m)
	if err := s.env.Bus.Publish(ctx, m); err != nil {
		return busError("ask for what is held", err)
	}
	return nil
}

// DisableWebhook switches a webhook off on its owner's behalf.
func (s *Subscription) DisableWebhook(ctx context.Context, req *subscriptionv1.DisableWebhookRequest) (*shopbellv1.Webhook, error) {
	reason := "switched off by its owner"
	if by := rpc.Caller(ctx); by != "" {
		reason += " (" + by + ")"
	}
	if r := req.GetReason(); r != "" {
		reason += ": " + r
	}
	return s.change(ctx, req.GetShopId(), req.GetWebhookId(), "", func(state *busv1.WebhookState) (bool, error) {
		w := state.Webhook
		if w.Status == webhook.Disabled && !state.OffByReceiver && w.GetDisabledReason() == reason {
			return false, nil
		}
		w.Status, w.DisabledReason, w.DisabledAt, state.OffByReceiver = webhook.Disabled, &reason, timestamppb.Now(), false
		return true, nil
	})
}

// forgetEvery is how often webhooks are looked for that were deleted long ago.
const forgetEvery = time.Hour

// forgetDeleted removes, until ctx ends, the webhooks that their receivers have deleted and that nobody has had back.
func (s *Subscription) forgetDeleted(ctx context.Context) {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, w := range s.webhooks.With(webhook.Deleted) {
			if time.Since(w.State().Webhook.DisabledAt.AsTime()) < webhook.KeepDeleted {
				continue
			}
			err := s.bucket.Delete(ctx, contract.WebhookKey(w.ShopID, w.ID), jetstream.LastRevision(w.Revision))
			if err != nil && ctx.Err() == nil {
				s.env.Log.WarnContext(ctx, "deleted webhook not forgotten, trying again later", slog.String("webhook_id", w.ID), slog.Any("error", err))
			}
		}
	}
}

// switchOff switches webhooks off, or deletes them so that it can be undone, whose receivers' answers asked for it. A
// webhook that is off, gone, or has another address by now stays as it is.
func (s *Subscription) switchOff(ctx context.Context, batch []bus.Message) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	for _, m := range batch {
		wish := &busv1.SwitchOff{}
		if err := proto.Unmarshal(m.Data(), wish); err != nil {
			s.env.Log.ErrorContext(ctx, "a wish to switch off cannot be read; it is left out", slog.Any("error", err))
			_ = m.TermWithReason(err.Error())
			continue
		}
		now, err := s.change(bus.Extract(ctx, m.Headers()), wish.ShopId, wish.WebhookId, "", func(state *busv1.WebhookState) (bool, error) {
			w := state.Webhook
			if w.Status != webhook.Enabled && !wish.Delete || w.Status == webhook.Deleted || w.Url != wish.Url {
				return false, nil
			}
			w.Status, w.DisabledReason, w.DisabledAt, state.OffByReceiver = webhook.Disabled, &wish.Reason, wish.At, true
			if wish.Delete {
				w.Status = webhook.Deleted
			}
			return true, nil
		})
		if fault.IsKind(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("switch off webhook %s: %w", wish.WebhookId, err)
		}
		if now.GetDisabledReason() != wish.Reason {
			continue // it was off for another reason, or has another address by now
		}
		// Told whenever it is so, and not only when we have made it so: whoever died in between was not heard.
		if err := s.tell(ctx, wish.ShopId, notice.WebhookDisabled, wish.DeliveryId, notice.Data{
			WebhookID: wish.WebhookId, Label: now.GetLabel(), URL: wish.Url, Reason: wish.Reason, At: wish.At.AsTime(), DeliveryID: wish.DeliveryId,
		}); err != nil {
			return err
		}
		s.env.Log.WarnContext(ctx, "webhook switched off by its receiver", slog.String("shop_id", wish.ShopId),
			slog.String("webhook_id", wish.WebhookId), slog.String("delivery_id", wish.DeliveryId), slog.String("reason", wish.Reason))
	}
	return nil
}
