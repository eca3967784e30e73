package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"shopbell.dev/services/log/store"
)

// How a ceiling is shared out: the file is kept free from 13/16 of it on, so that it can grow that much between two calls
// before it is given back to the disk, and the write-ahead log is cut at 1/16.
const (
	mayUse      = 13
	mayBe       = 15
	mayBeLogged = 1
	shares      = 16
)

// step is how many events and deliveries one transaction forgets. More are cheaper, because rows that are old lie side by
// side, and have a writer wait longer: for these some tens of milliseconds.
const step = 2000

// Forget implements store.Store.
func (s *Store) Forget(ctx context.Context, now time.Time, keep store.Keep) (store.Forgotten, error) {
	s.forgetting.Lock()
	defer s.forgetting.Unlock()
	var done store.Forgotten
	if keep.Age > 0 {
		for more := true; more; {
			var err error
			if more, err = s.forget(ctx, now.Add(-keep.Age), step); err != nil {
				return done, err
			}
			if more {
				done.Until = now.Add(-keep.Age)
			}
		}
		if err := s.patrol(ctx, now.Add(-keep.Age)); err != nil {
			return done, err
		}
	}
	for keep.Bytes > 0 {
		disk, err := s.disk(ctx)
		if err != nil {
			return done, err
		}
		if disk.used <= keep.Bytes/shares*mayUse {
			return done, s.giveBack(ctx, keep.Bytes)
		}
		until, n, err := s.oldest(ctx)
		if err != nil {
			return done, err
		}
		more, err := s.forget(ctx, until, n)
		if err != nil {
			return done, err
		}
		if !more { // what is left are statistics
			return done, s.giveBack(ctx, keep.Bytes)
		}
		done = store.Forgotten{Until: until, ForSize: true}
	}
	return done, nil
}

// oldest is until when the oldest rows reach, a step of them; or fewer, where there are no more.
func (s *Store) oldest(ctx context.Context) (until time.Time, n int, err error) {
	for n = step; ; n /= 10 {
		var event sql.NullInt64
		err := s.reader.QueryRowContext(ctx, `SELECT accepted_at FROM events WHERE accepted_at > 0 ORDER BY rowid LIMIT 1 OFFSET ?`, n).Scan(&event)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return until, 0, fmt.Errorf("find the oldest events of the log: %w", err)
		}
		var delivery sql.NullString
		err = s.reader.QueryRowContext(ctx, `SELECT id FROM deliveries WHERE id >= ? ORDER BY id LIMIT 1 OFFSET ?`, firstOurs, n).Scan(&delivery)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return until, 0, fmt.Errorf("find the oldest deliveries of the log: %w", err)
		}
		if event.Valid {
			until = fromMicros(event)
		}
		if born := store.Born(delivery.String); delivery.Valid && (until.IsZero() || born.Before(until)) {
			until = born
		}
		if !until.IsZero() || n == 0 {
			return until.Add(time.Millisecond), max(n, 1), nil // with those of this very millisecond, so that there are some
		}
	}
}

// firstOurs is before all ids of deliveries that hold a time. The others, which nobody makes, stay.
var firstOurs = store.FirstID(time.Unix(0, 0))

// forget forgets what belongs to events accepted before that time: so many events and deliveries, the oldest first. It
// says whether there were any.
func (s *Store) forget(ctx context.Context, until time.Time, n int) (more bool, err error) {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("begin to forget: %w", err)
	}
	defer tx.Rollback()
	events, err := s.forgetEvents(ctx, tx, until, n)
	if err != nil {
		return false, fmt.Errorf("forget events: %w", err)
	}
	deliveries, err := s.forgetDeliveries(ctx, tx, until, n)
	if err != nil {
		return false, fmt.Errorf("forget deliveries: %w", err)
	}
	if events+deliveries == 0 {
		return false, nil
	}
	return true, tx.Commit()
}

