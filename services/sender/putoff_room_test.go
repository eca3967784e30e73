package sender

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
)

// Two were tried, and the next attempt is in an hour. What comes then is not tried, and there when the host is.
func TestSender_WhatComesForASilentHostWaitsWithoutAnAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in, up := countOnceThere(t)
	b.start(t, few())
	b.put(t, governed("wh_1", in.url, inAnHour()))
	all := numbered("wh_1", 6)
	b.send(t, all[:2])
	testwait.Until(t, "two wait for their next attempt", func() bool { return b.waiting() == 2 })
	b.send(t, all[2:5])
	putOff := map[string]bool{}
	testwait.Until(t, "what came after them waits", func() bool {
		for _, r := range b.records(t, 2) {
			if c := r.GetChange(); c.GetStatus() == delayed {
				if putOff[c.GetDeliveryId()] = true; !strings.Contains(c.GetReason(), "nobody behind "+in.url) {
					t.Fatalf("it waits because %q", c.GetReason())
				}
			}
		}
		return len(putOff) == 3
	})
	asked := *all[5]
	asked.Asked = true
	before := in.requests.Load()
	b.publish(t, asked.Message())
	testwait.Until(t, "what somebody asked for is tried", func() bool { return in.requests.Load() > before })
	up.Store(true)
	wantAll(t, in, 6)
	b.empty(t)
	tried := map[string]int{}
	for _, r := range b.records(t, 6) {
		if a := r.GetAttempt(); a != nil {
			if tried[a.GetDeliveryId()]++; putOff[a.GetDeliveryId()] && (a.GetStatus() != delivered || a.GetAttempt().GetNumber() != 1) {
				t.Errorf("%s was put off, and attempt %d has it %s", a.GetDeliveryId(), a.GetAttempt().GetNumber(), a.GetStatus())
			}
		}
	}
	for _, d := range all[2:5] {
		if tried[d.ID] != 1 || !putOff[d.ID] {
			t.Errorf("%s was tried %d times and put off %t, want once, when the host was back", d.ID, tried[d.ID], putOff[d.ID])
		}
	}
}

func TestSender_WhatComesForAHostThatIsShutWaitsForItsProbes(t *testing.T) {
	t.Parallel()
	for name, is := range map[string]http.HandlerFunc{
		"it refuses connections":  nil,
		"it hangs up on its shop": func(w http.ResponseWriter, _ *http.Request) { nobodyAnswers(w) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			waitsForAHostThatIsShut(t, is)
		})
	}
}

// waitsForAHostThatIsShut tries ten webhooks at a host where only this answers, and others come. All arrive when somebody does.
func waitsForAHostThatIsShut(t *testing.T, is http.HandlerFunc) {
	t.Helper()
	const webhooks = manyShut + 20
	b := setup(t)
	b.start(t, few())
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	where := l.Addr().String()
	serve := func(is http.HandlerFunc) *http.Server {
		s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: is}
		t.Cleanup(func() { _ = s.Close() })
		go func() { _ = s.Serve(l) }()
		return s
	}
	before := serve(is)
	if is == nil {
		_ = before.Close()
	}
	send := func(i int) {
		id := fmt.Sprint("wh_", i)
		b.put(t, governed(id, fmt.Sprintf("http://%s/%d", where, i), inAnHour()))
		b.send(t, numbered(id, 1))
	}
	for i := range manyShut {
		send(i)
	}
	testwait.Until(t, "those that tell were tried", func() bool { return b.waiting() >= manyShut })
	for i := manyShut; i < webhooks; i++ {
		send(i)
	}
	testwait.Until(t, "the others wait, too", func() bool { return b.waiting() >= webhooks-1 }) // one may be a probe just now
	tried, putOff := 0, 0
	for _, r := range b.records(t, webhooks) {
		switch {
		case r.GetAttempt() != nil:
			tried++
		case r.GetChange().GetStatus() == delayed:
			putOff++
		}
	}
	if tried >= webhooks || putOff < webhooks-manyShut-2 {
		t.Errorf("%d attempts were made, and %d of the %d others put off; want few more attempts than %d", tried, putOff, webhooks-manyShut, manyShut)
	}
	_ = before.Close()
	arrived := make(chan string, 2*webhooks)
	testwait.Until(t, "its port is free", func() bool { // a connection elsewhere may have it for a while
		l, err = lc.Listen(t.Context(), "tcp", where)
		return err == nil
	})
	serve(func(_ http.ResponseWriter, r *http.Request) { arrived <- r.URL.Path })
	b.empty(t)
	got := map[string]bool{}
	for len(arrived) > 0 {
		got[<-arrived] = true
	}
	if len(got) != webhooks {
		t.Errorf("%d webhooks have their delivery, want all %d", len(got), webhooks)
	}
}

