package sender

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// numbered makes n deliveries to a webhook, whose bodies are their numbers.
func numbered(webhookID string, n int) (out []*contract.Delivery) {
	for i := range n {
		d := delivery(strconv.Itoa(i), "text/plain")
		d.WebhookID, d.Event.ID, d.ID = webhookID, fmt.Sprintf("evt_%s_%d", webhookID, i), fmt.Sprintf("dlv_%s_%d", webhookID, i)
		d.AcceptedAt = d.AcceptedAt.Add(time.Duration(i) * time.Microsecond)
		out = append(out, d)
	}
	return out
}

func (b *bundle) send(t *testing.T, deliveries []*contract.Delivery) {
	t.Helper()
	for _, d := range deliveries {
		b.publish(t, d.Message())
	}
}

// numbers is a receiver that notes the numbers in the bodies that it has answered 200.
type numbers struct {
	url      string
	requests atomic.Int64
	most     atomic.Int64 // at once

	mu  sync.Mutex // guards got
	got []int
}

// count begins such a receiver. What answer returns is the code; 0 is 200.
func count(t *testing.T, answer func(w http.ResponseWriter, number, request int) int) *numbers {
	t.Helper()
	n := &numbers{}
	var now atomic.Int64
	n.url = handler(t, false, func(w http.ResponseWriter, r *http.Request) {
		defer now.Add(-1)
		for at := now.Add(1); ; {
			if most := n.most.Load(); at <= most || n.most.CompareAndSwap(most, at) {
				break
			}
		}
		body, err := io.ReadAll(r.Body)
		number, _ := strconv.Atoi(string(body))
		if err != nil {
			return
		}
		if code := answer(w, number, int(n.requests.Add(1))); code != 0 && code != 200 {
			w.WriteHeader(code)
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.got = append(n.got, number)
	}).URL
	return n
}

// countOnceFree begins one that answers nobody before it is free, which it is at the latest when the test ends. Free may be called again.
func countOnceFree(t *testing.T) (n *numbers, free func()) {
	t.Helper()
	release := make(chan struct{})
	free = sync.OnceFunc(func() { close(release) })
	n = count(t, func(http.ResponseWriter, int, int) int { <-release; return 0 })
	t.Cleanup(free) // before its server is closed, which waits for it
	return n, free
}

// countOnceUp begins one that answers 500 while it is down, as it is at first.
func countOnceUp(t *testing.T) (n *numbers, down *atomic.Bool) {
	t.Helper()
	down = &atomic.Bool{}
	down.Store(true)
	return count(t, func(http.ResponseWriter, int, int) int {
		if down.Load() {
			return 500
		}
		return 0
	}), down
}

func (n *numbers) delivered() []int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.got)
}

// governed is a webhook with some of its policy set.
func governed(id, url string, policy *shopbellv1.Policy) *busv1.WebhookState {
	s := state(url, "broken")
	s.Webhook.Id, s.Webhook.Policy = id, policy
	return s
}

// nothingHeld waits until no delivery is held, nothing is noted of any, and every lane is open.
func (b *bundle) nothingHeld(t *testing.T) {
	t.Helper()
	b.empty(t)
	testwait.Until(t, "nothing is held", func() bool { return len(b.stored(t, contract.Held)) == 0 && b.sender.register.count() == 0 })
}

// heldFor is how many deliveries are held for a webhook: what is noted of them lies there too.
func (b *bundle) heldFor(t *testing.T, webhookID string) (n int) {
	t.Helper()
	for _, m := range b.stored(t, contract.Held) {
		if m.Subject == contract.HeldSubject(webhookID) {
			n++
		}
	}
	return n
}

func wantAll(t *testing.T, n *numbers, want int) []int {
	t.Helper()
	testwait.Until(t, fmt.Sprintf("%d are delivered", want), func() bool { return len(n.delivered()) >= want })
	got := n.delivered()
	sorted := slices.Compact(slices.Sorted(slices.Values(got)))
	if len(sorted) != want || len(got) != want {
		t.Errorf("%d deliveries arrived, %d different ones, want %d", len(got), len(sorted), want)
	}
	return got
}

