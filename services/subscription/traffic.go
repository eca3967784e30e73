package subscription

import (
	"sync"
	"time"
)

const (
	// burstsAtOnce is how many events of bursts are matched together at most: what they make comes before what a single event
	// makes that is matched a moment later.
	burstsAtOnce = 64
	// burstShare is which part of one worker's time bursts have beside single events of other shops, as long as they are not late. All
	// that an event costs behind its matching, up to its place in the log, comes at the pace at which it is matched.
	burstShare = 0.2
	// burstLate is how late bursts may become for the sake of single events. Then they have all the time that there is.
	burstLate = 50 * time.Millisecond
	// lately is for how long single events count as there.
	lately = time.Second
)

// traffic is what is known of the events that come. Its zero value is ready. It may be used at once.
type traffic struct {
	mu     sync.Mutex // guards what follows
	latest [2]sighting
	shop   string        // whose burst was matched last
	late   time.Duration // how long after its acceptance
}

// sighting is a single event that was matched.
type sighting struct {
	shop string
	at   time.Time
}

// single is told of a single event that was matched. Of two shops it is remembered: one of them is another than that of a burst.
func (t *traffic) single(shop string, at time.Time) {
	if shop == "" {
		return // it was none
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.latest[0].shop != shop {
		t.latest[1] = t.latest[0]
	}
	t.latest[0] = sighting{shop, at}
}

// burst is told of a burst that was matched.
func (t *traffic) burst(shop string, late time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shop, t.late = shop, late
}

// rest is how long a worker rests that has matched events of a burst, so that they are spread over time and leave room between
// them for other shops' single events. Where there are none it does not.
func (t *traffic) rest(workers int, took time.Duration, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	others := t.latest[0]
	if others.shop == t.shop {
		others = t.latest[1]
	}
	if now.Sub(others.at) > lately || t.late >= burstLate {
		return 0
	}
	patience := 1 - float64(t.late)/float64(burstLate)
	return time.Duration(float64(took) * (float64(workers)/burstShare - 1) * patience)
}
