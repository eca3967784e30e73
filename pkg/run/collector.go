package run

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// The collector lets a small heap grow to four times what lives: little lives here for long, and collecting it more often
// costs a tenth of all CPU. A large heap is mostly what the bus keeps of its files, and would take a machine's memory that
// way: of it no more than roomy is left uncollected, or as much as lives where that is more, which is Go's default. To collect a heap of a
// gigabyte takes half a second of CPU, so less room would cost those who deliver.
const (
	calmPercent = 300
	roomy       = 512 << 20
	leastRoom   = 100 // percent
)

// share is how much of a container's memory is for what Go keeps. The rest is for SQLite's pages, for the files that the kernel keeps of
// ours, and for what comes while the collector is at work.
const share = 0.8

// boundMemory has the collector work harder before the heap outgrows the container that the process is in, which would have it killed:
// of answers what the container may use. GOMEMLIMIT says otherwise. Without a container, or with one that is not bounded, nothing
// is done.
func boundMemory(of memlimit.Provider, log *slog.Logger) {
	limit, err := memlimit.Set(memlimit.WithProvider(of), memlimit.WithRatio(share))
	switch {
	case errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
	case err != nil:
		log.Warn("it is not known how much memory the container may use; GOMEMLIMIT bounds what Go keeps", slog.Any("error", err))
	case limit < math.MaxInt64:
		log.Info("memory is bounded", slog.Int64("bytes", limit))
	}
}

// gcPercent is the collector's setting for what lives, in bytes.
func gcPercent(live uint64) int {
	if live == 0 {
		return calmPercent
	}
	return int(max(leastRoom, min(calmPercent, roomy*100/live)))
}

// calmCollector has the collector heed gcPercent until ctx ends. GOGC says otherwise.
func calmCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	now := calmPercent
	debug.SetGCPercent(now)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		if live[0].Value.Kind() != metrics.KindUint64 {
			return // a later Go names it otherwise
		}
		if want := gcPercent(live[0].Value.Uint64()); want < now*9/10 || want > now*11/10 { // it stops the world for a moment
			now = want
			debug.SetGCPercent(now)
		}
	}
}
