package e2e

import (
	"context"
	"encoding/hex"
	"net"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// collected is the spans that processes have sent.
type collected struct {
	collector.UnimplementedTraceServiceServer
	endpoint string

	mu    sync.Mutex // guards spans
	spans []span
}

// span is a span, as far as the tests look at it.
type span struct {
	trace, id, parent, name, service string
	attributes                       map[string]string
}

// newCollector starts a receiver of OTLP over gRPC.
func newCollector(t *testing.T) *collected {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collected{endpoint: "http://" + l.Addr().String()}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, c)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return c
}

// Export takes spans.
func (c *collected) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range req.GetResourceSpans() {
		service := ""
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, newSpan(s, service))
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func newSpan(s *trace.Span, service string) span {
	out := span{
		trace: hex.EncodeToString(s.GetTraceId()), id: hex.EncodeToString(s.GetSpanId()), parent: hex.EncodeToString(s.GetParentSpanId()),
		name: s.GetName(), service: service, attributes: map[string]string{},
	}
	for _, a := range s.GetAttributes() {
		out.attributes[a.GetKey()] = a.GetValue().String()
	}
	return out
}

// of is the spans of a trace.
func (c *collected) of(traceID string) (out []span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.trace == traceID {
			out = append(out, s)
		}
	}
	return out
}
