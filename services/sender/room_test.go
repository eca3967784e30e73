package sender

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/run/runtest"
	"shopbell.dev/pkg/shop"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	senderv1 "shopbell.dev/proto/shopbell/sender/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// bundle is a sender at work on a bus of its own.
type bundle struct {
	bus    *bus.Bus
	js     jetstream.JetStream // what a test does to the bus that no room does
	env    *run.Env
	log    *lines
	spans  *tracetest.SpanRecorder
	sender *Sender
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{log: &lines{}, spans: tracetest.NewSpanRecorder()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the sender logged:\n%s", b.log)
		}
	})
	var server *bus.Embedded
	b.bus, server = bustest.Server(t)
	conn, err := nats.Connect("", server.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if b.js, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(b.spans))
	b.env = &run.Env{
		Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Bus: b.bus, Profiles: profiles(t),
		Tracing: provider, Tracer: provider.Tracer("sender"), Guard: address.NewGuard(address.Private...),
		Shop: shop.Defaults{Profile: "enveloped", Environment: shop.Live}, Version: "test",
	}
	return b
}

// start opens a sender and gives what stops it and waits for it. It is stopped with the test at the latest.
func (b *bundle) start(t *testing.T, cfg Config) (stop func()) {
	t.Helper()
	env := *b.env
	env.Metrics, env.GRPC = prometheus.NewRegistry(), grpc.NewServer()
	service, err := New(cfg, &env)
	if err != nil {
		t.Fatal(err)
	}
	b.sender = service.(*Sender)
	return runtest.Start(t, &env, service)
}

// few is the settings of a test: few workers.
func few() Config {
	c := Defaults()
	c.MaxInFlight = 8
	return c
}

// put stores a webhook and gives its revision, once the sender knows it.
func (b *bundle) put(t *testing.T, s *busv1.WebhookState) (revision uint64) {
	t.Helper()
	bucket, err := b.bus.Bucket(t.Context(), contract.Webhooks)
	if err != nil {
		t.Fatal(err)
	}
	value, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	revision, err = bucket.Put(t.Context(), contract.WebhookKey(s.Webhook.ShopId, s.Webhook.Id), value)
	if err != nil {
		t.Fatal(err)
	}
	if b.sender != nil {
		b.sender.webhooks.Await(t.Context(), s.Webhook.ShopId, s.Webhook.Id, revision)
	}
	return revision
}

func (b *bundle) publish(t *testing.T, msgs ...*nats.Msg) {
	t.Helper()
	if err := b.bus.Publish(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
}

// stored is all messages that a stream holds, in order.
func (b *bundle) stored(t *testing.T, name string) (out []*jetstream.RawStreamMsg) {
	t.Helper()
	stream, err := b.js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for seq := stream.CachedInfo().State.FirstSeq; ; seq++ {
		if seq > stream.CachedInfo().State.LastSeq { // what was put behind the others meanwhile is not missed
			info, err := stream.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if seq > info.State.LastSeq {
				return out
			}
		}
		if m, err := stream.GetMsg(t.Context(), seq); err == nil && m.Subject != contract.FillerSubject(name) {
			out = append(out, m)
		}
	}
}

// onTheWay is what is to be sent, and after it what waits for its time or has come to it.
func (b *bundle) onTheWay(t *testing.T) []*jetstream.RawStreamMsg {
	t.Helper()
	return append(b.stored(t, contract.Deliveries), b.stored(t, contract.Later)...)
}

// records are what the sender has told the log, once there are at least so many.
func (b *bundle) records(t *testing.T, atLeast int) (out []*busv1.Record) {
	t.Helper()
	eventually(t, fmt.Sprintf("there are %d records", atLeast), func() bool {
		out = nil
		for _, m := range b.stored(t, contract.Outcomes) {
			if strings.HasSuffix(m.Subject, ".switch") {
				continue
			}
			some, err := record.Read(m.Header, m.Data)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, some...)
		}
		return len(out) >= atLeast
	})
	return out
}

// empty waits until nothing is left to deliver.
func (b *bundle) empty(t *testing.T) {
	t.Helper()
	eventually(t, "nothing is left to deliver", func() bool { return len(b.onTheWay(t)) == 0 })
}

// eventually waits until it is so, looking again and again; the end is for what never is.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it is never so: %s", what)
		}
	}
}

