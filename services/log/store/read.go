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
	stateOf := make(map[string]State, len(states))
	for _, s := range states {
		stateOf[s.ID] = s
	}
	attemptsOf := make(map[string][]AttemptRow, len(states))
	for _, a := range attempts {
		attemptsOf[a.DeliveryID] = append(attemptsOf[a.DeliveryID], a)
	}
	changesOf := make(map[string][]ChangeRow)
	for _, c := range changes {
		changesOf[c.DeliveryID] = append(changesOf[c.DeliveryID], c)
	}
	for _, id := range DeliveryIDs(decision.Decision) {
		if s, ok := stateOf[id]; ok {
			e.Deliveries = append(e.Deliveries, newDelivery(s, attemptsOf[id], changesOf[id]))
		}
	}
	return e
}

// NewDelivery puts a delivery together from its rows; event is nil when it is not there. Attempts and changes must be
// in the order of their keys.
func NewDelivery(state State, event *EventRow, attempts []AttemptRow, changes []ChangeRow) *Delivery {
	d := newDelivery(state, attempts, changes)
	if event != nil {
		d.Event = event.proto()
	}
	d.Delivery.Body, d.BodyKnown = body(d.Attempts, d.Event)
	return d
}

func newDelivery(state State, attempts []AttemptRow, changes []ChangeRow) *Delivery {
	d := &Delivery{Delivery: state.Proto()}
	for _, row := range attempts {
		made := row.made()
		d.Attempts = append(d.Attempts, made)
		d.Delivery.Attempts = append(d.Delivery.Attempts, made.GetAttempt())
	}
	for _, row := range changes {
		d.Changes = append(d.Changes, row.Change)
	}
	return d
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