func TestLanes_PutOffWhatComesForASilentHost(t *testing.T) {
	t.Parallel()
	const url = "https://one.example/in"
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	nobody := &exchange{class: "connect"}
	due := now.Add(time.Minute)
	waiting := func(since time.Time) *job {
		return &job{d: contract.Delivery{ID: "second", WebhookID: "wh_1", Attempt: 1, MatchedAt: since}, w: &webhook.Webhook{URL: url, Rules: &webhook.Rules{
			Policy: profile.Policy{Timeout: 5 * time.Second, RetrySchedule: []time.Duration{time.Minute}, Breaker: profile.Breaker{Failures: 10}},
		}}}
	}
	for _, row := range []struct {
		name   string
		change func(l *lanes, ln *lane, j *job)
		want   bool
	}{
		{"its webhook's attempt will tell", func(*lanes, *lane, *job) {}, true},
		{"which is being made", func(_ *lanes, ln *lane, _ *job) { ln.failing[0].due = ago(4 * time.Second) }, true},
		{"it was made long ago, by somebody else", func(_ *lanes, ln *lane, _ *job) { ln.failing[0].due = ago(7 * time.Second) }, false},
		{"it is this very one", func(_ *lanes, _ *lane, j *job) { j.d.ID = "first" }, false},
		{"what waits was put off itself", func(_ *lanes, ln *lane, _ *job) { ln.failing[0].putOff = true }, false},
		{"what waits was answered", func(_ *lanes, ln *lane, _ *job) { ln.failing[0].unanswered = false }, false},
		{"nothing waits", func(_ *lanes, ln *lane, _ *job) { ln.failing = nil }, false},
		{"many wait", func(_ *lanes, ln *lane, _ *job) {
			for len(ln.failing) < contract.MaxPutOff {
				ln.failing = append(ln.failing, ln.failing[0])
			}
		}, false},
		{"it is one of many", func(_ *lanes, ln *lane, j *job) {
			for len(ln.failing) < contract.MaxPutOff {
				ln.failing = append(ln.failing, later{deliveryID: j.d.ID, due: now, putOff: true, unanswered: true})
			}
		}, true},
		{"many will wait", func(_ *lanes, ln *lane, _ *job) { ln.puttingOff = contract.MaxPutOff - 1 }, false},
		{"no more can be remembered", func(l *lanes, _ *lane, _ *job) { l.failing = maxFailing }, false},
		{"the lane holds", func(_ *lanes, ln *lane, _ *job) { ln.held = true }, false},
		{"its receiver lives elsewhere now", func(_ *lanes, _ *lane, j *job) { j.w.URL = "https://two.example/in" }, false},
		{"the host has answered lately", func(_ *lanes, ln *lane, _ *job) { ln.host.answer = ago(lately / 2) }, false},
		{"it may have been by chance", func(_ *lanes, ln *lane, _ *job) { ln.host.silent = 1 }, false},
		{"somebody asked for it", func(_ *lanes, _ *lane, j *job) { j.d.Asked = true }, false},
		{"by hand", func(_ *lanes, _ *lane, j *job) { j.d.AskedAt = now }, false},
		{"it is a probe", func(_ *lanes, _ *lane, j *job) { j.d.Early = true }, false},
		{"it has waited for too long", func(_ *lanes, _ *lane, j *job) { j.d.MatchedAt = ago(2 * time.Hour) }, false},
		{"its attempts are promised", func(_ *lanes, _ *lane, j *job) { j.w.Rules.Policy.Breaker = profile.Breaker{} }, false},
	} {
		l := newLanes(8, func() int { return 1 })
		for range 2 {
			l.heard(l.of("wh_1"), url, nobody, ago(time.Minute))
		}
		l.wait("wh_1", later{deliveryID: "first", due: due, unanswered: true, began: ago(time.Minute)})
		j := waiting(now)
		row.change(l, l.all["wh_1"], j)
		got := l.putOff(j, now)
		if (got != nil) != row.want {
			t.Errorf("%s: it is put off: %+v, want %t", row.name, got, row.want)
		}
		if got != nil && (got.host != "https://one.example" || !got.since.Equal(ago(time.Minute)) || got.until.Before(now)) {
			t.Errorf("%s: it is put off because of %+v", row.name, got)
		}
	}
	for waited, want := range map[time.Duration]time.Duration{0: contract.LeastPutOff, 10 * time.Minute: 10 * time.Minute, 50 * time.Minute: 31*time.Minute + 6*time.Second} {
		l := newLanes(8, func() int { return 1 })
		for range 2 {
			l.heard(l.of("wh_1"), url, nobody, ago(time.Minute))
		}
		l.wait("wh_1", later{deliveryID: "first", due: now.Add(31 * time.Minute), unanswered: true, began: ago(time.Minute)})
		got := l.putOff(waiting(ago(waited)), now)
		if got == nil || !got.until.Equal(now.Add(want)) {
			t.Errorf("what has waited for %s is put off: %+v, want for %s", waited, got, want)
		}
	}
	l := newLanes(8, func() int { return 1 })
	if l.putOff(waiting(now), now) != nil {
		t.Error("a delivery is put off of whose webhook nothing is known")
	}
}

