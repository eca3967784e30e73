package bus

import (
	"context"
	"log/slog"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// Mirror is the values of a bucket in memory, by their places in it, kept by following the bucket. It may be used at
// once.
type Mirror[T any] struct {
	bucket string
	log    *slog.Logger
	parse  func(Entry) (T, error)
	note   func(place string, value T, there bool)

	mu      sync.RWMutex // guards what follows
	byPlace map[string]mirrored[T]
	changed chan struct{} // closed at the next change; nil while nobody waits
}

type mirrored[T any] struct {
	value    T
	revision uint64 // in the bucket
}

// NewMirror makes a mirror that holds nothing yet; Follow fills it. Parse reads a value; one that it cannot read is
// logged, and leaves what was there before. Note, which may be nil, is told of every change, from one goroutine, before
// anybody who waits for that change goes on: there is false when the value is gone.
func NewMirror[T any](bucket string, log *slog.Logger, parse func(Entry) (T, error), note func(place string, value T, there bool)) *Mirror[T] {
	return &Mirror[T]{bucket: bucket, log: log, parse: parse, note: note, byPlace: map[string]mirrored[T]{}}
}

// Follow is a watch (see Together) that keeps the mirror until ctx ends; filled is called when it holds every value.
func (m *Mirror[T]) Follow(b *Bus) func(ctx context.Context, filled func()) error {
	return func(ctx context.Context, filled func()) error {
		return b.Watch(ctx, m.bucket, func(entry Entry) { m.put(ctx, entry) }, filled)
	}
}

func (m *Mirror[T]) put(ctx context.Context, entry Entry) {
	var now mirrored[T]
	there := entry.Operation() == jetstream.KeyValuePut
	if there {
		var err error
		if now.value, err = m.parse(entry); err != nil {
			m.log.ErrorContext(ctx, "a value in a bucket cannot be read, and is left out",
				slog.String("bucket", m.bucket), slog.String("place", entry.Key()), slog.Any("error", err))
			return
		}
		now.revision = entry.Revision()
	}
	if m.note != nil {
		m.note(entry.Key(), now.value, there)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if there {
		m.byPlace[entry.Key()] = now
	} else {
		delete(m.byPlace, entry.Key())
	}
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// Get gives the value at a place, and its revision in the bucket, which is 0 when there is none.
func (m *Mirror[T]) Get(place string) (value T, revision uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	at := m.byPlace[place]
	return at.value, at.revision
}

// Len is how many values there are.
func (m *Mirror[T]) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.byPlace)
}

// Await returns when the mirror holds the value at a place at this revision or a later one, or, for revision 0, when it
// holds none there; or when ctx ends.
func (m *Mirror[T]) Await(ctx context.Context, place string, revision uint64) {
	for {
		m.mu.Lock()
		now := m.byPlace[place].revision
		if revision == 0 && now == 0 || revision > 0 && now >= revision {
			m.mu.Unlock()
			return
		}
		if m.changed == nil {
			m.changed = make(chan struct{})
		}
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
