package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"shopbell.dev/services/log/store"
)

// forgetLock is the advisory lock of the one replica that forgets: "shopbell" as a number, plus two.
const forgetLock = 0x73686f7062656c6e

// parted are the tables that have parts, and what they are parted by.
var parted = []struct{ table, by string }{
	{"events", "accepted_at"}, {"decisions", "born"}, {"deliveries", "born"}, {"attempts", "born"}, {"changes", "born"},
}

// Forget implements store.Store. It drops whole parts. A ceiling is shared out: from three quarters of it on the oldest
// part goes, and a part that has grown to an eighth of it ends, for another to begin, so that what goes is little.
func (s *Store) Forget(ctx context.Context, now time.Time, keep store.Keep) (done store.Forgotten, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return done, fmt.Errorf("begin to forget: %w", err)
	}
	defer conn.Release()
	var mine bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(forgetLock)).Scan(&mine); err != nil || !mine {
		return done, err // another replica does it
	}
	defer func() {
		_, errUnlock := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(forgetLock))
		err = errors.Join(err, errUnlock)
	}()
	// What is needed at midnight is there before: otherwise all replicas would make it at once.
	if _, err := conn.Exec(ctx, `SELECT log_part($1)`, now.Add(24*time.Hour)); err != nil {
		return done, fmt.Errorf("make the part of tomorrow: %w", err)
	}
	done, err = forget(ctx, conn, now, keep)
	if err == nil && keep.Age > 0 {
		_, err = conn.Exec(ctx, `DELETE FROM lateness WHERE day < $1::timestamptz::date - 1`, now.Add(-keep.Age))
	}
	return done, err
}

func forget(ctx context.Context, conn *pgxpool.Conn, now time.Time, keep store.Keep) (done store.Forgotten, err error) {
	all, err := readParts(ctx, conn)
	if err != nil {
		return done, err
	}
	// The part of ids without a time, which nobody makes, stays.
	all = slices.DeleteFunc(all, func(p part) bool { return p.holds(time.Unix(0, 0)) })
	for len(all) > 0 && keep.Age > 0 && !all[0].hi.After(now.Add(-keep.Age)) {
		if err := drop(ctx, conn, all[0]); err != nil {
			return done, err
		}
		done.Until, all = all[0].hi, all[1:]
	}
	for keep.Bytes > 0 && len(all) > 0 && all[0].hi.Before(now) {
		size, err := sizeOf(ctx, conn)
		if err != nil {
			return done, err
		}
		if size <= keep.Bytes/4*3 {
			break
		}
		if err := drop(ctx, conn, all[0]); err != nil {
			return done, err
		}
		done, all = store.Forgotten{Until: all[0].hi, ForSize: true}, all[1:]
	}
	// Clocks may be apart, so it ends some time from now.
	end := now.Add(ahead).Truncate(ahead).Add(ahead)
	for _, p := range all {
		if keep.Bytes == 0 || !p.holds(now) || !end.Before(p.hi) {
			continue
		}
		if size, err := partSize(ctx, conn, p); err != nil || size <= keep.Bytes/8 {
			return done, err
		}
		return done, cut(ctx, conn, p, end)
	}
	return done, nil
}

// ahead is how far the clocks of others may be ahead of ours when a part is ended. A row beyond is written later, when
// there is a part for it.
const ahead = time.Minute

// suffix is how the names of a part's tables end.
func (p part) suffix() string { return p.lo.UTC().Format("_20060102_1504") }

