package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

func (b bundle) holding(shopID, text string) []string {
	b.t.Helper()
	ids, err := b.Holding(context.Background(), shopID, text)
	if err != nil {
		b.t.Fatal(err)
	}
	if ids == nil {
		ids = []string{}
	}
	return ids
}

func (b bundle) expunge(shopID string, these store.Events) store.Expunged {
	b.t.Helper()
	done, err := b.Expunge(context.Background(), shopID, these)
	if err != nil {
		b.t.Fatal(err)
	}
	return done
}

// expunges what a person asks for, and nothing else.
func expunges(t *testing.T, s bundle) {
	const person = "kunde@example.com"
	for _, shopID := range []string{"shop", "other"} {
		for n := range 12 {
			eventID, data := fmt.Sprintf("evt_%02d", n), `{"email":"somebody@example.com"}`
			if n < 3 {
				data = `{"email":"Kunde@Example.com"}`
			}
			batch := told(shopID, eventID, deliveryID(n), time.Duration(n)*time.Minute, []byte(data))
			if n == 5 { // its receiver answered with the address
				batch.Records[1].GetAttempt().GetAttempt().ResponseBody = []byte("mailed to " + person)
			}
			s.write(batch)
		}
		// It was replayed: no decision names this delivery. And an event for nobody, and a decision without its event.
		s.write(store.Batch{Records: told(shopID, "evt_01", deliveryID(100), time.Hour, nil).Records[1:]})
		s.write(store.Batch{Events: []*shopbellv1.Event{newEvent(shopID, "evt_nobody", []byte(person))}})
		s.write(store.Batch{Records: told(shopID, "evt_lost", deliveryID(101), time.Hour, nil).Records[:1]})
	}
	want := []string{"evt_00", "evt_01", "evt_02", "evt_05", "evt_nobody"}
	same(t, "events of the person", s.holding("shop", person), want)
	same(t, "events of nobody", s.holding("shop", "no such person"), []string{})

	same(t, "expunged", s.expunge("shop", store.Events{IDs: append(want, "evt_unknown")}),
		store.Expunged{Events: 5, Decisions: 4, Deliveries: 5, Attempts: 10, Changes: 5})
	same(t, "events of the person afterwards", s.holding("shop", person), []string{})
	same(t, "expunged again", s.expunge("shop", store.Events{IDs: want}), store.Expunged{})
	same(t, "expunged without ids", s.expunge("shop", store.Events{}), store.Expunged{})
	for n := range 12 {
		gone := n < 3 || n == 5
		event, delivery := s.knows("shop", fmt.Sprintf("evt_%02d", n), deliveryID(n))
		if event == gone || delivery == gone {
			t.Errorf("event %d: there %v, delivery there %v; want both %v", n, event, delivery, !gone)
		}
	}
	if _, delivery := s.knows("shop", "evt_01", deliveryID(100)); delivery {
		t.Error("the replayed delivery is there")
	}
	same(t, "what another shop has of the person", s.holding("other", person), want)

	same(t, "a whole shop", s.expunge("shop", store.Events{All: true}),
		store.Expunged{Events: 8, Decisions: 9, Deliveries: 9, Attempts: 16, Changes: 8})
	same(t, "list of the shop", s.list(store.Filter{ShopID: "shop"}), []string{})
	if _, err := s.Event(context.Background(), "shop", "evt_lost"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a decision without its event: got %v, want it gone", err)
	}
	if got := len(s.list(store.Filter{ShopID: "other"})); got != 14 {
		t.Errorf("deliveries of another shop: got %d, want 14", got)
	}
	stats, err := s.Stats(context.Background(), store.StatsFilter{ShopID: "shop", From: noon, To: noon.Add(2 * time.Hour)})
	if err != nil || len(stats) == 0 {
		t.Errorf("statistics: got %v, %v; want them as before", stats, err)
	}
	// Its life goes on.
	s.write(told("shop", "evt_00", deliveryID(0), 0, []byte("1")))
	if event, delivery := s.knows("shop", "evt_00", deliveryID(0)); !event || !delivery {
		t.Error("what was written afterwards is not there")
	}
}
