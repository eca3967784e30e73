package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/rpc"
	"shopbell.dev/pkg/webhook"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// ResendDelivery sends a delivery again: one attempt, marked as by hand. One that waits for its time is sent now in place
// of that.
func (l *Log) ResendDelivery(ctx context.Context, req *logv1.ResendDeliveryRequest) (*logv1.ResendDeliveryResponse, error) {
	known, err := l.known(ctx, req.GetShopId(), req.GetDeliveryId())
	if err != nil {
		return nil, err
	}
	w, err := l.reachable(ctx, req.GetShopId(), known.Delivery.GetWebhookId(), req.GetEvenIfDisabled())
	if err != nil {
		return nil, err
	}
	m, err := l.again(ctx, known, w, asking{by: asker(ctx), at: time.Now()})
	if err != nil {
		return nil, err
	}
	return &logv1.ResendDeliveryResponse{DeliveryId: req.GetDeliveryId()}, l.ask(ctx, m)
}

// asking is who asks for an attempt, and when.
type asking struct {
	by     string
	at     time.Time
	replay string // the job
}

// again makes the message that sends a delivery again to its webhook as that is now, even if it is off, or nil when the
// delivery's time has come and it is sent as it is.
func (l *Log) again(ctx context.Context, known *store.Delivery, w *webhook.Webhook, a asking) (*nats.Msg, error) {
	t, err := l.timerOf(ctx, known)
	if err != nil {
		return nil, err
	}
	if t == nil {
		d, err := anew(known, time.Now())
		if err != nil {
			return nil, err
		}
		d.Revision, d.AskedAt, d.AskedBy, d.Replay = w.Revision, a.at, a.by, a.replay
		if a.replay != "" {
			d.Uncounted = d.Attempt - 1 // the schedule begins anew
		}
		return d.Message(), nil
	}
	now := time.Now()
	if t.fires(now) {
		return nil, nil //nolint:nilnil // the doc says so
	}
	if t.Revision, t.AskedBy, t.Asked, t.Replay = w.Revision, a.by, true, a.replay; w.Off() != "" {
		t.AskedAt = a.at // to a webhook that is off goes what is asked for by hand, and nothing else
	}
	return t.InsteadOf(t.sequence, now), nil
}

