package eventlog

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

const person = "kunde@example.com"

// publishLife publishes an event, a timer, and a held delivery with its tries, and gives the records of its decision and of an attempt.
func publishLife(t *testing.T, r *room, shop, eventID, data, answer string) []*busv1.Record {
	t.Helper()
	now := time.Now()
	e := contract.Event{ShopID: shop, ID: eventID, Type: "paid", ContentType: "application/json", AcceptedAt: now, Data: []byte(data)}
	timer := &contract.Delivery{Event: e, ID: "dlv_later_" + shop + eventID, WebhookID: "wh_later", MatchedAt: now, Attempt: 2}
	held := &contract.Delivery{Event: e, ID: "dlv_held_" + shop + eventID, WebhookID: "wh_held", MatchedAt: now, Attempt: 1}
	records := []*busv1.Record{
		{What: &busv1.Record_Decision{Decision: &busv1.Decision{Considered: []*shopbellv1.Considered{{WebhookId: "wh_later", Matched: true, DeliveryId: timer.ID}}}}},
		{What: &busv1.Record_Attempt{Attempt: &busv1.AttemptMade{
			DeliveryId: timer.ID, WebhookId: "wh_later", Status: "retrying", MatchedAt: timestamppb.New(now),
			Attempt: &shopbellv1.Attempt{Number: 1, StartedAt: timestamppb.New(now), ResponseBody: []byte(answer)},
		}}},
	}
	if err := r.bus.Publish(t.Context(), e.Message(), timer.Later(now.Add(time.Hour)), held.Hold(1),
		contract.TriesMessage(held.WebhookID, held.ID, []byte("tries"))); err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		record.At, record.ShopId, record.EventId, record.EventType = timestamppb.New(now), shop, eventID, "paid"
	}
	return records
}

