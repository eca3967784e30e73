package subscription

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestEvents_BecomeDeliveriesAndARecordOfTheDecision(t *testing.T) {
	t.Parallel()
	b := setup(t)
	plain := b.create(t, &shopbellv1.Webhook{Label: proto.String("plain")})
	delayed := b.create(t, &shopbellv1.Webhook{Label: proto.String("delayed"), Delay: &shopbellv1.Delay{Value: 2, Unit: "day"}})
	filtered := b.create(t, &shopbellv1.Webhook{Label: proto.String("filtered"), Filter: proto.String("data.total > 1000.0")})
	other := b.create(t, &shopbellv1.Webhook{Label: proto.String("other"), Events: []string{"order_created"}})
	e := happened("evt_1", "paid")
	if err := b.bus.Publish(t.Context(), e.Message(), happened("evt_2", "nobody_wants_it").Message()); err != nil {
		t.Fatal(err)
	}
	records := b.decisions(t, 2)
	considered := map[string]*shopbellv1.Considered{}
	for _, r := range records {
		if r.EventId == "evt_2" && len(r.GetDecision().Considered) != 0 {
			t.Errorf("an event that nobody wants considers %v", r.GetDecision())
		}
		for _, c := range r.GetDecision().Considered {
			considered[c.WebhookId] = c
		}
	}
	if len(considered) != 3 || considered[other.Id] != nil {
		t.Errorf("considered %v, want the three that subscribe", considered)
	}
	if c := considered[filtered.Id]; c.GetMatched() || !strings.Contains(c.GetReason(), "its filter says no: data.total > 1000.0") {
		t.Errorf("the filtered one: %v", c)
	}
	bySubject := map[string]*jetstream.RawStreamMsg{}
	for _, m := range append(b.stored(t, contract.Deliveries), b.stored(t, contract.Later)...) {
		bySubject[m.Subject] = m
	}
	if len(bySubject) != 2 {
		t.Errorf("%d messages, want 2", len(bySubject))
	}
	now, later := bySubject[contract.DeliverySubject(plain.Id, contract.Straight)], bySubject[contract.LaterSubject(delayed.Id, considered[delayed.Id].GetDeliveryId())]
	if now == nil || later == nil {
		t.Fatalf("there is %v, want one at once and one later", bySubject)
	}
	d, err := contract.ParseDelivery(now.Header, now.Data)
	if err != nil || d.ID != considered[plain.Id].GetDeliveryId() || d.Attempt != 1 || string(d.Data) != string(e.Data) || d.Event.ID != "evt_1" {
		t.Errorf("delivery %+v, %v", d, err)
	}
	due := e.AcceptedAt.Add(48 * time.Hour)
	if got := later.Header.Get("Nats-Schedule"); got != "@at "+due.UTC().Format(time.RFC3339Nano) {
		t.Errorf("the delayed one fires %s, want %s", got, due.UTC())
	}
	for _, r := range records {
		if r.EventId == "evt_1" && !r.GetDecision().Due[delayed.Id].AsTime().Equal(due.UTC()) {
			t.Errorf("the record says it is due %v, want %s", r.GetDecision().Due, due)
		}
	}
}