func TestSender_HangingReceiverDelaysNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hanging, free := countOnceFree(t)
	healthy := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	const each = 400
	cfg := few()
	cfg.MaxInFlight = 10
	b.start(t, cfg)
	four := int32(4)
	b.put(t, governed("wh_hangs", hanging.url, &shopbellv1.Policy{MaxInFlight: &four, Timeout: durationpb.New(time.Minute)}))
	b.put(t, governed("wh_well", healthy.url, nil))
	bad, good := numbered("wh_hangs", each), numbered("wh_well", each)
	for i := range each {
		b.publish(t, bad[i].Message(), good[i].Message())
	}
	wantAll(t, healthy, each) // while the other still hangs
	if got := hanging.requests.Load(); got != 4 {
		t.Errorf("%d requests hang, want the lane's 4", got)
	}
	testwait.Until(t, "what does not fit into the lane is held", func() bool { return len(b.stored(t, contract.Held)) == each-4 })
	free()
	wantAll(t, hanging, each)
	b.nothingHeld(t)
}

func TestSender_HoldsWhileAReceiverIsDownAndSendsInOrderWhenItIsBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in, down := countOnceUp(t)
	b.start(t, few())
	one := int32(1)
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{MaxInFlight: &one, RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
	all := numbered("wh_1", 100)
	b.send(t, all[:10])
	testwait.Until(t, "those that tell are held", func() bool { return b.heldFor(t, "wh_1") == 10 }) // called back, in front of the others
	b.send(t, all[10:])
	testwait.Until(t, "all are held", func() bool { return len(b.onTheWay(t)) == 0 && b.sender.register.count() == 1 })
	if got := in.requests.Load(); got < 10 || got > 20 {
		t.Errorf("%d attempts were made at a receiver that is down, want the ten that tell, and a few probes", got)
	}
	e, _ := b.sender.register.lane("wh_1")
	if !strings.Contains(e.Reason, "latest 10 attempts failed") || e.Owner != b.sender.register.me {
		t.Errorf("the lane is held by %s because %q", e.Owner, e.Reason)
	}
	reasons := map[string]int{}
	for _, r := range b.records(t, 100) {
		if c := r.GetChange(); c.GetStatus() == held {
			reasons[c.GetReason()]++
		}
	}
	if reasons[e.Reason] < 90 {
		t.Errorf("reasons %v, want 90 and more that are held because %q", reasons, e.Reason)
	}
	down.Store(false)
	// The first to come is whichever was sent as a probe; the rest keep their order, but for those that are under way together.
	got := wantAll(t, in, 100)
	rest := slices.Delete(slices.Clone(got), 0, 1)
	for i, number := range rest {
		for _, later := range rest[i:] {
			if later < number-few().MaxInFlight {
				t.Fatalf("they arrive in the order %v", got)
			}
		}
	}
	b.nothingHeld(t)
}

func TestSender_ProbesAreNotCountedAsTheSchedulesAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(_ http.ResponseWriter, _, request int) int {
		if request <= 13 { // ten that tell, and three probes
			return 503
		}
		return 0
	})
	b.start(t, few())
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
	b.send(t, numbered("wh_1", 10)) // each fails once, and has one attempt left, in an hour
	wantAll(t, in, 10)
	b.nothingHeld(t)
	for _, r := range b.records(t, 24) {
		if r.GetAttempt().GetStatus() == failed {
			t.Errorf("%s was given up after attempt %d: a probe was counted", r.GetAttempt().GetDeliveryId(), r.GetAttempt().GetAttempt().GetNumber())
		}
	}
}

func TestSender_RestsAsLongAsTheReceiverAsks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var asked atomic.Int64 // when
	in := count(t, func(w http.ResponseWriter, _, request int) int {
		if request == 1 {
			asked.Store(time.Now().UnixNano())
			w.Header().Set("Retry-After", "2")
			return 429
		}
		return 0
	})
	b.start(t, few())
	one := int32(1)
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{MaxInFlight: &one}))
	b.send(t, numbered("wh_1", 20))
	wantAll(t, in, 20)
	if rested := time.Since(time.Unix(0, asked.Load())); rested < 2*time.Second {
		t.Errorf("the receiver had a rest of %s, and had asked for 2s", rested)
	}
	b.nothingHeld(t)
}

func TestSender_KeepsToTheRateAndTheLimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// They take a while, so that requests are under way together: what is too many at once is seen.
	in := count(t, func(http.ResponseWriter, int, int) int { time.Sleep(5 * time.Millisecond); return 0 })
	limited := count(t, func(http.ResponseWriter, int, int) int { time.Sleep(5 * time.Millisecond); return 0 })
	b.start(t, Defaults())
	perSecond, three := 20.0, int32(3)
	b.put(t, governed("wh_rate", in.url, &shopbellv1.Policy{RatePerSecond: &perSecond}))
	b.put(t, governed("wh_limit", limited.url, &shopbellv1.Policy{MaxInFlight: &three}))
	began := time.Now()
	b.send(t, numbered("wh_rate", 31))
	b.send(t, numbered("wh_limit", 60))
	wantAll(t, limited, 60)
	if got := limited.most.Load(); got > 3 {
		t.Errorf("%d requests at once, want at most 3", got)
	}
	wantAll(t, in, 31)
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("31 deliveries took %s, want at 20 a second 1.5s at least", took)
	}
}

func TestSender_SwitchedOffAndOnAgainLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in, free := countOnceFree(t)
	b.start(t, few())
	one := int32(1)
	on := governed("wh_1", in.url, &shopbellv1.Policy{MaxInFlight: &one})
	b.put(t, on)
	for _, d := range numbered("wh_1", 5) {
		b.publish(t, d.Hold(0))
	}
	what := hold{shop: "demo", webhookID: "wh_1", why: "a test"}
	if ours, err := b.sender.register.claim(t.Context(), what); err != nil || !ours {
		t.Fatal(ours, err)
	}
	b.sender.own(what)
	held := b.sender.backlogs.get("wh_1")
	held.broke("", 0) // as after a success: two may be with the lane
	held.mu.Lock()
	held.allow = 2
	held.mu.Unlock()
	held.wake()
	with := func(n int) func() bool {
		return func() bool {
			held.wake()
			held.mu.Lock()
			defer held.mu.Unlock()
			return held.out == n
		}
	}
	testwait.Until(t, "one waits for its place", with(2))
	testwait.Until(t, "the other is with the receiver", func() bool { return in.requests.Load() == 1 }) // before that it would be taken back too
	off, why := governed("wh_1", in.url, on.Webhook.Policy), "gone"
	off.OffByReceiver, off.Webhook.Status, off.Webhook.DisabledReason = true, webhook.Disabled, &why
	b.put(t, off)
	testwait.Until(t, "the one that waited is taken back", with(1))
	b.put(t, on)
	free()
	wantAll(t, in, 5)
	b.nothingHeld(t)
}

// A delivery that is called back has one place at a time, whoever dies when: its timer, or where it is held. What has no
// timer any more is with another sender; what somebody asked for by hand stays as he wanted it.
func TestSender_CallsBackWhatStillWaitsAndNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(t, few())
	d := numbered("wh_1", 3)
	off, gone := governed("wh_1", "http://127.0.0.1:1", nil), "gone"
	off.OffByReceiver, off.Webhook.Status, off.Webhook.DisabledReason = true, webhook.Disabled, &gone // nobody sends what is held
	b.put(t, off)
	due := time.Now().Add(time.Hour).UTC().Round(0)
	cancelled := *d[2]
	cancelled.Cancel = "cancelled by hand"
	b.publish(t, d[0].Later(due), cancelled.Later(due))
	hung := func(n int) later { return laterOf(d[n], &exchange{class: "timeout", began: time.Now()}) }
	waiting := []later{hung(0), hung(1), hung(2)} // the second has no timer any more
	for range 2 {                                 // again, as another sender may that remembers them too
		b.sender.callBack(t.Context(), "wh_1", waiting, false)
		testwait.Until(t, "the first is held", func() bool { return len(b.stored(t, contract.Held)) > 0 })
	}
	kept := b.stored(t, contract.Held)
	if got, err := contract.ParseDelivery(kept[0].Header, kept[0].Data); err != nil || len(kept) != 1 || got.ID != d[0].ID || !got.Due.Equal(due) {
		t.Errorf("%d are held, the first is %s, due %s (%v), want %s alone, due %s", len(kept), got.ID, got.Due, err, d[0].ID, due)
	}
	testwait.Until(t, "one is left to deliver", func() bool { return len(b.onTheWay(t)) == 1 }) // what is held is acked then
	left := b.onTheWay(t)
	if got, _, err := contract.ParseLater(left[0].Header, left[0].Data); err != nil || got.Cancel == "" {
		t.Errorf("the timer %v (%v) is left, want the one that was cancelled", got, err)
	}
	if got := b.records(t, 1); len(got) != 1 || got[0].GetChange().GetStatus() != held {
		t.Errorf("recorded %v, want that the first is held", got)
	}
}

