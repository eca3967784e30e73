package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shopbell.dev/services/log/store"
)

// Two replicas that meet at a row wait for each other there; they cannot lock each other out, because all writers take
// tables and rows in the same order.
const (
	eventColumns = `shop_id, id, type, action, occurred_at, environment, key, content_type, trace_id, accepted_by, accepted_at, data`

	decisionColumns = `shop_id, event_id, event_type, at, decision, born`
	unnestDecisions = `unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bytea[], $6::timestamptz[])`

	stateColumns = `shop_id, id, webhook_id, event_id, event_type, test, created_at, due,
		status, attempts_made, response_code, error_class,
		attempt_started_at, attempt_at, attempt_status, attempt_reason, next_attempt_at,
		change_at, change_status, change_reason, born`
	unnestStates = `unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::timestamptz[],
		$8::timestamptz[], $9::text[], $10::integer[], $11::integer[], $12::text[],
		$13::timestamptz[], $14::timestamptz[], $15::text[], $16::text[], $17::timestamptz[],
		$18::timestamptz[], $19::text[], $20::text[], $21::timestamptz[])`

	attemptColumns = `shop_id, delivery_id, number, started_at, record, born`

	changeColumns = `shop_id, delivery_id, at, status, reason, born`
)

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, batch store.Batch) error {
	rows := batch.Rows()
	err := s.ensureParts(ctx, rows)
	for try := 0; err == nil; try++ {
		err = s.write(ctx, rows)
		if !isCode(err, noPart) || try == outrun {
			break
		}
		// Another replica has dropped a part, or ended it early, since this one looked.
		if err = s.parts.load(ctx, s.pool); err == nil {
			err = s.ensureParts(ctx, rows)
		}
	}
	if err != nil {
		return fmt.Errorf("write to the log: %w", err)
	}
	return nil
}

func (s *Store) write(ctx context.Context, rows store.Rows) error {
	// Each statement sees what others committed meanwhile, which it must: an insert that passes over a row has waited
	// for whoever was making it.
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted}
	return pgx.BeginTxFunc(ctx, s.pool, options, func(tx pgx.Tx) error { return writer{tx, make(store.Tally)}.write(ctx, rows) })
}

// outrun is how often a write begins anew because its part was dropped under its hands. Three times were seen not to be enough beside
// two who forget without a pause; whoever calls bounds the time.
const outrun = 20

// The codes of PostgreSQL's errors that are expected.
const (
	repeated = "23505" // a row is there already
	noPart   = "23514" // there is no table for a row's time
)

func isCode(err error, code string) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refusal.Code == code
}

// writer writes one batch.
type writer struct {
	tx    pgx.Tx
	tally store.Tally
}

func (w writer) write(ctx context.Context, rows store.Rows) error {
	if _, err := add(ctx, w.tx, "events", eventColumns, rows.Events, eventValues); err != nil {
		return fmt.Errorf("events: %w", err)
	}
	if err := w.decisions(ctx, rows.Decisions); err != nil {
		return fmt.Errorf("decisions: %w", err)
	}
	if err := w.deliveries(ctx, rows.Deliveries); err != nil {
		return fmt.Errorf("deliveries: %w", err)
	}
	made, err := add(ctx, w.tx, "attempts", attemptColumns, rows.Attempts, attemptValues)
	if err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	for _, a := range made {
		w.tally.Attempt(a)
	}
	if _, err := add(ctx, w.tx, "changes", changeColumns, rows.Changes, changeValues); err != nil {
		return fmt.Errorf("changes: %w", err)
	}
	for _, l := range rows.Lateness {
		if _, err := w.tx.Exec(ctx, `INSERT INTO lateness VALUES ($1, $2) ON CONFLICT (day) DO UPDATE SET late = excluded.late
			WHERE lateness.late < excluded.late`, l.Day, l.Late); err != nil {
			return fmt.Errorf("lateness: %w", err)
		}
	}
	return addStats(ctx, w.tx, w.tally.Rows())
}

// add makes the rows that are not there, and gives those that it made. Rows of these tables never change, and nearly
// always all of them are new: so they are copied, and when one of them was there, inserted one by one.
func add[R any](ctx context.Context, tx pgx.Tx, table, columns string, rows []R, values func(R) []any) (made []R, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	names := strings.Split(columns, ", ")
	err = pgx.BeginFunc(ctx, tx, func(part pgx.Tx) error { // a savepoint
		_, err := part.CopyFrom(ctx, pgx.Identifier{table}, names,
			pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) { return values(rows[i]), nil }))
		return err
	})
	if !isCode(err, repeated) {
		return rows, err
	}
	var b pgx.Batch
	insert := `INSERT INTO ` + table + ` (` + columns + `) VALUES (` + parameters(len(names)) + `) ON CONFLICT DO NOTHING`
	for _, row := range rows {
		b.Queue(insert, values(row)...).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() > 0 {
				made = append(made, row)
			}
			return nil
		})
	}
	return made, tx.SendBatch(ctx, &b).Close()
}

