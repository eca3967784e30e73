package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// What the publisher's own trace is called, and the span in it that publishes.
const (
	publishersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	publishersSpan  = "00f067aa0ba902b7"
)

func TestTrace_IsOneFromThePublisherToTheReceiverAndTheLog(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, h *house){
		"kill": func(t *testing.T, h *house) { h.kill(t, "sender") },
		"stop": func(t *testing.T, h *house) { h.stop(t, "sender") },
	} {
		t.Run("through a retry and a "+name, func(t *testing.T) {
			t.Parallel()
			for _, way := range []string{one, many} {
				t.Run(way, func(t *testing.T) {
					t.Parallel()
					// The collector goes last: processes send it their last spans when they stop.
					c := newCollector(t)
					h := open(t, way, settings{"OTEL_EXPORTER_OTLP_ENDPOINT": c.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"})
					checkTrace(t, h, c, end)
				})
			}
		})
	}
}

func checkTrace(t *testing.T, h *house, c *collected, end func(t *testing.T, h *house)) {
	r := newReceiver(t)
	r.answer("/hook", answer{code: 500}, answer{code: 500}, answer{code: 200})
	h.newWebhook(t, "blomster", r.url+"/hook", policy("0.2s", "8s")) // long enough for the kill or the stop to come before the third attempt
	traceparent := "00-" + publishersTrace + "-" + publishersSpan + "-01"
	id := h.publish(t, "blomster", numbered("a", 1), "traceparent", traceparent)[0].ID
	r.await(t, "/hook", 2)
	traced := func(attempts int) func() error {
		return func() error {
			spans := c.of(publishersTrace)
			// The log writes the event, the decision and each attempt.
			if a, l := len(named(spans, "attempt")), len(named(spans, "write to the log")); a < attempts || l < attempts+2 {
				return fmt.Errorf("got %d attempts, and %d times the log", a, l)
			}
			return orphans(spans)
		}
	}
	eventually(t, "two attempts are traced, and nothing hangs in the air", traced(2))
	end(t, h)
	h.start(t, "sender")
	e := h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
	eventually(t, "three attempts are traced, and nothing hangs in the air", traced(3))

	spans := c.of(publishersTrace)
	for name, service := range map[string]string{"publish events": "ingest", "match webhooks": "subscription", "attempt": "sender", "write to the log": "log"} {
		got := named(spans, name)
		if len(got) == 0 {
			t.Errorf("no span %q is in the publisher's trace: %v", name, spans)
			continue
		}
		if want := "shopbell-" + service; h.way == many && got[0].service != want {
			t.Errorf("span %q is of service %s, want %s", name, got[0].service, want)
		}
		if name != "write to the log" && !strings.Contains(got[0].attributes["shop_id"], "blomster") {
			t.Errorf("span %q: got attributes %v, want the shop_id", name, got[0].attributes)
		}
	}
	for i, in := range r.at("/hook") {
		parts := strings.Split(in.header.Get("traceparent"), "-")
		if len(parts) != 4 || parts[1] != publishersTrace || parts[3] != "01" {
			t.Errorf("request %d: got traceparent %q, want the publisher's trace, %s", i+1, in.header.Get("traceparent"), publishersTrace)
			continue
		}
		if !hasSpan(named(spans, "attempt"), parts[2]) {
			t.Errorf("request %d: its traceparent names span %s, which is no attempt's", i+1, parts[2])
		}
	}
	if e.TraceID != publishersTrace {
		t.Errorf("the event's trace_id: got %q, want %q", e.TraceID, publishersTrace)
	}
	for _, a := range e.Story.Deliveries[0].Attempts {
		if a.TraceID != publishersTrace {
			t.Errorf("attempt %d's trace_id: got %q, want %q", a.Number, a.TraceID, publishersTrace)
		}
	}
	for _, s := range spans {
		for name, value := range s.attributes {
			if strings.Contains(value, "549.50") || strings.Contains(value, "whsec_") {
				t.Errorf("span %q holds what nobody else may see: %s=%s", s.name, name, value)
			}
		}
	}
}

func named(spans []span, name string) (out []span) {
	for _, s := range spans {
		if s.name == name {
			out = append(out, s)
		}
	}
	return out
}

func hasSpan(spans []span, id string) bool {
	for _, s := range spans {
		if s.id == id {
			return true
		}
	}
	return false
}

// orphans says which spans hang on nothing.
func orphans(spans []span) error {
	for _, s := range spans {
		if s.parent != publishersSpan && !hasSpan(spans, s.parent) {
			return fmt.Errorf("%s %q has parent %q, which nobody sent", s.service, s.name, s.parent)
		}
	}
	return nil
}

// Without a publisher's trace and without anybody who collects, an event still has one trace id.
func TestTrace_HasAnIDEvenWhenNobodyCollects(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook")
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		e := h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		parts := strings.Split(r.await(t, "/hook", 1)[0].header.Get("traceparent"), "-")
		if len(parts) != 4 || len(parts[1]) != 32 || e.TraceID != parts[1] || e.Story.Deliveries[0].Attempts[0].TraceID != parts[1] {
			t.Errorf("got trace ids %q in the event, %q in the attempt and %v at the receiver, want the same", e.TraceID, e.Story.Deliveries[0].Attempts[0].TraceID, parts)
		}
	})
}
