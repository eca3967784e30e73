package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// Event implements store.Store.
func (s *Store) Event(ctx context.Context, shopID, eventID string) (*store.Event, error) {
	return snapshot(ctx, s.reader, func(r reader) (*store.Event, error) {
		event, err := r.event(ctx, store.Key(shopID), store.Key(eventID))
		if err != nil {
			return nil, fmt.Errorf("read event %s/%s: %w", shopID, eventID, err)
		}
		decision, err := r.decision(ctx, store.Key(shopID), store.Key(eventID))
		if err != nil {
			return nil, fmt.Errorf("read the decision about %s/%s: %w", shopID, eventID, err)
		}
		switch {
		case event == nil && decision == nil:
			return nil, fmt.Errorf("read event %s/%s: %w", shopID, eventID, store.ErrNotFound)
		case decision == nil:
			return store.NewEvent(event, nil, nil, nil, nil), nil
		}
		ids := store.DeliveryIDs(decision.Decision)
		states, err := r.states(ctx, `shop_id = ? AND id IN (SELECT value FROM json_each(?))`, decision.ShopID, jsonList(ids))
		if err != nil {
			return nil, fmt.Errorf("read the deliveries of event %s/%s: %w", shopID, eventID, err)
		}
		attempts, changes, err := r.history(ctx, decision.ShopID, ids)
		if err != nil {
			return nil, fmt.Errorf("read the attempts of event %s/%s: %w", shopID, eventID, err)
		}
		return store.NewEvent(event, decision, states, attempts, changes), nil
	})
}

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, f store.EventsFilter) ([]*shopbellv1.Event, error) {
	return snapshot(ctx, s.reader, func(r reader) ([]*shopbellv1.Event, error) {
		from := f.From.UnixMicro()
		rows, err := collect(ctx, r, `SELECT `+eventColumns+` FROM events INDEXED BY events_by_time
			WHERE accepted_at >= ? AND accepted_at < ? AND shop_id = ? AND (accepted_at > ? OR id > ?)
			ORDER BY accepted_at, id LIMIT ?`, []any{from, f.To.UnixMicro(), store.Key(f.ShopID), from, f.After, f.Limit}, scanEvent)
		if err != nil {
			return nil, fmt.Errorf("list events of %s: %w", f.ShopID, err)
		}
		return store.EventsOf(rows), nil
	})
}

// Details implements store.Store.
func (s *Store) Details(ctx context.Context, shopID string, deliveryIDs []string) (map[string]*store.Delivery, error) {
	shop, ids := store.Key(shopID), store.Keys(deliveryIDs)
	return snapshot(ctx, s.reader, func(r reader) (map[string]*store.Delivery, error) {
		states, err := r.states(ctx, `shop_id = ? AND id IN (SELECT value FROM json_each(?))`, shop, jsonList(ids))
		if err != nil {
			return nil, fmt.Errorf("read deliveries of %s: %w", shopID, err)
		}
		attempts, changes, err := r.history(ctx, shop, ids)
		if err != nil {
			return nil, fmt.Errorf("read the attempts of deliveries of %s: %w", shopID, err)
		}
		events, err := r.eventsOf(ctx, states)
		if err != nil {
			return nil, fmt.Errorf("read the events of deliveries of %s: %w", shopID, err)
		}
		return store.NewDeliveries(states, events, attempts, changes), nil
	})
}

// Attempts implements store.Store.
func (s *Store) Attempts(ctx context.Context, shopID string, deliveryIDs []string) (map[string][]*shopbellv1.Attempt, error) {
	return snapshot(ctx, s.reader, func(r reader) (map[string][]*shopbellv1.Attempt, error) {
		attempts, _, err := r.history(ctx, store.Key(shopID), deliveryIDs)
		if err != nil {
			return nil, fmt.Errorf("read attempts of deliveries of %s: %w", shopID, err)
		}
		return store.AttemptsOf(attempts), nil
	})
}