// drop drops a part. Its tables are detached first, in the way that keeps neither readers nor writers waiting. Whatever it
// is interrupted by, the next call finishes it.
func drop(ctx context.Context, conn *pgxpool.Conn, p part) error {
	if _, err := conn.Exec(ctx, `UPDATE forgotten SET until = greatest(until, $1)`, p.hi); err != nil {
		return fmt.Errorf("note what is forgotten: %w", err)
	}
	for _, of := range parted {
		name := of.table + p.suffix()
		var pending bool
		err := conn.QueryRow(ctx, `SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass($1)`, name).Scan(&pending)
		how := "CONCURRENTLY"
		if pending {
			how = "FINALIZE"
		}
		if err == nil {
			_, err = conn.Exec(ctx, fmt.Sprintf(`ALTER TABLE %s DETACH PARTITION %s %s`, of.table, name, how))
		}
		if err != nil && !errors.Is(err, pgx.ErrNoRows) { // detached already
			return fmt.Errorf("detach %s: %w", name, err)
		}
		if _, err := conn.Exec(ctx, `DROP TABLE IF EXISTS `+name); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	_, err := conn.Exec(ctx, `DELETE FROM parts WHERE lo = $1`, p.lo)
	return err
}

// cut ends a part at a time within it, later than all of its rows. The tables are attached anew with the shorter span,
// which takes a moment because a constraint has proven it before; while that was being proven, others wrote on.
func cut(ctx context.Context, conn *pgxpool.Conn, p part, end time.Time) error {
	lo, hi := p.lo.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339)
	err := prove(ctx, conn, p, lo, hi)
	if err == nil {
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return shorten(ctx, tx, p, lo, hi) })
	}
	if err != nil {
		// What is not cut must take later rows, too.
		for _, of := range parted {
			_, errDrop := conn.Exec(context.WithoutCancel(ctx), `ALTER TABLE `+of.table+p.suffix()+` DROP CONSTRAINT IF EXISTS log_cut`)
			err = errors.Join(err, errDrop)
		}
		return fmt.Errorf("end the part of %s at %s: %w", lo, hi, err)
	}
	return nil
}

func prove(ctx context.Context, conn *pgxpool.Conn, p part, lo, hi string) error {
	for _, of := range parted {
		for _, statement := range []string{
			`ALTER TABLE %[1]s DROP CONSTRAINT IF EXISTS log_cut`, // of a process that died
			`ALTER TABLE %[1]s ADD CONSTRAINT log_cut CHECK (%[2]s >= '%[3]s' AND %[2]s < '%[4]s') NOT VALID`,
			`ALTER TABLE %[1]s VALIDATE CONSTRAINT log_cut`,
		} {
			if _, err := conn.Exec(ctx, fmt.Sprintf(statement, of.table+p.suffix(), of.by, lo, hi)); err != nil {
				return err
			}
		}
	}
	return nil
}

func shorten(ctx context.Context, tx pgx.Tx, p part, lo, hi string) error {
	// Rather later than let others wait for whom it waits for.
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '300ms'`); err != nil {
		return err
	}
	for _, of := range parted {
		for _, statement := range []string{
			`ALTER TABLE %[1]s DETACH PARTITION %[2]s`,
			`ALTER TABLE %[1]s ATTACH PARTITION %[2]s FOR VALUES FROM ('%[3]s') TO ('%[4]s')`,
			`ALTER TABLE %[2]s DROP CONSTRAINT log_cut`,
		} {
			if _, err := tx.Exec(ctx, fmt.Sprintf(statement, of.table, of.table+p.suffix(), lo, hi)); err != nil {
				return err
			}
		}
	}
	_, err := tx.Exec(ctx, `UPDATE parts SET hi = $2 WHERE lo = $1`, p.lo, hi)
	return err
}

func partSize(ctx context.Context, conn *pgxpool.Conn, p part) (size int64, err error) {
	for _, of := range parted {
		var one int64
		if err := conn.QueryRow(ctx, `SELECT coalesce(pg_total_relation_size(to_regclass($1)), 0)`, of.table+p.suffix()).Scan(&one); err != nil {
			return 0, fmt.Errorf("measure a part of the log: %w", err)
		}
		size += one
	}
	return size, nil
}

// Size implements store.Store. It is the size of the tables: PostgreSQL's own log beside them is as large as its settings
// let it be.
func (s *Store) Size(ctx context.Context) (int64, error) { return sizeOf(ctx, s.pool) }

func sizeOf(ctx context.Context, db querier) (size int64, err error) {
	err = db.QueryRow(ctx, `SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
		WHERE relkind = 'r' AND relnamespace = current_schema::regnamespace`).Scan(&size)
	if err != nil {
		return 0, fmt.Errorf("measure the log: %w", err)
	}
	return size, nil
}

// querier is a pool or one of its connections.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}
