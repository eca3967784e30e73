package sender

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/webhook"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Where an exact number of requests is promised, what waits to leave places for others is not sent early to see who is back.
func TestSender_WhatLeavesPlacesForOthersIsNotCalledBackWhereAttemptsArePromised(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		breaker *shopbellv1.Breaker
		want    int // remembered
	}{
		{"its rules have a breaker", nil, 1},
		{"its attempts are promised", &shopbellv1.Breaker{Failures: proto.Int32(0), HangShare: proto.Float64(0)}, 0},
	} {
		b := setup(t)
		b.start(t, few())
		b.put(t, governed("wh_1", "http://127.0.0.1:1/", &shopbellv1.Policy{Breaker: row.breaker, RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
		d := numbered("wh_1", 1)[0]
		j := &job{d: *d, w: b.sender.webhooks.Get(d.ShopID, d.WebhookID)}
		b.sender.lanes.mu.Lock()
		b.sender.lanes.of(d.WebhookID).puttingOff++
		b.sender.lanes.mu.Unlock()
		if err := b.sender.putOff(t.Context(), j, &putOff{hanging: fewHanging, until: time.Now().Add(time.Hour), decided: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if got := b.waiting(); got != row.want || len(b.onTheWay(t)) == 0 {
			t.Errorf("%s: %d are remembered, want %d, and its timer is set", row.name, got, row.want)
		}
	}
}

// More receivers of one shop hang, with one event each, than the sender has places. Another shop's delivery has one at once.
func TestSender_ReceiversThatHangLeavePlacesForOthers(t *testing.T) {
	t.Parallel()
	const places, hang = 128, 300
	b := setup(t)
	free := make(chan struct{})
	in := count(t, func(http.ResponseWriter, int, int) int {
		<-free
		return 0
	})
	t.Cleanup(func() { close(free) }) // before the receiver is closed, which waits for its answers
	well := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	cfg := few()
	cfg.MaxInFlight = places
	b.start(t, cfg)
	send := func(from, to int) {
		for i := from; i < to; i++ {
			id := fmt.Sprint("wh_", i)
			b.put(t, governed(id, fmt.Sprint(in.url, "/", i), &shopbellv1.Policy{}))
			b.send(t, numbered(id, 1))
		}
	}
	send(0, fewHanging)
	eventually(t, "many hang", func() bool {
		b.sender.lanes.mu.Lock()
		defer b.sender.lanes.mu.Unlock()
		return b.sender.lanes.crowd.hanging >= fewHanging
	})
	send(fewHanging, hang)
	other := governed("wh_well", well.url, &shopbellv1.Policy{})
	other.Webhook.ShopId = "other"
	b.put(t, other)
	its := numbered("wh_well", 1)[0]
	its.ShopID = "other"
	b.publish(t, its.Message())
	eventually(t, "another shop's is delivered", func() bool { return len(well.delivered()) == 1 })
	if n := in.requests.Load(); n >= places {
		t.Errorf("%d of %d places were taken by receivers that hang", n, places)
	}
	var why string
	for _, r := range b.records(t, hang-fewHanging) {
		if c := r.GetChange(); c.GetStatus() == delayed {
			why = c.GetReason()
		}
	}
	if !strings.Contains(why, "requests of its shop wait for answers that do not come") {
		t.Errorf("the others wait because %q", why)
	}
}

func TestCrowd_IsAShopsOwn(t *testing.T) {
	t.Parallel()
	const places = 1024
	now := time.Now()
	for _, row := range []struct {
		name   string
		change func(l *lanes, j *job, all []*underway)
		want   bool
	}{
		{"many hang", func(*lanes, *job, []*underway) {}, true},
		{"they are another shop's", func(_ *lanes, j *job, _ []*underway) { j.d.ShopID = "other" }, false},
		{"its receiver took one lately", func(l *lanes, _ *job, _ []*underway) { l.of("wh_1").health.success = now.Add(-time.Minute) }, false},
		{"it did, and has failed since", func(l *lanes, _ *job, _ []*underway) {
			l.of("wh_1").health = health{failures: 1, success: now.Add(-time.Minute)}
		}, true},
		{"it took one long ago", func(l *lanes, _ *job, _ []*underway) { l.of("wh_1").health.success = now.Add(-2 * idleAfter) }, true},
		{"the lane holds", func(l *lanes, _ *job, _ []*underway) { l.of("wh_1").held = true }, false},
		{"somebody asked for it", func(_ *lanes, j *job, _ []*underway) { j.d.Asked = true }, false},
		{"it has waited for long", func(_ *lanes, j *job, _ []*underway) { j.d.MatchedAt = now.Add(-2 * mostRoom) }, false},
		{"all are over", func(l *lanes, _ *job, all []*underway) {
			for _, u := range all {
				l.crowd.end(u)
			}
			if l.crowd.hanging != 0 || len(l.crowd.of) != 0 {
				t.Errorf("%d hang, of %d shops, when all are over", l.crowd.hanging, len(l.crowd.of))
			}
		}, false},
	} {
		l := newLanes(places, func() int { return 1 })
		var all []*underway
		for range places / 8 {
			all = append(all, l.crowd.begin("demo"))
		}
		j := &job{d: contract.Delivery{ID: "dlv", WebhookID: "wh_1", Attempt: 1, MatchedAt: now}, w: &webhook.Webhook{URL: "https://one.example/", Rules: &webhook.Rules{}}}
		j.d.ShopID = "demo"
		if p := l.putOff(j, now); p != nil {
			t.Fatalf("%s: it is put off for what has only begun: %s", row.name, p.why())
		}
		l.lookAtCrowd(time.Now().Add(2 * hangsAfter))
		row.change(l, j, all)
		if p := l.putOff(j, now); (p != nil) != row.want {
			t.Errorf("%s: it is put off: %v, want %t", row.name, p, row.want)
		}
	}
}