// inbox is a receiver that keeps what it is sent and answers with the codes that it is given, the last for ever.
type inbox struct {
	*httptest.Server
	mu       sync.Mutex // guards what follows
	codes    []int
	requests []request
}

type request struct {
	header http.Header
	body   []byte
}

func receive(t *testing.T, codes ...int) *inbox {
	t.Helper()
	in := &inbox{codes: codes}
	in.Server = handler(t, false, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		in.requests = append(in.requests, request{r.Header, body})
		code := in.codes[min(len(in.requests), len(in.codes))-1]
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, "answer %d", len(in.requests))
	})
	return in
}

func (in *inbox) all() []request {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]request(nil), in.requests...)
}

func TestSender_PostsSignedBytesAndTellsTheWholeStory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	s := state(in.URL+"/hooks?x=1", "enveloped")
	s.Webhook.Headers = map[string]string{"X-Env": "prod"}
	b.put(t, s)
	const data = "{ \"total\":549.50,\n\"a\":\"\\/<&>\",\"a\":12345678901234567890}"
	m := delivery(data, "application/json").Message()
	ctx, parent := b.env.Tracer.Start(t.Context(), "publish")
	bus.Inject(ctx, m)
	parent.End()
	b.publish(t, m)
	records := b.records(t, 1)
	b.empty(t)

	got := in.all()
	if len(got) != 1 {
		t.Fatalf("%d requests, want 1", len(got))
	}
	want := `{"id":"evt_1","type":"order.created","webshop":0,"data":` + data + `}`
	if string(got[0].body) != want {
		t.Errorf("body %s, want %s", got[0].body, want)
	}
	h := got[0].header
	if err := signature.VerifyStandard(secret, h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"), h.Get("Webhook-Signature"), got[0].body, time.Now(), time.Minute); err != nil {
		t.Errorf("signature: %v in %v", err, h)
	}
	if h.Get("Webhook-Id") != "dlv_1" || h.Get("User-Agent") != "Shopbell/test" || h.Get("X-Env") != "prod" || h.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", h)
	}
	traceID := parent.SpanContext().TraceID().String()
	if !strings.Contains(h.Get("Traceparent"), traceID) {
		t.Errorf("traceparent %q, want the trace %s of the publisher", h.Get("Traceparent"), traceID)
	}

	r := records[0]
	made := r.GetAttempt()
	a := made.GetAttempt()
	if r.ShopId != "demo" || r.EventId != "evt_1" || r.EventType != "order.created" || made.GetDeliveryId() != "dlv_1" || made.GetWebhookId() != "wh_1" || made.GetStatus() != delivered || made.GetReason() != "" {
		t.Errorf("record %v", r)
	}
	if a.Number != 1 || a.ResponseCode != 200 || a.ErrorClass != "" || a.Error != "" || a.Verdict != delivered || string(a.ResponseBody) != "answer 1" || a.ResponseBodyCut ||
		a.TraceId != traceID || a.ByHand || a.NextAttemptAt != nil || a.DurationMs <= 0 || a.StartedAt.AsTime().IsZero() {
		t.Errorf("attempt %v", a)
	}
	if body := string(made.BodyPrefix) + data + string(made.BodySuffix); body != want || made.WholeBody {
		t.Errorf("the record's body is %s", body)
	}
	if len(in.all()) != 1 || len(b.stored(t, contract.Held)) != 0 {
		t.Error("something follows a success")
	}
	eventually(t, "the log tells of the attempt", func() bool { return strings.Contains(b.log.String(), "msg=attempt") })
	for _, want := range []string{"shop_id=demo", "event_id=evt_1", "webhook_id=wh_1", "delivery_id=dlv_1", "attempt=1", "verdict=delivered", "response_code=200"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("log without %s:\n%s", want, b.log)
		}
	}
}

