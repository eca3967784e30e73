package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestExplain_SaysOfEachWebhookWhetherAndWhy(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		gone := publishedOff(t, h, r, "/gone") // first, as it publishes something
		off := h.newWebhook(t, "blomster", r.url+"/off", `"label": "off"`)
		for label, more := range map[string]string{
			"all": `"events": ["*"]`, "this": `"events": ["stock.changed", "order.created"]`, "other": `"events": ["stock.changed"]`,
			"test": `"environment": "test"`, "late": `"delay": {"value": 10, "unit": "day"}`,
		} {
			h.newWebhook(t, "blomster", r.url+"/"+label, fmt.Sprintf(`"label": %q`, label), more)
		}
		h.newWebhook(t, "andre", r.url+"/elsewhere", `"label": "elsewhere"`)
		get[webhook](t, h, "POST", "/v1/shops/blomster/webhooks/"+off.ID+":disable", `{}`)
		before := len(r.at("/gone"))
		want := map[string]struct {
			matched bool
			says    string
		}{
			"all": {true, "order.created"}, "this": {true, "order.created"}, "other": {false, "does not subscribe to order.created"},
			"test": {false, "test events only"}, "late": {true, "240h"}, "off": {false, "switched off by its owner"}, gone.Label: {true, "held"},
		}
		for name, ask := range map[string]func() reply{
			"as JSON": func() reply {
				return h.call(t, "POST", "/v1/shops/blomster/events:explain", `{"id":"x","type":"order.created","data":{"total": 549.50}}`)
			},
			"with ?type=": func() reply {
				return h.call(t, "POST", "/v1/shops/blomster/events:explain?type=order.created", `{"total": 549.50}`)
			},
		} {
			a := ask()
			if a.code != http.StatusOK {
				t.Fatalf("%s: got %d %s, want 200", name, a.code, a.body)
			}
			var out struct{ Considered []considered }
			a.read(t, &out)
			if len(out.Considered) != len(want) {
				t.Errorf("%s: got %d webhooks, want all %d of the shop: %+v", name, len(out.Considered), len(want), out)
			}
			for _, c := range out.Considered {
				w := want[c.Label]
				if c.Matched != w.matched || w.says == "" || !strings.Contains(c.Reason, w.says) {
					t.Errorf("%s, %s: got matched=%v because %q, want %v because … %s …", name, c.Label, c.Matched, c.Reason, w.matched, w.says)
				}
			}
		}
		for path, n := range map[string]int{"/all": 0, "/this": 0, "/gone": before} {
			if got := len(r.at(path)); got != n {
				t.Errorf("%s was sent something by :explain", path)
			}
		}
		if a := h.call(t, "GET", "/v1/shops/blomster/events/x", ""); a.code != http.StatusNotFound {
			t.Errorf("an event that was only explained: got %d, want 404", a.code)
		}
		for name, bad := range map[string]string{"two at once": `[{"type":"a","data":{}},{"type":"b","data":{}}]`, "none": `[]`, "a wrong type": `{"type":"a b","data":{}}`} {
			if a := h.call(t, "POST", "/v1/shops/blomster/events:explain", bad); a.code != http.StatusBadRequest {
				t.Errorf("%s: got %d %s, want 400", name, a.code, a.body)
			}
		}
	})
}

// publishedOff is a webhook that its receiver has switched off.
func publishedOff(t *testing.T, h *house, r *receiver, path string) webhook {
	t.Helper()
	w, _ := publishHeld(t, h, r, path, 0)
	// From now on it wants what the test asks about.
	return get[webhook](t, h, "PATCH", "/v1/shops/blomster/webhooks/"+w.ID, `{"events": ["order.created"]}`)
}

type tested struct {
	DeliveryID  string `json:"delivery_id"`
	Success     bool
	Diagnosis   string
	RequestBody string `json:"request_body"`
	Attempt     attempt
}

