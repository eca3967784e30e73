package eventlog

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to hold a lock, as another program might

	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/telemetry/telemetrytest"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"

	"shopbell.dev/services/log/store"
)

// heard is a store that tells when a batch begins to be written.
type heard struct {
	store.Store
	begins func()
}

func (h heard) Write(ctx context.Context, b store.Batch) error {
	h.begins()
	return h.Store.Write(ctx, b)
}

func TestLog_LeavesOnTheBusWhatItHasNoTimeToWrite(t *testing.T) {
	t.Parallel()
	const records, chunk = 5000, 100
	cfg := Defaults()
	path := filepath.Join(t.TempDir(), "log.db")
	cfg.Store, cfg.Batch = config.Secret("sqlite:"+path), chunk
	b := bustest.New(t)
	var logged telemetrytest.Lines
	begun := make(chan struct{})
	first := startRoomWith(t, b, cfg, slog.NewTextHandler(&logged, nil), func(string) {}, func(l *Log) {
		l.store = heard{l.store, sync.OnceFunc(func() { close(begun) })}
	})

	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	written := func() (n int) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM deliveries").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	exec("BEGIN IMMEDIATE")
	var all []*busv1.Record
	for n := range records {
		all = append(all, attempted("shop", fmt.Sprintf("dlv_%d", n), "delivered", 200))
	}
	messages, err := record.Messages(all...)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
	<-begun // one batch; the message that is pulled holds more

	stopped := make(chan struct{})
	go func() { first.stop(); close(stopped) }()
	testwait.Until(t, "the time for writing is over", func() bool { return first.last.Load() != 0 && time.Now().UnixNano() > first.last.Load() })
	exec("ROLLBACK")
	<-stopped
	if n := written(); n != chunk {
		t.Errorf("%d records were written after the lock had gone, want the %d of what was begun", n, chunk)
	}
	if logged.Has("ERROR") {
		t.Error("a line tells of an error; to leave something on the bus is none")
	}

	startRoomOn(t, b, cfg, slog.DiscardHandler, func(string) {})
	testwait.Until(t, "everything is written after the next start", func() bool { return written() == records })
}
