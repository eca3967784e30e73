package gateway

import (
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestCell_IsWhatATableTakesForText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "order_created": "order_created", "=1+1": "'=1+1", "+45": "'+45", "-a": "'-a", "@import": "'@import", "\tx": "'\tx", "a=b": "a=b", "Ærø": "Ærø",
	} {
		m := &logv1.ExportedAttempt{EventType: text}
		if got := cell(m.ProtoReflect(), "event_type"); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	m := &logv1.ExportedAttempt{Attempt: &shopbellv1.Attempt{
		Number: 2, DurationMs: 1.5, ByHand: true, StartedAt: &timestamppb.Timestamp{Seconds: 1_777_000_000}, Error: "=x",
	}}
	for path, want := range map[string]string{
		"attempt.number": "2", "attempt.duration_ms": "1.5", "attempt.by_hand": "true", "attempt.started_at": "2026-04-24T03:06:40Z",
		"attempt.next_attempt_at": "", "attempt.error": "'=x",
	} {
		if got := cell(m.ProtoReflect(), path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestColumns_AreThere(t *testing.T) {
	t.Parallel()
	for _, path := range deliveryColumns {
		_ = cell((&shopbellv1.Delivery{}).ProtoReflect(), path) // panics for one that is not
	}
	for _, path := range attemptColumns {
		_ = cell((&logv1.ExportedAttempt{}).ProtoReflect(), path)
	}
}
