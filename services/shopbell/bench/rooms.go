package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/run"
	"shopbell.dev/services/gateway"
	"shopbell.dev/services/ingest"
	eventlog "shopbell.dev/services/log"
	"shopbell.dev/services/sender"
	"shopbell.dev/services/subscription"
)

// serveOthers is the child that is everything but the senders: the bus, at which it listens, and the other rooms. The argument
// is where its data lies.
func serveOthers(args []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server, err := bus.Embed(bus.EmbedConfig{Dir: filepath.Join(args[0], "bus"), Sync: 100 * time.Millisecond, Host: "127.0.0.1", Port: -1}, log)
	if err != nil {
		return err
	}
	defer server.Stop()
	cfg := eventlog.Defaults()
	cfg.Store = config.Secret("sqlite:" + filepath.Join(args[0], "log.db"))
	return runRooms("others", bus.Defaults(), []nats.Option{server.Option()}, log, slog.String("bus", server.URL()),
		run.Room{Name: "log", New: func(env *run.Env) (run.Service, error) { return eventlog.New(cfg, env) }},
		run.Room{Name: "subscription", New: func(env *run.Env) (run.Service, error) { return subscription.New(subscription.Defaults(), env) }},
		run.Room{Name: "ingest", New: func(env *run.Env) (run.Service, error) { return ingest.New(ingest.Defaults(), env) }},
		run.Room{Name: "gateway", New: func(env *run.Env) (run.Service, error) { return gateway.New(gateway.Defaults(), env) }})
}

// serveSender is the child that is a sender. The arguments are its name, which stands in its User-Agent in place of a
// version, and the bus's URL.
func serveSender(args []string) error {
	// Not buffered, and with every attempt: what it says before it is killed can be read.
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	run.Version = args[0]
	to := bus.Defaults()
	to.URL = args[1]
	return runRooms("sender", to, nil, log, slog.String("name", args[0]),
		run.Room{Name: "sender", New: func(env *run.Env) (run.Service, error) { return sender.New(sender.Defaults(), env) }})
}

func runRooms(name string, to bus.Config, options []nats.Option, log *slog.Logger, told slog.Attr, rooms ...run.Room) error {
	common := run.CommonDefaults()
	common.HTTP, common.GRPC, common.AllowPrivateAddresses = "127.0.0.1:0", "127.0.0.1:0", true
	p := &run.Process{Name: name, Common: common, Bus: to, BusOptions: options, Log: log, Rooms: rooms}
	return run.UntilSignal(func(ctx context.Context) error {
		p.Ready = func(at run.Addresses) {
			log.LogAttrs(ctx, slog.LevelInfo, "ready", slog.String("rest", "http://"+at.HTTP), told, slog.String("grpc", at.GRPC))
		}
		return p.Run(ctx)
	})
}

// startRooms starts one of these children, and returns once it is ready.
func startRooms(ctx context.Context, dir, logName string, args ...string) (*serve, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	s := &serve{log: filepath.Join(dir, logName), child: child(ctx, args...), gone: make(chan struct{})}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args, err)
	}
	return s, nil
}

// said is what the child told with its readiness.
func (s *serve) said(name string) (string, error) {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(text), " "+name+"=")
	if !ok {
		return "", errors.New("it does not say its " + name)
	}
	value, _, _ := strings.Cut(rest, " ")
	return value, nil
}