// CancelDelivery cancels a delivery that waits for its time: its timer is replaced by one that is due now and has the
// sender record the end. So nothing is lost whoever dies: either the old timer is there, or the new one, and never both.
// After a kill -9 of its server the bus may bring back the message of a timer that was replaced. Such a message never
// fires: what was cancelled stays so. One that is held is cancelled by the sender that owns its lane, who is asked to.
func (l *Log) CancelDelivery(ctx context.Context, req *logv1.CancelDeliveryRequest) (*logv1.CancelDeliveryResponse, error) {
	known, err := l.known(ctx, req.GetShopId(), req.GetDeliveryId())
	if err != nil {
		return nil, err
	}
	done := &logv1.CancelDeliveryResponse{DeliveryId: req.GetDeliveryId()}
	t, err := l.timerOf(ctx, known)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	cancel := oneLine("cancelled by hand" + because(", by ", asker(ctx)) + because(": ", req.GetReason()))
	switch status := known.Delivery.GetStatus(); {
	case t == nil && status == "cancelled":
		return done, nil
	case t == nil && (status == "delivered" || status == "failed"):
		return nil, fault.New(fault.Precondition, "the delivery is %s: nothing of it waits that could be cancelled", status)
	case t == nil:
		kept, err := l.held(ctx, known.Delivery)
		if err != nil {
			return nil, err
		}
		if !kept {
			return nil, errOnItsWay
		}
		return done, l.ask(ctx, heldOf(known.Delivery, cancel).CancelHeld())
	case t.fires(now):
		return nil, errOnItsWay
	}
	t.Cancel = cancel
	m := t.InsteadOf(t.sequence, now)
	bus.Inject(ctx, m)
	switch err := l.env.Bus.Publish(ctx, m); {
	case bus.Outrun(err):
		return nil, errOnItsWay
	case err != nil:
		return nil, fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	return done, nil
}

// held says whether a delivery that waits for no time lies in HELD: all that wait for a webhook in order do, whatever their status.
func (l *Log) held(ctx context.Context, d *shopbellv1.Delivery) (bool, error) {
	if d.GetStatus() == "held" {
		return true, nil
	}
	w, err := l.webhooks.Fetch(ctx, d.GetShopId(), d.GetWebhookId())
	if err != nil {
		return false, fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	return w != nil && w.Policy.IsOrdered(), nil
}

// heldOf is as much of a held delivery as its lane's owner must know to cancel it.
func heldOf(d *shopbellv1.Delivery, cancel string) *contract.Delivery {
	matched := d.GetCreatedAt().AsTime()
	return &contract.Delivery{
		Event: contract.Event{ShopID: d.GetShopId(), ID: d.GetEventId(), Type: d.GetEventType(), AcceptedAt: matched},
		ID:    d.GetId(), WebhookID: d.GetWebhookId(), MatchedAt: matched, Attempt: int(d.GetAttemptsMade()) + 1, Cancel: cancel,
	}
}

var errOnItsWay = fault.New(fault.Precondition, "the delivery's time has come: it is on its way, and can no longer be cancelled; read it in a moment to see what came of it")

// known reads a delivery from the log.
func (l *Log) known(ctx context.Context, shopID, deliveryID string) (*store.Delivery, error) {
	d, err := store.Detail(ctx, l.store, shopID, deliveryID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "no delivery %q in shop %q: check both ids", deliveryID, shopID)
	}
	if err != nil {
		return nil, fmt.Errorf("read delivery %s: %w", deliveryID, err)
	}
	return d, nil
}

// reachable gives a webhook as it is right now, and fails when nothing may be sent to it: when it is deleted or broken, or
// off and nobody has said that this is meant.
func (l *Log) reachable(ctx context.Context, shopID, webhookID string, evenIfDisabled bool) (*webhook.Webhook, error) {
	w, err := l.webhooks.Fetch(ctx, shopID, webhookID)
	switch {
	case err != nil:
		return nil, fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	case w == nil:
		return nil, fault.New(fault.Precondition, "the webhook %s was deleted, so nothing can be sent to it; replay the event to another webhook", webhookID)
	case w.Status == webhook.Deleted:
		return nil, fault.New(fault.Precondition, "the webhook %s was %s; switch it on again with :enable first", webhookID, w.Off())
	case w.Broken != "":
		return nil, fault.New(fault.Precondition, "%s; mend the webhook %s first", w.Off(), webhookID)
	case w.Off() != "" && !evenIfDisabled:
		return nil, fault.New(fault.Precondition, "the webhook %s is off: it was %s; switch it on again with :enable, or send {\"even_if_disabled\": true} if it is to get this one all the same", webhookID, w.Off())
	}
	return w, nil
}

// timer is what a delivery waits on.
type timer struct {
	contract.Delivery
	sequence uint64
	due      time.Time
}

// firing is how long before it is due a timer counts as having fired: our clock and the bus's may differ, and the bus
// has a moment between reading a timer and putting the delivery onto its way. Between the two nothing can be taken back.
const firing = time.Second

func (t *timer) fires(now time.Time) bool { return !now.Before(t.due.Add(-firing)) }

// lostAfter is how long after it was due a timer is one no longer: its message came back after a crash, and never fires.
const lostAfter = 2 * time.Minute

// timerOf reads a delivery's timer, or nil when it has none.
func (l *Log) timerOf(ctx context.Context, known *store.Delivery) (*timer, error) {
	m, err := l.env.Bus.LastMessage(ctx, contract.Later, contract.LaterSubject(known.Delivery.GetWebhookId(), known.Delivery.GetId()))
	if err != nil {
		return nil, fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	if m == nil {
		return nil, nil //nolint:nilnil // the doc says so
	}
	t := &timer{sequence: m.Sequence}
	if t.Delivery, t.due, err = contract.ParseLater(m.Header, m.Data); err != nil {
		return nil, err
	}
	if time.Since(t.due) > lostAfter {
		return nil, nil //nolint:nilnil // the doc says so
	}
	return t, nil
}

// ask publishes what sends deliveries again. Where a timer is no longer there whose place another was to take, its time has
// come or somebody else has asked: that delivery is sent.
func (l *Log) ask(ctx context.Context, msgs ...*nats.Msg) error {
	msgs = slices.DeleteFunc(msgs, func(m *nats.Msg) bool { return m == nil })
	for _, m := range msgs {
		bus.Inject(ctx, m)
	}
	err := l.env.Bus.Publish(ctx, msgs...)
	if bus.Outrun(err) { // of which one is not said; to publish the others again is harmless
		err = nil
		for i := 0; i < len(msgs) && (err == nil || bus.Outrun(err)); i++ {
			err = l.env.Bus.Publish(ctx, msgs[i])
		}
	}
	if err != nil && !bus.Outrun(err) {
		return fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	return nil
}

// asker is the key by which a call came, as a header can hold it.
func asker(ctx context.Context) string { return oneLine(rpc.Caller(ctx)) }

// oneLine is a text as a header can hold it.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "�"))
}

// logLag is how long after a delivery was made the log may still lack its event: it follows the two by consumers of their
// own.
const logLag = time.Minute

// anew makes one more attempt out of what is known of a delivery: with the body that was sent before, or, before the
// first attempt, with the event's data.
func anew(known *store.Delivery, now time.Time) (*contract.Delivery, error) {
	was := known.Delivery
	d := &contract.Delivery{
		ID: was.GetId(), WebhookID: was.GetWebhookId(), MatchedAt: was.GetCreatedAt().AsTime(), Attempt: int(was.GetAttemptsMade()) + 1,
		Event: contract.Event{ShopID: was.GetShopId(), ID: was.GetEventId(), Type: was.GetEventType(), AcceptedAt: was.GetCreatedAt().AsTime()},
	}
	if known.Event != nil {
		d.Event = eventOf(known.Event)
	}
	switch {
	case known.BodyKnown:
		d.Data, d.WholeBody, d.ContentType = was.GetBody(), true, sentType(known)
	case known.Event == nil && bodyPending(known, now):
		return nil, fault.Away(time.Second, "the log does not have the event's data yet; try again")
	case known.Event == nil || len(known.Attempts) > 0:
		return nil, fault.New(fault.Precondition, "the log no longer has the data of this delivery, so it cannot be sent again; publish the event anew")
	}
	return d, nil
}

// eventOf is an event of the log as it lay on the bus.
func eventOf(e *shopbellv1.Event) contract.Event {
	return contract.Event{
		ShopID: e.GetShopId(), ID: e.GetId(), Type: e.GetType(), Action: e.GetAction(), OccurredAt: e.GetOccurredAt(),
		Environment: e.GetEnvironment(), Key: e.GetKey(), ContentType: e.GetContentType(), AcceptedAt: e.GetAcceptedAt().AsTime(), Data: e.GetData(),
	}
}

// bodyPending says that a delivery's event is still to come: the log follows deliveries and events by consumers of
// their own.
func bodyPending(known *store.Delivery, now time.Time) bool {
	return known.Event == nil && !known.BodyKnown && now.Sub(known.Delivery.GetCreatedAt().AsTime()) < logLag
}

// sentType is the content type that the last attempt was sent with.
func sentType(known *store.Delivery) string {
	last := known.Attempts[len(known.Attempts)-1]
	for _, h := range last.GetAttempt().GetRequestHeaders() {
		if strings.EqualFold(h.GetName(), "Content-Type") {
			return h.GetValue()
		}
	}
	return event.JSON
}
