package sender

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
)

func TestHealth_SaysWhenAReceiverIsNotWell(t *testing.T) {
	t.Parallel()
	type one struct {
		status, class string
		code          int
		retryAfter    time.Duration
	}
	good, bad, hung := one{status: delivered, code: 200}, one{status: retrying, class: "http_status", code: 500}, one{status: retrying, class: "timeout"}
	times := func(n int, o one) (out []one) {
		for range n {
			out = append(out, o)
		}
		return out
	}
	breaks := profile.Policy{RetrySchedule: []time.Duration{time.Second}, HonorRetryAfter: true, Breaker: profile.Breaker{Failures: 10, HangShare: 0.5}}
	with := func(change func(*profile.Policy)) profile.Policy {
		p := breaks
		change(&p)
		return p
	}
	for _, row := range []struct {
		name     string
		rules    profile.Policy
		attempts []one
		unwell   bool
		every    time.Duration // between two attempts; 0 is a second
	}{
		{"nine failures are not ten", breaks, times(9, bad), false, 0},
		{"ten failures in a row", breaks, times(10, bad), true, 0},
		{"a success among them begins anew", breaks, append(append(times(9, bad), good), times(9, bad)...), false, 0},
		{"ten failures right after a success", breaks, append(times(1, good), times(10, bad)...), false, 50 * time.Millisecond},
		{"five of six hang", breaks, append(times(1, good), times(5, hung)...), true, 0},
		{"too few to speak of a share", breaks, times(5, hung), false, 0},
		{"a third hangs", breaks, slices.Concat(times(4, good), times(2, hung), times(4, good), times(2, hung)), false, 0},
		{"half hang", breaks, slices.Concat(times(3, good), times(3, hung)), true, 0},
		{"what hung long ago is forgotten", breaks, slices.Concat(times(3, hung), times(20, good), times(3, hung)), false, 0},
		{"429 with Retry-After", breaks, []one{{status: retrying, code: 429, retryAfter: time.Minute}}, true, 0},
		{"503 with Retry-After", breaks, []one{{status: retrying, code: 503, retryAfter: time.Minute}}, true, 0},
		{"429 without", breaks, []one{{status: retrying, code: 429}}, false, 0},
		{"Retry-After is not honoured", with(func(p *profile.Policy) { p.HonorRetryAfter = false }), []one{{status: retrying, code: 429, retryAfter: time.Minute}}, false, 0},
		{"without a schedule nothing may wait", with(func(p *profile.Policy) { p.RetrySchedule = nil }), times(50, bad), false, 0},
		{"without a breaker", with(func(p *profile.Policy) { p.Breaker = profile.Breaker{} }), times(50, hung), false, 0},
		{"in order one failure holds back everything", with(func(p *profile.Policy) { p.Ordered = profile.ByWebhook }), times(1, bad), true, 0},
	} {
		var h health
		why, now := "", time.Now()
		for _, o := range row.attempts {
			now = now.Add(cmp.Or(row.every, time.Second))
			why = h.note(row.rules, verdict{status: o.status}, &exchange{class: o.class, code: o.code, retryAfter: o.retryAfter}, now)
		}
		if (why != "") != row.unwell {
			t.Errorf("%s: the reason is %q", row.name, why)
		}
	}
}

func TestNextProbe_FollowsTheOutage(t *testing.T) {
	t.Parallel()
	rules := profile.Policy{}
	for _, row := range []struct {
		away   time.Duration
		others int
		want   time.Duration
	}{
		{0, 1, time.Second},
		{20 * time.Second, 1, time.Second},
		{30 * time.Second, 1, time.Second},
		{45 * time.Second, 1, 1500 * time.Millisecond},
		{10 * time.Minute, 1, 20 * time.Second},
		{24 * time.Hour, 1, time.Minute},
		{30 * time.Second, 10_000, 50 * time.Second}, // not more than 200 probes a second in all
	} {
		if got := nextProbe(rules, row.away, row.others); got != row.want {
			t.Errorf("away for %s with %d others: the next probe after %s, want %s", row.away, row.others, got, row.want)
		}
	}
}

// lanesFor gives lanes whose exchanges begin and do not end, and what has begun.
func lanesFor(limit, share int) (*lanes, *[]*job) {
	begun := &[]*job{}
	l := newLanes(limit, func() int { return share })
	l.run = func(j *job) { *begun = append(*begun, j) }
	return l, begun
}

func jobFor(webhookID, name string, rules profile.Policy) *job {
	return &job{d: contract.Delivery{ID: name, WebhookID: webhookID, Attempt: 1}, w: &webhook.Webhook{Rules: &webhook.Rules{Policy: rules}}}
}

func names(jobs []*job) (out []string) {
	for _, j := range jobs {
		out = append(out, j.d.ID)
	}
	return out
}

