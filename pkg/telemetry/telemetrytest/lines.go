// Package telemetrytest lets tests read what a room logs.
package telemetrytest

import (
	"bytes"
	"strings"
	"sync"
)

// Lines is what was logged so far. Its zero value is ready, and all its methods may be called at once: a log is read while it is
// written.
type Lines struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write implements io.Writer; it never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is all of it.
func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Has says whether there is a line with all of these.
func (l *Lines) Has(parts ...string) bool {
	for line := range strings.Lines(l.String()) {
		found := true
		for _, part := range parts {
			found = found && strings.Contains(line, part)
		}
		if found {
			return true
		}
	}
	return false
}
