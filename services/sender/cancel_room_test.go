package sender

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// cancelHeld asks for a held delivery to be cancelled.
func (b *bundle) cancelHeld(t *testing.T, d *contract.Delivery) {
	t.Helper()
	asked := *d
	asked.Cancel = "cancelled by hand: not needed"
	b.publish(t, asked.CancelHeld())
}

// cancelled are the deliveries that were recorded as cancelled, with why.
func (b *bundle) cancelled(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range b.records(t, 0) {
		if c := r.GetChange(); c.GetStatus() == cancelled {
			out[c.GetDeliveryId()] = c.GetReason()
		}
	}
	return out
}

// only waits until these are recorded as cancelled, and no others.
func (b *bundle) onlyCancelled(t *testing.T, all ...*contract.Delivery) {
	t.Helper()
	testwait.Until(t, "what was to be cancelled is", func() bool { return len(b.cancelled(t)) >= len(all) })
	got := b.cancelled(t)
	for _, d := range all {
		if got[d.ID] != "cancelled by hand: not needed" {
			t.Errorf("%s is cancelled because %q", d.ID, got[d.ID])
		}
	}
	if len(got) != len(all) {
		t.Errorf("cancelled are %v, want %d", got, len(all))
	}
}

// heldAre waits until so many messages lie in HELD.
func (b *bundle) heldAre(t *testing.T, n int) {
	t.Helper()
	testwait.Until(t, "HELD holds what is left", func() bool { return len(b.stored(t, contract.Held)) == n })
}

func switchedOff(id, url string) *busv1.WebhookState {
	off, why := governed(id, url, nil), "gone"
	off.OffByReceiver, off.Webhook.Status, off.Webhook.DisabledReason = true, webhook.Disabled, &why
	return off
}

func TestSender_CancelsOneOfWhatIsHeldForAWebhookThatIsOff(t *testing.T) {
	t.Parallel()
	for name, wishesFirst := range map[string]bool{"asked of a sender at work": false, "asked while there is none": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := count(t, func(http.ResponseWriter, int, int) int { return 0 })
			all := numbered("wh_1", 5)
			for _, d := range all {
				b.publish(t, d.Hold(0))
			}
			b.put(t, switchedOff("wh_1", in.url))
			if wishesFirst {
				b.cancelHeld(t, all[2])
			}
			b.start(t, few())
			if !wishesFirst {
				b.cancelHeld(t, all[2])
			}
			b.onlyCancelled(t, all[2])
			b.heldAre(t, 4)
			testwait.Until(t, "its lane is let go", func() bool { return b.sender.register.count() == 0 && b.sender.backlogs.count() == 0 })
			if got := in.requests.Load(); got != 0 {
				t.Errorf("%d were sent to a webhook that is off", got)
			}
		})
	}
}

func TestSender_CancelsOneOfWhatIsHeldForAReceiverThatIsDown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	up := make(chan struct{})
	in := count(t, func(http.ResponseWriter, int, int) int {
		select {
		case <-up:
			return 0
		default:
			return 503
		}
	})
	b.start(t, few())
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
	all := numbered("wh_1", 60)
	b.send(t, all)
	testwait.Until(t, "all are held", func() bool { return b.sender.register.count() == 1 && len(b.onTheWay(t)) == 0 })
	gone := []*contract.Delivery{all[0], all[30], all[59]} // of what is read and of what is not
	for _, d := range gone {
		b.cancelHeld(t, d)
	}
	b.onlyCancelled(t, gone...)
	close(up)
	got := wantAll(t, in, 57)
	for _, n := range []int{0, 30, 59} {
		if slices.Contains(got, n) {
			t.Errorf("%d was sent, and had been cancelled", n)
		}
	}
	b.nothingHeld(t)
}

func TestSender_CancelledInOrderLetsTheNextGoOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(_ http.ResponseWriter, number, _ int) int {
		if number == 0 {
			return 500
		}
		return 0
	})
	b.start(t, few())
	ordered := profile.ByWebhook
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{Ordered: &ordered, RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
	b.matcher(t, "wh_1", func(int) string { return "" })
	b.accept(t, 4)
	testwait.Until(t, "the first has failed", func() bool { return len(b.stored(t, contract.Held)) == 5 }) // with its tries
	first := numbered("wh_1", 1)[0]
	first.ID = "dlv_evt_0"
	b.cancelHeld(t, first)
	b.onlyCancelled(t, first)
	if got := wantAll(t, in, 3); !slices.IsSorted(got) {
		t.Errorf("the others arrive in the order %v", got)
	}
	b.heldAre(t, 0)
}

func TestSender_CancelsWhatIsUnderWayUnlessItIsDelivered(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int{"it fails": 500, "it is delivered": 200} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			answer := make(chan struct{})
			in := count(t, func(http.ResponseWriter, int, int) int { <-answer; return code })
			free := sync.OnceFunc(func() { close(answer) })
			t.Cleanup(free) // before its server is closed, which waits for it
			b.start(t, few())
			b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
			all := numbered("wh_1", 1)
			b.publish(t, all[0].Hold(0), (&contract.Release{ShopID: "demo", WebhookID: "wh_1", Through: 1}).Message())
			testwait.Until(t, "it is under way", func() bool { return in.requests.Load() == 1 })
			backlog := b.sender.backlogs.get("wh_1")
			b.cancelHeld(t, all[0])
			testwait.Until(t, "its lane knows that it is cancelled", func() bool { return backlog.unwanted(waitingIn(backlog)) != "" })
			free()
			b.nothingHeld(t)
			want := 0
			if code == 500 {
				want = 1
			}
			if got := b.cancelled(t); len(got) != want {
				t.Errorf("cancelled are %v, want %d", got, want)
			}
			if got := in.requests.Load(); got != 1 || len(b.onTheWay(t)) != 0 {
				t.Errorf("%d attempts, and timers %v, want the one that was under way", got, b.onTheWay(t))
			}
		})
	}
}

// waitingIn is the one delivery of a backlog.
func waitingIn(b *backlog) *waiting {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lines {
		return l.list[0]
	}
	return &waiting{}
}

func TestSender_DiscardLeavesNoTries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(t, few())
	b.put(t, switchedOff("wh_1", "http://127.0.0.1:1"))
	all := numbered("wh_1", 3)
	for _, d := range all {
		b.publish(t, d.Hold(0))
	}
	b.publish(t, noteOf(t, "wh_1", all[1].ID))
	b.publish(t, (&contract.Release{ShopID: "demo", WebhookID: "wh_1", Discard: true, Through: 1 << 62}).Message())
	b.heldAre(t, 0)
}

// noteOf is what is noted of a held delivery's attempts.
func noteOf(t *testing.T, webhookID, deliveryID string) *nats.Msg {
	t.Helper()
	m, err := tries{2, 1, time.Now()}.message(webhookID, deliveryID)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Whoever is killed between taking a delivery out of HELD and taking away what is noted of it leaves that.
func TestSender_WhatIsNotedOfADeliveryThatIsGoneGoesWithTheLane(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	b.put(t, governed("wh_1", in.url, nil))
	b.publish(t, noteOf(t, "wh_1", "dlv_that_was_sent"), numbered("wh_1", 1)[0].Hold(0))
	b.start(t, few())
	b.publish(t, (&contract.Release{ShopID: "demo", WebhookID: "wh_1", Through: 2}).Message())
	wantAll(t, in, 1)
	b.nothingHeld(t)
}
