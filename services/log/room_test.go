package eventlog

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/run"
)

// room is the log at work on a bus of its own, with its store in a file.
type room struct {
	*Log
	bus  *bus.Bus
	stop func() // returns when the room has ended; it may be called twice
}

// startRoom starts the log with its store at path; empty is a new one.
func startRoom(t *testing.T, path string) *room {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "log.db")
	}
	return startRoomAt(t, "sqlite:"+path, slog.DiscardHandler, func(string) {})
}

// startRoomAt starts the log with its store there. notReady hears why the room is of no use yet.
func startRoomAt(t *testing.T, where string, lines slog.Handler, notReady func(string)) *room {
	t.Helper()
	cfg := Defaults()
	cfg.Store, cfg.Linger = config.Secret(where), 10*time.Millisecond
	cfg.Keep = 0 // what these tests write happened long ago
	return startRoomOn(t, bustest.New(t), cfg, lines, notReady)
}

// startRoomOn starts the log with these settings on a bus that is there.
func startRoomOn(t *testing.T, b *bus.Bus, cfg Config, lines slog.Handler, notReady func(string)) *room {
	t.Helper()
	return startRoomWith(t, b, cfg, lines, notReady, func(*Log) {})
}

// startRoomWith is startRoomOn that changes something about the log before it is at work.
func startRoomWith(t *testing.T, b *bus.Bus, cfg Config, lines slog.Handler, notReady func(string), change func(*Log)) *room {
	t.Helper()
	profiles, err := profile.Load(fstest.MapFS{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	service, err := New(cfg, &run.Env{
		Log: slog.New(lines), Bus: b, Profiles: profiles, Tracer: noop.NewTracerProvider().Tracer(""),
		Metrics: prometheus.NewRegistry(), GRPC: grpc.NewServer(), Trouble: func(string) {}, NotReady: notReady, Stopping: ctx.Done(),
	})
	if err != nil {
		stop()
		t.Fatal(err)
	}
	l, ok := service.(*Log)
	if !ok {
		stop()
		t.Fatalf("the room is a %T", service)
	}
	change(l)
	var atWork sync.WaitGroup
	atWork.Go(func() {
		if err := service.Run(ctx, func() {}); err != nil && ctx.Err() == nil { // a short test ends it while it begins
			t.Errorf("run: %v", err)
		}
	})
	end := func() { stop(); atWork.Wait() }
	t.Cleanup(end)
	return &room{Log: l, bus: b, stop: end}
}
