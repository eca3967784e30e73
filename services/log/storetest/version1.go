package storetest

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// version1 is what was written into the databases in testdata/version1.sql by the first release's stores. It must stay
// as it is, with all that it is made of.
func version1() []store.Batch {
	day := 24 * time.Hour
	batches := story("shop", "evt", deliveryID(1))
	batches = append(batches, story("other", "evt", deliveryID(1))...)
	batches = append(batches, story("shop", "evt_odd", "an id of nobody's making \x00 ü")...)
	for n := range 5 {
		eventID := "evt_day_" + string(rune('0'+n))
		at := time.Duration(n) * day
		event := newEvent("shop", eventID, []byte("{\"n\":\"\x00\xff\"}"))
		event.AcceptedAt = after(at)
		batches = append(batches, store.Batch{
			Events: []*shopbellv1.Event{event},
			Records: []*busv1.Record{
				decision("shop", eventID, at+time.Second, matched("wh_2", deliveryID(n*86400)), &shopbellv1.Considered{WebhookId: "wh_3", Reason: "off"}),
				made("shop", eventID, "wh_2", deliveryID(n*86400), 1, at+2*time.Second, "failed", 404),
			},
		})
	}
	return append(batches, store.Batch{Records: []*busv1.Record{
		decision("shop", "evt_unmatched", day+time.Hour),
		decision("shop", "evt_late", 7*day, matched("wh_2", deliveryID(3600))),
		made("shop", "evt", "wh_1", "dlv_without_time", 1, 0, "delivered", 200), // an id that holds no time
	}})
}

// EachVersion runs a test for each version of the schema that the folder migrations has. upTo brings a database which version 1
// wrote to that version, and no further.
func EachVersion(t *testing.T, dialect goose.Dialect, test func(t *testing.T, upTo func(*sql.DB) error)) {
	t.Helper()
	migrations := os.DirFS("migrations")
	files, err := fs.Glob(migrations, "*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("migrations: %q, %v", files, err)
	}
	for i := range files {
		version := int64(i + 1)
		t.Run(fmt.Sprintf("version %d", version), func(t *testing.T) {
			t.Parallel()
			test(t, func(db *sql.DB) error {
				p, err := goose.NewProvider(dialect, db, migrations, goose.WithDisableGlobalRegistry(true))
				if err != nil {
					return err
				}
				if _, err := p.UpTo(t.Context(), version); err != nil {
					return err
				}
				if is, err := p.GetDBVersion(t.Context()); err != nil || is != version {
					return fmt.Errorf("the database is at version %d, want %d: %w", is, version, err)
				}
				return nil
			})
		})
	}
}

// Migrated tests that a database which an earlier version wrote reads like one that was written today. migrated is that
// database, opened; fresh is an empty one.
func Migrated(t *testing.T, migrated, fresh store.Store) {
	old, now := setup(t, func(testing.TB) store.Store { return migrated }), setup(t, func(testing.TB) store.Store { return fresh })
	now.write(version1()...)
	compare := func(what string) {
		t.Helper()
		filters := []store.Filter{{ShopID: "shop"}, {ShopID: "other"}, {ShopID: "shop", Status: "failed", WebhookID: "wh_2"}, {ShopID: "shop", EventType: "order_created"}}
		for _, f := range filters {
			if len(now.list(f)) == 0 {
				t.Fatalf("%s: nothing to compare in %+v", what, f)
			}
			same(t, what+": list", old.list(f), now.list(f))
			for _, id := range now.list(f) {
				same(t, what+": delivery "+id, old.delivery(f.ShopID, id), now.delivery(f.ShopID, id))
			}
		}
		for _, eventID := range []string{"evt", "evt_odd", "evt_day_0", "evt_day_4", "evt_unmatched", "evt_late"} {
			same(t, what+": "+eventID, old.event("shop", eventID), now.event("shop", eventID))
		}
		same(t, what+": evt of the other shop", old.event("other", "evt"), now.event("other", "evt"))
	}
	compare("as it was")
	// And it goes on like any other: what is written again changes nothing, what is new is there.
	more := append(version1(), store.Batch{Records: []*busv1.Record{
		made("shop", "evt_day_4", "wh_2", deliveryID(4*86400), 2, 200*time.Hour, "delivered", 200),
		changed("shop", "evt", "wh_1", deliveryID(1), 300*time.Hour, "cancelled"),
	}})
	old.write(more...)
	now.write(more...)
	compare("after writing more")
	if _, err := old.Deliveries(context.Background(), store.Filter{ShopID: "shop", Text: "n", Limit: 10}); err != nil {
		t.Errorf("search for text: %v", err)
	}
}
