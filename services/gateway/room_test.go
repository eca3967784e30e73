package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/run"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	senderv1 "shopbell.dev/proto/shopbell/sender/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// desk is the rooms behind the gateway: it keeps what it is asked, and answers what a test wants.
type desk struct {
	subscriptionv1.UnimplementedSubscriptionServiceServer
	senderv1.UnimplementedSenderServiceServer
	logv1.UnimplementedLogServiceServer

	mu    sync.Mutex // guards what follows
	asked proto.Message
	key   string
	err   error
}

func (d *desk) note(ctx context.Context, m proto.Message) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = m
	d.key = strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ",")
	return d.err
}

func (d *desk) seen() (proto.Message, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked, d.key
}

func (d *desk) answer(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *desk) UpdateWebhook(ctx context.Context, m *subscriptionv1.UpdateWebhookRequest) (*shopbellv1.Webhook, error) {
	return &shopbellv1.Webhook{Id: m.WebhookId, Url: "https://example.com/?a=1&b=<2>"}, d.note(ctx, m)
}

func (d *desk) ListWebhooks(ctx context.Context, m *subscriptionv1.ListWebhooksRequest) (*subscriptionv1.ListWebhooksResponse, error) {
	return &subscriptionv1.ListWebhooksResponse{}, d.note(ctx, m)
}

func (d *desk) ExplainEvent(ctx context.Context, m *subscriptionv1.ExplainEventRequest) (*subscriptionv1.ExplainEventResponse, error) {
	return &subscriptionv1.ExplainEventResponse{}, d.note(ctx, m)
}

func (d *desk) GetEvent(ctx context.Context, m *logv1.GetEventRequest) (*shopbellv1.Event, error) {
	return &shopbellv1.Event{Id: m.EventId, ContentType: "application/json", Content: &shopbellv1.Event_Data{Data: []byte(awkward)}}, d.note(ctx, m)
}

const key = "the-operators-own-key"

// bundle is a gateway in a process of its own, with a desk behind it and an ingest beside it.
type bundle struct {
	url    string
	desk   *desk
	ingest *httptest.Server
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{desk: &desk{}}
	b.ingest = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("X-Path", r.URL.RequestURI())
		w.Header().Set("X-Type", r.Header.Get("Content-Type"))
		w.Header().Set("X-Key", r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(body)
	}))
	t.Cleanup(b.ingest.Close)
	_, server := bustest.Server(t)
	common := run.CommonDefaults()
	common.HTTP, common.GRPC, common.OperatorKey = "127.0.0.1:0", "127.0.0.1:0", key
	ready := make(chan run.Addresses, 1)
	p := &run.Process{
		Name: "test", Common: common, Bus: bus.Defaults(), BusOptions: []nats.Option{server.Option()}, Log: slog.New(slog.DiscardHandler),
		Ready: func(at run.Addresses) { ready <- at },
		Rooms: []run.Room{
			{Name: "desk", New: func(env *run.Env) (run.Service, error) {
				subscriptionv1.RegisterSubscriptionServiceServer(env.GRPC, b.desk)
				senderv1.RegisterSenderServiceServer(env.GRPC, b.desk)
				logv1.RegisterLogServiceServer(env.GRPC, b.desk)
				return idle{}, nil
			}},
			{Name: "gateway", New: func(env *run.Env) (run.Service, error) { return New(Config{Ingest: b.ingest.URL}, env) }},
		},
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case at := <-ready:
		b.url = "http://" + at.HTTP
	case err := <-done:
		done <- nil
		t.Fatalf("the process ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the process is never ready")
	}
	return b
}

type idle struct{}

func (idle) Run(ctx context.Context, ready func()) error { ready(); <-ctx.Done(); return nil }

type reply struct {
	code   int
	header http.Header
	text   string
	body   struct {
		Code    int
		Message string
		Details []struct {
			FieldViolations []struct{ Field, Description string } `json:"field_violations"`
		}
	}
}

func (b *bundle) ask(t *testing.T, method, path, body string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{code: resp.StatusCode, header: resp.Header, text: string(text)}
	_ = json.Unmarshal(text, &r.body) // not every answer is an error
	return r
}

