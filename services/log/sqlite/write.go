package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"shopbell.dev/services/log/store"
)

// A delivery's row: which it is, what it was made with, and what becomes of it. An update leaves the first part alone, and
// nearly every update the second, too, and so the indexes: they would be written even with what they hold.
const (
	stateKey  = `shop_id, id, webhook_id`
	stateBase = `event_id, event_type, test, created_at, due`
	stateRest = `status, attempts_made, response_code, error_class,
	attempt_started_at, attempt_at, attempt_status, attempt_reason, next_attempt_at,
	change_at, change_status, change_reason`
	stateColumns = stateKey + ", " + stateBase + ", " + stateRest
)

// statements are prepared once: parsing costs more than writing a row. The inserts leave a row alone that is there.
type statements struct {
	insertEvent                                  *sql.Stmt
	insertDecision, readDecision, updateDecision *sql.Stmt
	insertDelivery, readDelivery, updateDelivery *sql.Stmt
	updateBase                                   *sql.Stmt
	insertAttempt, insertChange, raiseLateness   *sql.Stmt
	insertType                                   *sql.Stmt
	readStats, writeStats, readForgotten         *sql.Stmt
}

func prepare(ctx context.Context, db *sql.DB) (statements, error) {
	var err error
	one := func(text string) *sql.Stmt {
		stmt, errOne := db.PrepareContext(ctx, text)
		err = cmp.Or(err, errOne)
		return stmt
	}
	all := statements{
		insertEvent: one(`INSERT INTO events (shop_id, id, type, action, occurred_at, environment, key, content_type, trace_id, accepted_by,
			accepted_at, data) VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`),

		insertDecision: one(`INSERT INTO decisions (shop_id, event_id, event_type, at, decision)
			VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING`),
		readDecision:   one(readDecision),
		updateDecision: one(`UPDATE decisions SET event_type = ?, at = ?, decision = ? WHERE shop_id = ? AND event_id = ?`),

		insertDelivery: one(`INSERT INTO deliveries (` + stateColumns + `)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`),
		readDelivery:   one(`SELECT ` + stateColumns + ` FROM deliveries WHERE shop_id = ? AND id = ?`),
		updateDelivery: one(`UPDATE deliveries SET (` + stateRest + `) = (?,?,?,?,?,?,?,?,?,?,?,?) WHERE shop_id = ? AND id = ?`),
		updateBase:     one(`UPDATE deliveries SET (` + stateBase + `) = (?,?,?,?,?) WHERE shop_id = ? AND id = ?`),

		insertAttempt: one(`INSERT INTO attempts (shop_id, delivery_id, number, started_at, record)
			VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING`),
		insertChange: one(`INSERT INTO changes (shop_id, delivery_id, at, status, reason)
			VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING`),
		raiseLateness: one(`INSERT INTO lateness (day, late) VALUES (?,?)
			ON CONFLICT (day) DO UPDATE SET late = excluded.late WHERE late < excluded.late`),

		insertType: one(`INSERT INTO types (shop_id, event_type, day) VALUES (?,?,?) ON CONFLICT DO NOTHING`),
		readStats:  one(readStats),
		writeStats: one(writeStats),

		readForgotten: one(`SELECT until FROM forgotten`),
	}
	if err != nil {
		return statements{}, fmt.Errorf("prepare writing: %w", err)
	}
	return all, nil
}

// on makes the statements those of a transaction.
func (s statements) on(ctx context.Context, tx *sql.Tx) statements {
	for _, stmt := range []**sql.Stmt{
		&s.insertEvent, &s.insertDecision, &s.readDecision, &s.updateDecision,
		&s.insertDelivery, &s.readDelivery, &s.updateDelivery, &s.updateBase, &s.insertAttempt, &s.insertChange, &s.raiseLateness, &s.insertType,
		&s.readStats, &s.writeStats, &s.readForgotten,
	} {
		*stmt = tx.StmtContext(ctx, *stmt)
	}
	return s
}

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, batch store.Batch) (err error) {
	rows := batch.Rows()
	s.types.mu.Lock()
	defer s.types.mu.Unlock()
	defer func() {
		if err != nil {
			s.types.known = nil // it may hold what was not committed
		}
	}()
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin writing the log: %w", err)
	}
	defer tx.Rollback()
	// The driver starts a goroutine for every statement whose context can end. The transaction has ours: when it ends,
	// the next statement fails.
	w := writer{statements: s.statements.on(ctx, tx), tally: make(store.Tally), types: &s.types}
	var forgotten sql.NullInt64
	if err := w.readForgotten.QueryRowContext(ctx).Scan(&forgotten); err != nil {
		return fmt.Errorf("read what was forgotten: %w", err)
	}
	w.forgotten = fromMicros(forgotten)
	if err := w.write(context.WithoutCancel(ctx), rows); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit to the log: %w", err)
	}
	return nil
}

// writer writes one batch.
type writer struct {
	statements
	tally     store.Tally
	types     *types    // locked
	forgotten time.Time // see store.Tally.Made

	// met says that the last delivery had a row. A batch goes by the time of events, so it is likely that the next is like
	// it: either the attempts come with the decisions, or a batch later.
	met bool
}

