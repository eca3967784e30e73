package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
	"shopbell.dev/services/log/storetest"
)

// TestDeliveries_ReadsNoMoreThanItMust: each kind of list has an index that gives it in its order, whether PostgreSQL has counted the
// rows or not. What few or none have is looked for in an index of few, whatever else is asked. Of a small part the planner would
// rather read all and sort it, so it is told not to.
func TestDeliveries_ReadsNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	dsn := storetest.Postgres(t)
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	write(t, dsn, shopOfMany(at))
	const (
		byShop    = "deliveries_20260501_0000_pkey"
		byWebhook = "deliveries_20260501_0000_shop_id_webhook_id_id_event_type_idx"
		byType    = "deliveries_20260501_0000_shop_id_event_type_id_idx"
		byStatus  = "deliveries_20260501_0000_shop_id_status_id_idx"
		bySuccess = "deliveries_20260501_0000_expr_response_code_id_webhook_id_e_idx"
		troubled  = "deliveries_20260501_0000_expr_id_webhook_id_event_type_crea_idx"
	)
	gone, redirect, unanswered := store.Codes{Low: 410, High: 410}, store.Codes{Low: 300, High: 399}, store.Codes{None: true}
	other := store.Codes{Low: 202, High: 202}
	hour := func(f store.Filter) store.Filter { f.From, f.To = at, at.Add(time.Hour); return f }
	tests := []struct {
		name   string
		filter store.Filter
		index  string
	}{
		{"a shop's", store.Filter{}, byShop},
		{"a shop's next page", store.Filter{Before: store.FirstID(at.Add(time.Hour))}, byShop},
		{"a shop's of a time", hour(store.Filter{}), byShop},
		{"that were delivered", store.Filter{Status: "delivered"}, byShop},
		{"of a type", store.Filter{EventType: "paid"}, byType},
		{"of a type nobody has", store.Filter{EventType: "none"}, byType},
		{"a webhook's", store.Filter{WebhookID: "wh_1"}, byWebhook},
		{"a webhook's next page", store.Filter{WebhookID: "wh_1", Before: store.FirstID(at.Add(time.Hour))}, byWebhook},
		{"failed", store.Filter{Status: "failed"}, byStatus},
		{"held, which none is", store.Filter{Status: "held"}, byStatus},
		{"held, of a time", hour(store.Filter{Status: "held"}), byStatus},
		{"held, of a webhook", store.Filter{Status: "held", WebhookID: "wh_1"}, troubled},
		{"failed, of a type nobody has", store.Filter{Status: "failed", EventType: "none"}, troubled},
		{"failed with a code nobody has", store.Filter{Status: "failed", Codes: gone}, troubled},
		{"failed with 200", store.Filter{Status: "failed", Codes: store.Codes{Low: 200, High: 200}}, troubled},
		{"delivered with a code nobody has", store.Filter{Status: "delivered", Codes: gone}, troubled},
		{"by code", store.Filter{Codes: store.Codes{Low: 404, High: 404}}, troubled},
		{"by a code nobody has", store.Filter{Codes: gone}, troubled},
		{"by codes nobody has", store.Filter{Codes: redirect}, troubled},
		{"without an answer", store.Filter{Codes: unanswered}, troubled},
		{"by a code nobody has, of a webhook", store.Filter{Codes: gone, WebhookID: "wh_1"}, troubled},
		{"by codes nobody has, of a webhook", store.Filter{Codes: redirect, WebhookID: "wh_1"}, troubled},
		{"without an answer, of a webhook", store.Filter{Codes: unanswered, WebhookID: "wh_1"}, troubled},
		{"by a code nobody has, of a type", store.Filter{Codes: gone, EventType: "paid"}, troubled},
		{"by codes nobody has, of a time", hour(store.Filter{Codes: redirect}), troubled},
		{"by error", store.Filter{ErrorClass: "http_status"}, troubled},
		{"by an error nobody has", store.Filter{ErrorClass: "dns"}, troubled},
		{"by an error nobody has, of a webhook", store.Filter{ErrorClass: "dns", WebhookID: "wh_1"}, troubled},
		{"by an error nobody has, of a webhook and a type", store.Filter{ErrorClass: "dns", WebhookID: "wh_1", EventType: "paid"}, troubled},
		{"by an error nobody has, of a time", hour(store.Filter{ErrorClass: "dns"}), troubled},
		{"by error and code", store.Filter{ErrorClass: "dns", Codes: gone}, troubled},
		{"by everything", hour(store.Filter{ErrorClass: "dns", Codes: gone, Status: "failed", WebhookID: "wh_1", EventType: "paid"}), troubled},
		{"by another success, which none has", store.Filter{Codes: other}, bySuccess},
		{"by another success, of a webhook", store.Filter{Codes: other, WebhookID: "wh_1"}, bySuccess},
		{"by another success, of a type", store.Filter{Codes: other, EventType: "paid"}, bySuccess},
		{"delivered with another success", store.Filter{Codes: other, Status: "delivered"}, bySuccess},
	}
	s := openAt(t, dsn+" options='-c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off'")
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	for _, counted := range []bool{false, true} {
		if counted {
			exec(t, dsn, "ANALYZE deliveries")
		}
		for _, test := range tests {
			test.filter.ShopID, test.filter.Limit = "shop", 50
			plan, err := s.Explain(context.Background(), test.filter)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(plan, "Index Scan") || !strings.Contains(plan, test.index) || strings.Contains(plan, "Sort") || strings.Contains(plan, "Seq Scan") {
				t.Errorf("%s, counted %t: got plan %q, want the rows of %s in its order", test.name, counted, plan, test.index)
			}
		}
	}
}

