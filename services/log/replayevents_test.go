package eventlog

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// putWebhook registers a webhook for all events.
func (r *room) putWebhook(t *testing.T, shop, webhookID string) {
	t.Helper()
	bucket, err := r.bus.Bucket(t.Context(), contract.Webhooks)
	if err != nil {
		t.Fatal(err)
	}
	value, err := proto.Marshal(&busv1.WebhookState{Webhook: &shopbellv1.Webhook{
		Id: webhookID, ShopId: shop, Url: "https://example.com/", Events: []string{"*"}, Status: webhook.Enabled, Profile: "standard",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), contract.WebhookKey(shop, webhookID), value); err != nil {
		t.Fatal(err)
	}
}

// letGo takes the first n messages of EVENTS away, as time does.
func (r *room) letGo(t *testing.T, n uint64) {
	t.Helper()
	stream, err := r.bus.Stream(t.Context(), contract.Events)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(n+1)); err != nil {
		t.Fatal(err)
	}
}

func TestReplay_TakesFromTheLogWhatTheBusNoLongerHas(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ gone, later uint64 }{
		"the bus has all":                        {0, 0},
		"the bus has some":                       {70, 0},
		"the bus has none":                       {120, 0},
		"it lets go of some while the job works": {0, 90},
		"it lets go of more while the job works": {20, 110},
		"it lets go of all while the job works":  {20, 120},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n, atOnce = 120, 7
			r := startRoom(t, "")
			r.putWebhook(t, "tulip", "wh_1")
			began := time.Now().Add(-10 * 24 * time.Hour)
			var want []string
			for i := range n {
				shop := "tulip"
				if i%10 == 9 {
					shop = "other"
				}
				e := contract.Event{
					ShopID: shop, ID: fmt.Sprintf("evt_%03d", i), Type: "paid", ContentType: "application/json",
					AcceptedAt: began.Add(time.Duration(i) * time.Hour), Data: []byte(`{"total":549.50}`),
				}
				if i >= n/2 { // the bus has stored these when they were accepted
					e.AcceptedAt = time.Now()
				}
				if shop == "tulip" {
					want = append(want, e.ID)
				}
				if err := r.bus.Publish(t.Context(), e.Message()); err != nil {
					t.Fatal(err)
				}
			}
			testwait.Until(t, "the log has followed", func() bool {
				past, err := r.bus.Past(t.Context(), contract.LogEvents, n)
				return err == nil && past
			})
			r.letGo(t, row.gone)
			asked := &logv1.CreateReplayRequest{
				ShopId: "tulip", ToWebhookId: "wh_1", From: timestamppb.New(began.Add(-time.Hour)), To: timestamppb.New(time.Now()), DryRun: true,
			}
			dry, err := r.replays.CreateReplay(t.Context(), asked)
			if err != nil || int(dry.GetTotal()) != len(want) || len(dry.GetSample()) != samples {
				t.Fatalf("dry run: got %v, %v, want %d", dry, err, len(want))
			}

			state := &logv1.ReplayState{Replay: &logv1.Replay{Id: "job_1", ShopId: "tulip", Asked: asked, CreatedAt: timestamppb.Now()}, LastEvent: n}
			var got []string
			for done := false; !done; {
				source := &eventSource{replays: r.replays, job: &job{ReplayState: state}} // each time anew: who worked on it was killed
				var parcels []parcel
				if parcels, done, err = source.next(t.Context(), atOnce); err != nil {
					t.Fatal(err)
				}
				for _, p := range parcels {
					d, err := contract.ParseDelivery(p.msgs[1].Header, p.msgs[1].Data)
					if err != nil || string(d.Data) != `{"total":549.50}` {
						t.Fatalf("got %v, %v, want the event with its data", d, err)
					}
					got = append(got, d.Event.ID)
					state.Cursor = p.cursor
				}
				if len(got) == 7*atOnce {
					r.letGo(t, max(row.gone, row.later))
				}
			}
			if !slices.IsSorted(got) || !slices.Equal(slices.Compact(got), want) {
				t.Errorf("got %v, want all %d in order", got, len(want))
			}
			if len(got) > len(want)+atOnce {
				t.Errorf("%d were sent for %d", len(got), len(want))
			}
		})
	}
}

func TestSpot_IsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, want := range []spot{{sequence: 7, accepted: 1000}, {sequence: 7}, {accepted: 1000, id: "order-1"}, {accepted: 1000}} {
		if got, err := parseSpot(want.String()); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", want, got, err, want)
		}
	}
	if got, err := parseSpot("17"); err != nil || got != (spot{sequence: 17}) {
		t.Errorf("a cursor of before: got %+v, %v, want sequence 17", got, err)
	}
	if _, err := parseSpot("dlv_1"); err == nil || !strings.Contains(err.Error(), "dlv_1") {
		t.Errorf("what is no cursor: got error %v, want one that names it", err)
	}
}
