package record

import (
	"context"
	"sync"
	"time"

	"shopbell.dev/pkg/bus"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// Writer writes records that come from many goroutines: what comes at about the same time is one message. All its methods may be
// called at once.
type Writer struct {
	bus      *bus.Bus
	patience time.Duration
	turn     chan struct{} // held by who publishes

	mu   sync.Mutex // guards what follows
	open *shared    // is being filled
	last time.Time  // when a record came last
}

// patience is how long a record for which nobody waits lets others join it, when it comes sooner than this after another one: who
// comes alone waits for nobody.
const patience = 10 * time.Millisecond

// NewWriter makes a Writer.
func NewWriter(b *bus.Bus) *Writer {
	return &Writer{bus: b, patience: patience, turn: make(chan struct{}, 1)}
}

// shared is a packet that several wait for. Who begins it publishes it. It is guarded by the writer's lock until it is published.
type shared struct {
	packet
	hurry chan struct{} // closed when it waits for nothing more
	hasty bool          // hurry is closed
	done  chan struct{} // closed when err is known
	err   error
}

func (s *shared) hasten() {
	if !s.hasty {
		s.hasty = true
		close(s.hurry)
	}
}

// Write returns when the bus holds the records, or with an error after some seconds without. After an error some may be held
// all the same, which does no harm: a record that is there twice counts once.
func (w *Writer) Write(ctx context.Context, records ...*busv1.Record) error {
	return w.write(ctx, false, records)
}

// WriteCalmly is Write for records for which nobody waits: where others came a moment before, they wait for more for up to 10 ms,
// which saves the bus and all who read from it a message each.
func (w *Writer) WriteCalmly(ctx context.Context, records ...*busv1.Record) error {
	return w.write(ctx, true, records)
}

func (w *Writer) write(ctx context.Context, calm bool, records []*busv1.Record) error {
	values := make([][]byte, len(records))
	for i, r := range records {
		var err error
		if values[i], err = marshal(Traced(ctx, r)); err != nil {
			return err
		}
	}
	began, joined := w.add(records, values, calm)
	for _, s := range began {
		w.publish(ctx, s)
	}
	for _, s := range joined {
		if <-s.done; s.err != nil {
			return s.err
		}
	}
	return nil
}

// add puts records into packets, and gives those that were begun and all that hold some of them.
func (w *Writer) add(records []*busv1.Record, values [][]byte, calm bool) (began, joined []*shared) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	calm = calm && now.Sub(w.last) < w.patience
	w.last = now
	for i, value := range values {
		if w.open != nil && !w.open.fits(value) {
			w.open.hasten()
			w.open = nil
		}
		if w.open == nil {
			w.open = &shared{hurry: make(chan struct{}), done: make(chan struct{})}
			began = append(began, w.open)
		}
		w.open.add(records[i], value)
		if len(joined) == 0 || joined[len(joined)-1] != w.open {
			joined = append(joined, w.open)
		}
	}
	if !calm && w.open != nil {
		w.open.hasten()
	}
	return began, joined
}

func (w *Writer) publish(ctx context.Context, s *shared) {
	select {
	case <-s.hurry:
	case <-time.After(w.patience):
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout) // others wait for it, too
	defer cancel()
	w.turn <- struct{}{} // while one message is on its way to the bus the next is filled
	w.mu.Lock()
	if w.open == s {
		w.open = nil
	}
	w.mu.Unlock()
	s.err = w.bus.Publish(bound, s.message())
	<-w.turn
	close(s.done)
}
