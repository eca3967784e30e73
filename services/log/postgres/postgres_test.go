package postgres_test

import (
	"context"
	"testing"

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
	s, err := postgres.Open(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) { storetest.Run(t, open) }

func BenchmarkWrite(b *testing.B) { storetest.BenchmarkWrite(b, open) }
