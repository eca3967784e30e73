package subscription

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/key"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/run/runtest"
	"shopbell.dev/pkg/shop"
	"shopbell.dev/pkg/telemetry/telemetrytest"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

const closed = "name: closed\nheaders: {X-Closed-Event: '{type}'}\npolicy: {timeout: 5s, retry_schedule: [1m], success_codes: [2xx]}\nevents:\n  - {name: order_created, sample: '1'}\n  - {name: paid, sample: '1'}\n"

func profiles(t testing.TB) *profile.Set {
	t.Helper()
	set, err := profile.Load(fstest.MapFS{"closed.yaml": {Data: []byte(closed)}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// bundle is subscription at work on a bus of its own.
type bundle struct {
	*Subscription
	bus *bus.Bus
	js  jetstream.JetStream // what a test does to the bus that no room does
	log *telemetrytest.Lines
}

func setup(t testing.TB) *bundle {
	t.Helper()
	b := &bundle{log: &telemetrytest.Lines{}}
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
	b.run(t)
	return b
}

// run opens subscription on the bundle's bus and has it work until the test ends.
func (b *bundle) run(t testing.TB) {
	t.Helper()
	b.open(t)
	runtest.Start(t, b.env, b.Subscription)
}

func (b *bundle) open(t testing.TB) {
	t.Helper()
	provider := sdktrace.NewTracerProvider()
	service, err := New(Defaults(), &run.Env{
		Log: slog.New(slog.NewTextHandler(b.log, nil)), Bus: b.bus, Profiles: profiles(t), Tracing: provider, Tracer: provider.Tracer("subscription"),
		Metrics: prometheus.NewRegistry(), GRPC: grpc.NewServer(), Guard: address.NewGuard(), Keys: key.NewDirectory(slog.New(slog.DiscardHandler)),
		Shop: shop.Defaults{Profile: "standard", Environment: shop.Live},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Subscription = service.(*Subscription)
}

func (b *bundle) create(t *testing.T, w *shopbellv1.Webhook) *shopbellv1.Webhook {
	t.Helper()
	if w.Url == "" {
		w.Url = "https://example.com/hooks"
	}
	if w.Events == nil {
		w.Events = []string{"paid"}
	}
	out, err := b.CreateWebhook(t.Context(), &subscriptionv1.CreateWebhookRequest{ShopId: "demo", Webhook: w})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bundle) read(t *testing.T, id string) *shopbellv1.Webhook {
	t.Helper()
	w, err := b.GetWebhook(t.Context(), &subscriptionv1.GetWebhookRequest{ShopId: "demo", WebhookId: id})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (b *bundle) update(t *testing.T, id string, change *shopbellv1.Webhook, mask ...string) (*shopbellv1.Webhook, error) {
	t.Helper()
	req := &subscriptionv1.UpdateWebhookRequest{ShopId: "demo", WebhookId: id, Webhook: change}
	if mask != nil {
		req.UpdateMask = &fieldmaskpb.FieldMask{Paths: mask}
	}
	return b.UpdateWebhook(t.Context(), req)
}

// stored is all messages that a stream holds, in order.
func (b *bundle) stored(t *testing.T, name string) (out []*jetstream.RawStreamMsg) {
	t.Helper()
	stream, err := b.js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	state := stream.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		if m, err := stream.GetMsg(t.Context(), seq); err == nil {
			out = append(out, m)
		}
	}
	return out
}

// recorded is all that is recorded.
func (b *bundle) recorded(t *testing.T) (out []*busv1.Record) {
	t.Helper()
	for _, m := range b.stored(t, contract.Outcomes) {
		some, err := record.Read(m.Header, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, some...)
	}
	return out
}

func (b *bundle) decisions(t *testing.T, atLeast int) (out []*busv1.Record) {
	t.Helper()
	testwait.Until(t, fmt.Sprintf("%d decisions are recorded", atLeast), func() bool {
		out = slices.DeleteFunc(b.recorded(t), func(r *busv1.Record) bool { return r.GetDecision() == nil })
		return len(out) >= atLeast
	})
	return out
}

func fieldsOf(t *testing.T, err error) []string {
	t.Helper()
	var f *fault.Fault
	if !errors.As(err, &f) {
		t.Errorf("error %v, want a fault", err)
		return nil
	}
	var out []string
	for _, v := range f.Fields {
		out = append(out, v.Field)
	}
	slices.Sort(out)
	return out
}

func happened(id, eventType string) *contract.Event {
	return &contract.Event{
		ShopID: "demo", ID: id, Type: eventType, Environment: shop.Live, ContentType: "application/json", AcceptedAt: time.Now(), Data: []byte(`{"total":549.50}`),
	}
}

func (b *bundle) wish(t *testing.T, w *shopbellv1.Webhook, change func(*busv1.SwitchOff)) {
	t.Helper()
	wish := &busv1.SwitchOff{
		At: timestamppb.Now(), ShopId: "demo", WebhookId: w.Id, DeliveryId: "dlv_1", Url: w.Url, Reason: "switched off by its receiver: it answered 410 Gone to delivery dlv_1",
	}
	change(wish)
	value, err := proto.Marshal(wish)
	if err != nil {
		t.Fatal(err)
	}
	acks, err := b.bus.PublishAcks(t.Context(), contract.SwitchMessage("demo", w.Id, value, fmt.Sprintf("%s/%d", wish.DeliveryId, time.Now().UnixNano())))
	if err != nil {
		t.Fatal(err)
	}
	switcher, err := b.js.Consumer(t.Context(), contract.Outcomes, contract.Switcher)
	if err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the wish was heard", func() bool {
		// Not that nothing is pending: that is so before the consumer has heard of it, too.
		info, err := switcher.Info(t.Context())
		return err == nil && info.AckFloor.Stream >= acks[0].Sequence
	})
}

func (b *bundle) notices(t *testing.T) (out []string) {
	t.Helper()
	for _, m := range b.stored(t, contract.Events) {
		e, err := contract.ParseEvent(m.Header, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Type)
	}
	return out
}

func TestRun_EndsWhenItCannotReadItsStreams(t *testing.T) {
	t.Parallel()
	b := &bundle{log: &telemetrytest.Lines{}, bus: bustest.New(t)}
	b.open(t)
	b.bus.Close()
	done := make(chan error, 1)
	go func() { done <- b.Run(t.Context(), func() {}) }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(time.Minute):
		t.Fatal("it hangs without its streams")
	}
}

func TestCalls_SayThatTheBusIsAway(t *testing.T) {
	t.Parallel()
	b := &bundle{log: &telemetrytest.Lines{}, bus: bustest.New(t)}
	b.open(t)
	b.bus.Close()
	for name, call := range map[string]func() error{
		"create": func() error {
			_, err := b.CreateWebhook(t.Context(), &subscriptionv1.CreateWebhookRequest{ShopId: "demo", Webhook: &shopbellv1.Webhook{Url: "https://example.com", Events: []string{"*"}}})
			return err
		},
		"read": func() error {
			_, err := b.GetWebhook(t.Context(), &subscriptionv1.GetWebhookRequest{ShopId: "demo", WebhookId: "wh_1"})
			return err
		},
		"shop": func() error {
			_, err := b.GetShop(t.Context(), &subscriptionv1.GetShopRequest{ShopId: "demo"})
			return err
		},
	} {
		err := call()
		var f *fault.Fault
		if !errors.As(err, &f) || f.Kind != fault.Unavailable || f.Retry <= 0 || !strings.Contains(f.Message, "try again") {
			t.Errorf("%s: %v, want unavailable with a time to come again", name, err)
		}
	}
}
