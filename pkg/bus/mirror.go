package bus

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// Mirror is what a bucket holds of each shop, in memory, kept by following the bucket. V is a view of all that a shop
// has, such as a sorted list. It may be used at once.
type Mirror[T comparable, V any] struct {
	kind Kind[T, V]
	log  *slog.Logger

	mu      sync.RWMutex // guards what follows
	values  map[place]placed[T]
	shops   map[string]*shelf[T, V] // where there are views
	changed chan struct{}           // closed at the next change; nil while nobody waits
}

// Kind is what lies in a bucket.
type Kind[T comparable, V any] struct {
	Bucket string
	// Place takes the key of a value apart: whose it is, and which.
	Place func(key string) (shop, id string, ok bool)
	// Parse reads a value. One that cannot be read is logged, and leaves what was there before.
	Parse func(Entry) (T, error)
	// View, if set, makes the view of a shop's values, which come in any order and are its own. It is made when it is next
	// asked for, and may be at once with that of another shop.
	View func([]T) V
	// Note, if set, is told of every change, before anybody who waits for it goes on; what was not there, or is there
	// no longer, is the zero value. It must not use the mirror.
	Note func(was, is T)
}

// place is where a value is. All values are in one map: most shops have few, and a map for each shop is dear.
type place struct{ shop, id string }

type placed[T any] struct {
	value    T
	revision uint64 // in the bucket; 0: it is not there
}

// shelf is what one shop has.
type shelf[T comparable, V any] struct {
	making  sync.Mutex // held by who makes the view
	values  []T        // in no order
	changes uint64     // so many were made of values
	view    V
	made    bool // view is that of what is there
}

// NewMirror makes a mirror that holds nothing yet; Follow fills it.
func NewMirror[T comparable, V any](kind Kind[T, V], log *slog.Logger) *Mirror[T, V] {
	return &Mirror[T, V]{kind: kind, log: log, values: map[place]placed[T]{}, shops: map[string]*shelf[T, V]{}}
}

// Follow is a watch (see Together) that keeps the mirror until ctx ends; filled is called when it holds every value.
func (m *Mirror[T, V]) Follow(b *Bus) func(ctx context.Context, filled func()) error {
	return func(ctx context.Context, filled func()) error {
		return b.Watch(ctx, m.kind.Bucket, func(entry Entry) { m.put(ctx, entry) }, filled)
	}
}

var errNoPlace = errors.New("its key names no place in a shop")

func (m *Mirror[T, V]) put(ctx context.Context, entry Entry) {
	shop, id, ok := m.kind.Place(entry.Key())
	err := errNoPlace
	var now placed[T]
	there := entry.Operation() == jetstream.KeyValuePut
	if ok && there {
		now.revision = entry.Revision()
		now.value, err = m.kind.Parse(entry)
	}
	if !ok || there && err != nil {
		m.log.ErrorContext(ctx, "a value in a bucket cannot be read", slog.String("bucket", m.kind.Bucket),
			slog.String("key", entry.Key()), slog.Any("error", err))
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.values[place{shop, id}]
	if there {
		m.values[place{shop, id}] = now
	} else {
		delete(m.values, place{shop, id})
	}
	if m.kind.View != nil {
		m.shelve(shop, was, now)
	}
	if m.kind.Note != nil {
		m.kind.Note(was.value, now.value)
	}
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// shelve has a shop's shelf hold what is there now in place of what was there.
func (m *Mirror[T, V]) shelve(shop string, was, now placed[T]) {
	s := m.shops[shop]
	if s == nil {
		s = &shelf[T, V]{}
		m.shops[shop] = s
	}
	at := len(s.values)
	if was.revision > 0 {
		at = slices.Index(s.values, was.value) // not fast in a long list, but a change has its view made anew as well
	}
	switch {
	case was.revision > 0 && now.revision > 0:
		s.values[at] = now.value
	case was.revision > 0:
		s.values = slices.Delete(s.values, at, at+1)
	case now.revision > 0:
		s.values = append(s.values, now.value)
	}
	var none V
	s.view, s.made = none, false
	s.changes++
	if len(s.values) == 0 {
		delete(m.shops, shop)
	}
}

// Get gives a value and its revision in the bucket, which is 0 when it is not there.
func (m *Mirror[T, V]) Get(shop, id string) (value T, revision uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	at := m.values[place{shop, id}]
	return at.value, at.revision
}

// Of gives the view of what a shop has; of one that has nothing, the zero value. While it is made nobody waits but those
// who ask for the same.
func (m *Mirror[T, V]) Of(shop string) (view V) {
	m.mu.RLock()
	s := m.shops[shop]
	if s == nil || s.made {
		defer m.mu.RUnlock()
		if s == nil {
			return view
		}
		return s.view
	}
	m.mu.RUnlock()

	s.making.Lock()
	defer s.making.Unlock()
	m.mu.RLock()
	view, made, changes, values := s.view, s.made, s.changes, slices.Clone(s.values)
	m.mu.RUnlock()
	if made {
		return view
	}
	view = m.kind.View(values)
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.changes == changes {
		s.view, s.made = view, true
	}
	return view
}

// Each calls do for every value of every shop. Do must not use the mirror.
func (m *Mirror[T, V]) Each(do func(T)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, at := range m.values {
		do(at.value)
	}
}

// Len is how many values there are.
func (m *Mirror[T, V]) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.values)
}

// Await returns when the mirror holds a value at this revision or a later one, or, for revision 0, when it does not hold
// it; or when ctx ends.
func (m *Mirror[T, V]) Await(ctx context.Context, shop, id string, revision uint64) {
	for {
		m.mu.Lock()
		now := m.values[place{shop, id}].revision
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
