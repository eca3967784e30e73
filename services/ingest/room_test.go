package ingest_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/key"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/rpc"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/run/runtest"
	"shopbell.dev/pkg/shop"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
	"shopbell.dev/services/ingest"
)

const closed = "name: closed\npolicy: {timeout: 5s, success_codes: [2xx]}\nevents:\n  - {name: order_created, sample: '1'}\n  - {name: paid, sample: '1'}\n  - {name: test.ping, sample: '1', test_only: true}\n"

// bundle is ingest at work on a bus of its own, with its doors open.
type bundle struct {
	bus     *bus.Bus
	server  *bus.Embedded
	http    *httptest.Server
	grpc    ingestv1.IngestServiceClient
	metrics *prometheus.Registry
	keys    *key.Directory
}

func setup(t *testing.T, change func(*ingest.Config)) *bundle {
	t.Helper()
	cfg := ingest.Defaults()
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	b := &bundle{metrics: prometheus.NewRegistry()}
	b.bus, b.server = bustest.Server(t)
	profiles, err := profile.Load(fstest.MapFS{"closed.yaml": {Data: []byte(closed)}})
	if err != nil {
		t.Fatal(err)
	}
	shops, err := b.bus.Bucket(t.Context(), contract.Shops)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*shopbellv1.Shop{
		{Id: "closed", Profile: proto.String("closed")},
		{Id: "tulip.shop", Environment: proto.String("test")},
		{Id: "strict", Profile: proto.String("cloudcart"), CheckSchemas: proto.Bool(true)},
		{Id: "lax", Profile: proto.String("cloudcart")},
	} {
		value, err := proto.Marshal(&busv1.ShopState{Shop: s})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := shops.Put(t.Context(), contract.ShopKey(s.Id), value); err != nil {
			t.Fatal(err)
		}
	}
	provider := sdktrace.NewTracerProvider()
	log := slog.New(slog.DiscardHandler)
	b.keys = key.NewDirectory(log)
	keys := rpc.NewKeys("", b.keys)
	server, err := rpc.NewServer(keys, provider, log)
	if err != nil {
		t.Fatal(err)
	}
	env := &run.Env{
		Log: log, Bus: b.bus, Profiles: profiles, Tracing: provider, Tracer: provider.Tracer("ingest"), Metrics: b.metrics,
		Keys: b.keys, GRPC: server, HTTP: http.NewServeMux(), Shop: shop.Defaults{Profile: "standard", Environment: shop.Live},
	}
	room, err := ingest.New(cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	stop := runtest.Start(t, env, room)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var atWork sync.WaitGroup
	atWork.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	b.grpc, b.http = ingestv1.NewIngestServiceClient(conn), httptest.NewServer(rpc.RequireKey(keys, log, env.HTTP))
	t.Cleanup(func() { b.http.Close(); _ = conn.Close(); server.Stop(); stop(); atWork.Wait() })
	return b
}

type answer struct {
	code    int
	header  http.Header
	Events  []struct{ ID, Status string }
	Code    int
	Message string
	Details []struct {
		FieldViolations []struct{ Field string } `json:"field_violations"`
	}
}

func (a answer) statuses() (out []string) {
	for _, e := range a.Events {
		out = append(out, e.Status)
	}
	return out
}

func (a answer) fields() (out []string) {
	for _, d := range a.Details {
		for _, v := range d.FieldViolations {
			out = append(out, v.Field)
		}
	}
	return out
}

func (b *bundle) post(t *testing.T, shop, query, contentType, body string) answer {
	t.Helper()
	resp, err := http.Post(b.http.URL+"/v1/shops/"+shop+"/events"+query, contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, resp)
}

func readAnswer(t *testing.T, resp *http.Response) answer {
	t.Helper()
	defer resp.Body.Close()
	a := answer{code: resp.StatusCode, header: resp.Header}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("answer %q: %v", text, err)
	}
	return a
}