func TestGateway_AbsentStaysAndNullClears(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for body, want := range map[string][]string{
		`{"label": "x"}`:  {"label"},
		`{"label": null}`: {"label"},
		`{"url": "https://a", "events": ["paid"]}`:          {"events", "url"},
		`{"policy": {"timeout": "5s"}}`:                     {"policy.timeout"},
		`{"policy": {"timeout": null, "jitter": false}}`:    {"policy.jitter", "policy.timeout"},
		`{"policy": null}`:                                  {"policy"},
		`{"delay": {"value": 2, "unit": "day"}}`:            {"delay.unit", "delay.value"},
		`{"headers": {"X-A": "1"}}`:                         {"headers"},
		`{"etag": "2a", "events": []}`:                      {"etag", "events"},
		`{"policy": {"retry_schedule": ["60s", "120.5s"]}}`: {"policy.retry_schedule"},
	} {
		r := b.ask(t, http.MethodPatch, "/v1/shops/demo/webhooks/wh_1", body)
		if r.code != http.StatusOK {
			t.Errorf("%s: %d %s", body, r.code, r.text)
			continue
		}
		asked, _ := b.desk.seen()
		req := asked.(*subscriptionv1.UpdateWebhookRequest)
		got := slices.Clone(req.UpdateMask.GetPaths())
		slices.Sort(got)
		if fmt.Sprint(got) != fmt.Sprint(want) || req.ShopId != "demo" || req.WebhookId != "wh_1" {
			t.Errorf("%s: mask %q, want %q", body, got, want)
		}
	}
	r := b.ask(t, http.MethodPatch, "/v1/shops/demo/webhooks/wh_1?update_mask=label", `{"label": "x", "url": "https://a"}`)
	asked, got := b.desk.seen()
	if paths := asked.(*subscriptionv1.UpdateWebhookRequest).UpdateMask.GetPaths(); r.code != http.StatusOK || fmt.Sprint(paths) != "[label]" {
		t.Errorf("with a mask of its own: %d, %q", r.code, paths)
	}
	if got != "Bearer "+key {
		t.Errorf("the rooms see the key %q", got)
	}
	if !strings.Contains(r.text, `"url": "https://example.com/?a=1&b=<2>"`) || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("answer %v %s", r.header, r.text)
	}
	for name := range r.header {
		if strings.HasPrefix(name, "Grpc-") {
			t.Errorf("the answer has the header %s", name)
		}
	}
}

func TestGateway_PrintsDataByteForByte(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if r := b.ask(t, http.MethodGet, "/v1/shops/demo/events/order:1042@x", ""); r.code != http.StatusOK || !strings.Contains(r.text, `"data": `+awkward) || !strings.Contains(r.text, `"id": "order:1042@x"`) {
		t.Errorf("%d %s", r.code, r.text)
	}
}

