package run

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

func TestCollector_KeepsWithinItsContainer(t *testing.T) { // not beside others: the bound is of the whole process
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	fails := func() (uint64, error) { return 0, errors.New("it cannot be read") }
	for _, row := range []struct {
		name    string
		of      memlimit.Provider
		own     string // GOMEMLIMIT
		want    int64
		says    string
		silence bool
	}{
		{name: "a small one", of: memlimit.Limit(384 << 20), want: 322122547, says: "memory is bounded"},
		{name: "one that is not bounded", of: memlimit.Limit(math.MaxInt64 * 2), want: math.MaxInt64, silence: true},
		{name: "none", of: func() (uint64, error) { return 0, memlimit.ErrNoCgroup }, want: math.MaxInt64, silence: true},
		{name: "one that cannot be read", of: fails, want: math.MaxInt64, says: "GOMEMLIMIT bounds what Go keeps"},
		{name: "somebody says otherwise", of: memlimit.Limit(384 << 20), own: "1GiB", want: math.MaxInt64, silence: true}, // Go has read that at its start
	} {
		debug.SetMemoryLimit(math.MaxInt64)
		if row.own != "" {
			t.Setenv("GOMEMLIMIT", row.own)
		} else if had, is := os.LookupEnv("GOMEMLIMIT"); is {
			t.Setenv("GOMEMLIMIT", had) // so that it is there again afterwards
			_ = os.Unsetenv("GOMEMLIMIT")
		}
		var lines bytes.Buffer
		boundMemory(row.of, slog.New(slog.NewTextHandler(&lines, nil)))
		if got := debug.SetMemoryLimit(-1); got != row.want {
			t.Errorf("%s: bounded to %d, want %d", row.name, got, row.want)
		}
		if said := lines.String(); row.silence && said != "" || !strings.Contains(said, row.says) {
			t.Errorf("%s: it wrote %q, want %q", row.name, said, row.says)
		}
	}
}

func TestCollector_LeavesLessUncollectedInALargeHeap(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		live     uint64
		want     int
		mostHeap uint64
	}{
		{"nothing is known yet", 0, 300, 0},
		{"a small heap grows to four times what lives", 20 << 20, 300, 80 << 20},
		{"a large one to twice what lives, as Go has it", 1 << 30, 100, 2 << 30},
		{"one between by half a gigabyte", 256 << 20, 200, 768 << 20},
		{"a very large one to twice what lives, too", 8 << 30, 100, 16 << 30},
	} {
		got := gcPercent(row.live)
		if got != row.want {
			t.Errorf("%s: %d %%, want %d", row.name, got, row.want)
		}
		if heap := row.live + row.live*uint64(got)/100; heap > row.mostHeap {
			t.Errorf("%s: the heap grows to %d, want %d at most", row.name, heap, row.mostHeap)
		}
	}
}
