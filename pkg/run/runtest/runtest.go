// Package runtest runs single rooms in tests as a process runs them.
package runtest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"shopbell.dev/pkg/run"
)

// Start runs a room with the directories that it shares with others, and its keys if it has any, and returns once it is
// ready. What it gives stops the room and waits for it; that is done when the test ends at the latest.
func Start(t testing.TB, env *run.Env, room run.Service) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan struct{}), make(chan error, 1)
	var keys []run.Named
	if env.Keys != nil {
		keys = append(keys, run.Named{Name: "keys", Service: follower(env.Keys.Follow(env.Bus))})
	}
	links := slices.Concat(keys, env.Directories(), []run.Named{{Name: "room", Service: room}, {Name: "test", Service: last(ready)}})
	go func() { done <- run.Chain(ctx, slog.New(slog.DiscardHandler), 20*time.Second, &run.Health{}, links...) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatalf("the room ended before it was ready: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the room is never ready")
	}
	return stop
}

type follower func(ctx context.Context, filled func()) error

func (f follower) Run(ctx context.Context, ready func()) error { return f(ctx, ready) }

// last is closed when all that stands before it is ready.
type last chan struct{}

func (l last) Run(ctx context.Context, ready func()) error {
	ready()
	close(l)
	<-ctx.Done()
	return nil
}