func TestSender_TellsTheLogAPartOfALongAnswer(t *testing.T) {
	t.Parallel()
	const kept, page = 8 << 10, 60 << 10
	for _, row := range []struct {
		name    string
		answer  http.HandlerFunc
		body    int
		cut     bool
		headers string
	}{
		{"a body as long as what is kept", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", kept)) }, kept, false, ""},
		{"a page for each attempt", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", page)) }, kept, true, ""},
		{"headers without end", func(w http.ResponseWriter, _ *http.Request) {
			for i := range 40 {
				w.Header().Set(fmt.Sprintf("X-%02d", i), strings.Repeat("y", 1020))
			}
		}, 0, false, "33 more, beyond the 8192 bytes that are kept"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.start(t, few())
			b.put(t, state(handler(t, false, row.answer).URL, "enveloped"))
			b.publish(t, delivery("1", "application/json").Message())
			a := b.records(t, 1)[0].GetAttempt().GetAttempt()
			if a.Verdict != delivered || len(a.ResponseBody) != row.body || a.ResponseBodyCut != row.cut {
				t.Errorf("%s with %d bytes, cut %t; want %d, %t", a.Verdict, len(a.ResponseBody), a.ResponseBodyCut, row.body, row.cut)
			}
			size, last := 0, a.ResponseHeaders[len(a.ResponseHeaders)-1]
			for _, h := range a.ResponseHeaders {
				size += len(h.Name) + len(h.Value)
			}
			if size > kept+100 || row.headers != "" && last.Value != row.headers {
				t.Errorf("%d bytes of headers, the last is %s: %s", size, last.Name, last.Value)
			}
		})
	}
}

func TestSender_RetryIsAScheduledMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500)
	b.start(t, few())
	b.put(t, state(in.URL, "slow"))
	b.publish(t, delivery("1", "application/json").Message())
	a := b.records(t, 1)[0].GetAttempt().GetAttempt()
	eventually(t, "the attempt is acked, and the timer alone is left", func() bool {
		waiting, unanswered, err := b.bus.Pending(t.Context(), contract.Sender)
		return err == nil && waiting == 0 && unanswered == 0 && len(b.onTheWay(t)) == 1
	})
	timer := b.onTheWay(t)[0]
	if timer.Subject != contract.LaterSubject("wh_1", "dlv_1") {
		t.Errorf("what is left lies at %s, want %s", timer.Subject, contract.LaterSubject("wh_1", "dlv_1"))
	}
	d, err := contract.ParseDelivery(timer.Header, timer.Data)
	if err != nil || d.Attempt != 2 || string(d.Data) != "1" {
		t.Errorf("the timer is of %+v, %v, want attempt 2", d, err)
	}
	due := a.NextAttemptAt.AsTime()
	if got := timer.Header.Get("Nats-Schedule"); got != "@at "+due.Format(time.RFC3339Nano) {
		t.Errorf("the timer fires %s, the record says %s", got, due)
	}
	if wait := due.Sub(a.StartedAt.AsTime()); wait < time.Hour || wait > time.Hour+time.Minute {
		t.Errorf("the next attempt follows after %s, want the profile's hour", wait)
	}
	if a.Verdict != retrying || a.ErrorClass != "http_status" || a.Error != "answered 500 Internal Server Error" || string(a.ResponseBody) != "answer 1" {
		t.Errorf("attempt %v", a)
	}
}

func TestSender_GivesUpAfterLastDelay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500, 302, 503)
	b.start(t, few())
	b.put(t, state(in.URL, "enveloped"))
	b.publish(t, delivery("1", "application/json").Message())
	records := b.records(t, 3)
	b.empty(t)
	for i, want := range []string{retrying, retrying, failed} {
		made := records[i].GetAttempt()
		if made.GetStatus() != want || made.GetAttempt().Number != int32(i+1) {
			t.Errorf("attempt %d is %d and leaves the delivery %s, want %s", i+1, made.GetAttempt().Number, made.GetStatus(), want)
		}
		if i > 0 {
			before := records[i-1].GetAttempt().GetAttempt()
			if early := before.NextAttemptAt.AsTime().Sub(made.GetAttempt().StartedAt.AsTime()); early > time.Millisecond {
				t.Errorf("attempt %d is made %s too early", i+1, early)
			}
		}
	}
	if got := records[1].GetAttempt().GetAttempt().Error; !strings.Contains(got, "redirects are not followed") {
		t.Errorf("a redirect is told as %q", got)
	}
	if got := records[2].GetAttempt().GetReason(); !strings.Contains(got, "given up after 3 attempts") {
		t.Errorf("reason %q", got)
	}
	requests := in.all()
	if len(requests) != 3 {
		t.Fatalf("%d requests, want 3", len(requests))
	}
	for i, r := range requests {
		if string(r.body) != string(requests[0].body) || r.header.Get("Webhook-Id") != "dlv_1" {
			t.Errorf("attempt %d sends %s as %s", i+1, r.body, r.header.Get("Webhook-Id"))
		}
	}
	told := b.stored(t, contract.Events)
	if len(told) != 1 {
		t.Fatalf("%d events, want the notice alone", len(told))
	}
	if e, err := contract.ParseEvent(told[0].Header, told[0].Data); err != nil || e.Type != notice.DeliveryFailed || !strings.Contains(string(e.Data), "dlv_1") {
		t.Errorf("notice %+v %s, %v", e, e.Data, err)
	}
}

