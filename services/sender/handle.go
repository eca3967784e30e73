package sender

import (
	"bytes"
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

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/telemetry"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// publishTimeout bounds how long the bus may take to store what came of an attempt; after that the delivery comes again.
const publishTimeout = 15 * time.Second

// take is given every message of DELIVERIES, and of LATER, one after the other. It blocks only when the sender itself has too much to
// do: what a receiver cannot take is held.
func (s *Sender) take(ctx context.Context, m bus.Message) {
	s.busy.begin(m)
	if r, ok, err := contract.ParseRelease(m.Headers()); ok {
		s.aside(ctx, func() {
			if err == nil {
				err = s.release(bus.Extract(ctx, m.Headers()), &r)
			} else {
				_ = m.TermWithReason(err.Error())
			}
			s.settle(ctx, m, err)
		})
		return
	}
	j := &job{m: m, header: m.Headers()}
	var err error
	if j.d, err = contract.ParseDelivery(j.header, m.Data()); err != nil {
		s.env.Log.ErrorContext(ctx, "a message is no delivery; it is left out", slog.Any("error", err))
		s.busy.end(m)
		_ = m.TermWithReason(err.Error())
		return
	}
	d := &j.d
	if j.w = s.known(d); j.w != nil && d.Cancel == "" && !comesAgain(m) {
		s.route(ctx, j)
		return
	}
	s.aside(ctx, func() { // asking takes a while
		made, err := s.wasMade(ctx, m, d)
		if made {
			s.leaveOut(ctx, m, d)
			return
		}
		var w *webhook.Webhook
		if err == nil {
			w, err = s.webhook(ctx, d)
		}
		if err != nil {
			s.settle(ctx, m, err)
			return
		}
		cancel := wasDeleted
		if w != nil {
			cancel, _ = fate(d, w)
		}
		if cancel != "" {
			s.settle(ctx, m, s.change(bus.Extract(ctx, j.header), d, cancelled, cancel))
			return
		}
		j.w = w
		s.route(ctx, j)
	})
}

// aside does what takes a while and needs no receiver, a bounded number at a time.
func (s *Sender) aside(ctx context.Context, do func()) {
	select {
	case s.asides <- struct{}{}:
	case <-ctx.Done():
		return
	}
	s.under.Go(func() {
		defer func() { <-s.asides }()
		do()
	})
}

// soon is aside for what nobody waits for: whoever asks goes on at once, and it is done when it has its turn.
func (s *Sender) soon(ctx context.Context, do func()) {
	s.under.Go(func() {
		select {
		case s.asides <- struct{}{}:
			defer func() { <-s.asides }()
			do()
		case <-ctx.Done():
		}
	})
}

const wasDeleted = "the webhook was deleted"

// fate says what becomes of a delivery whatever its receiver would answer: that it is cancelled, or held until its
// webhook is switched on. Both are empty when nothing stands against an attempt.
func fate(d *contract.Delivery, w *webhook.Webhook) (cancel, hold string) {
	switch {
	case d.Cancel != "":
		return d.Cancel, ""
	case w.Status == webhook.Deleted:
		return wasDeleted, ""
	case w.Status == webhook.Disabled && !w.OffByReceiver && !d.ByHand():
		return "the webhook was switched off by its owner when the delivery was due; it can be sent again by hand", ""
	case w.Off() != "" && !d.ByHand(), w.Broken != "":
		return "", w.Off()
	}
	return "", ""
}

// route takes a delivery into its lane, or has it held or put off.
func (s *Sender) route(ctx context.Context, j *job) {
	_, off := fate(&j.d, j.w)
	switch {
	case off != "":
		s.holdOff(j, off)
		return
	case j.w.Policy.IsOrdered() && !j.d.ByHand():
		s.holder.put(hold{jobs: []*job{j}, why: inOrder, shop: j.d.ShopID, webhookID: j.d.WebhookID})
		return
	case time.Now().Before(j.d.Due) && !j.d.Early: // it was called back to be held
		s.holder.put(s.lanes.hold(hold{jobs: []*job{j}, why: notWell, shop: j.d.ShopID, webhookID: j.d.WebhookID}, false))
		return
	case !j.d.Due.IsZero() && comesAgain(j.m): // it was, and whoever had it may have held it
		s.holder.put(s.lanes.hold(hold{jobs: []*job{j}, why: unfinished, shop: j.d.ShopID, webhookID: j.d.WebhookID}, false))
		return
	}
	if p := s.lanes.putOff(j, time.Now()); p != nil {
		s.under.Go(func() { s.settle(ctx, j.m, s.putOff(bus.Extract(ctx, j.header), j, p)) })
		return
	}
	if j.straight() {
		j.late = time.Since(j.d.AcceptedAt)
	}
	late := j.late // once it is admitted, the job is somebody else's
	switch s.lanes.admit(j) {
	case admitted:
		if late != 0 {
			s.governor.pace.Saw(late)
		}
	case closed:
		s.giveBack(j)
	case overflow:
		s.holder.put(s.lanes.hold(hold{jobs: []*job{j}, why: tooSlow, shop: j.d.ShopID, webhookID: j.d.WebhookID}, false))
	}
}

// giveBack lets another sender have a delivery that was not begun.
func (s *Sender) giveBack(j *job) {
	if j.m != nil {
		s.busy.end(j.m)
		_ = j.m.Nak() // if it is not heard, AckWait brings it back
	}
}

const (
	tooSlow = "its receiver takes fewer deliveries than come"
	notWell = "its receiver is not well"
	// unfinished is why something is held that its lane sends as soon as it can.
	unfinished = "the sender that had it before did not finish it"
)

const inOrder = "its deliveries are sent in order"

// handle takes a delivery that has a place in its lane to its end. What it cannot finish comes again.
func (s *Sender) handle(ctx context.Context, j *job) {
	tracing := bus.Extract(ctx, j.header)
	r, err := s.finish(tracing, j)
	s.lanes.done(j, 0) // unless an exchange has given its place back
	switch {
	case j.from != nil:
		j.from.finished(ctx, j, r, err)
	case r.passedOn:
	default:
		s.settle(ctx, j.m, err)
	}
}

// settle gives a message back to the bus: as done, or to be handed out again.
func (s *Sender) settle(ctx context.Context, m bus.Message, err error) {
	defer s.busy.end(m)
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

// result is where an attempt leaves a delivery that was held.
type result struct {
	passedOn bool          // to the holder, which settles it
	stays    bool          // where it is held, for another attempt
	next     tries         // what that one is
	well     bool          // its receiver took it
	why      string        // its receiver is not well
	rest     time.Duration // what the receiver asks for
	waits    *later        // the next attempt, for its time
}

// finish does what is to be done with a delivery and publishes what came of it.
func (s *Sender) finish(ctx context.Context, j *job) (r result, err error) {
	w, err := s.webhook(ctx, &j.d) // it may have changed while the delivery waited
	if err != nil {
		return r, err
	}
	if w == nil {
		return r, s.change(ctx, &j.d, cancelled, wasDeleted)
	}
	j.w = w
	switch cancel, off := fate(&j.d, w); {
	case j.discarded(w):
		return r, s.change(ctx, &j.d, cancelled, wasDiscarded)
	case cancel != "":
		return r, s.change(ctx, &j.d, cancelled, cancel)
	case off != "" && j.from != nil:
		r.stays, r.next = true, tries{j.d.Attempt, j.d.Uncounted, j.d.Due}
		return r, nil
	case off != "":
		r.passedOn = true
		s.holdOff(j, off)
		return r, nil
	}
	if j.from != nil && j.from.impatient(j) {
		return r, s.giveUp(ctx, j)
	}
	return s.attempt(ctx, j)
}

// known gives the webhook of a delivery where our directory is sure of it: it may be a moment behind. Nil: ask. Of one that
// was held because the webhook was off it must have heard that it is on again, and so what was to become of the delivery.
func (s *Sender) known(d *contract.Delivery) *webhook.Webhook {
	if w := s.webhooks.Get(d.ShopID, d.WebhookID); w != nil && w.Revision >= d.Revision && w.Revision > d.OffRevision && w.Off() == "" {
		return w
	}
	return nil
}

// webhook gives the webhook of a delivery, or nil when it was deleted.
func (s *Sender) webhook(ctx context.Context, d *contract.Delivery) (*webhook.Webhook, error) {
	if w := s.known(d); w != nil {
		return w, nil
	}
	bound, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return s.webhooks.Fetch(bound, d.ShopID, d.WebhookID)
}

// attempt makes an attempt and publishes what came of it and what comes next.
func (s *Sender) attempt(ctx context.Context, j *job) (r result, err error) {
	d, w := &j.d, j.w
	b, err := render(d, w, s.shops.Get(d.ShopID))
	if err != nil {
		return r, s.change(ctx, d, failed, err.Error())
	}
	ctx, tracing := s.env.Tracer.Start(ctx, "attempt", trace.WithSpanKind(trace.SpanKindClient))
	defer tracing.End()
	wait := time.Until(d.Due)
	probe := wait > 0 && j.from != nil && j.from.probes()
	early := wait > 0 && !probe && d.Early
	x := s.exchangeWith(ctx, d, w, b)
	if x.class == "interrupted" {
		return r, fmt.Errorf("attempt %d of %s: %s", d.Attempt, d.ID, x.problem) // not an attempt: it is made again
	}
	number := d.Counted()
	if probe || early { // it is made before that one, and is never the last
		number = max(1, number-1)
	}
	v := decide(w.Policy, number, d.ByHand() && !goesOn(d, w), x, rand.Float64())
	switch {
	case probe:
		v = v.probed(x)
	case early:
		v = v.early(time.Until(d.Due))
	}
	x.keep(int(s.cfg.KeptResponseBytes))
	describe(x, v)
	var back []called
	if !d.ByHand() {
		r.why, back = s.lanes.note(j, x, v, early)
		r.well, r.rest = v.status == delivered, x.retryAfter
	}
	s.lanes.done(j, x.duration) // the receiver is free; what follows is between the bus and us
	if j.from != nil {
		j.from.answered(j)
	}
	msgs, err := s.follow(j, x, &v, &r, probe || early)
	if err != nil {
		return r, err
	}
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
	if v.status == failed && !d.ByHand() && !notice.Is(d.Type) {
		told, err := s.tellFailed(d, w, v)
		if err != nil {
			return r, err
		}
		msgs = append(msgs, told)
	}
	if v.off || v.phrase != "" {
		wish, err := s.wish(d, x, v)
		if err != nil {
			return r, err
		}
		msgs = append(msgs, wish)
	}
	made := attemptOf(d, x, v, &busv1.AttemptMade{BodyPrefix: b.before, BodySuffix: b.after, WholeBody: b.whole, LateMs: millis(j.late)}, telemetry.TraceID(ctx))
	write := s.records.WriteCalmly
	if j.from != nil && (v.status != delivered || j.from.followed(j.held)) { // what is held with it waits for what came of it
		write = s.records.Write
	}
	if err := s.publish(ctx, write, made, msgs...); err != nil {
		return r, err
	}
	// Its timer is set: whoever finds the receiver not well, or back, from now on calls it back, and if somebody has, we do.
	if r.waits != nil {
		s.wait(ctx, d.WebhookID, *r.waits)
	}
	s.callAllBack(ctx, back)
	return r, nil
}

// wait remembers a delivery whose timer is set, or has it called back.
func (s *Sender) wait(ctx context.Context, webhookID string, d later) {
	if why, early := s.lanes.wait(webhookID, d); early || why != "" {
		s.soon(ctx, func() { s.callBack(ctx, webhookID, []later{d}, early) })
	}
}

// goesOn says whether an attempt that a job asked for is followed by the webhook's schedule. Where order matters it is not: what
// comes long after its time would hold back what happens now.
func goesOn(d *contract.Delivery, w *webhook.Webhook) bool {
	return d.Replay != "" && !w.Policy.IsOrdered()
}

// follow makes the messages of what comes next for a delivery that is not at its end: it waits for its time, or is held.
// An attempt that is uncounted takes none of the schedule's away.
func (s *Sender) follow(j *job, x *exchange, v *verdict, r *result, uncounted bool) ([]*nats.Msg, error) {
	if v.status != retrying && v.status != held {
		return nil, nil
	}
	now := s.latest(j.w) // the attempt took a while
	if j.from != nil {
		why := j.from.unwanted(j.held)
		if j.discarded(now) {
			why = wasDiscarded
		}
		if why != "" {
			return record.Messages(record.Change(&j.d, cancelled, why))
		}
	}
	next := j.d
	next.Attempt++
	next.AskedAt, next.AskedBy, next.Asked, next.Replay = time.Time{}, "", false, "" // they asked for this one
	next.OffRevision = 0                                                             // it was held, and is no longer
	early := next.Early
	next.Early = false
	if uncounted {
		next.Uncounted++
	} else {
		next.Due = x.began.Add(x.duration + v.wait)
	}
	ordered := j.w.Policy.IsOrdered()
	if v.status == retrying && !j.d.ByHand() && !ordered && j.w.Policy.Breaks() {
		if why := s.lanes.whyUnwell(next.WebhookID); why != "" {
			v.status, v.reason = held, why
		} else if !early || x.unanswered() { // once is enough where it may be one that the receiver does not like
			waits := laterOf(&next, x)
			r.waits = &waits
		}
	}
	switch {
	case j.from != nil && (ordered || v.status == held): // it keeps its place
		r.stays, r.next = true, tries{next.Attempt, next.Uncounted, next.Due}
		m, err := r.next.message(j.d.WebhookID, j.d.ID)
		return []*nats.Msg{m}, err
	case v.off: // by its receiver's answer
		next.Due, next.OffRevision = time.Time{}, now.Revision
		return []*nats.Msg{next.Hold(sequence(j.m))}, nil
	case v.status == held:
		return []*nats.Msg{next.Hold(sequence(j.m))}, nil
	}
	later := next
	later.Due = time.Time{}
	return []*nats.Msg{later.Later(next.Due)}, nil
}

// latest is a webhook at the latest revision that we know of.
func (s *Sender) latest(w *webhook.Webhook) *webhook.Webhook {
	if now := s.webhooks.Get(w.ShopID, w.ID); now != nil && now.Revision > w.Revision {
		return now
	}
	return w
}

// giveUp ends a delivery that was held for too long.
func (s *Sender) giveUp(ctx context.Context, j *job) error {
	reason := fmt.Sprintf("given up: its receiver has not been well for %s; it can be sent again by hand", j.from.unwellFor().Round(time.Minute))
	var msgs []*nats.Msg
	if !notice.Is(j.d.Type) {
		told, err := s.tellFailed(&j.d, j.w, verdict{reason: reason})
		if err != nil {
			return err
		}
		msgs = append(msgs, told)
	}
	return s.publish(ctx, s.records.Write, record.Change(&j.d, failed, reason), msgs...)
}

// exchangeWith signs a body and POSTs it.
func (s *Sender) exchangeWith(ctx context.Context, d *contract.Delivery, w *webhook.Webhook, b body) *exchange {
	text := b.bytes()
	h := headers(d, w, b, text, s.agent, time.Now())
	propagation.TraceContext{}.Inject(ctx, lower(h))
	s.inFlight.Inc()
	defer s.inFlight.Dec()
	x := do(ctx, s.client, w.URL, h, text, w.Policy.Timeout, int64(s.cfg.MaxResponseBytes))
	if _, key := w.APIKey(); key != "" { // some receivers send back what they are sent
		x.body = bytes.ReplaceAll(x.body, []byte(key), []byte(mask))
	}
	return x
}

// lower writes a trace into headers under the names that W3C gives them.
type lower http.Header

func (h lower) Get(key string) string { return http.Header(h).Get(key) }
func (h lower) Set(key, value string) { h[key] = []string{value} }
func (h lower) Keys() []string        { return nil }

// sequence is a message's place in its stream: it tells a message that comes again from another one.
func sequence(m bus.Message) uint64 {
	meta, err := m.Metadata()
	if err != nil {
		return 0
	}
	return meta.Sequence.Stream
}
