package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRetry_GoesOnUntilTheReceiverIsWell(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/hook", answer{code: 500, body: "out of order"}, answer{code: 503}, answer{code: 204})
		w := h.newWebhook(t, "blomster", r.url+"/hook", policy("0.3s", "0.6s", "0.1s"), `"label": "Warehouse"`)
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		e := h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		got := r.await(t, "/hook", 3)
		if len(got) != 3 {
			t.Errorf("got %d requests, want 3", len(got))
		}
		for i, wait := range []time.Duration{300 * time.Millisecond, 600 * time.Millisecond} {
			if between := got[i+1].at.Sub(got[i].at); between < wait || between > wait+slack {
				t.Errorf("attempt %d followed after %s, want %s", i+2, between, wait)
			}
		}
		for i, in := range got {
			if in.id() != got[0].id() {
				t.Errorf("request %d: got webhook-id %s, want that of the first, %s", i+1, in.id(), got[0].id())
			}
			if string(in.body) != string(got[0].body) {
				t.Errorf("request %d: got body %s, want that of the first, %s", i+1, in.body, got[0].body)
			}
		}
		d := e.Story.Deliveries[0]
		var verdicts []string
		for i, a := range d.Attempts {
			verdicts = append(verdicts, fmt.Sprintf("%d %d %s", a.Number, a.ResponseCode, a.Verdict))
			if i > 0 && a.StartedAt.Before(d.Attempts[i-1].StartedAt) {
				t.Errorf("attempt %d stands before attempt %d, which was earlier", a.Number, d.Attempts[i-1].Number)
			}
		}
		if want := []string{"1 500 retrying", "2 503 retrying", "3 204 delivered"}; !slices.Equal(verdicts, want) {
			t.Errorf("attempts: got %q, want %q", verdicts, want)
		}
		if d.ID != got[0].id() || d.AttemptsMade != 3 || d.ResponseCode != 204 {
			t.Errorf("delivery: got %+v, want %s with 3 attempts and 204 at last", d, got[0].id())
		}
		e.Story.says(t, "accepted", "matched to 1 of 1 webhook", "attempt 1", "answered 500", "attempt 2", "answered 503", "attempt 3", "delivered to "+w.ID+" (Warehouse)")
	})
}

func TestRetry_ComesWhenTheReceiverAsksForIt(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		later := func() string { return time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat) } // whole seconds: 2 to 3
		for path, first := range map[string]answer{
			"/seconds": {code: 503, header: map[string]string{"Retry-After": "2"}},
			"/slower":  {code: 429, header: map[string]string{"Retry-After": "2"}},
			"/date":    {code: 503, header: map[string]string{"Retry-After": "?"}},
			"/ignored": {code: 503, header: map[string]string{"Retry-After": "60"}},
		} {
			if first.header["Retry-After"] == "?" {
				asked := first
				r.answerBy(path, func(*received) answer {
					if len(r.got[path]) > 0 {
						return answer{}
					}
					asked.header = map[string]string{"Retry-After": later()}
					return asked
				})
			} else {
				r.answer(path, first, answer{})
			}
			rules := policy("0.1s")
			if path == "/ignored" {
				rules = `"policy": {"jitter": false, "retry_schedule": ["0.1s"], "honor_retry_after": false}`
			}
			h.newWebhook(t, "blomster", r.url+path, rules)
		}
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		for _, path := range []string{"/seconds", "/slower", "/date"} {
			got := r.await(t, path, 2)
			if between := got[1].at.Sub(got[0].at); between < 1900*time.Millisecond || between > 15*time.Second {
				t.Errorf("%s: the second attempt came after %s, want it soon after the 2s that the receiver asked for", path, between)
			}
		}
		got := r.await(t, "/ignored", 2)
		if between := got[1].at.Sub(got[0].at); between > 30*time.Second {
			t.Errorf("/ignored: the second attempt came after %s, want the schedule's 0.1s and not the receiver's 60s", between)
		}
		h.awaitEvent(t, "blomster", id, allAre("delivered", 4))
	})
}

