package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"shopbell.dev/services/log/sqlite"
	"shopbell.dev/services/log/store"
	"shopbell.dev/services/log/storetest"
)

func open(t testing.TB) store.Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "log.db"))
}

func openAt(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) { storetest.Run(t, open) }

func BenchmarkWrite(b *testing.B) { storetest.BenchmarkWrite(b, open) }
