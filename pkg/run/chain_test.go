package run_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"shopbell.dev/pkg/run"
)

var quiet = slog.New(slog.DiscardHandler)

// diary is what services did, in order.
type diary struct {
	mu      sync.Mutex // guards entries
	entries []string
}

func (d *diary) note(entry string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, entry)
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.entries)
}

// service is a function that is one.
type service func(ctx context.Context, ready func()) error

func (s service) Run(ctx context.Context, ready func()) error { return s(ctx, ready) }

// good notes that it begins and ends, and works until it is told to end.
func good(d *diary, name string) run.Named {
	return run.Named{Name: name, Service: service(func(ctx context.Context, ready func()) error {
		d.note(name + " begins")
		ready()
		ready() // twice is once
		<-ctx.Done()
		d.note(name + " ends")
		return nil
	})}
}

func named(name string, s service) run.Named { return run.Named{Name: name, Service: s} }

// chain runs a chain whose context ends when until returns, and gives up on one that hangs.
func chain(t *testing.T, health *run.Health, stopTimeout time.Duration, until func(), links ...run.Named) error {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- run.Chain(ctx, quiet, stopTimeout, health, links...) }()
	go func() { until(); stop() }()
	select {
	case err := <-done:
		return err
	case <-time.After(2 * time.Minute):
		t.Fatal("the chain hangs")
		return nil
	}
}

// waitReady may be called beside the test, which must not be ended from there.
func waitReady(t *testing.T, health *run.Health) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if ready, _ := health.Ready(); ready {
			return
		}
		if time.Now().After(deadline) {
			t.Error("the chain is never ready")
			return
		}
	}
}

func never() { select {} }

