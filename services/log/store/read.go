package store

import (
	"slices"

	"google.golang.org/protobuf/proto"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// NewEvent puts an event together from its rows; event or decision is nil when it is not there. Attempts and changes
// must be in the order of their keys.
func NewEvent(event *EventRow, decision *DecisionRow, states []State, attempts []AttemptRow, changes []ChangeRow) *Event {
	if decision == nil {
		return &Event{Event: event.proto()}
	}
	e := &Event{
		Event:    &shopbellv1.Event{ShopId: decision.ShopID, Id: decision.EventID, Type: decision.EventType},
		Decision: decodeDecision(decision.Decision), DecidedAt: decision.At,
	}
	if event != nil {
		e.Event = event.proto()
	}
	known := newDeliveries(states, attempts, changes)
	for _, id := range DeliveryIDs(decision.Decision) {
		if d, ok := known[id]; ok {
			e.Deliveries = append(e.Deliveries, d)
		}
	}
	return e
}

// NewDeliveries puts deliveries together from their rows, by their ids. Events are theirs by their ids, as far as they are
// there; attempts and changes must be in the order of their keys.
func NewDeliveries(states []State, events map[string]*EventRow, attempts []AttemptRow, changes []ChangeRow) map[string]*Delivery {
	all := newDeliveries(states, attempts, changes)
	for _, d := range all {
		if event := events[d.Delivery.GetEventId()]; event != nil {
			d.Event = event.proto()
		}
		d.Delivery.Body, d.BodyKnown = body(d.Attempts, d.Event)
	}
	return all
}

func newDeliveries(states []State, attempts []AttemptRow, changes []ChangeRow) map[string]*Delivery {
	all := make(map[string]*Delivery, len(states))
	for _, s := range states {
		all[s.ID] = &Delivery{Delivery: s.Proto()}
	}
	for _, row := range attempts {
		if d := all[row.DeliveryID]; d != nil {
			made := row.made()
			d.Attempts = append(d.Attempts, made)
			d.Delivery.Attempts = append(d.Delivery.Attempts, made.GetAttempt())
		}
	}
	for _, row := range changes {
		if d := all[row.DeliveryID]; d != nil {
			d.Changes = append(d.Changes, row.Change)
		}
	}
	return all
}

// made is the row's record. Of one that somebody else damaged only the row itself speaks.
func (r AttemptRow) made() *busv1.AttemptMade {
	made := &busv1.AttemptMade{}
	if err := proto.Unmarshal(r.Record, made); err != nil || made.GetAttempt() == nil {
		made.Attempt = &shopbellv1.Attempt{Number: r.Number, StartedAt: stamp(r.StartedAt)}
	}
	return made
}

// AttemptsOf are the attempts of these rows, by their deliveries.
func AttemptsOf(rows []AttemptRow) map[string][]*shopbellv1.Attempt {
	of := make(map[string][]*shopbellv1.Attempt)
	for _, row := range rows {
		of[row.DeliveryID] = append(of[row.DeliveryID], row.made().GetAttempt())
	}
	return of
}

// body is what the last attempt sent, and whether that is known.
func body(attempts []*busv1.AttemptMade, event *shopbellv1.Event) ([]byte, bool) {
	if len(attempts) == 0 {
		return nil, false
	}
	last := attempts[len(attempts)-1]
	switch {
	case last.GetWholeBody():
		return last.GetBodyPrefix(), true
	case event == nil:
		return nil, false
	default:
		return slices.Concat(last.GetBodyPrefix(), event.GetData(), last.GetBodySuffix()), true
	}
}

// EventIDs are the ids of the events of deliveries, each once.
func EventIDs(states []State) []string {
	ids := make([]string, len(states))
	for i, s := range states {
		ids[i] = s.EventID
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// ByID are events by their ids; of those with the same id the last one.
func ByID(rows []EventRow) map[string]*EventRow {
	of := make(map[string]*EventRow, len(rows))
	for i := range rows {
		of[rows[i].ID] = &rows[i]
	}
	return of
}

// EventsOf makes events of rows.
func EventsOf(rows []EventRow) []*shopbellv1.Event {
	events := make([]*shopbellv1.Event, len(rows))
	for i := range rows {
		events[i] = rows[i].proto()
	}
	return events
}

func (r *EventRow) proto() *shopbellv1.Event {
	return &shopbellv1.Event{
		ShopId: r.ShopID, Id: r.ID, Type: r.Type, Action: r.Action, OccurredAt: r.OccurredAt,
		Environment: r.Environment, Key: r.Key, ContentType: r.ContentType, TraceId: r.Trace, AcceptedBy: r.AcceptedBy,
		AcceptedAt: stamp(r.AcceptedAt), Content: &shopbellv1.Event_Data{Data: r.Data},
	}
}
