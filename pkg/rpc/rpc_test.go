package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/rpc"
	"shopbell.dev/pkg/telemetry/telemetrytest"
	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// desk answers what a test wants it to.
type desk struct {
	subscriptionv1.UnimplementedSubscriptionServiceServer
	ingestv1.UnimplementedIngestServiceServer
	answer func() error
	caller string // of the last GetWebhook
	echo   bool   // has PublishStream answer every message
}

func (d *desk) GetWebhook(ctx context.Context, _ *subscriptionv1.GetWebhookRequest) (*shopbellv1.Webhook, error) {
	d.caller = rpc.Caller(ctx)
	return &shopbellv1.Webhook{Id: "wh_1"}, d.answer()
}

func (d *desk) ListWebhooks(context.Context, *subscriptionv1.ListWebhooksRequest) (*subscriptionv1.ListWebhooksResponse, error) {
	return &subscriptionv1.ListWebhooksResponse{}, d.answer()
}

func (d *desk) CreateWebhook(context.Context, *subscriptionv1.CreateWebhookRequest) (*shopbellv1.Webhook, error) {
	return &shopbellv1.Webhook{}, d.answer()
}

func (d *desk) PublishStream(s grpc.BidiStreamingServer[ingestv1.PublishStreamRequest, ingestv1.PublishStreamResponse]) error {
	for d.echo {
		if _, err := s.Recv(); err != nil {
			return err
		}
		if err := s.Send(&ingestv1.PublishStreamResponse{}); err != nil {
			return err
		}
	}
	return d.answer()
}

// overAllShops is a service whose one method is about no shop, and says nothing of who may call it.
var overAllShops = grpc.ServiceDesc{ServiceName: "shopbell.test.v1.TestService", Methods: []grpc.MethodDesc{{
	MethodName: "ListShops",
	Handler: func(_ any, ctx context.Context, decode func(any) error, ask grpc.UnaryServerInterceptor) (any, error) {
		req := &emptypb.Empty{}
		if err := decode(req); err != nil {
			return nil, err
		}
		return ask(ctx, req, &grpc.UnaryServerInfo{FullMethod: listShops}, func(context.Context, any) (any, error) { return req, nil })
	},
}}}

const listShops = "/shopbell.test.v1.TestService/ListShops"

type bundle struct {
	conn     *grpc.ClientConn
	webhooks subscriptionv1.SubscriptionServiceClient
	events   ingestv1.IngestServiceClient
	health   healthv1.HealthClient
	desk     *desk
	log      *telemetrytest.Lines
}

const operatorKey = "the-operators-own-key"

