package sqlite

import (
	"context"
	"fmt"
	"sync"
	"time"

	"shopbell.dev/services/log/store"
)

// day is how long one is: ids are gathered by days, UTC.
const day = 24 * time.Hour

// typeDay is a row of the table types: a shop has deliveries of this type whose events were accepted on this day.
type typeDay struct {
	shopID, eventType string
	day               int64 // microseconds
}

func typeDayOf(d store.State) typeDay {
	t := typeDay{shopID: d.ShopID, eventType: d.EventType}
	if born := store.Born(d.ID); d.ID >= store.FirstID(born) && d.ID < store.FirstID(born.Add(time.Millisecond)) {
		t.day = born.Truncate(day).UnixMicro()
	}
	return t
}

// types are the rows of the table of that name that are known to be there, so that nearly no delivery asks for its own.
type types struct {
	mu    sync.Mutex // guards what follows, from the beginning of a transaction that changes the table until its end
	known map[typeDay]bool
	swept time.Time // the day before which Forget has forgotten them last
}

// mostTypes bounds what is known by heart: a day's types of very many shops, some 10 MB.
const mostTypes = 100_000

func (t *types) learn(d typeDay) {
	if t.known == nil || len(t.known) >= mostTypes {
		t.known = make(map[typeDay]bool)
	}
	t.known[d] = true
}

// typed notes that there is such a delivery.
func (w writer) typed(ctx context.Context, d store.State) error {
	t := typeDayOf(d)
	if w.types.known[t] {
		return nil
	}
	if _, err := w.exec(ctx, w.insertType, t.shopID, t.eventType, t.day); err != nil {
		return fmt.Errorf("write which types there are: %w", err)
	}
	w.types.learn(t)
	return nil
}

// spans are the filters whose lists, one after the other, are the list of f: of a type, the spans of days that have any, the
// newest first.
func (r reader) spans(ctx context.Context, f store.Filter) ([]store.Filter, error) {
	if f.EventType == "" || f.EventID != "" || f.DeliveryID != "" {
		return []store.Filter{f}, nil
	}
	days, err := collect(ctx, r, `SELECT day FROM types WHERE shop_id = ? AND event_type = ? ORDER BY day DESC`,
		[]any{store.Key(f.ShopID), store.Key(f.EventType)}, func(row scanner) (d int64, err error) {
			err = row.Scan(&d)
			return d, err
		})
	if err != nil || len(days) > 0 && days[len(days)-1] == 0 { // ids without a time may lie between all others
		return []store.Filter{f}, err
	}
	var spans []store.Filter
	for i := 0; i < len(days); {
		newest := time.UnixMicro(days[i])
		oldest := newest
		for i++; i < len(days) && oldest.Add(-day).UnixMicro() == days[i]; i++ {
			oldest = time.UnixMicro(days[i])
		}
		span := f
		span.Since = max(store.Key(f.Since), store.FirstID(oldest))
		span.Before = store.FirstID(newest.Add(day))
		if f.Before != "" {
			span.Before = min(store.Key(f.Before), span.Before)
		}
		if span.Since < span.Before {
			spans = append(spans, span)
		}
	}
	return spans, nil
}

// forgetTypes forgets the types of days that are over by then, once a day.
func (s *Store) forgetTypes(ctx context.Context, until time.Time) error {
	s.types.mu.Lock()
	defer s.types.mu.Unlock()
	if until = until.Truncate(day); !until.After(s.types.swept) {
		return nil
	}
	if _, err := s.writer.ExecContext(ctx, `DELETE FROM types WHERE day > 0 AND day < ?`, until.UnixMicro()); err != nil {
		return fmt.Errorf("forget which types there were: %w", err)
	}
	s.types.known, s.types.swept = nil, until
	return nil
}

// expungeTypes forgets the types of a shop. What is still written of it is noted anew.
func (s *Store) expungeTypes(ctx context.Context, shopID string) error {
	s.types.mu.Lock()
	defer s.types.mu.Unlock()
	s.types.known = nil
	_, err := s.writer.ExecContext(ctx, `DELETE FROM types WHERE shop_id = ?`, shopID)
	return err
}