// stored is all events that the bus holds, in order.
func (b *bundle) stored(t *testing.T) (out []contract.Event) {
	t.Helper()
	stream, err := b.bus.Stream(t.Context(), contract.Events)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && info.State.Msgs > 0; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		e, err := contract.ParseEvent(m.Header, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func TestPublish_StoresTheBytesBeforeItAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	const data = "{ \"total\":549.50,\n\"a\":\"\\/<&>\",\"a\":12345678901234567890}"
	before := time.Now()
	a := b.post(t, "tulip.shop", "", "application/json", `{"type":"order.created","data":`+data+`}`)
	stored := b.stored(t)
	if a.code != http.StatusAccepted || a.header.Get("Content-Type") != "application/json" || len(a.Events) != 1 || a.Events[0].Status != "accepted" || len(stored) != 1 {
		t.Fatalf("answer %+v with %d stored, want 202 and 1", a, len(stored))
	}
	e := stored[0]
	if string(e.Data) != data || e.ID != a.Events[0].ID || !strings.HasPrefix(e.ID, "evt_") || e.ShopID != "tulip.shop" || e.Type != "order.created" || e.ContentType != "application/json" {
		t.Errorf("stored %+v %s", e, e.Data)
	}
	occurred, err := time.Parse(time.RFC3339, e.OccurredAt)
	if err != nil || e.Environment != "test" || e.AcceptedAt.Before(before.Add(-time.Second)) || occurred.Sub(before).Abs() > time.Minute {
		t.Errorf("filled in: environment %q, accepted %s, occurred %q (%v)", e.Environment, e.AcceptedAt, e.OccurredAt, err)
	}
	a = b.post(t, "demo", "?type=paid&id=p1&environment=test", "image/png", "\x89PNG\x00")
	if a.code != http.StatusAccepted {
		t.Fatalf("a bare body: %+v", a)
	}
	if e := b.stored(t)[1]; string(e.Data) != "\x89PNG\x00" || e.ContentType != "image/png" || e.ID != "p1" || e.Environment != "test" {
		t.Errorf("stored %+v %q", e, e.Data)
	}
}

func TestPublish_ARepeatIsADuplicateAndStoredOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	const body = `{"id":"order-1","type":"paid","data":1}`
	for i, want := range []string{"accepted", "duplicate", "duplicate"} {
		if a := b.post(t, "demo", "", "", body); a.code != http.StatusAccepted || a.Events[0].Status != want || a.Events[0].ID != "order-1" {
			t.Errorf("time %d: %+v, want %s", i+1, a, want)
		}
	}
	if a := b.post(t, "other", "", "", body); a.Events[0].Status != "accepted" {
		t.Errorf("the same id in another shop: %+v, want accepted", a)
	}
	if _, err := b.grpc.Publish(t.Context(), &ingestv1.PublishRequest{ShopId: "demo", Event: grpcEvent("order-1", "paid")}); err != nil {
		t.Error(err)
	}
	if got := len(b.stored(t)); got != 2 {
		t.Errorf("%d stored, want one for each shop", got)
	}
	// In one request, and together with what is stored already.
	a := b.post(t, "demo", "", "", `[{"id":"order-1","type":"paid","data":1},{"id":"order-2","type":"paid","data":2},{"id":"order-2","type":"paid","data":3},{"type":"paid","data":4},{"type":"paid","data":5}]`)
	if diff := cmp.Diff([]string{"duplicate", "accepted", "duplicate", "accepted", "accepted"}, a.statuses()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	stored := b.stored(t)
	if len(stored) != 5 || string(stored[2].Data) != "2" {
		t.Errorf("%d stored, the third with %s, want 5 and the first of the two: 2", len(stored), stored[2].Data)
	}
	a = b.post(t, "demo", "", "", `[{"id":"order-1","type":"paid","data":1},{"id":"order-2","type":"paid","data":2}]`)
	if diff := cmp.Diff([]string{"duplicate", "duplicate"}, a.statuses()); diff != "" || a.code != http.StatusAccepted {
		t.Errorf("nothing new: %d (-want +got):\n%s", a.code, diff)
	}
}

func TestPublish_TakesABatchWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *ingest.Config) { c.MaxEventBytes = 1 << 10 })
	good := `{"type":"paid","data":1}`
	for _, row := range []struct {
		name, shop, body string
		code             int
		fields           []string
		text             string
	}{
		{"a type with a blank", "demo", "[" + good + `,{"type":"a b","data":1},` + good + "]", 400, []string{"events[1].type"}, "events[1].type: "},
		{"two bad ones", "demo", "[" + `{"type":"paid"},` + good + `,{"type":"paid","id":"","data":1}` + "]", 400, []string{"events[0].data", "events[2].id"}, "missing"},
		{"a type that the catalog does not know", "closed", "[" + good + `,{"type":"order.created","data":1}` + "]", 400, []string{"events[1].type"}, `did you mean "order_created"?`},
		{"a type for tests alone", "closed", "[" + good + `,{"type":"test.ping","data":1}` + "]", 400, []string{"events[1].type"}, "test sends alone"},
		{"a notice of our own", "demo", "[" + good + `,{"type":"webhook.disabled","data":1}` + "]", 400, []string{"events[1].type"}, "Shopbell alone"},
		{"one that is too large", "demo", "[" + good + `,{"type":"paid","data":"` + strings.Repeat("x", 1<<10) + `"}` + "]", 413, nil, "events[1].data has 1026 bytes"},
		{"broken JSON", "demo", "[" + good + ",\n{]", 400, nil, "line 2, column 2"},
		{"none", "demo", "[]", 400, []string{"events"}, "at least one"},
		{"a shop with a wildcard", "de*mo", good, 400, []string{"shop_id"}, "shop"},
		{"one alone", "closed", `{"type":"order.created","data":1}`, 400, []string{"type"}, `did you mean "order_created"?`},
	} {
		a := b.post(t, row.shop, "", "application/json", row.body)
		if a.code != row.code || !strings.Contains(a.Message, row.text) {
			t.Errorf("%s: %d %s, want %d with %q", row.name, a.code, a.Message, row.code, row.text)
		}
		if diff := cmp.Diff(row.fields, a.fields()); diff != "" {
			t.Errorf("%s: fields (-want +got):\n%s", row.name, diff)
		}
	}
	if got := b.stored(t); len(got) != 0 {
		t.Errorf("%d are stored of requests that were refused", len(got))
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "{\"type\":\"paid\",\"data\":%d}\n", i)
	}
	a := b.post(t, "demo", "", "application/x-ndjson", many.String())
	stored := b.stored(t)
	if a.code != http.StatusAccepted || len(a.Events) != 1000 || len(stored) != 1000 {
		t.Fatalf("%d with %d answers and %d stored, want 202 with 1000", a.code, len(a.Events), len(stored))
	}
	for i, e := range stored {
		if string(e.Data) != fmt.Sprint(i) || e.ID != a.Events[i].ID {
			t.Fatalf("number %d is %s with id %s, answered %s", i, e.Data, e.ID, a.Events[i].ID)
		}
	}
}

