package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// The kinds of load.
const (
	bare    = "bare signed POST"
	singles = "single events"
	batches = "batches of 100"
	steady  = "steady"
)

// load is events that are published in one way.
type load struct {
	kind   string
	events int
	send   func(ctx context.Context, shop string, n int) (late time.Duration, err error)
}

// row is what was measured of one load.
type row struct {
	kind       string
	fan        int // 0 for the bare limit
	deliveries int
	took       time.Duration   // from the first publish until the log had written everything
	cpu        time.Duration   // of serve in that time, or of the bare client
	latency    []time.Duration // from publish to the receiver
	late       time.Duration   // the publisher's greatest delay
	peak       int             // bytes
	body       int             // bytes, on average
	repeats    int             // of deliveries that had arrived
}

func (r row) perThousand() float64 { return r.cpu.Seconds() * 1000 / float64(r.deliveries) }
func (r row) perSecond() float64   { return float64(r.deliveries) / r.took.Seconds() }

// meter measures one serve.
type meter struct {
	serve     *serve
	receiver  *receiver
	publisher publisher
	fan       int
	rules     rules
}

// measure publishes a load after a warm-up of the same kind, each in a shop of its own.
func (m *meter) measure(ctx context.Context, l load) (row, error) {
	shop := fmt.Sprintf("%s-%d", strings.ReplaceAll(l.kind, " ", "-"), m.fan)
	if _, err := m.run(ctx, l, shop+"-warm-up", min(l.events, max(200, l.events/10))); err != nil {
		return row{}, fmt.Errorf("warm-up: %w", err)
	}
	m.serve.profiling(profileOn)
	return m.run(ctx, l, shop, l.events)
}

// run publishes events of a new shop, waits until all has arrived and is in the log, and fails if that does not
// come to pass.
func (m *meter) run(ctx context.Context, l load, shop string, events int) (row, error) {
	if err := m.publisher.register(ctx, shop, m.receiver.url, m.fan, m.rules); err != nil {
		return row{}, err
	}
	return m.runIn(ctx, l, shop, events)
}

// runIn is run in a shop that has its webhooks, of which as many as the fan-out want each event.
func (m *meter) runIn(ctx context.Context, l load, shop string, events int) (row, error) {
	r := row{kind: l.kind, fan: m.fan, deliveries: events * m.fan}
	m.serve.forgetPeak()
	before, err := m.serve.cpu()
	if err != nil {
		return r, err
	}
	began := time.Now()
	if r.late, err = l.send(ctx, shop, events); err != nil {
		return r, err
	}
	if err := m.receiver.await(ctx, shop, &r); err != nil {
		return r, err
	}
	done, cpu, err := m.awaitWhole(ctx, shop, events)
	if err != nil {
		return r, err
	}
	m.serve.profiling(profileOff)
	r.took, r.cpu = done.Sub(began), cpu-before
	r.peak, err = m.serve.peak()
	return r, err
}

// awaitWhole waits until the log has written everything and every event of a shop is in it as delivered, and gives what
// awaitLog does.
func (m *meter) awaitWhole(ctx context.Context, shop string, events int) (done time.Time, cpu time.Duration, err error) {
	for deadline := time.Now().Add(patience); ; {
		if done, cpu, err = m.awaitLog(ctx); err != nil {
			return done, cpu, err
		}
		if err := m.checkLog(ctx, shop, events); err == nil || time.Now().After(deadline) {
			return done, cpu, err
		}
	}
}

// The log has written everything when it has written nothing for settled. What serve does within the tail of that is
// still its work (acks, a checkpoint); later, what our asking costs would weigh more.
const (
	settled = 700 * time.Millisecond
	tail    = 200 * time.Millisecond
)

// awaitLog waits until the log has written everything. It gives the time at which it had, and serve's CPU time by then.
func (m *meter) awaitLog(ctx context.Context) (done time.Time, cpu time.Duration, err error) {
	last := -1.0
	for done = time.Now(); time.Since(done) < settled; time.Sleep(50 * time.Millisecond) {
		n, err := m.serve.written(ctx)
		if err != nil {
			return done, cpu, err
		}
		if n != last {
			last, done = n, time.Now()
		}
		if time.Since(done) < tail {
			if cpu, err = m.serve.cpu(); err != nil {
				return done, cpu, err
			}
		}
	}
	return done, cpu, nil
}

// checkLog reads the log over REST and checks that every event of a shop was delivered to each of its webhooks.
func (m *meter) checkLog(ctx context.Context, shop string, events int) error {
	got := map[string]map[string]bool{} // the webhooks that an event was delivered to
	next := ""
	for more := true; more; more = next != "" {
		var page struct {
			Deliveries []struct {
				EventID   string `json:"event_id"`
				WebhookID string `json:"webhook_id"`
			}
			Next string `json:"next_page_token"`
		}
		if err := getJSON(ctx, m.serve.url+"/v1/shops/"+shop+"/deliveries?status=delivered&page_size=500&page_token="+url.QueryEscape(next), &page); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		for _, d := range page.Deliveries {
			if got[d.EventID] == nil {
				got[d.EventID] = map[string]bool{}
			}
			got[d.EventID][d.WebhookID] = true
		}
		next = page.Next
	}
	missing, example := 0, ""
	for i := range events {
		if n := m.fan - len(got[eventID(i)]); n > 0 {
			missing, example = missing+n, eventID(i)
		}
	}
	if missing > 0 {
		return fmt.Errorf("the log is not whole: %d of %d deliveries that arrived are not in it as delivered, such as those of event %s of shop %s", missing, events*m.fan, example, shop)
	}
	return nil
}
