// Package storetest holds what every store promises, as tests that each of them runs.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// Run tests a store. open gives a new, empty one each time; Run closes it.
func Run(t *testing.T, open func(t testing.TB) store.Store) {
	for _, test := range []struct {
		promise string
		run     func(t *testing.T, s bundle)
	}{
		{"an event is read as it was written, byte for byte", readsEvents},
		{"a decision for no webhook is one, too", readsEmptyDecisions},
		{"what is not there is ErrNotFound", missesWhatIsNotThere},
		{"a delivery is read with its attempts and changes", readsDeliveries},
		{"a delayed delivery says when it is due", tellsWhenDue},
		{"the exact body is known from prefix, data and suffix", knowsBodies},
		{"repeating a batch changes nothing", toleratesRepeats},
		{"every order of records gives the same end", ordersDoNotMatter},
		{"no late record takes a status back", lateRecordsDoNotMatter},
		{"an event's two decisions both count", mergesDecisions},
		{"an attempt is found by its event once the decision is there", attemptBeforeDecision},
		{"all filters work alone and together", filters},
		{"a type is found on whichever days it was, and one that nobody has at once", findsTypes},
		{"text is found in the data of events, and a search says how far it got", searchesText},
		{"times are found however long matching took", findsLateMatches},
		{"the events of a time span come in their order, page by page", listsEvents},
		{"pages stay as they are while rows come", pages},
		{"no shop sees what another has", keepsShopsApart},
		{"awkward bytes in any text do not stick a batch", storesAwkwardTexts},
		{"odd records are left out and keep nothing waiting", leavesOddRecordsOut},
		{"writers at once lose nothing", writersAtOnce},
		{"a batch is written whole or not at all", writesWholeBatches},
		{"what is old is forgotten, whole, and what is young is not", forgetsByAge},
		{"the disk stays under its ceiling at ten times the usual load for 40 days", staysUnderItsCeiling},
		{"a day that is larger than the ceiling goes bit by bit", holdsALargeDay},
		{"writers go on while the log forgets", forgetsBesideWriters},
		{"a person or a shop is expunged, wherever it stands, and nobody else is", expunges},
		{"statistics count everything once, however it comes", countsOnce},
		{"statistics of writers at once add up", countsOnceForMany},
		{"hours become days without changing a sum", thinsHours},
		{"a delivery that outlives its detail counts once", outlivesItsDetail},
	} {
		t.Run(test.promise, func(t *testing.T) {
			t.Parallel()
			test.run(t, setup(t, open))
		})
	}
}

func readsEvents(t *testing.T, s bundle) {
	for i, data := range []string{
		`{"total": 549.50}`,
		`{"url": "https:\/\/example.com\/<&>"}`,
		`{"n": 12345678901234567890, "big": 1e400}`,
		`{"a": 1, "b": 2, "a": 3}`,
		" {\n\t\"z\": 1,\r\n \"a\" : [ ] }\n",
		"\x00\xff\xfe\x80 binary \xc3\x28",
		"",
	} {
		want := newEvent("shop", fmt.Sprintf("evt_%d", i), []byte(data))
		want.AcceptedBy = "key_1 (ERP)"
		s.write(store.Batch{Events: []*shopbellv1.Event{want}})
		got := s.event("shop", want.GetId())
		same(t, fmt.Sprintf("event with %q", data), got, &store.Event{Event: want})
		if string(got.Event.GetData()) != data {
			t.Errorf("data: got %q, want %q", got.Event.GetData(), data)
		}
	}
}

func readsEmptyDecisions(t *testing.T, s bundle) {
	s.write(
		store.Batch{Events: []*shopbellv1.Event{newEvent("shop", "evt", nil)}},
		store.Batch{Records: []*busv1.Record{decision("shop", "evt", time.Second)}},
	)
	same(t, "event", s.event("shop", "evt"), &store.Event{
		Event: newEvent("shop", "evt", []byte{}), Decision: &busv1.Decision{}, DecidedAt: noon.Add(time.Second),
	})
}

func missesWhatIsNotThere(t *testing.T, s bundle) {
	ctx := context.Background()
	if _, err := s.Event(ctx, "shop", "evt_none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("event: got error %v, want ErrNotFound", err)
	}
	if _, err := store.Detail(ctx, s, "shop", "dlv_none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("delivery: got error %v, want ErrNotFound", err)
	}
	same(t, "list", s.list(store.Filter{ShopID: "shop"}), []string{})
	same(t, "list of an event", s.list(store.Filter{ShopID: "shop", EventID: "evt_none"}), []string{})
}

