package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// story is an eventful life of one delivery, a batch for each step.
func story(shopID, eventID, deliveryID string) []store.Batch {
	records := []*busv1.Record{
		decision(shopID, eventID, time.Second, matched("wh_1", deliveryID)),
		made(shopID, eventID, "wh_1", deliveryID, 1, 2*time.Second, "retrying", 500),
		changed(shopID, eventID, "wh_1", deliveryID, 30*time.Second, "held"),
		made(shopID, eventID, "wh_1", deliveryID, 2, time.Minute, "delivered", 200),
	}
	batches := []store.Batch{{Events: []*shopbellv1.Event{newEvent(shopID, eventID, []byte(`{"total":549.50}`))}}}
	for _, r := range records {
		batches = append(batches, store.Batch{Records: []*busv1.Record{r}})
	}
	return batches
}

// seen is everything that can be read of a story.
type seen struct {
	Event    *store.Event
	Delivery *store.Delivery
	List     []*shopbellv1.Delivery
}

func (b bundle) seen(shopID, eventID, deliveryID string) seen {
	b.t.Helper()
	page, err := b.Deliveries(context.Background(), store.Filter{ShopID: shopID, EventID: eventID, Limit: 10})
	if err != nil {
		b.t.Fatal(err)
	}
	return seen{b.event(shopID, eventID), b.delivery(shopID, deliveryID), page.Deliveries}
}

func toleratesRepeats(t *testing.T, s bundle) {
	steps := story("shop", "evt", deliveryID(1))
	s.write(steps...)
	want := s.seen("shop", "evt", deliveryID(1))
	all := store.Batch{}
	for _, step := range steps {
		s.write(step)
		same(t, "after a repeat", s.seen("shop", "evt", deliveryID(1)), want)
		all.Events, all.Records = append(all.Events, step.Events...), append(all.Records, step.Records...)
	}
	s.write(all, all)
	same(t, "after repeating all of it", s.seen("shop", "evt", deliveryID(1)), want)

	// The same event again, published late with other data: what was delivered stays what is shown.
	other := newEvent("shop", "evt", []byte(`{}`))
	other.AcceptedAt = after(time.Hour)
	s.write(store.Batch{Events: []*shopbellv1.Event{other}})
	same(t, "after an event with the same id", s.seen("shop", "evt", deliveryID(1)), want)
}

func ordersDoNotMatter(t *testing.T, s bundle) {
	s.write(story("shop-0", "evt", deliveryID(1))...)
	want := s.seen("shop-0", "evt", deliveryID(1))
	if got := want.Delivery.Delivery.GetStatus(); got != "delivered" {
		t.Fatalf("status in the usual order: got %q, want delivered", got)
	}
	n := 0
	for order := range permutations(len(story("", "", ""))) {
		n++
		shopID := fmt.Sprintf("shop-%d", n)
		steps := story(shopID, "evt", deliveryID(1))
		switch batches := reordered(steps, order); n % 3 {
		case 0: // all at once
			s.write(joined(batches...))
		case 1: // in two
			s.write(joined(batches[:2]...), joined(batches[2:]...))
		default: // one by one
			s.write(batches...)
		}
		got := s.seen(shopID, "evt", deliveryID(1))
		same(t, fmt.Sprintf("order %v", order), got.in("shop-0"), want)
		if t.Failed() {
			return
		}
	}
	if n != 120 {
		t.Errorf("orders tried: got %d, want 120", n)
	}
}

// in gives the same as if it had been in another shop.
func (s seen) in(shopID string) seen {
	s.Event.Event.ShopId, s.Delivery.Event.ShopId = shopID, shopID
	s.Delivery.Delivery.ShopId, s.Event.Deliveries[0].Delivery.ShopId, s.List[0].ShopId = shopID, shopID, shopID
	return s
}

// permutations are all orders of n things.
func permutations(n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		var grow func(order []int) bool
		grow = func(order []int) bool {
			if len(order) == n {
				return yield(slices.Clone(order))
			}
			for i := range n {
				if !slices.Contains(order, i) && !grow(append(order, i)) {
					return false
				}
			}
			return true
		}
		grow(nil)
	}
}

func reordered[T any](things []T, order []int) []T {
	result := make([]T, 0, len(order))
	for _, i := range order {
		result = append(result, things[i])
	}
	return result
}

func joined(batches ...store.Batch) (all store.Batch) {
	for _, b := range batches {
		all.Events, all.Records = append(all.Events, b.Events...), append(all.Records, b.Records...)
	}
	return all
}

