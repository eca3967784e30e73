// Package demo shows Shopbell at work to somebody who has just started it: shops publish, a receiver on this machine is
// sent to, and each delivery is printed as it arrives. It uses nothing but the REST API.
package demo

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

// Place is where Shopbell can be reached.
type Place struct {
	REST, GRPC, Data, OperatorKey string
}

// shop is a shop of the demonstration: one for each profile that ships.
type shop struct {
	ID, Profile string
	Fields      map[string]any // beside its profile
	Order       string         // the type of the event that a new order is
}

var shops = []shop{
	{"bike-parts", "standard", nil, "order.created"},
	{"cup-house", "cloudevents", nil, "order.created"},
	{"tulip-garden", "shoporama", map[string]any{"webshop_id": 1274}, "order_created"},
	{"vase-store", "shoprocket", nil, "order.created"},
	{"herb-market", "cloudcart", map[string]any{"check_schemas": true}, "order.created"},
	{"virag-bolt", "shoprenter", nil, "order_confirm"},
}

// hook is a webhook of the demonstration. Its label is how it is found again when the demonstration is started anew.
type hook struct {
	Shop, Label string
	Path        string
	Events      []string
	Extra       map[string]any
}

// The first webhook of a shop is sent its order, which is printed whole.
var hooks = []hook{
	{Shop: "bike-parts", Label: "Bookkeeping", Path: "/books", Events: []string{"order.created"}},
	{Shop: "cup-house", Label: "Broker", Path: "/broker", Events: []string{"*"}},
	{Shop: "tulip-garden", Label: "Warehouse", Path: "/warehouse", Events: []string{"order_created", "stock"}},
	{Shop: "vase-store", Label: "CRM", Path: "/crm", Events: []string{"order.created", "customer.updated"}, Extra: map[string]any{"headers": map[string]string{"X-Env": "demo"}}},
	{Shop: "herb-market", Label: "Courier", Path: "/courier", Events: []string{"order.created", "order.status_changed"}},
	{Shop: "virag-bolt", Label: "ERP", Path: "/erp", Events: []string{"*"}},

	{Shop: "tulip-garden", Label: "Accounts (stumbles at first)", Path: "/stumbles", Events: []string{"paid"}, Extra: map[string]any{
		"policy": map[string]any{"retry_schedule": []string{"1s", "3s", "60s"}, "jitter": false},
	}},
	{Shop: "tulip-garden", Label: "Test mirror (test orders only)", Path: "/mirror", Events: []string{"paid"}, Extra: map[string]any{"environment": "test"}},
	{Shop: "bike-parts", Label: "Slack (large paid orders)", Path: "/slack", Events: []string{"order.created"}, Extra: map[string]any{
		"filter":    `data.total > 100.0 && data.?status.orValue("") == "paid"`,
		"transform": `{'text': 'Order ' + string(data.number) + ' over ' + string(data.total) + ' ' + data.currency}`,
	}},
}

//go:embed events.ndjson
var events []byte

// event is one to publish: a line of events.ndjson.
type event struct {
	Shop  string          `json:"shop"`
	Event json.RawMessage `json:"event"`
}

