package subscription

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// match decides for each webhook that subscribes to the event's type.
func match(e *contract.Event, subscribed []*webhook.Webhook) (matched []*webhook.Webhook, considered []*shopbellv1.Considered) {
	seen := webhook.View(e)
	for _, w := range subscribed {
		c := &shopbellv1.Considered{WebhookId: w.ID, Label: w.Label}
		if c.Matched, c.Reason = w.Wants(e, seen); c.Matched {
			c.DeliveryId = w.DeliveryID(e)
			matched = append(matched, w)
		}
		considered = append(considered, c)
	}
	return matched, considered
}

// publishTimeout bounds how long the bus may take to store what was decided for one batch; after that it is decided
// again.
const publishTimeout = 15 * time.Second

// way is by which connection what was decided goes to the bus: bursts have one of their own.
type way struct {
	bus     *bus.Bus
	records *record.Writer
}

func wayBy(b *bus.Bus) way { return way{b, record.NewWriter(b)} }

// decide matches a batch of events: it publishes, by this way, a delivery for each webhook that wants one, and gives how many
// those are. Then does what is left, for which no delivery waits: the record of each decision. It may be nil.
func (s *Subscription) decide(whole context.Context, by way, batch []bus.Message) (made int, then func() error, err error) {
	ctx, cancel := context.WithTimeout(whole, publishTimeout) // what is left to then has a bound of its own
	defer cancel()
	var all decided
	var oldest time.Time
	var single []time.Time // when those were accepted that came one by one
	for _, m := range batch {
		e, err := contract.ParseEvent(m.Headers(), m.Data())
		if err != nil {
			s.env.Log.ErrorContext(ctx, "a message on EVENTS is no event; it is left out", slog.Any("error", err))
			_ = m.TermWithReason(err.Error())
			continue
		}
		if oldest.IsZero() || e.AcceptedAt.Before(oldest) {
			oldest = e.AcceptedAt
		}
		if !e.Bulk {
			single = append(single, e.AcceptedAt)
		}
		meta, err := m.Metadata()
		if err != nil {
			return 0, nil, fmt.Errorf("place of event %s among all: %w", e.ID, err)
		}
		if err := s.decideOne(bus.Extract(ctx, m.Headers()), meta, &e, s.webhooks.Subscribed(e.ShopID, e.Type), &all); err != nil {
			return 0, nil, err
		}
	}
	all.records = append(all.records, all.waits...)
	publish := all.deliveries
	if all.ordered { // their lanes wait until these events are answered
		msgs, err := record.Messages(all.records...)
		if err != nil {
			return 0, nil, err
		}
		publish = append(publish, msgs...)
	} else {
		then = func() error { return by.records.WriteCalmly(whole, all.records...) }
	}
	if err := by.bus.Publish(ctx, publish...); err != nil {
		return 0, nil, err
	}
	s.putOffs.add(all.putOffs)
	now := time.Now()
	s.decided.Add(float64(len(batch)))
	if !oldest.IsZero() { // one of them was an event
		s.lag.Observe(now.Sub(oldest).Seconds())
	}
	for _, accepted := range single {
		s.bursts.Saw(now.Sub(accepted))
	}
	return len(all.deliveries), then, nil
}

// decided is what is to be published for a batch of events.
type decided struct {
	deliveries []*nats.Msg
	records    []*busv1.Record
	waits      []*busv1.Record   // that some were put off
	putOffs    []*busv1.PutOff   // the same, for the senders
	ordered    bool              // one of the deliveries goes in order
	off        map[string]uint64 // what offRevision has found, by webhook
	through    map[string]uint64 // what matchedThrough has found, by shop
}

// decideOne adds what is to be published for one event, which has this place in EVENTS.
func (s *Subscription) decideOne(ctx context.Context, at *jetstream.MsgMetadata, e *contract.Event, subscribed []*webhook.Webhook, all *decided) error {
	now := time.Now()
	ctx, span := s.env.Tracer.Start(ctx, "match webhooks", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(now))
	defer span.End()
	matched, considered := match(e, subscribed)
	decision := &busv1.Decision{Considered: considered}
	next := 0 // in matched
	for _, c := range considered {
		if !c.Matched {
			s.passedOver.Inc()
			continue
		}
		w := matched[next]
		next++
		d := contract.Delivery{Event: *e, ID: c.DeliveryId, WebhookID: c.WebhookId, Revision: w.Revision, MatchedAt: now, Attempt: 1}
		if w.Policy.IsOrdered() {
			d.Sequence, d.MatchedThrough = at.Sequence.Stream, s.matchedThrough(ctx, e.ShopID, all)
			all.ordered = true
		}
		var m *nats.Msg
		switch {
		case w.Delay > 0:
			due := e.AcceptedAt.Add(w.Delay)
			m = d.Later(due)
			if decision.Due == nil {
				decision.Due = map[string]*timestamppb.Timestamp{}
			}
			decision.Due[c.WebhookId] = timestamppb.New(due)
		case d.Sequence > 0: // its lane's owner sends it in its turn
			var err error
			if d.OffRevision, err = s.offRevision(ctx, w, all); err != nil {
				return err
			}
			m = d.Hold(0)
		default:
			var err error
			if m, err = s.straight(ctx, &d, w, at.NumDelivered > 1, all); err != nil {
				return err
			}
		}
		if m != nil {
			bus.Inject(ctx, m)
			all.deliveries = append(all.deliveries, m)
		}
	}
	s.matched.Add(float64(len(matched)))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("shop_id", e.ShopID), attribute.String("event_id", e.ID),
			attribute.String("event_type", e.Type), attribute.Int("considered", len(considered)), attribute.Int("matched", len(matched)))
	}
	for _, part := range parts(decision) {
		all.records = append(all.records, record.Traced(ctx, &busv1.Record{
			At: timestamppb.New(now), ShopId: e.ShopID, EventId: e.ID, EventType: e.Type,
			What: &busv1.Record_Decision{Decision: part},
		}))
	}
	return nil
}

