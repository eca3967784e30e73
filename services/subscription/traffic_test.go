package subscription

import (
	"testing"
	"time"
)

func TestTraffic_BurstsRestForSingleEventsUntilTheyAreLateThemselves(t *testing.T) {
	t.Parallel()
	const took = time.Millisecond
	for _, tt := range []struct {
		name       string
		singles    time.Duration // ago
		late, want time.Duration
	}{
		{"nobody else publishes", time.Hour, 0, 0},
		{"a single event was matched just now", 0, 0, 9 * took},
		{"and a while ago", lately, 0, 9 * took},
		{"and longer ago", lately + 1, 0, 0},
		{"the burst begins to be late", 0, burstLate / 2, 9 * took / 2},
		{"it is late", 0, burstLate, 0},
		{"it is very late", 0, time.Hour, 0},
	} {
		var s traffic
		now := time.Unix(1_800_000_000, 0)
		s.single.Store(now.Add(-tt.singles).UnixNano())
		s.burstLate.Store(int64(tt.late))
		if got := s.rest(2, took, now); got != tt.want {
			t.Errorf("%s: rests for %s, want %s", tt.name, got, tt.want)
		}
	}
}
