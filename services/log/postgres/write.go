package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shopbell.dev/services/log/store"
)

// Rows go in as one array for each column: one statement and one plan for any number of rows, and rows that are there
// already are passed over. Two replicas that meet at a row wait for each other there; they cannot lock each other out,
// because all writers take tables and rows in the same order.
const (
	insertEvents = `INSERT INTO events (shop_id, id, type, action, occurred_at, environment, key, content_type, trace_id,
			accepted_at, data)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
			$9::text[], $10::timestamptz[], $11::bytea[])
		ON CONFLICT DO NOTHING`

	decisionColumns = `shop_id, event_id, event_type, at, decision`

	unnestDecisions = `unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bytea[])`

	insertDecisions = `INSERT INTO decisions (` + decisionColumns + `) SELECT * FROM ` + unnestDecisions + `
		ON CONFLICT DO NOTHING`

	stateColumns = `shop_id, id, webhook_id, event_id, event_type, test, created_at, due,
		status, attempts_made, response_code, error_class,
		attempt_started_at, attempt_at, attempt_status, attempt_reason, next_attempt_at,
		change_at, change_status, change_reason`

	unnestStates = `unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::timestamptz[],
		$8::timestamptz[], $9::text[], $10::integer[], $11::integer[], $12::text[],
		$13::timestamptz[], $14::timestamptz[], $15::text[], $16::text[], $17::timestamptz[],
		$18::timestamptz[], $19::text[], $20::text[])`

	insertDeliveries = `INSERT INTO deliveries (` + stateColumns + `) SELECT * FROM ` + unnestStates + `
		ON CONFLICT DO NOTHING RETURNING shop_id, id`

	insertAttempts = `INSERT INTO attempts (shop_id, delivery_id, number, started_at, record)
		SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::timestamptz[], $5::bytea[])
		ON CONFLICT DO NOTHING RETURNING shop_id, delivery_id, number, started_at`

	insertChanges = `INSERT INTO changes (shop_id, delivery_id, at, status, reason)
		SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[])
		ON CONFLICT DO NOTHING`
)

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, batch store.Batch) error {
	rows := batch.Rows()
	// Each statement sees what others committed meanwhile, which it must: an insert that passes over a row has waited
	// for whoever was making it.
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted}
	if err := pgx.BeginTxFunc(ctx, s.pool, options, func(tx pgx.Tx) error {
		made, err := insert(ctx, tx, rows)
		if err != nil {
			return err
		}
		if made.decisions < len(rows.Decisions) {
			if err := mergeDecisions(ctx, tx, rows.Decisions); err != nil {
				return fmt.Errorf("merge decisions: %w", err)
			}
		}
		tally := made.tally(rows)
		if len(made.deliveries) < len(rows.Deliveries) {
			if err := mergeDeliveries(ctx, tx, made.others(rows.Deliveries), tally); err != nil {
				return fmt.Errorf("merge deliveries: %w", err)
			}
		}
		return addStats(ctx, tx, tally.Rows())
	}); err != nil {
		return fmt.Errorf("write to the log: %w", err)
	}
	return nil
}

// made is which rows were made, of those that may be there already.
type made struct {
	decisions  int // how many
	deliveries map[key]bool
	attempts   map[attemptKey]bool
}

type attemptKey struct {
	key
	number    int32
	startedAt int64 // in microseconds
}

// tally counts what was made.
func (m made) tally(rows store.Rows) store.Tally {
	t := make(store.Tally)
	for _, d := range rows.Deliveries {
		if m.deliveries[key{d.ShopID, d.ID}] {
			t.Delivery(store.State{}, d)
		}
	}
	for _, a := range rows.Attempts {
		if m.attempts[attemptKey{key{a.ShopID, a.DeliveryID}, a.Number, a.StartedAt.UnixMicro()}] {
			t.Attempt(a)
		}
	}
	return t
}

// others are the deliveries whose rows were there.
func (m made) others(deliveries []store.State) []store.State {
	return slices.DeleteFunc(slices.Clone(deliveries), func(d store.State) bool { return m.deliveries[key{d.ShopID, d.ID}] })
}