func TestPublish_ChecksDataAgainstTheSchemaWhereTheShopWantsIt(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	const good = `{"type":"order.created","data":{ "status":"paid", "total":1.50 }}`
	const bad = `{"type":"order.status_changed","data":{"status":"shipped","payment_status":"paid"}}`
	a := b.post(t, "strict", "", "application/json", "["+good+","+bad+"]")
	if diff := cmp.Diff([]string{"events[1].data.payment_status", "events[1].data.status"}, slices.Sorted(slices.Values(a.fields()))); diff != "" || a.code != http.StatusBadRequest {
		t.Errorf("%d %s\n%s", a.code, a.Message, diff)
	}
	if want := `events[1].data.status: "shipped" is not allowed; there are "pending", "voided", "timeouted", "cancelled", "failed", "refunded", "paid", "complete"`; !strings.Contains(a.Message, want) {
		t.Errorf("message %q, want %q in it", a.Message, want)
	}
	_, err := b.grpc.Publish(t.Context(), &ingestv1.PublishRequest{ShopId: "strict", Event: &shopbellv1.Event{
		Type: "order.fulfilment_status_changed", Content: &shopbellv1.Event_Json{Json: `{}`},
	}})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "event.data.fulfilment_status: it is missing") {
		t.Errorf("over gRPC: %v", err)
	}
	a = b.post(t, "strict", "?type=order.created", "text/xml", "<a/>")
	if diff := cmp.Diff([]string{"data"}, a.fields()); diff != "" || a.code != http.StatusBadRequest {
		t.Errorf("XML: %d %s\n%s", a.code, a.Message, diff)
	}
	if got := b.stored(t); len(got) != 0 {
		t.Fatalf("%d are stored of requests that were refused", len(got))
	}
	for shop, body := range map[string]string{"strict": good, "lax": bad} {
		if a := b.post(t, shop, "", "application/json", body); a.code != http.StatusAccepted {
			t.Errorf("%s: %d %s, want it taken", shop, a.code, a.Message)
		}
	}
	for _, e := range b.stored(t) {
		if e.ShopID == "strict" && string(e.Data) != `{ "status":"paid", "total":1.50 }` {
			t.Errorf("checked data is stored as %s, want its bytes as they came", e.Data)
		}
	}
}