func TestTest_SaysWhatCameOfIt(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/missing", answer{code: 404})
		r.answer("/forbidden", answer{code: 401})
		r.answer("/broken", answer{code: 500})
		r.answer("/gone", answer{code: 410})
		r.answer("/moved", answer{code: 301, header: map[string]string{"Location": r.url + "/good"}})
		never := make(chan struct{})
		t.Cleanup(func() { close(never) })
		r.answer("/slow", answer{until: never})
		nobody := "http://" + freeAddress(t)
		for _, test := range []struct {
			name, url     string
			success       bool
			code          int
			class, advice string
		}{
			{"a success", r.url + "/good", true, 200, "", "answered 200"},
			{"a wrong path", r.url + "/missing", false, 404, "http_status", "check the URL's path"},
			{"a receiver that does not let us in", r.url + "/forbidden", false, 401, "http_status", "check the secret"},
			{"a receiver with an error", r.url + "/broken", false, 500, "http_status", "its log knows more"},
			{"a receiver that is gone", r.url + "/gone", false, 410, "http_status", "410"},
			{"a redirect", r.url + "/moved", false, 301, "http_status", "redirects are not followed"},
			{"nobody there", nobody + "/hook", false, 0, "connect", "nothing listens there"},
			{"a receiver that hangs", r.url + "/slow", false, 0, "timeout", "no answer within 3s"},
			{"a name that does not exist", "http://no-such-host.invalid/hook", false, 0, "dns", "no-such-host.invalid"},
			{"https where there is none", strings.Replace(r.url, "http://", "https://", 1) + "/good", false, 0, "tls", "TLS"},
		} {
			timeout := "15s"
			if test.class == "timeout" {
				timeout = "3s"
			}
			w := h.newWebhook(t, "blomster", test.url, fmt.Sprintf(`"policy": {"timeout": %q, "retry_schedule": ["0.1s"], "jitter": false}`, timeout))
			got := get[tested](t, h, "POST", "/v1/shops/blomster/webhooks/"+w.ID+":test", `{"event_type": "order.created"}`)
			if got.Success != test.success || got.Attempt.ResponseCode != test.code || got.Attempt.ErrorClass != test.class {
				t.Errorf("%s: got %+v, want success=%v, code %d, class %q", test.name, got, test.success, test.code, test.class)
			}
			if !strings.Contains(got.Diagnosis, test.advice) {
				t.Errorf("%s: got %q, want it to say %q", test.name, got.Diagnosis, test.advice)
			}
			if !strings.Contains(got.RequestBody, "549.50") {
				t.Errorf("%s: got body %q, want a sample order", test.name, got.RequestBody)
			}
			eventually(t, "the test is in the log", func() error {
				a, err := h.try(t.Context(), "GET", "/v1/shops/blomster/deliveries/"+got.DeliveryID, nil)
				if err != nil || a.code != http.StatusOK {
					return fmt.Errorf("it answers %d %s, %w", a.code, a.body, err)
				}
				var d delivery
				if a.read(t, &d); !d.Test || len(d.Attempts) != 1 {
					return fatal{fmt.Errorf("it answers %s, want a test with one attempt", a.body)}
				}
				return nil
			})
			if now := get[webhook](t, h, "GET", "/v1/shops/blomster/webhooks/"+w.ID, ""); now.Status != "enabled" {
				t.Errorf("%s: the webhook is %s after a test, want it enabled", test.name, now.Status)
			}
		}
		got := r.at("/good")
		if len(got) != 1 {
			t.Fatalf("/good was sent %d, want the one test", len(got))
		}
		if !strings.HasPrefix(got[0].header.Get("User-Agent"), "Shopbell/") || got[0].header.Get("traceparent") == "" {
			t.Errorf("headers of the test: got %v, want User-Agent Shopbell/… and a traceparent", got[0].header)
		}
		if len(r.at("/broken")) != 1 {
			t.Errorf("/broken was sent %d, want one: tests are not tried again", len(r.at("/broken")))
		}
	})
}

func TestResend_SendsTheSameBytesWithAFreshSignature(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/hook", answer{code: 500}, answer{code: 200})
		w := h.newWebhook(t, "blomster", r.url+"/hook", `"policy": {"max_attempts": 1}`)
		id := h.publish(t, "blomster", `{"type":"order.created","data":`+payload+`}`)[0].ID
		e := h.awaitEvent(t, "blomster", id, allAre("failed", 1))
		at := "/v1/shops/blomster/deliveries/" + e.Story.Deliveries[0].ID
		for i := range 2 { // what failed, and then what was delivered
			again := get[struct {
				DeliveryID string `json:"delivery_id"`
			}](t, h, "POST", at+":resend", `{}`)
			if again.DeliveryID != e.Story.Deliveries[0].ID {
				t.Errorf("resend: got delivery %s, want the same, %s", again.DeliveryID, e.Story.Deliveries[0].ID)
			}
			got := r.await(t, "/hook", i+2)
			first, last := got[0], got[i+1]
			if last.id() != first.id() || string(last.body) != string(first.body) {
				t.Errorf("resend %d: got %s with %s, want %s with %s", i+1, last.id(), last.body, first.id(), first.body)
			}
			if c := last.header.Get("Content-Type"); c != first.header.Get("Content-Type") {
				t.Errorf("resend %d: got Content-Type %q, want %q", i+1, c, first.header.Get("Content-Type"))
			}
			secret := get[secrets](t, h, "GET", "/v1/shops/blomster/webhooks/"+w.ID+"/secret", "")
			if err := verified(t, last, secret.Secret); err != nil {
				t.Errorf("resend %d: got %v, want it verified with the secret of now", i+1, err)
			}
			get[secrets](t, h, "POST", "/v1/shops/blomster/webhooks/"+w.ID+":rotate_secret", `{"overlap": "0s"}`)
			e = h.awaitEvent(t, "blomster", id, func(e event) error {
				if got := len(e.Story.Deliveries[0].Attempts); got != i+2 {
					return fmt.Errorf("got %d attempts, want %d", got, i+2)
				}
				return allAre("delivered", 1)(e)
			})
			if a := e.Story.Deliveries[0].Attempts[i+1]; !a.ByHand || a.Number != i+2 {
				t.Errorf("resend %d: got %+v, want attempt %d by hand", i+1, a, i+2)
			}
		}
		e.Story.says(t, "attempt 1", "given up", "attempt 2, by hand,", "delivered", "attempt 3, by hand,", "delivered")
		if a := h.call(t, "POST", "/v1/shops/blomster/deliveries/dlv_none:resend", `{}`); a.code != http.StatusNotFound {
			t.Errorf("a delivery that is none: got %d %s, want 404", a.code, a.body)
		}
		if a := h.call(t, "POST", "/v1/shops/andre/deliveries/"+e.Story.Deliveries[0].ID+":resend", `{}`); a.code != http.StatusNotFound {
			t.Errorf("another shop's delivery: got %d %s, want 404", a.code, a.body)
		}
	})
}
