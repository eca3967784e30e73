package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestWaiting_S4_10_IsListedCancelledAndSentNow(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/late", answer{code: 500}, answer{code: 200})
		h.newWebhook(t, "blomster", r.url+"/late", `"label": "late"`, `"delay": {"value": 10, "unit": "day"}`, policy("3600s"))
		var ids []string
		for i := range 3 {
			ids = append(ids, h.publish(t, "blomster", fmt.Sprintf(`{"type":"order.created","data":{"n":%d}}`, i))[0].ID)
		}
		at := map[string]string{} // the paths of the deliveries, by their events
		for _, id := range ids {
			e := h.awaitEvent(t, "blomster", id, allAre("delayed", 1))
			at[id] = "/v1/shops/blomster/deliveries/" + e.Story.Deliveries[0].ID
		}
		list := get[struct{ Deliveries []delivery }](t, h, "GET", "/v1/shops/blomster/deliveries?status=delayed", "")
		if len(list.Deliveries) != 3 {
			t.Fatalf("got %d that wait, want 3: %+v", len(list.Deliveries), list)
		}

		// Cancelled: it is not sent, its story says so, and a repeat changes nothing.
		cancel := at[ids[0]] + ":cancel"
		get[struct{}](t, h, "POST", cancel, `{"reason": "the order was\ncancelled"}`)
		e := h.awaitEvent(t, "blomster", ids[0], allAre("cancelled", 1))
		who := ""
		if h.key != "" {
			who = ", by operator"
		}
		e.Story.says(t, "delayed for", "cancelled for", "cancelled by hand"+who, "the order was cancelled")
		get[struct{}](t, h, "POST", cancel, `{}`)

		// Sent now: the schedule's own attempt, whose failure is followed by the next, which can be sent now as well.
		get[struct{}](t, h, "POST", at[ids[1]]+":resend", `{}`)
		h.awaitEvent(t, "blomster", ids[1], allAre("retrying", 1))
		get[struct{}](t, h, "POST", at[ids[1]]+":resend", `{}`)
		h.awaitEvent(t, "blomster", ids[1], allAre("delivered", 1))
		if got := r.await(t, "/late", 2); got[0].id() != got[1].id() || !strings.Contains(string(got[0].body), `{"n":1}`) {
			t.Errorf("got %s with %s, want one delivery of the second event twice", got[0].id(), got[0].body)
		}

		// What was cancelled can be sent after all.
		get[struct{}](t, h, "POST", at[ids[0]]+":resend", `{}`)
		e = h.awaitEvent(t, "blomster", ids[0], allAre("delivered", 1))
		e.Story.says(t, "cancelled for", "attempt 1, by hand", "delivered")

		refused := func(path, says string) {
			t.Helper()
			var told refusal
			a := h.call(t, "POST", path+":cancel", `{}`)
			if a.read(t, &told); a.code != http.StatusBadRequest || told.Code != 9 || !strings.Contains(told.Message, says) {
				t.Errorf("cancel: got %d %s, want FAILED_PRECONDITION that says %q", a.code, a.body, says)
			}
		}
		refused(at[ids[0]], "is delivered")
		refused(at[ids[1]], "is delivered")
		if a := h.call(t, "POST", "/v1/shops/andre"+strings.TrimPrefix(at[ids[2]], "/v1/shops/blomster")+":cancel", `{}`); a.code != http.StatusNotFound {
			t.Errorf("another shop's delivery: got %d %s, want 404", a.code, a.body)
		}

		// One whose time comes at this moment cannot be had back, and is sent.
		h.newWebhook(t, "andre", r.url+"/soon", `"delay": {"value": 1, "unit": "second"}`)
		soon := h.publish(t, "andre", `{"type":"order.created","data":{}}`)[0].ID
		e = h.awaitEvent(t, "andre", soon, func(e event) error {
			if len(e.Story.Deliveries) == 0 {
				return errors.New("no delivery")
			}
			return nil
		})
		refused("/v1/shops/andre/deliveries/"+e.Story.Deliveries[0].ID, "the delivery")
		h.awaitEvent(t, "andre", soon, allAre("delivered", 1))
		if got := len(r.at("/late")); got != 3 {
			t.Errorf("got %d requests, want the three that were asked for", got)
		}
	})
}

