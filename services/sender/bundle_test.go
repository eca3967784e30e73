package sender

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/run/runtest"
	"shopbell.dev/pkg/shop"
	"shopbell.dev/pkg/telemetry/telemetrytest"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// bundle is a sender at work on a bus of its own.
type bundle struct {
	bus    *bus.Bus
	js     jetstream.JetStream // what a test does to the bus that no room does
	env    *run.Env
	log    *telemetrytest.Lines
	spans  *tracetest.SpanRecorder
	sender *Sender
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{log: &telemetrytest.Lines{}, spans: tracetest.NewSpanRecorder()}
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
	testwait.Until(t, fmt.Sprintf("there are %d records", atLeast), func() bool {
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

// takeAway takes a stream from the bus, so that nothing can be stored there until it is given back.
func (b *bundle) takeAway(t *testing.T, stream string) (giveBack func()) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.js.DeleteStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if _, err := b.js.CreateStream(t.Context(), s.CachedInfo().Config); err != nil {
			t.Fatal(err)
		}
	}
}

// empty waits until nothing is left to deliver.
func (b *bundle) empty(t *testing.T) {
	t.Helper()
	testwait.Until(t, "nothing is left to deliver", func() bool { return len(b.onTheWay(t)) == 0 })
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
