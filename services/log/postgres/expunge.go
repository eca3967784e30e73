package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"shopbell.dev/services/log/store"
)

// Holding implements store.Store.
func (s *Store) Holding(ctx context.Context, shopID, text string) ([]string, error) {
	return snapshot(ctx, s, func(r reader) ([]string, error) {
		needle, held := store.NewNeedle(text), make(map[string]bool)
		for _, query := range []string{
			`SELECT id, data FROM events WHERE shop_id = $1`,
			`SELECT d.event_id, a.record FROM deliveries d JOIN attempts a ON a.delivery_id = d.id AND a.born = d.born AND a.shop_id = d.shop_id
				WHERE d.shop_id = $1 AND d.event_id <> ''`,
		} {
			rows, err := r.tx.Query(ctx, query, store.Key(shopID))
			if err != nil {
				return nil, fmt.Errorf("read what there is of %s: %w", shopID, err)
			}
			var id string
			var data []byte
			if _, err := pgx.ForEachRow(rows, []any{&id, &data}, func() error {
				if needle.In(data) {
					held[id] = true
				}
				return nil
			}); err != nil {
				return nil, fmt.Errorf("read what there is of %s: %w", shopID, err)
			}
		}
		return slices.Sorted(maps.Keys(held)), nil
	})
}

// Expunge implements store.Store. PostgreSQL writes over what was removed when its pages are used again, at the latest when
// their part is dropped.
func (s *Store) Expunge(ctx context.Context, shopID string, these store.Events) (done store.Expunged, err error) {
	ids := column(these.IDs, store.Key)
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted}
	err = pgx.BeginTxFunc(ctx, s.pool, options, func(tx pgx.Tx) error {
		const mine = ` USING deliveries d WHERE d.shop_id = $1 AND ($2 OR d.event_id = ANY($3)) AND a.shop_id = d.shop_id AND a.delivery_id = d.id AND a.born = d.born`
		for _, one := range []struct {
			count     *int64
			statement string
		}{
			{&done.Events, `DELETE FROM events WHERE shop_id = $1 AND ($2 OR id = ANY($3))`},
			{&done.Decisions, `DELETE FROM decisions WHERE shop_id = $1 AND ($2 OR event_id = ANY($3))`},
			{&done.Attempts, `DELETE FROM attempts AS a` + mine},
			{&done.Changes, `DELETE FROM changes AS a` + mine},
			{&done.Deliveries, `DELETE FROM deliveries WHERE shop_id = $1 AND ($2 OR event_id = ANY($3))`},
		} {
			tag, err := tx.Exec(ctx, one.statement, store.Key(shopID), these.All, ids)
			if err != nil {
				return err
			}
			*one.count = tag.RowsAffected()
		}
		return nil
	})
	if err != nil {
		return store.Expunged{}, fmt.Errorf("expunge events of %s: %w", shopID, err)
	}
	return done, nil
}
