package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A batch is taken whole or not at all, also when ingest and the bus die in its midst and nobody publishes it again. What was
// answered 202 is there.
func TestBatch_IsWholeOrNotThereWhoeverDies(t *testing.T) {
	const size, rounds = 200, 3
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook")
		var published, taken sync.Map // batch: true
		var next, answered atomic.Int64
		stop := make(chan struct{})
		var publishers sync.WaitGroup
		for range 4 {
			publishers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					batch := int(next.Add(1))
					published.Store(batch, true)
					var text strings.Builder
					for i := range size {
						fmt.Fprintf(&text, `{"id":"batch-%d-%d","type":"order.created","data":{"n":"%d.%d","note":%q}}`+"\n", batch, i, batch, i, strings.Repeat("Tulips ", 100))
					}
					a, err := h.try(t.Context(), "POST", "/v1/shops/blomster/events", []byte(text.String()), "Content-Type", "application/x-ndjson")
					if err == nil && a.code == http.StatusAccepted {
						taken.Store(batch, true)
						answered.Add(1)
					} else {
						time.Sleep(20 * time.Millisecond)
					}
				}
			})
		}
		victims := []string{"all", "all", "all"}
		if h.way == many {
			victims = []string{"ingest", busServer, "ingest"}
		}
		for i := range rounds {
			before := answered.Load()
			eventually(t, "batches are answered", func() error {
				if n := answered.Load(); n < before+3 {
					return fmt.Errorf("%d are", n)
				}
				return nil
			})
			h.kill(t, victims[i])
			h.start(t, victims[i])
		}
		close(stop)
		publishers.Wait()
		arrived, seen := map[int]map[string]bool{}, 0
		eventually(t, "every batch is whole or not there, and what was answered 202 is", func() error {
			all := r.at("/hook")
			for ; seen < len(all); seen++ {
				in := all[seen]
				var batch, i int
				if _, err := fmt.Sscanf(in.order(), "%d.%d", &batch, &i); err != nil {
					return err
				}
				if arrived[batch] == nil {
					arrived[batch] = map[string]bool{}
				}
				arrived[batch][in.order()] = true
			}
			var broken []string
			published.Range(func(key, _ any) bool {
				n, there := len(arrived[key.(int)]), false
				if _, ok := taken.Load(key); ok {
					there = true
				}
				if n != size && (n > 0 || there) {
					broken = append(broken, fmt.Sprintf("of batch %v (202: %v) %d have arrived", key, there, n))
				}
				return true
			})
			if len(broken) > 0 {
				return fmt.Errorf("%d of %d batches are not, such as: %s", len(broken), next.Load(), broken[0])
			}
			return nil
		})
		t.Logf("%d batches published, %d answered 202", next.Load(), answered.Load())
	})
}