// straight gives the message of a delivery that waits for nothing of its webhook's own: it goes to the senders, or is put off since its host
// is shut. Of one that is matched again, and that waits for its time by now, there is none: whoever matched it before was killed after it was
// on its way, and sent straight it would be sent twice.
func (s *Subscription) straight(ctx context.Context, d *contract.Delivery, w *webhook.Webhook, again bool, all *decided) (*nats.Msg, error) {
	if again && w.Policy.Breaks() {
		timer, err := s.env.Bus.LastMessage(ctx, contract.Later, contract.LaterSubject(d.WebhookID, d.ID))
		if err != nil || timer != nil {
			return nil, err
		}
	} else if since, yes := s.shut.putsOff(w, d.MatchedAt); yes {
		return all.putOff(ctx, d, w, since), nil
	}
	return d.Message(), nil
}

// throughEvery is how soon it is asked again how far events were matched.
const throughEvery = 20 * time.Millisecond

// matchedThrough is how far a shop's events were matched before this batch. Whoever sends in order need not ask then while there is
// more of it.
func (s *Subscription) matchedThrough(ctx context.Context, shop string, all *decided) uint64 {
	through, asked := all.through[shop]
	if asked {
		return through
	}
	if all.through == nil {
		all.through = map[string]uint64{}
	}
	through, _ = s.through.Of(ctx, shop) // whoever is not told asks himself
	all.through[shop] = through
	return through
}

// offRevision is the revision of a webhook by which it is off, or 0 while it is on. The bus is asked whether it still is: what
// was accepted after it was switched on must not look as if it had been held before, and our directory may be a moment behind.
// Once for a batch is enough, for all of its events were accepted by then.
func (s *Subscription) offRevision(ctx context.Context, w *webhook.Webhook, all *decided) (uint64, error) {
	if w.Off() == "" {
		return 0, nil
	}
	revision, asked := all.off[w.ID]
	if asked {
		return revision, nil
	}
	now, err := s.webhooks.Fetch(ctx, w.ShopID, w.ID)
	if err != nil {
		return 0, err
	}
	if now != nil && now.Off() != "" {
		revision = now.Revision
	}
	if all.off == nil {
		all.off = map[string]uint64{}
	}
	all.off[w.ID] = revision
	return revision, nil
}

// partSize is how large the record of a decision may become, more or less. The bus takes a message of some MiB, and a shop may
// have more webhooks than fit into one.
const partSize = 1 << 20

// parts are the decision in parts that the bus takes, of which there is at least one. The log puts them together.
func parts(d *busv1.Decision) []*busv1.Decision {
	list := []*busv1.Decision{{}}
	for size := 0; len(d.Considered) > 0; d.Considered = d.Considered[1:] {
		c := d.Considered[0]
		if size += proto.Size(c); size > partSize {
			size = proto.Size(c)
			list = append(list, &busv1.Decision{})
		}
		part := list[len(list)-1]
		part.Considered = append(part.Considered, c)
		if due, ok := d.Due[c.WebhookId]; ok {
			if part.Due == nil {
				part.Due = map[string]*timestamppb.Timestamp{}
			}
			part.Due[c.WebhookId] = due
		}
	}
	return list
}

// ExplainEvent says which webhooks of the shop would get an event, and why the others would not. Nothing is published.
func (s *Subscription) ExplainEvent(_ context.Context, req *subscriptionv1.ExplainEventRequest) (*subscriptionv1.ExplainEventResponse, error) {
	e, err := event.FromProto(req.GetEvent())
	if err != nil {
		var bad fault.Collector
		bad.Include("event.", err)
		return nil, bad.Err()
	}
	settings := s.shops.Get(req.GetShopId())
	if err := s.shops.Check(settings, &e); err != nil {
		return nil, err
	}
	if e.ShopID = req.GetShopId(); e.Environment == "" {
		e.Environment = settings.GetEnvironment()
	}
	subscribed := map[string]bool{}
	for _, w := range s.webhooks.Subscribed(e.ShopID, e.Type) {
		subscribed[w.ID] = true
	}
	out, seen := &subscriptionv1.ExplainEventResponse{}, webhook.View(&e)
	for _, w := range s.webhooks.All(e.ShopID) {
		c := &shopbellv1.Considered{WebhookId: w.ID, Label: w.Label}
		if !subscribed[w.ID] {
			c.Reason = fmt.Sprintf("it does not subscribe to %s", e.Type)
		} else if c.Matched, c.Reason = w.Wants(&e, seen); c.Matched {
			c.Reason = "it subscribes to " + e.Type
			switch {
			case w.Off() != "":
				c.Reason += "; the delivery would be held: " + w.Off()
			case w.Delay > 0:
				c.Reason += fmt.Sprintf("; it would be sent %s after the event", w.Delay)
			}
		}
		out.Considered = append(out.Considered, c)
	}
	return out, nil
}
