package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver
	"github.com/pressly/goose/v3"

	"shopbell.dev/services/log/postgres"
	"shopbell.dev/services/log/store"
	"shopbell.dev/services/log/storetest"
)

func open(t testing.TB) store.Store {
	t.Helper()
	return openAt(t, storetest.Postgres(t))
}

func openAt(t testing.TB, dsn string) *postgres.Store {
	t.Helper()
	// Open's context is about opening; who calls it with a deadline keeps the store.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := postgres.Open(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) { storetest.Run(t, open) }

func BenchmarkWrite(b *testing.B) { storetest.BenchmarkWrite(b, open) }

func TestOpen_TakesWhatEarlierReleasesWrote(t *testing.T) {
	t.Parallel()
	dump, err := os.ReadFile("testdata/version1.sql")
	if err != nil {
		t.Fatal(err)
	}
	storetest.EachVersion(t, goose.DialectPostgres, func(t *testing.T, upTo func(*sql.DB) error) {
		dsn := storetest.Postgres(t)
		conn, err := pgx.Connect(context.Background(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Exec(context.Background(), string(dump)) // which leaves the connection without a search path
		if err := errors.Join(err, conn.Close(context.Background())); err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("pgx", dsn)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(upTo(db), db.Close()); err != nil {
			t.Fatal(err)
		}
		storetest.Migrated(t, openAt(t, dsn), open(t))
	})
}

func TestOpen_ReplicasMayStartAtOnce(t *testing.T) {
	t.Parallel()
	dsn := storetest.Postgres(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			// One connection is the least that a deployment can allow.
			s, err := postgres.Open(context.Background(), dsn+" pool_max_conns=1")
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			if err := s.Write(context.Background(), store.Batch{}); err != nil {
				t.Errorf("write: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestOpen_RefusesANewerSchema(t *testing.T) {
	t.Parallel()
	dsn := storetest.Postgres(t)
	if err := openAt(t, dsn).Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(context.Background(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)`)
	if err := errors.Join(err, conn.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	_, err = postgres.Open(context.Background(), dsn)
	if err == nil || !strings.Contains(err.Error(), "version 999") || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("got error %v, want one that names version 999 and says what to do", err)
	}
}

func TestOpen_SaysWhereItCouldNotConnect(t *testing.T) {
	t.Parallel()
	const dsn = "postgres://shopbell:secret-word@127.0.0.1:1/log?connect_timeout=2"
	_, err := postgres.Open(context.Background(), dsn)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), "secret-word") {
		t.Errorf("got error %v, want one with the host and without the password", err)
	}
	_, err = postgres.Open(context.Background(), "postgres://shopbell:secret-word@[::1/log")
	if err == nil || strings.Contains(err.Error(), "secret-word") {
		t.Errorf("got error %v, want one without the password", err)
	}
}