func TestReplicas_ShareTheEvents(t *testing.T) {
	t.Parallel()
	one := setup(t)
	two := &bundle{bus: one.bus, js: one.js, log: one.log}
	two.run(t)
	wh := one.create(t, &shopbellv1.Webhook{})
	two.webhooks.Await(t.Context(), "demo", wh.Id, 1)
	testwait.Until(t, "both wait for events", func() bool { // a room says that it is ready before it does
		matcher, err := one.js.Consumer(t.Context(), contract.Events, contract.Matcher)
		return err == nil && matcher.CachedInfo().NumWaiting >= 2
	})
	const events = 3000
	for i := 0; i < events; i += 100 {
		var batch []*nats.Msg
		for j := range 100 {
			batch = append(batch, happened(fmt.Sprintf("evt_%d", i+j), "paid").Message())
		}
		if err := one.bus.Publish(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
	records := one.decisions(t, events)
	if len(records) != events {
		t.Errorf("%d decisions are recorded, want one for each of %d events", len(records), events)
	}
	shares := []float64{testutil.ToFloat64(one.decided), testutil.ToFloat64(two.decided)}
	if shares[0] == 0 || shares[1] == 0 {
		t.Errorf("the replicas decided on %v events, want both at work", shares)
	}
	t.Logf("of %d events one replica decided on %v, the other on %v", events, shares[0], shares[1])
}

// Whoever dies between publishing and acking decides again: no second delivery may come of it.
func TestEvents_DecidedAgainMakeNothingNew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.create(t, &shopbellv1.Webhook{})
	e := happened("evt_1", "paid")
	var all decided
	for range 2 {
		if err := b.decideOne(t.Context(), &jetstream.MsgMetadata{}, e, b.webhooks.Subscribed(e.ShopID, e.Type), &all); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.bus.Publish(t.Context(), all.deliveries...); err != nil {
		t.Fatal(err)
	}
	if got := len(b.stored(t, contract.Deliveries)); got != 1 || len(all.deliveries) != 2 {
		t.Errorf("%d deliveries of %d messages, want 1 of 2", got, len(all.deliveries))
	}
	first, second := all.records[0].GetDecision().GetConsidered(), all.records[1].GetDecision().GetConsidered()
	if len(first) != 1 || len(second) != 1 || first[0].GetDeliveryId() != second[0].GetDeliveryId() {
		t.Errorf("recorded %v and %v, which the log cannot take for one decision", first, second)
	}
}

func TestEvents_ThatAreNoneAreLeftOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.create(t, &shopbellv1.Webhook{})
	if err := b.bus.Publish(t.Context(), &nats.Msg{Subject: contract.EventSubject("demo", "paid", false), Header: nats.Header{}, Data: []byte("x")}, happened("evt_1", "paid").Message()); err != nil {
		t.Fatal(err)
	}
	b.decisions(t, 1)
	testwait.Until(t, "nothing is left to decide", func() bool {
		waiting, unanswered, err := b.bus.Pending(t.Context(), contract.Matcher)
		return err == nil && waiting == 0 && unanswered == 0
	})
	if !strings.Contains(b.log.String(), "is no event") {
		t.Errorf("the log does not tell:\n%s", b.log)
	}
}

// In order, deliveries are held from the beginning: which of them are because the webhook is off stands in them.
func TestEvents_InOrderAreHeldByTheRevisionThatIsOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.create(t, &shopbellv1.Webhook{Policy: &shopbellv1.Policy{Ordered: proto.String(profile.ByWebhook)}})
	n := 0
	want := func(when string, revision uint64) {
		t.Helper()
		n++
		if err := b.bus.Publish(t.Context(), happened(fmt.Sprintf("evt_%d", n), "paid").Message()); err != nil {
			t.Fatal(err)
		}
		var all []*jetstream.RawStreamMsg
		testwait.Until(t, "it is held", func() bool { all = b.stored(t, contract.Held); return len(all) == n })
		d, err := contract.ParseDelivery(all[n-1].Header, all[n-1].Data)
		if err != nil || d.OffRevision != revision {
			t.Errorf("%s: held by revision %d (%v), want %d", when, d.OffRevision, err, revision)
		}
	}
	want("while it is on", 0)
	b.wish(t, w, func(*busv1.SwitchOff) {})
	off := b.webhooks.Get("demo", w.Id)
	want("while it is off", off.Revision)
	if _, _, err := b.enable(t.Context(), "demo", w.Id, true); err != nil {
		t.Fatal(err)
	}
	want("when it is on again", 0)
	// A replica that has not heard of it yet.
	if got, err := b.offRevision(t.Context(), off, &decided{}); err != nil || got != 0 {
		t.Errorf("with a directory that is behind: held by revision %d (%v), want none", got, err)
	}
}