// parameters are $1, $2 and so on.
func parameters(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "$" + strconv.Itoa(i+1)
	}
	return strings.Join(list, ", ")
}

type key struct{ shopID, id string }

// decisions makes the rows that are not there, and writes what the others do not know yet.
func (w writer) decisions(ctx context.Context, decisions []store.DecisionRow) error {
	if len(decisions) == 0 {
		return nil
	}
	tag, err := w.tx.Exec(ctx, `INSERT INTO decisions (`+decisionColumns+`) SELECT * FROM `+unnestDecisions+`
		ON CONFLICT DO NOTHING`, decisionArrays(decisions)...)
	if err != nil || int(tag.RowsAffected()) == len(decisions) {
		return err
	}
	rows, err := w.tx.Query(ctx, `SELECT `+decisionColumns+` FROM decisions
		WHERE (shop_id, event_id, born) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]))
		ORDER BY event_id, shop_id, born FOR UPDATE`,
		column(decisions, func(d store.DecisionRow) string { return d.ShopID }),
		column(decisions, func(d store.DecisionRow) string { return d.EventID }),
		column(decisions, func(d store.DecisionRow) time.Time { return d.Born }))
	if err != nil {
		return err
	}
	stored, err := pgx.CollectRows(rows, scanDecision)
	if err != nil {
		return err
	}
	byKey := make(map[key]store.DecisionRow, len(stored))
	for _, d := range stored {
		byKey[key{d.ShopID, d.EventID}] = d
	}
	var changed []store.DecisionRow
	for _, d := range decisions {
		before := byKey[key{d.ShopID, d.EventID}]
		if merged := before.Merge(d); !merged.Equal(before) {
			changed = append(changed, merged)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	_, err = w.tx.Exec(ctx, `UPDATE decisions SET event_type = n.event_type, at = n.at, decision = n.decision
		FROM `+unnestDecisions+` AS n (`+decisionColumns+`)
		WHERE decisions.shop_id = n.shop_id AND decisions.event_id = n.event_id AND decisions.born = n.born`,
		decisionArrays(changed)...)
	return err
}

// deliveries makes the rows that are not there, and writes what the others do not know yet.
func (w writer) deliveries(ctx context.Context, deliveries []store.State) error {
	if len(deliveries) == 0 {
		return nil
	}
	rows, err := w.tx.Query(ctx, `INSERT INTO deliveries (`+stateColumns+`) SELECT * FROM `+unnestStates+`
		ON CONFLICT DO NOTHING RETURNING shop_id, id, (SELECT until FROM forgotten)`, stateArrays(deliveries)...)
	if err != nil {
		return err
	}
	made := make(map[key]bool, len(deliveries))
	var k key
	var forgotten time.Time // see store.Tally.Made
	if _, err := pgx.ForEachRow(rows, []any{&k.shopID, &k.id, &forgotten}, func() error {
		made[k] = true
		return nil
	}); err != nil {
		return err
	}
	var known []store.State
	for _, d := range deliveries {
		if made[key{d.ShopID, d.ID}] {
			w.tally.Made(d, forgotten)
		} else {
			known = append(known, d)
		}
	}
	return w.merge(ctx, known)
}

// merge writes what the rows of deliveries do not know yet.
func (w writer) merge(ctx context.Context, deliveries []store.State) error {
	if len(deliveries) == 0 {
		return nil
	}
	rows, err := w.tx.Query(ctx, `SELECT `+stateColumns+` FROM deliveries
		WHERE (shop_id, id, born) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]))
		ORDER BY id, shop_id FOR UPDATE`,
		column(deliveries, func(s store.State) string { return s.ShopID }),
		column(deliveries, func(s store.State) string { return s.ID }),
		column(deliveries, func(s store.State) time.Time { return store.Born(s.ID) }))
	if err != nil {
		return err
	}
	stored, err := pgx.CollectRows(rows, scanState)
	if err != nil {
		return err
	}
	byKey := make(map[key]store.State, len(stored))
	for _, s := range stored {
		byKey[key{s.ShopID, s.ID}] = s
	}
	var changed []store.State
	for _, s := range deliveries {
		before := byKey[key{s.ShopID, s.ID}]
		if merged := before.Merge(s); merged != before {
			changed = append(changed, merged)
			w.tally.Changed(before, merged)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	_, err = w.tx.Exec(ctx, `UPDATE deliveries SET event_id = n.event_id, event_type = n.event_type, test = n.test,
			created_at = n.created_at, due = n.due, status = n.status,
			attempts_made = n.attempts_made, response_code = n.response_code, error_class = n.error_class,
			attempt_started_at = n.attempt_started_at, attempt_at = n.attempt_at, attempt_status = n.attempt_status,
			attempt_reason = n.attempt_reason, next_attempt_at = n.next_attempt_at,
			change_at = n.change_at, change_status = n.change_status, change_reason = n.change_reason
		FROM `+unnestStates+` AS n (`+stateColumns+`)
		WHERE deliveries.shop_id = n.shop_id AND deliveries.id = n.id AND deliveries.born = n.born`, stateArrays(changed)...)
	return err
}
