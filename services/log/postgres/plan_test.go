package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shopbell.dev/pkg/id"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"

	"shopbell.dev/services/log/store"
	"shopbell.dev/services/log/storetest"
)

// TestDeliveries_ReadsNoMoreThanItMust: each kind of list has an index that gives it in its order. With few rows the planner would
// rather read them all and sort them, so it is told not to where it has the choice.
func TestDeliveries_ReadsNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	s := openAt(t, storetest.Postgres(t)+" options='-c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off'")
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	if err := s.Write(context.Background(), store.Batch{Records: []*busv1.Record{{
		ShopId: "shop", EventType: "paid", What: &busv1.Record_Change{Change: &busv1.StatusChange{DeliveryId: id.New(id.Delivery, at), Status: "held"}},
	}}}); err != nil {
		t.Fatal(err)
	}
	const (
		byShop    = "deliveries_20260501_0000_pkey"
		byWebhook = "deliveries_20260501_0000_shop_id_webhook_id_id_idx"
		byType    = "deliveries_20260501_0000_shop_id_event_type_id_idx"
		troubled  = "deliveries_20260501_0000_shop_id_id_webhook_id_event_type_c"
	)
	for _, test := range []struct {
		name   string
		filter store.Filter
		index  string
	}{
		{"a shop's", store.Filter{}, byShop},
		{"a shop's next page", store.Filter{Before: store.FirstID(at.Add(time.Hour))}, byShop},
		{"a shop's of a time", store.Filter{From: at, To: at.Add(time.Hour)}, byShop},
		{"a shop's of a type", store.Filter{EventType: "paid"}, byType},
		{"a shop's by code", store.Filter{Codes: store.Codes{Low: 400, High: 499}}, troubled},
		{"a shop's by error", store.Filter{ErrorClass: "dns"}, troubled},
		{"a shop's without an answer", store.Filter{Codes: store.Codes{None: true}}, troubled},
		{"a webhook's", store.Filter{WebhookID: "wh_1"}, byWebhook},
		{"a webhook's next page", store.Filter{WebhookID: "wh_1", Before: store.FirstID(at.Add(time.Hour))}, byWebhook},
	} {
		test.filter.ShopID, test.filter.Limit = "shop", 50
		plan, err := s.Explain(context.Background(), test.filter)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan, "Index Scan") || !strings.Contains(plan, test.index) || strings.Contains(plan, "Sort") || strings.Contains(plan, "Seq Scan") {
			t.Errorf("%s: got plan %q, want the rows of %s in its order", test.name, plan, test.index)
		}
	}
}

// Of two indexes the planner takes the one in which less is read: a status that few or none have is found at once.
func TestDeliveries_FindsARareStatusAtOnce(t *testing.T) {
	t.Parallel()
	dsn := storetest.Postgres(t)
	s := openAt(t, dsn)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var failed store.Batch
	for range 5000 {
		failed.Records = append(failed.Records, &busv1.Record{
			ShopId: "shop", EventType: "paid", What: &busv1.Record_Change{Change: &busv1.StatusChange{DeliveryId: id.New(id.Delivery, at), Status: "failed"}},
		})
	}
	if err := s.Write(context.Background(), failed); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if _, err := conn.Exec(context.Background(), "ANALYZE deliveries"); err != nil {
		t.Fatal(err)
	}
	plan, err := s.Explain(context.Background(), store.Filter{ShopID: "shop", Status: "held", Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(plan, "deliveries_20260501_0000_shop_id_status_id_idx") {
		t.Errorf("got plan %q, want the index by status", plan)
	}
}
