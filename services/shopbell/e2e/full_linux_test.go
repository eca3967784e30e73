package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestStoreFull_DeliveriesGoOnAndTheLogCatchesUp keeps the log in a file system of its own that fills up.
func TestStoreFull_DeliveriesGoOnAndTheLogCatchesUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mount := func(flags uintptr, size string) error {
		return syscall.Mount("tmpfs", dir, "tmpfs", flags, "size="+size)
	}
	if err := mount(0, "2m"); errors.Is(err, syscall.EPERM) {
		const message = "the full disk did not run: only root may mount a small file system"
		if os.Getenv("CI") == "true" {
			t.Fatal(message)
		}
		t.Skip(message)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }) // before the folder goes, after the processes
	h := open(t, one, settings{"SHOPBELL_LOG_STORE": "sqlite:" + filepath.Join(dir, "log.db")})
	f := h.newFlow(t)
	for full := false; !full; full = h.wrote(t, "ERROR", "the log's store takes nothing", "full") {
		f.run(t, "the disk fills up", 200, 2*time.Second)
	}
	h.saysTrouble(t, true)
	f.run(t, "the disk is full", 200, 2*time.Second)
	if err := mount(syscall.MS_REMOUNT, "64m"); err != nil {
		t.Fatal(err)
	}
	f.check(t)
	h.saysTrouble(t, false)
	t.Logf("\n%s", f.table())
}
