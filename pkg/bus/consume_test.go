package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
)

// publishEvents publishes so many events, which are named by their number.
func publishEvents(t *testing.T, b *bus.Bus, n int) {
	t.Helper()
	for i := range n {
		if err := b.Publish(t.Context(), event(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
}

// inBatches are the ways in which messages are handed out in batches.
var inBatches = map[string]func(b *bus.Bus, ctx context.Context, handle func(context.Context, []bus.Message) error) error{
	"Batches": func(b *bus.Bus, ctx context.Context, handle func(context.Context, []bus.Message) error) error {
		return b.Batches(ctx, contract.Matcher, bus.Batching{Workers: 2, Size: 10}, handle)
	},
	"BatchesThen": func(b *bus.Bus, ctx context.Context, handle func(context.Context, []bus.Message) error) error {
		return b.BatchesThen(ctx, contract.Matcher, bus.Batching{Workers: 2, Size: 10}, func(ctx context.Context, batch []bus.Message) (func() error, error) {
			return func() error { return handle(ctx, batch) }, nil
		})
	},
	"Collect": func(b *bus.Bus, ctx context.Context, handle func(context.Context, []bus.Message) error) error {
		return b.Collect(ctx, contract.Matcher, 10, time.Millisecond, handle)
	},
}

func TestBatches_ComeAgainAfterAnErrorAndAreAckedOnce(t *testing.T) {
	t.Parallel()
	for name, take := range inBatches {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bustest.New(t)
			publishEvents(t, b, 50)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var mu sync.Mutex // guards seen and failed
			seen, failed := map[string]bool{}, false
			err := take(b, ctx, func(_ context.Context, batch []bus.Message) error {
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
			testwait.Until(t, "nothing waits after all were acked", func() bool {
				waiting, unanswered, err := b.Pending(t.Context(), contract.Matcher)
				return err == nil && waiting == 0 && unanswered == 0
			})
		})
	}
}

// What comes alone is handed over at once, also when another came just before, and what comes in numbers together.
func TestBatches_WaitForMoreOnlyWhenMessagesComeTogether(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	const linger = time.Minute // longer than the test
	got := make(chan int)
	ctx, stop := context.WithCancel(t.Context())
	var atWork sync.WaitGroup
	atWork.Go(func() {
		err := b.Batches(ctx, contract.Matcher, bus.Batching{Workers: 1, Size: 3, Linger: linger}, func(_ context.Context, batch []bus.Message) error {
			got <- len(batch)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	rows := []struct{ publish, want int }{{3, 3}}
	for range 11 { // from the second on each takes an eighth off the time between them: of a minute 16 s are left, and 14 with the next
		rows = slices.Insert(rows, 0, struct{ publish, want int }{1, 1})
	}
	for i, row := range rows {
		for n := range row.publish {
			if err := b.Publish(ctx, event(fmt.Sprintf("%d-%d", i, n))); err != nil {
				t.Fatal(err)
			}
		}
		if n := <-got; n != row.want {
			t.Errorf("of %d that were published %d came together, want %d", row.publish, n, row.want)
		}
	}
	stop()
	atWork.Wait()
}

// What is left of a batch's work holds nothing up, and the batch is answered only when it is done.
func TestBatchesThen_GoOnWhileSomethingIsLeftToDo(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	publishEvents(t, b, 3)
	ctx, stop := context.WithCancel(t.Context())
	handled, rest, ended := make(chan bool, 3), make(chan bool), make(chan error, 1)
	go func() {
		ended <- b.BatchesThen(ctx, contract.Matcher, bus.Batching{Workers: 1, Size: 1}, func(context.Context, []bus.Message) (func() error, error) {
			handled <- true
			return func() error { <-rest; return nil }, nil
		})
	}()
	for range 3 { // by one worker
		<-handled
	}
	if _, unanswered, err := b.Pending(t.Context(), contract.Matcher); err != nil || unanswered != 3 {
		t.Errorf("%d messages are unanswered while something is left to do, want 3 (%v)", unanswered, err)
	}
	stop()
	select {
	case err := <-ended:
		t.Errorf("it returned (%v) while something was left to do", err)
	case <-time.After(50 * time.Millisecond): // as long as a fault may take to show
	}
	close(rest)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	testwait.Until(t, "all are answered", func() bool {
		waiting, unanswered, err := b.Pending(t.Context(), contract.Matcher)
		return err == nil && waiting == 0 && unanswered == 0
	})
}

// collect has batches collected, and gives how many messages each has. End ends it and waits for that.
func collect(t *testing.T, b *bus.Bus, size int, pause time.Duration) (got <-chan int, end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	sizes, ended := make(chan int), make(chan error, 1)
	go func() {
		ended <- b.Collect(ctx, contract.LogEvents, size, pause, func(_ context.Context, batch []bus.Message) error {
			sizes <- len(batch)
			return nil
		})
	}()
	return sizes, func() {
		t.Helper()
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute): // six times what it may take
			t.Error("it does not end")
		}
	}
}

func TestCollect_TakesWhatLiesThere(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	publishEvents(t, b, 50)
	testwait.Until(t, "the consumer knows of all", func() bool { // it is told of what is stored a moment later
		waiting, _, err := b.Pending(t.Context(), contract.LogEvents)
		return err == nil && waiting == 50
	})
	got, end := collect(t, b, 20, time.Minute) // which is longer than the test: full batches are followed by the next at once
	if sizes := []int{<-got, <-got, <-got}; !slices.Equal(sizes, []int{20, 20, 10}) {
		t.Errorf("50 messages came in batches of %v, want 20, 20 and 10", sizes)
	}
	publishEvents(t, b, 1)
	end() // while it pauses
}

// What comes when nothing has come for long is handed over at once; what comes after that, together.
func TestCollect_WaitsForWhatComesAndThenForMore(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	const pause = 10 * time.Second // longer than it takes to publish 50 events
	got, end := collect(t, b, 100, pause)
	time.Sleep(100 * time.Millisecond) // it looks, and finds nothing; if it is slower it finds the one, which is no failure
	publishEvents(t, b, 1)
	select {
	case n := <-got:
		if n != 1 {
			t.Errorf("%d messages, want the one", n)
		}
	case <-time.After(pause / 2):
		t.Error("what came alone had to wait")
	}
	for i := range 50 {
		if err := b.Publish(t.Context(), event(fmt.Sprintf("more-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := <-got; n != 50 {
		t.Errorf("%d of 50 messages came together, want all", n)
	}
	end()
}

// What is handed out in the moment in which it ends is handled, and does not lie with nobody until its AckWait.
func TestCollect_LeavesNothingUnansweredWhenItEnds(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	for i := range 100 {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- b.Collect(ctx, contract.LogEvents, 100, time.Millisecond, func(context.Context, []bus.Message) error { return nil })
		}()
		time.Sleep(3 * time.Millisecond) // it waits for something by then, nearly always: of 100 times some have to meet the moment
		go func() {
			time.Sleep(time.Duration(i) * 5 * time.Microsecond) // so it ends before, while and after the message is handed out
			stop()
		}()
		if err := b.Publish(t.Context(), event(fmt.Sprintf("%d", i))); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	testwait.Until(t, "none is with nobody", func() bool {
		_, unanswered, err := b.Pending(t.Context(), contract.LogEvents)
		return err == nil && unanswered == 0
	})
}

// dial dials what it gives, whatever address it is asked for.
type dial func() (address string)

func (d dial) Dial(network, _ string) (net.Conn, error) { return net.Dial(network, d()) }

// A bus that was away is asked again when it is back.
func TestCollect_GoesOnWhenTheBusIsBack(t *testing.T) {
	t.Parallel()
	var at atomic.Value // the address of the server; each has another port: its own may be taken while it is away
	cfg := bus.EmbedConfig{Dir: t.TempDir(), Sync: 100 * time.Millisecond, Host: "127.0.0.1", Port: -1}
	start := func() *bus.Embedded {
		server, err := bus.Embed(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		at.Store(strings.TrimPrefix(server.URL(), "nats://"))
		return server
	}
	server := start()
	b, err := bus.Connect(t.Context(), bus.Defaults(), slog.New(slog.DiscardHandler), nats.SetCustomDialer(dial(func() string { return at.Load().(string) })))
	if err != nil {
		t.Fatal(err)
	}
	got, end := collect(t, b, 100, time.Millisecond)
	publishEvents(t, b, 1)
	<-got
	server.Stop()
	server = start()
	again, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.Publish(again, event("after")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
	case <-again.Done():
		t.Error("what was published after the bus had been away is not handed out")
	}
	end()
	b.Close()
	server.Stop()
}

func TestCollect_EndsWhileTheBusIsAway(t *testing.T) {
	t.Parallel()
	b, server := bustest.Server(t)
	got, end := collect(t, b, 100, time.Millisecond)
	publishEvents(t, b, 1)
	<-got
	server.Stop()
	end()
}
