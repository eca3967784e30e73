package bus

import (
	"context"
	"sync"
	"time"

	"shopbell.dev/pkg/contract"
)

// Matched tells how far events were matched. The bus is asked for all who want to know together, and no more often than they need. It
// may be used at once.
type Matched struct {
	bus   *Bus
	every time.Duration

	mu           sync.Mutex // guards what follows
	asked        time.Time
	single, bulk uint64 // up to here all of either kind
}

// Matched gives who tells how far events were matched, as of no longer ago than every.
func (b *Bus) Matched(every time.Duration) *Matched { return &Matched{bus: b, every: every} }

// Of is a sequence in EVENTS up to which all events of a shop were matched: what was made of them was stored before the call.
func (m *Matched) Of(ctx context.Context, shop string) (uint64, error) {
	single, bulk, err := m.ask(ctx)
	if err != nil || bulk >= single {
		return single, err
	}
	// Bursts are behind. That matters to this shop from the first of its own on.
	first, err := m.bus.Next(ctx, contract.Events, contract.BulkEventSubjects(shop), bulk+1)
	if err != nil || first == 0 {
		return single, err
	}
	return min(single, first-1), nil
}

func (m *Matched) ask(ctx context.Context) (single, bulk uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.asked) < m.every {
		return m.single, m.bulk, nil
	}
	now := time.Now()
	stream, err := m.bus.Stream(ctx, contract.Events) // first: what comes after it may be overlooked below
	if err != nil {
		return 0, 0, err
	}
	var floors [2]uint64
	for i, name := range [...]string{contract.Matcher, contract.BulkMatcher} {
		if floors[i], err = m.bus.floor(ctx, name, stream.CachedInfo().State.LastSeq); err != nil {
			return 0, 0, err
		}
	}
	m.single, m.bulk, m.asked = floors[0], floors[1], now
	return m.single, m.bulk, nil
}