func setup(t *testing.T, keys rpc.Keys) *bundle {
	t.Helper()
	b := &bundle{desk: &desk{answer: func() error { return nil }}, log: &telemetrytest.Lines{}}
	server, err := rpc.NewServer(keys, noop.NewTracerProvider(), slog.New(slog.NewTextHandler(b.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	subscriptionv1.RegisterSubscriptionServiceServer(server, b.desk)
	ingestv1.RegisterIngestServiceServer(server, b.desk)
	healthv1.RegisterHealthServer(server, health.NewServer())
	server.RegisterService(&overAllShops, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop(); served.Wait() })
	b.conn = conn
	b.webhooks, b.events, b.health = subscriptionv1.NewSubscriptionServiceClient(conn), ingestv1.NewIngestServiceClient(conn), healthv1.NewHealthClient(conn)
	return b
}

func (b *bundle) get(ctx context.Context) error {
	_, err := b.webhooks.GetWebhook(ctx, &subscriptionv1.GetWebhookRequest{ShopId: "demo", WebhookId: "wh_1"})
	return err
}

func TestServer_NamesTheFieldThatTheProtoRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, rpc.Keys{})
	b.desk.answer = func() error { return errors.New("the method was called") }
	for _, row := range []struct {
		name   string
		call   func() error
		fields []string
		text   string
	}{
		{"a shop id with a wildcard", func() error {
			_, err := b.webhooks.GetWebhook(t.Context(), &subscriptionv1.GetWebhookRequest{ShopId: "*", WebhookId: "wh_1"})
			return err
		}, []string{"shop_id"}, "it must look like ^"},
		{"several at once", func() error {
			_, err := b.webhooks.GetWebhook(t.Context(), &subscriptionv1.GetWebhookRequest{})
			return err
		}, []string{"shop_id", "webhook_id"}, "webhook_id: "},
		{"a page that is too large", func() error {
			_, err := b.webhooks.ListWebhooks(t.Context(), &subscriptionv1.ListWebhooksRequest{ShopId: "demo", PageSize: 501})
			return err
		}, []string{"page_size"}, "500"},
		{"a value that is not in the list", func() error {
			_, err := b.webhooks.EnableWebhook(t.Context(), &subscriptionv1.EnableWebhookRequest{ShopId: "demo", WebhookId: "wh_1", Held: "sned"})
			return err
		}, []string{"held"}, `"sned" is none of send, discard (did you mean "send"?)`},
		{"a message that is missing", func() error {
			_, err := b.webhooks.CreateWebhook(t.Context(), &subscriptionv1.CreateWebhookRequest{ShopId: "demo"})
			return err
		}, []string{"webhook"}, "required"},
	} {
		st := status.Convert(row.call())
		if st.Code() != codes.InvalidArgument || !strings.Contains(st.Message(), row.text) {
			t.Errorf("%s: %v, want InvalidArgument with %q", row.name, st, row.text)
		}
		if diff := cmp.Diff(row.fields, violations(st)); diff != "" {
			t.Errorf("%s: fields (-want +got):\n%s", row.name, diff)
		}
	}
}

func violations(st *status.Status) (fields []string) {
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	slices.Sort(fields)
	return fields
}

