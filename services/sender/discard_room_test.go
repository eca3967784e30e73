package sender

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// switchedOn is a webhook as its owner has switched it on who has had discarded what was held.
func switchedOn(id, url string, revision, sequence uint64) *busv1.WebhookState {
	on := governed(id, url, nil)
	on.Discarded = &busv1.Discarded{Revision: revision, Sequence: sequence}
	return on
}

// wantDiscarded waits until these are recorded as cancelled, and no others.
func (b *bundle) wantDiscarded(t *testing.T, reason string, all ...*contract.Delivery) {
	t.Helper()
	testwait.Until(t, "what was discarded is cancelled", func() bool { return len(b.cancelled(t)) >= len(all) })
	got := b.cancelled(t)
	var want []string
	for _, d := range all {
		want = append(want, d.ID)
		if !strings.Contains(got[d.ID], reason) {
			t.Errorf("%s is cancelled because %q, want because %q", d.ID, got[d.ID], reason)
		}
	}
	if ids := slices.Sorted(maps.Keys(got)); !slices.Equal(ids, slices.Sorted(slices.Values(want))) {
		t.Errorf("cancelled are %q, want %q", ids, want)
	}
}

// The sender has seen that the webhook is off, and the bus has not yet taken what it holds, when the owner looks for what is
// held and has it discarded.
func TestSender_WhatIsHeldWhileItIsDiscardedIsNotSent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	b.start(t, few())
	off := b.put(t, switchedOff("wh_1", in.url))
	giveBack := b.takeAway(t, contract.Held) // so that nothing can be held for a while
	all := numbered("wh_1", 2)
	b.send(t, all[:1])
	if got := b.records(t, 1)[0].GetChange(); got.GetStatus() != held {
		t.Fatalf("the sender says %v, want that it is held", got)
	}
	b.put(t, switchedOn("wh_1", in.url, off, 0))
	giveBack()
	b.wantDiscarded(t, "discarded when the webhook was switched on again", all[0])
	b.send(t, all[1:])
	if got := wantAll(t, in, 1); got[0] != 1 {
		t.Errorf("%v were sent, want what came after the webhook was switched on", got)
	}
	b.nothingHeld(t)
}

// Whoever switched the webhook on was killed before he told anybody, and whoever held the deliveries before he looked again:
// the sweeper finds them, and what is to become of each.
func TestSender_WhatWasDiscardedIsNotSentByWhoeverFindsIt(t *testing.T) {
	t.Parallel()
	for name, order := range map[string]string{"in no order": profile.Unordered, "in order": profile.ByWebhook} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := count(t, func(http.ResponseWriter, int, int) int { return 0 })
			b.matchedUpTo(t, 5)
			d := numbered("wh_1", 5)
			hold := func(n int, offRevision uint64) {
				d[n].OffRevision, d[n].Sequence = offRevision, uint64(n+1)
				b.publish(t, d[n].Hold(0))
			}
			on := func(discarded *busv1.Discarded) *busv1.WebhookState {
				s := governed("wh_1", in.url, &shopbellv1.Policy{Ordered: &order})
				s.Discarded = discarded
				return s
			}
			hold(0, 0) // for another reason
			first := b.put(t, switchedOff("wh_1", in.url))
			hold(1, first)
			discarded := &busv1.Discarded{Revision: first, Sequence: 2}
			b.put(t, on(discarded))
			hold(2, first) // he had seen that it was off
			hold(3, 0)
			again := switchedOff("wh_1", in.url)
			again.Discarded = discarded
			hold(4, b.put(t, again))
			b.put(t, on(discarded)) // and this time what is held is sent
			b.start(t, few())
			b.wantDiscarded(t, "discarded when the webhook was switched on again", d[:3]...)
			if got := wantAll(t, in, 2); !slices.Equal(slices.Sorted(slices.Values(got)), []int{3, 4}) {
				t.Errorf("%v were sent, want 3 and 4", got)
			}
			b.heldAre(t, 0)
		})
	}
}

