package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
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
	}{{"delivered", 200}, {"failed", 404}, {"failed", 410}, {"retrying", 0}, {"held", 503}, {"pending", 0}, {"delivered", 202}}
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
				f.DeliveryID != "" && f.DeliveryID != d.id,
				f.ErrorClass != "" && (!d.attempted || d.status == "delivered" || f.ErrorClass != "http_status"),
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
	type set = func(f *store.Filter)
	nothing := func(*store.Filter) {}
	parts := [][]set{
		{nothing, func(f *store.Filter) { f.WebhookID = "wh_1" }, func(f *store.Filter) { f.WebhookID = "wh_none" }},
		{nothing, func(f *store.Filter) { f.EventType = "paid" }},
		{nothing, func(f *store.Filter) { f.EventID = "evt_5" }},
		{nothing, func(f *store.Filter) { f.DeliveryID = deliveryID(60 * 10) }},
		{
			nothing, func(f *store.Filter) { f.Status = "failed" }, func(f *store.Filter) { f.Status = "pending" },
			func(f *store.Filter) { f.Status = "delivered" },
		},
		{
			nothing, func(f *store.Filter) { f.Codes = store.Codes{Low: 404, High: 404} },
			func(f *store.Filter) { f.Codes = store.Codes{Low: 400, High: 499} },
			func(f *store.Filter) { f.Codes = store.Codes{Low: 200, High: 299} },
			func(f *store.Filter) { f.Codes = store.Codes{Low: 202, High: 202} }, func(f *store.Filter) { f.Codes.None = true },
		},
		{nothing, func(f *store.Filter) { f.ErrorClass = "http_status" }, func(f *store.Filter) { f.ErrorClass = "dns" }},
		{nothing, func(f *store.Filter) { f.From = noon.Add(10 * time.Minute) }},
		{nothing, func(f *store.Filter) { f.To = noon.Add(30 * time.Minute) }},
	}
	return func(yield func(store.Filter) bool) {
		var grow func(f store.Filter, n int) bool
		grow = func(f store.Filter, n int) bool {
			if n == len(parts) {
				return yield(f)
			}
			for _, set := range parts[n] {
				with := f
				set(&with)
				if !grow(with, n+1) {
					return false
				}
			}
			return true
		}
		grow(store.Filter{ShopID: "shop"}, 0)
	}
}

