package sender

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/telemetry"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	senderv1 "shopbell.dev/proto/shopbell/sender/v1"
)

// TestWebhook sends sample data now, through the code of a real delivery, and says what came of it.
func (s *Sender) TestWebhook(ctx context.Context, req *senderv1.TestWebhookRequest) (*senderv1.TestWebhookResponse, error) {
	w, err := s.webhooks.Fetch(ctx, req.GetShopId(), req.GetWebhookId())
	switch {
	case err != nil:
		return nil, fault.Away(2*time.Second, "read the webhook: the bus does not answer; try again: %w", err)
	case w == nil:
		return nil, fault.New(fault.NotFound, "there is no webhook %s in shop %s", req.GetWebhookId(), req.GetShopId())
	case w.Broken != "":
		return nil, fault.New(fault.Precondition, "the webhook's rules cannot be worked out: %s", w.Broken)
	}
	eventType := req.GetEventType()
	if eventType == "" {
		eventType = firstType(w)
	}
	if err := contract.CheckEventType(eventType); err != nil {
		return nil, fault.On("event_type", err)
	}
	if known := w.Profile.Event(eventType); known == nil || !known.TestOnly {
		if err := w.Profile.CheckType(eventType); err != nil {
			return nil, fault.On("event_type", err)
		}
	}
	now, shop := time.Now(), s.shops.Get(req.GetShopId())
	e := contract.Event{
		ShopID: req.GetShopId(), ID: id.New(id.Event, now), Type: eventType, Environment: shop.GetEnvironment(), AcceptedAt: now,
		OccurredAt: now.UTC().Format(time.RFC3339), ContentType: "application/json", Data: w.Profile.Sample(eventType, shop.GetEnvironment()),
	}
	d := contract.Delivery{Event: e, ID: id.New(id.Delivery, now), WebhookID: w.ID, MatchedAt: now, Attempt: 1, AskedAt: now}
	ctx, span := s.env.Tracer.Start(ctx, "test webhook")
	defer span.End()
	b, err := render(&d, w, shop)
	if err != nil {
		return nil, fault.New(fault.Precondition, "%v", err)
	}
	x := s.exchangeWith(ctx, &d, w, b)
	if x.class == "interrupted" {
		return nil, ctx.Err()
	}
	v := decide(w.Policy, 1, true, x, 0)
	if v.reason = ""; v.status != delivered {
		v.reason = "the test failed"
	}
	x.keep(int(s.cfg.KeptResponseBytes))
	describe(x, v)
	text := b.bytes()
	traceID := telemetry.TraceID(ctx)
	if err := s.publish(ctx, s.records.Write, attemptOf(&d, x, v, &busv1.AttemptMade{BodyPrefix: text, WholeBody: true, Test: true}, traceID)); err != nil {
		return nil, fault.Away(2*time.Second, "the test was sent (%s), but the bus did not take it for the log: %w", diagnose(x, v, w), err)
	}
	return &senderv1.TestWebhookResponse{
		DeliveryId: d.ID, Success: v.status == delivered, Diagnosis: diagnose(x, v, w), RequestBody: text,
		Attempt: x.proto(&d, v, traceID),
	}, nil
}

// firstType is an event type that the webhook wants.
func firstType(w *webhook.Webhook) string {
	if t := w.Events[0]; t != webhook.AnyType {
		return t
	}
	if len(w.Profile.Events) > 0 {
		return w.Profile.Events[0].Name
	}
	return "test"
}

// diagnose says in words what came of a test and, if it failed, what to do.
func diagnose(x *exchange, v verdict, w *webhook.Webhook) string {
	took := x.duration.Round(time.Millisecond)
	switch {
	case v.status == delivered && x.duration > w.Policy.Timeout/2:
		return fmt.Sprintf("answered %d after %s; that is a success, but near the limit of %s: answer first and work afterwards", x.code, took, w.Policy.Timeout)
	case v.status == delivered:
		return fmt.Sprintf("answered %d after %s", x.code, took)
	case x.code == http.StatusNotFound:
		return fmt.Sprintf("answered 404 after %s: the host is there, but nothing at this path; check the URL's path", took)
	case x.code == http.StatusUnauthorized || x.code == http.StatusForbidden:
		return fmt.Sprintf("answered %d after %s: the receiver does not let us in; check the secret it verifies with, and its own access rules", x.code, took)
	case x.code == http.StatusMethodNotAllowed:
		return fmt.Sprintf("answered 405 after %s: this path does not take POST; check the URL", took)
	case x.code >= 500:
		return fmt.Sprintf("answered %d after %s: the receiver has an error of its own; its log knows more", x.code, took)
	case x.code > 0 && x.class == "http_status":
		return fmt.Sprintf("%s after %s", x.problem, took)
	}
	return x.problem
}