// A failed notice is not told of: two webhooks that are broken would tell each other for ever.
func TestSender_TellsNobodyOfANoticeThatFailed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500)
	b.start(t, few())
	b.put(t, state(in.URL, "bare"))
	d := delivery("{}", "application/json")
	d.Type = notice.DeliveryFailed
	b.publish(t, d.Message())
	if got := b.records(t, 1)[0].GetAttempt().GetStatus(); got != failed {
		t.Errorf("status %s, want failed", got)
	}
	b.empty(t)
	if told := b.stored(t, contract.Events); len(told) != 0 {
		t.Errorf("%d notices of a notice", len(told))
	}
}

// Whoever is killed between the two makes the attempt again; the other way round it would be lost.
func TestSender_PublishesTheOutcomeBeforeItAcks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	b.put(t, state(in.URL, "enveloped"))
	info, err := b.js.Stream(t.Context(), contract.Outcomes)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.js.DeleteStream(t.Context(), contract.Outcomes); err != nil {
		t.Fatal(err)
	}
	b.publish(t, delivery("1", "application/json").Message())
	eventually(t, "the receiver has the delivery", func() bool { return len(in.all()) == 1 })
	for range 20 { // looks, each a round trip to the server: an ack would have come by now
		if _, unanswered, err := b.bus.Pending(t.Context(), contract.Sender); err != nil || unanswered != 1 {
			t.Fatalf("%d deliveries are unanswered, %v, want 1: nobody has the outcome yet", unanswered, err)
		}
	}
	if _, err := b.js.CreateStream(t.Context(), info.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	b.records(t, 1)
	b.empty(t)
	if got := len(in.all()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

// What waits for a later attempt tells whoever has this one again that it was made, and is not made again: so it must be known by
// then.
func TestSender_PublishesTheOutcomeBeforeTheTimer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500)
	b.start(t, few())
	b.put(t, state(in.URL, "slow"))
	info, err := b.js.Stream(t.Context(), contract.Outcomes)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.js.DeleteStream(t.Context(), contract.Outcomes); err != nil {
		t.Fatal(err)
	}
	b.publish(t, delivery("1", "application/json").Message())
	eventually(t, "the receiver has the delivery", func() bool { return len(in.all()) == 1 })
	for range 20 { // looks, each some round trips to the server: a timer would have come by now
		if got := b.onTheWay(t); len(got) != 1 {
			t.Fatalf("%d messages on DELIVERIES, want the delivery alone: nobody has the outcome yet", len(got))
		}
	}
	if _, err := b.js.CreateStream(t.Context(), info.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	b.records(t, 1)
	eventually(t, "its timer is left", func() bool {
		left := b.onTheWay(t)
		return len(left) == 1 && left[0].Subject == contract.LaterSubject("wh_1", "dlv_1")
	})
}

func TestSender_FinishesWhatIsInFlightWhenItStops(t *testing.T) {
	t.Parallel()
	b := setup(t)
	begun, release := make(chan struct{}), make(chan struct{})
	s := handler(t, false, func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-release
		w.WriteHeader(http.StatusAccepted)
	})
	stop := b.start(t, few())
	b.put(t, state(s.URL, "enveloped"))
	b.publish(t, delivery("1", "application/json").Message())
	<-begun
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	consumer, err := b.js.Consumer(t.Context(), contract.Deliveries, contract.Sender)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the sender asks for no more", func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.NumWaiting == 0
	})
	select {
	case <-stopped:
		t.Error("the sender is gone while a POST is in flight")
	default:
	}
	close(release)
	<-stopped
	if a := b.records(t, 1)[0].GetAttempt(); a.GetStatus() != delivered || a.GetAttempt().ResponseCode != 202 {
		t.Errorf("outcome %v, want delivered with 202", a)
	}
	b.empty(t)
}

func TestSender_InterruptedPostIsNotAnAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	begun := make(chan struct{}, 8)
	hanging := handler(t, false, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else nobody sees that the sender hangs up
		begun <- struct{}{}
		<-r.Context().Done()
	})
	cfg := few()
	cfg.Grace = 20 * time.Millisecond
	stop := b.start(t, cfg)
	b.put(t, state(hanging.URL, "slow"))
	b.publish(t, delivery("1", "application/json").Message())
	<-begun
	stop()
	if got := b.records(t, 0); len(got) != 0 {
		t.Errorf("an interrupted POST left the record %v", got)
	}
	left := b.onTheWay(t)
	if len(left) != 1 {
		t.Fatalf("%d deliveries are left, want 1", len(left))
	}
	if d, err := contract.ParseDelivery(left[0].Header, left[0].Data); err != nil || d.Attempt != 1 {
		t.Errorf("what is left is attempt %d, %v, want 1", d.Attempt, err)
	}
	in := receive(t, 200)
	b.sender = nil
	b.put(t, state(in.URL, "slow"))
	b.start(t, few()) // at once, and not when the AckWait is over
	if made := b.records(t, 1)[0].GetAttempt(); made.GetAttempt().Number != 1 || made.GetStatus() != delivered {
		t.Errorf("after the next start: %v, want attempt 1 delivered", made)
	}
}

func TestSender_HoldsForAWebhookThatItsReceiverSwitchedOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 410, 200)
	b.start(t, few())
	on := state(in.URL, "enveloped")
	revisions := []uint64{b.put(t, on)}
	first := delivery("1", "application/json")
	b.publish(t, first.Message())
	made := b.records(t, 1)[0].GetAttempt()
	if made.GetStatus() != held || !strings.Contains(made.GetReason(), "answered 410") {
		t.Errorf("status %s because %q, want held because of 410", made.GetStatus(), made.GetReason())
	}
	b.empty(t)
	var wish busv1.SwitchOff
	for _, m := range b.stored(t, contract.Outcomes) {
		if m.Subject == contract.SwitchSubject("demo", "wh_1") {
			if err := proto.Unmarshal(m.Data, &wish); err != nil {
				t.Fatal(err)
			}
		}
	}
	if wish.WebhookId != "wh_1" || wish.Url != in.URL || wish.DeliveryId != "dlv_1" || !strings.Contains(wish.Reason, "410 Gone") {
		t.Errorf("wish %v, want one to switch wh_1 off", &wish)
	}

	off := proto.CloneOf(on)
	off.OffByReceiver, off.Webhook.Status, off.Webhook.DisabledReason = true, webhook.Disabled, &wish.Reason
	revisions = append(revisions, b.put(t, off))
	second := delivery("2", "application/json")
	second.ID = "dlv_2"
	b.publish(t, second.Message())
	change := b.records(t, 2)[1].GetChange()
	if change.GetStatus() != held || change.GetReason() != wish.Reason || change.GetDeliveryId() != "dlv_2" {
		t.Errorf("the second is %v, want held because the webhook is off", change)
	}
	b.empty(t)
	if got := len(b.stored(t, contract.Held)); got != 2 || len(in.all()) != 1 {
		t.Errorf("%d are held and %d were sent, want 2 and 1", got, len(in.all()))
	}
	for i, m := range b.stored(t, contract.Held) {
		if d, err := contract.ParseDelivery(m.Header, m.Data); err != nil || d.OffRevision != revisions[i] {
			t.Errorf("%s is held by revision %d (%v), want %d", d.ID, d.OffRevision, err, revisions[i])
		}
	}

	b.put(t, on)
	r := contract.Release{ShopID: "demo", WebhookID: "wh_1", Through: 1 << 62}
	b.publish(t, r.Message())
	records := b.records(t, 4)
	for i, want := range []string{"dlv_1", "dlv_2"} {
		got := records[2+i].GetAttempt()
		if got.GetStatus() != delivered {
			t.Errorf("after the release %s is %s", want, got.GetStatus())
		}
	}
	b.nothingHeld(t)
}

