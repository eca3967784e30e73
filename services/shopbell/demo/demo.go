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
	"net/http"
	"time"
)

// Place is where Shopbell can be reached.
type Place struct {
	REST, GRPC, Data, OperatorKey string
}

// hook is a webhook of the demonstration. Its label is how it is found again when the demonstration is started anew.
type hook struct {
	Shop, Label string
	Path        string
	Events      []string
	Extra       map[string]any
}

var hooks = []hook{
	{Shop: "tulip-garden", Label: "Warehouse", Path: "/warehouse", Events: []string{"order_created", "paid"}},
	{Shop: "tulip-garden", Label: "Stock mirror (test orders only)", Path: "/mirror", Events: []string{"order_created"}, Extra: map[string]any{"environment": "test"}},
	{Shop: "tulip-garden", Label: "Bookkeeping (stumbles at first)", Path: "/stumbles", Events: []string{"order_created"}, Extra: map[string]any{
		"policy": map[string]any{"retry_schedule": []string{"2s", "5s", "60s"}, "jitter": false},
	}},
	{Shop: "vase-store", Label: "CRM", Path: "/crm", Events: []string{"order.created", "customer.updated"}, Extra: map[string]any{"headers": map[string]string{"X-Env": "demo"}}},
	{Shop: "virag-bolt", Label: "ERP", Path: "/erp", Events: []string{"*"}},
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
	_, _ = fmt.Fprintf(out, "Three shops publish events; a receiver at %s is sent to.\n\n", r.base)
	for _, h := range hooks {
		if err := r.expect(ctx, api, h); err != nil {
			return err
		}
	}
	var stumbled string
	for line := range bytes.Lines(events) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read the demonstration's events: %w", err)
		}
		var answer struct{ Events []struct{ ID string } }
		if err := api.call(ctx, http.MethodPost, "/v1/shops/"+e.Shop+"/events", e.Event, &answer); err != nil {
			return err
		}
		if stumbled == "" {
			stumbled = answer.Events[0].ID // the first is an order, which one receiver stumbles over
		}
		if err := wait(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	select {
	case <-r.recovered:
	case <-ctx.Done():
		return nil
	case <-time.After(30 * time.Second):
	}
	if err := tell(ctx, out, api, stumbled); err != nil {
		return err
	}
	r.next(out, place, stumbled)
	<-ctx.Done()
	return nil
}

// tell prints the story of an event, once the log has all of it.
func tell(ctx context.Context, out io.Writer, api *api, eventID string) error {
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
		if err := api.call(ctx, http.MethodGet, "/v1/shops/tulip-garden/events/"+eventID, nil, &e); err != nil {
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
	_, _ = fmt.Fprintf(out, "\nThe story of event %s, as the log tells it:\n\n", eventID)
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
