package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"shopbell.dev/pkg/telemetry"
)

// The log keeps an attempt's trace, and the receiver is sent it, also where nobody collects traces.
func TestStart_GivesTraceIDsWithoutAnEndpoint(t *testing.T) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"} {
		t.Setenv(name, "")
	}
	tel, err := telemetry.Start(t.Context(), "shopbell-test", "dev")
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.Tracer("sender").Start(t.Context(), "attempt")
	defer span.End()
	if span.IsRecording() {
		t.Error("a span is recorded that nobody collects")
	}
	id := telemetry.TraceID(ctx)
	if len(id) != 32 {
		t.Errorf("trace id %q, want 32 hex digits", id)
	}
	child, inner := tel.Tracer("log").Start(ctx, "write")
	defer inner.End()
	if got := telemetry.TraceID(child); got != id {
		t.Errorf("a child has trace %q, want its parent's %q", got, id)
	}
	if err := tel.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	if got := telemetry.TraceID(context.Background()); got != "" {
		t.Errorf("no trace has the id %q", got)
	}
}

// Two processes of a test, or rooms of one, must not share what they count.
func TestStart_SharesNothing(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	for range 2 {
		tel, err := telemetry.Start(t.Context(), "shopbell-test", "dev")
		if err != nil {
			t.Fatal(err)
		}
		families, err := tel.Metrics.Gather()
		if err != nil || len(families) == 0 {
			t.Errorf("%d metrics, %v", len(families), err)
		}
	}
}

// A collector that is away must not keep a process from starting or stopping.
func TestStart_DoesNotWaitForACollector(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
		begun := time.Now()
		tel, err := telemetry.Start(t.Context(), "shopbell-test", "dev")
		if err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		_, span := tel.Tracer("sender").Start(t.Context(), "attempt")
		if !span.IsRecording() {
			t.Errorf("%s: nothing is recorded although there is an endpoint", protocol)
		}
		span.End()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_ = tel.Stop(ctx)
		cancel()
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: start and stop took %s", protocol, took)
		}
	}
}

func TestWithTrace_AddsTheTraceToALine(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	tel, err := telemetry.Start(t.Context(), "shopbell-test", "dev")
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.Tracer("sender").Start(t.Context(), "attempt")
	defer span.End()
	var out bytes.Buffer
	log := slog.New(telemetry.WithTrace(slog.NewJSONHandler(&out, nil))).With(slog.String("room", "sender"))
	log.InfoContext(ctx, "attempt")
	log.InfoContext(t.Context(), "no trace")
	dec := json.NewDecoder(&out)
	for _, want := range []string{telemetry.TraceID(ctx), ""} {
		var line map[string]any
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		got, _ := line["trace_id"].(string)
		if got != want || line["room"] != "sender" {
			t.Errorf("line %v, want trace_id %q", line, want)
		}
	}
}
