// Package notice is the events that Shopbell itself publishes in a shop, so that a webhook's owner can be told of what
// became of it. They go to webhooks that name them, and not to those that want every type: a shop system's receivers
// know nothing of them.
package notice

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"shopbell.dev/pkg/contract"
)

// The types of notices.
const (
	WebhookDisabled  = "webhook.disabled"  // its receiver's answers switched it off, or deleted it
	WebhookRecovered = "webhook.recovered" // it is on again after that
	DeliveryFailed   = "delivery.failed"   // a delivery was given up
)

// Types are all of them.
var Types = []string{WebhookDisabled, WebhookRecovered, DeliveryFailed}

// Is says whether an event type is a notice.
func Is(eventType string) bool { return slices.Contains(Types, eventType) }

// Data is what a notice tells.
type Data struct {
	WebhookID  string    `json:"webhook_id"`
	Label      string    `json:"label"`
	URL        string    `json:"url"`
	Reason     string    `json:"reason"`
	At         time.Time `json:"at"`
	DeliveryID string    `json:"delivery_id,omitempty"`
	EventID    string    `json:"event_id,omitempty"`
	EventType  string    `json:"event_type,omitempty"`
	Attempts   int       `json:"attempts,omitempty"`
}

// New makes a notice. Cause names what it tells of: the same cause again makes the same notice, so that a repeat is
// harmless.
func New(shop, environment, eventType, cause string, d Data) (*contract.Event, error) {
	data, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write the notice %s: %w", eventType, err)
	}
	return &contract.Event{
		ShopID: shop, ID: eventType + ":" + cause, Type: eventType, Action: "create", Environment: environment, Key: d.WebhookID,
		OccurredAt: d.At.UTC().Format(time.RFC3339Nano), ContentType: "application/json", AcceptedAt: time.Now(), Data: data,
	}, nil
}
