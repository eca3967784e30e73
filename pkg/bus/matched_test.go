package bus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
)

func TestMatched_IsHowFarAShopsEventsWere(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	publish := func(shop string, bulk bool) {
		t.Helper()
		e := contract.Event{ID: fmt.Sprint(shop, time.Now().UnixNano()), ShopID: shop, Type: "paid", AcceptedAt: time.Now(), Bulk: bulk}
		if err := b.Publish(t.Context(), e.Message()); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, bursting, other uint64) {
		t.Helper()
		for shop, want := range map[string]uint64{"bursting": bursting, "other": other} {
			testwait.Until(t, fmt.Sprintf("%s, events of the shop %q were matched up to %d", when, shop, want), func() bool { // an ack takes a moment
				got, err := b.Matched(0).Of(t.Context(), shop)
				if err != nil {
					t.Fatal(err)
				}
				return got == want
			})
		}
	}
	match := func(consumer string, n int) {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		if err := b.Consume(ctx, consumer, n, func(m bus.Message) {
			if n--; n < 0 { // it was pulled with the others
				_ = m.Nak()
				return
			}
			_ = m.Ack() // if it is not heard, what is wanted does not come
			if n == 0 {
				stop()
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	publish("other", false)
	publish("bursting", true)
	publish("bursting", true)
	publish("other", false)
	want("none was matched", 0, 0)
	match(contract.Matcher, 2)
	want("single ones were", 1, 4)
	match(contract.BulkMatcher, 1)
	want("and the first of a burst", 2, 4)
	match(contract.BulkMatcher, 1)
	want("and all of it", 4, 4)

	seldom := b.Matched(time.Hour)
	if got, err := seldom.Of(t.Context(), "other"); err != nil || got != 4 {
		t.Errorf("got %d, %v; want 4", got, err)
	}
	publish("other", false)
	match(contract.Matcher, 1)
	want("one more", 5, 5)
	if got, err := seldom.Of(t.Context(), "other"); err != nil || got != 4 {
		t.Errorf("who asks once an hour got %d, %v; want 4 still", got, err)
	}
}