// insert makes the rows that are not there, in one round trip.
func insert(ctx context.Context, tx pgx.Tx, rows store.Rows) (made, error) {
	var b pgx.Batch
	m := made{deliveries: make(map[key]bool, len(rows.Deliveries)), attempts: make(map[attemptKey]bool, len(rows.Attempts))}
	if len(rows.Events) > 0 {
		b.Queue(insertEvents, eventArrays(rows.Events)...)
	}
	if len(rows.Decisions) > 0 {
		b.Queue(insertDecisions, decisionArrays(rows.Decisions)...).Exec(count(&m.decisions))
	}
	if len(rows.Deliveries) > 0 {
		b.Queue(insertDeliveries, stateArrays(rows.Deliveries)...).Query(func(found pgx.Rows) error {
			var k key
			_, err := pgx.ForEachRow(found, []any{&k.shopID, &k.id}, func() error { m.deliveries[k] = true; return nil })
			return err
		})
	}
	if len(rows.Attempts) > 0 {
		b.Queue(insertAttempts, attemptArrays(rows.Attempts)...).Query(func(found pgx.Rows) error {
			var k attemptKey
			var startedAt time.Time
			_, err := pgx.ForEachRow(found, []any{&k.shopID, &k.id, &k.number, &startedAt}, func() error {
				k.startedAt = startedAt.UnixMicro()
				m.attempts[k] = true
				return nil
			})
			return err
		})
	}
	if len(rows.Changes) > 0 {
		b.Queue(insertChanges, changeArrays(rows.Changes)...)
	}
	if b.Len() == 0 {
		return m, nil
	}
	err := tx.SendBatch(ctx, &b).Close()
	return m, err
}

func count(n *int) func(pgconn.CommandTag) error {
	return func(tag pgconn.CommandTag) error {
		*n = int(tag.RowsAffected())
		return nil
	}
}

type key struct{ shopID, id string }

// mergeDecisions writes what the rows of decisions that are there do not know yet.
func mergeDecisions(ctx context.Context, tx pgx.Tx, decisions []store.DecisionRow) error {
	rows, err := tx.Query(ctx, `SELECT `+decisionColumns+` FROM decisions
		WHERE (shop_id, event_id) IN (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY event_id, shop_id FOR UPDATE`,
		column(decisions, func(d store.DecisionRow) string { return d.ShopID }),
		column(decisions, func(d store.DecisionRow) string { return d.EventID }))
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
	_, err = tx.Exec(ctx, `UPDATE decisions SET event_type = n.event_type, at = n.at, decision = n.decision
		FROM `+unnestDecisions+` AS n (`+decisionColumns+`)
		WHERE decisions.shop_id = n.shop_id AND decisions.event_id = n.event_id`, decisionArrays(changed)...)
	return err
}

// mergeDeliveries writes what the rows of deliveries that are there do not know yet.
func mergeDeliveries(ctx context.Context, tx pgx.Tx, deliveries []store.State, tally store.Tally) error {
	rows, err := tx.Query(ctx, `SELECT `+stateColumns+` FROM deliveries
		WHERE (shop_id, id) IN (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY id, shop_id FOR UPDATE`,
		column(deliveries, func(s store.State) string { return s.ShopID }),
		column(deliveries, func(s store.State) string { return s.ID }))
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
			tally.Delivery(before, merged)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	_, err = tx.Exec(ctx, `UPDATE deliveries SET event_id = n.event_id, event_type = n.event_type, test = n.test, created_at = n.created_at, due = n.due, status = n.status,
			attempts_made = n.attempts_made, response_code = n.response_code, error_class = n.error_class,
			attempt_started_at = n.attempt_started_at, attempt_at = n.attempt_at, attempt_status = n.attempt_status,
			attempt_reason = n.attempt_reason, next_attempt_at = n.next_attempt_at,
			change_at = n.change_at, change_status = n.change_status, change_reason = n.change_reason
		FROM `+unnestStates+` AS n (`+stateColumns+`)
		WHERE deliveries.shop_id = n.shop_id AND deliveries.id = n.id`, stateArrays(changed)...)
	return err
}
