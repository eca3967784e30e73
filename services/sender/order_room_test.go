package sender

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// matcher stands for subscription, with several replicas that overtake each other: it puts what is published to EVENTS
// into HELD, out of order, and answers for it later. Now and then what is held tells how far events were matched before.
func (b *bundle) matcher(t *testing.T, webhookID string, key func(number int) string) {
	t.Helper()
	matched := b.bus.Matched(time.Millisecond)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		how := bus.Batching{Workers: 4, Size: 16, Linger: time.Millisecond}
		err := b.bus.Batches(ctx, contract.Matcher, how, func(ctx context.Context, batch []bus.Message) error {
			through, err := matched.Of(ctx, "demo")
			if err != nil || rand.IntN(2) == 0 {
				through = 0
			}
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // so that the replicas overtake each other
			for _, i := range rand.Perm(len(batch)) {
				e, err := contract.ParseEvent(batch[i].Headers(), batch[i].Data())
				if err != nil {
					return err
				}
				meta, err := batch[i].Metadata()
				if err != nil {
					return err
				}
				number, _ := strconv.Atoi(string(e.Data))
				e.Key = key(number)
				d := contract.Delivery{Event: e, ID: "dlv_" + e.ID, WebhookID: webhookID, MatchedAt: time.Now(), Attempt: 1, Sequence: meta.Sequence.Stream, MatchedThrough: through}
				if err := b.bus.Publish(ctx, d.Hold(0)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func (b *bundle) accept(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		e := delivery(strconv.Itoa(i), "text/plain").Event
		e.ID = fmt.Sprintf("evt_%d", i)
		b.publish(t, e.Message())
	}
}

func TestSender_KeepsTheOrderOfEachKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const events, keys = 400, 20
	var fails sync.Map
	in := count(t, func(_ http.ResponseWriter, number, _ int) int {
		time.Sleep(2 * time.Millisecond)                                          // so that keys are under way together
		if _, again := fails.LoadOrStore(number, true); !again && number%5 == 0 { // a fifth fails at first
			return 500
		}
		return 0
	})
	b.start(t, Defaults())
	ordered := profile.ByKey
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{Ordered: &ordered, RetrySchedule: []*durationpb.Duration{durationpb.New(100 * time.Millisecond)}}))
	b.matcher(t, "wh_1", func(number int) string { return strconv.Itoa(number % keys) })
	b.accept(t, events)
	last := map[int]int{}
	for _, number := range wantAll(t, in, events) {
		if before, ok := last[number%keys]; ok && before > number {
			t.Errorf("key %d: %d arrived before %d", number%keys, before, number)
		}
		last[number%keys] = number
	}
	if in.most.Load() < 2 {
		t.Error("different keys never went side by side")
	}
	b.nothingHeldInOrder(t)
}

// nothingHeldInOrder is nothingHeld for a lane in order, which stays with its owner for a while.
func (b *bundle) nothingHeldInOrder(t *testing.T) {
	t.Helper()
	testwait.Until(t, "nothing is held", func() bool { return len(b.stored(t, contract.Held)) == 0 })
}

func TestSender_StuckDeliveryHoldsBackItsKeyAlone(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		whenStuck string
		want      int // of the key's three
	}{{profile.GiveUp, 2}, {profile.Block, 0}} {
		t.Run(row.whenStuck, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := count(t, func(_ http.ResponseWriter, number, _ int) int {
				if number == 0 {
					return 422
				}
				return 0
			})
			b.start(t, few())
			ordered := profile.ByKey
			b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{
				Ordered: &ordered, WhenStuck: &row.whenStuck, RetrySchedule: []*durationpb.Duration{durationpb.New(200 * time.Millisecond)},
			}))
			b.matcher(t, "wh_1", func(number int) string {
				return map[bool]string{true: "stuck", false: strconv.Itoa(number)}[number%10 == 0]
			})
			b.accept(t, 30) // 0, 10 and 20 have one key
			testwait.Until(t, "others go on", func() bool { return len(in.delivered()) >= 27 })
			stuckAfter := func() (n int) {
				for _, number := range in.delivered() {
					if number%10 == 0 {
						n++
					}
				}
				return n
			}
			if row.want == 0 {
				testwait.Until(t, "it is tried again and again", func() bool { return in.requests.Load() >= 27+4 })
				if got := stuckAfter(); got != 0 {
					t.Errorf("%d behind the one that blocks were delivered", got)
				}
				return
			}
			testwait.Until(t, "the next go on when it is given up", func() bool { return stuckAfter() == row.want })
		})
	}
}

func TestSender_InOrderByWebhookIsOneAfterTheOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var down atomic.Bool
	in := count(t, func(_ http.ResponseWriter, number, _ int) int {
		if number == 50 && !down.Swap(true) {
			return 500
		}
		return 0
	})
	b.start(t, few())
	ordered := profile.ByWebhook
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{Ordered: &ordered, RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
	b.matcher(t, "wh_1", func(int) string { return "" })
	b.accept(t, 100)
	if got := wantAll(t, in, 100); !slices.IsSorted(got) {
		t.Errorf("they arrive in the order %v", got)
	}
	if got := in.most.Load(); got != 1 {
		t.Errorf("%d at once", got)
	}
}
