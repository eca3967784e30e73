package sender

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// inAnHour is a policy whose second and last attempt is far away, and switches the webhook off if it is answered 410.
func inAnHour() *shopbellv1.Policy {
	return &shopbellv1.Policy{
		RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}, DisableCodes: []int32{410}, DisableAfter: proto.String(profile.LastAttempt),
	}
}

// Too few have failed for the lane to hold.
func TestSender_SendsWhatWaitsWhenItsReceiverIsBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in, down := countOnceUp(t)
	b.start(t, few())
	b.put(t, governed("wh_1", in.url, inAnHour()))
	all := numbered("wh_1", 5)
	b.send(t, all[:4])
	testwait.Until(t, "four wait for their time", func() bool { return b.waiting() == 4 })
	down.Store(false)
	b.send(t, all[4:])
	wantAll(t, in, 5)
	b.empty(t)
	again := 0
	for _, r := range b.records(t, 9) {
		if a := r.GetAttempt(); a.GetStatus() == delivered && a.GetAttempt().GetNumber() == 2 && strings.Contains(a.GetReason(), "before it was due") {
			again++
		}
		if c := r.GetChange(); c != nil {
			t.Errorf("recorded %v, want attempts alone", c)
		}
	}
	if again != 4 {
		t.Errorf("%d say that they were delivered early, at their second attempt, want the 4 that had waited", again)
	}
}

func TestSender_WhatIsSentEarlyAndFailsAgainComesInItsTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := count(t, func(_ http.ResponseWriter, number, _ int) int {
		if number < 2 { // which it does not like
			return 410
		}
		return 0
	})
	b.start(t, few())
	b.put(t, governed("wh_1", in.url, inAnHour()))
	all := numbered("wh_1", 4)
	timers := func() (out []time.Time) {
		for _, raw := range b.onTheWay(t) {
			d, due, err := contract.ParseLater(raw.Header, raw.Data)
			if err != nil || d.Early {
				return nil // it is on its way
			}
			if d.Counted() != 2 {
				t.Errorf("%s waits for the attempt that the schedule counts as %d, want the second", d.ID, d.Counted())
			}
			out = append(out, due)
		}
		slices.SortFunc(out, time.Time.Compare)
		return out
	}
	b.send(t, all[:2])
	testwait.Until(t, "two wait for their time", func() bool { return len(timers()) == 2 && in.requests.Load() == 2 })
	before := timers()
	b.send(t, all[2:3])
	testwait.Until(t, "they were sent again, and wait", func() bool { return len(timers()) == 2 && in.requests.Load() == 5 })
	if after := timers(); !slices.EqualFunc(before, after, time.Time.Equal) {
		t.Errorf("they are due at %v, and were at %v", after, before)
	}
	time.Sleep(lately) // so that the receiver looks as if it had been away
	b.send(t, all[3:])
	wantAll(t, in, 2)
	b.records(t, 6)
	if got := in.requests.Load(); got != 6 {
		t.Errorf("%d requests, want 6: each is sent early once", got)
	}
}

func TestHealth_FailuresBetweenSuccessesAreOfWhatIsSent(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, row := range []struct {
		name string
		is   health
		want bool
	}{
		{"nothing is known", health{}, false},
		{"one failed", health{failures: 1, success: now.Add(-time.Hour)}, false},
		{"two did, and none ever succeeded", health{failures: 2}, true},
		{"two did, and none has succeeded for a while", health{failures: 2, success: now.Add(-2 * lately)}, true},
		{"many did, beside those that succeed", health{failures: 9, success: now.Add(-lately / 2)}, false},
	} {
		if got := row.is.away(now); got != row.want {
			t.Errorf("%s: away is %t", row.name, got)
		}
	}
}

// What began before its receiver or the host came back, and failed after that or just before, is not among what is called back then.
func TestLanes_CallBackWhatBeganBeforeItsReceiverCameBack(t *testing.T) {
	t.Parallel()
	const (
		nobody  = "connect"
		refuses = "http_status"
		takes   = ""
	)
	type one struct{ webhook, class string }
	for _, row := range []struct {
		name          string
		before, after []one // what is heard before the attempt begins, and after
		fails         string
		early         bool
	}{
		{"its receiver is back", []one{{"wh_1", refuses}, {"wh_1", refuses}}, []one{{"wh_1", takes}}, refuses, true},
		{"the host is", []one{{"wh_2", nobody}, {"wh_2", nobody}}, []one{{"wh_2", refuses}}, nobody, true},
		{"the host is, and has answered others since", []one{{"wh_2", nobody}, {"wh_2", nobody}}, []one{{"wh_2", takes}, {"wh_3", takes}}, nobody, true},
		{"the host is, which answers this one", []one{{"wh_2", nobody}, {"wh_2", nobody}}, []one{{"wh_2", takes}}, refuses, false},
		{"nobody is back", []one{{"wh_1", nobody}, {"wh_2", nobody}}, []one{{"wh_2", nobody}}, nobody, false},
		{"they came back before", []one{{"wh_1", nobody}, {"wh_1", nobody}, {"wh_1", takes}}, []one{{"wh_1", takes}}, nobody, false},
		{"nobody was away", []one{{"wh_1", takes}}, []one{{"wh_1", takes}}, nobody, false},
	} {
		l := newLanes(8, func() int { return 1 })
		l.broke = func(what hold) { t.Errorf("%s: a lane holds: %s", row.name, what.why) }
		note := func(o one, began time.Time) (*job, *exchange) {
			w := &webhook.Webhook{URL: "https://one.example/in/" + o.webhook, Rules: &webhook.Rules{}}
			j := &job{d: contract.Delivery{ID: "dlv_1", WebhookID: o.webhook, Due: time.Now().Add(time.Hour)}, w: w}
			x, status := &exchange{class: o.class, began: began}, retrying
			switch o.class {
			case takes:
				x.code, status = 200, delivered
			case refuses:
				x.code = 500
			}
			l.note(j, x, verdict{status: status}, false)
			return j, x
		}
		for _, o := range row.before {
			note(o, time.Now())
		}
		began := time.Now()
		for _, o := range row.after {
			note(o, time.Now())
		}
		j, x := note(one{"wh_1", row.fails}, began)
		if why, early := l.wait("wh_1", laterOf(&j.d, x)); early != row.early || why != "" {
			t.Errorf("%s: it is called back early %t, want %t (%q)", row.name, early, row.early, why)
		}
		if remembered := l.failing == 1; remembered == row.early {
			t.Errorf("%s: it is remembered: %t", row.name, remembered)
		}
	}
}

func TestLanes_RememberWhatWaitsForLong(t *testing.T) {
	t.Parallel()
	l := newLanes(8, func() int { return 1 })
	now := time.Now()
	l.wait("wh_waits", later{deliveryID: "1", due: now.Add(time.Hour)})
	l.wait("wh_over", later{deliveryID: "2", due: now.Add(time.Second)})
	l.forget(now.Add(40 * time.Minute))
	if l.all["wh_waits"] == nil || l.failing != 1 {
		t.Errorf("%d are remembered, want the one that still waits", l.failing)
	}
	if l.all["wh_over"] != nil {
		t.Error("a lane in which nothing goes on is remembered")
	}
}
