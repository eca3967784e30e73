package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
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
		t.Errorf("stream holds %d messages, want 3", got)
	}
	acks, err = b.PublishBatch(t.Context(), event("one"), event("two"), event("three"))
	if err != nil || !acks[0].Duplicate || !acks[1].Duplicate || !acks[2].Duplicate {
		t.Errorf("repeat of the whole batch: %v, %v, want three duplicates", acks, err)
	}
}

// stored are the ids of a stream's messages, in their order.
func stored(t *testing.T, b *bus.Bus, stream, subjects string) (out []string) {
	t.Helper()
	list, _, err := b.List(t.Context(), stream, subjects, 1, 1000, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		out = append(out, m.Header.Get("Nats-Msg-Id"))
	}
	return out
}

// finish has batches that lie published by somebody else, until nothing lies there any more.
func finish(t *testing.T, b *bus.Bus) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var finishing sync.WaitGroup
	finishing.Go(func() { b.FinishBatches(ctx, 20*time.Millisecond) })
	for messages(t, b, contract.Batches) > 0 && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond) // between two looks
	}
	stop()
	finishing.Wait()
}

func TestPublishBatch_LeavesNothingBehind(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	if _, err := b.PublishBatch(t.Context(), event("one"), event("two")); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, b, contract.Batches); n != 0 {
		t.Errorf("%d messages lie in BATCHES after their batch was published, want none", n)
	}
}

// A publisher may die when nothing, a part, or all of its batch is on its streams, and also when it was never told so.
func TestPublishBatch_IsWholeWhereverItsPublisherDies(t *testing.T) {
	t.Parallel()
	for there := range 4 {
		t.Run(fmt.Sprintf("with %d of 3 published", there), func(t *testing.T) {
			t.Parallel()
			b := bustest.New(t)
			batch := []*nats.Msg{event("one"), event("two"), event("three")}
			parts, err := bus.BatchParts("batch", batch)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Publish(t.Context(), append(parts, batch[:there]...)...); err != nil {
				t.Fatal(err)
			}
			finish(t, b)
			finish(t, b)
			want := []string{"demo/one", "demo/two", "demo/three"}
			if diff := cmp.Diff(want, stored(t, b, contract.Events, "events.>")); diff != "" {
				t.Errorf("what is there after somebody else has finished the batch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPublishBatch_OfWhichAPartIsMissingIsNotPublished(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	var batch []*nats.Msg
	for i := range 5 {
		m := event(fmt.Sprint(i))
		m.Data = bytes.Repeat([]byte{'x'}, 3<<20)
		batch = append(batch, m)
	}
	parts, err := bus.BatchParts("batch", batch)
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 5 {
		t.Fatalf("a batch of 15 MiB has %d parts, want 5", len(parts))
	}
	if err := b.Publish(t.Context(), parts[0], parts[1], parts[2], parts[4]); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	b.FinishBatches(ctx, 10*time.Millisecond)
	if n := messages(t, b, contract.Events); n != 0 {
		t.Errorf("%d events are there of a batch that is not whole, want none", n)
	}
	if err := b.Publish(t.Context(), parts[3]); err != nil { // it was only late
		t.Fatal(err)
	}
	finish(t, b)
	if n := messages(t, b, contract.Events); n != 5 {
		t.Errorf("%d events are there after the missing part has come, want 5", n)
	}
}

func TestNoBatches_ThenNothingOfThemIsOnTheDisk(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	server, err := bus.Embed(bus.EmbedConfig{Dir: dir}, log) // every write is on the disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	b, err := bus.Connect(t.Context(), bus.Defaults(), log, server.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	in := func() (found int) {
		folder := filepath.Join(dir, "jetstream", "$G", "streams", contract.Batches)
		if err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			found += bytes.Count(text, []byte("kunde@example.com"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	parts, err := bus.BatchParts("other", []*nats.Msg{event("three"), event("four")})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), parts...); err != nil {
		t.Fatal(err)
	}
	one := event("one")
	one.Data = []byte(`{"email":"kunde@example.com"}`)
	if _, err := b.PublishBatch(t.Context(), one, event("two")); err != nil {
		t.Fatal(err)
	}
	if in() == 0 {
		t.Fatal("what a published batch held is not on the disk while another is under way, so that this test says nothing")
	}
	if none, err := b.NoBatches(t.Context()); err != nil || none {
		t.Errorf("with a batch under way: %v, %v, want false, nil", none, err)
	}
	finish(t, b)
	if none, err := b.NoBatches(t.Context()); err != nil || !none {
		t.Errorf("with none under way: %v, %v, want true, nil", none, err)
	}
	if n := in(); n != 0 {
		t.Errorf("what it held is there %d times, want none", n)
	}
}

func TestPublishBatch_LeavesOutWhatIsNoBatch(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	odd := contract.BatchMessage("odd", 0, 1, []byte("no batch"))
	parts, err := bus.BatchParts("batch", []*nats.Msg{event("one"), event("two")})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), append([]*nats.Msg{odd, {Subject: contract.BatchSubject("bare")}}, parts...)...); err != nil {
		t.Fatal(err)
	}
	finish(t, b)
	if n := messages(t, b, contract.Events); n != 2 {
		t.Errorf("%d events are there of the batch behind what is none, want 2", n)
	}
}

func TestPublishBatch_ManyAtOnceAllArrive(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	var wg sync.WaitGroup
	for i := range 80 {
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

func TestLater_FiresAtItsTimeWithItsHeaders(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	d := contract.Delivery{
		Event: contract.Event{ShopID: "demo", ID: "e1", Type: "paid", AcceptedAt: time.Now(), Data: []byte("549.50")},
		ID:    "dlv_1", WebhookID: "wh_1", MatchedAt: time.Now(), Attempt: 3,
	}
	at := time.Now().Add(700 * time.Millisecond).Round(0) // by the clock, as the server has it
	if err := b.Publish(t.Context(), d.Later(at)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var fired time.Time
	var got contract.Delivery
	if err := b.Consume(ctx, contract.DueSender, 10, func(m bus.Message) {
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
	testwait.Until(t, "no message is left: the timer goes when it fires, and the delivery when it is acked", func() bool {
		return messages(t, b, contract.Later) == 0 && messages(t, b, contract.Deliveries) == 0
	})
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
	var lag bus.Lag
	testwait.Until(t, "the consumer knows of all three", func() (all bool) { // it is told of what is stored a moment later
		var err error
		if lag, err = b.Lag(t.Context(), contract.LogEvents); err != nil {
			t.Fatal(err)
		}
		return lag.Messages == 3
	})
	if lag.Oldest.Before(before.Add(-time.Second)) || lag.Oldest.After(time.Now().Add(time.Second)) {
		t.Errorf("got %+v, want the oldest to be of now", lag)
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
