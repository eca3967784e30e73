package sender

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// nobodyAnswers closes a connection on which a request came. It does not return.
func nobodyAnswers(w http.ResponseWriter) int {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
	}
	panic(http.ErrAbortHandler)
}

// countOnceThere begins a receiver that answers nobody before it is up.
func countOnceThere(t *testing.T) (n *numbers, up *atomic.Bool) {
	t.Helper()
	up = &atomic.Bool{}
	return count(t, func(w http.ResponseWriter, _, _ int) int {
		if up.Load() {
			return 0
		}
		return nobodyAnswers(w)
	}), up
}

// waiting is how many deliveries are remembered that wait for a later attempt.
func (b *bundle) waiting() int {
	b.sender.lanes.mu.Lock()
	defer b.sender.lanes.mu.Unlock()
	return b.sender.lanes.failing
}

// One event each, whose next attempt is in an hour: that the host is back is seen by the probes that are made meanwhile.
func TestSender_SendsWhatWaitsWhenTheHostIsBack(t *testing.T) {
	t.Parallel()
	const webhooks = 20
	b := setup(t)
	var up atomic.Bool
	in := count(t, func(w http.ResponseWriter, number, _ int) int {
		switch {
		case number == webhooks: // which it does not like, and says so
			return 500
		case up.Load():
			return 0
		}
		return nobodyAnswers(w)
	})
	b.start(t, few())
	of := func(i int) *busv1.WebhookState {
		return governed(fmt.Sprint("wh_", i), fmt.Sprint(in.url, "/", i), inAnHour())
	}
	for i := range webhooks + 2 {
		b.put(t, of(i))
	}
	send := func(webhook int) { b.send(t, numbered(fmt.Sprint("wh_", webhook), webhook+1)[webhook:]) }
	send(webhooks)
	testwait.Until(t, "one was answered 500", func() bool { return b.waiting() == 1 })
	off := webhooks + 1 // its owner switches it off, and may switch it on again before the delivery is due
	send(off)
	testwait.Until(t, "one was not answered", func() bool { return b.waiting() == 2 })
	switched, why := of(off), "by its owner"
	switched.Webhook.Status, switched.Webhook.DisabledReason = webhook.Disabled, &why
	b.put(t, switched)
	for i := range webhooks {
		send(i)
	}
	testwait.Until(t, "the others were not answered", func() bool { return in.requests.Load() >= webhooks+2 })
	up.Store(true)
	wantAll(t, in, webhooks)
	told := b.records(t, webhooks+2+webhooks)
	if !slices.ContainsFunc(told, func(r *busv1.Record) bool {
		return r.GetAttempt().GetStatus() == delivered && strings.Contains(r.GetAttempt().GetReason(), "to see whether its receiver is back")
	}) {
		t.Error("no attempt says why it was made")
	}
	var left []string
	for _, raw := range b.onTheWay(t) {
		if d, _, err := contract.ParseLater(raw.Header, raw.Data); err == nil {
			left = append(left, d.WebhookID)
		}
	}
	if slices.Sort(left); !slices.Equal(left, []string{fmt.Sprint("wh_", webhooks), fmt.Sprint("wh_", off)}) {
		t.Errorf("for their time wait deliveries to %q, want the one that was answered, and the one of the webhook that is off", left)
	}
}

func TestLanes_CallTwoWebhooksBackForEachAnswer(t *testing.T) {
	t.Parallel()
	const at, elsewhere = "https://one.example/in/", "https://two.example/in/"
	var (
		answers = &exchange{code: 200}
		fails   = &exchange{code: 500}
		nobody  = &exchange{class: "connect"}
		gateway = &exchange{code: 502}
		blocked = &exchange{class: "blocked_address"}
	)
	l := newLanes(8, func() int { return 1 })
	now := time.Now()
	accepted := now.Add(-time.Hour)
	heard := func(webhook, url string, x *exchange) (back []string) {
		t.Helper()
		for _, c := range l.heard(l.of(webhook), url+webhook, x, now) {
			back = append(back, c.webhookID)
			if len(c.waits) != 1 {
				t.Errorf("%d of %s are called back, want its 1", len(c.waits), c.webhookID)
			}
		}
		return back
	}
	want := func(when string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: called back are %q, want %q", when, got, want)
		}
	}
	wait := func(webhook, url string, x *exchange) {
		t.Helper()
		want(webhook+" fails", heard(webhook, url, x))
		accepted = accepted.Add(time.Second)
		l.wait(webhook, later{deliveryID: webhook, due: now.Add(time.Hour), accepted: accepted, unanswered: x.unanswered(), began: now})
	}
	wait("wh_4", at, fails) // which is an answer
	wait("wh_1", at, nobody)
	want("one failed alone", heard("wh_well", at, answers))
	now = now.Add(time.Minute)
	wait("wh_2", at, gateway)
	wait("wh_3", at, nobody)
	wait("wh_5", elsewhere, nobody)
	wait("wh_6", elsewhere, nobody)
	now = now.Add(time.Minute)
	want("an attempt that says nothing of the host", heard("wh_well", elsewhere, blocked))
	want("the other host answers", heard("wh_well", elsewhere, fails), "wh_5", "wh_6")
	wait("wh_7", at, nobody)
	wait("wh_8", at, nobody)
	want("the host answers", heard("wh_well", at, answers), "wh_1", "wh_2")
	want("one of them fails again", heard("wh_1", at, nobody))
	want("the host answers again", heard("wh_2", at, answers), "wh_3", "wh_7")
	now = now.Add(time.Minute)
	wait("wh_9", at, nobody)
	wait("wh_10", at, nobody)
	want("and again, when it was away once more", heard("wh_well", at, answers), "wh_8", "wh_9")
	want("and again", heard("wh_well", at, answers), "wh_10")
	want("nothing waits any more", heard("wh_well", at, answers))
	if l.failing != 1 {
		t.Errorf("%d are remembered, want the one that the host answered", l.failing)
	}
	l.forget(now.Add(2 * time.Hour))
	if len(l.hosts) != 0 {
		t.Errorf("%d hosts are remembered when nothing waits for them", len(l.hosts))
	}
}

