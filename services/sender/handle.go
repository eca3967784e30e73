package sender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/telemetry"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// publishTimeout bounds how long the bus may take to store what came of an attempt; after that the delivery comes again.
const publishTimeout = 15 * time.Second

// handle takes a message from the bus to its end. What it cannot finish comes again.
func (s *Sender) handle(ctx context.Context, m bus.Message) {
	s.busy.begin(m)
	defer s.busy.end(m)
	ctx = bus.Extract(ctx, m.Headers())
	err := s.finish(ctx, m)
	if err == nil {
		err = m.Ack()
	}
	switch {
	case err == nil || errors.Is(err, jetstream.ErrMsgAlreadyAckd):
	case ctx.Err() != nil: // interrupted: another sender may have it at once
		_ = m.Nak()
	default:
		s.env.Log.ErrorContext(ctx, "delivery not finished, it comes again", slog.Any("error", err))
		_ = m.NakWithDelay(time.Second) // if this is not heard either, AckWait brings it back
	}
}

// finish does what a message asks for and publishes what came of it.
func (s *Sender) finish(ctx context.Context, m bus.Message) error {
	if r, ok, err := contract.ParseRelease(m.Headers()); ok {
		if err != nil {
			return m.TermWithReason(err.Error())
		}
		return s.release(ctx, &r)
	}
	d, err := contract.ParseDelivery(m.Headers(), m.Data())
	if err != nil {
		s.env.Log.ErrorContext(ctx, "a message on DELIVERIES is no delivery; it is left out", slog.Any("error", err))
		return m.TermWithReason(err.Error())
	}
	if d.Cancel != "" {
		return s.change(ctx, &d, cancelled, d.Cancel)
	}
	w, err := s.webhook(ctx, &d)
	switch {
	case err != nil:
		return err
	case w == nil || w.Webhook.Status == webhook.Deleted:
		return s.change(ctx, &d, cancelled, "the webhook was deleted")
	case w.Webhook.Status == webhook.Disabled && !w.OffByReceiver && !d.ByHand():
		return s.change(ctx, &d, cancelled, "the webhook was switched off by its owner when the delivery was due; it can be sent again by hand")
	case w.Off() != "" && !d.ByHand(), w.Broken != "":
		return s.hold(ctx, m, &d, w)
	}
	return s.attempt(ctx, m, &d, w)
}

// webhook gives the webhook of a delivery, or nil when it was deleted. Our directory may be a moment behind: where it
// knows of no webhook, of an older one than was matched, or of one that is off, the bucket is asked.
func (s *Sender) webhook(ctx context.Context, d *contract.Delivery) (*webhook.Webhook, error) {
	if w := s.webhooks.Get(d.ShopID, d.WebhookID); w != nil && w.Revision >= d.Revision && w.Off() == "" {
		return w, nil
	}
	bound, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return s.webhooks.Fetch(bound, d.ShopID, d.WebhookID)
}

// attempt makes an attempt and publishes what came of it and what comes next.
func (s *Sender) attempt(ctx context.Context, m bus.Message, d *contract.Delivery, w *webhook.Webhook) error {
	b, err := render(d, w, s.shops.Get(d.ShopID))
	if err != nil {
		return s.change(ctx, d, failed, err.Error())
	}
	ctx, tracing := s.env.Tracer.Start(ctx, "attempt", trace.WithSpanKind(trace.SpanKindClient))
	defer tracing.End()
	x := s.exchangeWith(ctx, d, w, b)
	if x.class == "interrupted" {
		return fmt.Errorf("attempt %d of %s: %s", d.Attempt, d.ID, x.problem) // not an attempt: it is made again
	}
	v := decide(w.Policy, d.Attempt, d.ByHand(), x, rand.Float64())
	describe(x, v)
	s.count(d, x, v)
	s.logAttempt(ctx, d, x, v)
	if tracing.IsRecording() {
		tracing.SetAttributes(attribute.String("shop_id", d.ShopID), attribute.String("event_id", d.Event.ID),
			attribute.String("webhook_id", d.WebhookID), attribute.String("delivery_id", d.ID), attribute.Int("attempt", d.Attempt),
			attribute.Int("http.response.status_code", x.code), attribute.String("verdict", v.status))
		if v.status != delivered {
			tracing.SetStatus(codes.Error, x.problem)
		}
	}
	record, err := s.record(ctx, d, x, v, &busv1.AttemptMade{BodyPrefix: b.before, BodySuffix: b.after, WholeBody: b.whole})
	if err != nil {
		return err
	}
	msgs := []*nats.Msg{record}
	next := *d
	next.Attempt++
	next.AskedBy, next.Replay = "", "" // they asked for this one
	switch v.status {
	case retrying:
		msgs = append(msgs, next.Later(x.began.Add(x.duration+v.wait)))
	case held:
		msgs = append(msgs, next.Hold(sequence(m)))
	}
	if v.status == failed && !d.ByHand() && !notice.Is(d.Type) {
		told, err := s.tellFailed(d, w, v)
		if err != nil {
			return err
		}
		msgs = append(msgs, told)
	}
	if v.off || v.phrase != "" {
		wish, err := s.wish(d, x, v)
		if err != nil {
			return err
		}
		msgs = append(msgs, wish)
	}
	return s.publish(ctx, msgs...)
}