// tell publishes records in one message.
func (r *room) tell(t *testing.T, records ...[]*busv1.Record) {
	t.Helper()
	msgs, err := record.Messages(slices.Concat(records...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.bus.Publish(t.Context(), msgs...); err != nil || len(msgs) != 1 {
		t.Fatalf("%d messages, %v; want one", len(msgs), err)
	}
}

// lies are the events that lie on the bus, each with how many messages or records of it, and the bytes of all of them.
func (r *room) lies(t *testing.T) (events map[string]int, all string) {
	t.Helper()
	events = map[string]int{}
	var text strings.Builder
	for _, shop := range []string{"shop", "other"} {
		x := &expunger{l: r.Log, shop: shop}
		for _, p := range x.places() {
			for _, subject := range p.subjects {
				batch, _, err := r.bus.List(t.Context(), p.stream, subject, 1, 1000, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range batch {
					parts, err := partsOf(p.stream, m)
					if err != nil {
						t.Fatal(err)
					}
					for _, part := range parts {
						if part.shop == shop {
							events[shop+"/"+part.eventID]++
							text.Write(part.data)
						}
					}
				}
			}
		}
	}
	return events, text.String()
}

func TestExpungeShop_RemovesAPersonEverywhere(t *testing.T) {
	t.Parallel()
	r := startRoom(t, "")
	r.tell(t, // what several shops told at about the same time lies in one message
		publishLife(t, r, "shop", "evt_1", `{"email":"`+person+`"}`, ""),
		publishLife(t, r, "shop", "evt_2", `{"email":"somebody@example.com"}`, ""),
		publishLife(t, r, "shop", "evt_3", `{"email":"somebody@example.com"}`, "mailed to Kunde@Example.com"),
		publishLife(t, r, "other", "evt_1", `{"email":"`+person+`"}`, ""))
	testwait.Until(t, "the log has all", func() bool {
		e, err := r.store.Event(context.Background(), "other", "evt_1")
		return err == nil && e.Event.GetAcceptedAt() != nil && len(e.Deliveries) == 1
	})

	ask := &logv1.ExpungeShopRequest{ShopId: "shop", Text: person, DryRun: true}
	got, err := r.ExpungeShop(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"evt_1", "evt_3"}; !slices.Equal(got.GetEventIds(), want) || got.GetEvents() != 2 || len(got.GetRemoved()) != 0 {
		t.Errorf("dry run: got %v, want %q and nothing removed", got, want)
	}
	ask.DryRun = false
	if got, err = r.ExpungeShop(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{
		"EVENTS": 2, "LATER": 2, "HELD": 4, "OUTCOMES": 1, "log/events": 2, "log/decisions": 2, "log/deliveries": 2, "log/attempts": 2,
	}
	if diff := cmp.Diff(want, got.GetRemoved()); diff != "" || got.GetAgain() == "" {
		t.Errorf("removed: got + and want -:\n%s; again %q, want to be told of attempts under way", diff, got.GetAgain())
	}
	events, all := r.lies(t)
	if want := map[string]int{"shop/evt_2": 5, "other/evt_1": 5}; !maps.Equal(events, want) {
		t.Errorf("messages on the bus: got %v, want %v", events, want)
	}
	if n := strings.Count(strings.ToLower(all), person); n != 3 {
		t.Errorf("the bus holds the address %d times, want 3 times, all of the other shop", n)
	}
	for shop, want := range map[string]int{"shop": 0, "other": 1} {
		if ids, err := r.store.Holding(context.Background(), shop, person); err != nil || len(ids) != want {
			t.Errorf("events in the log of %s: got %v, %v; want %d", shop, ids, err, want)
		}
	}
	if got, err = r.ExpungeShop(t.Context(), ask); err != nil || got.GetEvents() != 0 || len(got.GetRemoved()) != 0 || got.GetAgain() != "" {
		t.Errorf("again: got %v, %v; want nothing left to remove", got, err)
	}
}

func TestExpungeShop_RemovesAWholeShop(t *testing.T) {
	t.Parallel()
	r := startRoom(t, "")
	r.tell(t, publishLife(t, r, "shop", "evt_1", "{}", ""))
	r.tell(t, publishLife(t, r, "other", "evt_1", "{}", ""))
	r.tell(t, publishLife(t, r, "shop", "evt_2", "{}", ""), publishLife(t, r, "other", "evt_2", "{}", ""))
	got, err := r.ExpungeShop(t.Context(), &logv1.ExpungeShopRequest{ShopId: "shop", Everything: true})
	if err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]int64{"EVENTS": 2, "LATER": 2, "HELD": 4, "OUTCOMES": 2} {
		if got.GetRemoved()[stream] != want {
			t.Errorf("removed from %s: got %d, want %d", stream, got.GetRemoved()[stream], want)
		}
	}
	if events, _ := r.lies(t); !maps.Equal(events, map[string]int{"other/evt_1": 5, "other/evt_2": 5}) {
		t.Errorf("messages on the bus: got %v, want the other shop's alone", events)
	}
	testwait.Until(t, "the log has nothing of the shop and all of the other", func() bool {
		_, err := r.store.Event(context.Background(), "shop", "evt_2")
		e, errOther := r.store.Event(context.Background(), "other", "evt_2")
		return err != nil && errOther == nil && e.Event.GetAcceptedAt() != nil
	})
}

func TestExpungeShop_RefusesWhatIsNotClear(t *testing.T) {
	t.Parallel()
	l := &Log{} // no request gets as far as the store
	for _, r := range []*logv1.ExpungeShopRequest{
		{ShopId: "shop"},
		{ShopId: "shop", DryRun: true},
		{ShopId: "shop", Text: "a@b"},
		{ShopId: "shop", Text: person, Everything: true},
		{ShopId: "shop", Text: person, EventIds: []string{"evt_1"}},
	} {
		if _, err := l.ExpungeShop(t.Context(), r); !fault.IsKind(err, fault.Invalid) {
			t.Errorf("%v: got %v, want an Invalid fault", r, err)
		}
	}
}
