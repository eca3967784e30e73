package telemetry

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// lines gathers log lines and writes them together: one system call a line would cost more than the line. What is
// gathered is written after lineWait, or at once with a line that somebody should look at.
type lines struct {
	mu      sync.Mutex // guards what follows
	out     io.Writer
	text    []byte
	waiting bool // a write is due
}

const (
	lineWait  = 50 * time.Millisecond
	lineBytes = 64 << 10
)

// Write takes a line.
func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, line...)
	if len(l.text) >= lineBytes {
		l.writeLocked()
	} else if !l.waiting {
		l.waiting = true
		time.AfterFunc(lineWait, l.flush)
	}
	return len(line), nil
}

// flush writes what was gathered. It may be called at once, and again.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = false
	l.writeLocked()
}

func (l *lines) writeLocked() {
	_, _ = l.out.Write(l.text) // where log lines go nothing can be said of lines that cannot go there
	l.text = l.text[:0]
}

// urgent writes what was gathered as soon as a line of Warn or above comes.
type urgent struct {
	slog.Handler
	lines *lines
}

// Handle writes a line.
func (h urgent) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.lines.flush()
	}
	return err
}

// WithAttrs gives a handler that adds attributes.
func (h urgent) WithAttrs(attrs []slog.Attr) slog.Handler {
	return urgent{h.Handler.WithAttrs(attrs), h.lines}
}

// WithGroup gives a handler that puts attributes into a group.
func (h urgent) WithGroup(name string) slog.Handler {
	return urgent{h.Handler.WithGroup(name), h.lines}
}