// Whoever sends in order relies on it: what lies before a delivery in HELD is all that there is of those events.
func TestEvents_InOrderTellHowFarAllWereMatched(t *testing.T) {
	t.Parallel()
	one := setup(t)
	two := &bundle{bus: one.bus, js: one.js, log: one.log}
	two.run(t)
	w := one.create(t, &shopbellv1.Webhook{Policy: &shopbellv1.Policy{Ordered: proto.String(profile.ByKey)}})
	two.webhooks.Await(t.Context(), "demo", w.Id, 1)
	n := 0
	publish := func(events int) {
		t.Helper()
		var batch []*nats.Msg
		for range events {
			n++
			batch = append(batch, happened(fmt.Sprint("evt_", n), "paid").Message())
		}
		if err := one.bus.Publish(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		publish(100)
	}
	var all []*jetstream.RawStreamMsg
	var told uint64
	testwait.Until(t, "what is held tells how far events were matched", func() bool {
		publish(1)
		if all = one.stored(t, contract.Held); len(all) == 0 {
			return false
		}
		d, err := contract.ParseDelivery(all[len(all)-1].Header, all[len(all)-1].Data)
		told = d.MatchedThrough
		return err == nil && told > 1000
	})
	held, through := map[uint64]bool{}, uint64(0) // what is held up to here, and up to which event all are
	for _, raw := range all {
		d, err := contract.ParseDelivery(raw.Header, raw.Data)
		if err != nil {
			t.Fatal(err)
		}
		if d.MatchedThrough > through {
			t.Fatalf("event %d: all up to %d are said to have been matched, and of %d nothing is held before it", d.Sequence, d.MatchedThrough, through+1)
		}
		for held[d.Sequence] = true; held[through+1]; through++ {
			delete(held, through+1)
		}
	}
	t.Logf("of %d events the last tells that all up to %d were matched", n, told)
}

func TestExplainEvent_SaysWhoAndWhyNot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := map[string]string{}
	add := func(name string, w *shopbellv1.Webhook) *shopbellv1.Webhook {
		w.Label = &name
		out := b.create(t, w)
		ids[out.Id] = name
		return out
	}
	add("plain", &shopbellv1.Webhook{})
	add("star", &shopbellv1.Webhook{Events: []string{"*"}})
	add("other type", &shopbellv1.Webhook{Events: []string{"order_created"}})
	add("test only", &shopbellv1.Webhook{Environment: proto.String("test")})
	add("delayed", &shopbellv1.Webhook{Delay: &shopbellv1.Delay{Value: 2, Unit: "hour"}})
	add("filter", &shopbellv1.Webhook{Filter: proto.String("data.total > 1000.0")})
	add("off", &shopbellv1.Webhook{Status: webhook.Disabled})
	b.wish(t, add("off by receiver", &shopbellv1.Webhook{}), func(*busv1.SwitchOff) {})
	out, err := b.ExplainEvent(t.Context(), &subscriptionv1.ExplainEventRequest{
		ShopId: "demo", Event: &shopbellv1.Event{Type: "paid", Content: &shopbellv1.Event_Json{Json: `{"total":5.50}`}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range out.Considered {
		got[ids[c.WebhookId]] = fmt.Sprintf("%v: %s", c.Matched, c.Reason)
		if c.DeliveryId != "" {
			t.Errorf("a dry run made the delivery %s", c.DeliveryId)
		}
	}
	want := map[string]string{
		"plain":           "true: it subscribes to paid",
		"star":            "true: it subscribes to paid",
		"other type":      "false: it does not subscribe to paid",
		"test only":       "false: it wants test events only, and this is a live event",
		"delayed":         "true: it subscribes to paid; it would be sent 2h0m0s after the event",
		"filter":          "false: its filter says no: data.total > 1000.0",
		"off":             "false: it is switched off by its owner",
		"off by receiver": "true: it subscribes to paid; the delivery would be held: switched off by its receiver: it answered 410 Gone to delivery dlv_1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if left := len(b.stored(t, contract.Deliveries)) + len(b.stored(t, contract.Later)); left != 0 {
		t.Errorf("a dry run published %d messages", left)
	}
	for field, e := range map[string]*shopbellv1.Event{
		"event.type": {Type: "a b", Content: &shopbellv1.Event_Json{Json: "1"}},
		"event.json": {Type: "paid", Content: &shopbellv1.Event_Json{Json: "{"}},
		"event.data": {Type: "paid"},
	} {
		if _, err := b.ExplainEvent(t.Context(), &subscriptionv1.ExplainEventRequest{ShopId: "demo", Event: e}); !slices.Equal(fieldsOf(t, err), []string{field}) {
			t.Errorf("%v: %v, want an error on %s", e, err, field)
		}
	}
}