func readsDeliveries(t *testing.T, s bundle) {
	first := made("shop", "evt", "wh_1", deliveryID(1), 1, 2*time.Second, "retrying", 500)
	second := made("shop", "evt", "wh_1", deliveryID(1), 2, time.Minute, "held", 503)
	s.write(store.Batch{
		Events: []*shopbellv1.Event{newEvent("shop", "evt", []byte(`1`))},
		Records: []*busv1.Record{
			decision("shop", "evt", time.Second, matched("wh_1", deliveryID(1))), first, second,
			changed("shop", "evt", "wh_1", deliveryID(1), 2*time.Minute, "cancelled"),
		},
	})
	want := &shopbellv1.Delivery{
		Id: deliveryID(1), ShopId: "shop", EventId: "evt", EventType: "order_created", WebhookId: "wh_1",
		Status: "cancelled", Reason: "because of cancelled", AttemptsMade: 2, CreatedAt: after(time.Second),
		UpdatedAt: after(2 * time.Minute), ResponseCode: 503, ErrorClass: "http_status",
	}
	page, err := s.Deliveries(context.Background(), store.Filter{ShopID: "shop", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "listed delivery", page.Deliveries, []*shopbellv1.Delivery{want})

	want.Attempts = []*shopbellv1.Attempt{first.GetAttempt().GetAttempt(), second.GetAttempt().GetAttempt()}
	whole := &store.Delivery{
		Delivery: want,
		Attempts: []*busv1.AttemptMade{first.GetAttempt(), second.GetAttempt()},
		Changes:  []store.Change{{At: noon.Add(2 * time.Minute), Status: "cancelled", Reason: "because of cancelled"}},
	}
	attempts, err := s.Attempts(context.Background(), "shop", []string{deliveryID(1), deliveryID(2)})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "attempts by delivery", attempts, map[string][]*shopbellv1.Attempt{deliveryID(1): want.Attempts})
	if of, err := s.Attempts(context.Background(), "other", []string{deliveryID(1)}); err != nil || len(of) != 0 {
		t.Errorf("attempts of another shop: got %v, %v; want none", of, err)
	}
	same(t, "delivery of the event", s.event("shop", "evt").Deliveries, []*store.Delivery{whole})

	want.Body, whole.BodyKnown = []byte(`{"data":1}`), true
	whole.Event = newEvent("shop", "evt", []byte(`1`))
	same(t, "delivery", s.delivery("shop", deliveryID(1)), whole)

	// Several at once: two of one event, and one whose event has not come.
	s.write(store.Batch{Records: []*busv1.Record{
		made("shop", "evt", "wh_2", deliveryID(2), 1, time.Minute, "delivered", 200),
		made("shop", "evt_later", "wh_1", deliveryID(3), 1, time.Minute, "delivered", 200),
		made("other", "evt", "wh_1", deliveryID(4), 1, time.Minute, "delivered", 200),
	}})
	known, err := s.Details(context.Background(), "shop", []string{deliveryID(1), deliveryID(2), deliveryID(3), deliveryID(4), deliveryID(5)})
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]*store.Delivery{deliveryID(1): whole}
	for _, id := range []string{deliveryID(2), deliveryID(3)} {
		of[id] = s.delivery("shop", id)
	}
	same(t, "several deliveries", known, of)
	if known[deliveryID(2)].Event == nil || known[deliveryID(3)].Event != nil {
		t.Error("want the event of each delivery, as far as it is there")
	}
}