func TestErrors_HaveTheSameShapeInBothWorlds(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		err        error
		code       codes.Code
		http       int
		message    string // a part of it
		field      string
		retryAfter string // the header; empty: none
	}{
		{"the caller's fault", fault.Field("url", "it is relative"), codes.InvalidArgument, 400, "url: it is relative", "url", ""},
		{"wrapped", fmt.Errorf("create: %w", fault.Field("url", "it is relative")), codes.InvalidArgument, 400, "url: it is relative", "url", ""},
		{"no such thing", fault.New(fault.NotFound, "there is no webhook wh_1"), codes.NotFound, 404, "there is no webhook", "", ""},
		{"somebody was faster", fault.New(fault.Conflict, "read it again"), codes.Aborted, 409, "read it again", "", ""},
		{"not in this state", fault.New(fault.Precondition, "it is off"), codes.FailedPrecondition, 400, "it is off", "", ""},
		{"the key does not reach so far", fault.New(fault.Forbidden, "no"), codes.PermissionDenied, 403, "no", "", ""},
		{"too large", fault.New(fault.TooLarge, "in parts"), codes.OutOfRange, 413, "in parts", "", ""},
		{"too often", fault.New(fault.Exhausted, "slower"), codes.ResourceExhausted, 429, "slower", "", ""},
		{"away", fault.Away(2*time.Second, "again"), codes.Unavailable, 503, "again", "", "2"},
		{"away for a moment", fault.Away(100*time.Millisecond, "again"), codes.Unavailable, 503, "again", "", "1"},
		{"ours", errors.New("disk 7 is full"), codes.Internal, 500, "err_", "", ""},
		{"ours, as a fault", fault.New(fault.Internal, "disk 7 is full"), codes.Internal, 500, "err_", "", ""},
		{"what another room answered", status.Error(codes.NotFound, "no delivery"), codes.NotFound, 404, "no delivery", "", ""},
		{"what another room did not say", status.Error(codes.Unknown, "disk 7 is full"), codes.Internal, 500, "err_", "", ""},
		{"too slow", fmt.Errorf("read: %w", context.DeadlineExceeded), codes.DeadlineExceeded, 504, "too long", "", ""},
		{"the caller went away", context.Canceled, codes.Canceled, 499, "cancelled", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, rpc.Keys{})
			b.desk.answer = func() error { return row.err }
			st := status.Convert(b.get(t.Context()))
			if st.Code() != row.code || !strings.Contains(st.Message(), row.message) || strings.Contains(st.Message(), "disk 7") {
				t.Errorf("gRPC answers %v, want %v with %q and nothing of ours", st, row.code, row.message)
			}
			log := &telemetrytest.Lines{}
			w := httptest.NewRecorder()
			rpc.WriteError(w, httptest.NewRequest(http.MethodPost, "/v1/shops/demo/webhooks?secret=1", nil), slog.New(slog.NewTextHandler(log, nil)), row.err)
			var body struct {
				Code    int
				Message string
				Details []struct {
					Type            string `json:"@type"`
					FieldViolations []struct{ Field, Description string }
				}
			}
			snake := strings.ReplaceAll(w.Body.String(), "field_violations", "FieldViolations")
			if err := json.Unmarshal([]byte(snake), &body); err != nil {
				t.Fatalf("%v in %s", err, w.Body)
			}
			if w.Code != row.http || body.Code != int(row.code) || !strings.Contains(body.Message, row.message) || strings.Contains(w.Body.String(), "disk 7") {
				t.Errorf("HTTP answers %d %s, want %d, code %d and %q", w.Code, w.Body, row.http, row.code, row.message)
			}
			if got := w.Header().Get("Retry-After"); got != row.retryAfter {
				t.Errorf("Retry-After %q, want %q", got, row.retryAfter)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type %q, want application/json", got)
			}
			if row.field != "" && (len(body.Details) != 1 || body.Details[0].Type != "type.googleapis.com/google.rpc.BadRequest" || body.Details[0].FieldViolations[0].Field != row.field) {
				t.Errorf("details of %s, want a violation of %s", w.Body, row.field)
			}
			if row.field != "" && !slices.Equal(violations(st), []string{row.field}) {
				t.Errorf("gRPC names %v, want %s", violations(st), row.field)
			}
			// What is ours stands in the log, under the id that the caller has.
			for where, pair := range map[string][2]string{"gRPC": {st.Message(), b.log.String()}, "HTTP": {body.Message, log.String()}} {
				message, text := pair[0], pair[1]
				if row.code == codes.Internal {
					id := message[strings.LastIndex(message, "err_"):]
					if !strings.Contains(text, id) || !strings.Contains(text, "disk 7 is full") {
						t.Errorf("%s: the log has not the cause under %s:\n%s", where, id, text)
					}
				} else if text != "" {
					t.Errorf("%s: the log has what is the caller's: %s", where, text)
				}
				if strings.Contains(text, "secret=1") {
					t.Errorf("%s: the log has the query: %s", where, text)
				}
			}
		})
	}
}

func TestServer_OutlivesAPanic(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]any{"a text": "boom", "an error": errors.New("boom"), "a number": 7, "what cannot be printed": func() {}} {
		b := setup(t, rpc.Keys{})
		b.desk.answer = func() error { panic(value) }
		if st := status.Convert(b.get(t.Context())); st.Code() != codes.Internal || strings.Contains(st.Message(), "boom") || !strings.Contains(st.Message(), "err_") {
			t.Errorf("%s: %v, want Internal with an id alone", name, st)
		}
		stream, err := b.events.PublishStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Internal {
			t.Errorf("%s in a stream: %v, want Internal", name, err)
		}
		if log := b.log.String(); strings.Count(log, "rpc_test.go") < 2 {
			t.Errorf("%s: the log does not say where:\n%s", name, log)
		}
		b.desk.answer = func() error { return nil }
		if err := b.get(t.Context()); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
}
