package store

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// StoredEvent is what an event's row holds already, without the data, which nobody needs in order to add to the row.
type StoredEvent struct {
	ShopID, ID string
	Arrived    bool // the event itself is there
	DecidedAt  time.Time
	Decision   []byte
}

// Onto makes r fit onto the row that is there: arrived says that the row lacks the event itself and r has it, decided
// that r.Decision and r.DecidedAt are to be stored. With neither, the row stays as it is.
func (r *EventRow) Onto(stored StoredEvent) (arrived, decided bool) {
	arrived = !r.AcceptedAt.IsZero() && !stored.Arrived
	decided = r.addDecision(stored.DecidedAt, stored.Decision)
	return arrived, decided
}

// addDecision adds one that was known before to the row's own, and says whether the row's now says more than that.
// There is usually one decision for an event. There are two when subscription died after it had told the bus of the
// first and before it had acked the event: webhooks may have changed meanwhile, and deliveries of both are on their
// way. Both count.
func (r *EventRow) addDecision(at time.Time, decision []byte) (more bool) {
	switch {
	case r.DecidedAt.IsZero():
		r.DecidedAt, r.Decision = at, decision
		return false
	case at.IsZero():
		return true
	}
	if !bytes.Equal(r.Decision, decision) {
		r.Decision = mergeDecisions(decision, r.Decision)
	}
	r.DecidedAt = earlier(r.DecidedAt, at)
	return !r.DecidedAt.Equal(at) || !bytes.Equal(r.Decision, decision)
}

func mergeDecisions(a, b []byte) []byte {
	one, two := decodeDecision(a), decodeDecision(b)
	return blob(&busv1.Decision{
		Considered: mergeConsidered(one.GetConsidered(), two.GetConsidered()),
		Due:        mergeDue(one.GetDue(), two.GetDue()),
	})
}

// mergeConsidered sorts and keeps one of each webhook and delivery, so that the order of merging does not matter.
func mergeConsidered(a, b []*shopbellv1.Considered) []*shopbellv1.Considered {
	compare := func(a, b *shopbellv1.Considered) int {
		return cmp.Or(cmp.Compare(a.GetWebhookId(), b.GetWebhookId()), cmp.Compare(a.GetDeliveryId(), b.GetDeliveryId()))
	}
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(a, b *shopbellv1.Considered) int {
		return cmp.Or(compare(a, b), cmp.Compare(a.GetReason(), b.GetReason()), cmp.Compare(a.GetLabel(), b.GetLabel()))
	})
	return slices.CompactFunc(all, func(a, b *shopbellv1.Considered) bool { return compare(a, b) == 0 })
}

func mergeDue(a, b map[string]*timestamppb.Timestamp) map[string]*timestamppb.Timestamp {
	due := make(map[string]*timestamppb.Timestamp, len(a)+len(b))
	for _, from := range []map[string]*timestamppb.Timestamp{a, b} {
		for webhookID, ts := range from {
			if known, ok := due[webhookID]; !ok || ts.AsTime().Before(known.AsTime()) {
				due[webhookID] = ts
			}
		}
	}
	return due
}

// decodeDecision reads what blob wrote. A row that somebody else damaged says nothing rather than stopping the log.
func decodeDecision(b []byte) *busv1.Decision {
	d := &busv1.Decision{}
	if err := proto.Unmarshal(b, d); err != nil {
		return &busv1.Decision{}
	}
	return d
}

// DeliveryIDs are the keys of the deliveries that a stored decision names, in its order.
func DeliveryIDs(decision []byte) []string {
	var ids []string
	for _, c := range decodeDecision(decision).GetConsidered() {
		if c.GetDeliveryId() != "" {
			ids = append(ids, Key(c.GetDeliveryId()))
		}
	}
	return ids
}
