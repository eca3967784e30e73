package postgres

import (
	"time"

	"github.com/jackc/pgx/v5"

	"shopbell.dev/services/log/store"
)

// column is one field of all rows, as an array.
func column[R, V any](rows []R, field func(R) V) []V {
	values := make([]V, len(rows))
	for i, row := range rows {
		values[i] = field(row)
	}
	return values
}

// eventValues are the columns in the order of eventColumns.
func eventValues(e store.EventRow) []any {
	return []any{
		e.ShopID, e.ID, e.Type, e.Action, e.OccurredAt, e.Environment, e.Key, e.ContentType, e.Trace, e.AcceptedBy, e.AcceptedAt, e.Data,
	}
}

// attemptValues are the columns in the order of attemptColumns.
func attemptValues(a store.AttemptRow) []any {
	return []any{a.ShopID, a.DeliveryID, a.Number, a.StartedAt, a.Record, store.Born(a.DeliveryID)}
}

// changeValues are the columns in the order of changeColumns.
func changeValues(c store.ChangeRow) []any {
	return []any{c.ShopID, c.DeliveryID, c.At, c.Status, c.Reason, store.Born(c.DeliveryID)}
}

func decisionArrays(rows []store.DecisionRow) []any {
	type row = store.DecisionRow
	return []any{
		column(rows, func(d row) string { return d.ShopID }),
		column(rows, func(d row) string { return d.EventID }),
		column(rows, func(d row) string { return d.EventType }),
		column(rows, func(d row) time.Time { return d.At }),
		column(rows, func(d row) []byte { return d.Decision }),
		column(rows, func(d row) time.Time { return d.Born }),
	}
}

// stateArrays are the columns in the order of stateColumns.
func stateArrays(rows []store.State) []any {
	type row = store.State
	return []any{
		column(rows, func(s row) string { return s.ShopID }),
		column(rows, func(s row) string { return s.ID }),
		column(rows, func(s row) string { return s.WebhookID }),
		column(rows, func(s row) string { return s.EventID }),
		column(rows, func(s row) string { return s.EventType }),
		column(rows, func(s row) bool { return s.Test }),
		column(rows, func(s row) time.Time { return s.CreatedAt }),
		column(rows, func(s row) *time.Time { return orNil(s.Due) }),
		column(rows, row.Status),
		column(rows, func(s row) int32 { return s.Attempt.Number }),
		column(rows, func(s row) int32 { return s.Attempt.ResponseCode }),
		column(rows, func(s row) string { return s.Attempt.ErrorClass }),
		column(rows, func(s row) *time.Time { return orNil(s.Attempt.StartedAt) }),
		column(rows, func(s row) *time.Time { return orNil(s.Attempt.At) }),
		column(rows, func(s row) *string { return textOrNil(s.Attempt.Status) }),
		column(rows, func(s row) *string { return textOrNil(s.Attempt.Reason) }),
		column(rows, func(s row) *time.Time { return orNil(s.Attempt.NextAttemptAt) }),
		column(rows, func(s row) *time.Time { return orNil(s.Change.At) }),
		column(rows, func(s row) *string { return textOrNil(s.Change.Status) }),
		column(rows, func(s row) *string { return textOrNil(s.Change.Reason) }),
		column(rows, func(s row) time.Time { return store.Born(s.ID) }),
	}
}

// scanDecision reads a row of decisionColumns.
func scanDecision(row pgx.CollectableRow) (store.DecisionRow, error) {
	var d store.DecisionRow
	err := row.Scan(&d.ShopID, &d.EventID, &d.EventType, &d.At, &d.Decision, &d.Born)
	d.At, d.Born = d.At.UTC(), d.Born.UTC()
	return d, err
}

// scanState reads a row of stateColumns.
func scanState(row pgx.CollectableRow) (store.State, error) {
	var s store.State
	a, c := &s.Attempt, &s.Change
	var status string  // follows from the rest
	var born time.Time // follows from the id
	var due, startedAt, attemptAt, nextAt, changeAt *time.Time
	var attemptStatus, attemptReason, changeStatus, changeReason *string
	err := row.Scan(&s.ShopID, &s.ID, &s.WebhookID, &s.EventID, &s.EventType, &s.Test, &s.CreatedAt, &due,
		&status, &a.Number, &a.ResponseCode, &a.ErrorClass,
		&startedAt, &attemptAt, &attemptStatus, &attemptReason, &nextAt,
		&changeAt, &changeStatus, &changeReason, &born)
	s.CreatedAt, s.Due = s.CreatedAt.UTC(), orZero(due)
	a.StartedAt, a.At, a.NextAttemptAt = orZero(startedAt), orZero(attemptAt), orZero(nextAt)
	a.Status, a.Reason = textOrEmpty(attemptStatus), textOrEmpty(attemptReason)
	c.At, c.Status, c.Reason = orZero(changeAt), textOrEmpty(changeStatus), textOrEmpty(changeReason)
	return s, err
}

// orNil is a time as a column holds it; the zero time is null.
func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func textOrNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func textOrEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
