package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// reply is an answer of Shopbell's.
type reply struct {
	code   int
	header http.Header
	body   []byte
}

// client is the publisher's and the owner's. Nothing may take longer than its timeout.
var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}

// try makes a request. Headers are pairs of name and value.
func (h *house) try(ctx context.Context, method, path string, body []byte, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.url+path, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if h.key != "" {
		req.Header.Set("Authorization", "Bearer "+h.key)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, text}, err
}

// call makes a request that is answered.
func (h *house) call(t testing.TB, method, path, body string, headers ...string) reply {
	t.Helper()
	r, err := h.try(t.Context(), method, path, []byte(body), headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// get makes a request that succeeds, and reads its answer.
func get[T any](t testing.TB, h *house, method, path, body string, headers ...string) (out T) {
	t.Helper()
	r := h.call(t, method, path, body, headers...)
	if r.code/100 != 2 {
		t.Fatalf("%s %s: got %d %s, want a success", method, path, r.code, r.body)
	}
	r.read(t, &out)
	return out
}

func (r reply) read(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(r.body, into); err != nil {
		t.Fatalf("read %s: %v", r.body, err)
	}
}

// The API's nouns, as far as the tests look at them.
type (
	webhook struct {
		ID             string  `json:"id"`
		Status         string  `json:"status"`
		DisabledReason *string `json:"disabled_reason"`
		Label          string  `json:"label"`
		Etag           string  `json:"etag"`
	}
	event struct {
		ID          string          `json:"id"`
		Type        string          `json:"type"`
		ContentType string          `json:"content_type"`
		TraceID     string          `json:"trace_id"`
		Data        json.RawMessage `json:"data"`
		Story       story           `json:"story"`
	}
	story struct {
		Decided    bool         `json:"decided"`
		Considered []considered `json:"considered"`
		Deliveries []delivery   `json:"deliveries"`
		Lines      []line       `json:"lines"`
	}
	considered struct {
		WebhookID  string `json:"webhook_id"`
		Label      string `json:"label"`
		Matched    bool   `json:"matched"`
		Reason     string `json:"reason"`
		DeliveryID string `json:"delivery_id"`
	}
	line struct {
		At        time.Time `json:"at"`
		Text      string    `json:"text"`
		WebhookID string    `json:"webhook_id"`
		Attempt   int       `json:"attempt"`
	}
	delivery struct {
		ID           string    `json:"id"`
		EventID      string    `json:"event_id"`
		WebhookID    string    `json:"webhook_id"`
		Status       string    `json:"status"`
		Reason       string    `json:"reason"`
		AttemptsMade int       `json:"attempts_made"`
		ResponseCode int       `json:"response_code"`
		Body         string    `json:"body"`
		Test         bool      `json:"test"`
		Attempts     []attempt `json:"attempts"`
	}
	attempt struct {
		Number       int       `json:"number"`
		StartedAt    time.Time `json:"started_at"`
		ResponseCode int       `json:"response_code"`
		ErrorClass   string    `json:"error_class"`
		Error        string    `json:"error"`
		Verdict      string    `json:"verdict"`
		TraceID      string    `json:"trace_id"`
		ByHand       bool      `json:"by_hand"`
	}
	apiKey struct {
		ID       string `json:"id"`
		Label    string `json:"label"`
		Purpose  string `json:"purpose"`
		LastFour string `json:"last_four"`
		Key      string `json:"key"`
	}
	accepted struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	refusal struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Details []struct {
			Type       string `json:"@type"`
			Violations []struct {
				Field       string `json:"field"`
				Description string `json:"description"`
			} `json:"field_violations"`
		} `json:"details"`
	}
)

// fields are the names of the fields that a refusal speaks of.
func (r refusal) fields() (names []string) {
	for _, d := range r.Details {
		for _, v := range d.Violations {
			names = append(names, v.Field)
		}
	}
	return names
}

// newWebhook registers a webhook; more is JSON fields beside url and events, such as `"label": "Warehouse"`.
func (h *house) newWebhook(t testing.TB, shop, url string, more ...string) webhook {
	t.Helper()
	fields := append([]string{fmt.Sprintf(`"url": %q`, url)}, more...)
	if !strings.Contains(strings.Join(more, ""), `"events"`) {
		fields = append(fields, `"events": ["*"]`)
	}
	return get[webhook](t, h, "POST", "/v1/shops/"+shop+"/webhooks", "{"+strings.Join(fields, ",")+"}")
}

// awaitMatchedAs waits until a webhook has this status where events are matched to it, which is what the list shows. What is stored, which
// is what reading the webhook itself shows, may not be known there yet when it was its receiver who changed it.
func (h *house) awaitMatchedAs(t testing.TB, shop, id, status string) {
	t.Helper()
	eventually(t, "events are matched to "+id+" as "+status, func() error {
		list := get[struct{ Webhooks []webhook }](t, h, "GET", "/v1/shops/"+shop+"/webhooks?page_size=500", "").Webhooks
		i := slices.IndexFunc(list, func(w webhook) bool { return w.ID == id })
		if i < 0 || list[i].Status != status {
			return fmt.Errorf("the list has %+v", list)
		}
		return nil
	})
}

// policy is a webhook's policy without jitter and with these waits. Its timeout is long: a receiver that stands
// still for a while, as anything may on a busy machine, answers all the same.
func policy(waits ...string) string {
	return `"policy": {"jitter": false, "timeout": "20s", "retry_schedule": ["` + strings.Join(waits, `", "`) + `"]}`
}

// publish publishes events, which are accepted.
func (h *house) publish(t testing.TB, shop, body string, headers ...string) []accepted {
	t.Helper()
	return h.call(t, "POST", "/v1/shops/"+shop+"/events", body, headers...).accepted(t)
}

// accepted is what is said of events that were to be accepted, and were.
func (r reply) accepted(t testing.TB) []accepted {
	t.Helper()
	if r.code != http.StatusAccepted {
		t.Fatalf("publish: got %d %s, want 202", r.code, r.body)
	}
	var out struct{ Events []accepted }
	r.read(t, &out)
	return out.Events
}

// awaitEvent reads an event once enough of its story is in the log: until is nil is what enough answers.
func (h *house) awaitEvent(t testing.TB, shop, id string, enough func(event) error) event {
	t.Helper()
	var e event
	eventually(t, "the story of "+id+" is in the log", func() error {
		r, err := h.try(t.Context(), "GET", "/v1/shops/"+shop+"/events/"+id, nil)
		if err != nil {
			return err
		}
		if r.code != http.StatusOK {
			return fmt.Errorf("it answers %d %s", r.code, r.body)
		}
		e = event{}
		r.read(t, &e)
		// The log follows several streams, and is killed by some tests: the parts of a story may come in any order.
		if len(e.Data) == 0 {
			return fmt.Errorf("the event itself is missing; the story so far:\n%s", e.Story)
		}
		if err := enough(e); err != nil {
			return fmt.Errorf("%w; the story so far:\n%s", err, e.Story)
		}
		return nil
	})
	return e
}

// allAre is for awaitEvent: every delivery has this status, and there are so many.
func allAre(status string, deliveries int) func(event) error {
	return func(e event) error {
		if !e.Story.Decided {
			return errors.New("not decided")
		}
		if got := len(e.Story.Deliveries); got != deliveries {
			return fmt.Errorf("got %d deliveries, want %d", got, deliveries)
		}
		for _, d := range e.Story.Deliveries {
			if d.Status != status {
				return fmt.Errorf("got status %s of %s, want %s", d.Status, d.ID, status)
			}
		}
		return nil
	}
}

// says fails the test unless the story's sentences hold these, in this order.
func (s story) says(t testing.TB, texts ...string) {
	t.Helper()
	rest := s.String()
	for _, want := range texts {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Errorf("the story does not say %q in its place:\n%s", want, s)
			return
		}
		rest = after
	}
}

func (s story) String() string {
	var b strings.Builder
	for _, l := range s.Lines {
		fmt.Fprintf(&b, "%s %s\n", l.At.Format("15:04:05.000"), l.Text)
	}
	return b.String()
}

// dial connects to the gRPC server of a room, and gives a context with the key.
func (h *house) dial(t testing.TB, room string) (context.Context, *grpc.ClientConn) {
	t.Helper()
	conn, err := grpc.NewClient(h.grpc[room], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	if h.key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+h.key)
	}
	return ctx, conn
}
