package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"shopbell.dev/services/log/store"
)

const (
	statsColumns = `day, start, shop_id, webhook_id, counts`

	readStats  = `SELECT counts FROM stats WHERE day = ? AND start = ? AND shop_id = ? AND webhook_id = ?`
	writeStats = `INSERT INTO stats (` + statsColumns + `) VALUES (?,?,?,?,?)
		ON CONFLICT DO UPDATE SET counts = excluded.counts`
)

// stats adds to the rows of statistics.
func (w writer) stats(ctx context.Context, rows []store.StatsRow) error {
	for _, r := range rows {
		var stored []byte
		err := w.readStats.QueryRowContext(ctx, r.Day, micros(r.Start), r.ShopID, r.WebhookID).Scan(&stored)
		if err == nil || errors.Is(err, sql.ErrNoRows) {
			sum := store.DecodeCounts(stored)
			sum.Add(r.Counts)
			_, err = w.exec(ctx, w.writeStats, r.Day, micros(r.Start), r.ShopID, r.WebhookID, sum.Encode())
		}
		if err != nil {
			return fmt.Errorf("write statistics of %s/%s: %w", r.ShopID, r.WebhookID, err)
		}
	}
	return nil
}

// Stats implements store.Store.
func (s *Store) Stats(ctx context.Context, f store.StatsFilter) ([]store.StatsRow, error) {
	hours, days := f.Starts()
	return snapshot(ctx, s.reader, func(r reader) ([]store.StatsRow, error) {
		var all []store.StatsRow
		for _, part := range []struct {
			day    bool
			starts []time.Time
		}{{false, hours}, {true, days}} {
			rows, err := collect(ctx, r, `SELECT `+statsColumns+` FROM json_each(?) CROSS JOIN stats ON start = value
				WHERE day = ? AND shop_id = ? AND webhook_id = ? ORDER BY start`,
				[]any{jsonTimes(part.starts), part.day, store.Key(f.ShopID), store.Key(f.WebhookID)}, scanStats)
			if err != nil {
				return nil, fmt.Errorf("read statistics of %s/%s: %w", f.ShopID, f.WebhookID, err)
			}
			all = append(all, rows...)
		}
		return all, nil
	})
}

func scanStats(row scanner) (store.StatsRow, error) {
	var r store.StatsRow
	var start sql.NullInt64
	var counts []byte
	err := row.Scan(&r.Day, &start, &r.ShopID, &r.WebhookID, &counts)
	r.Start, r.Counts = fromMicros(start), store.DecodeCounts(counts)
	return r, err
}

// jsonTimes is how a list of times goes into one parameter.
func jsonTimes(times []time.Time) string {
	list := make([]int64, len(times))
	for i, t := range times {
		list[i] = t.UnixMicro()
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // numbers always marshal
	}
	return string(b)
}

// thinned is how many hours one step puts together: some 50 ms, for which writing waits.
const thinned = 2000

// ThinStats implements store.Store.
func (s *Store) ThinStats(ctx context.Context, hoursUntil, daysUntil time.Time) (more bool, err error) {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("begin to thin statistics: %w", err)
	}
	defer tx.Rollback()
	hours, err := collect(ctx, reader{tx}, `DELETE FROM stats WHERE (day, start, shop_id, webhook_id) IN
		(SELECT day, start, shop_id, webhook_id FROM stats WHERE day = 0 AND start < ? ORDER BY start, shop_id, webhook_id LIMIT ?)
		RETURNING `+statsColumns, []any{micros(hoursUntil), thinned}, scanStats)
	if err != nil {
		return false, fmt.Errorf("take the hours that become days: %w", err)
	}
	w := writer{statements: s.statements.on(ctx, tx)}
	if err := w.stats(ctx, store.Days(hours).Rows()); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM stats WHERE day = 1 AND start < ?`, micros(daysUntil)); err != nil {
		return false, fmt.Errorf("forget old statistics: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("commit thinner statistics: %w", err)
	}
	return len(hours) == thinned, nil
}
