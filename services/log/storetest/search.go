package storetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// filters compares every combination of filters with what the same words mean in Go.
func filters(t *testing.T, s bundle) {
	type delivery struct {
		id, webhookID, eventType, eventID, status string
		code                                      int32
		attempted                                 bool
		createdAt                                 time.Time
	}
	outcomes := []struct {
		status string
		code   int32
	}{{"delivered", 200}, {"failed", 404}, {"failed", 410}, {"retrying", 0}, {"held", 503}, {"pending", 0}}
	var all []delivery
	for i := range 48 {
		o := outcomes[i%len(outcomes)]
		d := delivery{
			id: deliveryID(60 * i), webhookID: fmt.Sprintf("wh_%d", i%3), eventType: []string{"order_created", "paid"}[i/6%2],
			eventID: fmt.Sprintf("evt_%d", i/2), status: o.status, code: o.code, attempted: o.status != "pending",
			createdAt: noon.Add(time.Duration(i) * time.Minute),
		}
		all = append(all, d)
		decided := decision("shop", d.eventID, time.Duration(i)*time.Minute, matched(d.webhookID, d.id))
		decided.EventType = d.eventType
		batch := store.Batch{Records: []*busv1.Record{decided}}
		if d.attempted {
			attempt := made("shop", d.eventID, d.webhookID, d.id, 1, time.Duration(i)*time.Minute, d.status, d.code)
			attempt.EventType, attempt.GetAttempt().MatchedAt = d.eventType, decided.GetAt()
			batch.Records = append(batch.Records, attempt)
		}
		s.write(batch)
	}
	slices.Reverse(all)

	for filter := range combinations() {
		want := []string{}
		for _, d := range all {
			f := filter
			switch {
			case f.WebhookID != "" && f.WebhookID != d.webhookID,
				f.EventType != "" && f.EventType != d.eventType,
				f.EventID != "" && f.EventID != d.eventID,
				f.Status != "" && f.Status != d.status,
				f.Codes.None && (!d.attempted || d.code != 0),
				f.Codes.High > 0 && (int(d.code) < f.Codes.Low || int(d.code) > f.Codes.High),
				!f.From.IsZero() && d.createdAt.Before(f.From),
				!f.To.IsZero() && !d.createdAt.Before(f.To):
			default:
				want = append(want, d.id)
			}
		}
		same(t, fmt.Sprintf("%+v", filter), s.list(filter), want)
	}
}

// combinations are all filters that can be made of these parts.
func combinations() func(yield func(store.Filter) bool) {
	return func(yield func(store.Filter) bool) {
		for _, webhookID := range []string{"", "wh_1", "wh_none"} {
			for _, eventType := range []string{"", "paid"} {
				for _, eventID := range []string{"", "evt_5"} {
					for _, status := range []string{"", "failed", "pending"} {
						for _, codes := range []store.Codes{{}, {Low: 404, High: 404}, {Low: 400, High: 499}, {None: true}} {
							for _, minutes := range [][2]int{{-1, -1}, {10, -1}, {-1, 30}, {10, 30}} {
								f := store.Filter{
									ShopID: "shop", WebhookID: webhookID, EventType: eventType, EventID: eventID,
									Status: status, Codes: codes,
								}
								if minutes[0] >= 0 {
									f.From = noon.Add(time.Duration(minutes[0]) * time.Minute)
								}
								if minutes[1] >= 0 {
									f.To = noon.Add(time.Duration(minutes[1]) * time.Minute)
								}
								if !yield(f) {
									return
								}
							}
						}
					}
				}
			}
		}
	}
}

// findsLateMatches: an id holds the time of the event, created_at that of the matching, a week later here.
func findsLateMatches(t *testing.T, s bundle) {
	week := 7 * 24 * time.Hour
	s.write(store.Batch{Records: []*busv1.Record{
		decision("shop", "evt_1", week, matched("wh_1", deliveryID(1))),
		// The clock of ingest is ahead of subscription's.
		decision("shop", "evt_2", 0, matched("wh_1", deliveryID(60))),
	}})
	same(t, "from", s.list(store.Filter{ShopID: "shop", From: noon.Add(week)}), []string{deliveryID(1)})
	same(t, "to", s.list(store.Filter{ShopID: "shop", To: noon.Add(time.Second)}), []string{deliveryID(60)})
	same(t, "before 1970", s.list(store.Filter{ShopID: "shop", To: time.Unix(-1, 0)}), []string{})
	same(t, "long after", s.list(store.Filter{ShopID: "shop", From: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}), []string{})
}