func TestSender_CancelsWhatNobodyWants(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*busv1.WebhookState) *busv1.WebhookState
		reason string
	}{
		{"the webhook is gone", func(*busv1.WebhookState) *busv1.WebhookState { return nil }, "the webhook was deleted"},
		{"its receiver has deleted it", func(s *busv1.WebhookState) *busv1.WebhookState {
			s.Webhook.Status, s.OffByReceiver = webhook.Deleted, true
			return s
		}, "the webhook was deleted"},
		{"its owner has switched it off", func(s *busv1.WebhookState) *busv1.WebhookState {
			s.Webhook.Status = webhook.Disabled
			return s
		}, "switched off by its owner"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := receive(t, 200)
			b.start(t, few())
			if s := row.change(state(in.URL, "enveloped")); s != nil {
				b.put(t, s)
			}
			b.publish(t, delivery("1", "application/json").Message())
			change := b.records(t, 1)[0].GetChange()
			if change.GetStatus() != cancelled || !strings.Contains(change.GetReason(), row.reason) {
				t.Errorf("%v, want cancelled because %q", change, row.reason)
			}
			b.empty(t)
			if len(in.all()) != 0 || len(b.stored(t, contract.Held)) != 0 {
				t.Error("it is sent or held all the same")
			}
		})
	}
}

func TestSender_DiscardsWhatIsHeldWhenItIsToldTo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	off, why := state(in.URL, "enveloped"), "gone"
	off.OffByReceiver, off.Webhook.Status, off.Webhook.DisabledReason = true, webhook.Disabled, &why
	b.put(t, off)
	for i := range 3 {
		d := delivery("1", "application/json")
		d.ID = fmt.Sprintf("dlv_%d", i)
		b.publish(t, d.Hold(uint64(i)))
	}
	r := contract.Release{ShopID: "demo", WebhookID: "wh_1", Discard: true, Through: 2} // the third came later
	b.publish(t, r.Message())
	for i, rec := range b.records(t, 2) {
		if c := rec.GetChange(); c.GetStatus() != cancelled || c.GetDeliveryId() != fmt.Sprintf("dlv_%d", i) || !strings.Contains(c.GetReason(), "discarded") {
			t.Errorf("record %d is %v, want dlv_%d cancelled", i, c, i)
		}
	}
	b.empty(t)
	left := b.stored(t, contract.Held)
	if len(left) != 1 || len(in.all()) != 0 {
		t.Fatalf("%d are held and %d sent, want 1 and 0", len(left), len(in.all()))
	}
	if d, err := contract.ParseDelivery(left[0].Header, left[0].Data); err != nil || d.ID != "dlv_2" {
		t.Errorf("held is %s, %v, want dlv_2", d.ID, err)
	}
}

func TestSender_AttemptByHandIsNotFollowedByOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500)
	b.start(t, few())
	off := state(in.URL, "slow")
	off.Webhook.Status = webhook.Disabled // sent by hand all the same
	b.put(t, off)
	d := delivery(`{"made":"before"}`, "application/json")
	d.AskedAt, d.WholeBody, d.Attempt = time.Now(), true, 4
	b.publish(t, d.Message())
	made := b.records(t, 1)[0].GetAttempt()
	if made.GetStatus() != failed || !made.GetAttempt().ByHand || made.GetAttempt().Number != 4 || !made.WholeBody || string(made.BodyPrefix) != `{"made":"before"}` {
		t.Errorf("%v, want attempt 4 by hand, failed, with its whole body", made)
	}
	b.empty(t)
	if len(in.all()) != 1 || string(in.all()[0].body) != `{"made":"before"}` {
		t.Errorf("sent %v", in.all())
	}
	if told := b.stored(t, contract.Events); len(told) != 0 {
		t.Error("an attempt by hand that failed is told of as given up")
	}
}

func TestSender_ReplayedAttemptIsFollowedByTheScheduleFromItsBeginning(t *testing.T) {
	t.Parallel()
	ordered := profile.ByKey
	for _, row := range []struct {
		name   string
		policy *shopbellv1.Policy
		want   []string
	}{
		{"one of two delays", &shopbellv1.Policy{}, []string{retrying, retrying, delivered}},
		{"where order matters it is not", &shopbellv1.Policy{Ordered: &ordered}, []string{failed}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := receive(t, 500, 500, 200)
			b.start(t, few())
			short := durationpb.New(100 * time.Millisecond)
			row.policy.RetrySchedule = []*durationpb.Duration{short, short}
			b.put(t, governed("wh_1", in.URL, row.policy))
			d := delivery(`{"made":"before"}`, "application/json")
			d.AskedAt, d.AskedBy, d.Replay, d.WholeBody, d.Attempt, d.Uncounted = time.Now(), "key_1", "job_1", true, 4, 3
			b.publish(t, d.Message())
			b.records(t, len(row.want))
			b.empty(t)
			for i, r := range b.records(t, len(row.want)) {
				made := r.GetAttempt()
				a, first := made.GetAttempt(), i == 0
				if made.GetStatus() != row.want[i] || int(a.GetNumber()) != 4+i || a.GetByHand() != first || (a.GetReplayId() == "job_1") != first || (a.GetAskedBy() == "key_1") != first {
					t.Errorf("record %d is %v, want %s", i, r, row.want[i])
				}
			}
			if got := in.all(); len(got) != len(row.want) || string(got[len(got)-1].body) != `{"made":"before"}` {
				t.Errorf("%d were sent, want %d of the same bytes", len(got), len(row.want))
			}
		})
	}
}