func TestLanes_ProbeAHostThatIsAway(t *testing.T) {
	t.Parallel()
	nobody := &exchange{class: "timeout"}
	l := newLanes(8, func() int { return 1 })
	began := time.Now()
	fail := func(webhook string, at time.Time) {
		t.Helper()
		l.heard(l.of(webhook), "https://one.example/", nobody, at)
		l.wait(webhook, later{deliveryID: "of " + webhook, due: began.Add(24 * time.Hour), unanswered: true, began: began})
	}
	want := func(after time.Duration, most int, want ...string) {
		t.Helper()
		var got []string
		for _, c := range l.probe(began.Add(after), most) {
			if len(c.waits) != 1 {
				t.Errorf("%s: %d deliveries of %s, want 1", after, len(c.waits), c.webhookID)
			}
			got = append(got, c.webhookID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: probed with %q, want %q", after, got, want)
		}
	}
	fail("wh_1", began)
	want(2*time.Second, 9) // it may have been by chance
	fail("wh_2", began.Add(2*time.Second))
	l.wait("wh_1", later{deliveryID: "another", due: began.Add(24 * time.Hour), unanswered: true, began: began})
	want(2*time.Second, 0)
	want(2*time.Second, 9, "wh_1")
	fail("wh_1", began.Add(2*time.Second))
	want(2900*time.Millisecond, 9)
	want(3*time.Second, 9, "wh_2")
	want(4*time.Second, 9, "wh_1")
	fail("wh_2", began.Add(4*time.Second))
	want(100*time.Second, 9, "wh_1")
	fail("wh_1", began.Add(100*time.Second))
	want(109*time.Second, 9)
	want(110*time.Second, 9, "wh_2")
	want(121*time.Second, 9, "wh_1")
	want(200*time.Second, 9) // all are on their way
	fail("wh_1", began.Add(200*time.Second))
	l.heard(l.of("wh_3"), "https://one.example/", &exchange{code: 404}, began.Add(201*time.Second))
	want(300*time.Second, 9) // it is not away
}

func TestLanes_ProbesOfTheHostDoNotHaveALaneHold(t *testing.T) {
	t.Parallel()
	l := newLanes(8, func() int { return 1 })
	l.broke = func(hold) {}
	j := &job{w: &webhook.Webhook{ID: "wh_1", URL: "https://one.example/", Rules: &webhook.Rules{Policy: profile.Policy{
		RetrySchedule: []time.Duration{time.Hour}, HonorRetryAfter: true, Breaker: profile.Breaker{Failures: 3, HangShare: 0.5},
	}}}}
	j.d.WebhookID = "wh_1"
	note := func(x *exchange, early bool) string {
		why, _ := l.note(j, x, verdict{status: retrying}, early)
		return why
	}
	nobody, asks := &exchange{class: "timeout"}, &exchange{code: 503, retryAfter: time.Minute}
	for range 2 {
		if why := note(nobody, false); why != "" {
			t.Errorf("it holds for %q", why)
		}
	}
	for range 20 {
		if why := note(nobody, true); why != "" {
			t.Errorf("it holds for %q after probes of the host", why)
		}
	}
	if note(nobody, false) == "" {
		t.Error("it does not hold after three failures of its own")
	}
	if note(asks, true) == "" {
		t.Error("what the receiver asks for is not heard")
	}
}