func TestLanes_BeginNoMoreThanALaneHasPlacesFor(t *testing.T) {
	t.Parallel()
	l, begun := lanesFor(100, 2) // two senders share five places out
	rules := profile.Policy{MaxInFlight: 5}
	for i := range 6 {
		l.admit(jobFor("a", fmt.Sprint(i), rules))
	}
	if got := names(*begun); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("begun are %v, want the first three", got)
	}
	l.done((*begun)[1], time.Millisecond)
	if got := names(*begun); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		t.Errorf("begun are %v, want the fourth too", got)
	}
}

func TestLanes_GiveEachLaneItsTurn(t *testing.T) {
	t.Parallel()
	l, begun := lanesFor(2, 1)
	for i := range 6 {
		l.admit(jobFor("hot", fmt.Sprint("hot", i), profile.Policy{}))
	}
	for _, small := range []string{"x", "y"} {
		l.admit(jobFor(small, small, profile.Policy{}))
	}
	for i := range 6 {
		l.done((*begun)[i], time.Millisecond)
	}
	got := names(*begun)
	for _, small := range []string{"x", "y"} {
		if at := slices.Index(got, small); at < 0 || at > 5 {
			t.Errorf("%s comes at place %d of %v: behind the hot lane", small, at, got)
		}
	}
}

func TestLanes_OverflowWhenTheReceiverIsSlow(t *testing.T) {
	t.Parallel()
	fill := func(took, elsewhere time.Duration) (overflowed bool) {
		l, begun := lanesFor(1000, 1)
		quick := jobFor("quick", "q", profile.Policy{})
		for range 200 {
			l.admit(quick)
			l.done(quick, elsewhere)
		}
		rules := profile.Policy{MaxInFlight: 10}
		l.admit(jobFor("a", "first", rules))
		l.done((*begun)[len(*begun)-1], took)
		for range smallQueue + 20 {
			if l.admit(jobFor("a", "more", rules)) == overflow {
				return true
			}
		}
		return false
	}
	for _, row := range []struct {
		name            string
		took, elsewhere time.Duration
		want            bool
	}{
		{"slower than others", 50 * time.Millisecond, time.Millisecond, true},
		{"as slow as all: it is the sender that is slow", 50 * time.Millisecond, 50 * time.Millisecond, false},
		{"so slow that what waits would wait for long", time.Second, time.Second, true},
		{"quick", time.Millisecond, time.Millisecond, false},
	} {
		if got := fill(row.took, row.elsewhere); got != row.want {
			t.Errorf("%s: overflow is %v, want %v", row.name, got, row.want)
		}
	}
}

func TestLanes_HoldWhatComesAndWhatWaits(t *testing.T) {
	t.Parallel()
	l, begun := lanesFor(1, 1)
	asked := jobFor("a", "by hand", profile.Policy{})
	asked.d.AskedAt = time.Now()
	for _, j := range []*job{jobFor("a", "1", profile.Policy{}), jobFor("a", "2", profile.Policy{}), asked} {
		l.admit(j)
	}
	if queue := l.hold(hold{webhookID: "a", why: "why"}, false).jobs; !slices.Equal(names(queue), []string{"2"}) {
		t.Errorf("from the queue come %v, want 2: 1 is under way, and what is sent by hand is not held", names(queue))
	}
	if l.admit(jobFor("a", "3", profile.Policy{})) != overflow {
		t.Error("a lane that holds takes a delivery")
	}
	l.done((*begun)[0], time.Millisecond)
	if got := names(*begun); !slices.Equal(got, []string{"1", "by hand"}) {
		t.Errorf("begun are %v", got)
	}
	l.open("a")
	if l.admit(jobFor("a", "4", profile.Policy{})) != admitted {
		t.Error("a lane that is open does not take a delivery")
	}
	if l.waiting != 1 || l.bytes != (*begun)[0].size() {
		t.Errorf("%d wait with %d bytes, want one", l.waiting, l.bytes)
	}
}