// Run shows the demonstration and returns when ctx ends, or when it cannot go on.
func Run(ctx context.Context, out io.Writer, place Place) error {
	api := &api{place}
	r, err := listen(ctx, out)
	if err != nil {
		return err
	}
	defer r.close()
	_, _ = fmt.Fprintf(out, "\nShopbell is running: REST %s, gRPC %s, data in %s.\n", place.REST, place.GRPC, place.Data)
	_, _ = fmt.Fprintf(out, "Six shops, one of each profile, tell of an order. This is what their receivers, all at %s, are sent:\n\n", r.base)
	for _, s := range shops {
		if err := s.setUp(ctx, api); err != nil {
			return err
		}
	}
	for _, h := range hooks {
		if err := r.expect(ctx, api, h); err != nil {
			return err
		}
	}
	for _, s := range shops {
		if err := s.order(ctx, api); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(out, "── more events: a receiver that stumbles, a filter, a transform for Slack %s\n\n", strings.Repeat("─", 30))
	first, last, err := publishAll(ctx, api)
	if err != nil {
		return err
	}
	select {
	case <-r.recovered:
	case <-ctx.Done():
		return nil
	case <-time.After(30 * time.Second):
	}
	for _, e := range []published{last, first} {
		if err := tell(ctx, out, api, e); err != nil {
			return err
		}
	}
	r.next(out, place, first.id)
	<-ctx.Done()
	return nil
}

// setUp gives the shop its profile.
func (s *shop) setUp(ctx context.Context, api *api) error {
	fields := map[string]any{"profile": s.Profile}
	maps.Copy(fields, s.Fields)
	body, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return api.call(ctx, http.MethodPatch, "/v1/shops/"+s.ID, body, &struct{}{})
}

// order publishes the sample that the shop's profile has of an order.
func (s *shop) order(ctx context.Context, api *api) error {
	var profile struct {
		Events []struct {
			Name   string
			Sample json.RawMessage
		}
	}
	if err := api.call(ctx, http.MethodGet, "/v1/profiles/"+s.Profile, nil, &profile); err != nil {
		return err
	}
	at := time.Now().In(time.FixedZone("", 2*60*60)).Format(time.RFC3339)
	for _, e := range profile.Events {
		if e.Name == s.Order {
			_, err := publish(ctx, api, s.ID, fmt.Appendf(nil, `{"type":%q,"occurred_at":%q,"data":%s}`, e.Name, at, e.Sample))
			return err
		}
	}
	return fmt.Errorf("profile %s knows no %s", s.Profile, s.Order)
}

// published is an event that was.
type published struct{ shop, id string }

// publishAll publishes the events beside the orders, and gives that which one receiver stumbles over, and that which a
// filter says no to.
func publishAll(ctx context.Context, api *api) (stumbled, filtered published, err error) {
	for line := range bytes.Lines(events) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return stumbled, filtered, fmt.Errorf("read the demonstration's events: %w", err)
		}
		p, err := publish(ctx, api, e.Shop, e.Event)
		if err != nil {
			return stumbled, filtered, err
		}
		if stumbled.id == "" {
			stumbled = p
		}
		if e.Shop == "bike-parts" {
			filtered = p
		}
	}
	return stumbled, filtered, nil
}

// publish publishes an event and waits a moment, so that what comes of it is printed before the next.
func publish(ctx context.Context, api *api, shop string, event []byte) (published, error) {
	var answer struct{ Events []struct{ ID string } }
	if err := api.call(ctx, http.MethodPost, "/v1/shops/"+shop+"/events", event, &answer); err != nil {
		return published{}, err
	}
	return published{shop, answer.Events[0].ID}, wait(ctx, 300*time.Millisecond)
}

// tell prints the story of an event, once the log has all of it.
func tell(ctx context.Context, out io.Writer, api *api, of published) error {
	var e struct {
		Story struct {
			Deliveries []struct{ Status string }
			Lines      []struct {
				At   time.Time
				Text string
			}
		}
	}
	for done := false; !done; {
		if err := api.call(ctx, http.MethodGet, "/v1/shops/"+of.shop+"/events/"+of.id, nil, &e); err != nil {
			return err
		}
		done = len(e.Story.Deliveries) > 0
		for _, d := range e.Story.Deliveries {
			done = done && d.Status == "delivered"
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(out, "\nThe story of event %s, as the log tells it:\n\n", of.id)
	for _, l := range e.Story.Lines {
		_, _ = fmt.Fprintf(out, "  %s  %s\n", l.At.Local().Format("15:04:05.000"), l.Text)
	}
	return nil
}

// next prints where to look next.
func (r *receiver) next(out io.Writer, place Place, eventID string) {
	key := ""
	if place.OperatorKey != "" {
		key = ` -H "Authorization: Bearer $SHOPBELL_OPERATOR_KEY"`
	}
	base := place.REST + "/v1/shops/tulip-garden"
	_, _ = fmt.Fprintf(out, `
Look around (in another terminal):

  curl -s%[1]s %[2]s/events/%[3]s                 # that story, with every attempt
  curl -s%[1]s '%[2]s/deliveries?response_code=5xx'  # what failed last
  curl -s%[1]s %[2]s/webhooks                     # the webhooks and their rules
  curl -s%[1]s %[4]s/v1/profiles                  # every profile: its events, envelope, signatures and rules
  curl -s%[1]s %[2]s/events:explain -d '{"type":"paid","data":{}}'   # who would get it, who not, and why
  curl -s%[1]s %[2]s/events -d '{"type":"paid","data":{"order_no":1043,"total":99.50}}'   # publish one yourself

The API is described at %[4]s/v1/openapi.json, metrics are at %[4]s/metrics. Ctrl-C stops.
`, key, base, eventID, place.REST)
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// api calls REST.
type api struct{ Place }

func (a *api) call(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, a.REST+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if a.OperatorKey != "" {
		req.Header.Set("Authorization", "Bearer "+a.OperatorKey)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode == http.StatusNotFound && method == http.MethodGet {
		return nil // not in the log yet
	}
	if resp.StatusCode >= 300 {
		return errors.New(method + " " + path + ": " + string(text))
	}
	return json.Unmarshal(text, into)
}
