package webhook

import (
	"fmt"
	"slices"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/expression"
	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/notice"
)

// View is an event as filters see it: decoded at most once.
func View(e *contract.Event) *expression.Event {
	return &expression.Event{Type: e.Type, Action: e.Action, ShopID: e.ShopID, Environment: e.Environment, Data: e.Data}
}

// Subscribes says whether the webhook wants events of a type, by its name or, unless it is a notice, as every type.
func (w *Webhook) Subscribes(eventType string) bool {
	return slices.Contains(w.Events, eventType) || !notice.Is(eventType) && slices.Contains(w.Events, AnyType)
}

// Wants says whether the webhook, which subscribes to the event's type, is sent it, and if not why. seen is the event's
// View.
func (w *Webhook) Wants(e *contract.Event, seen *expression.Event) (yes bool, why string) {
	switch {
	case w.Status == Deleted:
		return false, "it was " + w.DisabledReason
	case w.Status == Disabled && !w.OffByReceiver:
		return false, "it is switched off by its owner"
	case w.Environment != "" && w.Environment != e.Environment:
		return false, fmt.Sprintf("it wants %s events only, and this is a %s event", w.Environment, e.Environment)
	}
	if w.Filter != nil {
		wants, err := w.Filter.Wants(seen)
		if err != nil {
			return false, "its filter could not be evaluated: " + err.Error()
		}
		if !wants {
			return false, "its filter says no: " + w.Filter.String()
		}
	}
	return true, ""
}

// DeliveryID is the id of the event's delivery to the webhook, whoever makes it and however often.
func (w *Webhook) DeliveryID(e *contract.Event) string {
	return id.Derived(id.Delivery, e.AcceptedAt, e.ShopID, e.ID, w.ID)
}