// matchedUpTo has so many events accepted, and matched to nothing.
func (b *bundle) matchedUpTo(t *testing.T, n int) {
	t.Helper()
	b.accept(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.bus.Batches(ctx, contract.Matcher, bus.Batching{Workers: 1, Size: n}, func(context.Context, []bus.Message) error { return nil })
	}()
	testwait.Until(t, "all events are matched", func() bool {
		floor, err := b.bus.Matched(0).Of(t.Context(), "demo")
		return err == nil && floor == uint64(n)
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// The owner of the lane has read them already, and learns from nobody that they are gone.
func TestSender_WhatWasReadBeforeItIsDiscardedIsNotSent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var up atomic.Bool
	in := count(t, func(http.ResponseWriter, int, int) int {
		if up.Load() {
			return 0
		}
		return 503
	})
	b.start(t, few())
	policy := &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}
	on := governed("wh_1", in.url, policy)
	revision := b.put(t, on)
	all := numbered("wh_1", 31)
	b.send(t, all[:30])
	// In HELD itself: what is called back is in DELIVERIES until it is held, and is not among what is discarded.
	testwait.Until(t, "all are held", func() bool { return b.heldFor(t, "wh_1") == 30 && b.sender.register.count() == 1 })
	last, err := b.bus.Last(t.Context(), contract.Held, contract.HeldSubject("wh_1"))
	if err != nil {
		t.Fatal(err)
	}
	on.Discarded = &busv1.Discarded{Revision: revision, Sequence: last}
	b.put(t, on)
	b.publish(t, (&contract.Release{ShopID: "demo", WebhookID: "wh_1", Discard: true, Through: last}).Message())
	b.wantDiscarded(t, "discarded", all[:30]...)
	up.Store(true)
	b.send(t, all[30:])
	if got := wantAll(t, in, 1); got[0] != 30 {
		t.Errorf("%v were sent, want what came after the others were discarded", got)
	}
	b.nothingHeld(t)
}

// Its attempt is not cut off, but it is the last one.
func TestSender_WhatIsUnderWayWhenItIsDiscardedIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for name, order := range map[string]string{"in no order": profile.Unordered, "in order": profile.ByKey} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			answer := make(chan struct{})
			in := count(t, func(http.ResponseWriter, int, int) int { <-answer; return 500 })
			free := sync.OnceFunc(func() { close(answer) })
			t.Cleanup(free) // before its server is closed, which waits for it
			b.matchedUpTo(t, 1)
			b.start(t, few())
			on := governed("wh_1", in.url, &shopbellv1.Policy{Ordered: &order, RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}})
			revision := b.put(t, on)
			d := numbered("wh_1", 1)[0]
			d.Sequence = 1
			b.publish(t, d.Hold(0), (&contract.Release{ShopID: "demo", WebhookID: "wh_1", Through: 1}).Message())
			testwait.Until(t, "it is under way", func() bool { return in.requests.Load() == 1 })
			on.Discarded = &busv1.Discarded{Revision: revision, Sequence: 1}
			b.put(t, on)
			free()
			b.wantDiscarded(t, "discarded when the webhook was switched on again", d)
			b.heldAre(t, 0)
			b.empty(t)
			if got := in.requests.Load(); got != 1 {
				t.Errorf("%d attempts, want the one that was under way", got)
			}
		})
	}
}

// A sender that has not heard yet that the webhook is on again does not know what was discarded, and asks.
func TestSender_AsksForTheWebhookOfWhatWasHeldByALaterRevision(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(t, few())
	d := numbered("wh_1", 1)[0]
	d.OffRevision = b.put(t, governed("wh_1", "http://127.0.0.1:1", nil))
	if b.sender.known(d) != nil {
		t.Error("it is sure of a webhook of which it knows no later revision")
	}
	b.put(t, governed("wh_1", "http://127.0.0.1:1", nil))
	if b.sender.known(d) == nil {
		t.Error("it is not sure of a webhook that is on by a later revision")
	}
}

// A delivery that was sent on is held no longer: while it waits for its next attempt it is not what the owner discards.
func TestSender_WhatWaitsForItsTimeIsNotDiscarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(http.ResponseWriter, int, int) int { return 500 })
	first := b.put(t, switchedOff("wh_1", in.url))
	d := numbered("wh_1", 1)[0]
	d.OffRevision = first
	b.publish(t, d.Hold(0))
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
	b.start(t, few())
	b.publish(t, (&contract.Release{ShopID: "demo", WebhookID: "wh_1", Through: 1}).Message())
	b.heldAre(t, 0)
	testwait.Until(t, "its timer is left", func() bool { return len(b.onTheWay(t)) == 1 })
	timer := b.onTheWay(t)[0]
	if got, _, err := contract.ParseLater(timer.Header, timer.Data); err != nil || got.Attempt != 2 || got.OffRevision != 0 {
		t.Errorf("what waits is attempt %d, held by revision %d (%v), want 2 and by none", got.Attempt, got.OffRevision, err)
	}
}

// Of a webhook that is gone whatever is held is cancelled, also what comes after it was deleted.
func TestSender_WhatIsHeldForADeletedWebhookIsCancelledTogether(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := numbered("wh_1", 3)
	for _, d := range all {
		d.OffRevision = 7
		b.publish(t, d.Hold(0))
	}
	b.publish(t, noteOf(t, "wh_1", "dlv_that_was_sent"))
	b.start(t, few())
	b.wantDiscarded(t, wasDeleted, all...)
	b.heldAre(t, 0)
}
