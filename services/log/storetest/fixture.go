package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/id"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// noon is when everything in the tests begins.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(d)) }

// deliveryID is a delivery's id as Shopbell makes it; greater n are newer, by a second each.
func deliveryID(n int) string {
	return id.Derived(id.Delivery, noon.Add(time.Duration(n)*time.Second), fmt.Sprint(n))
}

func newEvent(shopID, eventID string, data []byte) *shopbellv1.Event {
	return &shopbellv1.Event{
		ShopId: shopID, Id: eventID, Type: "order_created", Action: "create", OccurredAt: "2026-05-01T14:00:00+02:00",
		Environment: "live", Key: "order:1042", ContentType: "application/json", AcceptedAt: after(0),
		TraceId: "0af7651916cd43dd8448eb211c80319c", Content: &shopbellv1.Event_Data{Data: data},
	}
}

func record(shopID, eventID string, at time.Duration) *busv1.Record {
	return &busv1.Record{At: after(at), ShopId: shopID, EventId: eventID, EventType: "order_created"}
}

func matched(webhookID, deliveryID string) *shopbellv1.Considered {
	return &shopbellv1.Considered{
		WebhookId: webhookID, Label: "Warehouse", Matched: true, Reason: "it wants order_created", DeliveryId: deliveryID,
	}
}

func decision(shopID, eventID string, at time.Duration, considered ...*shopbellv1.Considered) *busv1.Record {
	r := record(shopID, eventID, at)
	r.What = &busv1.Record_Decision{Decision: &busv1.Decision{Considered: considered}}
	return r
}

// made is a record of an attempt that began at a time and was answered 10 ms later.
func made(shopID, eventID, webhookID, deliveryID string, number int32, at time.Duration, status string, code int32) *busv1.Record {
	r := record(shopID, eventID, at+10*time.Millisecond)
	a := &shopbellv1.Attempt{
		Number: number, StartedAt: after(at), DurationMs: 10, ResponseCode: code, Verdict: status,
		Timings:         &shopbellv1.Timings{DnsMs: 1, ConnectMs: 2, TlsMs: 3, FirstByteMs: 4},
		Url:             "https://example.com/hooks?token=1",
		RequestHeaders:  []*shopbellv1.Header{{Name: "webhook-id", Value: deliveryID}},
		ResponseHeaders: []*shopbellv1.Header{{Name: "Server", Value: "nginx"}},
		ResponseBody:    []byte("as it came \x00\xff"),
	}
	if status != "delivered" {
		a.ErrorClass, a.Error = "http_status", fmt.Sprintf("the receiver answered %d", code)
	}
	if status == "retrying" {
		a.NextAttemptAt = after(at + time.Minute)
	}
	r.What = &busv1.Record_Attempt{Attempt: &busv1.AttemptMade{
		DeliveryId: deliveryID, WebhookId: webhookID, MatchedAt: after(time.Second), Attempt: a,
		Status: status, Reason: "because of " + status, BodyPrefix: []byte(`{"data":`), BodySuffix: []byte(`}`),
	}}
	return r
}

func changed(shopID, eventID, webhookID, deliveryID string, at time.Duration, status string) *busv1.Record {
	r := record(shopID, eventID, at)
	r.What = &busv1.Record_Change{Change: &busv1.StatusChange{
		DeliveryId: deliveryID, WebhookId: webhookID, MatchedAt: after(time.Second), Status: status,
		Reason: "because of " + status,
	}}
	return r
}

// bundle is a fresh store and what tests do with it again and again.
type bundle struct {
	t testing.TB
	store.Store
}

func setup(t testing.TB, open func(testing.TB) store.Store) bundle {
	t.Helper()
	s := open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return bundle{t, s}
}

func (b bundle) write(batches ...store.Batch) {
	b.t.Helper()
	for _, batch := range batches {
		if err := b.Write(context.Background(), batch); err != nil {
			b.t.Fatalf("write: %v", err)
		}
	}
}

func (b bundle) event(shopID, eventID string) *store.Event {
	b.t.Helper()
	e, err := b.Event(context.Background(), shopID, eventID)
	if err != nil {
		b.t.Fatalf("read event %s: %v", eventID, err)
	}
	return e
}

func (b bundle) delivery(shopID, deliveryID string) *store.Delivery {
	b.t.Helper()
	d, err := store.Detail(context.Background(), b, shopID, deliveryID)
	if err != nil {
		b.t.Fatalf("read delivery %s: %v", deliveryID, err)
	}
	return d
}

func (b bundle) list(f store.Filter) []string {
	b.t.Helper()
	if f.Limit == 0 {
		f.Limit = 100
	}
	page, err := b.Deliveries(context.Background(), f)
	if err != nil {
		b.t.Fatalf("list %+v: %v", f, err)
	}
	ids := []string{}
	for _, d := range page.Deliveries {
		ids = append(ids, d.GetId())
	}
	return ids
}

// same fails the test when got is not want, and shows where.
func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s: got + and want -:\n%s", what, diff)
	}
}
