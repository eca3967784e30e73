package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"time"

	"shopbell.dev/services/log/store"
)

// A delivery's row: which it is, and what may change. An update leaves the first part alone, and so the indexes.
const (
	stateKey  = `shop_id, id, webhook_id`
	stateRest = `event_id, event_type, test, created_at, due, status, attempts_made, response_code, error_class,
	attempt_started_at, attempt_at, attempt_status, attempt_reason, next_attempt_at,
	change_at, change_status, change_reason`
	stateColumns = stateKey + ", " + stateRest
)

// statements are prepared once: parsing costs more than writing a row. The inserts leave a row alone that is there.
type statements struct {
	insertEvent, readEvent, fillEvent, decideEvent *sql.Stmt
	insertDelivery, readDelivery, updateDelivery   *sql.Stmt
	insertAttempt, insertChange                    *sql.Stmt
}

func prepare(ctx context.Context, db *sql.DB) (statements, error) {
	var err error
	one := func(text string) *sql.Stmt {
		stmt, errOne := db.PrepareContext(ctx, text)
		err = cmp.Or(err, errOne)
		return stmt
	}
	all := statements{
		insertEvent: one(`INSERT INTO events (shop_id, id, type, action, occurred_at, environment, key, content_type, trace_id,
			accepted_at, decided_at, decision, data) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`),
		readEvent: one(`SELECT accepted_at IS NOT NULL, decided_at, decision FROM events WHERE shop_id = ? AND id = ?`),
		fillEvent: one(`UPDATE events SET type = ?, action = ?, occurred_at = ?, environment = ?, key = ?,
			content_type = ?, trace_id = ?, accepted_at = ?, data = ? WHERE shop_id = ? AND id = ?`),
		decideEvent: one(`UPDATE events SET decided_at = ?, decision = ? WHERE shop_id = ? AND id = ?`),

		insertDelivery: one(`INSERT INTO deliveries (` + stateColumns + `)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`),
		readDelivery: one(`SELECT ` + stateColumns + ` FROM deliveries WHERE shop_id = ? AND id = ?`),
		updateDelivery: one(`UPDATE deliveries SET (` + stateRest + `) = (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
			WHERE shop_id = ? AND id = ?`),

		insertAttempt: one(`INSERT INTO attempts (shop_id, delivery_id, number, started_at, record)
			VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING`),
		insertChange: one(`INSERT INTO changes (shop_id, delivery_id, at, status, reason)
			VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING`),
	}
	if err != nil {
		return statements{}, fmt.Errorf("prepare writing: %w", err)
	}
	return all, nil
}

// on makes the statements those of a transaction.
func (s statements) on(ctx context.Context, tx *sql.Tx) statements {
	for _, stmt := range []**sql.Stmt{
		&s.insertEvent, &s.readEvent, &s.fillEvent, &s.decideEvent,
		&s.insertDelivery, &s.readDelivery, &s.updateDelivery, &s.insertAttempt, &s.insertChange,
	} {
		*stmt = tx.StmtContext(ctx, *stmt)
	}
	return s
}

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, batch store.Batch) error {
	rows := batch.Rows()
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin writing the log: %w", err)
	}
	defer tx.Rollback()
	// The driver starts a goroutine for every statement whose context can end. The transaction has ours: when it ends,
	// the next statement fails.
	w := writer{context.WithoutCancel(ctx), s.statements.on(ctx, tx)}
	if err := w.write(rows); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit to the log: %w", err)
	}
	return nil
}

// writer writes one batch.
type writer struct {
	ctx context.Context //nolint:containedctx // lives as long as the call of Write that made it
	statements
}

func (w *writer) write(rows store.Rows) error {
	for i := range rows.Events {
		if err := w.event(&rows.Events[i]); err != nil {
			return fmt.Errorf("write event %s/%s: %w", rows.Events[i].ShopID, rows.Events[i].ID, err)
		}
	}
	for _, d := range rows.Deliveries {
		if err := w.delivery(d); err != nil {
			return fmt.Errorf("write delivery %s/%s: %w", d.ShopID, d.ID, err)
		}
	}
	for _, a := range rows.Attempts {
		if _, err := w.exec(w.insertAttempt, a.ShopID, a.DeliveryID, a.Number, micros(a.StartedAt), a.Record); err != nil {
			return fmt.Errorf("write attempt %s/%s/%d: %w", a.ShopID, a.DeliveryID, a.Number, err)
		}
	}
	for _, c := range rows.Changes {
		if _, err := w.exec(w.insertChange, c.ShopID, c.DeliveryID, micros(c.At), c.Status, c.Reason); err != nil {
			return fmt.Errorf("write change of %s/%s: %w", c.ShopID, c.DeliveryID, err)
		}
	}
	return nil
}

func (w *writer) event(e *store.EventRow) error {
	made, err := w.exec(w.insertEvent, e.ShopID, e.ID, e.Type, e.Action, e.OccurredAt, e.Environment, e.Key,
		e.ContentType, e.Trace, micros(e.AcceptedAt), micros(e.DecidedAt), e.Decision, e.Data)
	if err != nil || made {
		return err
	}
	var stored store.StoredEvent
	var decidedAt sql.NullInt64
	err = w.readEvent.QueryRowContext(w.ctx, e.ShopID, e.ID).Scan(&stored.Arrived, &decidedAt, &stored.Decision)
	if err != nil {
		return err
	}
	stored.DecidedAt = fromMicros(decidedAt)
	arrived, decided := e.Onto(stored)
	if arrived {
		if _, err := w.exec(w.fillEvent, e.Type, e.Action, e.OccurredAt, e.Environment, e.Key, e.ContentType, e.Trace,
			micros(e.AcceptedAt), e.Data, e.ShopID, e.ID); err != nil {
			return err
		}
	}
	if decided {
		if _, err := w.exec(w.decideEvent, micros(e.DecidedAt), e.Decision, e.ShopID, e.ID); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) delivery(d store.State) error {
	made, err := w.exec(w.insertDelivery, stateArgs(d)...)
	if err != nil || made {
		return err
	}
	stored, err := scanState(w.readDelivery.QueryRowContext(w.ctx, d.ShopID, d.ID))
	if err != nil {
		return err
	}
	merged := stored.Merge(d)
	if merged == stored {
		return nil
	}
	_, err = w.exec(w.updateDelivery, append(stateArgs(merged)[3:], d.ShopID, d.ID)...)
	return err
}

// exec says whether a row was made or changed.
func (w *writer) exec(stmt *sql.Stmt, args ...any) (done bool, err error) {
	result, err := stmt.ExecContext(w.ctx, args...)
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