func TestResend_GoesToADisabledWebhookWhenToldSo(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		w := h.newWebhook(t, "blomster", r.url+"/hook")
		id := h.publish(t, "blomster", `{"type":"order.created","data":{"n":1}}`)[0].ID
		e := h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		at := "/v1/shops/blomster/deliveries/" + e.Story.Deliveries[0].ID
		get[webhook](t, h, "POST", "/v1/shops/blomster/webhooks/"+w.ID+":disable", `{"reason": "we move"}`)
		var told refusal
		a := h.call(t, "POST", at+":resend", `{}`)
		if a.read(t, &told); a.code != http.StatusBadRequest || told.Code != 9 ||
			!strings.Contains(told.Message, "even_if_disabled") || !strings.Contains(told.Message, "we move") {
			t.Errorf("resend: got %d %s, want FAILED_PRECONDITION that says why, and what to send", a.code, a.body)
		}
		get[struct{}](t, h, "POST", at+":resend", `{"even_if_disabled": true}`)
		r.await(t, "/hook", 2)
		if now := get[webhook](t, h, "GET", "/v1/shops/blomster/webhooks/"+w.ID, ""); now.Status != "disabled" {
			t.Errorf("the webhook is %s, want it to stay off", now.Status)
		}
		h.call(t, "DELETE", "/v1/shops/blomster/webhooks/"+w.ID, "")
		a = h.call(t, "POST", at+":resend", `{"even_if_disabled": true}`)
		if a.read(t, &told); a.code != http.StatusBadRequest || !strings.Contains(told.Message, "was deleted") {
			t.Errorf("resend to a deleted webhook: got %d %s, want FAILED_PRECONDITION that says so", a.code, a.body)
		}
	})
}

func TestHeld_OneAloneIsCancelledOrSentByHand(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		w, ids := publishHeld(t, h, r, "/held", 2)
		r.answer("/held", answer{})
		at := make([]string, len(ids))
		for i, id := range ids {
			at[i] = "/v1/shops/blomster/deliveries/" + h.awaitEvent(t, "blomster", id, allAre("held", 1)).Story.Deliveries[0].ID
		}
		get[struct{}](t, h, "POST", at[1]+":cancel", `{"reason": "not needed"}`)
		h.awaitEvent(t, "blomster", ids[1], allAre("cancelled", 1)).Story.says(t, "held for", "cancelled for", "cancelled by hand", "not needed")
		if a := h.call(t, "POST", at[2]+":resend", `{}`); a.code != http.StatusBadRequest || !strings.Contains(string(a.body), "even_if_disabled") {
			t.Errorf("resend to a webhook that is off: got %d %s, want 400 that says how", a.code, a.body)
		}
		get[struct{}](t, h, "POST", at[2]+":resend", `{"even_if_disabled": true}`)
		h.awaitEvent(t, "blomster", ids[2], allAre("delivered", 1)).Story.says(t, "held for", "by hand", "delivered")
		h.awaitEvent(t, "blomster", ids[0], allAre("held", 1))

		get[webhook](t, h, "POST", "/v1/shops/blomster/webhooks/"+w.ID+":enable", `{"held": "send"}`)
		h.awaitEvent(t, "blomster", ids[0], allAre("delivered", 1))
		h.awaitEvent(t, "blomster", ids[1], allAre("cancelled", 1))
		for _, got := range r.at("/held") {
			if strings.HasSuffix(at[1], "/"+got.id()) {
				t.Error("what was cancelled was sent when the webhook was switched on")
			}
		}
		get[struct{}](t, h, "POST", at[1]+":resend", `{}`)
		h.awaitEvent(t, "blomster", ids[1], allAre("delivered", 1))
	})
}