// exchangeWith signs a body and POSTs it.
func (s *Sender) exchangeWith(ctx context.Context, d *contract.Delivery, w *webhook.Webhook, b body) *exchange {
	text := b.bytes()
	h := headers(d, w, b, text, s.agent, time.Now())
	propagation.TraceContext{}.Inject(ctx, lower(h))
	s.inFlight.Inc()
	defer s.inFlight.Dec()
	return do(ctx, s.client, w.Webhook.Url, h, text, w.Policy.Timeout, int64(s.cfg.MaxResponseBytes))
}

// lower writes a trace into headers under the names that W3C gives them.
type lower http.Header

func (h lower) Get(key string) string { return http.Header(h).Get(key) }
func (h lower) Set(key, value string) { h[key] = []string{value} }
func (h lower) Keys() []string        { return nil }

// describe gives an answer that is no success its class and sentence.
func describe(x *exchange, v verdict) {
	if v.status == delivered || x.class != "" {
		return
	}
	x.class, x.problem = "http_status", fmt.Sprintf("answered %d %s", x.code, http.StatusText(x.code))
	if x.code >= 300 && x.code < 400 {
		x.problem += "; redirects are not followed: give the webhook the address that it points to"
	}
}

func (s *Sender) count(d *contract.Delivery, x *exchange, v verdict) {
	s.attempts.WithLabelValues(v.status, x.class).Inc()
	s.exchange.Observe(x.duration.Seconds())
	if v.status == delivered && !d.ByHand() {
		s.latency.Observe(time.Since(d.AcceptedAt).Seconds())
	}
}

// record makes the message that tells the log of an attempt.
func (s *Sender) record(ctx context.Context, d *contract.Delivery, x *exchange, v verdict, made *busv1.AttemptMade) (*nats.Msg, error) {
	made.DeliveryId, made.WebhookId, made.MatchedAt = d.ID, d.WebhookID, timestamppb.New(d.MatchedAt)
	made.Status, made.Reason = v.status, v.reason
	if d.WholeBody {
		made.BodyPrefix, made.WholeBody = d.Data, true
	}
	made.Attempt = x.proto(d, v, telemetry.TraceID(ctx))
	value, err := proto.Marshal(&busv1.Record{
		At: timestamppb.New(x.began.Add(x.duration)), ShopId: d.ShopID, EventId: d.Event.ID, EventType: d.Type,
		What: &busv1.Record_Attempt{Attempt: made},
	})
	if err != nil {
		return nil, fmt.Errorf("record attempt %d of %s: %w", d.Attempt, d.ID, err)
	}
	return contract.RecordMessage(d.ShopID, d.WebhookID, value, fmt.Sprintf("%s/%d/%d", d.ID, d.Attempt, x.began.UnixNano())), nil
}

