package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"shopbell.dev/services/log/store"
)

const (
	statsKey = `day, start, shop_id, webhook_id`

	unnestStatsKeys = `unnest($1::boolean[], $2::timestamptz[], $3::text[], $4::text[])`

	// Makes the rows that are not there, so that there is a row to be locked.
	insertStats = `INSERT INTO stats (` + statsKey + `, counts) SELECT *, ''::bytea FROM ` + unnestStatsKeys + `
		ON CONFLICT DO NOTHING`

	lockStats = `SELECT ` + statsKey + `, counts FROM stats
		WHERE (` + statsKey + `) IN (SELECT * FROM ` + unnestStatsKeys + `) ORDER BY ` + statsKey + ` FOR UPDATE`

	updateStats = `UPDATE stats SET counts = n.counts
		FROM unnest($1::boolean[], $2::timestamptz[], $3::text[], $4::text[], $5::bytea[]) AS n (` + statsKey + `, counts)
		WHERE stats.day = n.day AND stats.start = n.start AND stats.shop_id = n.shop_id AND stats.webhook_id = n.webhook_id`
)

// addStats adds to the rows of statistics. It comes last in its transaction: replicas that count the same webhook wait
// for each other from here on.
func addStats(ctx context.Context, tx pgx.Tx, rows []store.StatsRow) error {
	if len(rows) == 0 {
		return nil
	}
	keys := statsKeys(rows)
	byKey := make(map[store.StatsKey]*store.Counts, len(rows))
	// Twice only if thinning took a row between the two statements.
	for len(byKey) < len(rows) {
		var b pgx.Batch
		b.Queue(insertStats, keys...)
		b.Queue(lockStats, keys...).Query(func(found pgx.Rows) error {
			stored, err := pgx.CollectRows(found, scanStats)
			for _, r := range stored {
				byKey[r.StatsKey] = r.Counts
			}
			return err
		})
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return fmt.Errorf("lock statistics: %w", err)
		}
	}
	sums := make([][]byte, len(rows))
	for i, r := range rows {
		sum := byKey[r.StatsKey]
		sum.Add(r.Counts)
		sums[i] = sum.Encode()
	}
	if _, err := tx.Exec(ctx, updateStats, append(keys, sums)...); err != nil {
		return fmt.Errorf("write statistics: %w", err)
	}
	return nil
}

func statsKeys(rows []store.StatsRow) []any {
	type row = store.StatsRow
	return []any{
		column(rows, func(r row) bool { return r.Day }),
		column(rows, func(r row) time.Time { return r.Start }),
		column(rows, func(r row) string { return r.ShopID }),
		column(rows, func(r row) string { return r.WebhookID }),
	}
}

func scanStats(row pgx.CollectableRow) (store.StatsRow, error) {
	var r store.StatsRow
	var counts []byte
	err := row.Scan(&r.Day, &r.Start, &r.ShopID, &r.WebhookID, &counts)
	r.Start, r.Counts = r.Start.UTC(), store.DecodeCounts(counts)
	return r, err
}

// Stats implements store.Store.
func (s *Store) Stats(ctx context.Context, f store.StatsFilter) ([]store.StatsRow, error) {
	hours, days := f.Starts()
	return snapshot(ctx, s, func(r reader) ([]store.StatsRow, error) {
		found, err := r.tx.Query(ctx, `SELECT `+statsKey+`, counts FROM stats
			WHERE (NOT day AND start = ANY($1) OR day AND start = ANY($2)) AND shop_id = $3 AND webhook_id = $4 ORDER BY `+statsKey,
			hours, days, store.Key(f.ShopID), store.Key(f.WebhookID))
		if err == nil {
			var rows []store.StatsRow
			if rows, err = pgx.CollectRows(found, scanStats); err == nil {
				return rows, nil
			}
		}
		return nil, fmt.Errorf("read statistics of %s/%s: %w", f.ShopID, f.WebhookID, err)
	})
}

// thinned is how many hours one step puts together.
const thinned = 2000

// ThinStats implements store.Store. Replicas may do so at once: each takes other rows.
func (s *Store) ThinStats(ctx context.Context, hoursUntil, daysUntil time.Time) (more bool, err error) {
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted}
	err = pgx.BeginTxFunc(ctx, s.pool, options, func(tx pgx.Tx) error {
		found, err := tx.Query(ctx, `DELETE FROM stats WHERE (`+statsKey+`) IN
			(SELECT `+statsKey+` FROM stats WHERE NOT day AND start < $1 ORDER BY `+statsKey+` LIMIT $2 FOR UPDATE SKIP LOCKED)
			RETURNING `+statsKey+`, counts`, hoursUntil, thinned)
		if err != nil {
			return err
		}
		hours, err := pgx.CollectRows(found, scanStats)
		if err != nil {
			return err
		}
		more = len(hours) == thinned
		if err := addStats(ctx, tx, store.Days(hours).Rows()); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM stats WHERE day AND start < $1`, daysUntil)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("thin statistics: %w", err)
	}
	return more, nil
}
