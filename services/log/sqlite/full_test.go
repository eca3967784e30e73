package sqlite

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

func TestWrite_GoesOnWhenAFullDiskHasRoomAgain(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, err := Open(ctx, filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, s)
	var batch store.Batch
	for i := range 100 {
		batch.Events = append(batch.Events, &shopbellv1.Event{
			ShopId: "shop", Id: fmt.Sprintf("evt_%d", i), Content: &shopbellv1.Event_Data{Data: make([]byte, 4096)},
		})
	}
	// SQLite answers a limit of pages as it answers a full disk.
	limit := func(pages int) {
		if _, err := s.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count(%d)", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(50)
	if err := s.Write(ctx, batch); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("write to a full disk: got error %v, want one that says so", err)
	}
	if _, err := s.Event(ctx, "shop", "evt_0"); err == nil {
		t.Error("a part of the batch is there")
	}
	limit(1_000_000)
	if err := s.Write(ctx, batch); err != nil {
		t.Errorf("write when there is room again: %v", err)
	}
	if _, err := s.Event(ctx, "shop", "evt_99"); err != nil {
		t.Errorf("read what was written then: %v", err)
	}
}

func TestExpunge_LeavesNothingInTheFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "log.db")
	s, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, s)
	holds := func() bool {
		t.Helper()
		for _, file := range []string{path, path + "-wal"} {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte("kunde@example.com")) {
				return true
			}
		}
		return false
	}
	var batch store.Batch
	for i := range 100 {
		data := append([]byte("kunde@example.com"), make([]byte, 100*i)...) // in rows, and on pages of their own
		batch.Events = append(batch.Events, &shopbellv1.Event{ShopId: "shop", Id: fmt.Sprintf("evt_%d", i), Content: &shopbellv1.Event_Data{Data: data}})
	}
	if err := s.Write(ctx, batch); err != nil {
		t.Fatal(err)
	}
	if !holds() {
		t.Error("the files do not hold what was written: the test tests nothing")
	}
	if _, err := s.Expunge(ctx, "shop", store.Events{All: true}); err != nil {
		t.Fatal(err)
	}
	if holds() {
		t.Error("the files hold what was expunged")
	}
}
