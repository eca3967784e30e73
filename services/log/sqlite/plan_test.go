package sqlite

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/id"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"

	"shopbell.dev/services/log/store"
)

// TestDeliveries_ReadsNoMoreThanItMust: a list that sorts, or goes through a whole table, is fast in every test and
// stands still with ten million rows.
func TestDeliveries_ReadsNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	s, err := Open(context.Background(), filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, s)
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	if err := s.Write(context.Background(), store.Batch{Records: []*busv1.Record{{
		ShopId: "shop", EventType: "paid", What: &busv1.Record_Change{Change: &busv1.StatusChange{DeliveryId: id.New(id.Delivery, at), Status: "held"}},
	}}}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		filter store.Filter
		search string // of the ids
	}{
		{"a shop's", store.Filter{}, "COVERING INDEX deliveries_by_shop (shop_id=?)"},
		{"a shop's next page", store.Filter{Before: "dlv_1"}, "COVERING INDEX deliveries_by_shop (shop_id=? AND id<?)"},
		{"a shop's of a type", store.Filter{EventType: "paid"}, "COVERING INDEX deliveries_by_shop (shop_id=? AND id>? AND id<?)"},
		{"a shop's of a type, the next page", store.Filter{EventType: "paid", Before: store.FirstID(at.Add(time.Minute))}, "COVERING INDEX deliveries_by_shop (shop_id=? AND id>? AND id<?)"},
		{"a webhook's of a type", store.Filter{EventType: "paid", WebhookID: "wh_1"}, "COVERING INDEX deliveries_by_webhook (shop_id=? AND webhook_id=? AND id>? AND id<?)"},
		{"a shop's of a time", store.Filter{From: at, To: at.Add(time.Hour)}, "COVERING INDEX deliveries_by_shop (shop_id=? AND id>? AND id<?)"},
		{"a shop's by status", store.Filter{Status: "failed"}, "COVERING INDEX deliveries_troubled (shop_id=?)"},
		{"a shop's by code", store.Filter{Codes: store.Codes{Low: 400, High: 499}}, "COVERING INDEX deliveries_troubled (shop_id=?)"},
		{"a shop's by error", store.Filter{ErrorClass: "dns"}, "COVERING INDEX deliveries_troubled (shop_id=?)"},
		{"a shop's by an error, of a webhook", store.Filter{ErrorClass: "dns", WebhookID: "wh_1"}, "COVERING INDEX deliveries_troubled (shop_id=?)"},
		{"a shop's by code, of a webhook", store.Filter{Codes: store.Codes{Low: 404, High: 404}, WebhookID: "wh_1"}, "COVERING INDEX deliveries_troubled (shop_id=?)"},
		{"a shop's by status and code", store.Filter{Status: "failed", Codes: store.Codes{Low: 404, High: 404}}, "COVERING INDEX deliveries_troubled (shop_id=?)"},
		{"a shop's by another success", store.Filter{Codes: store.Codes{Low: 202, High: 202}}, "COVERING INDEX deliveries_by_success (shop_id=? AND response_code=?)"},
		{"a shop's by another success, the next page of a webhook's", store.Filter{Codes: store.Codes{Low: 202, High: 202}, WebhookID: "wh_1", Status: "delivered", Before: "dlv_1"}, "COVERING INDEX deliveries_by_success (shop_id=? AND response_code=? AND id<?)"},
		{"a shop's without an answer", store.Filter{Codes: store.Codes{None: true}}, "COVERING INDEX deliveries_troubled (shop_id=?)"},
		{"a shop's by type, code and time", store.Filter{EventType: "paid", Codes: store.Codes{Low: 404, High: 404}, From: at, To: at.Add(time.Hour)}, "COVERING INDEX deliveries_troubled (shop_id=? AND id>? AND id<?)"},
		{"a webhook's", store.Filter{WebhookID: "wh_1"}, "COVERING INDEX deliveries_by_webhook (shop_id=? AND webhook_id=?)"},
		{"a webhook's that were delivered", store.Filter{WebhookID: "wh_1", Status: "delivered"}, "INDEX deliveries_by_webhook (shop_id=? AND webhook_id=?)"},
		{"a webhook's next page by status", store.Filter{WebhookID: "wh_1", Status: "failed", Before: "dlv_1"}, "COVERING INDEX deliveries_troubled (shop_id=? AND id<?)"},
		{"one delivery", store.Filter{DeliveryID: "dlv_1"}, "COVERING INDEX deliveries_by_shop (shop_id=? AND id=?)"},
		{"an event's", store.Filter{EventID: "evt"}, "COVERING INDEX deliveries_by_shop (shop_id=? AND id=?)"},
	} {
		test.filter.ShopID, test.filter.Limit = "shop", 50
		plan, err := s.Explain(context.Background(), test.filter)
		if err != nil {
			t.Fatal(err)
		}
		plan = strings.ReplaceAll(strings.ReplaceAll(plan, "\n", "; "), "SCAN json_each", "")
		const page = "SEARCH deliveries USING INDEX deliveries_by_shop (shop_id=? AND id=?); "
		if !strings.HasPrefix(plan, page) || !strings.Contains(plan[len(page):], "SEARCH deliveries USING "+test.search) ||
			strings.Contains(plan, "SCAN") || strings.Contains(plan[len(page):], "TEMP B-TREE FOR") {
			t.Errorf("%s: got plan %q, want the rows of %q alone", test.name, plan, test.search)
		}
	}
	if plan, err := s.Explain(context.Background(), store.Filter{ShopID: "shop", EventType: "nobody has it", Limit: 50}); err != nil || !strings.HasPrefix(plan, "SEARCH types") {
		t.Errorf("a type that nobody has: got plan %q, error %v, want no delivery read", plan, err)
	}
	for _, query := range []string{
		`SELECT day FROM types WHERE shop_id = ? AND event_type = ? ORDER BY day DESC`,
		`SELECT ` + stateColumns + ` FROM deliveries WHERE shop_id = ? AND id IN (SELECT value FROM json_each(?))`,
		`SELECT delivery_id, number, started_at, record FROM attempts
			WHERE shop_id = ? AND delivery_id IN (SELECT value FROM json_each(?)) ORDER BY delivery_id, number, started_at`,
		`SELECT data FROM events WHERE shop_id = ? AND id = ?`,
	} {
		plan := explain(t, s, query, "shop", `["dlv_1"]`)
		if strings.Contains(strings.ReplaceAll(plan, "SCAN json_each", ""), "SCAN") {
			t.Errorf("%s: got plan %q, want no scan", query, plan)
		}
	}
}

func explain(t *testing.T, s *Store, query string, args ...any) string {
	t.Helper()
	rows, err := s.reader.Query("EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(plan, "; ")
}

func closed(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
