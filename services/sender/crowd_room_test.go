package sender

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
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
		d := numbered("wh_1", 1)[0]
		b.publish(t, d.Message())
		taken := b.taken(t)
		b.start(t, few())
		b.put(t, governed("wh_1", "http://127.0.0.1:1/", &shopbellv1.Policy{Breaker: row.breaker, RetrySchedule: []*durationpb.Duration{durationpb.New(time.Hour)}}))
		j := &job{d: *d, m: taken, w: b.sender.webhooks.Get(d.ShopID, d.WebhookID)}
		b.sender.lanes.mu.Lock()
		b.sender.lanes.of(d.WebhookID).puttingOff++
		b.sender.lanes.mu.Unlock()
		if err := b.sender.putOff(t.Context(), j, &putOff{hanging: fewHanging, until: time.Now().Add(time.Hour), decided: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if got := b.waiting(); got != row.want || len(b.stored(t, contract.Later)) == 0 {
			t.Errorf("%s: %d are remembered, want %d, and its timer is set", row.name, got, row.want)
		}
	}
}

// More receivers of one shop hang, with one event each, than the sender has places. Another shop's delivery has one at once.
func TestSender_ReceiversThatHangLeavePlacesForOthers(t *testing.T) {
	t.Parallel()
	const places, hang = 128, 300
	b := setup(t)
	in, _ := countOnceFree(t)
	well := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	cfg := few()
	cfg.MaxInFlight = places
	b.start(t, cfg)
	send := func(from, to int) {
		for i := from; i < to; i++ {
			id := fmt.Sprint("wh_", i)
			b.put(t, governed(id, fmt.Sprint(in.url, "/", i), &shopbellv1.Policy{Timeout: durationpb.New(time.Minute)}))
			b.send(t, numbered(id, 1))
		}
	}
	send(0, fewHanging)
	testwait.Until(t, "many hang", func() bool {
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
	testwait.Until(t, "another shop's is delivered", func() bool { return len(well.delivered()) == 1 })
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

// All at once, before any of them is known to hang.
func TestSender_ReceiversThatAreCalledAtOnceLeavePlacesForOthers(t *testing.T) {
	t.Parallel()
	const places, webhooks = 128, 300
	b := setup(t)
	in, free := countOnceFree(t)
	well := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	cfg := few()
	cfg.MaxInFlight = places
	b.start(t, cfg)
	var all []*nats.Msg
	for i := range webhooks {
		id := fmt.Sprint("wh_", i)
		b.put(t, governed(id, fmt.Sprint(in.url, "/", i), &shopbellv1.Policy{Timeout: durationpb.New(time.Minute)}))
		all = append(all, numbered(id, 1)[0].Message())
	}
	b.publish(t, all...)
	testwait.Until(t, "its shop has what it may have", func() bool { return in.requests.Load() == places*7/8 })
	other := governed("wh_well", well.url, &shopbellv1.Policy{})
	other.Webhook.ShopId = "other"
	b.put(t, other)
	for i := range places { // one after the other: each gives its place back
		its := numbered("wh_well", i+1)[i]
		its.ShopID = "other"
		b.publish(t, its.Message())
		testwait.Until(t, "another shop's is delivered", func() bool { return len(well.delivered()) == i+1 })
	}
	if n := in.requests.Load(); n != places*7/8 {
		t.Errorf("%d requests are under way to receivers that hang, want %d of %d", n, places*7/8, places)
	}
	free()
	testwait.Until(t, "all others follow", func() bool { return len(in.delivered()) == webhooks })
}

func TestLanes_LastPlacesAreForShopsThatHaveFew(t *testing.T) {
	t.Parallel()
	l, begun := lanesFor(16, 1) // of which two are for them
	of := func(shop string, i int) *job {
		j := jobFor(fmt.Sprint(shop, i), fmt.Sprint(shop, i), profile.Policy{})
		j.d.ShopID, j.w.ShopID = shop, shop
		return j
	}
	for i := range 20 {
		l.admit(of("large", i))
	}
	if len(*begun) != 14 {
		t.Fatalf("%d are begun of a shop that has many, want 14 of 16", len(*begun))
	}
	for i := range 4 {
		l.admit(of("small", i))
	}
	l.admit(of("tiny", 0))
	step := func(end int, want ...string) {
		t.Helper()
		before := len(*begun)
		l.done((*begun)[end], time.Millisecond)
		if got := names((*begun)[before:]); !slices.Equal(got, want) {
			t.Errorf("then %v begin, want %v", got, want)
		}
	}
	if got := names((*begun)[14:]); !slices.Equal(got, []string{"small0", "small1"}) {
		t.Errorf("of others %v are begun, want two", got)
	}
	step(0, "large14") // it has the place of one of its own
	step(14, "small2")
	step(15, "small3")
	step(1, "large15")
	step(17, "tiny0") // behind the last small one
	step(18)          // nobody waits who has few, and the place stays free
	l.admit(of("tiny", 1))
	if got := (*begun)[len(*begun)-1].d.ID; got != "tiny1" {
		t.Errorf("at once begins %s, want tiny1", got)
	}
}

func TestLanes_PutOffWhatComesBehindALongLine(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l, _ := lanesFor(16, 1)
	of := func(shop string, i int) *job {
		j := jobFor(fmt.Sprint(shop, i), fmt.Sprint(shop, i), profile.Policy{})
		j.d.ShopID, j.w.ShopID, j.d.MatchedAt, j.w.URL = shop, shop, now, "https://one.example/"
		return j
	}
	for i := range 14 + longLine {
		if p := l.putOff(of("large", i), now); p != nil {
			t.Fatalf("%d: it is put off: %s", i, p.why())
		}
		l.of(fmt.Sprint("large", i)).health.success = now // they are well, for all that is known
		l.admit(of("large", i))
	}
	if p := l.putOff(of("large", 1), now); p == nil || !strings.Contains(p.why(), fmt.Sprint(longLine, " deliveries of its shop wait for a place")) {
		t.Errorf("what comes behind %d is put off: %v", longLine, p)
	}
	if p := l.putOff(of("other", 1), now); p != nil {
		t.Errorf("another shop's is put off: %s", p.why())
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