func tellsWhenDue(t *testing.T, s bundle) {
	r := decision("shop", "evt", time.Second, matched("wh_1", deliveryID(1)), matched("wh_2", deliveryID(2)))
	r.GetDecision().Due = map[string]*timestamppb.Timestamp{"wh_1": after(240 * time.Hour)}
	s.write(store.Batch{Records: []*busv1.Record{r}})
	page, err := s.Deliveries(context.Background(), store.Filter{ShopID: "shop", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	want := func(n int, webhookID, status string, next *timestamppb.Timestamp) *shopbellv1.Delivery {
		return &shopbellv1.Delivery{
			Id: deliveryID(n), ShopId: "shop", EventId: "evt", EventType: "order_created", WebhookId: webhookID,
			Status: status, CreatedAt: after(time.Second), UpdatedAt: after(time.Second), NextAttemptAt: next,
		}
	}
	same(t, "deliveries", page.Deliveries, []*shopbellv1.Delivery{
		want(2, "wh_2", "pending", nil), want(1, "wh_1", "delayed", after(240*time.Hour)),
	})
}

func knowsBodies(t *testing.T, s bundle) {
	data := []byte("{\"total\":549.50,\"raw\":\"\x00\xff\"}")
	parts := made("shop", "evt", "wh_1", deliveryID(1), 1, time.Second, "delivered", 200)
	whole := made("shop", "evt", "wh_2", deliveryID(2), 1, time.Second, "delivered", 200)
	whole.GetAttempt().BodyPrefix, whole.GetAttempt().BodySuffix, whole.GetAttempt().WholeBody = []byte("a=1\x00"), nil, true
	nothing := made("shop", "evt", "wh_3", deliveryID(3), 1, time.Second, "delivered", 200)
	nothing.GetAttempt().BodyPrefix, nothing.GetAttempt().BodySuffix, nothing.GetAttempt().WholeBody = nil, nil, true
	s.write(store.Batch{Records: []*busv1.Record{
		decision("shop", "evt", time.Second, matched("wh_1", deliveryID(1)), matched("wh_4", deliveryID(4))),
		parts, whole, nothing,
	}})
	check := func(n int, body string, known bool) {
		t.Helper()
		d := s.delivery("shop", deliveryID(n))
		if string(d.Delivery.GetBody()) != body || d.BodyKnown != known {
			t.Errorf("body of delivery %d: got %q, known %v; want %q, %v", n, d.Delivery.GetBody(), d.BodyKnown, body, known)
		}
	}
	check(1, "", false) // the event's data is not there yet
	check(2, "a=1\x00", true)
	check(3, "", true)
	check(4, "", false) // nothing was sent yet
	s.write(store.Batch{Events: []*shopbellv1.Event{newEvent("shop", "evt", data)}})
	check(1, `{"data":`+string(data)+`}`, true)
	check(2, "a=1\x00", true)

	// A later attempt was made after the webhook's format had changed: the last one counts.
	later := made("shop", "evt", "wh_1", deliveryID(1), 2, time.Hour, "delivered", 200)
	later.GetAttempt().BodyPrefix, later.GetAttempt().BodySuffix = nil, nil
	s.write(store.Batch{Records: []*busv1.Record{later}})
	check(1, string(data), true)
}

func mergesDecisions(t *testing.T, s bundle) {
	off := &shopbellv1.Considered{WebhookId: "wh_0", Label: "Old shop", Reason: "switched off by its owner"}
	one := decision("shop", "evt", 2*time.Second, off, matched("wh_1", deliveryID(1)))
	two := decision("shop", "evt", time.Second, off, matched("wh_1", deliveryID(1)), matched("wh_2", deliveryID(2)))
	for i, batches := range [][]store.Batch{
		{{Records: []*busv1.Record{one, two}}},
		{{Records: []*busv1.Record{two}}, {Records: []*busv1.Record{one}}, {Records: []*busv1.Record{two}}},
		{{Records: []*busv1.Record{one}}, {Records: []*busv1.Record{two}}, {Records: []*busv1.Record{one}}},
	} {
		eventID := fmt.Sprintf("evt_%d", i)
		for _, batch := range batches {
			for _, r := range batch.Records {
				r.EventId = eventID
			}
			s.write(batch)
		}
		got := s.event("shop", eventID)
		same(t, "considered", got.Decision.GetConsidered(),
			[]*shopbellv1.Considered{off, matched("wh_1", deliveryID(1)), matched("wh_2", deliveryID(2))})
		if want := noon.Add(time.Second); !got.DecidedAt.Equal(want) {
			t.Errorf("decided at: got %v, want %v", got.DecidedAt, want)
		}
		if len(got.Deliveries) != 2 {
			t.Errorf("deliveries: got %d, want 2", len(got.Deliveries))
		}
	}
}

func attemptBeforeDecision(t *testing.T, s bundle) {
	s.write(store.Batch{Records: []*busv1.Record{
		made("shop", "evt", "wh_1", deliveryID(1), 1, 2*time.Second, "delivered", 200),
	}})
	same(t, "list before the decision", s.list(store.Filter{ShopID: "shop"}), []string{deliveryID(1)})
	s.write(store.Batch{Records: []*busv1.Record{decision("shop", "evt", time.Second, matched("wh_1", deliveryID(1)))}})
	same(t, "list of the event", s.list(store.Filter{ShopID: "shop", EventID: "evt"}), []string{deliveryID(1)})
	got := s.event("shop", "evt")
	if len(got.Deliveries) != 1 || got.Deliveries[0].Delivery.GetStatus() != "delivered" || len(got.Deliveries[0].Attempts) != 1 {
		t.Errorf("deliveries of the event: got %v, want one, delivered, with its attempt", got.Deliveries)
	}
	if got.Event.Content != nil || got.Event.GetType() != "order_created" {
		t.Errorf("event: got %v, want its type and no data before it came", got.Event)
	}
}

func keepsShopsApart(t *testing.T, s bundle) {
	// The same ids everywhere, which ids of ours never are.
	for i, shopID := range []string{"shop-a", "shop-b"} {
		s.write(store.Batch{
			Events: []*shopbellv1.Event{newEvent(shopID, "evt", []byte(shopID))},
			Records: []*busv1.Record{
				decision(shopID, "evt", time.Second, matched("wh_1", deliveryID(1))),
				made(shopID, "evt", "wh_1", deliveryID(1), 1, 2*time.Second, "retrying", int32(500+i)),
				changed(shopID, "evt", "wh_1", deliveryID(1), time.Minute, "held"),
			},
		})
	}
	for i, shopID := range []string{"shop-a", "shop-b"} {
		d := s.delivery(shopID, deliveryID(1))
		if d.Delivery.GetShopId() != shopID || d.Delivery.GetResponseCode() != int32(500+i) ||
			string(d.Delivery.GetBody()) != `{"data":`+shopID+`}` || len(d.Attempts) != 1 || len(d.Changes) != 1 {
			t.Errorf("delivery of %s: got %v", shopID, d)
		}
		e := s.event(shopID, "evt")
		if string(e.Event.GetData()) != shopID || len(e.Deliveries) != 1 || len(e.Deliveries[0].Attempts) != 1 {
			t.Errorf("event of %s: got %v", shopID, e)
		}
		page, err := s.Deliveries(context.Background(), store.Filter{ShopID: shopID, WebhookID: "wh_1", Limit: 10})
		if err != nil || len(page.Deliveries) != 1 || page.Deliveries[0].GetShopId() != shopID {
			t.Errorf("list of %s: got %v, %v; want its own delivery", shopID, page, err)
		}
	}
	if _, err := s.Event(context.Background(), "shop-c", "evt"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("event of another shop: got error %v, want ErrNotFound", err)
	}
	same(t, "list of another shop", s.list(store.Filter{ShopID: "shop-c"}), []string{})
}

func writesWholeBatches(t *testing.T, s bundle) {
	var batch store.Batch
	for i := range 500 {
		batch.Records = append(batch.Records, made("shop", "evt", "wh_1", deliveryID(i), 1, time.Second, "delivered", 200))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	err := s.Write(ctx, batch) // ends somewhere in the middle, or in time
	got := s.list(store.Filter{ShopID: "shop", Limit: 500})
	if len(got) != 500 && (err == nil || len(got) != 0) {
		t.Errorf("rows after error %v: got %d, want all 500, or none after an error", err, len(got))
	}
	s.write(batch)
	if got := s.list(store.Filter{ShopID: "shop", Limit: 500}); len(got) != 500 || !slices.Contains(got, deliveryID(499)) {
		t.Errorf("rows after writing again: got %d, want 500", len(got))
	}
}

func listsEvents(t *testing.T, s bundle) {
	var want []string
	for i := range 30 { // some in one moment, and not in the order of their ids
		e := newEvent("shop", fmt.Sprintf("evt_%02d", (i*7)%30), []byte(`{"n":1}`))
		e.AcceptedAt = after(time.Duration(i/3) * 24 * time.Hour)
		other := newEvent("other", e.GetId(), nil)
		other.AcceptedAt = e.GetAcceptedAt()
		s.write(store.Batch{Events: []*shopbellv1.Event{e, other}})
		if day := i / 3; day >= 2 && day < 8 {
			want = append(want, fmt.Sprintf("%d %s", day, e.GetId()))
		}
	}
	slices.Sort(want)
	f := store.EventsFilter{ShopID: "shop", From: noon.Add(48 * time.Hour), To: noon.Add(8 * 24 * time.Hour), Limit: 4}
	var got []string
	for {
		page, err := s.Events(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			got = append(got, fmt.Sprintf("%d %s", e.GetAcceptedAt().AsTime().Sub(noon)/(24*time.Hour), e.GetId()))
			if string(e.GetData()) != `{"n":1}` || e.GetShopId() != "shop" {
				t.Errorf("got %v, want the shop's event with its data", e)
			}
			f.From, f.After = e.GetAcceptedAt().AsTime(), e.GetId()
		}
		if len(page) < f.Limit {
			break
		}
	}
	same(t, "the events of six days", got, want)
}
