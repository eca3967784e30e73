package bus_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
)

// What an event costs that is published alone, as one of 32 at once, taken in a batch, and acked: CPU of server and client
// together, which other work on the machine changes less than the time.
func BenchmarkBus_PublishedTakenAndAcked(b *testing.B) {
	way := bustest.New(b)
	body := []byte(strings.Repeat(`{"total":549.50}`, 64))
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	var taken atomic.Int64
	all := make(chan struct{})
	var consuming sync.WaitGroup
	consuming.Go(func() {
		err := way.Batches(ctx, contract.Matcher, bus.Batching{Workers: 2, Size: 256, Linger: time.Millisecond}, func(_ context.Context, batch []bus.Message) error {
			if taken.Add(int64(len(batch))) == int64(b.N) {
				close(all)
			}
			return nil
		})
		if err != nil {
			b.Error(err)
		}
	})
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	var next atomic.Int64
	var publishing sync.WaitGroup
	for range 32 {
		publishing.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				e := contract.Event{ShopID: "demo", ID: fmt.Sprintf("evt_01ARZ3NDEKTSV4RRFF%09d", n), Type: "order.created", AcceptedAt: time.Now(), Data: body}
				if err := way.Publish(ctx, e.Message()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	publishing.Wait()
	<-all
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
	stop()
	consuming.Wait()
}

// cpu is what this process has taken of the processors so far.
func cpu() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