// Deliveries implements store.Store.
func (s *Store) Deliveries(ctx context.Context, f store.Filter) (*store.Page, error) {
	return snapshot(ctx, s.reader, func(r reader) (*store.Page, error) {
		var page *store.Page
		var err error
		if f.Text == "" {
			var states []store.State
			states, err = r.list(ctx, f)
			page = store.NewPage(states)
		} else {
			page, err = store.Search(f,
				func(f store.Filter) ([]store.State, error) { return r.list(ctx, f) },
				func(states []store.State) (map[string]*store.EventRow, error) { return r.eventsOf(ctx, states) })
		}
		if err != nil {
			return nil, fmt.Errorf("list deliveries of %s: %w", f.ShopID, err)
		}
		return page, nil
	})
}

// list reads the deliveries that a filter chooses but for its text.
func (r reader) list(ctx context.Context, f store.Filter) ([]store.State, error) {
	late, err := r.lateness(ctx, f)
	if err != nil {
		return nil, err
	}
	var ids []string
	if f.EventID != "" {
		decision, err := r.decision(ctx, store.Key(f.ShopID), store.Key(f.EventID))
		if err != nil || decision == nil {
			return nil, err
		}
		ids = store.DeliveryIDs(decision.Decision)
	}
	spans, err := r.spans(ctx, f)
	if err != nil {
		return nil, err
	}
	var found []store.State
	for _, span := range spans {
		span.Limit = f.Limit - len(found)
		query, args := listQuery(span, late, ids)
		states, err := collect(ctx, r, query, args, scanState)
		if err != nil {
			return nil, err
		}
		if found = append(found, states...); len(found) == f.Limit {
			break
		}
	}
	return found, nil
}

// listQuery finds the ids of the page in an index alone where it can, and only then reads the rows. ids are those of the
// event's deliveries, if the filter names one.
func listQuery(f store.Filter, late time.Duration, ids []string) (query string, args []any) {
	where, args := conditions(f, late)
	if f.EventID != "" {
		where += ` AND id IN (SELECT value FROM json_each(?))`
		args = append(args, jsonList(ids))
	}
	query = `SELECT ` + stateColumns + ` FROM deliveries WHERE shop_id = ? AND id IN (
		SELECT id FROM deliveries INDEXED BY ` + index(f) + ` WHERE ` + where + ` ORDER BY id DESC LIMIT ?) ORDER BY id DESC`
	return query, append(append([]any{store.Key(f.ShopID)}, args...), f.Limit)
}

// index is the one whose rows are the fewest to go through.
func index(f store.Filter) string {
	switch {
	case f.Troubled():
		return "deliveries_troubled"
	case f.OtherSuccess():
		return "deliveries_by_success"
	case f.WebhookID != "":
		return "deliveries_by_webhook"
	default:
		return "deliveries_by_shop"
	}
}

// The conditions of the indexes deliveries_troubled and deliveries_by_success, word by word.
const (
	troubled     = `status <> 'delivered' OR response_code NOT BETWEEN 200 AND 299 OR error_class <> ''`
	otherSuccess = `response_code > 200 AND response_code < 300`
)

// lateness is what Filter.Span needs to know.
func (r reader) lateness(ctx context.Context, f store.Filter) (time.Duration, error) {
	if f.From.IsZero() {
		return 0, nil
	}
	to := int64(math.MaxInt64)
	if !f.To.IsZero() {
		to = f.To.UnixMicro()
	}
	var late sql.NullInt64
	err := r.tx.QueryRowContext(ctx, `SELECT max(late) FROM lateness WHERE day > ? AND day <= ?`,
		f.From.Add(-24*time.Hour).UnixMicro(), to).Scan(&late)
	return time.Duration(late.Int64) * time.Microsecond, err
}

// eventsOf reads the events of deliveries of a shop, by their ids.
func (r reader) eventsOf(ctx context.Context, states []store.State) (map[string]*store.EventRow, error) {
	if len(states) == 0 {
		return nil, nil
	}
	rows, err := collect(ctx, r, `SELECT `+eventColumns+` FROM events WHERE shop_id = ? AND id IN (SELECT value FROM json_each(?))`,
		[]any{states[0].ShopID, jsonList(store.EventIDs(states))}, scanEvent)
	return store.ByID(rows), err
}