func TestChain_StartsLeftToRightAndStopsRightToLeft(t *testing.T) {
	t.Parallel()
	var d diary
	var health run.Health
	if ready, _ := health.Ready(); ready {
		t.Error("ready before anything has begun")
	}
	err := chain(t, &health, time.Minute, func() { waitReady(t, &health) }, good(&d, "log"), good(&d, "sender"), good(&d, "ingest"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"log begins", "sender begins", "ingest begins", "ingest ends", "sender ends", "log ends"}
	if diff := cmp.Diff(want, d.read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	ready, rooms := health.Ready()
	if ready {
		t.Error("ready after the end")
	}
	if diff := cmp.Diff([]string{"log", "sender", "ingest"}, rooms); diff != "" {
		t.Errorf("rooms that were open (-want +got):\n%s", diff)
	}
}

func TestChain_StartsTheNextOnlyWhenTheOneBeforeIsReady(t *testing.T) {
	t.Parallel()
	var d diary
	var health run.Health
	slow := named("slow", func(ctx context.Context, ready func()) error {
		if ok, rooms := health.Ready(); ok || len(rooms) > 0 {
			t.Errorf("ready %v with %v before anybody is", ok, rooms)
		}
		d.note("slow is getting ready")
		ready()
		<-ctx.Done()
		return nil
	})
	if err := chain(t, &health, time.Minute, func() { waitReady(t, &health) }, slow, good(&d, "next")); err != nil {
		t.Fatal(err)
	}
	if got := d.read(); got[0] != "slow is getting ready" {
		t.Errorf("%q came first, want slow to be ready before next begins", got)
	}
}

func TestChain_IsNotReadyAnyMoreWhenTheFirstIsStopped(t *testing.T) {
	t.Parallel()
	var d diary
	var health run.Health
	last := named("last", func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		if ok, _ := health.Ready(); ok {
			t.Error("ready while it is being stopped")
		}
		return nil
	})
	if err := chain(t, &health, time.Minute, func() { waitReady(t, &health) }, good(&d, "first"), last); err != nil {
		t.Fatal(err)
	}
}

func TestChain_StopsAllWhenOneFails(t *testing.T) {
	t.Parallel()
	var d diary
	var health run.Health
	broken := named("sender", func(_ context.Context, ready func()) error {
		ready()
		waitReady(t, &health)
		return errors.New("disk full")
	})
	err := chain(t, &health, time.Minute, never, good(&d, "log"), broken, good(&d, "ingest"))
	if err == nil || err.Error() != "sender: disk full" {
		t.Errorf("error %v, want sender: disk full", err)
	}
	want := []string{"log begins", "ingest begins", "ingest ends", "log ends"}
	if diff := cmp.Diff(want, d.read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestChain_StopsAllWhenOneEndsByItself(t *testing.T) {
	t.Parallel()
	var d diary
	lazy := named("lazy", func(_ context.Context, ready func()) error { ready(); return nil })
	err := chain(t, &run.Health{}, time.Minute, never, good(&d, "log"), lazy)
	if err == nil || err.Error() != "lazy: it ended by itself" {
		t.Errorf("error %v, want lazy: it ended by itself", err)
	}
	if got := d.read(); !slices.Contains(got, "log ends") {
		t.Errorf("%q, want log to end", got)
	}
}

func TestChain_DoesNotStartWhatIsBehindOneThatFails(t *testing.T) {
	t.Parallel()
	var d diary
	broken := named("broken", func(context.Context, func()) error { return errors.New("no key") })
	err := chain(t, &run.Health{}, time.Minute, never, good(&d, "log"), broken, good(&d, "ingest"))
	if err == nil || err.Error() != "broken: no key" {
		t.Errorf("error %v, want broken: no key", err)
	}
	if diff := cmp.Diff([]string{"log begins", "log ends"}, d.read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestChain_StopsAllWhenOneFailsWhileAnotherIsNotReadyYet(t *testing.T) {
	t.Parallel()
	var d diary
	begun := make(chan struct{})
	broken := named("broken", func(_ context.Context, ready func()) error {
		ready()
		<-begun
		return errors.New("bus gone")
	})
	waiting := named("waiting", func(ctx context.Context, _ func()) error {
		close(begun)
		<-ctx.Done() // it would be ready if the other were well
		return nil
	})
	err := chain(t, &run.Health{}, time.Minute, never, good(&d, "log"), broken, waiting)
	if err == nil || err.Error() != "broken: bus gone" {
		t.Errorf("error %v, want broken: bus gone", err)
	}
	if diff := cmp.Diff([]string{"log begins", "log ends"}, d.read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestChain_StartsNobodyWhenItIsToldToEndMeanwhile(t *testing.T) {
	t.Parallel()
	var d diary
	begun := make(chan struct{})
	slow := named("slow", func(ctx context.Context, _ func()) error {
		close(begun)
		<-ctx.Done()
		return nil
	})
	if err := chain(t, &run.Health{}, time.Minute, func() { <-begun }, good(&d, "log"), slow, good(&d, "ingest")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"log begins", "log ends"}, d.read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestChain_NamesWhoDoesNotStopAndStopsTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // its time goes on only while all wait: who stops at once stops in time
		var d diary
		var health run.Health
		release := make(chan struct{})
		defer close(release)
		stubborn := named("stubborn", func(_ context.Context, ready func()) error { ready(); <-release; return nil })
		err := chain(t, &health, 50*time.Millisecond, func() { waitReady(t, &health) }, good(&d, "log"), stubborn, good(&d, "ingest"))
		if err == nil || !strings.HasPrefix(err.Error(), "stubborn did not stop within 50ms") {
			t.Errorf("error %v, want one that names stubborn", err)
		}
		if diff := cmp.Diff([]string{"log begins", "ingest begins", "ingest ends", "log ends"}, d.read()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestChain_TellsWhatWentWrongWhileStopping(t *testing.T) {
	t.Parallel()
	var health run.Health
	untidy := named("untidy", func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		return errors.New("last batch not written")
	})
	cancelled := named("cancelled", func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		return ctx.Err() // it was told to end; that is no news
	})
	err := chain(t, &health, time.Minute, func() { waitReady(t, &health) }, untidy, cancelled)
	if err == nil || err.Error() != "untidy: last batch not written" {
		t.Errorf("error %v, want untidy: last batch not written", err)
	}
}

func TestChain_KeepsTheValuesOfItsContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	got := make(chan any, 1)
	asks := named("asks", func(ctx context.Context, ready func()) error {
		got <- ctx.Value(key{})
		ready()
		<-ctx.Done()
		return nil
	})
	ctx, stop := context.WithCancel(context.WithValue(t.Context(), key{}, "trace"))
	done := make(chan error, 1)
	go func() { done <- run.Chain(ctx, quiet, time.Minute, &run.Health{}, asks) }()
	if v := <-got; v != "trace" {
		t.Errorf("value %v, want trace", v)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
