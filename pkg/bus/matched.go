package bus

import (
	"context"
	"fmt"
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
	floors, err := m.bus.floors(ctx, contract.Events, contract.Matcher, contract.BulkMatcher)
	if err != nil {
		return 0, 0, err
	}
	m.single, m.bulk, m.asked = floors[0], floors[1], now
	return m.single, m.bulk, nil
}

// floors is, for each consumer, a sequence up to which it has answered every message of its stream that is for it. What was stored
// before the call and answered is below it.
func (b *Bus) floors(ctx context.Context, in string, consumers ...string) (floors []uint64, err error) {
	stream, err := b.Stream(ctx, in) // first: what comes after it may be overlooked below
	if err != nil {
		return nil, err
	}
	for _, consumer := range consumers {
		info, err := stream.Consumer(ctx, consumer)
		if err != nil {
			return nil, fmt.Errorf("ask for consumer %s: %w", consumer, err)
		}
		switch now := info.CachedInfo(); {
		case now.NumAckPending == 0 && now.NumPending == 0:
			floors = append(floors, stream.CachedInfo().State.LastSeq)
		case now.NumAckPending == 0:
			floors = append(floors, now.Delivered.Stream)
		default:
			floors = append(floors, now.AckFloor.Stream)
		}
	}
	return floors, nil
}
