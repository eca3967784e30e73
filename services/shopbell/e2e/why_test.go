package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestWhy_OneCallSaysWhyAWebhookDidNotArrive(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/broken", answer{code: 503, body: "database is away"})
		h.newWebhook(t, "blomster", r.url+"/large", `"label": "Large orders"`, `"filter": "data.total > 1000.0"`)
		off := h.newWebhook(t, "blomster", r.url+"/off", `"label": "Accounting"`)
		h.newWebhook(t, "blomster", r.url+"/broken", `"label": "Warehouse"`, policy("0.1s"))
		get[webhook](t, h, "POST", "/v1/shops/blomster/webhooks/"+off.ID+":disable", `{"reason": "we move to another system"}`)
		h.publish(t, "blomster", `{"type":"order.created","id":"order-1042-created","data":{"order_no":1042,"total":549.50}}`)
		// One call, which holds the answer to all three.
		e := h.awaitEvent(t, "blomster", "order-1042-created", func(e event) error {
			if d := e.Story.Deliveries; len(d) != 1 || d[0].Status != "failed" {
				return errors.New("not given up yet")
			}
			return nil
		})
		want := map[string]string{"Large orders": "its filter says no: data.total > 1000.0", "Accounting": "it is switched off by its owner", "Warehouse": ""}
		for _, c := range e.Story.Considered {
			if why, ok := want[c.Label]; !ok || c.Reason != why || c.Matched != (why == "") {
				t.Errorf("%s: got matched=%v because %q, want %q", c.Label, c.Matched, c.Reason, why)
			}
			delete(want, c.Label)
		}
		if len(want) > 0 {
			t.Errorf("nothing is said of %v", want)
		}
		e.Story.says(t, "accepted", "matched to 1 of 3 webhooks")
		e.Story.says(t, "passed over", "(Large orders): its filter says no: data.total > 1000.0")
		e.Story.says(t, "passed over", "(Accounting): it is switched off by its owner")
		e.Story.says(t, "attempt 1 to "+r.url+"/broken answered 503", "the next attempt is due", "attempt 2", "answered 503", "given up after 2 attempts")
	})
}

// No event is without a record, and no delivery without an end or a state that says what it waits for.
func TestLog_HoldsWhatBecameOfEveryEvent(t *testing.T) {
	const n = 400
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answerBy("/flaky", func(in *received) answer {
			if strings.HasSuffix(in.order(), "3") {
				return answer{code: 500}
			}
			return answer{}
		})
		r.answer("/gone", answer{code: 410})
		h.newWebhook(t, "blomster", r.url+"/good")
		h.newWebhook(t, "blomster", r.url+"/flaky", policy("0.1s", "0.1s"))
		h.newWebhook(t, "blomster", r.url+"/gone")
		h.newWebhook(t, "blomster", r.url+"/late", `"delay": {"value": 1, "unit": "day"}`)
		h.newWebhook(t, "blomster", r.url+"/some", `"filter": "int(data.n) % 2 == 0"`)
		h.newWebhook(t, "blomster", r.url+"/other", `"events": ["stock.changed"]`)
		h.publishMany(t, "blomster", n)
		// By the rules above: so many of each.
		want := map[string]int{"/good delivered": n, "/flaky delivered": n - n/10, "/flaky failed": n / 10, "/gone held": n, "/late delayed": n, "/some delivered": n / 2}
		paths := map[string]string{}
		for _, w := range get[struct {
			Webhooks []struct{ ID, URL string }
		}](t, h, "GET", "/v1/shops/blomster/webhooks", "").Webhooks {
			paths[w.ID] = strings.TrimPrefix(w.URL, r.url)
		}
		of := map[string]int{} // deliveries by event
		eventually(t, "the log holds what became of every delivery", func() error {
			got := map[string]int{}
			clear(of)
			for line := range strings.Lines(string(h.call(t, "GET", "/v1/shops/blomster/deliveries:export", "").body)) {
				var d delivery
				if err := json.Unmarshal([]byte(line), &d); err != nil {
					return err
				}
				got[paths[d.WebhookID]+" "+d.Status]++
				of[d.EventID]++
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				return fmt.Errorf("got %v, want %v", got, want)
			}
			return nil
		})
		for i := range n {
			id := fmt.Sprintf("order-%d", i)
			if of[id] != 4+(i+1)%2 {
				t.Fatalf("%s has %d deliveries, want %d", id, of[id], 4+(i+1)%2)
			}
			if i%20 > 0 {
				continue
			}
			e := h.awaitEvent(t, "blomster", id, func(event) error { return nil })
			if !e.Story.Decided || len(e.Story.Considered) != 5 || len(e.Story.Deliveries) != of[id] {
				t.Errorf("%s: got a story of %d webhooks and %d deliveries, want 5 and %d", id, len(e.Story.Considered), len(e.Story.Deliveries), of[id])
			}
		}
		type lag struct {
			Lags []struct {
				Of       string
				Messages int
			}
		}
		eventually(t, "the log is not behind", func() error {
			if now := get[lag](t, h, "GET", "/v1/log/lag", ""); len(now.Lags) != 2 || now.Lags[0].Messages+now.Lags[1].Messages > 0 {
				return fmt.Errorf("it is behind by %+v", now)
			}
			return nil
		})
	})
}
