package record

import (
	"context"
	"sync"

	"shopbell.dev/pkg/bus"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// Writer writes records that come from many goroutines. While one message is on its way to the bus the next is filled. All
// its methods may be called at once.
type Writer struct {
	bus  *bus.Bus
	turn chan struct{} // held by who publishes

	mu   sync.Mutex // guards open, and what is in it
	open *shared
}

// NewWriter makes a Writer.
func NewWriter(b *bus.Bus) *Writer { return &Writer{bus: b, turn: make(chan struct{}, 1)} }

// shared is a packet that several wait for. Who begins it publishes it.
type shared struct {
	packet
	done chan struct{} // closed when err is known
	err  error
}

// Write returns when the bus holds the record, or with an error after some seconds without. After an error it may be held
// all the same, which does no harm: a record that is there twice counts once.
func (w *Writer) Write(ctx context.Context, r *busv1.Record) error {
	value, err := marshal(Traced(ctx, r))
	if err != nil {
		return err
	}
	w.mu.Lock()
	s := w.open
	first := s == nil || !s.fits(value)
	if first {
		s = &shared{done: make(chan struct{})}
		w.open = s
	}
	s.add(r, value)
	w.mu.Unlock()
	if !first {
		<-s.done
		return s.err
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout) // others wait for it, too
	defer cancel()
	w.turn <- struct{}{}
	w.mu.Lock()
	if w.open == s {
		w.open = nil
	}
	w.mu.Unlock()
	s.err = w.bus.Publish(bound, s.message())
	<-w.turn
	close(s.done)
	return s.err
}
