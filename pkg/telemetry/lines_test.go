package telemetry_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"shopbell.dev/pkg/telemetry"
)

// sink is where log lines go; it may be used at once.
type sink struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *sink) lines() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), "\n")
}

func TestLogger_LosesNoLineAndHurriesWhatMatters(t *testing.T) {
	t.Parallel()
	var out sink
	log, flush := telemetry.Logger(&out, "json", slog.LevelInfo)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				log.InfoContext(t.Context(), "attempt", slog.Int("number", i))
				log.DebugContext(t.Context(), "not at this level")
			}
		})
	}
	wg.Wait()
	log.With(slog.String("room", "sender")).WarnContext(t.Context(), "somebody should look")
	if got, want := out.lines(), 4001; got != want {
		t.Errorf("after a warning %d lines are written, want %d at once", got, want)
	}
	log.InfoContext(t.Context(), "the last one")
	flush()
	flush()
	if got, want := out.lines(), 4002; got != want {
		t.Errorf("after flush %d lines are written, want %d", got, want)
	}
}