// conditions are the filter's as SQL, but for the event.
func conditions(f store.Filter, late time.Duration) (where string, args []any) {
	all := []string{"shop_id = ?"}
	args = []any{store.Key(f.ShopID)}
	add := func(condition string, values ...any) {
		all, args = append(all, condition), append(args, values...)
	}
	if f.WebhookID != "" {
		add("webhook_id = ?", store.Key(f.WebhookID))
	}
	if f.EventType != "" {
		add("event_type = ?", store.Key(f.EventType))
	}
	if f.Status != "" {
		add("status = ?", store.Key(f.Status))
	}
	if f.DeliveryID != "" {
		add("id = ?", store.Key(f.DeliveryID))
	}
	if f.ErrorClass != "" {
		add("error_class = ?", store.Key(f.ErrorClass))
	}
	if f.Codes.None {
		add("response_code = 0 AND attempts_made > 0")
	} else if f.Codes.High > 0 && f.Codes.Low == f.Codes.High {
		add("response_code = ?", f.Codes.Low)
	} else if f.Codes.High > 0 {
		add("response_code BETWEEN ? AND ?", f.Codes.Low, f.Codes.High)
	}
	if !f.From.IsZero() {
		add("created_at >= ?", f.From.UnixMicro())
	}
	if !f.To.IsZero() {
		add("created_at < ?", f.To.UnixMicro())
	}
	if f.Troubled() {
		add("(" + troubled + ")")
	}
	if f.OtherSuccess() {
		add(otherSuccess)
	}
	low, high := f.Span(late)
	if low != "" {
		add("id >= ?", low)
	}
	if high != "" {
		add("id < ?", high)
	}
	return strings.Join(all, " AND "), args
}

// reader reads within one snapshot, so that what a caller sees fits together while batches are written.
type reader struct{ tx *sql.Tx }

func snapshot[T any](ctx context.Context, db *sql.DB, read func(reader) (T, error)) (T, error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		var none T
		return none, fmt.Errorf("begin reading the log: %w", err)
	}
	defer tx.Rollback()
	return read(reader{tx})
}

// event is nil when it is not there.
func (r reader) event(ctx context.Context, shopID, id string) (*store.EventRow, error) {
	e, err := scanEvent(r.tx.QueryRowContext(ctx, `SELECT `+eventColumns+` FROM events WHERE shop_id = ? AND id = ?`, shopID, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // the doc says so
	}
	return &e, err
}

const eventColumns = `shop_id, id, type, action, occurred_at, environment, key, content_type, trace_id, accepted_by, accepted_at, data`

func scanEvent(row scanner) (e store.EventRow, err error) {
	var acceptedAt sql.NullInt64
	err = row.Scan(&e.ShopID, &e.ID, &e.Type, &e.Action, &e.OccurredAt, &e.Environment, &e.Key, &e.ContentType, &e.Trace, &e.AcceptedBy,
		&acceptedAt, &e.Data)
	e.AcceptedAt = fromMicros(acceptedAt)
	return e, err
}

const readDecision = `SELECT shop_id, event_id, event_type, at, decision FROM decisions WHERE shop_id = ? AND event_id = ?`

// decision is nil when it is not there.
func (r reader) decision(ctx context.Context, shopID, eventID string) (*store.DecisionRow, error) {
	d, err := scanDecision(r.tx.QueryRowContext(ctx, readDecision, shopID, eventID))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // the doc says so
	}
	return &d, err
}

func scanDecision(row scanner) (store.DecisionRow, error) {
	var d store.DecisionRow
	var at sql.NullInt64
	err := row.Scan(&d.ShopID, &d.EventID, &d.EventType, &at, &d.Decision)
	d.At = fromMicros(at)
	return d, err
}

