package sender

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestSender_TakesOverTheLanesOfADeadSender(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	b.put(t, governed("wh_1", in.url, nil))
	bucket, err := b.bus.Bucket(t.Context(), contract.Lanes)
	if err != nil {
		t.Fatal(err)
	}
	dead := newRegister("snd_dead", bucket, b.env.Log)
	if ours, err := dead.claim(t.Context(), hold{shop: "demo", webhookID: "wh_1", why: "its receiver was not well", broken: true}); err != nil || !ours {
		t.Fatal(ours, err)
	}
	for _, d := range numbered("wh_1", 50) {
		b.publish(t, d.Hold(0))
	}
	// Of a second webhook deliveries are held, and nobody has entered its lane.
	lost := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	b.put(t, governed("wh_2", lost.url, nil))
	for _, d := range numbered("wh_2", 50) {
		b.publish(t, d.Hold(0))
	}
	b.start(t, few())
	wantAll(t, in, 50)
	wantAll(t, lost, 50)
	b.nothingHeld(t)
}

func TestSender_OwningALaneLosesNothingThatWaitsInIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in, free := countOnceFree(t)
	b.start(t, few())
	one := int32(1)
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{MaxInFlight: &one}))
	b.send(t, numbered("wh_1", 5))
	testwait.Until(t, "the first is under way", func() bool { return in.requests.Load() == 1 })
	what := hold{shop: "demo", webhookID: "wh_1", why: "a test"}
	if ours, err := b.sender.register.claim(t.Context(), what); err != nil || !ours {
		t.Fatal(ours, err)
	}
	b.sender.own(what)
	free()
	wantAll(t, in, 5)
	b.nothingHeld(t)
}

func TestRegister_LaneHasOneOwner(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bucket, err := b.bus.Bucket(t.Context(), contract.Lanes)
	if err != nil {
		t.Fatal(err)
	}
	for lane := range 50 {
		var owners atomic.Int64
		var racers sync.WaitGroup
		for racer := range 4 {
			racers.Go(func() {
				r := newRegister(strconv.Itoa(racer), bucket, b.env.Log)
				ours, err := r.claim(t.Context(), hold{shop: "demo", webhookID: fmt.Sprintf("wh_%d", lane), why: "why"})
				if err != nil {
					t.Error(err)
				}
				if ours {
					owners.Add(1)
				}
			})
		}
		racers.Wait()
		if got := owners.Load(); got != 1 {
			t.Fatalf("lane %d has %d owners", lane, got)
		}
	}
}

func TestSender_ReplicasShareALane(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in, down := countOnceUp(t)
	b.start(t, few())
	first := b.sender
	b.start(t, few())
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
	first.webhooks.Await(t.Context(), "demo", "wh_1", 1)
	b.send(t, numbered("wh_1", 200))
	testwait.Until(t, "all are held", func() bool { return len(b.onTheWay(t)) == 0 })
	if n := first.backlogs.count() + b.sender.backlogs.count(); n != 1 {
		t.Errorf("%d senders own the lane", n)
	}
	down.Store(false)
	wantAll(t, in, 200)
	b.nothingHeld(t)
}

func TestSender_LaneThatIsEnteredHoldsOnWhenTheBusDoesNotTakeWhatIsHeld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(t, few())
	bucket, err := b.bus.Bucket(t.Context(), contract.Lanes)
	if err != nil {
		t.Fatal(err)
	}
	other := newRegister("snd_other", bucket, b.env.Log)
	alive, ends := context.WithCancel(t.Context())
	var beats sync.WaitGroup
	t.Cleanup(func() { ends(); beats.Wait() })
	beats.Go(func() { other.beat(alive) })
	holds := func(webhookID string) bool {
		b.sender.lanes.mu.Lock()
		defer b.sender.lanes.mu.Unlock()
		return b.sender.lanes.of(webhookID).held
	}
	testwait.Until(t, "the other sender is heard of", func() bool {
		b.sender.register.mu.Lock()
		defer b.sender.register.mu.Unlock()
		return !b.sender.register.members["snd_other"].IsZero()
	})
	if ours, err := other.claim(t.Context(), hold{shop: "demo", webhookID: "wh_entered", why: "its receiver is not well", broken: true}); err != nil || !ours {
		t.Fatal(ours, err)
	}
	testwait.Until(t, "the lane holds", func() bool { return holds("wh_entered") })
	b.sender.lanes.hold(hold{webhookID: "wh_alone", why: tooSlow}, false)
	broken, cancel := context.WithCancel(t.Context())
	cancel() // so that no ack comes
	for _, webhookID := range []string{"wh_entered", "wh_alone"} {
		d := numbered(webhookID, 1)[0]
		b.publish(t, d.Event.Message()) // stands for the message of DELIVERIES, which the sender would take
		var m bus.Message
		if err := b.bus.Read(t.Context(), contract.Events, "events.>", bus.From{Sequence: 1}, func(read bus.Message) bool { m = read; return false }); err != nil {
			t.Fatal(err)
		}
		b.sender.holder.move(broken, []hold{{jobs: []*job{{d: *d, m: m, header: d.Message().Header}}, why: tooSlow, shop: "demo", webhookID: webhookID}})
	}
	if !holds("wh_entered") || holds("wh_alone") {
		t.Errorf("the lane that is entered holds: %v, want true; the one that is not: %v, want false", holds("wh_entered"), holds("wh_alone"))
	}
}
