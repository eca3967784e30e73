package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"

	"shopbell.dev/services/log/store"
	"shopbell.dev/services/log/storetest"
)

// TestForget_FinishesWhatAKilledOneBegan kills the connection that detaches a part while it waits for somebody who reads there:
// PostgreSQL has noted then that the part goes, and has not taken it away.
func TestForget_FinishesWhatAKilledOneBegan(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := storetest.Postgres(t)
	s := openAt(t, dsn)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	at := func(days int) (store.Batch, string) {
		then := now.Add(time.Duration(days) * 24 * time.Hour)
		delivery := id.Derived(id.Delivery, then, fmt.Sprint(days))
		return store.Batch{Records: []*busv1.Record{{
			ShopId: "shop", EventType: "paid", What: &busv1.Record_Change{Change: &busv1.StatusChange{DeliveryId: delivery, Status: "held"}},
		}}}, delivery
	}
	old, oldID := at(-40)
	young, youngID := at(-1)
	for _, batch := range []store.Batch{old, young} {
		if err := s.Write(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	keep := store.Keep{Age: 30 * 24 * time.Hour}

	for _, table := range []string{"events", "deliveries", "changes"} { // the first, one within, the last of a part's tables
		reader, err := pgx.Connect(ctx, dsn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reader.Exec(ctx, `BEGIN; SELECT FROM `+table); err != nil {
			t.Fatal(err)
		}
		other, err := pgx.Connect(ctx, dsn)
		if err != nil {
			t.Fatal(err)
		}
		killed := make(chan error, 1)
		go func() { _, err := s.Forget(ctx, now, keep); killed <- err }()
		until := func(fact, query string) {
			t.Helper()
			testwait.Until(t, fact, func() (is bool) {
				if err := other.QueryRow(ctx, query).Scan(&is); err != nil {
					t.Fatalf("%s: %v", fact, err)
				}
				return is
			})
		}
		until("the part is marked", `SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending AND inhparent = '`+table+`'::regclass)`)
		until("who detaches is killed", `SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'ALTER TABLE%DETACH PARTITION%' AND state = 'active'`)
		if err := <-killed; err == nil {
			t.Error("the call that was killed says that all is well")
		}
		for _, conn := range []*pgx.Conn{reader, other} {
			if err := conn.Close(ctx); err != nil {
				t.Fatal(err)
			}
		}
		// Whoever reads or writes meanwhile is not kept from it, but of what goes.
		if _, err := store.Detail(ctx, s, "shop", youngID); err != nil {
			t.Errorf("killed at %s: read what stays: %v", table, err)
		}
		if err := s.Write(ctx, young); err != nil {
			t.Errorf("killed at %s: write what stays: %v", table, err)
		}
	}

	done, err := s.Forget(ctx, now, keep)
	if err != nil || done.Until.IsZero() {
		t.Fatalf("the next call: got %+v, error %v", done, err)
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var left int
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE '%\_20260322\_%'`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d tables of the forgotten day are left, error %v", left, err)
	}
	// It may come up again, as it may after any other day was forgotten.
	if err := s.Write(ctx, old); err != nil {
		t.Errorf("write what was still under way: %v", err)
	}
	if _, err := store.Detail(ctx, s, "shop", oldID); err != nil {
		t.Errorf("read it: %v", err)
	}
}