// proto is the exchange as the log shows it.
func (x *exchange) proto(d *contract.Delivery, v verdict, traceID string) *shopbellv1.Attempt {
	out := &shopbellv1.Attempt{
		Number: int32(d.Attempt), StartedAt: timestamppb.New(x.began), DurationMs: millis(x.duration), Timings: x.timings,
		ResponseCode: int32(x.code), ErrorClass: x.class, Error: x.problem, Verdict: v.status, Url: x.url,
		RequestHeaders: shown(x.request, true), ResponseHeaders: shown(x.response, false), ResponseBody: x.body, ResponseBodyCut: x.cut,
		TraceId: traceID, ByHand: d.ByHand(), AskedBy: d.AskedBy, ReplayId: d.Replay,
	}
	if v.status == retrying {
		out.NextAttemptAt = timestamppb.New(x.began.Add(x.duration + v.wait))
	}
	return out
}

// tellFailed makes the notice that a delivery was given up. Nobody is told of a notice that was.
func (s *Sender) tellFailed(d *contract.Delivery, w *webhook.Webhook, v verdict) (*nats.Msg, error) {
	e, err := notice.New(d.ShopID, d.Environment, notice.DeliveryFailed, fmt.Sprintf("%s.%d", d.ID, d.Attempt), notice.Data{
		WebhookID: d.WebhookID, Label: w.Webhook.GetLabel(), URL: w.Webhook.Url, Reason: v.reason, At: time.Now(),
		DeliveryID: d.ID, EventID: d.Event.ID, EventType: d.Type, Attempts: d.Attempt,
	})
	if err != nil {
		return nil, err
	}
	return e.Message(), nil
}

// wish makes the message that asks subscription to switch the webhook off, or to delete it.
func (s *Sender) wish(d *contract.Delivery, x *exchange, v verdict) (*nats.Msg, error) {
	reason := fmt.Sprintf("switched off by its receiver: it answered %d %s to delivery %s", x.code, http.StatusText(x.code), d.ID)
	if v.phrase != "" {
		reason = fmt.Sprintf("deleted by its receiver: it answered %q to delivery %s", v.phrase, d.ID)
	}
	value, err := proto.Marshal(&busv1.SwitchOff{
		At: timestamppb.New(x.began.Add(x.duration)), ShopId: d.ShopID, WebhookId: d.WebhookID, DeliveryId: d.ID, Url: x.url,
		Reason: reason, Delete: v.phrase != "",
	})
	if err != nil {
		return nil, fmt.Errorf("ask to switch off %s: %w", d.WebhookID, err)
	}
	return contract.SwitchMessage(d.ShopID, d.WebhookID, value, fmt.Sprintf("%s/%d/%d/off", d.ID, d.Attempt, x.began.UnixNano())), nil
}

// change publishes that a delivery has another status without an attempt.
func (s *Sender) change(ctx context.Context, d *contract.Delivery, status, reason string) error {
	m, err := changeMessage(d, status, reason)
	if err != nil {
		return err
	}
	return s.publish(ctx, m)
}

func changeMessage(d *contract.Delivery, status, reason string) (*nats.Msg, error) {
	now := time.Now()
	value, err := proto.Marshal(&busv1.Record{
		At: timestamppb.New(now), ShopId: d.ShopID, EventId: d.Event.ID, EventType: d.Type,
		What: &busv1.Record_Change{Change: &busv1.StatusChange{
			DeliveryId: d.ID, WebhookId: d.WebhookID, MatchedAt: timestamppb.New(d.MatchedAt), Status: status, Reason: reason,
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("record that %s is %s: %w", d.ID, status, err)
	}
	return contract.RecordMessage(d.ShopID, d.WebhookID, value, fmt.Sprintf("%s/%s/%d", d.ID, status, now.UnixNano())), nil
}

// publish puts messages onto the bus, each with the trace of ctx.
func (s *Sender) publish(ctx context.Context, msgs ...*nats.Msg) error {
	for _, m := range msgs {
		bus.Inject(ctx, m)
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	return s.env.Bus.Publish(bound, msgs...)
}

// sequence is a message's place in its stream: it tells a message that comes again from another one.
func sequence(m bus.Message) uint64 {
	meta, err := m.Metadata()
	if err != nil {
		return 0
	}
	return meta.Sequence.Stream
}
