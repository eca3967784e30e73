package sender

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

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

// attemptOf is what the log is told of an attempt.
func attemptOf(d *contract.Delivery, x *exchange, v verdict, made *busv1.AttemptMade, traceID string) *busv1.Record {
	made.DeliveryId, made.WebhookId, made.MatchedAt = d.ID, d.WebhookID, timestamppb.New(d.MatchedAt)
	made.Status, made.Reason = v.status, v.reason
	if d.WholeBody {
		made.BodyPrefix, made.WholeBody = d.Data, true
	}
	made.Attempt = x.proto(d, v, traceID)
	return &busv1.Record{
		At: timestamppb.New(x.began.Add(x.duration)), ShopId: d.ShopID, EventId: d.Event.ID, EventType: d.Type,
		What: &busv1.Record_Attempt{Attempt: made},
	}
}

// proto is the exchange as the log shows it.
func (x *exchange) proto(d *contract.Delivery, v verdict, traceID string) *shopbellv1.Attempt {
	out := &shopbellv1.Attempt{
		Number: int32(d.Attempt), StartedAt: timestamppb.New(x.began), DurationMs: millis(x.duration), Timings: x.timings,
		ResponseCode: int32(x.code), ErrorClass: x.class, Error: x.problem, Verdict: v.status, Url: x.url,
		RequestHeaders: shown(x.request, true), ResponseHeaders: x.kept, ResponseBody: x.body, ResponseBodyCut: x.cut,
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
		WebhookID: d.WebhookID, Label: w.Label, URL: w.URL, Reason: v.reason, At: time.Now(),
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
	return s.publish(ctx, s.records.Write, record.Change(d, status, reason))
}

// tell puts onto the bus what happened.
func (s *Sender) tell(ctx context.Context, records ...*busv1.Record) error {
	msgs, err := record.Messages(records...)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	return s.env.Bus.Publish(bound, msgs...)
}

// publish puts onto the bus what happened, which it has written, and then what comes next, with the trace of ctx. One after the other:
// where what comes next is there, what happened is known (see wasMade).
func (s *Sender) publish(ctx context.Context, write func(context.Context, ...*busv1.Record) error, what *busv1.Record, msgs ...*nats.Msg) error {
	if err := write(ctx, what); err != nil || len(msgs) == 0 {
		return err
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	for _, m := range msgs {
		bus.Inject(ctx, m)
	}
	return s.env.Bus.Publish(bound, msgs...)
}

// logAttempt writes the one line that tells an attempt's whole story. Of those that go as nearly all do, delivered at the
// first attempt, it is written at Debug: the log has them all, and at full speed the lines cost as much as the signatures.
func (s *Sender) logAttempt(ctx context.Context, d *contract.Delivery, x *exchange, v verdict) {
	level := slog.LevelInfo
	if v.status == delivered && d.Attempt == 1 {
		level = slog.LevelDebug
	}
	if !s.env.Log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("shop_id", d.ShopID), slog.String("event_id", d.Event.ID), slog.String("event_type", d.Type),
		slog.String("webhook_id", d.WebhookID), slog.String("delivery_id", d.ID), slog.Int("attempt", d.Attempt),
		slog.String("verdict", v.status), slog.Int("response_code", x.code), slog.Duration("duration", x.duration.Round(10*time.Microsecond)),
	}
	if x.class != "" {
		attrs = append(attrs, slog.String("error_class", x.class), slog.String("error", x.problem))
	}
	if v.wait > 0 {
		attrs = append(attrs, slog.Duration("next_in", v.wait.Round(time.Millisecond)))
	}
	s.env.Log.LogAttrs(ctx, level, "attempt", attrs...)
}
