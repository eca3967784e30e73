package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// resource is a WebHook resource as the programs write it that were made for Shoprenter's API (SHOPS.md S4): POSTed to
// /v1/shops/{shop_id}/webHooks it becomes webhooks of ours, with the rules of the shop's profile.
type resource struct {
	Label      string       `json:"label"`
	Event      string       `json:"event"`
	Status     number       `json:"status"`
	Parameters []parameter  `json:"webHookParameters"`
	Delays     []delayEntry `json:"webHookDelay,omitempty"`
	// IDs are our webhooks, one for each parameter. They are in answers alone.
	IDs []string `json:"webhook_ids,omitempty"`
}

// parameter is a target. encoding/json takes "Url" for "url" as well (D4).
type parameter struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

type delayEntry struct {
	Delay number `json:"delay"`
	Unit  string `json:"delayUnit"`
}

// number is a number that may be written as text (D9). It is printed as a number.
type number int

// UnmarshalJSON reads 1 and "1".
func (n *number) UnmarshalJSON(text []byte) error {
	v, err := strconv.Atoi(strings.Trim(string(text), `"`))
	if err != nil {
		return fmt.Errorf("%s is no whole number", text)
	}
	*n = number(v)
	return nil
}

// createResource is POST /v1/shops/{shop_id}/webHooks.
func (g *Gateway) createResource(w http.ResponseWriter, r *http.Request) {
	res := resource{Status: 1}
	dec := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&res); err != nil {
		g.env.Fail(w, r, fault.New(fault.Invalid, "the body is not a WebHook resource: %v", err))
		return
	}
	webhooks, err := res.webhooks()
	if err != nil {
		g.env.Fail(w, r, err)
		return
	}
	for _, wh := range webhooks {
		made, err := g.subscription.CreateWebhook(withKey(r), &subscriptionv1.CreateWebhookRequest{ShopId: r.PathValue("shop_id"), Webhook: wh})
		if err != nil {
			g.undo(r, res.IDs)
			g.env.Fail(w, r, err)
			return
		}
		res.IDs = append(res.IDs, made.GetId())
	}
	w.Header().Set("Content-Type", event.JSON)
	w.WriteHeader(http.StatusCreated)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(res) // the caller has gone if this fails
}

// undo removes webhooks of a resource of which one could not be made: all or none.
func (g *Gateway) undo(r *http.Request, ids []string) {
	for _, id := range ids {
		_, err := g.subscription.DeleteWebhook(withKey(r), &subscriptionv1.DeleteWebhookRequest{ShopId: r.PathValue("shop_id"), WebhookId: id})
		if err != nil {
			g.env.Log.ErrorContext(r.Context(), "a webhook is left of a resource that was refused", "webhook_id", id, "error", err)
		}
	}
}

// webhooks makes our webhooks of a resource: one for each target (D5). It brings the resource into the form that is
// answered.
func (res *resource) webhooks() ([]*shopbellv1.Webhook, error) {
	var bad fault.Collector
	res.Event = strings.ToLower(res.Event) // D3
	if res.Event == "" {
		bad.Add("event", "it is missing")
	}
	if res.Status != 0 && res.Status != 1 {
		bad.Add("status", "%d is neither 0 (disabled) nor 1 (enabled)", res.Status)
	}
	if len(res.Parameters) == 0 {
		bad.Add("webHookParameters", "it is missing; name at least one target: [{\"type\": \"json\", \"url\": \"https://…\"}]")
	}
	delay := res.delay(&bad)
	var out []*shopbellv1.Webhook
	for i, p := range res.Parameters {
		if p.Type != "json" && p.Type != "xml" {
			bad.Add(fmt.Sprintf("webHookParameters[%d].type", i), "%q is neither json nor xml", p.Type)
		}
		wh := &shopbellv1.Webhook{Url: p.URL, Events: []string{res.Event}, Format: proto.String(p.Type), Delay: delay}
		if res.Label != "" {
			wh.Label = proto.String(res.Label)
		}
		if res.Status == 0 {
			wh.Status = "disabled"
		}
		out = append(out, wh)
	}
	return out, bad.Err()
}

func (res *resource) delay(bad *fault.Collector) *shopbellv1.Delay {
	switch {
	case len(res.Delays) == 0:
		return nil
	case len(res.Delays) > 1:
		bad.Add("webHookDelay", "there are %d; one is taken, since what several would mean is said nowhere", len(res.Delays))
		return nil
	}
	d := res.Delays[0]
	if d.Unit != "day" && d.Unit != "hour" {
		bad.Add("webHookDelay[0].delayUnit", "%q is neither day nor hour", d.Unit)
	}
	return &shopbellv1.Delay{Value: int32(min(max(d.Delay, 0), 1<<20)), Unit: d.Unit}
}