func lateRecordsDoNotMatter(t *testing.T, s bundle) {
	attempt := func(number int32, at time.Duration, status string) *busv1.Record {
		return made("shop", "evt", "wh_1", deliveryID(1), number, at, status, 500)
	}
	change := func(at time.Duration, status string) *busv1.Record {
		return changed("shop", "evt", "wh_1", deliveryID(1), at, status)
	}
	for _, step := range []struct {
		name   string
		write  *busv1.Record
		status string
	}{
		{"the first attempt counts", attempt(1, 10*time.Second, "retrying"), "retrying"},
		{"a decision that comes late does not", decision("shop", "evt", time.Second, matched("wh_1", deliveryID(1))), "retrying"},
		{"a change that is older than the attempt does not", change(5*time.Second, "held"), "retrying"},
		{"a change that is newer does", change(20*time.Second, "held"), "held"},
		{"the first attempt again does not", attempt(1, 10*time.Second, "retrying"), "held"},
		{"the third attempt does, before the second", attempt(3, 30*time.Second, "delivered"), "delivered"},
		{"the second does not, whatever its sender's clock says", attempt(2, time.Hour, "failed"), "delivered"},
		{"the third made twice: the later one counts", attempt(3, 40*time.Second, "failed"), "failed"},
		{"an older change does not", change(35*time.Second, "cancelled"), "failed"},
		{"a change in the attempt's instant follows from it", change(40*time.Second+10*time.Millisecond, "held"), "held"},
		{"an attempt by hand counts on", attempt(4, time.Minute, "delivered"), "delivered"},
	} {
		s.write(store.Batch{Records: []*busv1.Record{step.write}})
		if got := s.delivery("shop", deliveryID(1)).Delivery.GetStatus(); got != step.status {
			t.Errorf("%s: got %q, want %q", step.name, got, step.status)
		}
	}
	if got := s.delivery("shop", deliveryID(1)); len(got.Attempts) != 5 || len(got.Changes) != 4 {
		t.Errorf("kept %d attempts and %d changes, want 5 and 4", len(got.Attempts), len(got.Changes))
	}
}

// writersAtOnce is what replicas of the log do: what belongs to one event is with several of them, while its rows are
// there and while they are not.
func writersAtOnce(t *testing.T, s bundle) {
	const events = 40
	eventID := func(i int) string { return fmt.Sprintf("evt_%03d", i) }
	for round := range 10 {
		first := round * events
		var steps [7]store.Batch // each of all stories
		for i := first; i < first+events; i++ {
			for step, batch := range story("shop", eventID(i), deliveryID(2*i)) {
				steps[step] = joined(steps[step], batch)
			}
			steps[5].Records = append(steps[5].Records,
				decision("shop", eventID(i), time.Second, matched("wh_2", deliveryID(2*i+1))))
			steps[6].Records = append(steps[6].Records,
				decision("shop", eventID(i), time.Second, matched("wh_3", deliveryID(2*i+1))))
		}
		if round%2 == 0 {
			s.write(steps[1])
		}
		var wg sync.WaitGroup
		for _, batch := range steps {
			wg.Go(func() {
				if err := s.Write(context.Background(), batch); err != nil {
					t.Errorf("write: %v", err)
				}
			})
		}
		wg.Wait()
		for i := first; i < first+events; i++ {
			got := s.seen("shop", eventID(i), deliveryID(2*i))
			if got.Event.Event.GetAcceptedAt() == nil || len(got.Event.Decision.GetConsidered()) != 3 ||
				len(got.Delivery.Attempts) != 2 || len(got.Delivery.Changes) != 1 ||
				got.Delivery.Delivery.GetStatus() != "delivered" || got.Delivery.Delivery.GetAttemptsMade() != 2 {
				t.Fatalf("event %d: got %v", i, got)
			}
		}
	}
}

func leavesOddRecordsOut(t *testing.T, s bundle) {
	noAttempt := record("shop", "evt", time.Minute)
	noAttempt.What = &busv1.Record_Attempt{Attempt: &busv1.AttemptMade{DeliveryId: deliveryID(2), Status: "delivered"}}
	noDecision := record("shop", "evt_none", time.Minute)
	noDecision.What = &busv1.Record_Decision{}
	noTime := proto.CloneOf(made("shop", "evt", "wh_1", deliveryID(3), 1, time.Second, "delivered", 200))
	noTime.At, noTime.GetAttempt().MatchedAt, noTime.GetAttempt().Attempt.StartedAt = nil, nil, nil
	farOff := proto.CloneOf(made("shop", "evt", "wh_1", deliveryID(4), 1, time.Second, "delivered", 200))
	farOff.At.Seconds = 1 << 62
	s.write(store.Batch{
		Events: []*shopbellv1.Event{nil, {}, {ShopId: "shop"}, {Id: "evt"}},
		Records: []*busv1.Record{
			nil,
			{},
			record("shop", "evt", 0), noAttempt, noDecision, noTime, farOff,
			decision("", "evt", 0, matched("wh_1", deliveryID(9))),
			decision("shop", "", 0, matched("wh_1", deliveryID(9))),
			made("shop", "evt", "wh_1", "", 1, 0, "delivered", 200),
			changed("shop", "evt", "wh_1", "", 0, "held"),
			decision("shop", "evt", time.Second, matched("wh_1", ""), matched("wh_1", deliveryID(1))),
		},
	})
	same(t, "deliveries", s.list(store.Filter{ShopID: "shop"}),
		[]string{deliveryID(4), deliveryID(3), deliveryID(2), deliveryID(1)})
	for n := 2; n <= 4; n++ {
		if got := s.delivery("shop", deliveryID(n)); got.Delivery.GetStatus() != "delivered" || len(got.Attempts) != 1 {
			t.Errorf("delivery %d: got %v, want it delivered by one attempt", n, got)
		}
	}
	s.write()
	s.write(store.Batch{})
}
