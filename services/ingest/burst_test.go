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
		{0, "hot", 10, false},                      // a second's worth
		{0, "hot", 1, true},                        // and one more
		{0, "small", 1, false},                     // which is nothing to others
		{200 * time.Millisecond, "hot", 1, false},  // a fifth of a second is worth two
		{100 * time.Millisecond, "hot", 100, true}, // more than it can ever have
		{900 * time.Millisecond, "hot", 1, true},   // which counts for two seconds' worth
		{300 * time.Millisecond, "hot", 1, false},
		{time.Minute, "hot", 10, false},
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

func TestBursts_AreAllThatAShopPublishesWhileItGoesOn(t *testing.T) {
	t.Parallel()
	b := bursts{perSecond: 10}
	now := time.Now()
	single := map[string]int{}
	for range 1000 { // of 10 ms
		now = now.Add(10 * time.Millisecond)
		if !b.take("hot", 1, now) {
			single["hot"]++
		}
		if now.UnixMilli()/10%10 == 0 && !b.take("steady", 1, now) {
			single["steady"]++
		}
	}
	if single["hot"] > 12 || single["steady"] != 100 {
		t.Errorf("%v go as single events, want of the hot shop what it publishes in its first second, and all of the one that keeps to its share", single)
	}
}

func TestBursts_ForgetQuietShops(t *testing.T) {
	t.Parallel()
	b := bursts{perSecond: 10}
	now := time.Now()
	for i := range maxShops {
		b.take(fmt.Sprint(i), 1, now)
	}
	b.take("busy", 10, now.Add(time.Minute))
	if got := len(b.shops); got != 1 {
		t.Errorf("%d shops are remembered, want the one that is new", got)
	}
}
