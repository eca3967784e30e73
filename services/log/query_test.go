package eventlog

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/fault"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/sqlite"
	"shopbell.dev/services/log/store"
)

// setupQueries gives queries over a real store with these batches in it.
func setupQueries(t *testing.T, batches ...store.Batch) queries {
	t.Helper()
	s, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	for _, b := range batches {
		if err := s.Write(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	return queries{store: s}
}

// orders is a batch of events 0 to n-1 of type order_created, each decided for wh_1.
func orders(n int) (b store.Batch) {
	for i := range n {
		at := timestamppb.New(noon.Add(time.Duration(i) * time.Second))
		eventID := fmt.Sprintf("evt_%d", i)
		b.Events = append(b.Events, &shopbellv1.Event{
			ShopId: "shop", Id: eventID, Type: "order_created", AcceptedAt: at, ContentType: "application/json",
			Content: &shopbellv1.Event_Data{Data: []byte(`{"total":549.50}`)},
		})
		b.Records = append(b.Records, &busv1.Record{
			At: at, ShopId: "shop", EventId: eventID, EventType: "order_created",
			What: &busv1.Record_Decision{Decision: &busv1.Decision{Considered: []*shopbellv1.Considered{
				{WebhookId: "wh_1", Label: "Warehouse", Matched: true, Reason: "it wants order_created", DeliveryId: fmt.Sprintf("dlv_%05d", i)},
			}}},
		})
	}
	return b
}

func TestQueries_GetEventTellsItsStory(t *testing.T) {
	t.Parallel()
	q := setupQueries(t, orders(1))
	got, err := q.GetEvent(context.Background(), &logv1.GetEventRequest{ShopId: "shop", EventId: "evt_0"})
	if err != nil {
		t.Fatal(err)
	}
	if string(got.GetData()) != `{"total":549.50}` {
		t.Errorf("data: got %s", got.GetData())
	}
	lines := []string{"accepted", "matched to 1 of 1 webhook"}
	if diff := cmp.Diff(lines, texts(got.GetStory())); diff != "" {
		t.Errorf("lines: got + and want -:\n%s", diff)
	}
	if d := got.GetStory().GetDeliveries(); len(d) != 1 || d[0].GetStatus() != "pending" {
		t.Errorf("deliveries: got %v, want one, pending", d)
	}
}

func TestQueries_SayWhatIsNotThere(t *testing.T) {
	t.Parallel()
	q := setupQueries(t, orders(1))
	_, err := q.GetEvent(context.Background(), &logv1.GetEventRequest{ShopId: "other", EventId: "evt_0"})
	if !fault.IsKind(err, fault.NotFound) || !strings.Contains(err.Error(), `no event "evt_0" in shop "other"`) {
		t.Errorf("event: got %v, want a NotFound fault that names it", err)
	}
	_, err = q.GetDelivery(context.Background(), &logv1.GetDeliveryRequest{ShopId: "other", DeliveryId: "dlv_00000"})
	if !fault.IsKind(err, fault.NotFound) || !strings.Contains(err.Error(), `no delivery "dlv_00000" in shop "other"`) {
		t.Errorf("delivery: got %v, want a NotFound fault that names it", err)
	}
}

func TestQueries_PagesHoldEveryDeliveryOnce(t *testing.T) {
	t.Parallel()
	const n = 1001
	q := setupQueries(t, orders(n))
	for _, test := range []struct {
		size  int32
		pages int
	}{{0, 21}, {1, n}, {500, 3}, {143, 7}} {
		r := &logv1.ListDeliveriesRequest{ShopId: "shop", PageSize: test.size}
		var ids []string
		pages := 0
		for {
			page, err := q.ListDeliveries(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, d := range page.GetDeliveries() {
				ids = append(ids, d.GetId())
			}
			if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
				break
			}
		}
		newestFirst := slices.IsSortedFunc(ids, func(a, b string) int { return strings.Compare(b, a) })
		if len(slices.Compact(ids)) != n || pages != test.pages || !newestFirst {
			t.Errorf("size %d: got %d deliveries on %d pages, newest first %v; want %d on %d", test.size, len(ids), pages,
				newestFirst, n, test.pages)
		}
	}
}

func TestQueries_RefuseWhatCannotBeListed(t *testing.T) {
	t.Parallel()
	q := queries{} // no request gets as far as the store
	for _, test := range []struct {
		field string
		r     *logv1.ListDeliveriesRequest
	}{
		{"page_size", &logv1.ListDeliveriesRequest{PageSize: 501}},
		{"page_size", &logv1.ListDeliveriesRequest{PageSize: -1}},
		{"page_token", &logv1.ListDeliveriesRequest{PageToken: "x"}},
		{"response_code", &logv1.ListDeliveriesRequest{ResponseCode: "99"}},
		{"response_code", &logv1.ListDeliveriesRequest{ResponseCode: "6xx"}},
		{"response_code", &logv1.ListDeliveriesRequest{ResponseCode: "+40"}},
		{"from", &logv1.ListDeliveriesRequest{From: &timestamppb.Timestamp{Seconds: 1 << 60}}},
		{"to", &logv1.ListDeliveriesRequest{From: timestamppb.New(noon), To: timestamppb.New(noon)}},
		{"text", &logv1.ListDeliveriesRequest{Text: "1042", From: timestamppb.New(noon)}},
		{"text", &logv1.ListDeliveriesRequest{Text: "1042", From: timestamppb.New(noon), To: timestamppb.New(noon.Add(maxTextSpan + 1))}},
	} {
		_, err := q.ListDeliveries(context.Background(), test.r)
		if !fault.IsKind(err, fault.Invalid) || !strings.HasPrefix(err.Error(), test.field+": ") {
			t.Errorf("%v: got %v, want an Invalid fault about %s", test.r, err, test.field)
		}
	}
}

func TestParseCodes(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]store.Codes{
		"": {}, "none": {None: true}, "404": {Low: 404, High: 404}, "4xx": {Low: 400, High: 499}, "2xx": {Low: 200, High: 299},
	} {
		if got, err := parseCodes(s); got != want || err != nil {
			t.Errorf("%q: got %+v, %v; want %+v", s, got, err, want)
		}
	}
}

func TestQueries_GetDeliveryHasAttemptsAndBody(t *testing.T) {
	t.Parallel()
	attempt := &shopbellv1.Attempt{Number: 1, StartedAt: timestamppb.New(noon), ResponseCode: 200}
	q := setupQueries(t, orders(1), store.Batch{Records: []*busv1.Record{{
		At: timestamppb.New(noon.Add(time.Second)), ShopId: "shop", EventId: "evt_0", EventType: "order_created",
		What: &busv1.Record_Attempt{Attempt: &busv1.AttemptMade{
			DeliveryId: "dlv_00000", WebhookId: "wh_1", MatchedAt: timestamppb.New(noon), Attempt: attempt, Status: "delivered",
			BodyPrefix: []byte(`{"data":`), BodySuffix: []byte(`}`),
		}},
	}}})
	got, err := q.GetDelivery(context.Background(), &logv1.GetDeliveryRequest{ShopId: "shop", DeliveryId: "dlv_00000"})
	want := &shopbellv1.Delivery{
		Id: "dlv_00000", ShopId: "shop", EventId: "evt_0", EventType: "order_created", WebhookId: "wh_1", Status: "delivered",
		AttemptsMade: 1, ResponseCode: 200, CreatedAt: timestamppb.New(noon), UpdatedAt: timestamppb.New(noon.Add(time.Second)),
		Body: []byte(`{"data":{"total":549.50}}`), Attempts: []*shopbellv1.Attempt{attempt},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("delivery: error %v, got + and want -:\n%s", err, diff)
	}
}

func TestQueries_GetDeliverySaysWhenItsBodyIsStillToCome(t *testing.T) {
	t.Parallel()
	attempt := func(at time.Time) *busv1.Record {
		r := attempted("shop", "dlv_00000", "delivered", 200)
		r.At, r.GetAttempt().MatchedAt = timestamppb.New(at), timestamppb.New(at)
		return r
	}
	for name, row := range map[string]struct {
		at   time.Time
		want bool
	}{"just now": {time.Now(), true}, "long ago": {noon, false}} {
		q := setupQueries(t, store.Batch{Records: []*busv1.Record{attempt(row.at)}})
		got, err := q.GetDelivery(context.Background(), &logv1.GetDeliveryRequest{ShopId: "shop", DeliveryId: "dlv_00000"})
		if err != nil || got.GetBodyPending() != row.want || got.Body != nil {
			t.Errorf("%s, without its event: got %v, %v; want body_pending %v", name, got, err, row.want)
		}
	}
}
