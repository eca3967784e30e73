package subscription

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// BenchmarkMatch decides about one event of a shop with 100,000 webhooks, of which 1,000 want it: because they name its type,
// or because of all, which name it, their filters say yes.
func BenchmarkMatch(b *testing.B) {
	const all, wanting = 100_000, 1000
	room, set := setup(b).Subscription, profiles(b)
	e := happened("evt_1", "paid")
	for _, way := range []string{"type", "filter"} {
		b.Run("by="+way, func(b *testing.B) {
			var subscribed []*webhook.Webhook
			for i := range all {
				s := &busv1.WebhookState{
					Webhook: &shopbellv1.Webhook{
						Id: fmt.Sprintf("wh_01KQH4V5T2Z9QW3N8X%08d", i), ShopId: "demo", Label: proto.String("Warehouse"),
						Events: []string{"paid"}, Profile: "standard", Status: webhook.Enabled,
					},
					Secrets: []*busv1.Secret{{Value: "a-secret-of-my-own"}},
				}
				if way == "type" && i%(all/wanting) != 0 {
					continue // the directory does not give it: it names another type
				}
				if way == "filter" {
					s.Webhook.Filter = proto.String(fmt.Sprintf("data.total > 100.0 && %d == 0", i%(all/wanting)))
				}
				subscribed = append(subscribed, webhook.New(s, 1, set))
			}
			b.ReportAllocs()
			bytes, messages := 0, 0
			for b.Loop() {
				var all decided
				if err := room.decideOne(context.Background(), &jetstream.MsgMetadata{}, e, subscribed, &all); err != nil {
					b.Fatal(err)
				}
				told, err := record.Messages(all.records...)
				if err != nil {
					b.Fatal(err)
				}
				msgs := slices.Concat(all.deliveries, told)
				if messages = len(msgs); messages < wanting {
					b.Fatalf("got %d messages, want one for each of %d deliveries and what was decided", messages, wanting)
				}
				bytes = 0
				for _, m := range msgs {
					bytes = max(bytes, len(m.Data))
				}
			}
			b.ReportMetric(float64(messages), "messages")
			b.ReportMetric(float64(bytes), "largest-bytes")
		})
	}
}

func TestDecision_OfManyWebhooksComesInPartsThatTheBusTakes(t *testing.T) {
	t.Parallel()
	due := timestamppb.Now()
	whole := &busv1.Decision{Due: map[string]*timestamppb.Timestamp{"wh_0": due, "wh_29999": due}}
	for i := range 30_000 {
		whole.Considered = append(whole.Considered, &shopbellv1.Considered{WebhookId: fmt.Sprintf("wh_%d", i), Reason: "its filter says no: data.total > 1000.0 && data.status == 'paid'"})
	}
	want := proto.CloneOf(whole)
	list, got := parts(whole), &busv1.Decision{}
	for _, part := range list {
		if size := proto.Size(part); size > bus.MaxPayload/2 {
			t.Errorf("a part has %d bytes, which the bus does not take with its headers", size)
		}
		proto.Merge(got, part)
	}
	if len(list) < 2 || !proto.Equal(got, want) {
		t.Errorf("got %d parts that are not the whole together, want some that are", len(list))
	}
	if none := parts(&busv1.Decision{}); len(none) != 1 {
		t.Errorf("a decision for no webhook: got %d parts, want one", len(none))
	}
}
