// Package telemetry is traces by the standard OTEL_* variables, metrics for Prometheus, and log lines that carry the
// trace they belong to.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"
)

// Telemetry is a process's traces and metrics. Nothing of it is global, so that several may live in one process.
type Telemetry struct {
	provider *sdktrace.TracerProvider
	// Metrics is what /metrics shows.
	Metrics *prometheus.Registry
}

// Start sets up what the OTEL_* variables ask for. When they name no endpoint nothing is exported, but every event still
// gets a trace id, which the log keeps and the receiver is sent.
func Start(ctx context.Context, service, version string) (*Telemetry, error) {
	t := &Telemetry{Metrics: prometheus.NewRegistry()}
	t.Metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if !exporting() {
		t.provider = sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
		return t, nil
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("start exporting traces: %w: check the OTEL_EXPORTER_OTLP_* variables", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(semconv.ServiceName(service), semconv.ServiceVersion(version)),
		resource.WithHost(), resource.WithProcessPID(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe this process for traces: %w", err)
	}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return t, nil
}

func exporting() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" ||
		os.Getenv("OTEL_TRACES_EXPORTER") == "otlp"
}

func newExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	protocol := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	if strings.HasPrefix(protocol, "http/") {
		return otlptracehttp.New(ctx)
	}
	return otlptracegrpc.New(ctx)
}

// Tracer gives the tracer of a room.
func (t *Telemetry) Tracer(room string) trace.Tracer {
	return t.provider.Tracer("shopbell.dev/" + room)
}

// Provider is what libraries are given that trace themselves.
func (t *Telemetry) Provider() trace.TracerProvider { return t.provider }

// Stop exports what is left, until ctx ends.
func (t *Telemetry) Stop(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// TraceID is the trace of ctx in hex, or nothing.
func TraceID(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}

// Logger makes the process's logger: text for people or JSON for machines, from a level on, each line with the trace
// of its context, to out. Lines below Warn are gathered for some 50ms: flush writes what is left and must be called
// before the process ends.
func Logger(out io.Writer, format string, level slog.Level) (log *slog.Logger, flush func()) {
	l := &lines{out: out}
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(l, opts)
	if format == "json" {
		h = slog.NewJSONHandler(l, opts)
	}
	return slog.New(WithTrace(urgent{h, l})), l.flush
}

// WithTrace gives a handler that adds the trace of a line's context.
func WithTrace(h slog.Handler) slog.Handler { return traced{h} }

type traced struct{ slog.Handler }

func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if id := TraceID(ctx); id != "" {
		r.AddAttrs(slog.String("trace_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }

func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }
