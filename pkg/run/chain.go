package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Service is a room at work. Run does its work until ctx ends, calls ready once it can take work, finishes what it has
// begun, and returns when everything it started is gone. It is called once.
type Service interface {
	Run(ctx context.Context, ready func()) error
}

// Named is a service and its name in log lines and in /readyz.
type Named struct {
	Name    string
	Service Service
}

// Chain starts services left to right, each once the one before is ready, and stops them right to left, each once the
// one behind it is gone. It returns when ctx ends or one of them fails, after all are gone.
func Chain(ctx context.Context, log *slog.Logger, stopTimeout time.Duration, health *Health, links ...Named) error {
	failed := make(chan error, len(links)) // one each at most
	var started []*link
	defer health.down()
	var err error
	for _, n := range links {
		if ctx.Err() != nil {
			break // told to end before all were started
		}
		l := &link{Named: n, done: make(chan struct{})}
		started = append(started, l)
		if err = l.start(context.WithoutCancel(ctx), ctx, log, failed); err != nil {
			break
		}
		health.up(n.Name)
	}
	if err == nil && ctx.Err() == nil {
		health.allUp()
		select {
		case <-ctx.Done():
		case err = <-failed:
		}
	}
	health.down()
	for i := len(started) - 1; i >= 0; i-- {
		if serr := started[i].stop(log, stopTimeout); serr != nil {
			err = errors.Join(err, serr)
		}
	}
	for len(failed) > 0 { // what went wrong while they stopped
		if ferr := <-failed; !errors.Is(ferr, context.Canceled) {
			err = errors.Join(err, ferr)
		}
	}
	return err
}

type link struct {
	Named
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
}

// start runs the service and waits until it is ready, it or one before it fails, or the chain is told to end.
func (l *link) start(base, ctx context.Context, log *slog.Logger, failed chan error) error {
	base, l.cancel = context.WithCancel(base)
	ready := make(chan struct{})
	go func() {
		defer close(l.done)
		err := l.Service.Run(base, func() { l.once.Do(func() { close(ready) }) })
		if err == nil && base.Err() == nil {
			err = errors.New("it ended by itself")
		}
		if err != nil {
			failed <- fmt.Errorf("%s: %w", l.Name, err)
		}
	}()
	select {
	case <-ready:
		log.DebugContext(ctx, "room is open", slog.String("room", l.Name))
		return nil
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// stop ends the service and waits for it, but not for ever.
func (l *link) stop(log *slog.Logger, timeout time.Duration) error {
	l.cancel()
	select {
	case <-l.done:
		log.Debug("room is closed", slog.String("room", l.Name))
		return nil
	case <-time.After(timeout):
		return fmt.Errorf("%s did not stop within %s; what it was doing is done again after the next start", l.Name, timeout)
	}
}

// Health says whether the process is ready for work. It may be used at once; its zero value is not ready.
type Health struct {
	mu    sync.Mutex // guards what follows
	rooms []string   // that are ready
	ready bool
	hooks []func(ready bool)

	troubles map[string]string // of rooms that go on, by name
	useless  map[string]string // why rooms are of no use yet, by name
}

// Ready says whether every room is ready, and names those that are.
func (h *Health) Ready() (bool, []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready, append([]string(nil), h.rooms...)
}

// Troubles are which rooms are of no use yet, and what the others have trouble with while they go on, a line each.
func (h *Health) Troubles() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines strings.Builder
	for _, of := range []struct {
		state string
		rooms map[string]string
	}{{"not ready: ", h.useless}, {"", h.troubles}} {
		for _, room := range slices.Sorted(maps.Keys(of.rooms)) {
			lines.WriteString(room + ": " + of.state + of.rooms[room] + "\n")
		}
	}
	return lines.String()
}

// uselessRooms is how many rooms are of no use yet.
func (h *Health) uselessRooms() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.useless)
}

func (h *Health) trouble(room, text string)  { h.say(&h.troubles, room, text) }
func (h *Health) notReady(room, text string) { h.say(&h.useless, room, text) }

func (h *Health) say(of *map[string]string, room, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if text == "" {
		delete(*of, room)
		return
	}
	if *of == nil {
		*of = map[string]string{}
	}
	(*of)[room] = text
}

func (h *Health) onChange(hook func(bool)) { h.hooks = append(h.hooks, hook) }

func (h *Health) up(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rooms = append(h.rooms, name)
}

func (h *Health) allUp() { h.set(true) }
func (h *Health) down()  { h.set(false) }

func (h *Health) set(ready bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ready == ready {
		return
	}
	h.ready = ready
	for _, hook := range h.hooks {
		hook(ready)
	}
}
