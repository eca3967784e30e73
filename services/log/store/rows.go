package store

import (
	"cmp"
	"slices"
	"time"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Rows are what a batch becomes: at most one row for each thing, in the order of their keys, so that two writers that
// meet in a database wait for each other in the same order.
type Rows struct {
	Events     []EventRow
	Decisions  []DecisionRow
	Deliveries []State
	Attempts   []AttemptRow
	Changes    []ChangeRow
	Lateness   []LatenessRow
}

// EventRow is an event.
type EventRow struct {
	ShopID, ID, Type                                                     string
	Action, OccurredAt, Environment, Key, ContentType, Trace, AcceptedBy string
	AcceptedAt                                                           time.Time
	Data                                                                 []byte
}

// DecisionRow is what was decided about an event. It is not part of the event's row, because the two come separately,
// and to change a row that holds a payload costs a database as much as to write it.
type DecisionRow struct {
	ShopID, EventID, EventType string
	At                         time.Time
	Decision                   []byte // a busv1.Decision
	// Born is that of the first delivery that the decision names; without any it is At.
	Born time.Time
}

// AttemptRow is one attempt.
type AttemptRow struct {
	ShopID, DeliveryID string
	Number             int32
	StartedAt          time.Time
	Record             []byte // Made, as it is stored
	Made               *busv1.AttemptMade
}

// ChangeRow is one change of a status without an attempt.
type ChangeRow struct {
	ShopID, DeliveryID string
	Change
}

// LatenessRow says how late deliveries were matched that were created on a day, where it is more than is usual.
type LatenessRow struct {
	Day  time.Time
	Late time.Duration
}

type key struct{ shopID, id string }

// builder gathers the rows in the order in which they come, which is nearly that of their keys.
type builder struct {
	events     []*EventRow
	decisions  []*DecisionRow
	deliveries []*State
	attempts   []*AttemptRow
	changes    []*ChangeRow

	decisionOf map[key]*DecisionRow
	deliveryOf map[key]*State
}

// Rows makes the batch's rows. Facts about one delivery are merged here, so that it is written once.
func (b Batch) Rows() Rows {
	m := builder{
		events:     make([]*EventRow, 0, len(b.Events)),
		decisionOf: make(map[key]*DecisionRow),
		deliveryOf: make(map[key]*State, len(b.Records)),
	}
	for _, e := range b.Events {
		if e.GetShopId() != "" && e.GetId() != "" {
			m.event(e)
		}
	}
	for _, r := range b.Records {
		if r.GetShopId() == "" {
			continue
		}
		switch what := r.GetWhat().(type) {
		case *busv1.Record_Decision:
			if r.GetEventId() != "" {
				m.decision(r, what.Decision)
			}
		case *busv1.Record_Attempt:
			if what.Attempt.GetDeliveryId() != "" {
				m.attempt(r, what.Attempt)
			}
		case *busv1.Record_Change:
			if what.Change.GetDeliveryId() != "" {
				m.change(r, what.Change)
			}
		}
	}
	return m.rows()
}

func (m *builder) event(e *shopbellv1.Event) {
	m.events = append(m.events, &EventRow{
		ShopID: Key(e.GetShopId()), ID: Key(e.GetId()), Type: Key(e.GetType()), Action: Text(e.GetAction()),
		OccurredAt: Text(e.GetOccurredAt()), Environment: Text(e.GetEnvironment()), Key: Text(e.GetKey()),
		ContentType: Text(e.GetContentType()), Trace: Text(e.GetTraceId()), AcceptedBy: Text(e.GetAcceptedBy()),
		AcceptedAt: orTime(Time(e.GetAcceptedAt()), unknownTime), Data: e.GetData(),
	})
}

func (m *builder) decision(r *busv1.Record, d *busv1.Decision) {
	at := orTime(Time(r.GetAt()), unknownTime)
	row := DecisionRow{
		ShopID: Key(r.GetShopId()), EventID: Key(r.GetEventId()), EventType: Key(r.GetEventType()), At: at, Decision: blob(d),
		Born: at,
	}
	if ids := namedBy(d); len(ids) > 0 {
		row.Born = Born(ids[0])
	}
	k := key{row.ShopID, row.EventID}
	if known := m.decisionOf[k]; known != nil {
		*known = known.Merge(row)
	} else {
		m.decisionOf[k] = &row
		m.decisions = append(m.decisions, &row)
	}
	for _, c := range d.GetConsidered() {
		if c.GetDeliveryId() == "" {
			continue
		}
		m.merge(State{
			ShopID: Key(r.GetShopId()), ID: Key(c.GetDeliveryId()), WebhookID: Key(c.GetWebhookId()),
			EventID: Key(r.GetEventId()), EventType: Key(r.GetEventType()),
			CreatedAt: at, Due: Time(d.GetDue()[c.GetWebhookId()]),
		})
	}
}

func (m *builder) attempt(r *busv1.Record, a *busv1.AttemptMade) {
	made := a.GetAttempt()
	at := orTime(Time(r.GetAt()), orTime(Time(made.GetStartedAt()), unknownTime))
	startedAt := orTime(Time(made.GetStartedAt()), at)
	m.attempts = append(m.attempts, &AttemptRow{
		ShopID: Key(r.GetShopId()), DeliveryID: Key(a.GetDeliveryId()),
		Number: made.GetNumber(), StartedAt: startedAt, Record: blob(a), Made: a,
	})
	m.merge(State{
		ShopID: Key(r.GetShopId()), ID: Key(a.GetDeliveryId()), WebhookID: Key(a.GetWebhookId()),
		EventID: Key(r.GetEventId()), EventType: Key(r.GetEventType()), Test: a.GetTest(),
		CreatedAt: orTime(Time(a.GetMatchedAt()), at),
		Attempt: AttemptState{
			Number: made.GetNumber(), StartedAt: startedAt, At: at,
			Status: Key(a.GetStatus()), Reason: Text(a.GetReason()), NextAttemptAt: Time(made.GetNextAttemptAt()),
			ResponseCode: made.GetResponseCode(), ErrorClass: Key(made.GetErrorClass()),
		},
	})
}

func (m *builder) change(r *busv1.Record, c *busv1.StatusChange) {
	at := orTime(Time(r.GetAt()), unknownTime)
	change := Change{At: at, Status: Key(c.GetStatus()), Reason: Text(c.GetReason())}
	shopID, deliveryID := Key(r.GetShopId()), Key(c.GetDeliveryId())
	m.changes = append(m.changes, &ChangeRow{ShopID: shopID, DeliveryID: deliveryID, Change: change})
	m.merge(State{
		ShopID: shopID, ID: deliveryID, WebhookID: Key(c.GetWebhookId()),
		EventID: Key(r.GetEventId()), EventType: Key(r.GetEventType()),
		CreatedAt: orTime(Time(c.GetMatchedAt()), at), Change: change,
	})
}

func (m *builder) merge(s State) {
	k := key{s.ShopID, s.ID}
	if known := m.deliveryOf[k]; known != nil {
		*known = known.Merge(s)
		return
	}
	made := s // nothing of its own is made of one that is known
	m.deliveryOf[k] = &made
	m.deliveries = append(m.deliveries, &made)
}

func (m *builder) rows() Rows {
	r := Rows{
		Events: sorted(m.events, func(a, b *EventRow) int {
			return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.ShopID, b.ShopID))
		}),
		Decisions: sorted(m.decisions, func(a, b *DecisionRow) int {
			return cmp.Or(cmp.Compare(a.EventID, b.EventID), cmp.Compare(a.ShopID, b.ShopID))
		}),
		Deliveries: sorted(m.deliveries, func(a, b *State) int {
			return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.ShopID, b.ShopID))
		}),
		Attempts: sorted(m.attempts, func(a, b *AttemptRow) int {
			return cmp.Or(cmp.Compare(a.DeliveryID, b.DeliveryID), cmp.Compare(a.Number, b.Number),
				a.StartedAt.Compare(b.StartedAt), cmp.Compare(a.ShopID, b.ShopID))
		}),
		Changes: sorted(m.changes, func(a, b *ChangeRow) int {
			return cmp.Or(cmp.Compare(a.DeliveryID, b.DeliveryID), a.Change.compare(b.Change), cmp.Compare(a.ShopID, b.ShopID))
		}),
	}
	r.Lateness = lateness(r.Deliveries)
	return r
}

func lateness(deliveries []State) []LatenessRow {
	var late map[time.Time]time.Duration
	for _, d := range deliveries {
		if by := d.CreatedAt.Sub(Born(d.ID)); by > usualLateness && Born(d.ID) != unknownTime {
			if late == nil {
				late = make(map[time.Time]time.Duration)
			}
			day := d.CreatedAt.Truncate(24 * time.Hour)
			late[day] = max(late[day], by)
		}
	}
	rows := make([]*LatenessRow, 0, len(late))
	for day, by := range late {
		rows = append(rows, &LatenessRow{day, by})
	}
	return sorted(rows, func(a, b *LatenessRow) int { return a.Day.Compare(b.Day) })
}

// sorted puts rows in the order of their keys and drops repeats; the first one counts. It moves pointers: rows are large.
func sorted[T any](rows []*T, compare func(a, b *T) int) []T {
	slices.SortStableFunc(rows, compare)
	rows = slices.CompactFunc(rows, func(a, b *T) bool { return compare(a, b) == 0 })
	all := make([]T, len(rows))
	for i, row := range rows {
		all[i] = *row
	}
	return all
}

// unknownTime stands where a record lacks its time: a row must have one.
var unknownTime = time.Unix(0, 0).UTC()

func orTime(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}
