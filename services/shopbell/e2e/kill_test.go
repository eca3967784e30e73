package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// flood is a publisher who gives everything an id and repeats what was not answered 202.
type flood struct {
	h     *house
	shop  string
	total int

	next, accepted, repeated, duplicate atomic.Int64
}

// run publishes events 0 to total-1, in batches and alone, from several connections, until all are accepted or ctx ends.
func (f *flood) run(ctx context.Context) {
	var publishers sync.WaitGroup
	for range 4 {
		publishers.Go(func() {
			for ctx.Err() == nil {
				// 40 together, and then 10 alone.
				first := int(f.next.Add(50)) - 50
				if first >= f.total {
					return
				}
				f.publish(ctx, first, min(first+40, f.total))
				for i := first + 40; i < min(first+50, f.total); i++ {
					f.publish(ctx, i, i+1)
				}
			}
		})
	}
	publishers.Wait()
}

func (f *flood) id(i int) string { return fmt.Sprintf("flood-%05d", i) }

func (f *flood) publish(ctx context.Context, from, to int) {
	var events []string
	for i := from; i < to; i++ {
		events = append(events, fmt.Sprintf(`{"id":%q,"type":"order.created","key":"order:%d","data":{"n":%d,"total": 549.50,"note":%q}}`,
			f.id(i), i%100, i, strings.Repeat("Tulips, 30 colours. ", 10)))
	}
	body := strings.Join(events, ",")
	if len(events) > 1 {
		body = "[" + body + "]"
	}
	for ; ctx.Err() == nil; f.repeated.Add(1) {
		r, err := f.h.try(ctx, "POST", "/v1/shops/"+f.shop+"/events", []byte(body))
		if err == nil && r.code == http.StatusAccepted {
			f.accepted.Add(int64(to - from))
			f.duplicate.Add(int64(strings.Count(string(r.body), `"duplicate"`)))
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestKill_NoAcceptedEventIsLost(t *testing.T) {
	const total = 10_000
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		// Every 37th fails at first, so that timers are pending at every kill.
		failed := map[string]bool{}
		r.answerBy("/hook", func(in *received) answer {
			n := in.order()
			var number int
			if _, err := fmt.Sscan(n, &number); err == nil && number%37 == 0 && !failed[n] {
				failed[n] = true
				return answer{code: 500}
			}
			return answer{}
		})
		h.newWebhook(t, "blomster", r.url+"/hook", policy("1s", "1s", "1s", "1s", "1s"))
		begun := time.Now()
		f := &flood{h: h, shop: "blomster", total: total}
		done := make(chan struct{})
		go func() { defer close(done); f.run(t.Context()) }()
		victims := []string{"all", "all", "all"}
		if h.way == many {
			victims = []string{"sender", "subscription", "log", "ingest", busServer}
		}
		for i, victim := range victims {
			awaitAccepted(t, f, total*(i+1)/(len(victims)+1))
			h.kill(t, victim)
			h.start(t, victim)
		}
		awaitAccepted(t, f, total)
		<-done
		t.Logf("all accepted after %s, with %d requests repeated and %d events answered duplicate", time.Since(begun).Round(time.Millisecond), f.repeated.Load(), f.duplicate.Load())

		arrived := awaitArrivals(t, r, "/hook", total)
		t.Logf("all arrived after %s", time.Since(begun).Round(time.Millisecond))
		awaitDelivered(t, h, "blomster", total)
		t.Logf("the log is complete after %s", time.Since(begun).Round(time.Millisecond))
		twice, ids := 0, map[string]bool{}
		for _, list := range arrived {
			twice += len(list) - 1
			for _, id := range list {
				ids[id] = true
			}
		}
		t.Logf("duplicates: %d of %d deliveries came more than once after they had been answered 200", twice, total)
		if len(ids) != total {
			t.Errorf("got %d delivery ids for %d events, want one each", len(ids), total)
		}
		for i := 0; i < total; i += 97 {
			e := h.awaitEvent(t, "blomster", f.id(i), allAre("delivered", 1))
			e.Story.says(t, "accepted", "matched to 1 of 1 webhook", "attempt", "delivered")
		}
		t.Logf("stories are whole after %s", time.Since(begun).Round(time.Millisecond))
	})
}

func awaitAccepted(t *testing.T, f *flood, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events are accepted", n), func() error {
		if got := int(f.accepted.Load()); got < n {
			return fmt.Errorf("got %d", got)
		}
		return nil
	})
}

// awaitArrivals waits until every event from 0 to n-1 has been delivered, and gives the delivery ids of each by its
// number: one for every time that it was answered 200.
func awaitArrivals(t *testing.T, r *receiver, path string, n int) map[string][]string {
	t.Helper()
	arrived := map[string][]string{}
	seen := 0
	eventually(t, "every event has arrived", func() error {
		all := r.at(path)
		for _, in := range all[seen:] {
			if in.code == http.StatusOK {
				arrived[in.order()] = append(arrived[in.order()], in.id())
			}
		}
		if seen = len(all); len(arrived) < n {
			return fmt.Errorf("%d have; the first that has not is %s", len(arrived), firstMissing(arrived, n))
		}
		return nil
	})
	return arrived
}

func firstMissing(arrived map[string][]string, n int) string {
	for i := range n {
		if len(arrived[fmt.Sprint(i)]) == 0 {
			return fmt.Sprint(i)
		}
	}
	return "none"
}

// awaitDelivered waits until the log has n deliveries of the shop, and all of them are delivered.
func awaitDelivered(t *testing.T, h *house, shop string, n int) {
	t.Helper()
	eventually(t, "the log says of every delivery that it is delivered", func() error {
		statuses, events := map[string]int{}, map[string]bool{}
		undelivered := ""
		token := ""
		for {
			r, err := h.try(t.Context(), "GET", "/v1/shops/"+shop+"/deliveries?page_size=500&page_token="+token, nil)
			if err != nil || r.code != http.StatusOK {
				return fmt.Errorf("list: %d %s %w", r.code, r.body, err)
			}
			var page struct {
				Deliveries    []delivery
				NextPageToken string `json:"next_page_token"`
			}
			if err := json.Unmarshal(r.body, &page); err != nil {
				return err
			}
			for _, d := range page.Deliveries {
				statuses[d.Status]++
				events[d.EventID] = true
				if d.Status != "delivered" {
					undelivered = d.ID + " of " + d.EventID
				}
			}
			if token = page.NextPageToken; token == "" {
				break
			}
		}
		if statuses["delivered"] != n || len(events) != n || len(statuses) != 1 {
			return fmt.Errorf("got %v of %d events, such as %s", statuses, len(events), undelivered)
		}
		return nil
	})
}