// A list that is asked for often reads as little as the first of its kind.
func TestDeliveries_ReadsFewRowsForFew(t *testing.T) {
	t.Parallel()
	dsn := storetest.Postgres(t)
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	write(t, dsn, shopOfMany(at))
	exec(t, dsn, "ANALYZE deliveries")
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	// A connection adds its counts when it ends, or a little later.
	counted := func(want string) (scans, rows int) {
		testwait.Until(t, want, func() (there bool) {
			if err := conn.QueryRow(context.Background(), `SELECT coalesce(sum(idx_scan), 0), coalesce(sum(idx_tup_read), 0), `+want+`
				FROM pg_stat_user_indexes WHERE relname = 'deliveries_20260501_0000'`).Scan(&scans, &rows, &there); err != nil {
				t.Fatal(err)
			}
			return there
		})
		return scans, rows
	}
	scans, before := counted(`(SELECT n_tup_ins = 6500 FROM pg_stat_user_tables WHERE relname = 'deliveries_20260501_0000')`)

	s := openAt(t, dsn)
	few := []store.Filter{
		{WebhookID: "none"},
		{EventType: "none"},
		{WebhookID: "wh_1", EventType: "none"},
		{Status: "held"},
		{Status: "held", WebhookID: "wh_1"},
		{ErrorClass: "dns"},
		{ErrorClass: "dns", WebhookID: "wh_1", EventType: "paid"},
		{Codes: store.Codes{Low: 300, High: 399}},
		{Codes: store.Codes{Low: 410, High: 410}, WebhookID: "wh_1"},
		{Codes: store.Codes{Low: 202, High: 202}},
	}
	const often = 12 // PostgreSQL changes its mind about a statement the sixth time
	for _, f := range few {
		f.ShopID, f.Limit = "shop", 50
		for range often {
			if page, err := s.Deliveries(context.Background(), f); err != nil || len(page.Deliveries) > 0 {
				t.Fatalf("%+v: got %v, %v; want nothing", f, page, err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, after := counted(fmt.Sprintf("sum(idx_scan) >= %d", scans+often*len(few)))
	if read := after - before; read > 1000 {
		t.Errorf("read %d rows in %d lists of what nobody has, want next to none", read, often*len(few))
	}
}

// shopOfMany has 6,000 deliveries to two webhooks, some of them failed with 404, and 500 of other shops.
func shopOfMany(at time.Time) store.Batch {
	var batch store.Batch
	for n := range 6500 {
		a := &busv1.AttemptMade{
			DeliveryId: id.New(id.Delivery, at.Add(time.Duration(n)*time.Millisecond)), WebhookId: fmt.Sprintf("wh_%d", n%2),
			MatchedAt: timestamppb.New(at), Status: "delivered",
			Attempt: &shopbellv1.Attempt{Number: 1, StartedAt: timestamppb.New(at), ResponseCode: 200},
		}
		if n%50 == 0 {
			a.Status, a.Attempt.ResponseCode, a.Attempt.ErrorClass = "failed", 404, "http_status"
		}
		shopID := "shop"
		if n >= 6000 {
			shopID = fmt.Sprintf("shop_%d", n)
		}
		batch.Records = append(batch.Records, &busv1.Record{
			At: timestamppb.New(at), ShopId: shopID, EventType: []string{"paid", "created", "sent"}[n%3], What: &busv1.Record_Attempt{Attempt: a},
		})
	}
	return batch
}

func write(t *testing.T, dsn string, batch store.Batch) {
	t.Helper()
	s := openAt(t, dsn)
	if err := errors.Join(s.Write(context.Background(), batch), s.Close()); err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, dsn, statement string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(context.Background(), statement)
	if err := errors.Join(err, conn.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
}
