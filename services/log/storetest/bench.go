package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"shopbell.dev/pkg/id"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// BenchmarkWrite measures what writing costs: processor seconds of this process, and of the database server where
// there is one, for 1,000 deliveries. A delivery is an event of 1 KB, its decision and one attempt. An operation is
// 1,000 deliveries in batches of 500: all three records in one batch, as when deliveries are quick, or each in a batch
// of its own, as when the receiver is slow.
func BenchmarkWrite(b *testing.B, open func(t testing.TB) store.Store) {
	for _, load := range []load{
		{"together", 1, 20, 100}, {"apart", 3, 20, 100}, {"together", 1, 500, 1000}, {"apart", 3, 500, 1000},
	} {
		b.Run(fmt.Sprintf("%s/%d-shops", load.name, load.shops), func(b *testing.B) {
			s := setup(b, open)
			var own, server time.Duration
			b.ReportAllocs()
			for i := range 2 * b.N {
				b.StopTimer()
				batches := load.batches(i, 500)
				b.StartTimer()
				serverBefore, ownBefore := serverUsed(), used()
				for _, batch := range batches {
					if err := s.Write(context.Background(), batch); err != nil {
						b.Fatal(err)
					}
				}
				own += used() - ownBefore
				server += serverUsed() - serverBefore
				b.StopTimer()
			}
			b.ReportMetric(own.Seconds()/float64(b.N), "cpu-s/1000")
			if server > 0 {
				b.ReportMetric(server.Seconds()/float64(b.N), "server-cpu-s/1000")
			}
		})
	}
}

// load is where deliveries come from, and in how many batches the records of each are.
type load struct {
	name                   string
	parts, shops, webhooks int
}

// batches are n deliveries.
func (l load) batches(round, n int) []store.Batch {
	data := make([]byte, 1024)
	copy(data, `{"order_id": 56789, "order_no": 1042, "email": "kunde@example.com", "total": 549.50, "note": "`)
	batches := make([]store.Batch, l.parts)
	part := func(i int) *store.Batch { return &batches[i%l.parts] }
	for i := range n {
		at := time.Duration(round*n+i) * time.Millisecond
		webhook := rand.IntN(l.webhooks)
		shopID, webhookID := fmt.Sprintf("shop-%d", webhook%l.shops), fmt.Sprintf("wh_01KQH4V5T2Z9QW3N8XJ6M7%04d", webhook)
		eventID, deliveryID := id.New(id.Event, noon.Add(at)), id.New(id.Delivery, noon.Add(at))
		attempt := made(shopID, eventID, webhookID, deliveryID, 1, at, "delivered", 200)
		a := attempt.GetAttempt().GetAttempt()
		a.RequestHeaders, a.ResponseHeaders = headers(8), headers(6)
		a.ResponseBody = []byte(`{"ok":true}`)
		part(0).Events = append(part(0).Events, newEvent(shopID, eventID, data))
		part(1).Records = append(part(1).Records, decision(shopID, eventID, at, matched(webhookID, deliveryID)))
		part(2).Records = append(part(2).Records, attempt)
	}
	return batches
}

func headers(n int) []*shopbellv1.Header {
	var list []*shopbellv1.Header
	for i := range n {
		list = append(list, &shopbellv1.Header{Name: fmt.Sprintf("X-Some-Header-%d", i), Value: "some value of usual length"})
	}
	return list
}

// used is the processor time of this process so far.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func serverUsed() time.Duration {
	if cluster == nil {
		return 0
	}
	return cluster.cpu()
}
