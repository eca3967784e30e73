package subscription

import (
	"testing"
	"time"
)

func TestTraffic_BurstsRestForOthersUntilTheyAreLateThemselves(t *testing.T) {
	t.Parallel()
	const took = time.Millisecond
	now := time.Unix(1_800_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tt := range []struct {
		name       string
		singles    []sighting
		late, want time.Duration
	}{
		{"nobody else publishes", nil, 0, 0},
		{"its own shop publishes single events too", []sighting{{"hot", ago(0)}}, 0, 0},
		{"another shop's single event was matched just now", []sighting{{"small", ago(0)}}, 0, 9 * took},
		{"and a while ago", []sighting{{"small", ago(lately)}}, 0, 9 * took},
		{"and longer ago", []sighting{{"small", ago(lately + 1)}}, 0, 0},
		{"its own shop's came after it", []sighting{{"small", ago(2)}, {"hot", ago(1)}, {"hot", ago(0)}}, 0, 9 * took},
		{"the burst begins to be late", []sighting{{"small", ago(0)}}, burstLate / 2, 9 * took / 2},
		{"it is late", []sighting{{"small", ago(0)}}, burstLate, 0},
		{"it is very late", []sighting{{"small", ago(0)}}, time.Hour, 0},
	} {
		var s traffic
		for _, single := range tt.singles {
			s.single(single.shop, single.at)
		}
		s.burst("hot", tt.late)
		if got := s.rest(2, took, now); got != tt.want {
			t.Errorf("%s: rests for %s, want %s", tt.name, got, tt.want)
		}
	}
}