// Many webhooks were tried, and no connection could be made for any, or none of the shop's was answered. The next has not been tried yet.
func TestLanes_PutOffWhatComesForAHostThatIsShut(t *testing.T) {
	t.Parallel()
	const url = "https://one.example/in"
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	shut, hangs, answers := &exchange{class: "connect"}, &exchange{class: "timeout", reached: true}, &exchange{code: 404, reached: true}
	hang := func(l *lanes, shop string, n int) {
		for i := range n {
			ln := l.of(fmt.Sprint(shop, i))
			ln.shop = shop
			l.heard(ln, url, hangs, now)
		}
	}
	for _, row := range []struct {
		name   string
		change func(l *lanes, h *host, j *job)
		want   bool
	}{
		{"nobody could connect", func(*lanes, *host, *job) {}, true},
		{"somebody could, and was not answered", func(l *lanes, _ *host, _ *job) { l.heard(l.of("wh_0"), url, hangs, now) }, false},
		{"somebody could before, and now nobody can", func(l *lanes, h *host, _ *job) {
			l.heard(l.of("wh_0"), url, hangs, now)
			for i := range manyShut {
				l.heard(l.of(fmt.Sprint("wh_", i)), url, shut, now)
			}
			if h.isShut("", now) {
				t.Error("nobody looks whether it is so again")
			}
		}, true},
		{"its shop's are not answered, be it that they hang", func(l *lanes, h *host, j *job) {
			hang(l, "demo", manyShut)
			j.d.ShopID = "demo"
			if h.isShut("demo", now) {
				t.Error("nobody looks whether its shop is answered")
			}
		}, true},
		{"another shop's hang", func(l *lanes, _ *host, _ *job) { hang(l, "demo", manyShut) }, false},
		{"few of its shop's hang", func(l *lanes, _ *host, j *job) {
			hang(l, "demo", manyShut-1)
			j.d.ShopID = "demo"
		}, false},
		{"its shop's hang, and one is answered", func(l *lanes, _ *host, j *job) {
			hang(l, "demo", manyShut)
			l.heard(l.of("demo0"), url, answers, ago(2*lately))
			for range 2 {
				l.heard(l.of("demo1"), url, hangs, now)
			}
			j.d.ShopID = "demo"
		}, false},
		{"it was put off before", func(l *lanes, h *host, j *job) {
			l.of(j.d.WebhookID).host = h
			l.wait(j.d.WebhookID, later{deliveryID: j.d.ID, due: now, unanswered: true, putOff: true, began: now})
		}, true},
		{"another was", func(l *lanes, h *host, j *job) {
			l.of(j.d.WebhookID).host = h
			l.wait(j.d.WebhookID, later{deliveryID: "first", due: now, unanswered: true, putOff: true, began: now})
		}, true},
		{"nobody has looked lately", func(_ *lanes, h *host, _ *job) { h.shut.tried = ago(triedEvery + time.Second) }, false},
		{"few were tried", func(_ *lanes, h *host, _ *job) { h.shut.webhooks = manyShut - 1 }, false},
		{"somebody was answered lately", func(_ *lanes, h *host, _ *job) { h.answer = ago(lately / 2) }, false},
		{"somebody is answered", func(l *lanes, _ *host, _ *job) { l.heard(l.of("wh_0"), url, answers, now) }, false},
		{"somebody was, and one could not connect since", func(l *lanes, _ *host, _ *job) {
			l.heard(l.of("wh_0"), url, answers, ago(20*time.Second))
			for range 2 * manyShut {
				l.heard(l.of("wh_0"), url, shut, ago(10*time.Second))
			}
		}, false},
		{"it failed itself", func(_ *lanes, _ *host, j *job) { j.d.Attempt = 2 }, false},
		{"it was a probe", func(_ *lanes, _ *host, j *job) { j.d.Attempt, j.d.Uncounted = 2, 1 }, true},
		{"its receiver lived elsewhere before", func(l *lanes, _ *host, j *job) { l.of(j.d.WebhookID).host = &host{} }, false},
		{"it has waited for too long", func(_ *lanes, _ *host, j *job) { j.d.MatchedAt = ago(2 * time.Hour) }, false},
	} {
		l := newLanes(8, func() int { return 1 })
		for i := range manyShut {
			ln := l.of(fmt.Sprint("wh_", i))
			ln.shop = fmt.Sprint("shop ", i) // of many shops
			for range 2 {                    // which count once
				l.heard(ln, url, shut, ago(time.Minute))
			}
		}
		j := &job{d: contract.Delivery{ID: "newcomer", WebhookID: "wh_new", Attempt: 1, MatchedAt: now}, w: &webhook.Webhook{URL: url, Rules: &webhook.Rules{
			Policy: profile.Policy{Timeout: 5 * time.Second, RetrySchedule: []time.Duration{time.Minute}, Breaker: profile.Breaker{Failures: 10}},
		}}}
		h := l.hosts["https://one.example"]
		if h.isShut("", now) {
			t.Fatalf("%s: nobody looks whether the host is back", row.name)
		}
		row.change(l, h, j)
		got := l.putOff(j, now)
		if (got != nil) != row.want {
			t.Errorf("%s: it is put off: %+v, want %t", row.name, got, row.want)
		}
		if got != nil && (!got.until.Equal(now.Add(contract.LeastPutOff)) || l.all["wh_new"].host != h) {
			t.Errorf("%s: it is put off until %s, and its lane knows its host: %t", row.name, got.until, l.all["wh_new"].host == h)
		}
	}
}