// What a job of the log yields to is how late those are that have waited for nothing but those before them.
func TestSender_TellsHowLateWhatGoesStraightThroughIs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*contract.Delivery, *shopbellv1.Webhook)
		tells  bool
	}{
		{"straight through", func(*contract.Delivery, *shopbellv1.Webhook) {}, true},
		{"a later attempt", func(d *contract.Delivery, _ *shopbellv1.Webhook) { d.Attempt = 2 }, false},
		{"by hand", func(d *contract.Delivery, _ *shopbellv1.Webhook) { d.AskedAt = time.Now() }, false},
		{"in bulk", func(d *contract.Delivery, _ *shopbellv1.Webhook) { d.Bulk = true }, false},
		{"after a delay", func(_ *contract.Delivery, w *shopbellv1.Webhook) {
			w.Delay = &shopbellv1.Delay{Value: 1, Unit: "minute"}
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := receive(t, 200)
			b.start(t, few())
			d, w := delivery("1", "application/json"), state(in.URL, "slow")
			d.AcceptedAt = d.AcceptedAt.Add(-time.Minute)
			row.change(d, w.Webhook)
			b.put(t, w)
			b.publish(t, d.Message())
			late := b.records(t, 1)[0].GetAttempt().GetLateMs()
			if tells := late > 0; tells != row.tells || tells && (late < 60_000 || late > 120_000) {
				t.Errorf("%v ms late, want it told: %v, and the minute and a little that it was", late, row.tells)
			}
		})
	}
}

func TestSender_LeavesOutWhatIsNoDelivery(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	b.put(t, state(in.URL, "enveloped"))
	b.publish(t, &nats.Msg{Subject: contract.DeliverySubject("wh_1", contract.Straight), Header: nats.Header{}, Data: []byte("x")},
		&nats.Msg{Subject: contract.DeliverySubject("wh_1", contract.Straight), Header: nats.Header{"Shopbell-Release": {"keep 7"}, "Shopbell-Webhook": {"wh_1"}}},
		delivery("1", "application/json").Message())
	b.records(t, 1)
	b.empty(t)
	if !strings.Contains(b.log.String(), "is no delivery") {
		t.Errorf("the log does not tell:\n%s", b.log)
	}
}

func TestSender_FailsADeliveryThatItsTransformDoesNotFit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	s := state(in.URL, "enveloped")
	s.Webhook.Transform = proto.String("{'text': data.customer.name}")
	b.put(t, s)
	b.publish(t, delivery(`{"total":1}`, "application/json").Message())
	change := b.records(t, 1)[0].GetChange()
	if change.GetStatus() != failed || !strings.Contains(change.GetReason(), "transform does not fit") {
		t.Errorf("%v, want failed because of the transform", change)
	}
	b.empty(t)
	if len(in.all()) != 0 {
		t.Error("it is sent all the same")
	}
}

