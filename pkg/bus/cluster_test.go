package bus_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
)

// The consumer's leader is another node than the stream's, and learns of each event a moment after it was stored.
func TestMatched_SaysNoMoreThanIsTrueInACluster(t *testing.T) {
	t.Parallel()
	b, nodes := bustest.Cluster(t, 50*time.Millisecond)
	nodes.Lead(t, contract.Events, contract.Matcher)
	saysNoMoreThanIsMatched(t, b, 50)
}

// A server tells its publishers that it has stored an event, and its consumers at the same time or a moment later.
func TestMatched_SaysNoMoreThanIsTrueOnOneServer(t *testing.T) {
	t.Parallel()
	saysNoMoreThanIsMatched(t, bustest.New(t), 2000)
}

// saysNoMoreThanIsMatched has events matched one by one, and each time asks how far they were, at once after one was stored.
func saysNoMoreThanIsMatched(t *testing.T, b *bus.Bus, events int) {
	t.Helper()
	var matched atomic.Uint64 // the sequence of the latest event that was answered
	consuming, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- b.Consume(consuming, contract.Matcher, 100, func(m bus.Message) {
			meta, err := m.Metadata()
			if err != nil {
				t.Error(err)
				return
			}
			time.Sleep(time.Millisecond) // a match takes its time
			matched.Store(meta.Sequence.Stream)
			_ = m.Ack() // if it is not heard, what is wanted does not come
		})
	}()
	burst := contract.Event{ID: "burst", ShopID: "bursting", Type: "paid", AcceptedAt: time.Now(), Bulk: true} // nobody matches it
	if err := b.Publish(t.Context(), burst.Message()); err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for i := range events {
		e := contract.Event{ID: fmt.Sprint(i), ShopID: "demo", Type: "paid", AcceptedAt: time.Now()}
		acks, err := b.PublishAcks(t.Context(), e.Message())
		if err != nil {
			t.Fatal(err)
		}
		through, err := b.Matched(0).Of(t.Context(), "demo")
		if err != nil {
			t.Fatal(err)
		}
		if at := acks[0].Sequence; through >= at && matched.Load() < at {
			wrong++
		}
		if through, err = b.Matched(0).Of(t.Context(), "bursting"); err != nil || through != 0 {
			t.Fatalf("events of the shop whose burst waits were matched up to %d, %v; want none", through, err)
		}
	}
	if wrong > 0 {
		t.Errorf("of %d events %d were said to be matched that were not", events, wrong)
	}
	testwait.Until(t, "all are said to be matched", func() bool { // an ack takes a moment
		through, err := b.Matched(0).Of(t.Context(), "demo")
		if err != nil {
			t.Fatal(err)
		}
		return through == uint64(events)+1
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// What was just stored may be asked of a replica that does not have it yet.
func TestList_OverlooksNothingInACluster(t *testing.T) {
	t.Parallel()
	b, nodes := bustest.Cluster(t, 50*time.Millisecond)
	nodes.Lead(t, contract.Events, contract.Matcher)
	for _, from := range []uint64{0, 1, 7} {
		if got, more, err := b.List(t.Context(), contract.Events, "events.single.nobody.>", from, 10, 1<<20); err != nil || len(got) > 0 || more {
			t.Errorf("from %d where nothing lies: %d messages, more %t, %v", from, len(got), more, err)
		}
	}
	const n = 50
	overlooked := 0
	for i := range n {
		e := contract.Event{ID: fmt.Sprint(i), ShopID: "demo", Type: "paid", AcceptedAt: time.Now()}
		acks, err := b.PublishAcks(t.Context(), e.Message())
		if err != nil {
			t.Fatal(err)
		}
		got, more, err := b.List(t.Context(), contract.Events, e.Message().Subject, acks[0].Sequence, 10, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 || more {
			overlooked++
		}
	}
	if overlooked > 0 {
		t.Errorf("of %d messages that were stored %d were overlooked", n, overlooked)
	}
}