// forgetEvents goes by the order in which events were written, which is nearly that of their times: that needs no index.
func (s *Store) forgetEvents(ctx context.Context, tx *sql.Tx, until time.Time, n int) (int64, error) {
	const old = `FROM (SELECT rowid AS row, id, shop_id, accepted_at FROM events ORDER BY rowid LIMIT ?) WHERE accepted_at > 0 AND accepted_at < ?`
	if _, err := tx.ExecContext(ctx, `DELETE FROM decisions WHERE (event_id, shop_id) IN (SELECT id, shop_id `+old+`)`, n, until.UnixMicro()); err != nil {
		return 0, err
	}
	result, err := tx.ExecContext(ctx, `DELETE FROM events WHERE rowid IN (SELECT row `+old+`)`, n, until.UnixMicro())
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// forgetDeliveries goes by ids, which begin with the time of their event.
func (s *Store) forgetDeliveries(ctx context.Context, tx *sql.Tx, until time.Time, n int) (int64, error) {
	end := store.FirstID(until)
	var next string
	switch err := tx.QueryRowContext(ctx, `SELECT id FROM deliveries WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?`, firstOurs, end, n).Scan(&next); {
	case err == nil:
		end = next
	case !errors.Is(err, sql.ErrNoRows):
		return 0, err
	}
	for _, statement := range []string{
		`DELETE FROM attempts WHERE delivery_id >= ? AND delivery_id < ?`,
		`DELETE FROM changes WHERE delivery_id >= ? AND delivery_id < ?`,
	} {
		if _, err := tx.ExecContext(ctx, statement, firstOurs, end); err != nil {
			return 0, err
		}
	}
	result, err := tx.ExecContext(ctx, `DELETE FROM deliveries WHERE id >= ? AND id < ?`, firstOurs, end)
	if err != nil {
		return 0, err
	}
	if next != "" {
		until = store.Born(next)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE forgotten SET until = max(until, ?)`, until.UnixMicro()); err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// patrol forgets old decisions that came when their event had been forgotten already, or whose event never came, and how
// late deliveries once were matched. It looks at some decisions each time.
func (s *Store) patrol(ctx context.Context, until time.Time) error {
	const some = 1000
	from, to := s.patrolled, [2]string{}
	switch err := s.reader.QueryRowContext(ctx, `SELECT event_id, shop_id FROM decisions WHERE (event_id, shop_id) > (?, ?)
		ORDER BY event_id, shop_id LIMIT 1 OFFSET ?`, from[0], from[1], some).Scan(&to[0], &to[1]); {
	case err == nil:
		s.patrolled = to
	case errors.Is(err, sql.ErrNoRows): // the rest of them; then from the beginning
		to, s.patrolled = lastKey, [2]string{}
	default:
		return fmt.Errorf("look for old decisions: %w", err)
	}
	for _, d := range []struct {
		statement string
		args      []any
	}{
		{
			`DELETE FROM decisions WHERE (event_id, shop_id) > (?, ?) AND (event_id, shop_id) <= (?, ?) AND at > 0 AND at < ?`,
			[]any{from[0], from[1], to[0], to[1], until.UnixMicro()},
		},
		{`DELETE FROM lateness WHERE day < ?`, []any{until.Add(-24 * time.Hour).UnixMicro()}},
	} {
		if _, err := s.writer.ExecContext(ctx, d.statement, d.args...); err != nil {
			return fmt.Errorf("forget old decisions: %w", err)
		}
	}
	return s.forgetTypes(ctx, until)
}

// giveBack cuts the write-ahead log and the file, where they are larger than is their share: after a burst, or when less
// may be kept than before. Room within the file is used again without that.
func (s *Store) giveBack(ctx context.Context, ceiling int64) error {
	disk, err := s.disk(ctx)
	if err != nil {
		return err
	}
	for disk.file > ceiling/shares*mayBe && disk.free > 0 {
		before := disk.file
		if _, err := s.writer.ExecContext(ctx, `PRAGMA incremental_vacuum(256)`); err != nil {
			return fmt.Errorf("give space back: %w", err)
		}
		if disk, err = s.disk(ctx); err != nil || disk.file >= before {
			return err // a file that was made without auto_vacuum stays as large as it is, and is filled again
		}
	}
	if disk.logged > ceiling/shares*mayBeLogged {
		// A reader that is under way lets it be cut only in part; the next call does the rest.
		if _, err := s.writer.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
			return fmt.Errorf("cut the write-ahead log: %w", err)
		}
	}
	return nil
}

// disk is what the log takes, in bytes: the file, of which so much is used and so much is free, and the write-ahead log.
type disk struct{ file, used, free, logged int64 }

func (s *Store) disk(ctx context.Context) (d disk, err error) {
	var pages, free, size int64
	if err := s.reader.QueryRowContext(ctx, `SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).
		Scan(&pages, &free, &size); err != nil {
		return d, fmt.Errorf("measure the log: %w", err)
	}
	d = disk{file: pages * size, used: (pages - free) * size, free: free * size}
	info, err := os.Stat(s.path + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		d.logged = info.Size()
	}
	return d, err
}

// Size implements store.Store.
func (s *Store) Size(ctx context.Context) (int64, error) {
	d, err := s.disk(ctx)
	return d.file + d.logged, err
}
