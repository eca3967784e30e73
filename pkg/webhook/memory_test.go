package webhook_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// BenchmarkDirectory_Keeps is what a directory keeps in memory of each webhook once it is filled and its shops' events have
// been asked for: bytes, and objects, each of which the collector marks.
func BenchmarkDirectory_Keeps(b *testing.B) {
	const webhooks = 20_000
	for _, row := range []struct {
		name   string
		shops  int
		policy func(i int) *shopbellv1.Policy // of every third webhook
	}{
		{"of one shop", 1, usual},
		{"of shops with five each", webhooks / 5, usual},
		{"with policies that are all different", 1, func(i int) *shopbellv1.Policy {
			return &shopbellv1.Policy{RatePerSecond: proto.Float64(float64(1 + i))}
		}},
	} {
		b.Run(row.name, func(b *testing.B) {
			on := bustest.New(b)
			bucket, err := on.Bucket(b.Context(), contract.Webhooks)
			if err != nil {
				b.Fatal(err)
			}
			for i := range webhooks {
				s := typical(i, fmt.Sprintf("shop-%d", i%row.shops))
				if i%3 == 0 {
					s.Webhook.Policy = row.policy(i)
				}
				value, err := proto.Marshal(s)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := bucket.Put(b.Context(), contract.WebhookKey(s.Webhook.ShopId, s.Webhook.Id), value); err != nil {
					b.Fatal(err)
				}
			}
			fill := func() *webhook.Directory {
				d, stop := filled(b, on)
				b.Cleanup(stop)
				for i := range row.shops {
					d.Subscribed(fmt.Sprintf("shop-%d", i), "order.type_0")
				}
				return d
			}
			all := []*webhook.Directory{fill()} // what the bus itself keeps for whoever follows is there from now on
			before := living()
			for b.Loop() {
				all = append(all, fill())
			}
			after, n := living(), float64((len(all)-1)*webhooks)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/webhook")
			b.ReportMetric(float64(after.HeapObjects-before.HeapObjects)/n, "objects/webhook")
			runtime.KeepAlive(all)
		})
	}
}

// usual is one of some twenty policies.
func usual(i int) *shopbellv1.Policy {
	return &shopbellv1.Policy{
		Timeout: durationpb.New(time.Duration(5+5*(i%5)) * time.Second), MaxInFlight: proto.Int32(int32(4 + i%4)),
		SuccessCodes: []string{"200", "202"}, RetrySchedule: []*durationpb.Duration{durationpb.New(time.Minute), durationpb.New(time.Hour)},
	}
}

// typical is a webhook as CreateWebhook makes it; every tenth has one of twenty filters.
func typical(i int, shop string) *busv1.WebhookState {
	now := timestamppb.Now()
	s := &busv1.WebhookState{
		Webhook: &shopbellv1.Webhook{
			Id: fmt.Sprintf("wh_01KQH4V5T2Z9QW3N8X%08d", i), ShopId: shop, Label: proto.String(fmt.Sprintf("Orders to warehouse %d", i)),
			Url: fmt.Sprintf("https://hooks.shop-%d.example.com/incoming/orders", i), Events: []string{fmt.Sprintf("order.type_%d", i)},
			Profile: "standard", Status: webhook.Enabled, CreatedAt: now, UpdatedAt: now,
		},
		Secrets: []*busv1.Secret{{Value: signature.NewSecret(), PrivateKey: signature.NewPrivateKey()}},
	}
	if i%10 == 0 {
		s.Webhook.Filter = proto.String(fmt.Sprintf("data.total > %d.0", i/10%20))
	}
	return s
}

// filled gives a directory that follows the bucket and knows all that is in it, until it is stopped.
func filled(b *testing.B, on *bus.Bus) (d *webhook.Directory, stop func()) {
	b.Helper()
	d, err := webhook.Open(b.Context(), on, profiles(b), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	full, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- d.Follow(on)(ctx, func() { close(full) }) }()
	select {
	case <-full:
	case err := <-done:
		cancel()
		b.Fatalf("follow ended: %v", err)
	}
	return d, func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("follow ended: %v", err)
		}
	}
}

// living is the heap without what nobody holds any more.
func living() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC() // what the first one gave to finalizers and cleanups
	runtime.ReadMemStats(&m)
	return m
}
