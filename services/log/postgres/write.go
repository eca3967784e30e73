package postgres

import (
	"context"
	"fmt"
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
			accepted_at, decided_at, decision, data)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
			$9::text[], $10::timestamptz[], $11::timestamptz[], $12::bytea[], $13::bytea[])
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
		ON CONFLICT DO NOTHING`

	insertAttempts = `INSERT INTO attempts (shop_id, delivery_id, number, started_at, record)
		SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::timestamptz[], $5::bytea[])
		ON CONFLICT DO NOTHING`

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
		newEvents, newDeliveries, err := insert(ctx, tx, rows)
		if err != nil {
			return err
		}
		if newEvents < len(rows.Events) {
			if err := addToEvents(ctx, tx, rows.Events); err != nil {
				return fmt.Errorf("add to events: %w", err)
			}
		}
		if newDeliveries < len(rows.Deliveries) {
			if err := mergeDeliveries(ctx, tx, rows.Deliveries); err != nil {
				return fmt.Errorf("merge deliveries: %w", err)
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("write to the log: %w", err)
	}
	return nil
}

// insert makes the rows that are not there, in one round trip, and says how many they were.
func insert(ctx context.Context, tx pgx.Tx, rows store.Rows) (newEvents, newDeliveries int, err error) {
	var b pgx.Batch
	made := new(int) // of attempts and changes nobody asks
	count := func(n *int, statement string, columns []any) {
		b.Queue(statement, columns...).Exec(func(tag pgconn.CommandTag) error {
			*n = int(tag.RowsAffected())
			return nil
		})
	}
	if len(rows.Events) > 0 {
		count(&newEvents, insertEvents, eventColumns(rows.Events))
	}
	if len(rows.Deliveries) > 0 {
		count(&newDeliveries, insertDeliveries, stateArrays(rows.Deliveries))
	}
	if len(rows.Attempts) > 0 {
		count(made, insertAttempts, []any{
			column(rows.Attempts, func(a store.AttemptRow) string { return a.ShopID }),
			column(rows.Attempts, func(a store.AttemptRow) string { return a.DeliveryID }),
			column(rows.Attempts, func(a store.AttemptRow) int32 { return a.Number }),
			column(rows.Attempts, func(a store.AttemptRow) time.Time { return a.StartedAt }),
			column(rows.Attempts, func(a store.AttemptRow) []byte { return a.Record }),
		})
	}
	if len(rows.Changes) > 0 {
		count(made, insertChanges, []any{
			column(rows.Changes, func(c store.ChangeRow) string { return c.ShopID }),
			column(rows.Changes, func(c store.ChangeRow) string { return c.DeliveryID }),
			column(rows.Changes, func(c store.ChangeRow) time.Time { return c.At }),
			column(rows.Changes, func(c store.ChangeRow) string { return c.Status }),
			column(rows.Changes, func(c store.ChangeRow) string { return c.Reason }),
		})
	}
	if b.Len() == 0 {
		return 0, 0, nil
	}
	err = tx.SendBatch(ctx, &b).Close()
	return newEvents, newDeliveries, err
}

// addToEvents writes what the rows of events that are there lack.
func addToEvents(ctx context.Context, tx pgx.Tx, events []store.EventRow) error {
	shopIDs := column(events, func(e store.EventRow) string { return e.ShopID })
	ids := column(events, func(e store.EventRow) string { return e.ID })
	rows, err := tx.Query(ctx, `SELECT shop_id, id, accepted_at IS NOT NULL, decision, decided_at FROM events
		WHERE (shop_id, id) IN (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY shop_id, id FOR UPDATE`, shopIDs, ids)
	if err != nil {
		return err
	}
	stored, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e store.StoredEvent, err error) {
		var decidedAt *time.Time
		err = row.Scan(&e.ShopID, &e.ID, &e.Arrived, &e.Decision, &decidedAt)
		e.DecidedAt = orZero(decidedAt)
		return e, err
	})
	if err != nil {
		return err
	}
	type key struct{ shopID, id string }
	byKey := make(map[key]store.StoredEvent, len(stored))
	for _, e := range stored {
		byKey[key{e.ShopID, e.ID}] = e
	}
	var arrived, decided []store.EventRow
	for _, e := range events {
		hasArrived, isDecided := e.Onto(byKey[key{e.ShopID, e.ID}])
		if hasArrived {
			arrived = append(arrived, e)
		}
		if isDecided {
			decided = append(decided, e)
		}
	}
	if len(arrived) > 0 {
		if _, err := tx.Exec(ctx, `UPDATE events SET type = n.type, action = n.action, occurred_at = n.occurred_at,
				environment = n.environment, key = n.key, content_type = n.content_type, trace_id = n.trace_id,
				accepted_at = n.accepted_at, data = n.data
			FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
				$9::text[], $10::timestamptz[], $11::timestamptz[], $12::bytea[], $13::bytea[])
				AS n (shop_id, id, type, action, occurred_at, environment, key, content_type, trace_id,
					accepted_at, decided_at, decision, data)
			WHERE events.shop_id = n.shop_id AND events.id = n.id`, eventColumns(arrived)...); err != nil {
			return err
		}
	}
	if len(decided) > 0 {
		if _, err := tx.Exec(ctx, `UPDATE events SET decision = n.decision, decided_at = n.decided_at
			FROM unnest($1::text[], $2::text[], $3::bytea[], $4::timestamptz[]) AS n (shop_id, id, decision, decided_at)
			WHERE events.shop_id = n.shop_id AND events.id = n.id`,
			column(decided, func(e store.EventRow) string { return e.ShopID }),
			column(decided, func(e store.EventRow) string { return e.ID }),
			column(decided, func(e store.EventRow) []byte { return e.Decision }),
			column(decided, func(e store.EventRow) *time.Time { return orNil(e.DecidedAt) })); err != nil {
			return err
		}
	}
	return nil
}

// mergeDeliveries writes what the rows of deliveries that are there do not know yet.
func mergeDeliveries(ctx context.Context, tx pgx.Tx, deliveries []store.State) error {
	rows, err := tx.Query(ctx, `SELECT `+stateColumns+` FROM deliveries
		WHERE (shop_id, id) IN (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY shop_id, id FOR UPDATE`,
		column(deliveries, func(s store.State) string { return s.ShopID }),
		column(deliveries, func(s store.State) string { return s.ID }))
	if err != nil {
		return err
	}
	stored, err := pgx.CollectRows(rows, scanState)
	if err != nil {
		return err
	}
	type key struct{ shopID, id string }
	byKey := make(map[key]store.State, len(stored))
	for _, s := range stored {
		byKey[key{s.ShopID, s.ID}] = s
	}
	var changed []store.State
	for _, s := range deliveries {
		before := byKey[key{s.ShopID, s.ID}]
		if merged := before.Merge(s); merged != before {
			changed = append(changed, merged)
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