func TestRetry_GivesUpAfterTheLast(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/hook", answer{code: 500})
		h.newWebhook(t, "blomster", r.url+"/hook", policy("0.1s", "0.2s"))
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		e := h.awaitEvent(t, "blomster", id, allAre("failed", 1))
		e.Story.says(t, "attempt 1", "attempt 2", "attempt 3", "given up after 3 attempts")
		if got := len(r.at("/hook")); got != 3 {
			t.Errorf("got %d attempts, want 3", got)
		}
		list := get[struct{ Deliveries []delivery }](t, h, "GET", "/v1/shops/blomster/deliveries?status=failed&response_code=5xx", "")
		if len(list.Deliveries) != 1 || list.Deliveries[0].EventID != id {
			t.Errorf("the list of what failed: got %+v, want that one delivery", list)
		}
		// It is over: what comes after it is attempted, and nothing of it.
		r.answer("/hook", answer{})
		next := h.publish(t, "blomster", numbered("b", 2))[0].ID
		h.awaitEvent(t, "blomster", next, allAre("delivered", 1))
		if got := len(r.at("/hook")); got != 4 {
			t.Errorf("got %d attempts, want the 3 of the first and 1 of the second", got)
		}
	})
}

// publishHeld switches a webhook off by its receiver, and publishes n events more, which are held.
func publishHeld(t *testing.T, h *house, r *receiver, path string, n int) (w webhook, ids []string) {
	t.Helper()
	r.answer(path, answer{code: 410})
	w = h.newWebhook(t, "blomster", r.url+path, policy("0.1s"), fmt.Sprintf(`"label": "Label of %s"`, path[1:]), `"events": ["`+path[1:]+`"]`)
	event := func(i int) string {
		return fmt.Sprintf(`{"id":"%s-%d","type":%q,"data":{"n":%d}}`, path[1:], i, path[1:], i)
	}
	ids = append(ids, h.publish(t, "blomster", event(0))[0].ID)
	h.awaitMatchedAs(t, "blomster", w.ID, "disabled")
	w = get[webhook](t, h, "GET", "/v1/shops/blomster/webhooks/"+w.ID, "")
	if w.DisabledReason == nil || !strings.Contains(*w.DisabledReason, "410") {
		t.Errorf("disabled_reason: got %v, want it to name the 410", w.DisabledReason)
	}
	var batch []string
	for i := range n {
		batch = append(batch, event(i+1))
	}
	if n > 0 {
		for _, a := range h.publish(t, "blomster", "["+strings.Join(batch, ",")+"]") {
			ids = append(ids, a.ID)
		}
	}
	for _, id := range ids {
		e := h.awaitEvent(t, "blomster", id, allAre("held", 1))
		e.Story.says(t, "matched to 1 of 1", "held for "+w.ID, "410")
	}
	if got := len(r.at(path)); got != 1 {
		t.Errorf("%s was sent %d while the webhook was off, want only the one that switched it off", path, got)
	}
	return w, ids
}