func TestTestWebhook_SendsSampleDataAndSaysWhatCameOfIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200, 404, 410)
	b.start(t, few())
	b.put(t, state(in.URL, "enveloped"))
	ask := func() (*senderv1.TestWebhookResponse, error) {
		return b.sender.TestWebhook(t.Context(), &senderv1.TestWebhookRequest{ShopId: "demo", WebhookId: "wh_1", EventType: "order.created"})
	}
	for i, want := range []struct {
		success   bool
		diagnosis string
	}{{true, "answered 200"}, {false, "nothing at this path"}, {false, "answered 410 Gone"}} {
		got, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		if got.Success != want.success || !strings.Contains(got.Diagnosis, want.diagnosis) || string(got.RequestBody) != string(in.all()[i].body) {
			t.Errorf("test %d: %v, want success %v and %q", i, got, want.success, want.diagnosis)
		}
		made := b.records(t, i+1)[i].GetAttempt()
		if !made.Test || !made.WholeBody || made.GetDeliveryId() != got.DeliveryId || string(made.BodyPrefix) != string(got.RequestBody) {
			t.Errorf("test %d: record %v", i, made)
		}
	}
	if left := len(b.onTheWay(t)) + len(b.stored(t, contract.Held)); left != 0 {
		t.Errorf("%d messages follow a test", left)
	}
	for _, m := range b.stored(t, contract.Outcomes) {
		if strings.HasSuffix(m.Subject, ".switch") {
			t.Error("a test switches the webhook off")
		}
	}
	for name, req := range map[string]*senderv1.TestWebhookRequest{
		"no such webhook":         {ShopId: "demo", WebhookId: "wh_9"},
		"no webhook can be so":    {ShopId: "demo", WebhookId: "wh ä"},
		"a webhook of another":    {ShopId: "other", WebhookId: "wh_1"},
		"a type with a wildcard ": {ShopId: "demo", WebhookId: "wh_1", EventType: "order.*"},
	} {
		_, err := b.sender.TestWebhook(t.Context(), req)
		want := fault.NotFound
		if req.EventType != "" {
			want = fault.Invalid
		}
		if !fault.IsKind(err, want) {
			t.Errorf("%s: %v, want kind %v", name, err, want)
		}
	}
}

// Nothing that opens a door may stand where others read: the log, spans, and what an owner is shown of an attempt.
func TestSender_LeaksNoSecret(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const header, query, payload = "Bearer h3ader-s3cret", "qu3ry-s3cret", "payl0ad-s3cret"
	tlsServer := handler(t, true, func(http.ResponseWriter, *http.Request) {})
	failing := receive(t, 500)
	gone := receive(t, 410)
	good := receive(t, 200)
	hanging := receiver(t, hangs)
	b.start(t, few())
	n := 0
	for _, url := range []string{
		good.URL, failing.URL, gone.URL, tlsServer.URL, "http://" + closedPort(t), "http://no-such-host.invalid", "http://" + hanging,
		"http://" + receiver(t, closes("garbage\r\n")), "https://" + strings.TrimPrefix(good.URL, "http://"),
	} {
		n++
		s := state(url+"/hooks?token="+query, "bare")
		s.Webhook.Id = fmt.Sprintf("wh_%d", n)
		s.Webhook.Headers = map[string]string{"Authorization": header, "X-Api-Key": header}
		if strings.Contains(url, hanging) {
			s.Webhook.Policy = &shopbellv1.Policy{Timeout: durationpb.New(time.Second)}
		}
		b.put(t, s)
		d := delivery(`{"x":"`+payload+`"}`, "application/json")
		d.ID, d.WebhookID = fmt.Sprintf("dlv_%d", n), s.Webhook.Id
		b.publish(t, d.Message())
	}
	records := b.records(t, n)
	b.empty(t)
	told := map[string]string{"the log": b.log.String()}
	for _, span := range b.spans.Ended() {
		told["a span"] += fmt.Sprintf("%s %v %v %v\n", span.Name(), span.Attributes(), span.Events(), span.Status())
	}
	for _, r := range records {
		a := r.GetAttempt().GetAttempt()
		told["an attempt's error"] += a.GetError() + "\n" + r.GetAttempt().GetReason() + "\n"
		told["an attempt's headers"] += fmt.Sprint(a.GetRequestHeaders()) + "\n"
		if text := r.String(); strings.Contains(text, secret) || strings.Contains(text, strings.TrimPrefix(secret, "whsec_")) || strings.Contains(text, "h3ader") {
			t.Errorf("a record holds a secret: %s", text)
		}
	}
	for _, m := range b.stored(t, contract.Outcomes) {
		if strings.Contains(string(m.Data), secret) {
			t.Error("a message on OUTCOMES holds the secret")
		}
	}
	for where, text := range told {
		if text == "" {
			t.Errorf("%s is empty: nothing was looked at", where)
		}
		for _, word := range []string{secret, "h3ader", query, payload} {
			if strings.Contains(text, word) {
				t.Errorf("%s holds %q:\n%s", where, word, text)
			}
		}
	}
	if got := strings.Count(b.log.String(), "msg=attempt"); got != n {
		t.Errorf("%d lines tell of %d attempts", got, n)
	}
}