func (r reader) states(ctx context.Context, where string, args ...any) ([]store.State, error) {
	return collect(ctx, r, `SELECT `+stateColumns+` FROM deliveries WHERE `+where, args, scanState)
}

// history reads all attempts and changes of these deliveries, in the order of their keys.
func (r reader) history(ctx context.Context, shopID string, deliveryIDs []string) ([]store.AttemptRow, []store.ChangeRow, error) {
	args := []any{shopID, jsonList(deliveryIDs)}
	attempts, err := collect(ctx, r, `SELECT delivery_id, number, started_at, record FROM attempts
		WHERE shop_id = ? AND delivery_id IN (SELECT value FROM json_each(?))
		ORDER BY delivery_id, number, started_at`, args,
		func(row scanner) (store.AttemptRow, error) {
			a := store.AttemptRow{ShopID: shopID}
			var startedAt sql.NullInt64
			err := row.Scan(&a.DeliveryID, &a.Number, &startedAt, &a.Record)
			a.StartedAt = fromMicros(startedAt)
			return a, err
		})
	if err != nil {
		return nil, nil, err
	}
	changes, err := collect(ctx, r, `SELECT delivery_id, at, status, reason FROM changes
		WHERE shop_id = ? AND delivery_id IN (SELECT value FROM json_each(?))
		ORDER BY delivery_id, at, status`, args,
		func(row scanner) (store.ChangeRow, error) {
			c := store.ChangeRow{ShopID: shopID}
			var at sql.NullInt64
			err := row.Scan(&c.DeliveryID, &at, &c.Status, &c.Reason)
			c.At = fromMicros(at)
			return c, err
		})
	return attempts, changes, err
}

// scanner is a row to read from: *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

func collect[T any](ctx context.Context, r reader, query string, args []any, scan func(scanner) (T, error)) ([]T, error) {
	rows, err := r.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

func scanState(row scanner) (store.State, error) {
	var s store.State
	a, c := &s.Attempt, &s.Change
	var status string // follows from the rest
	var createdAt, due, startedAt, attemptAt, nextAt, changeAt sql.NullInt64
	var attemptStatus, attemptReason, changeStatus, changeReason sql.NullString
	err := row.Scan(&s.ShopID, &s.ID, &s.WebhookID, &s.EventID, &s.EventType, &s.Test, &createdAt, &due,
		&status, &a.Number, &a.ResponseCode, &a.ErrorClass,
		&startedAt, &attemptAt, &attemptStatus, &attemptReason, &nextAt,
		&changeAt, &changeStatus, &changeReason)
	s.CreatedAt, s.Due = fromMicros(createdAt), fromMicros(due)
	a.StartedAt, a.At, a.NextAttemptAt = fromMicros(startedAt), fromMicros(attemptAt), fromMicros(nextAt)
	a.Status, a.Reason = attemptStatus.String, attemptReason.String
	c.At, c.Status, c.Reason = fromMicros(changeAt), changeStatus.String, changeReason.String
	return s, err
}

// jsonList is how a list of texts goes into one parameter.
func jsonList(texts []string) string {
	if len(texts) == 0 {
		return "[]"
	}
	b, err := json.Marshal(texts)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

// Explain says how SQLite finds the deliveries that a filter chooses; of a type, on the newest days that have any.
func (s *Store) Explain(ctx context.Context, f store.Filter) (string, error) {
	return snapshot(ctx, s.reader, func(r reader) (string, error) {
		late, err := r.lateness(ctx, f)
		if err != nil {
			return "", err
		}
		spans, err := r.spans(ctx, f)
		if err != nil || len(spans) == 0 {
			return "SEARCH types USING PRIMARY KEY (shop_id=? AND event_type=?)", err
		}
		query, args := listQuery(spans[0], late, nil)
		steps, err := collect(ctx, r, `EXPLAIN QUERY PLAN `+query, args, func(row scanner) (step string, err error) {
			var id, parent, unused int
			err = row.Scan(&id, &parent, &unused, &step)
			return step, err
		})
		return strings.Join(steps, "\n"), err
	})
}