func TestWebhook_SwitchedOffByItsReceiverHoldsUntilItsOwnerSays(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		t.Run("send", func(t *testing.T) {
			w, ids := publishHeld(t, h, r, "/send", 30)
			r.answer("/send", answer{})
			on := get[webhook](t, h, "POST", "/v1/shops/blomster/webhooks/"+w.ID+":enable", `{"held": "send"}`)
			if on.Status != "enabled" || on.DisabledReason != nil {
				t.Errorf("after :enable: got %+v, want it enabled and no reason", on)
			}
			got := r.await(t, "/send", 1+len(ids))
			var order []string
			for _, in := range got[1:] {
				order = append(order, in.order())
			}
			var want []string
			for i := range ids {
				want = append(want, fmt.Sprint(i))
			}
			// In which order they come is not promised: webhooks get their deliveries side by side.
			slices.Sort(order)
			slices.Sort(want)
			if !slices.Equal(order, want) {
				t.Errorf("of what was held came\n%v, want each once\n%v", order, want)
			}
			for _, id := range ids {
				h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
			}
			// The one that switched it off was held too, and comes again as itself.
			if !slices.ContainsFunc(got[1:], func(in *received) bool { return in.id() == got[0].id() }) {
				t.Errorf("none came with the webhook-id of the one that switched it off, %s", got[0].id())
			}
			h.publish(t, "blomster", `{"type":"send","data":{"n":100}}`)
			if last := r.await(t, "/send", 2+len(ids)); last[len(last)-1].order() != "100" {
				t.Errorf("after :enable a new event is not delivered")
			}
		})
		t.Run("discard", func(t *testing.T) {
			w, ids := publishHeld(t, h, r, "/discard", 5)
			r.answer("/discard", answer{})
			get[webhook](t, h, "POST", "/v1/shops/blomster/webhooks/"+w.ID+":enable", `{"held": "discard"}`)
			for _, id := range ids {
				e := h.awaitEvent(t, "blomster", id, allAre("cancelled", 1))
				e.Story.says(t, "held", "cancelled", "discarded")
			}
			next := h.publish(t, "blomster", `{"type":"discard","data":{"n":100}}`)[0].ID
			h.awaitEvent(t, "blomster", next, allAre("delivered", 1))
			if got := r.at("/discard"); len(got) != 2 || got[1].order() != "100" {
				t.Errorf("got %d requests, want the first and the new one", len(got))
			}
		})
		t.Run("delete", func(t *testing.T) {
			w, ids := publishHeld(t, h, r, "/delete", 5)
			if a := h.call(t, "DELETE", "/v1/shops/blomster/webhooks/"+w.ID, ""); a.code != http.StatusOK {
				t.Fatalf("delete: got %d %s", a.code, a.body)
			}
			for _, id := range ids {
				h.awaitEvent(t, "blomster", id, allAre("cancelled", 1))
			}
		})
	})
}

func TestWebhook_SwitchedOffByItsOwnerIsNotMatched(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		w := h.newWebhook(t, "blomster", r.url+"/hook", `"label": "Warehouse"`)
		at := "/v1/shops/blomster/webhooks/" + w.ID
		off := get[webhook](t, h, "POST", at+":disable", `{"reason": "moving house"}`)
		if off.Status != "disabled" || off.DisabledReason == nil || !strings.Contains(*off.DisabledReason, "moving house") {
			t.Errorf("after :disable: got %+v, want it disabled with the owner's reason", off)
		}
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		e := h.awaitEvent(t, "blomster", id, allAre("delivered", 0))
		if len(e.Story.Considered) != 1 || e.Story.Considered[0].Matched || !strings.Contains(e.Story.Considered[0].Reason, "switched off by its owner") {
			t.Errorf("considered: got %+v, want the webhook, not matched, with the reason", e.Story.Considered)
		}
		e.Story.says(t, "accepted", "matched to 0 of 1 webhook", "passed over "+w.ID+" (Warehouse)", "switched off by its owner")
		get[webhook](t, h, "POST", at+":enable", `{}`)
		h.publish(t, "blomster", numbered("b", 2))
		if got := r.await(t, "/hook", 1); got[0].order() != "2" || len(got) != 1 {
			t.Errorf("after :enable got event %s first, want only the one that came after", got[0].order())
		}
	})
}

// What waits for its next attempt when the owner switches the webhook off or deletes it is cancelled, and says so.
func TestWebhook_WaitingDeliveriesEndWithIt(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		type published struct{ webhook, event string }
		all := map[string]published{}
		for path, end := range map[string][2]string{"/off": {"POST", ":disable"}, "/deleted": {"DELETE", ""}} {
			r.answer(path, answer{code: 500})
			w := h.newWebhook(t, "blomster", r.url+path, policy("8s", "8s"), `"events": ["`+path[1:]+`"]`)
			id := h.publish(t, "blomster", fmt.Sprintf(`{"type":%q,"data":{}}`, path[1:]))[0].ID
			all[path] = published{w.ID, id}
			r.await(t, path, 1)
			if a := h.call(t, end[0], "/v1/shops/blomster/webhooks/"+w.ID+end[1], ""); a.code != http.StatusOK {
				t.Fatalf("%s: got %d %s", path, a.code, a.body)
			}
		}
		for path, its := range all { // whose waits are over at about the same time
			e := h.awaitEvent(t, "blomster", its.event, allAre("cancelled", 1))
			e.Story.says(t, "attempt 1", "cancelled for "+its.webhook)
			if got := len(r.at(path)); got != 1 {
				t.Errorf("%s was sent %d, want 1", path, got)
			}
		}
	})
}