// Nobody listens: two are tried, and what comes after them waits for what comes of that. It is sent by hand all the same, or cancelled.
func TestWaiting_WhatWaitsForItsHostIsCancelledOrSentByHand(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		h.newWebhook(t, "blomster", "http://"+freeAddress(t)+"/hook", policy("3600s"))
		publish := func() string {
			return h.publish(t, "blomster", `{"type":"order.created","data":{}}`)[0].ID
		}
		for range 2 {
			h.awaitEvent(t, "blomster", publish(), allAre("retrying", 1))
		}
		putOff := func(e event) error {
			if !strings.Contains(e.Story.String(), "because nobody behind http://") {
				return errors.New("it does not wait for its host")
			}
			return nil
		}
		sent, cancelled := publish(), publish()
		at := func(id string) string {
			return "/v1/shops/blomster/deliveries/" + h.awaitEvent(t, "blomster", id, putOff).Story.Deliveries[0].ID
		}
		get[struct{}](t, h, "POST", at(sent)+":resend", `{}`)
		h.awaitEvent(t, "blomster", sent, func(e event) error {
			for _, l := range e.Story.Lines {
				if strings.HasPrefix(l.Text, "attempt ") && !strings.Contains(l.Text, "before it was due") { // it is no probe
					return nil
				}
			}
			return errors.New("it was not tried")
		})
		eventually(t, "it can be cancelled", func() error { // but for the moment in which it is a probe
			if a := h.call(t, "POST", at(cancelled)+":cancel", `{}`); a.code != http.StatusOK {
				return fmt.Errorf("it answers %d %s", a.code, a.body)
			}
			return nil
		})
		h.awaitEvent(t, "blomster", cancelled, allAre("cancelled", 1)).Story.says(t, "delayed for", "cancelled by hand")
	})
}

// Twelve were tried, and their host answers none. What is published then waits, and is there once when it answers; its story says why it waited.
func TestWaiting_WhatIsMatchedForAShutHostIsThereWhenItAnswers(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		const webhooks, events = 12, 6
		r := newReceiver(t)
		var up atomic.Bool
		for i := range webhooks {
			path := fmt.Sprint("/", i)
			r.answerBy(path, func(*received) answer {
				if up.Load() {
					return answer{code: http.StatusOK}
				}
				return answer{code: http.StatusBadGateway}
			})
			h.newWebhook(t, "blomster", r.url+path, policy("3600s"))
		}
		publish := func() string {
			return h.publish(t, "blomster", `{"type":"order.created","data":{}}`)[0].ID
		}
		ids := []string{publish()}
		h.awaitEvent(t, "blomster", ids[0], allAre("retrying", webhooks))
		for len(ids) < events {
			ids = append(ids, publish())
			time.Sleep(300 * time.Millisecond) // some come before those who match have heard of the host, and some after
		}
		for _, id := range ids[1:] {
			h.awaitEvent(t, "blomster", id, func(e event) error {
				if n := strings.Count(e.Story.String(), "because nobody behind "+r.url); n < webhooks-2 { // one may be tried, and one a probe
					return fmt.Errorf("%d wait for their host", n)
				}
				return nil
			})
		}
		up.Store(true)
		for _, id := range ids {
			h.awaitEvent(t, "blomster", id, allAre("delivered", webhooks))
		}
		for i := range webhooks {
			took := map[string]int{}
			for _, in := range r.at(fmt.Sprint("/", i)) {
				if in.code == http.StatusOK {
					took[in.id()]++
				}
			}
			if len(took) != events || slices.Max(slices.Collect(maps.Values(took))) != 1 {
				t.Errorf("webhook %d took %v, want each of %d once", i, took, events)
			}
		}
	})
}
