package subscription

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
)

func TestBursts_YieldToWhatIsPublishedOneByOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var late time.Duration // after its acceptance each single event is published
	singles := 0
	publish := func() {
		e := happened(fmt.Sprint("single_", singles), "paid")
		singles++
		e.AcceptedAt = time.Now().Add(-late)
		if err := b.bus.Publish(t.Context(), e.Message()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // a hundred a second: enough are seen in each quarter of it
	}
	for singles < 100 {
		publish()
	}
	const burst = 4000
	var msgs []*nats.Msg
	for i := range burst {
		e := happened(fmt.Sprint("burst_", i), "paid")
		e.Bulk = true
		msgs = append(msgs, e.Message())
	}
	late = time.Second
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		publish()
	}
	before := singles
	matchedOfBurst := func() int { return int(testutil.ToFloat64(b.Subscription.decided)) - singles }
	published := make(chan error, 1)
	go func() { published <- b.bus.Publish(t.Context(), msgs...) }() // single events come meanwhile, too
	// Where the machine stops for long nobody comes to whom the burst could yield: what is matched then, and until it is seen
	// that others come again, does not count.
	beside, had := 0, matchedOfBurst()
	last, stopped := time.Now(), time.Time{}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		publish()
		now, has := time.Now(), matchedOfBurst()
		if now.Sub(last) > time.Second/2 {
			stopped = now
		}
		if now.Sub(stopped) > 2*time.Second {
			beside += has - had
		}
		last, had = now, has
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	if beside > burst/2 {
		t.Errorf("%d of %d events of a burst were matched while others were late", beside, burst)
	}
	reader, err := b.js.Consumer(t.Context(), contract.Events, contract.BulkMatcher)
	if err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "few events that were matched are not acked, and would be matched again after a kill", func() bool {
		publish() // the burst goes on yielding
		matched := matchedOfBurst()
		now, err := reader.Info(t.Context()) // an ack takes a moment
		if err != nil {
			t.Fatal(err)
		}
		acked := int(now.Delivered.Consumer) - now.NumAckPending
		t.Logf("%d of the burst were matched and %d acked beside %d single events", matched, acked, singles-before)
		return matched-acked <= 8*togetherOfBursts
	})
	testwait.Until(t, "the burst is matched when nobody is late for it", func() bool {
		return int(testutil.ToFloat64(b.Subscription.decided)) == burst+singles
	})
}

func TestBursts_CountByTheDeliveriesThatTheyMake(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		events, made int
		perSecond    float64
		want         int
	}{
		{8, 8000, 0, 8000},
		{8, 0, 1000, 8}, // that nobody wants it has to be found out, too
		{8, 24, 1000, 24},
		{8, 8000, 1000, 40}, // no event waits for longer than it takes to match the least of them
		{8, 8000, leastOfBursts, 8},
		{8, 8000, leastOfBursts / 2, 8},
	} {
		if got := costOfBurst(row.events, row.made, row.perSecond); got != row.want {
			t.Errorf("%d deliveries of %d events count for %d at %v a second, want %d", row.made, row.events, got, row.perSecond, row.want)
		}
	}
}
