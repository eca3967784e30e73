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

func eventArrays(rows []store.EventRow) []any {
	type row = store.EventRow
	return []any{
		column(rows, func(e row) string { return e.ShopID }),
		column(rows, func(e row) string { return e.ID }),
		column(rows, func(e row) string { return e.Type }),
		column(rows, func(e row) string { return e.Action }),
		column(rows, func(e row) string { return e.OccurredAt }),
		column(rows, func(e row) string { return e.Environment }),
		column(rows, func(e row) string { return e.Key }),
		column(rows, func(e row) string { return e.ContentType }),
		column(rows, func(e row) string { return e.Trace }),
		column(rows, func(e row) time.Time { return e.AcceptedAt }),
		column(rows, func(e row) []byte { return e.Data }),
	}
}

func decisionArrays(rows []store.DecisionRow) []any {
	type row = store.DecisionRow
	return []any{
		column(rows, func(d row) string { return d.ShopID }),
		column(rows, func(d row) string { return d.EventID }),
		column(rows, func(d row) string { return d.EventType }),
		column(rows, func(d row) time.Time { return d.At }),
		column(rows, func(d row) []byte { return d.Decision }),
	}
}

func attemptArrays(rows []store.AttemptRow) []any {
	type row = store.AttemptRow
	return []any{
		column(rows, func(a row) string { return a.ShopID }),
		column(rows, func(a row) string { return a.DeliveryID }),
		column(rows, func(a row) int32 { return a.Number }),
		column(rows, func(a row) time.Time { return a.StartedAt }),
		column(rows, func(a row) []byte { return a.Record }),
	}
}

func changeArrays(rows []store.ChangeRow) []any {
	type row = store.ChangeRow
	return []any{
		column(rows, func(c row) string { return c.ShopID }),
		column(rows, func(c row) string { return c.DeliveryID }),
		column(rows, func(c row) time.Time { return c.At }),
		column(rows, func(c row) string { return c.Status }),
		column(rows, func(c row) string { return c.Reason }),
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
	}
}

// scanDecision reads a row of decisionColumns.
func scanDecision(row pgx.CollectableRow) (store.DecisionRow, error) {
	var d store.DecisionRow
	err := row.Scan(&d.ShopID, &d.EventID, &d.EventType, &d.At, &d.Decision)
	d.At = d.At.UTC()
	return d, err
}

// scanState reads a row of stateColumns.
func scanState(row pgx.CollectableRow) (store.State, error) {
	var s store.State
	a, c := &s.Attempt, &s.Change
	var status string // follows from the rest
	var due, startedAt, attemptAt, nextAt, changeAt *time.Time
	var attemptStatus, attemptReason, changeStatus, changeReason *string
	err := row.Scan(&s.ShopID, &s.ID, &s.WebhookID, &s.EventID, &s.EventType, &s.Test, &s.CreatedAt, &due,
		&status, &a.Number, &a.ResponseCode, &a.ErrorClass,
		&startedAt, &attemptAt, &attemptStatus, &attemptReason, &nextAt,
		&changeAt, &changeStatus, &changeReason)
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
