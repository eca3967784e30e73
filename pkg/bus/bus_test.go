package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
)

func event(id string) *nats.Msg {
	e := contract.Event{ShopID: "demo", ID: id, Type: "order_created", AcceptedAt: time.Now(), Data: []byte(`{"n":1}`)}
	return e.Message()
}

func messages(t *testing.T, b *bus.Bus, stream string) uint64 {
	t.Helper()
	s, err := b.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

func TestPublishBatch_IsWholeAndToleratesRepeats(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	if _, err := b.PublishAcks(t.Context(), event("two")); err != nil {
		t.Fatal(err)
	}
	acks, err := b.PublishBatch(t.Context(), event("one"), event("two"), event("three"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, false} {
		if acks[i].Duplicate != want {
			t.Errorf("ack %d: duplicate %v, want %v", i, acks[i].Duplicate, want)
		}
	}
	if got := messages(t, b, contract.Events); got != 3 {
		t.Errorf("stream holds %d messages, want 3: the probing must store nothing", got)
	}
	acks, err = b.PublishBatch(t.Context(), event("one"), event("two"), event("three"))
	if err != nil || !acks[0].Duplicate || !acks[1].Duplicate || !acks[2].Duplicate {
		t.Errorf("repeat of the whole batch: %v, %v, want three duplicates", acks, err)
	}
}

func TestPublishBatch_ManyAtOnceAllArrive(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	var wg sync.WaitGroup
	for i := range 80 { // more than the server keeps in flight
		wg.Go(func() {
			var batch []*nats.Msg
			for j := range 20 {
				batch = append(batch, event(fmt.Sprintf("%d-%d", i, j)))
			}
			if _, err := b.PublishBatch(t.Context(), batch...); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := messages(t, b, contract.Events); got != 1600 {
		t.Errorf("stream holds %d messages, want 1600", got)
	}
}

func TestPublish_EndsWithItsContextWhenTheBusIsAway(t *testing.T) {
	t.Parallel()
	b, server := bustest.Server(t)
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := b.Publish(ctx, event("one")); err == nil {
		t.Error("Publish without a bus: no error")
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("Publish without a bus took %s, want about 300ms", took)
	}
}

func TestBatches_ComeAgainAfterAnErrorAndAreAckedOnce(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	for i := range 50 {
		if err := b.Publish(t.Context(), event(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex // guards seen and failed
	seen, failed := map[string]bool{}, false
	err := b.Batches(ctx, contract.Matcher, bus.Batching{Workers: 2, Size: 10}, func(_ context.Context, batch []bus.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if !failed {
			failed = true
			return errors.New("first batch fails")
		}
		for _, m := range batch {
			e, err := contract.ParseEvent(m.Headers(), m.Data())
			if err != nil {
				return err
			}
			seen[e.ID] = true
		}
		if len(seen) == 50 {
			stop()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		waiting, unanswered, err := b.Pending(t.Context(), contract.Matcher)
		if err == nil && waiting == 0 && unanswered == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after all were acked: %d waiting, %d unanswered, %v, want 0, 0, nil", waiting, unanswered, err)
		}
	}
}

func TestLater_FiresAtItsTimeWithItsHeaders(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	d := contract.Delivery{
		Event: contract.Event{ShopID: "demo", ID: "e1", Type: "paid", AcceptedAt: time.Now(), Data: []byte("549.50")},
		ID:    "dlv_1", WebhookID: "wh_1", MatchedAt: time.Now(), Attempt: 3,
	}
	at := time.Now().Add(700 * time.Millisecond)
	if err := b.Publish(t.Context(), d.Later(at)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	var fired time.Time
	var got contract.Delivery
	if err := b.Consume(ctx, contract.Sender, 10, func(m bus.Message) {
		fired = time.Now()
		got, _ = contract.ParseDelivery(m.Headers(), m.Data())
		_ = m.Ack()
		stop()
	}); err != nil {
		t.Fatal(err)
	}
	if got.ID != "dlv_1" || got.Attempt != 3 || string(got.Data) != "549.50" {
		t.Fatalf("fired delivery = %+v, want dlv_1's attempt 3", got)
	}
	if fired.Before(at) {
		t.Errorf("fired %s early", at.Sub(fired))
	}
	for deadline := time.Now().Add(10 * time.Second); messages(t, b, contract.Deliveries) != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("messages are left: the timer goes when it fires, and the delivery when it is acked")
		}
	}
}

func TestRead_GivesWhatIsStoredFromAPlaceOn(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	const n = 600 // more than is asked for together
	var msgs []*nats.Msg
	for i := range n {
		for _, shop := range []string{"tulip", "other"} {
			e := contract.Event{ShopID: shop, ID: fmt.Sprint(i), Type: "paid", AcceptedAt: time.Now(), Data: []byte("{}")}
			msgs = append(msgs, e.Message())
		}
	}
	if err := b.Publish(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
	read := func(from bus.From, most int) (ids []string, last uint64) {
		t.Helper()
		err := b.Read(t.Context(), contract.Events, contract.ShopEventSubjects("tulip"), from, func(m bus.Message) bool {
			e, err := contract.ParseEvent(m.Headers(), m.Data())
			if err != nil || e.ShopID != "tulip" {
				t.Fatalf("got %v of %s, want tulip's alone", err, e.ShopID)
			}
			meta, err := m.Metadata()
			if err != nil {
				t.Fatal(err)
			}
			ids, last = append(ids, e.ID), meta.Sequence.Stream
			return len(ids) < most
		})
		if err != nil {
			t.Fatal(err)
		}
		return ids, last
	}
	all, _ := read(bus.From{Time: time.Now().Add(-time.Hour)}, n+1)
	if len(all) != n || all[0] != "0" || all[n-1] != fmt.Sprint(n-1) {
		t.Fatalf("got %d from %s to %s, want all %d in their order", len(all), all[0], all[len(all)-1], n)
	}
	some, last := read(bus.From{Sequence: 1}, 10)
	rest, _ := read(bus.From{Sequence: last + 1}, n)
	if len(some) != 10 || len(rest) != n-10 || rest[0] != "10" {
		t.Errorf("got %d and then %d from %s on, want 10 and the rest", len(some), len(rest), rest[0])
	}
	if none, _ := read(bus.From{Time: time.Now().Add(time.Hour)}, n); len(none) != 0 {
		t.Errorf("got %d from a time to come on, want none", len(none))
	}
}

func TestLag_IsWhatIsStoredAndNotAnswered(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	if lag, err := b.Lag(t.Context(), contract.LogEvents); err != nil || lag.Messages != 0 || !lag.Oldest.IsZero() {
		t.Errorf("of nothing: got %+v, %v; want none", lag, err)
	}
	before := time.Now()
	if err := b.Publish(t.Context(), event("1"), event("2"), event("3")); err != nil {
		t.Fatal(err)
	}
	lag, err := b.Lag(t.Context(), contract.LogEvents)
	if err != nil || lag.Messages != 3 || lag.Oldest.Before(before.Add(-time.Second)) || lag.Oldest.After(time.Now().Add(time.Second)) {
		t.Errorf("got %+v, %v; want 3 messages, the oldest of now", lag, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	taken := make(chan bus.Message, 3)
	ended := make(chan error, 1)
	go func() { ended <- b.Consume(ctx, contract.LogEvents, 3, func(m bus.Message) { taken <- m }) }()
	first, second := <-taken, <-taken
	<-taken
	if err := second.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lag, err := b.Lag(t.Context(), contract.LogEvents); err != nil || lag.Messages != 2 || lag.Oldest.IsZero() {
		t.Errorf("one of three answered: got %+v, %v; want two, and the first still", lag, err)
	}
	if err := first.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
