package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// another starts one more process of a room, beside those that there are.
func (h *house) another(t *testing.T, room string) *process {
	t.Helper()
	first := h.process(room)
	http := strings.TrimSuffix(strings.TrimPrefix(first.ready, "http://"), "/readyz")
	newHTTP := freeAddress(t)
	change := strings.NewReplacer(http, newHTTP, h.grpc[room], freeAddress(t))
	var env []string
	for _, entry := range first.env {
		env = append(env, change.Replace(entry))
	}
	h.add(t, &process{name: room + " too", path: first.path, env: env, ready: change.Replace(first.ready)})
	p := h.processes[len(h.processes)-1]
	p.begin(t)
	p.awaitReady(t)
	return p
}

// tally is a receiver that counts, for each path, what is under way at once and in which order things come.
type tally struct {
	url  string
	down func(path string) bool

	mu    sync.Mutex // guards spots
	spots map[string]*tallied
}

type tallied struct {
	now, most int
	answered  int   // 200
	order     []int // the numbers of the events, each when it was first answered 200
	seen      map[int]bool
}

func newTally(t *testing.T) *tally {
	t.Helper()
	ta := &tally{spots: map[string]*tallied{}, down: func(string) bool { return false }}
	server := httptest.NewServer(ta)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	ta.url = server.URL
	return ta
}

func (ta *tally) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var e struct{ Data struct{ N int } }
	_ = json.Unmarshal(body, &e) // 0 where it is none
	ta.mu.Lock()
	s := ta.spots[r.URL.Path]
	if s == nil {
		s = &tallied{seen: map[int]bool{}}
		ta.spots[r.URL.Path] = s
	}
	s.now++
	s.most = max(s.most, s.now)
	down := ta.down(r.URL.Path)
	ta.mu.Unlock()
	time.Sleep(time.Millisecond) // a receiver's time, in which others come
	ta.mu.Lock()
	defer ta.mu.Unlock()
	s.now--
	if down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.answered++
	if !s.seen[e.Data.N] {
		s.seen[e.Data.N] = true
		s.order = append(s.order, e.Data.N)
	}
}

// sums are over all paths: how many different events came, and how many came again.
func (ta *tally) sums() (distinct, again int) {
	ta.mu.Lock()
	defer ta.mu.Unlock()
	for _, s := range ta.spots {
		distinct += len(s.order)
		again += s.answered - len(s.order)
	}
	return distinct, again
}

func TestLanes_HoldOverKillsOfSenders(t *testing.T) {
	t.Parallel()
	const (
		webhooks = 40
		rounds   = 60
		kills    = 3
		places   = 2 // of each webhook
	)
	h := open(t, many, nil)
	senders := []*process{h.process("sender"), h.another(t, "sender"), h.another(t, "sender")}
	ta := newTally(t)
	sick := true // a quarter of each kind; read and written with the tally's lock
	ta.down = func(path string) bool {
		n, _ := strconv.Atoi(strings.TrimPrefix(path, "/"))
		return sick && n%8 < 2
	}
	kinds := []string{"none", "none", "webhook", "key"}
	for i := range webhooks {
		h.newWebhook(t, "blomster", fmt.Sprintf("%s/%d", ta.url, i), fmt.Sprintf(`"events": ["to.%d"]`, i), fmt.Sprintf(
			`"policy": {"timeout": "20s", "max_in_flight": %d, "ordered": %q, "retry_schedule": ["1s", "2s", "5s", "10s", "20s", "40s", "40s", "40s"], "jitter": false}`, places, kinds[i%len(kinds)]))
	}
	for round := range rounds {
		var batch []string
		for i := range webhooks {
			batch = append(batch, fmt.Sprintf(`{"id":"e-%d-%d","type":"to.%d","key":"k%d","data":{"n":%d}}`, i, round, i, round%5, round))
		}
		h.publish(t, "blomster", strings.Join(batch, "\n"), "Content-Type", "application/x-ndjson")
		if round%(rounds/(kills+1)) == rounds/(kills+1)-1 && round < rounds-1 {
			victim := senders[round/(rounds/(kills+1))%len(senders)]
			victim.kill(t)
			victim.begin(t)
			victim.awaitReady(t)
		}
		time.Sleep(50 * time.Millisecond) // so that the kills fall among three seconds of events
	}
	ta.mu.Lock()
	sick = false
	ta.mu.Unlock()
	eventually(t, "everything has arrived", func() error {
		if distinct, _ := ta.sums(); distinct < webhooks*rounds {
			return fmt.Errorf("%d of %d have", distinct, webhooks*rounds)
		}
		return nil
	})
	_, again := ta.sums()
	t.Logf("%d of %d deliveries came again", again, webhooks*rounds)
	if bound := kills * webhooks * places; again > bound {
		t.Errorf("%d came again, want at most the %d that can have been in flight", again, bound)
	}
	ta.mu.Lock()
	defer ta.mu.Unlock()
	for path, s := range ta.spots {
		n, _ := strconv.Atoi(strings.TrimPrefix(path, "/"))
		last := map[int]int{}
		key := func(number int) int { return number % 5 }
		switch kinds[n%len(kinds)] {
		case "webhook":
			key = func(int) int { return 0 }
			if s.most > 1 {
				t.Errorf("webhook %d, in order: %d at once", n, s.most)
			}
		case "none":
			continue
		}
		for _, number := range s.order {
			if before, ok := last[key(number)]; ok && before > number {
				t.Errorf("webhook %d, in order by %s: %d arrived before %d", n, kinds[n%len(kinds)], before, number)
			}
			last[key(number)] = number
		}
	}
}