// findsTypes: a store may know which types there are, and that must hold in whichever order things are written, for ids that
// nobody of us made, and when detail is forgotten or expunged.
func findsTypes(t *testing.T, s bundle) {
	const day = 24 * 60 * 60 // seconds
	typed := func(r *busv1.Record, eventType string) *busv1.Record { r.EventType = eventType; return r }
	made := func(n int, eventType string) string {
		r := typed(changed("shop", fmt.Sprintf("evt_%d", n), "wh", deliveryID(n), time.Duration(n)*time.Second, "held"), eventType)
		r.GetChange().MatchedAt = r.GetAt()
		s.write(store.Batch{Records: []*busv1.Record{r}})
		return deliveryID(n)
	}
	list := func(f store.Filter) []string { f.ShopID = "shop"; return s.list(f) }

	// A rare type on three days, two of them in a row, among a frequent one; the newest first.
	var rare []string
	for _, n := range []int{0, 1, 3 * day, 4 * day, 9 * day} {
		rare = append(rare, made(n, "rare"))
		made(n+2, "frequent")
		made(n+day+5, "frequent")
	}
	slices.Reverse(rare)
	same(t, "a rare type", list(store.Filter{EventType: "rare"}), rare)
	same(t, "a rare type behind a page that ends on a day without any", list(store.Filter{EventType: "rare", Before: deliveryID(6 * day)}), rare[1:])
	same(t, "a rare type behind one of its own", list(store.Filter{EventType: "rare", Before: rare[1]}), rare[2:])
	same(t, "a rare type since one of its own", list(store.Filter{EventType: "rare", Since: rare[2]}), rare[:3])
	same(t, "a rare type by status", list(store.Filter{EventType: "rare", Status: "held"}), rare)
	same(t, "a rare type of a time", list(store.Filter{EventType: "rare", From: noon.Add(time.Hour), To: noon.Add(5 * 24 * time.Hour)}), rare[1:3])
	same(t, "a type that nobody has", list(store.Filter{EventType: "none"}), []string{})

	// A record that lacks the type comes first.
	made(20*day, "")
	same(t, "before its type is known", list(store.Filter{EventType: "late"}), []string{})
	made(20*day, "late")
	same(t, "afterwards", list(store.Filter{EventType: "late"}), []string{deliveryID(20 * day)})

	// Ids that hold no time, or not as ours do.
	small := strings.ToLower(deliveryID(5))
	for id, eventType := range map[string]string{"a": "odd", "z": "odd", small: "small"} {
		s.write(store.Batch{Records: []*busv1.Record{typed(changed("shop", "evt_odd", "wh", id, 0, "held"), eventType)}})
	}
	same(t, "odd ids", list(store.Filter{EventType: "odd"}), []string{"z", "a"})
	same(t, "an id in small letters", list(store.Filter{EventType: "small"}), []string{small})

	// What is forgotten and comes up again is found again.
	if _, err := s.Forget(context.Background(), noon.Add(30*24*time.Hour), store.Keep{Age: 24 * 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	same(t, "after forgetting", list(store.Filter{EventType: "rare"}), rare[:1])
	made(3*day, "rare")
	same(t, "what was still under way", list(store.Filter{EventType: "rare"}), []string{rare[0], deliveryID(3 * day)})
	s.expunge("shop", store.Events{All: true})
	same(t, "after expunging", list(store.Filter{EventType: "rare"}), []string{})
	made(3*day, "rare")
	same(t, "what comes after expunging", list(store.Filter{EventType: "rare"}), []string{deliveryID(3 * day)})
}

// searchesText: an order's number or a customer's address, as a person types it.
func searchesText(t *testing.T, s bundle) {
	write := func(n int, data string) {
		eventID := fmt.Sprintf("evt_%04d", n)
		s.write(store.Batch{
			Events:  []*shopbellv1.Event{newEvent("shop", eventID, []byte(data))},
			Records: []*busv1.Record{decision("shop", eventID, time.Duration(n)*time.Second, matched("wh_1", deliveryID(n)))},
		})
	}
	for n, data := range []string{
		0: `{"order_no": 1042, "email": "Kunde@Example.com"}`,
		1: `{"order_no": 1043, "email": "other@example.com", "name": "M\u00dcLLER", "smile": "\ud83d\ude00"}`,
		2: `{"order_no": "10420", "url": "https:\/\/example.com\/m", "note": "a \"quoted\" word, a broken \ud83d, \u12"}`,
		3: "a=1&name=Müller\x00\xff and no JSON",
		4: "",
	} {
		write(n, data)
	}
	// One whose event has not come, and another shop's.
	s.write(store.Batch{
		Records: []*busv1.Record{
			decision("shop", "evt_none", 5*time.Second, matched("wh_1", deliveryID(5))),
			decision("other", "evt_0000", time.Second, matched("wh_1", deliveryID(6))),
		},
		Events: []*shopbellv1.Event{newEvent("other", "evt_0000", []byte("kunde@example.com"))},
	})
	for text, want := range map[string][]int{
		"1042": {2, 0}, "kunde@example.COM": {0}, "example.com": {2, 1, 0}, "müller": {3, 1}, "https://example.com/m": {2},
		`"quoted" word`: {2}, "\U0001F600": {1}, "no such text": {}, "\x00": {3},
	} {
		ids := []string{}
		for _, n := range want {
			ids = append(ids, deliveryID(n))
		}
		same(t, fmt.Sprintf("deliveries with %q", text), s.list(store.Filter{ShopID: "shop", Text: text}), ids)
	}
	same(t, "with another filter", s.list(store.Filter{ShopID: "shop", Text: "example", From: noon.Add(time.Second), To: noon.Add(2 * time.Second)}),
		[]string{deliveryID(1)})
	f := store.Filter{ShopID: "shop", Text: "example.com", Limit: 2}
	same(t, "first page", s.list(f), []string{deliveryID(2), deliveryID(1)})
	f.Before = deliveryID(1)
	same(t, "second page", s.list(f), []string{deliveryID(0)})

	// Much data before the one that is looked for: the search stops, says where, and goes on from there.
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for n := 10; n < 120; n++ {
		write(n, string(large))
	}
	f = store.Filter{ShopID: "shop", Text: "kunde@example.com", Limit: 10}
	page, err := s.Deliveries(context.Background(), f)
	if err != nil || len(page.Deliveries) != 0 || page.ReadTo == "" {
		t.Fatalf("a search through 110 MiB: got %v, %v; want nothing found yet, and how far it has read", page, err)
	}
	calls := 1
	for ; page.ReadTo != "" && calls < 20; calls++ {
		f.Before = page.ReadTo
		if page, err = s.Deliveries(context.Background(), f); err != nil {
			t.Fatal(err)
		}
	}
	if calls < 2 || len(page.Deliveries) != 1 || page.Deliveries[0].GetId() != deliveryID(0) {
		t.Errorf("after %d calls: got %v, want the first delivery, by the second call", calls, page)
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
	// Those of other days are found as before.
	s.write(store.Batch{Records: []*busv1.Record{decision("shop", "evt_3", 2*week, matched("wh_1", deliveryID(14*86400)))}})
	same(t, "from a usual day", s.list(store.Filter{ShopID: "shop", From: noon.Add(2 * week)}), []string{deliveryID(14 * 86400)})
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
		event.Key, event.ContentType, event.TraceId, event.AcceptedBy = awkward, awkward, awkward, awkward

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
