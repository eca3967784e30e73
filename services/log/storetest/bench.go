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
// 1,000 deliveries. Events and records come in batches of their own, as the room pulls them; where it says apart, the
// attempts come in a batch after the decisions, as when receivers are slow.
func BenchmarkWrite(b *testing.B, open func(t testing.TB) store.Store) {
	for _, load := range []load{
		{batch: 500, shops: 20, webhooks: 100},
		{batch: 500, shops: 500, webhooks: 1000},
		{batch: 500, shops: 20, webhooks: 100, apart: true},
		{batch: 50, shops: 20, webhooks: 100},
	} {
		b.Run(load.String(), func(b *testing.B) {
			s := setup(b, open)
			var own, server time.Duration
			b.ReportAllocs()
			for i := range 1000 / load.batch * b.N {
				b.StopTimer()
				batches := load.batches(i)
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

// load is what deliveries come in.
type load struct {
	batch, shops, webhooks int
	apart                  bool
}

func (l load) String() string {
	name := fmt.Sprintf("batch=%d/shops=%d", l.batch, l.shops)
	if l.apart {
		name += "/apart"
	}
	return name
}

// batches are as many deliveries as make up a batch.
func (l load) batches(round int) []store.Batch {
	data := make([]byte, 1024)
	copy(data, `{"order_id": 56789, "order_no": 1042, "email": "kunde@example.com", "total": 549.50, "note": "`)
	var events, decisions, attempts store.Batch
	for i := range l.batch {
		at := time.Duration(round*l.batch+i) * time.Millisecond
		webhook := rand.IntN(l.webhooks)
		shopID, webhookID := fmt.Sprintf("shop-%d", webhook%l.shops), fmt.Sprintf("wh_01KQH4V5T2Z9QW3N8XJ6M7%04d", webhook)
		eventID, deliveryID := id.New(id.Event, noon.Add(at)), id.New(id.Delivery, noon.Add(at))
		attempt := made(shopID, eventID, webhookID, deliveryID, 1, at, "delivered", 200)
		a := attempt.GetAttempt().GetAttempt()
		a.RequestHeaders, a.ResponseHeaders = headers(8), headers(6)
		a.ResponseBody = []byte(`{"ok":true}`)
		events.Events = append(events.Events, newEvent(shopID, eventID, data))
		decisions.Records = append(decisions.Records, decision(shopID, eventID, at, matched(webhookID, deliveryID)))
		attempts.Records = append(attempts.Records, attempt)
	}
	if l.apart {
		return []store.Batch{events, decisions, attempts}
	}
	return []store.Batch{events, joined(decisions, attempts)}
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
	return cluster.CPU()
}
