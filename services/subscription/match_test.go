package subscription

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestMatch_SaysYesOrWhyNot(t *testing.T) {
	set := profiles(t)
	for _, row := range []struct {
		name    string
		event   func(*contract.Event)
		webhook func(*busv1.WebhookState)
		why     string // empty: it is matched
	}{
		{"it is on", nil, func(*busv1.WebhookState) {}, ""},
		{"it wants both environments", func(e *contract.Event) { e.Environment = "test" }, func(*busv1.WebhookState) {}, ""},
		{"it wants this environment", nil, func(s *busv1.WebhookState) { s.Webhook.Environment = proto.String("live") }, ""},
		{"it wants the other environment", nil, func(s *busv1.WebhookState) { s.Webhook.Environment = proto.String("test") }, "it wants test events only, and this is a live event"},
		{"its owner has switched it off", nil, func(s *busv1.WebhookState) { s.Webhook.Status = webhook.Disabled }, "it is switched off by its owner"},
		{"its receiver has switched it off: it is held", nil, func(s *busv1.WebhookState) { s.Webhook.Status, s.OffByReceiver = webhook.Disabled, true }, ""},
		{"its receiver has deleted it", nil, func(s *busv1.WebhookState) {
			s.Webhook.Status, s.OffByReceiver, s.Webhook.DisabledReason = webhook.Deleted, true, proto.String("deleted by its receiver")
		}, "it was deleted by its receiver"},
		{"its profile is gone: it is held", nil, func(s *busv1.WebhookState) { s.Webhook.Profile = "gone" }, ""},
		{"its filter says yes", nil, func(s *busv1.WebhookState) { s.Webhook.Filter = proto.String("data.total > 100.0 && type == 'paid'") }, ""},
		{"its filter says no", nil, func(s *busv1.WebhookState) { s.Webhook.Filter = proto.String("data.total > 1000.0") }, "its filter says no: data.total > 1000.0"},
		{"its filter looks for what is not there", nil, func(s *busv1.WebhookState) { s.Webhook.Filter = proto.String("data.customer.vip == true") }, "its filter could not be evaluated"},
		{
			"its filter looks into what is no JSON", func(e *contract.Event) { e.ContentType, e.Data = "text/plain", []byte("total: 5") },
			func(s *busv1.WebhookState) { s.Webhook.Filter = proto.String("data.total > 1.0") }, "its filter could not be evaluated",
		},
		{"off goes before the filter", nil, func(s *busv1.WebhookState) {
			s.Webhook.Status, s.Webhook.Filter = webhook.Disabled, proto.String("true")
		}, "it is switched off by its owner"},
	} {
		e := happened("evt_1", "paid")
		if row.event != nil {
			row.event(e)
		}
		s := &busv1.WebhookState{
			Webhook: &shopbellv1.Webhook{Id: "wh_1", ShopId: "demo", Label: proto.String("Warehouse"), Events: []string{"paid"}, Profile: "standard", Status: webhook.Enabled},
			Secrets: []*busv1.Secret{{Value: "a-secret-of-my-own"}},
		}
		row.webhook(s)
		matched, considered := match(e, []*webhook.Webhook{webhook.New(s, 1, set)})
		c := considered[0]
		if c.Matched != (row.why == "") || !strings.HasPrefix(c.Reason, row.why) || row.why == "" && c.Reason != "" || len(matched) == 1 != c.Matched {
			t.Errorf("%s: matched %v because %q, want %q", row.name, c.Matched, c.Reason, row.why)
		}
		if c.WebhookId != "wh_1" || c.Label != "Warehouse" || strings.HasPrefix(c.DeliveryId, "dlv_") != c.Matched {
			t.Errorf("%s: considered %v", row.name, c)
		}
	}
}

func TestMatch_GivesEachWebhookItsOwnDeliveryAndTheSameOneAgain(t *testing.T) {
	set := profiles(t)
	var subscribed []*webhook.Webhook
	for i := range 20 {
		subscribed = append(subscribed, webhook.New(&busv1.WebhookState{
			Webhook: &shopbellv1.Webhook{Id: fmt.Sprintf("wh_%d", i), Events: []string{"paid"}, Profile: "standard", Status: webhook.Enabled},
			Secrets: []*busv1.Secret{{Value: "a-secret-of-my-own"}},
		}, 1, set))
	}
	e := happened("evt_1", "paid")
	_, first := match(e, subscribed)
	_, again := match(e, subscribed)
	seen := map[string]bool{}
	for i := range first {
		if first[i].DeliveryId != again[i].DeliveryId {
			t.Errorf("decided again, %s has the delivery %s in place of %s", first[i].WebhookId, again[i].DeliveryId, first[i].DeliveryId)
		}
		if seen[first[i].DeliveryId] {
			t.Errorf("the delivery %s goes to two webhooks", first[i].DeliveryId)
		}
		seen[first[i].DeliveryId] = true
	}
}
