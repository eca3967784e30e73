package store

import (
	"bytes"
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Merge adds another decision about the same event. There is usually one. There are two when subscription died after it
// had told the bus of the first and before it had acked the event: webhooks may have changed meanwhile, and deliveries
// of both are on their way. Both count, and the order in which they come does not.
func (r DecisionRow) Merge(o DecisionRow) DecisionRow {
	r.EventType = cmp.Or(r.EventType, o.EventType)
	r.At = earlier(r.At, o.At)
	if !bytes.Equal(r.Decision, o.Decision) {
		r.Decision = mergeDecisions(r.Decision, o.Decision)
	}
	return r
}

// Equal says whether both are the same row.
func (r DecisionRow) Equal(o DecisionRow) bool {
	return r.ShopID == o.ShopID && r.EventID == o.EventID && r.EventType == o.EventType && r.At.Equal(o.At) &&
		bytes.Equal(r.Decision, o.Decision)
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
func DeliveryIDs(decision []byte) []string { return namedBy(decodeDecision(decision)) }

func namedBy(d *busv1.Decision) []string {
	var ids []string
	for _, c := range d.GetConsidered() {
		if c.GetDeliveryId() != "" {
			ids = append(ids, Key(c.GetDeliveryId()))
		}
	}
	return ids
}
