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
	bus *bus.Bus
}

// startRoom starts the log with its store at path; empty is a new one.
func startRoom(t *testing.T, path string) *room {
	t.Helper()
	b := bustest.New(t)
	profiles, err := profile.Load(fstest.MapFS{})
	if err != nil {
		t.Fatal(err)
	}
	if path == "" {
		path = filepath.Join(t.TempDir(), "log.db")
	}
	cfg := Defaults()
	cfg.Store, cfg.Linger = config.Secret("sqlite:"+path), 10*time.Millisecond
	service, err := New(cfg, &run.Env{
		Log: slog.New(slog.DiscardHandler), Bus: b, Profiles: profiles, Tracer: noop.NewTracerProvider().Tracer(""),
		Metrics: prometheus.NewRegistry(), GRPC: grpc.NewServer(), Trouble: func(string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var atWork sync.WaitGroup
	atWork.Go(func() {
		if err := service.Run(ctx, func() {}); err != nil && ctx.Err() == nil { // a short test ends it while it begins
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { stop(); atWork.Wait() })
	l, ok := service.(*Log)
	if !ok {
		t.Fatalf("the room is a %T", service)
	}
	return &room{Log: l, bus: b}
}

// eventually waits until a fact is one.
func eventually(t *testing.T, fact string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 30s still not: %s", fact)
		}
	}
}
