package eventlog

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
)

// followed is what the log follows: how callers call it, by which consumer it comes, and from which stream.
var followed = []struct{ of, consumer, stream string }{
	{"events", contract.LogEvents, contract.Events},
	{"outcomes", contract.LogOutcomes, contract.Outcomes},
}

// GetLogLag says how far the log is behind.
func (l *Log) GetLogLag(ctx context.Context, _ *logv1.GetLogLagRequest) (*logv1.GetLogLagResponse, error) {
	out := &logv1.GetLogLagResponse{}
	for _, f := range followed {
		lag, err := l.env.Bus.Lag(ctx, f.consumer)
		if err != nil {
			return nil, fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
		}
		one := &logv1.LogLag{Of: f.of, Messages: int32(min(lag.Messages, math.MaxInt32))}
		if !lag.Oldest.IsZero() {
			one.OldestAt, one.BehindSeconds = timestamppb.New(lag.Oldest), age(lag).Seconds()
		}
		out.Lags = append(out.Lags, one)
	}
	return out, nil
}

// age is how old the oldest message is that is not written: never less than nothing, as the bus has its own clock.
func age(lag bus.Lag) time.Duration {
	if lag.Oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(lag.Oldest))
}

// lookEvery is how often metrics and /readyz learn how far the log is behind.
const lookEvery = 2 * time.Second

// tellLag is how far the log has to be behind for /readyz to say so.
const tellLag = 5 * time.Second

// watchLag looks, until ctx ends, how far the log is behind.
func (l *Log) watchLag(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var parts []string
		for _, f := range followed {
			bound, cancel := context.WithTimeout(ctx, lookEvery)
			lag, err := l.env.Bus.Lag(bound, f.consumer)
			cancel()
			if err != nil {
				continue // that the bus is away is said elsewhere
			}
			l.lag.WithLabelValues(f.stream).Set(age(lag).Seconds())
			l.pending.WithLabelValues(f.stream).Set(float64(lag.Messages))
			if age(lag) >= tellLag {
				parts = append(parts, fmt.Sprintf("%d %s, the oldest %s old", lag.Messages, f.of, age(lag).Round(time.Second)))
			}
		}
		l.trouble.note(troubleLag, because("it is behind by ", strings.Join(parts, " and ")))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// The kinds of trouble.
const (
	troubleStore = "store"
	troubleLag   = "lag"
)

// trouble is what /readyz says that the log has trouble with, by kind.
type trouble struct {
	tell func(string)

	mu sync.Mutex // guards of
	of map[string]string
}

// note says of a kind what it is; an empty text is none any more.
func (t *trouble) note(kind, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[string]string{}
	}
	t.of[kind] = text
	var all []string
	for _, kind := range []string{troubleStore, troubleLag} { // the cause first
		if text := t.of[kind]; text != "" {
			all = append(all, text)
		}
	}
	t.tell(strings.Join(all, "; "))
}