func (w *writer) write(ctx context.Context, rows store.Rows) error {
	for _, e := range rows.Events {
		if _, err := w.exec(ctx, w.insertEvent, e.ShopID, e.ID, e.Type, e.Action, e.OccurredAt, e.Environment, e.Key,
			e.ContentType, e.Trace, e.AcceptedBy, micros(e.AcceptedAt), e.Data); err != nil {
			return fmt.Errorf("write event %s/%s: %w", e.ShopID, e.ID, err)
		}
	}
	for _, d := range rows.Decisions {
		if err := w.decision(ctx, d); err != nil {
			return fmt.Errorf("write the decision about %s/%s: %w", d.ShopID, d.EventID, err)
		}
	}
	for _, d := range rows.Deliveries {
		if err := w.delivery(ctx, d); err != nil {
			return fmt.Errorf("write delivery %s/%s: %w", d.ShopID, d.ID, err)
		}
	}
	for _, a := range rows.Attempts {
		made, err := w.exec(ctx, w.insertAttempt, a.ShopID, a.DeliveryID, a.Number, micros(a.StartedAt), a.Record)
		if err != nil {
			return fmt.Errorf("write attempt %s/%s/%d: %w", a.ShopID, a.DeliveryID, a.Number, err)
		}
		if made {
			w.tally.Attempt(a)
		}
	}
	for _, c := range rows.Changes {
		if _, err := w.exec(ctx, w.insertChange, c.ShopID, c.DeliveryID, micros(c.At), c.Status, c.Reason); err != nil {
			return fmt.Errorf("write change of %s/%s: %w", c.ShopID, c.DeliveryID, err)
		}
	}
	for _, l := range rows.Lateness {
		if _, err := w.exec(ctx, w.raiseLateness, micros(l.Day), l.Late.Microseconds()); err != nil {
			return fmt.Errorf("write how late deliveries of %s were matched: %w", l.Day, err)
		}
	}
	return w.stats(ctx, w.tally.Rows())
}

func (w writer) decision(ctx context.Context, d store.DecisionRow) error {
	made, err := w.exec(ctx, w.insertDecision, d.ShopID, d.EventID, d.EventType, micros(d.At), d.Decision)
	if err != nil || made {
		return err
	}
	stored, err := scanDecision(w.readDecision.QueryRowContext(ctx, d.ShopID, d.EventID))
	if err != nil {
		return err
	}
	merged := stored.Merge(d)
	if merged.Equal(stored) {
		return nil
	}
	_, err = w.exec(ctx, w.updateDecision, merged.EventType, micros(merged.At), merged.Decision, d.ShopID, d.EventID)
	return err
}

func (w *writer) delivery(ctx context.Context, d store.State) error {
	for range 2 {
		if w.met {
			stored, err := scanState(w.readDelivery.QueryRowContext(ctx, d.ShopID, d.ID))
			switch {
			case err == nil:
				return w.merge(ctx, stored, d)
			case !errors.Is(err, sql.ErrNoRows):
				return err
			}
			w.met = false
			continue
		}
		made, err := w.exec(ctx, w.insertDelivery, stateArgs(d)...)
		if err != nil {
			return err
		}
		if made {
			w.tally.Made(d, w.forgotten)
			return w.typed(ctx, d)
		}
		w.met = true
	}
	return errors.New("its row is neither there nor can it be made")
}

// merge writes what a delivery's row does not know yet.
func (w *writer) merge(ctx context.Context, stored, d store.State) error {
	merged := stored.Merge(d)
	if merged == stored {
		return nil
	}
	w.tally.Changed(stored, merged)
	args := stateArgs(merged)[3:]
	if base := args[:5]; !slices.Equal(base, stateArgs(stored)[3:8]) {
		if _, err := w.exec(ctx, w.updateBase, append(slices.Clone(base), d.ShopID, d.ID)...); err != nil {
			return err
		}
		if err := w.typed(ctx, merged); err != nil {
			return err
		}
	}
	_, err := w.exec(ctx, w.updateDelivery, append(args[5:], d.ShopID, d.ID)...)
	return err
}

// exec says whether a row was made or changed. It lets others have the processor first: a transaction of thousands of rows would
// keep it for ten milliseconds at a time, which those who deliver wait for.
func (w writer) exec(ctx context.Context, stmt *sql.Stmt, args ...any) (done bool, err error) {
	runtime.Gosched()
	result, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

func stateArgs(s store.State) []any {
	a, c := s.Attempt, s.Change
	return []any{
		s.ShopID, s.ID, s.WebhookID, s.EventID, s.EventType, s.Test, micros(s.CreatedAt), micros(s.Due),
		s.Status(), a.Number, a.ResponseCode, a.ErrorClass,
		micros(a.StartedAt), micros(a.At), orNull(a.Status), orNull(a.Reason), micros(a.NextAttemptAt),
		micros(c.At), orNull(c.Status), orNull(c.Reason),
	}
}

// micros is a time as a column holds it; the zero time is null.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func fromMicros(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