func TestGateway_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const webhook = "/v1/shops/demo/webhooks/wh_1"
	for _, row := range []struct {
		name, method, path, body string
		err                      error // of the room behind
		http, code               int
		field, text              string
	}{
		{"an unknown field", "PATCH", webhook, `{"lable": "x"}`, nil, 400, 3, "lable", `did you mean \"label\"?`},
		{"broken JSON", "PATCH", webhook, "{\n\"url\": }", nil, 400, 3, "", "line 2, column 8"},
		{"an unknown parameter", "GET", "/v1/shops/demo/webhooks?pageSize=5", "", nil, 400, 3, "pageSize", `did you mean \"page_size\"?`},
		{"a parameter that stands in the path", "GET", "/v1/shops/demo/webhooks?shop_id=other", "", nil, 400, 3, "shop_id", "not known"},
		{"a shop that is none", "GET", "/v1/shops/de*mo/webhooks", "", nil, 400, 3, "shop_id", "it must look like"},
		{"a room's own fault", "PATCH", webhook, `{"url": "x"}`, fault.Field("url", "it is relative"), 400, 3, "url", "it is relative"},
		{"no such thing", "PATCH", webhook, `{"url": "x"}`, fault.New(fault.NotFound, "there is no webhook"), 404, 5, "", "there is no webhook"},
		{"an old etag", "PATCH", webhook, `{"url": "x"}`, fault.New(fault.Conflict, "read it again"), 409, 10, "", "read it again"},
		{"a room's own trouble", "PATCH", webhook, `{"url": "x"}`, errors.New("disk 7 is full"), 500, 13, "", "err_"},
		{"the bus is away", "PATCH", webhook, `{"url": "x"}`, fault.Away(3*time.Second, "try again"), 503, 14, "", "try again"},
		{"no such path", "GET", "/v1/nothing", "", nil, 404, 5, "", "/v1/openapi.json"},
		{"no such page", "GET", "/nothing", "", nil, 404, 5, "", "/v1/openapi.json"},
		{"another method", "PUT", webhook, "{}", nil, 0, 12, "", "PUT is not done"},
		{"another method for events", "DELETE", "/v1/shops/demo/events", "", nil, 0, 12, "", "DELETE is not done"},
		{"explain of two", "POST", "/v1/shops/demo/events:explain", `[{"type":"a","data":1},{"type":"a","data":1}]`, nil, 400, 3, "events", "one event is explained at a time"},
		{"explain of a bad one", "POST", "/v1/shops/demo/events:explain", `{"type":"a b","data":1}`, nil, 400, 3, "type", "character"},
	} {
		b.desk.answer(row.err)
		r := b.ask(t, row.method, row.path, row.body)
		field := ""
		if d := r.body.Details; len(d) > 0 && len(d[0].FieldViolations) > 0 {
			field = d[0].FieldViolations[0].Field
		}
		if row.http != 0 && r.code != row.http || r.code < 400 || r.body.Code != row.code || field != row.field || !strings.Contains(r.text, row.text) || strings.Contains(r.text, "disk 7") {
			t.Errorf("%s: %d %s, want %d, code %d, field %q, %q", row.name, r.code, r.text, row.http, row.code, row.field, row.text)
		}
		if got := r.header.Get("Retry-After"); (got != "") != (row.http == 503) {
			t.Errorf("%s: Retry-After %q", row.name, got)
		}
	}
	resp, err := http.Get(b.url + "/v1/shops/demo/webhooks")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a key: %d, want 401", resp.StatusCode)
	}
}

func TestGateway_HandsPublishingToIngestByteForByte(t *testing.T) {
	t.Parallel()
	b := setup(t)
	body := `{"type":"paid","data":` + awkward + `}` + "\x00\xff"
	r := b.ask(t, http.MethodPost, "/v1/shops/demo/events?type=paid&id=a%2Bb", body)
	if r.code != http.StatusAccepted || r.text != body || r.header.Get("X-Path") != "/v1/shops/demo/events?type=paid&id=a%2Bb" || r.header.Get("X-Type") != "application/json" || r.header.Get("X-Key") != "Bearer "+key {
		t.Errorf("%d %v %q", r.code, r.header, r.text)
	}
	b.ingest.Close()
	r = b.ask(t, http.MethodPost, "/v1/shops/demo/events", body)
	if r.code != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || !strings.Contains(r.text, "same ids") {
		t.Errorf("without ingest: %d %v %s, want 503 that says to come again", r.code, r.header, r.text)
	}
	if strings.Contains(r.text, "127.0.0.1") {
		t.Errorf("our addresses are in %s", r.text)
	}
}

func TestGateway_ExplainsWithTheBytes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if r := b.ask(t, http.MethodPost, "/v1/shops/demo/events:explain", `{"type":"paid","key":"k","data":`+awkward+`}`); r.code != http.StatusOK {
		t.Fatalf("%d %s", r.code, r.text)
	}
	asked, got := b.desk.seen()
	req := asked.(*subscriptionv1.ExplainEventRequest)
	if string(req.Event.GetData()) != awkward || req.ShopId != "demo" || req.Event.Type != "paid" || req.Event.Key != "k" || got != "Bearer "+key {
		t.Errorf("asked %v with %q", req, got)
	}
}

func TestGateway_DescribesItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.ask(t, http.MethodGet, "/v1/openapi.json", "")
	if r.code != http.StatusOK || !json.Valid([]byte(r.text)) || !strings.Contains(r.text, "/v1/shops/{shop_id}/webhooks") {
		t.Errorf("%d %.200s", r.code, r.text)
	}
}

func TestConfig_RefusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for ingest, good := range map[string]bool{"": true, "http://ingest:8080": true, "https://ingest": true, "ingest:8080": false, "http://": false, "ftp://ingest": false} {
		if err := (Config{Ingest: ingest}).Validate(); (err == nil) != good {
			t.Errorf("%q: %v", ingest, err)
		}
	}
}