func TestPublish_RefusesWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *ingest.Config) { c.MaxEventBytes, c.MaxRequestBytes = 1<<10, 4<<10 })
	body := func(n int) string { return `{"type":"paid","data":"` + strings.Repeat("x", n-2) + `"}` }
	for _, row := range []struct {
		name string
		n    int
		code int
		text string
	}{
		{"the largest event", 1 << 10, http.StatusAccepted, ""},
		{"a byte too much", 1<<10 + 1, http.StatusRequestEntityTooLarge, "ingest.max_event_bytes"},
		{"a request that is too large", 8 << 10, http.StatusRequestEntityTooLarge, "ingest.max_request_bytes"},
	} {
		for _, length := range []bool{true, false} {
			var reader io.Reader = strings.NewReader(body(row.n))
			if !length {
				reader = io.MultiReader(reader) // of unknown length: sent in chunks
			}
			resp, err := http.Post(b.http.URL+"/v1/shops/demo/events", "application/json", reader)
			if err != nil {
				t.Fatal(err)
			}
			if a := readAnswer(t, resp); a.code != row.code || !strings.Contains(a.Message, row.text) {
				t.Errorf("%s (length given: %v): %d %s, want %d with %q", row.name, length, a.code, a.Message, row.code, row.text)
			}
		}
	}
}

func TestPublish_RefusesABodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	conn, err := net.Dial("tcp", b.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST /v1/shops/demo/events?type=paid HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := readAnswer(t, resp); a.code != http.StatusBadRequest || !strings.Contains(a.Message, "did not arrive whole") {
		t.Errorf("%d %s, want 400", a.code, a.Message)
	}
	if got := b.stored(t); len(got) != 0 {
		t.Errorf("half a body is stored: %q", got[0].Data)
	}
}

func TestPublish_SaysThatTheBusIsAwayWithinItsTime(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *ingest.Config) { c.Timeout = 200 * time.Millisecond })
	b.server.Stop()
	begun := time.Now()
	for name, body := range map[string]string{"one": `{"type":"paid","data":1}`, "a batch": `[{"type":"paid","data":1},{"type":"paid","data":2}]`} {
		a := b.post(t, "demo", "", "", body)
		if a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.Message, "same ids") || len(a.Events) != 0 {
			t.Errorf("%s: %d, Retry-After %q, %s, want 503 that says to come again", name, a.code, a.header.Get("Retry-After"), a.Message)
		}
	}
	_, err := b.grpc.Publish(t.Context(), &ingestv1.PublishRequest{ShopId: "demo", Event: grpcEvent("", "paid")})
	st := status.Convert(err)
	if st.Code() != codes.Unavailable || len(st.Details()) != 1 {
		t.Fatalf("gRPC: %v, want Unavailable with a time to come again", err)
	}
	if info, ok := st.Details()[0].(*errdetails.RetryInfo); !ok || info.GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("gRPC details %v, want a RetryInfo", st.Details())
	}
	if took, most := time.Since(begun), 3*ingest.Defaults().Timeout; took >= most {
		t.Errorf("three answers took %s, want some 200ms each, and less than the %s that the default would allow", took, most)
	}
}

func grpcEvent(id, eventType string) *shopbellv1.Event {
	return &shopbellv1.Event{Id: id, Type: eventType, Content: &shopbellv1.Event_Json{Json: "549.50"}}
}