func pages(t *testing.T, s bundle) {
	add := func(n int) {
		eventID := fmt.Sprintf("evt_%d", n)
		s.write(store.Batch{Records: []*busv1.Record{decision("shop", eventID, time.Second, matched("wh_1", deliveryID(n)))}})
	}
	for n := range 25 {
		add(n)
	}
	for _, f := range []store.Filter{{ShopID: "shop"}, {ShopID: "shop", WebhookID: "wh_1"}} {
		want := s.list(f)
		var got []string
		for n := 0; ; n++ {
			f.Limit = 7
			page := s.list(f)
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			f.Before = page[len(page)-1]
			add(1000 + len(want) + n) // newer ones come all the time
		}
		same(t, "all pages", got, want)
	}

	// An event with many deliveries is paged, too.
	var considered []*shopbellv1.Considered
	want := []string{}
	for n := 2000; n < 2030; n++ {
		considered = append(considered, matched(fmt.Sprintf("wh_%d", n), deliveryID(n)))
		want = append(want, deliveryID(n))
	}
	slices.Reverse(want)
	s.write(store.Batch{Records: []*busv1.Record{decision("shop", "evt_wide", time.Second, considered...)}})
	f := store.Filter{ShopID: "shop", EventID: "evt_wide", Limit: 20}
	first := s.list(f)
	f.Before = first[len(first)-1]
	same(t, "pages of an event", append(first, s.list(f)...), want)
}

// storesAwkwardTexts puts what PostgreSQL refuses, and what an index cannot hold, into every text of every record,
// one after the other, with a sound record beside it.
func storesAwkwardTexts(t *testing.T, s bundle) {
	long := make([]byte, 10_000)
	for i := range long {
		long[i] = byte('a' + i*7919%26) // does not compress to nothing
	}
	for i, awkward := range []string{"a\x00b", "a\xffb", "\xc3", string(long) + "\x00"} {
		shopID := fmt.Sprintf("shop-%d", i)
		event := newEvent(shopID, "evt"+awkward, []byte(awkward))
		event.Type, event.Action, event.OccurredAt, event.Environment = awkward, awkward, awkward, awkward
		event.Key, event.ContentType, event.TraceId = awkward, awkward, awkward

		decided := decision(shopID, "evt"+awkward, time.Second,
			&shopbellv1.Considered{WebhookId: "wh" + awkward, Label: awkward, Matched: true, Reason: awkward, DeliveryId: "dlv" + awkward})
		decided.EventType = awkward
		decided.GetDecision().Due = map[string]*timestamppb.Timestamp{"wh" + awkward: after(time.Hour)}

		attempt := made(shopID, "evt"+awkward, "wh"+awkward, "dlv"+awkward, 1, 2*time.Second, awkward, 500)
		attempt.EventType, attempt.GetAttempt().Reason = awkward, awkward
		a := attempt.GetAttempt().GetAttempt()
		a.ErrorClass, a.Error, a.Verdict, a.Url, a.TraceId = awkward, awkward, awkward, awkward, awkward
		a.RequestHeaders = []*shopbellv1.Header{{Name: awkward, Value: awkward}}

		change := changed(shopID, "evt"+awkward, "wh"+awkward, "dlv"+awkward, time.Second, awkward)
		change.GetChange().Reason, change.EventType = awkward, awkward

		for _, batch := range []store.Batch{
			{Events: []*shopbellv1.Event{event}},
			{Records: []*busv1.Record{decided}},
			{Records: []*busv1.Record{change}},
			{Records: []*busv1.Record{attempt}},
			{Events: []*shopbellv1.Event{newEvent(awkward, "evt", nil)}},
		} {
			batch.Records = append(batch.Records, made(shopID, "evt", "wh_1", deliveryID(1), 1, time.Second, "delivered", 200))
			s.write(batch, batch)
		}

		got := s.event(shopID, "evt"+awkward)
		if string(got.Event.GetData()) != awkward || len(got.Deliveries) != 1 || len(got.Deliveries[0].Attempts) != 1 ||
			len(got.Deliveries[0].Changes) != 1 {
			t.Errorf("event with %.10q: got %v", awkward, got)
		}
		if d := s.delivery(shopID, "dlv"+awkward); d.Delivery.GetWebhookId() != store.Key("wh"+awkward) {
			t.Errorf("delivery with %.10q: got %v", awkward, d)
		}
		for name, f := range map[string]store.Filter{
			"webhook": {WebhookID: "wh" + awkward}, "event": {EventID: "evt" + awkward}, "type": {EventType: awkward},
			"status": {Status: awkward}, "before": {Before: "dlv" + awkward + "z", Status: awkward},
		} {
			f.ShopID = shopID
			if got := s.list(f); len(got) != 1 && len(awkward) < 100 {
				t.Errorf("list by %s with %.10q: got %v, want one delivery", name, awkward, got)
			}
		}
		same(t, "the sound delivery", s.list(store.Filter{ShopID: shopID, Status: "delivered"}), []string{deliveryID(1)})
		if _, err := s.Event(context.Background(), awkward, "evt"); err != nil {
			t.Errorf("event of the shop %.10q: %v", awkward, err)
		}
	}
}