func TestBurst_DoesNotDelayOtherShops(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		ta := newTally(t)
		const (
			batch    = 1000 // events that are published at once
			webhooks = 4    // of the shop that publishes them: accepting is quicker than delivering, on any machine
			waiting  = 3 * batch * webhooks
		)
		for i := range webhooks {
			h.newWebhook(t, "hot", fmt.Sprintf("%s/hot/%d", ta.url, i))
		}
		h.newWebhook(t, "small", ta.url+"/small")
		counted := func() (burst int) { // is called with the tally's lock
			for path, s := range ta.spots {
				if path != "/small" {
					burst += len(s.order)
				}
			}
			return burst
		}
		arrived := func() int {
			ta.mu.Lock()
			defer ta.mu.Unlock()
			return counted()
		}
		beforeSmall := -1 // of the burst's, when the small shop's event came; read and written with the tally's lock
		ta.down = func(path string) bool {
			if path == "/small" && beforeSmall < 0 {
				beforeSmall = counted()
			}
			return false
		}
		published, before := 0, 0
		for published*webhooks-before < waiting {
			if published == 50*batch {
				t.Fatalf("%d events at %d webhooks were delivered as fast as they were accepted, but for %d: nothing waits that could delay others", published, webhooks, published*webhooks-before)
			}
			var lines []string
			for i := range batch {
				lines = append(lines, fmt.Sprintf(`{"type":"order.created","data":{"n":%d}}`, published+i))
			}
			h.publish(t, "hot", strings.Join(lines, "\n"), "Content-Type", "application/x-ndjson")
			published += batch
			before = arrived()
		}
		h.publish(t, "small", `{"type":"order.created","data":{"n":1}}`)
		accepted := arrived()
		eventually(t, "the small shop's event has arrived", func() error {
			ta.mu.Lock()
			defer ta.mu.Unlock()
			if beforeSmall < 0 {
				return fmt.Errorf("%d of the burst's have, since it was accepted", counted()-accepted)
			}
			return nil
		})
		overtook := max(0, beforeSmall-accepted)
		t.Logf("%d of the burst's %d that waited were there before it", overtook, published*webhooks-accepted)
		if overtook > batch*webhooks {
			t.Errorf("the small shop's event waited for %d of the burst's deliveries, want at most the %d of one batch", overtook, batch*webhooks)
		}
		eventually(t, "the burst has arrived", func() error {
			if n := arrived(); n < published*webhooks {
				return fmt.Errorf("%d of %d have", n, published*webhooks)
			}
			return nil
		})
	})
}