func TestPublishBatch_OverGRPC(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	out, err := b.grpc.PublishBatch(t.Context(), &ingestv1.PublishBatchRequest{ShopId: "demo", Events: []*shopbellv1.Event{grpcEvent("a", "paid"), grpcEvent("b", "paid"), grpcEvent("a", "paid")}})
	if err != nil || len(out.Events) != 3 || out.Events[0].Status != "accepted" || out.Events[2].Status != "duplicate" {
		t.Errorf("%v, %v", out, err)
	}
	_, err = b.grpc.PublishBatch(t.Context(), &ingestv1.PublishBatchRequest{ShopId: "closed", Events: []*shopbellv1.Event{grpcEvent("c", "paid"), grpcEvent("d", "payed"), {Type: "paid"}}})
	if st := status.Convert(err); st.Code() != codes.InvalidArgument || !strings.Contains(st.Message(), "events[2].data: it is missing") {
		t.Errorf("a batch with bad events: %v", err)
	}
	_, err = b.grpc.PublishBatch(t.Context(), &ingestv1.PublishBatchRequest{ShopId: "closed", Events: []*shopbellv1.Event{grpcEvent("c", "paid"), grpcEvent("d", "payed")}})
	if st := status.Convert(err); st.Code() != codes.InvalidArgument || !strings.Contains(st.Message(), `events[1].type: `) || !strings.Contains(st.Message(), `"paid"?`) {
		t.Errorf("a batch with an unknown type: %v", err)
	}
	for name, req := range map[string]*ingestv1.PublishBatchRequest{
		"no events": {ShopId: "demo"}, "a shop with a wildcard": {ShopId: "*", Events: []*shopbellv1.Event{grpcEvent("", "paid")}},
	} {
		if _, err := b.grpc.PublishBatch(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
	_, err = b.grpc.Publish(t.Context(), &ingestv1.PublishRequest{ShopId: "demo", Event: &shopbellv1.Event{Type: "paid", Content: &shopbellv1.Event_Data{Data: bytes.Repeat([]byte("1"), 2<<20)}}})
	if st := status.Convert(err); st.Code() != codes.OutOfRange || !strings.Contains(st.Message(), "event.data has ") {
		t.Errorf("an event that is too large: %v", err)
	}
	if got := b.stored(t); len(got) != 2 || string(got[0].Data) != "549.50" {
		t.Errorf("%d stored, want 2", len(got))
	}
}

func TestPublishStream_AnswersEachInItsTurn(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	stream, err := b.grpc.PublishStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = 700 // more than one window
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			req := &ingestv1.PublishStreamRequest{ShopId: "demo", Event: grpcEvent(fmt.Sprintf("e%d", i), "paid")}
			switch i % 100 {
			case 3:
				req.Event.Type = "a b"
			case 4:
				req.Event.Id = "e0"
			case 5:
				req.ShopId = ""
			case 6:
				req.Event = nil
			}
			if err := stream.Send(req); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	for i := range n {
		got, err := stream.Recv()
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		id, text, code := fmt.Sprintf("e%d", i), "", codes.OK
		switch i % 100 {
		case 3:
			id, text, code = "", "event.type: ", codes.InvalidArgument
		case 4:
			id = "e0"
		case 5:
			id, text, code = "", "shop_id: ", codes.InvalidArgument
		case 6:
			id, text, code = "", "event.", codes.InvalidArgument
		}
		if got.GetEvent().GetId() != id || !strings.Contains(got.GetError(), text) || codes.Code(got.GetErrorCode()) != code || text == "" && got.GetError() != "" {
			t.Errorf("answer %d: %v, want id %q, error %q (%v)", i, got, id, text, code)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v, want the end", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if got, want := len(b.stored(t)), n-4*n/100; got != want {
		t.Errorf("%d stored, want %d", got, want)
	}
}

func TestPublish_IsCounted(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.post(t, "demo", "", "", `[{"id":"a","type":"paid","data":1},{"id":"b","type":"paid","data":1}]`)
	b.post(t, "demo", "", "", `{"id":"a","type":"paid","data":1}`)
	b.post(t, "demo", "", "", `{"type":"a b","data":1}`)
	families, err := b.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "shopbell_events_total" {
				got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if diff := cmp.Diff(map[string]float64{"accepted": 2, "duplicate": 1, "refused": 1}, got); diff != "" {
		t.Errorf("shopbell_events_total (-want +got):\n%s", diff)
	}
}

func TestConfig_RefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*ingest.Config){
		"max_event_bytes": func(c *ingest.Config) { c.MaxEventBytes = 5 << 20 }, "max_request_bytes": func(c *ingest.Config) { c.MaxRequestBytes = 1 },
		"timeout": func(c *ingest.Config) { c.Timeout = 0 },
	} {
		c := ingest.Defaults()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