// Of a hundred thousand lanes nobody is to look at all of them with the lock.
func TestLanes_FindWhatWaitsTooLongAmongFew(t *testing.T) {
	t.Parallel()
	l, begun := lanesFor(1000, 1)
	one := profile.Policy{MaxInFlight: 1}
	for i := range 500 {
		l.admit(jobFor(fmt.Sprint("idle", i), "first", one))
		l.done((*begun)[i], time.Millisecond)
	}
	for _, name := range []string{"first", "second", "third"} {
		l.admit(jobFor("slow", name, one))
	}
	l.admit(jobFor("quick", "first", one))
	soon, late := time.Now(), time.Now().Add(longWait+time.Second)
	for i, row := range []struct {
		at   time.Time
		want []string
	}{{soon, nil}, {late, []string{"slow"}}, {late, []string{"slow"}}} {
		if got := slices.Collect(maps.Keys(l.late(row.at))); !slices.Equal(got, row.want) {
			t.Errorf("look %d finds %v, want %v", i+1, got, row.want)
		}
		if len(l.queued) != 1 {
			t.Errorf("look %d leaves %d lanes to look at, want the one where something waits", i+1, len(l.queued))
		}
	}
	for range 2 {
		l.done((*begun)[500], time.Millisecond)
		(*begun)[500] = (*begun)[len(*begun)-1]
	}
	l.admit(jobFor("slow", "fourth", one))
	if got := l.late(late.Add(time.Minute)); len(got) != 1 {
		t.Errorf("what came after all others were begun is not found: %v", got)
	}
	l.hold(hold{webhookID: "slow"}, false)
	if got := l.late(late.Add(time.Minute)); len(got) != 0 || len(l.queued) != 0 {
		t.Errorf("nothing waits any more, and %v is found, %d lanes are to be looked at", got, len(l.queued))
	}
}

func TestLanes_ForgetThoseInWhichNothingGoesOn(t *testing.T) {
	t.Parallel()
	l, begun := lanesFor(10_000, 1)
	const idle = 3*forgetAtOnce + 7
	for i := range idle {
		l.admit(jobFor(fmt.Sprint("idle", i), "first", profile.Policy{}))
		l.done((*begun)[i], time.Millisecond)
	}
	l.admit(jobFor("busy", "first", profile.Policy{}))
	l.forget(time.Now())
	if len(l.all) != idle+1 {
		t.Errorf("%d lanes are left, want all %d: they were used a moment ago", len(l.all), idle+1)
	}
	l.forget(time.Now().Add(2 * time.Minute))
	if len(l.all) != 1 || l.all["busy"] == nil {
		t.Errorf("%d lanes are left, want the one in which an exchange is under way", len(l.all))
	}
}

func TestLanes_CallNothingBackWhoseTimeHasCome(t *testing.T) {
	t.Parallel()
	l := newLanes(8, func() int { return 1 })
	for id, wait := range map[string]time.Duration{"long due": -time.Minute, "about to be": soonDue / 2, "waits": time.Minute} {
		if why, _ := l.wait("wh_1", later{deliveryID: id, due: time.Now().Add(wait)}); why != "" {
			t.Fatalf("%s is to be held: %s", id, why)
		}
	}
	jobs := l.unwell(hold{webhookID: "wh_1", why: "it is not"}).called
	if len(jobs) != 1 || jobs[0].deliveryID != "waits" {
		t.Errorf("%d are called back, want the one that waits", len(jobs))
	}
	if l.failing != 0 {
		t.Errorf("%d are remembered after that, want none", l.failing)
	}
}

// A lane is remembered for a while after its latest delivery, and there are as many lanes as webhooks.
func TestLanes_KeepNothingOfWhatIsDone(t *testing.T) {
	t.Parallel()
	l := newLanes(8, func() int { return 1 })
	var gone atomic.Int64
	const webhooks = 20
	l.run = func(j *job) {
		runtime.AddCleanup(j, func(int) { gone.Add(1) }, 0)
		go l.done(j, time.Millisecond)
	}
	for i := range webhooks {
		if l.admit(jobFor(fmt.Sprint(i), "1", profile.Policy{})) != admitted {
			t.Fatal("a lane that is well does not take a delivery")
		}
	}
	testwait.Until(t, "no delivery is in memory any more", func() bool { runtime.GC(); return gone.Load() == webhooks })
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) != webhooks {
		t.Errorf("%d lanes are remembered, want %d", len(l.all), webhooks)
	}
}

// What was made to wait may become due by the hundred thousand: it is not in front of what happens now.
func TestLanes_WhatComesLaterLeavesRoomForWhatGoesStraightThrough(t *testing.T) {
	t.Parallel()
	l, _ := lanesFor(1, 1) // all wait but one
	ended := make(chan struct{})
	t.Cleanup(func() { l.close(); <-ended })
	var taken atomic.Int64
	go func() {
		defer close(ended)
		for i := range maxWaiting {
			j := jobFor(fmt.Sprint("due", i), "1", profile.Policy{})
			j.d.Attempt = 2
			if l.admit(j) != admitted {
				return
			}
			taken.Add(1)
		}
	}()
	testwait.Until(t, "half of what may wait is due", func() bool { return taken.Load() > maxWaiting/2 })
	now := make(chan admission, 1)
	go func() { now <- l.admit(jobFor("now", "1", profile.Policy{})) }()
	select {
	case got := <-now:
		if got != admitted || taken.Load() > maxWaiting/2+1 {
			t.Errorf("got %v with %d that are due, want that it is admitted beside %d", got, taken.Load(), maxWaiting/2+1)
		}
	case <-time.After(15 * time.Second):
		t.Error("what goes straight through waits behind what is due")
	}
}