// It was put off to leave places for others when nothing was known of its host, and once more when its host was found to be away.
func TestLanes_CallBackWhatWasPutOffTwice(t *testing.T) {
	t.Parallel()
	const url = "https://one.example/in"
	l := newLanes(8, func() int { return 1 })
	now := time.Now()
	waits := later{deliveryID: "dlv", due: now.Add(time.Minute), unanswered: true, putOff: true, began: now}
	l.wait("wh_1", waits)
	for range 2 {
		l.heard(l.of("wh_2"), url, &exchange{class: "timeout", reached: true}, now)
	}
	l.of("wh_1").host = l.hosts["https://one.example"]
	l.wait("wh_1", waits)
	back := l.heard(l.of("wh_2"), url, &exchange{code: 200}, now.Add(time.Second))
	if len(back) != 1 || back[0].webhookID != "wh_1" || len(back[0].waits) != 1 {
		t.Errorf("when the host answers %+v are called back, want the one", back)
	}
}

// One that failed waits for its time when another is delivered. What was put off waits for nothing more.
func TestLanes_CallBackWhatWasPutOffWhenItsReceiverTakesAnother(t *testing.T) {
	t.Parallel()
	l := newLanes(8, func() int { return 1 })
	now := time.Now()
	l.wait("wh_1", later{deliveryID: "failed", due: now.Add(time.Hour), began: now})
	l.wait("wh_1", later{deliveryID: "put off", due: now.Add(time.Minute), unanswered: true, putOff: true, began: now})
	j := &job{d: contract.Delivery{ID: "taken", WebhookID: "wh_1"}, w: &webhook.Webhook{URL: "https://one.example/in", Rules: &webhook.Rules{}}}
	_, back := l.note(j, &exchange{code: 200}, verdict{status: delivered}, false)
	if len(back) != 1 || len(back[0].waits) != 1 || back[0].waits[0].deliveryID != "put off" {
		t.Errorf("called back are %+v, want what was put off", back)
	}
}
