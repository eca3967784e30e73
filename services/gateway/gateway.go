// Package gateway is the REST edge: one base URL for everything, over the gRPC services of the other rooms. Publishing
// goes to ingest's own handler, so that payloads are touched once.
package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/run"
	"shopbell.dev/proto/openapi"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	senderv1 "shopbell.dev/proto/shopbell/sender/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Config is where the other rooms are. An empty address is a room of this process.
type Config struct {
	// Ingest is the base URL of ingest's HTTP, such as http://ingest:8080.
	Ingest string `yaml:"ingest"`
	// Subscription is the gRPC address of subscription, such as subscription:9090.
	Subscription string `yaml:"subscription"`
	// Sender is the gRPC address of sender.
	Sender string `yaml:"sender"`
	// Log is the gRPC address of log.
	Log string `yaml:"log"`
}

// Defaults are for a gateway in one process with all others.
func Defaults() Config { return Config{} }

// Validate says what is wrong with the settings.
func (c Config) Validate() error {
	if c.Ingest == "" {
		return nil
	}
	if u, err := url.Parse(c.Ingest); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fault.Field("ingest", "%q is no base URL; write one such as http://ingest:8080", c.Ingest)
	}
	return nil
}

// Gateway is the room.
type Gateway struct {
	env   *run.Env
	conns []*grpc.ClientConn
	print printer

	subscription subscriptionv1.SubscriptionServiceClient
	log          logv1.LogServiceClient
}

// readStrictly has query parameters read by strictQuery. grpc-gateway keeps that for the whole process, and not for a
// mux, so it is said once: several gateways may live in one process.
var readStrictly = sync.OnceFunc(func() { runtime.SetQueryParameterParser(strictQuery{})(nil) })

// New makes the room and mounts it on the process's HTTP server.
func New(cfg Config, env *run.Env) (run.Service, error) {
	g := &Gateway{env: env}
	readStrictly()
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &g.print),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			env.Fail(w, r, forCaller(err))
		}),
		runtime.WithRoutingErrorHandler(g.noRoute),
		// The answers' gRPC headers are of no use to REST callers.
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithDisablePathLengthFallback(),
	)
	for _, room := range []struct {
		address  string
		register func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error
	}{
		{cfg.Subscription, func(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error {
			g.subscription = subscriptionv1.NewSubscriptionServiceClient(conn)
			return subscriptionv1.RegisterSubscriptionServiceHandler(ctx, mux, conn)
		}},
		{cfg.Sender, senderv1.RegisterSenderServiceHandler},
		{cfg.Log, func(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error {
			g.log = logv1.NewLogServiceClient(conn)
			return errors.Join(logv1.RegisterLogServiceHandler(ctx, mux, conn), logv1.RegisterReplayServiceHandler(ctx, mux, conn))
		}},
	} {
		conn, err := env.Dial(room.address)
		if err != nil {
			return nil, err
		}
		g.conns = append(g.conns, conn)
		if err := room.register(context.Background(), mux, conn); err != nil {
			return nil, err
		}
	}
	traced := func(h http.Handler) http.Handler {
		return otelhttp.NewHandler(h, "REST", otelhttp.WithTracerProvider(env.Tracing), otelhttp.WithPropagators(propagation.TraceContext{}))
	}
	env.HTTP.Handle("/v1/", traced(mux))
	var byHand []string // the paths of what is written by hand
	for _, call := range []struct {
		method, path string
		answer       http.HandlerFunc
	}{
		{http.MethodPost, "/v1/shops/{shop_id}/events:explain", g.explain},
		{http.MethodPost, "/v1/shops/{shop_id}/webHooks", g.createResource},
		{http.MethodGet, "/v1/shops/{shop_id}/deliveries:tail", g.tail},
		{http.MethodGet, "/v1/shops/{shop_id}/deliveries:export", g.export},
	} {
		env.HTTP.Handle(call.method+" "+call.path, traced(call.answer))
		byHand = append(byHand, call.path)
	}
	document, err := openapi.Document()
	if err != nil {
		return nil, err
	}
	env.HTTP.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", event.JSON)
		_, _ = w.Write(document)
	})
	for _, only := range append(byHand, "/v1/shops/{shop_id}/events") {
		env.HTTP.HandleFunc(only, func(w http.ResponseWriter, r *http.Request) {
			g.noRoute(r.Context(), nil, nil, w, r, http.StatusMethodNotAllowed)
		})
	}
	env.HTTP.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		env.Fail(w, r, fault.New(fault.NotFound, "there is nothing at %s; the API is described at /v1/openapi.json", r.URL.Path))
	})
	if cfg.Ingest != "" {
		// In one process ingest has mounted its own handler at this place.
		proxy, err := publishProxy(cfg.Ingest, env)
		if err != nil {
			return nil, err
		}
		env.HTTP.Handle("POST /v1/shops/{shop_id}/events", proxy)
	}
	return g, nil
}

// publishProxy hands publishing to ingest, byte for byte.
func publishProxy(base string, env *run.Env) (http.Handler, error) {
	target, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			env.Fail(w, r, fault.Away(2*time.Second, "ingest cannot be reached; send the events again with the same ids, which makes a repeat harmless: %w", err))
		},
	}, nil
}

// Run keeps the connections until ctx ends.
func (g *Gateway) Run(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	return nil
}

func (g *Gateway) noRoute(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
	if status == http.StatusMethodNotAllowed {
		g.env.Fail(w, r, fault.New(fault.NotDone, "%s is not done at this address; see /v1/openapi.json", r.Method))
		return
	}
	g.env.Fail(w, r, fault.New(fault.NotFound, "there is nothing at %s; the API is described at /v1/openapi.json", r.URL.Path))
}

// withKey is a request's context, with its key for the rooms behind.
func withKey(r *http.Request) context.Context {
	if key := r.Header.Get("Authorization"); key != "" {
		return metadata.AppendToOutgoingContext(r.Context(), "authorization", key)
	}
	return r.Context()
}

const maxExplain = 4 << 20

// explain is POST /v1/shops/{shop_id}/events:explain: an event as for publishing, which is not published.
func (g *Gateway) explain(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxExplain))
	if err != nil {
		g.env.Fail(w, r, fault.New(fault.TooLarge, "the event is larger than %d bytes", maxExplain))
		return
	}
	events, err := event.Parse(r.Header, r.URL.Query(), body)
	if err != nil {
		g.env.Fail(w, r, err)
		return
	}
	if len(events) != 1 {
		g.env.Fail(w, r, fault.Field("events", "there are %d; one event is explained at a time", len(events)))
		return
	}
	e := &events[0]
	out, err := g.subscription.ExplainEvent(withKey(r), &subscriptionv1.ExplainEventRequest{ShopId: r.PathValue("shop_id"), Event: &shopbellv1.Event{
		Id: e.ID, Type: e.Type, Action: e.Action, OccurredAt: e.OccurredAt, Environment: e.Environment, Key: e.Key,
		ContentType: e.ContentType, Content: &shopbellv1.Event_Data{Data: e.Data},
	}})
	if err != nil {
		g.env.Fail(w, r, err)
		return
	}
	text, err := g.print.Marshal(out)
	if err != nil {
		g.env.Fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", event.JSON)
	_, _ = w.Write(text)
}
