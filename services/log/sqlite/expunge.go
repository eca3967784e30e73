package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"shopbell.dev/services/log/store"
)

// window is how many rows one read goes through: a read that takes long keeps the write-ahead log from being cut.
const window = 2000

// Holding implements store.Store.
func (s *Store) Holding(ctx context.Context, shopID, text string) ([]string, error) {
	needle, held := store.NewNeedle(text), make(map[string]bool)
	if err := s.eachEvent(ctx, store.Key(shopID), func(id string, data []byte) {
		if needle.In(data) {
			held[id] = true
		}
	}); err != nil {
		return nil, fmt.Errorf("read the events of %s: %w", shopID, err)
	}
	if err := s.eachDelivery(ctx, store.Key(shopID), func(found []found) error {
		attempts, _, err := s.historyOf(ctx, store.Key(shopID), ids(found))
		if err != nil {
			return err
		}
		eventOf := make(map[string]string, len(found))
		for _, d := range found {
			eventOf[d.id] = d.eventID
		}
		for _, a := range attempts {
			if eventID := eventOf[a.DeliveryID]; eventID != "" && needle.In(a.Record) {
				held[eventID] = true
			}
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the deliveries of %s: %w", shopID, err)
	}
	return slices.Sorted(maps.Keys(held)), nil
}

func (s *Store) historyOf(ctx context.Context, shopID string, deliveryIDs []string) (attempts []store.AttemptRow, changes []store.ChangeRow, err error) {
	_, err = snapshot(ctx, s.reader, func(r reader) (struct{}, error) {
		attempts, changes, err = r.history(ctx, shopID, deliveryIDs)
		return struct{}{}, err
	})
	return attempts, changes, err
}

// eachEvent goes through all events of a shop: there is no index of them, so through all events.
func (s *Store) eachEvent(ctx context.Context, shopID string, do func(id string, data []byte)) error {
	type event struct {
		id   string
		data []byte
	}
	from, last, err := s.eventRows(ctx)
	for ; err == nil && from < last; from += window {
		list, err := snapshot(ctx, s.reader, func(r reader) ([]event, error) {
			return collect(ctx, r, `SELECT id, data FROM events WHERE rowid > ? AND rowid <= ? AND +shop_id = ?`, []any{from, from + window, shopID},
				func(row scanner) (e event, err error) {
					err = row.Scan(&e.id, &e.data)
					return e, err
				})
		})
		if err != nil {
			return err
		}
		for _, e := range list {
			do(e.id, e.data)
		}
	}
	return err
}

// eventRows are between which numbers the rows of events lie: behind from, up to last.
func (s *Store) eventRows(ctx context.Context) (from, last int64, err error) {
	err = s.reader.QueryRowContext(ctx, `SELECT coalesce(min(rowid), 1) - 1, coalesce(max(rowid), 0) FROM events`).Scan(&from, &last)
	return from, last, err
}

// found is a delivery and whose it is.
type found struct{ id, eventID string }

func ids(list []found) []string {
	all := make([]string, len(list))
	for i, d := range list {
		all[i] = d.id
	}
	return all
}

// eachDelivery goes through all deliveries of a shop.
func (s *Store) eachDelivery(ctx context.Context, shopID string, do func([]found) error) error {
	for after := ""; ; {
		list, err := snapshot(ctx, s.reader, func(r reader) ([]found, error) {
			return collect(ctx, r, `SELECT id, event_id FROM deliveries INDEXED BY deliveries_by_shop WHERE shop_id = ? AND id > ? ORDER BY id LIMIT ?`,
				[]any{shopID, after, window}, func(row scanner) (d found, err error) {
					err = row.Scan(&d.id, &d.eventID)
					return d, err
				})
		})
		if err != nil || len(list) == 0 {
			return err
		}
		if err := do(list); err != nil {
			return err
		}
		after = list[len(list)-1].id
	}
}

// Expunge implements store.Store. What it removes is overwritten with zeros, in the file and in the write-ahead log.
func (s *Store) Expunge(ctx context.Context, shopID string, these store.Events) (done store.Expunged, err error) {
	s.forgetting.Lock()
	defer s.forgetting.Unlock()
	if _, err := s.writer.ExecContext(ctx, `PRAGMA secure_delete = ON`); err != nil {
		return done, fmt.Errorf("begin to expunge: %w", err)
	}
	defer func() {
		// Anew, so that nothing of it stays in the write-ahead log.
		for _, pragma := range []string{`PRAGMA secure_delete = FAST`, `PRAGMA wal_checkpoint(TRUNCATE)`} {
			_, errPragma := s.writer.ExecContext(context.WithoutCancel(ctx), pragma)
			err = errors.Join(err, errPragma)
		}
	}()
	shopID = store.Key(shopID)
	wanted := make(map[string]bool, len(these.IDs))
	for _, id := range these.IDs {
		wanted[store.Key(id)] = true
	}
	if err := s.eachDelivery(ctx, shopID, func(list []found) error {
		var mine []string
		for _, d := range list {
			if these.All || wanted[d.eventID] {
				mine = append(mine, d.id)
			}
		}
		return s.expungeDeliveries(ctx, shopID, mine, &done)
	}); err != nil {
		return done, fmt.Errorf("expunge deliveries of %s: %w", shopID, err)
	}
	if these.All {
		return done, errors.Join(s.expungeAllEvents(ctx, shopID, &done), s.expungeTypes(ctx, shopID))
	}
	for id := range wanted {
		if err := errors.Join(
			s.remove(ctx, &done.Events, `DELETE FROM events WHERE id = ? AND shop_id = ?`, id, shopID),
			s.remove(ctx, &done.Decisions, `DELETE FROM decisions WHERE event_id = ? AND shop_id = ?`, id, shopID),
		); err != nil {
			return done, fmt.Errorf("expunge event %s/%s: %w", shopID, id, err)
		}
	}
	return done, nil
}

// remove deletes rows, and counts them.
func (s *Store) remove(ctx context.Context, count *int64, statement string, args ...any) error {
	result, err := s.writer.ExecContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	*count += n
	return err
}

func (s *Store) expungeDeliveries(ctx context.Context, shopID string, all []string, done *store.Expunged) error {
	for some := range slices.Chunk(all, step) {
		// The delivery last: whoever is interrupted finds it again.
		for _, one := range []struct {
			count     *int64
			statement string
		}{
			{&done.Attempts, `DELETE FROM attempts WHERE delivery_id IN (SELECT value FROM json_each(?)) AND shop_id = ?`},
			{&done.Changes, `DELETE FROM changes WHERE delivery_id IN (SELECT value FROM json_each(?)) AND shop_id = ?`},
			{&done.Deliveries, `DELETE FROM deliveries WHERE id IN (SELECT value FROM json_each(?)) AND shop_id = ?`},
		} {
			if err := s.remove(ctx, one.count, one.statement, jsonList(some), shopID); err != nil {
				return err
			}
		}
	}
	return nil
}

// lastKey is behind all keys of decisions.
var lastKey = [2]string{"\U0010FFFF"}

// expungeAllEvents goes through all events and all decisions: there is no index of a shop's.
func (s *Store) expungeAllEvents(ctx context.Context, shopID string, done *store.Expunged) error {
	from, last, err := s.eventRows(ctx)
	if err != nil {
		return err
	}
	for ; from < last; from += window {
		if err := s.remove(ctx, &done.Events, `DELETE FROM events WHERE rowid > ? AND rowid <= ? AND +shop_id = ?`, from, from+window, shopID); err != nil {
			return fmt.Errorf("expunge events of %s: %w", shopID, err)
		}
	}
	for after := [2]string{}; ; {
		var next [2]string
		err := s.reader.QueryRowContext(ctx, `SELECT event_id, shop_id FROM decisions WHERE (event_id, shop_id) > (?, ?)
			ORDER BY event_id, shop_id LIMIT 1 OFFSET ?`, after[0], after[1], window).Scan(&next[0], &next[1])
		if errors.Is(err, sql.ErrNoRows) {
			next = lastKey // the rest
		} else if err != nil {
			return err
		}
		if err := s.remove(ctx, &done.Decisions, `DELETE FROM decisions WHERE (event_id, shop_id) > (?, ?) AND (event_id, shop_id) <= (?, ?) AND +shop_id = ?`,
			after[0], after[1], next[0], next[1], shopID); err != nil {
			return fmt.Errorf("expunge decisions of %s: %w", shopID, err)
		}
		if after = next; after == lastKey {
			return nil
		}
	}
}