func TestSender_ByHandPassesALaneThatHolds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(_ http.ResponseWriter, number, _ int) int {
		if number == 7 {
			return 0
		}
		return 500
	})
	b.start(t, few())
	b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
	all := numbered("wh_1", 40)
	b.send(t, slices.Delete(slices.Clone(all), 7, 8))
	testwait.Until(t, "the lane holds", func() bool { return b.sender.register.count() == 1 })
	all[7].AskedAt = time.Now()
	b.send(t, all[7:8])
	wantAll(t, in, 1)
}

func TestSender_HeldForASwitchedOffWebhookStays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(http.ResponseWriter, int, int) int { return 503 })
	b.start(t, few())
	on := governed("wh_1", in.url, &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}})
	b.put(t, on)
	b.send(t, numbered("wh_1", 30))
	testwait.Until(t, "the lane holds", func() bool { return b.sender.register.count() == 1 && len(b.onTheWay(t)) == 0 })
	off := governed("wh_1", in.url, on.Webhook.Policy)
	why := "gone"
	off.OffByReceiver, off.Webhook.Status, off.Webhook.DisabledReason = true, webhook.Disabled, &why
	b.put(t, off)
	testwait.Until(t, "nobody probes", func() bool { return b.sender.register.count() == 0 && b.sender.backlogs.count() == 0 })
	if held := b.heldFor(t, "wh_1"); held != 30 {
		t.Errorf("%d are held, want 30", held)
	}
}

func TestSender_HeldForAWebhookThatStaysOffIsCancelledInTheEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	off, why := governed("wh_1", in.url, nil), "gone"
	off.OffByReceiver, off.Webhook.Status, off.Webhook.DisabledReason = true, webhook.Disabled, &why
	b.put(t, off)
	const old = 300 // more than are cancelled at once
	for _, d := range numbered("wh_1", old) {
		b.publish(t, d.Hold(0))
	}
	cfg := few()
	cfg.KeepHeld = time.Millisecond
	b.start(t, cfg)
	for _, rec := range b.records(t, old) {
		if c := rec.GetChange(); c.GetStatus() != cancelled || !strings.Contains(c.GetReason(), "held for longer than 1ms, while its webhook was switched off") {
			t.Fatalf("%v, want cancelled because it was held for too long", c)
		}
	}
	b.nothingHeld(t)
	if got := in.requests.Load(); got != 0 {
		t.Errorf("%d are sent", got)
	}
}

func TestSender_SendsWhatDoesNotFitIntoMemory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var mu sync.Mutex
	got := map[string]int{}
	in := handler(t, false, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // what is cut is counted as something else
		mu.Lock()
		defer mu.Unlock()
		got[strings.TrimSpace(string(body))]++
	})
	b.put(t, governed("wh_1", in.URL, nil))
	held := numbered("wh_1", 250) // of 64 KiB: twice of what is kept
	for _, d := range held {
		d.Data = append(d.Data, strings.Repeat(" ", 64<<10)...)
		b.publish(t, d.Hold(0))
	}
	b.start(t, few())
	b.sender.keep(t.Context(), hold{why: "a test", shop: "demo", webhookID: "wh_1"})
	b.nothingHeld(t)
	for i := range held {
		if got[strconv.Itoa(i)] != 1 {
			t.Errorf("%d arrived %d times", i, got[strconv.Itoa(i)])
		}
	}
}

func TestSender_BacklogYieldsToOthersAndArrivesAllTheSame(t *testing.T) {
	t.Parallel()
	b := setup(t)
	backlog := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	other := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	b.start(t, few())
	b.put(t, governed("wh_1", backlog.url, nil))
	b.put(t, governed("wh_2", other.url, nil))
	bound := func() bool { return b.sender.governor.pace.PerSecond() > 0 }
	// Others are sent all the while.
	fresh, n := numbered("wh_2", 5000), 0
	sends := func() {
		if n < len(fresh) {
			b.publish(t, fresh[n].Message())
			n++
		}
	}
	testwait.Until(t, "what is drained has a bound", func() bool { sends(); return bound() })
	const held = 200
	for _, d := range numbered("wh_1", held) {
		b.publish(t, d.Hold(0))
	}
	b.sender.keep(t.Context(), hold{why: "a test", shop: "demo", webhookID: "wh_1"})
	waited := false
	testwait.Until(t, "what was held has arrived", func() bool {
		sends()
		b.sender.governor.mu.Lock()
		waited = waited || len(b.sender.governor.turn) > 0
		b.sender.governor.mu.Unlock()
		return len(backlog.delivered()) >= held
	})
	if !waited {
		t.Error("it never waited for its turn")
	}
	wantAll(t, backlog, held)
	wantAll(t, other, n)
}
