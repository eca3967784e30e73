package ingest

import (
	"fmt"
	"testing"
	"time"
)

func TestBursts_AreWhatAShopPublishesBeyondItsShare(t *testing.T) {
	t.Parallel()
	b := bursts{perSecond: 10}
	now := time.Now()
	for i, row := range []struct {
		after time.Duration
		shop  string
		n     int
		want  bool
	}{
		{0, "hot", 50, false},                      // five seconds' worth
		{0, "hot", 1, true},                        // and one more
		{0, "small", 1, false},                     // which is nothing to others
		{100 * time.Millisecond, "hot", 1, false},  // a tenth of a second is worth one
		{100 * time.Millisecond, "hot", 100, true}, // more than it can ever have
		{time.Minute, "hot", 50, false},
	} {
		now = now.Add(row.after)
		if got := b.take(row.shop, row.n, now); got != row.want {
			t.Errorf("row %d: %d events of %s are a burst: %v, want %v", i, row.n, row.shop, got, row.want)
		}
	}
	none := bursts{}
	if none.take("hot", 1_000_000, now) {
		t.Error("bursts are told apart, and should not be")
	}
}

func TestBursts_ForgetQuietShops(t *testing.T) {
	t.Parallel()
	b := bursts{perSecond: 10}
	now := time.Now()
	for i := range maxShops {
		b.take(fmt.Sprint(i), 1, now)
	}
	b.take("busy", 50, now.Add(time.Minute))
	if got := len(b.shops); got != 1 {
		t.Errorf("%d shops are remembered, want the one that is new", got)
	}
}
