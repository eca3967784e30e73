package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shopbell.dev/pkg/fault"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// Event implements store.Store.
func (s *Store) Event(ctx context.Context, shopID, eventID string) (*store.Event, error) {
	return snapshot(ctx, s, func(r reader) (*store.Event, error) {
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
		states, err := r.statesOf(ctx, decision.ShopID, ids)
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
	return snapshot(ctx, s, func(r reader) ([]*shopbellv1.Event, error) {
		rows, err := collect(ctx, r, `SELECT `+eventColumns+` FROM events
			WHERE accepted_at >= $1 AND accepted_at < $2 AND shop_id = $3 AND (accepted_at > $1 OR id > $4)
			ORDER BY accepted_at, id LIMIT $5`, []any{f.From, f.To, store.Key(f.ShopID), f.After, f.Limit}, scanEvent)
		if err != nil {
			return nil, fmt.Errorf("list events of %s: %w", f.ShopID, err)
		}
		return store.EventsOf(rows), nil
	})
}

// Details implements store.Store.
func (s *Store) Details(ctx context.Context, shopID string, deliveryIDs []string) (map[string]*store.Delivery, error) {
	shop, ids := store.Key(shopID), store.Keys(deliveryIDs)
	return snapshot(ctx, s, func(r reader) (map[string]*store.Delivery, error) {
		states, err := r.statesOf(ctx, shop, ids)
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
	return snapshot(ctx, s, func(r reader) (map[string][]*shopbellv1.Attempt, error) {
		attempts, _, err := r.history(ctx, store.Key(shopID), deliveryIDs)
		if err != nil {
			return nil, fmt.Errorf("read attempts of deliveries of %s: %w", shopID, err)
		}
		return store.AttemptsOf(attempts), nil
	})
}

// Deliveries implements store.Store.
func (s *Store) Deliveries(ctx context.Context, f store.Filter) (*store.Page, error) {
	return snapshot(ctx, s, func(r reader) (*store.Page, error) {
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
	spans, err := r.spans(ctx, f, late, ids)
	if err != nil {
		return nil, err
	}
	var found []store.State
	for _, span := range spans {
		query, args := listQuery(f, late, ids, span)
		if choosesIndex(f) {
			args = append([]any{pgx.QueryExecModeCacheDescribe}, args...)
		}
		states, err := collect(ctx, r, query, args, scanState)
		if err != nil {
			return nil, err
		}
		found = append(found, states...)
		if f.Limit -= len(states); f.Limit == 0 {
			break
		}
	}
	return found, nil
}

// spans are where a filter's deliveries may lie, to be read one after the other until there are enough: the newest part,
// the two before it, four, and so on. One query of all parts would begin in each of them, and most lists end in the first.
func (r reader) spans(ctx context.Context, f store.Filter, late time.Duration, ids []string) ([]part, error) {
	odd := part{time.Unix(0, 0), time.Unix(0, 0).Add(24 * time.Hour)} // of ids without a time; they come last
	switch {
	case f.DeliveryID != "":
		ids = []string{store.Key(f.DeliveryID)}
		fallthrough
	case f.EventID != "":
		low, high := bornBetween(ids)
		return []part{{low, high.Add(time.Millisecond)}}, nil
	case f.Before != "" && odd.holds(store.Born(f.Before)):
		return []part{odd}, nil
	}
	low, high := f.Span(late)
	all, err := readParts(ctx, r.tx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(p part) bool {
		return odd.holds(p.lo) || low != "" && !store.Born(low).Before(p.hi) || high != "" && store.Born(high).Before(p.lo)
	})
	var spans []part
	for n, end := 1, len(all); end > 0; n, end = 2*n, end-n {
		spans = append(spans, part{all[max(end-n, 0)].lo, all[end-1].hi})
	}
	if low == "" {
		spans = append(spans, odd)
	}
	return spans, nil
}

// listQuery finds the deliveries of a page that lie in a span; ids are those of the event's deliveries, if the filter
// names one.
func listQuery(f store.Filter, late time.Duration, ids []string, span part) (query string, args []any) {
	where, args := conditions(f, late)
	and := func(condition string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(args)), 1)
		}
		where += " AND " + condition
	}
	and(`born >= ? AND born < ?`, span.lo, span.hi)
	if f.EventID != "" {
		and(`id = ANY(?)`, ids)
	}
	args = append(args, f.Limit)
	return `SELECT ` + stateColumns + ` FROM deliveries WHERE ` + where + ` ORDER BY id DESC LIMIT $` + strconv.Itoa(len(args)), args
}

// Explain says how PostgreSQL finds the deliveries that a filter chooses, in the newest span alone.
func (s *Store) Explain(ctx context.Context, f store.Filter) (string, error) {
	return snapshot(ctx, s, func(r reader) (string, error) {
		late, err := r.lateness(ctx, f)
		if err != nil {
			return "", err
		}
		spans, err := r.spans(ctx, f, late, nil)
		if err != nil || len(spans) == 0 {
			return "", err
		}
		query, args := listQuery(f, late, nil, spans[0])
		lines, err := collect(ctx, r, `EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) `+query, args, pgx.RowTo[string])
		return strings.Join(lines, "\n"), err
	})
}

// eventsOf reads the events of deliveries of a shop, by their ids.
func (r reader) eventsOf(ctx context.Context, states []store.State) (map[string]*store.EventRow, error) {
	if len(states) == 0 {
		return nil, nil
	}
	// Nearly all were accepted when their deliveries' ids say; only what was replayed is looked for in all parts.
	low, high := bornBetween(column(states, func(s store.State) string { return s.ID }))
	ids := store.EventIDs(states)
	rows, err := r.events(ctx, `shop_id = $1 AND id = ANY($2) AND accepted_at >= $3 AND accepted_at < $4`, states[0].ShopID, ids, low, high.Add(time.Millisecond))
	if err != nil {
		return nil, err
	}
	known := store.ByID(rows)
	ids = slices.DeleteFunc(ids, func(id string) bool { return known[id] != nil })
	if len(ids) > 0 {
		rows, err = r.events(ctx, `shop_id = $1 AND id = ANY($2)`, states[0].ShopID, ids)
		maps.Copy(known, store.ByID(rows))
	}
	return known, err
}

// events reads events, of one id the one that was accepted first at last.
func (r reader) events(ctx context.Context, where string, args ...any) ([]store.EventRow, error) {
	return collect(ctx, r, `SELECT `+eventColumns+` FROM events WHERE `+where+` ORDER BY accepted_at DESC`, args, scanEvent)
}

// lateness is what Filter.Span needs to know.
func (r reader) lateness(ctx context.Context, f store.Filter) (late time.Duration, err error) {
	if f.From.IsZero() {
		return 0, nil
	}
	var to *time.Time
	if !f.To.IsZero() {
		to = &f.To
	}
	err = r.tx.QueryRow(ctx, `SELECT coalesce(max(late), '0') FROM lateness WHERE day >= $1::timestamptz::date - 1
		AND ($2::timestamptz IS NULL OR day <= $2::timestamptz::date + 1)`, f.From, to).Scan(&late)
	return late, err
}

// conditions are the filter's as SQL, but for the event.
func conditions(f store.Filter, late time.Duration) (where string, args []any) {
	all := []string{shopOf(f) + " = $1"}
	args = []any{store.Key(f.ShopID)}
	add := func(condition string, value any) {
		args = append(args, value)
		all = append(all, condition+" $"+strconv.Itoa(len(args)))
	}
	if f.WebhookID != "" {
		add("webhook_id =", store.Key(f.WebhookID))
	}
	if f.EventType != "" {
		add("event_type =", store.Key(f.EventType))
	}
	if f.Status != "" {
		add("status =", store.Key(f.Status))
	}
	if f.DeliveryID != "" {
		add("id =", store.Key(f.DeliveryID))
	}
	if f.ErrorClass != "" {
		add("error_class =", store.Key(f.ErrorClass))
	}
	if f.Codes.None {
		all = append(all, "response_code = 0 AND attempts_made > 0")
	} else if f.Codes.High > 0 && f.Codes.Low == f.Codes.High {
		add("response_code =", f.Codes.Low)
	} else if f.Codes.High > 0 {
		add("response_code >=", f.Codes.Low)
		add("response_code <=", f.Codes.High)
	}
	if !f.From.IsZero() {
		add("created_at >=", f.From)
	}
	if !f.To.IsZero() {
		add("created_at <", f.To)
	}
	if f.Status != "" && f.Status != "delivered" {
		all = append(all, "status <> 'delivered'") // the condition of the index deliveries_by_status
	}
	if f.Troubled() {
		all = append(all, "("+troubled+")")
	}
	if f.OtherSuccess() {
		all = append(all, otherSuccess)
	}
	low, high := f.Span(late)
	if low != "" {
		add("id >=", low)
	}
	if high != "" {
		add("id <", high)
	}
	return strings.Join(all, " AND "), args
}

// shopOf is how a query names its shop, which says which indexes can answer it: those of the rows that are few, or else those of
// shop_id.
func shopOf(f store.Filter) string {
	if ofFew(f) {
		return "shop_id || ''"
	}
	return "shop_id"
}

// ofFew says that a list is found in deliveries_troubled or deliveries_by_success. Left to itself, the planner goes through all
// deliveries of a shop or a webhook for one that nobody has. A status alone has an index in which no other row is read.
func ofFew(f store.Filter) bool {
	byStatus := store.Filter{
		ShopID: f.ShopID, Status: f.Status, From: f.From, To: f.To, Before: f.Before, Since: f.Since, Limit: f.Limit, Text: f.Text,
	}
	return f.OtherSuccess() || f.Troubled() && f != byStatus
}

// choosesIndex says that the planner has a choice which depends on the values that are looked for, so that it must know them. A
// prepared statement that is used often it plans without.
func choosesIndex(f store.Filter) bool {
	return !ofFew(f) && (f.WebhookID != "" || f.EventType != "" || f.Troubled())
}

// The conditions of the indexes deliveries_troubled and deliveries_by_success, word by word.
const (
	troubled     = `status <> 'delivered' OR response_code NOT BETWEEN 200 AND 299 OR error_class <> ''`
	otherSuccess = `response_code > 200 AND response_code < 300`
)

// reader reads within one snapshot, so that what a caller sees fits together while batches are written.
type reader struct{ tx pgx.Tx }

func snapshot[T any](ctx context.Context, s *Store, read func(reader) (T, error)) (result T, err error) {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	begun := false
	err = pgx.BeginTxFunc(ctx, s.pool, options, func(tx pgx.Tx) error {
		begun = true
		result, err = read(reader{tx})
		return err
	})
	if err != nil && !begun && ctx.Err() == nil {
		return result, fault.Away(2*time.Second, "the log's database cannot be reached now; what happens is delivered and kept meanwhile; try again: %w", err)
	}
	return result, err
}

// event is nil when it is not there.
func (r reader) event(ctx context.Context, shopID, id string) (*store.EventRow, error) {
	all, err := r.events(ctx, `shop_id = $1 AND id = $2`, shopID, id)
	return store.ByID(all)[id], err
}

func scanEvent(row pgx.CollectableRow) (e store.EventRow, err error) {
	err = row.Scan(&e.ShopID, &e.ID, &e.Type, &e.Action, &e.OccurredAt, &e.Environment, &e.Key, &e.ContentType, &e.Trace, &e.AcceptedBy,
		&e.AcceptedAt, &e.Data)
	e.AcceptedAt = e.AcceptedAt.UTC()
	return e, err
}

// decision is nil when it is not there.
func (r reader) decision(ctx context.Context, shopID, eventID string) (*store.DecisionRow, error) {
	all, err := collect(ctx, r, `SELECT `+decisionColumns+` FROM decisions WHERE shop_id = $1 AND event_id = $2 ORDER BY born`,
		[]any{shopID, eventID}, scanDecision)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	merged := all[0]
	for _, d := range all[1:] {
		merged = merged.Merge(d)
	}
	return &merged, nil
}

// statesOf reads these deliveries.
func (r reader) statesOf(ctx context.Context, shopID string, ids []string) ([]store.State, error) {
	low, high := bornBetween(ids)
	return r.states(ctx, `shop_id = $1 AND id = ANY($2) AND born BETWEEN $3 AND $4`, shopID, ids, low, high)
}

// bornBetween is within which times these deliveries' rows lie, so that the planner can leave whole tables out.
func bornBetween(ids []string) (low, high time.Time) {
	for i, id := range ids {
		switch born := store.Born(id); {
		case i == 0:
			low, high = born, born
		case born.Before(low):
			low = born
		case born.After(high):
			high = born
		}
	}
	return low, high
}

func (r reader) states(ctx context.Context, where string, args ...any) ([]store.State, error) {
	return collect(ctx, r, `SELECT `+stateColumns+` FROM deliveries WHERE `+where, args, scanState)
}

// history reads all attempts and changes of these deliveries, in the order of their keys.
func (r reader) history(ctx context.Context, shopID string, deliveryIDs []string) ([]store.AttemptRow, []store.ChangeRow, error) {
	low, high := bornBetween(deliveryIDs)
	args := []any{shopID, deliveryIDs, low, high}
	attempts, err := collect(ctx, r, `SELECT delivery_id, number, started_at, record FROM attempts
		WHERE shop_id = $1 AND delivery_id = ANY($2) AND born BETWEEN $3 AND $4 ORDER BY delivery_id, number, started_at`, args,
		func(row pgx.CollectableRow) (store.AttemptRow, error) {
			a := store.AttemptRow{ShopID: shopID}
			err := row.Scan(&a.DeliveryID, &a.Number, &a.StartedAt, &a.Record)
			a.StartedAt = a.StartedAt.UTC()
			return a, err
		})
	if err != nil {
		return nil, nil, err
	}
	changes, err := collect(ctx, r, `SELECT delivery_id, at, status, reason FROM changes
		WHERE shop_id = $1 AND delivery_id = ANY($2) AND born BETWEEN $3 AND $4 ORDER BY delivery_id, at, status`, args,
		func(row pgx.CollectableRow) (store.ChangeRow, error) {
			c := store.ChangeRow{ShopID: shopID}
			err := row.Scan(&c.DeliveryID, &c.At, &c.Status, &c.Reason)
			c.At = c.At.UTC()
			return c, err
		})
	return attempts, changes, err
}

func collect[T any](ctx context.Context, r reader, query string, args []any, scan func(pgx.CollectableRow) (T, error)) ([]T, error) {
	rows, err := r.tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}
