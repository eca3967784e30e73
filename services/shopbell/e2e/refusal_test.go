package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestBadInput_IsAnsweredWithWhatToDo(t *testing.T) {
	inBothWays(t, settings{"SHOPBELL_ALLOW_PRIVATE_ADDRESSES": "", "SHOPBELL_INGEST_MAX_REQUEST_BYTES": "2MiB"}, func(t *testing.T, h *house) {
		const (
			events   = "/v1/shops/blomster/events"
			webhooks = "/v1/shops/blomster/webhooks"
		)
		w := h.newWebhook(t, "blomster", "https://example.com/hooks", `"events": ["a"]`)
		h.newWebhook(t, "blomster", "https://example.com/hooks", `"events": ["b"]`)
		at := webhooks + "/" + w.ID
		old := w.Etag
		get[webhook](t, h, "PATCH", at, `{"label": "Warehouse"}`)
		type page struct {
			NextPageToken string `json:"next_page_token"`
		}
		token := get[page](t, h, "GET", webhooks+"?page_size=1", "").NextPageToken
		if token == "" {
			t.Fatal("a list of two with pages of one has no second page")
		}
		hook := func(fields string) string {
			if !strings.Contains(fields, `"url"`) {
				fields += `,"url":"https://example.com"`
			}
			if !strings.Contains(fields, `"events"`) {
				fields += `,"events":["*"]`
			}
			return "{" + strings.TrimPrefix(fields, ",") + "}"
		}
		large := `"` + strings.Repeat("x", 1<<20) + `"`
		for _, test := range []struct {
			name, method, path, body string
			headers                  []string
			status                   int
			field                    string // at fault; empty: none
			says                     string
		}{
			// Publishing.
			{"broken JSON", "POST", events, "{\"type\":\"a\",\n \"data\":{\"total\":549.50,}}", nil, 400, "", "line 2, column 25"},
			{"broken NDJSON", "POST", events, "{\"type\":\"a\",\"data\":1}\n{\"type\":\"a\",\"data\":}\n", []string{"Content-Type", "application/x-ndjson"}, 400, "events[1]", "line 2"},
			{"broken JSON with ?type=", "POST", events + "?type=a", `{"total":}`, nil, 400, "data", "line 1, column 10"},
			{"an empty body", "POST", events, "", nil, 400, "", "empty"},
			{"a blank body", "POST", events, " \n", nil, 400, "", "empty"},
			{"text", "POST", events, `"hello"`, nil, 400, "event", "JSON object"},
			{"an empty list", "POST", events, "[]", nil, 400, "events", "at least one"},
			{"empty NDJSON", "POST", events, "\n\n", []string{"Content-Type", "application/x-ndjson"}, 400, "events", "at least one"},
			{"too many", "POST", events, "[" + strings.Repeat(`{"type":"a","data":1},`, 1000) + `{"type":"a","data":1}]`, nil, 400, "events", "at most 1000"},
			{"an event too large", "POST", events, `{"type":"a","data":` + large + `}`, nil, 413, "", "max_event_bytes"},
			{"an event too large with ?type=", "POST", events + "?type=a", large, nil, 413, "", "max_event_bytes"},
			{"a request too large", "POST", events, "[" + strings.Repeat(`{"type":"a","data":`+large[:1<<19]+`"},`, 5) + "]", nil, 413, "", "max_request_bytes"},
			{"an unknown field", "POST", events, `{"type":"a","data":{},"ocurred_at":"2026-05-01T10:30:00Z"}`, nil, 400, "ocurred_at", `did you mean "occurred_at"`},
			{"a field twice", "POST", events, `{"type":"a","type":"b","data":{}}`, nil, 400, "type", "twice"},
			{"no data", "POST", events, `{"type":"a"}`, nil, 400, "data", "missing"},
			{"no type", "POST", events, `{"data":{}}`, nil, 400, "type", "name what happened"},
			{"a wildcard", "POST", events, `{"type":"order.*","data":{}}`, nil, 400, "type", "wildcard"},
			{"a wildcard for the rest", "POST", events, `{"type":"order.>","data":{}}`, nil, 400, "type", "wildcard"},
			{"a blank in the type", "POST", events, `{"type":"order created","data":{}}`, nil, 400, "type", "letters, digits"},
			{"an empty part in the type", "POST", events, `{"type":"order..created","data":{}}`, nil, 400, "type", "empty part"},
			{"a wildcard with ?type=", "POST", events + "?type=order.*", `{}`, nil, 400, "type", "wildcard"},
			{"a number as type", "POST", events, `{"type":7,"data":{}}`, nil, 400, "type", "must be a string"},
			{"a bad id", "POST", events, `{"id":"a b","type":"a","data":{}}`, nil, 400, "id", "blank"},
			{"a bad time", "POST", events, `{"type":"a","occurred_at":"yesterday","data":{}}`, nil, 400, "occurred_at", "RFC 3339"},
			{"a bad environment", "POST", events, `{"type":"a","environment":"prod","data":{}}`, nil, 400, "environment", "live"},
			{"a shop that cannot be", "POST", "/v1/shops/a*b/events", `{"type":"a","data":{}}`, nil, 400, "shop_id", "letters, digits"},
			{"an unknown parameter", "POST", events + "?typ=a", `{}`, nil, 400, "typ", "not known"},
			{"an unknown parameter beside type", "POST", events + "?type=a&ocurred_at=x", `{}`, nil, 400, "ocurred_at", `did you mean "occurred_at"`},
			{"CloudEvents 0.3", "POST", events, `{"specversion":"0.3","id":"x","source":"/s","type":"a","data":{}}`, []string{"Content-Type", "application/cloudevents+json"}, 400, "specversion", "1.0"},
			// Webhooks.
			{"broken JSON", "POST", webhooks, "{\"url\":\n\"https://example.com\",,}", nil, 400, "", "line 2"},
			{"nothing", "POST", webhooks, "", nil, 400, "", ""},
			{"an unknown field", "POST", webhooks, hook(`"evnets":["a"]`), nil, 400, "evnets", `did you mean "events"`},
			{"an unknown field inside", "POST", webhooks, hook(`"policy":{"time_out":"5s"}`), nil, 400, "time_out", `did you mean "timeout"`},
			{"a wrong kind of value", "POST", webhooks, hook(`"label":7`), nil, 400, "label", ""},
			{"a duration that is none", "POST", webhooks, hook(`"policy":{"timeout":"soon"}`), nil, 400, "", `"5s"`},
			{"an unknown profile", "POST", webhooks, hook(`"profile":"standrad"`), nil, 400, "profile", `did you mean "standard"`},
			{"a relative URL", "POST", webhooks, hook(`"url":"/hooks"`), nil, 400, "url", "write it in full"},
			{"a URL without scheme", "POST", webhooks, hook(`"url":"example.com/hooks"`), nil, 400, "url", "write it in full"},
			{"ftp", "POST", webhooks, hook(`"url":"ftp://example.com/hooks"`), nil, 400, "url", "only https and http"},
			{"a password in the URL", "POST", webhooks, hook(`"url":"https://me:secret@example.com/hooks"`), nil, 400, "url", "headers (Authorization)"},
			{"a private address", "POST", webhooks, hook(`"url":"http://10.0.0.7/hooks"`), nil, 400, "url", "--allow-private-addresses"},
			{"a loopback address", "POST", webhooks, hook(`"url":"http://[::1]:8080/hooks"`), nil, 400, "url", "--allow-private-addresses"},
			{"an address of the cloud's", "POST", webhooks, hook(`"url":"http://169.254.169.254/latest"`), nil, 400, "url", "--allow-private-addresses"},
			{"localhost", "POST", webhooks, hook(`"url":"http://localhost/hooks"`), nil, 400, "url", "--allow-private-addresses"},
			{"no URL", "POST", webhooks, `{"events":["*"]}`, nil, 400, "url", "missing"},
			{"no events", "POST", webhooks, `{"url":"https://example.com"}`, nil, 400, "events", `"*" for all`},
			{"a pattern", "POST", webhooks, hook(`"events":["order.*"]`), nil, 400, "events[0]", "wildcard"},
			{"a blank in an event", "POST", webhooks, hook(`"events":["a","order created"]`), nil, 400, "events[1]", "letters, digits"},
			{"a timeout too long", "POST", webhooks, hook(`"policy":{"timeout":"3600s"}`), nil, 400, "policy.timeout", "between 1s and 1m"},
			{"a header of ours", "POST", webhooks, hook(`"headers":{"webhook-id":"x"}`), nil, 400, "headers.webhook-id", "another name"},
			{"a bad secret", "POST", webhooks, hook(`"secret":"whsec_!"`), nil, 400, "secret", ""},
			{"a change of what we set", "POST", webhooks, hook(`"id":"wh_mine"`), nil, 400, "id", "leave it out"},
			{"an old etag", "PATCH", at, fmt.Sprintf(`{"label":"x","etag":%q}`, old), nil, 409, "", "read it again"},
			{"an old etag for a deletion", "DELETE", at + "?etag=" + old, "", nil, 409, "", "read it again"},
			{"an unknown field in a change", "PATCH", at, `{"lable":"x"}`, nil, 400, "lable", `did you mean "label"`},
			{"an unknown field in update_mask", "PATCH", at + "?update_mask=lable", `{"label":"x"}`, nil, 400, "update_mask", `did you mean "label"`},
			{"an unknown webhook", "GET", webhooks + "/wh_none", "", nil, 404, "", "GET /v1/shops/blomster/webhooks"},
			{"another shop's webhook", "GET", "/v1/shops/andre/webhooks/" + w.ID, "", nil, 404, "", "GET /v1/shops/andre/webhooks"},
			{"send or what", "POST", at + ":enable", `{"held":"maybe"}`, nil, 400, "held", "discard"},
			// Lists.
			{"a token of another shop's list", "GET", "/v1/shops/andre/webhooks?page_token=" + token, "", nil, 400, "page_token", "leave it out"},
			{"a token of another list", "GET", "/v1/shops/blomster/deliveries?page_token=" + token, "", nil, 400, "page_token", "without it"},
			{"a token that is none", "GET", webhooks + "?page_token=xyz", "", nil, 400, "page_token", "leave it out"},
			{"an unknown parameter of a list", "GET", webhooks + "?pagesize=1", "", nil, 400, "pagesize", `did you mean "page_size"`},
			{"a page too large", "GET", webhooks + "?page_size=10000", "", nil, 400, "page_size", "500"},
			{"a page size that is no number", "GET", webhooks + "?page_size=many", "", nil, 400, "page_size", ""},
			{"an unknown status", "GET", "/v1/shops/blomster/deliveries?status=lost", "", nil, 400, "status", "delivered"},
			{"a code that is none", "GET", "/v1/shops/blomster/deliveries?response_code=9xx", "", nil, 400, "response_code", ""},
			{"a time that is none", "GET", "/v1/shops/blomster/deliveries?from=yesterday", "", nil, 400, "from", ""},
			// Places.
			{"an unknown event", "GET", events + "/none", "", nil, 404, "", "check both ids"},
			{"an unknown route", "GET", "/v1/shop/blomster", "", nil, 404, "", "/v1/openapi.json"},
			{"an unknown page", "GET", "/v2", "", nil, 404, "", "/v1/openapi.json"},
			{"an unknown verb", "POST", at + ":explode", `{}`, nil, 405, "", "/v1/openapi.json"},
			{"a wrong method", "PUT", at, `{}`, nil, 405, "", "/v1/openapi.json"},
			{"a wrong method for publishing", "PUT", events, `{}`, nil, 405, "", "/v1/openapi.json"},
			{"reading what is published to", "GET", events, "", nil, 405, "", "/v1/openapi.json"},
		} {
			name := test.method + " " + strings.TrimPrefix(test.path, "/v1/shops/blomster") + ", " + test.name
			a := h.call(t, test.method, test.path, test.body, test.headers...)
			if a.code != test.status {
				t.Errorf("%s: got %d %.300s, want %d", name, a.code, a.body, test.status)
				continue
			}
			if got := a.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("%s: got Content-Type %q, want application/json", name, got)
			}
			var why refusal
			a.read(t, &why)
			if why.Code == 0 || why.Message == "" {
				t.Errorf("%s: got %s, want a Status with a code and a message", name, a.body)
			}
			if test.field != "" && !slices.Contains(why.fields(), test.field) {
				t.Errorf("%s: got fields %q in %.300s, want %q", name, why.fields(), a.body, test.field)
			}
			if !strings.Contains(why.Message, test.says) {
				t.Errorf("%s: got %.300q, want it to say %q", name, why.Message, test.says)
			}
			for _, inner := range []string{"proto:", "protojson", "json:", "goroutine", "rpc error", "nats:", "strconv", "sql"} {
				if strings.Contains(why.Message, inner) {
					t.Errorf("%s: got %.300q, which shows %q, a part of how it is made", name, why.Message, inner)
				}
			}
		}
		// All of that was refused, and nothing of it counts.
		if list := get[struct{ Webhooks []webhook }](t, h, "GET", webhooks, ""); len(list.Webhooks) != 2 {
			t.Errorf("got %d webhooks, want the two from the beginning", len(list.Webhooks))
		}
		if got := len(h.publish(t, "blomster", "["+strings.TrimSuffix(strings.Repeat(`{"type":"c","data":1},`, 1000), ",")+"]")); got != 1000 {
			t.Errorf("a batch of 1000: got %d answers", got)
		}
		largest := `{"type":"c","data":"` + strings.Repeat("x", 1<<20-2) + `"}`
		if got := h.publish(t, "blomster", largest); got[0].Status != "accepted" {
			t.Errorf("the largest event: got %v, want accepted", got)
		}
	})
}

// A network that the operator opens is open for every room, and nothing beside it.
func TestOpenedNetwork_IsReachedAndNothingBesideIt(t *testing.T) {
	inBothWays(t, settings{"SHOPBELL_ALLOW_PRIVATE_ADDRESSES": "", "SHOPBELL_ALLOW_ADDRESSES": "127.0.0.1, 10.1.0.0/16"}, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook", `"policy": {"max_attempts": 1}`)
		for _, url := range []string{"http://127.0.0.2/", "http://10.2.0.1/", "http://169.254.169.254/", "http://[::ffff:10.1.0.1]/"} {
			var why refusal
			a := h.call(t, "POST", "/v1/shops/blomster/webhooks", fmt.Sprintf(`{"url": %q, "events": ["*"]}`, url))
			if a.read(t, &why); a.code != 400 || !strings.Contains(why.Message, "allow_addresses") {
				t.Errorf("%s: got %d %s, want 400 that names allow_addresses", url, a.code, a.body)
			}
		}
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
	})
}

// A private address is refused when it is dialled, too: whatever a name leads to.
func TestPrivateAddress_IsRefusedWhenItIsDialled(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook", `"policy": {"max_attempts": 1}`)
		for _, room := range []string{"subscription", "sender"} {
			p := h.process(room)
			if h.way == one && room == "sender" {
				continue
			}
			p.stop(t)
			p.env = slices.DeleteFunc(p.env, func(entry string) bool { return strings.HasPrefix(entry, "SHOPBELL_ALLOW_PRIVATE_ADDRESSES") })
			h.start(t, room)
		}
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		e := h.awaitEvent(t, "blomster", id, allAre("failed", 1))
		if a := e.Story.Deliveries[0].Attempts[0]; a.ErrorClass != "blocked_address" || a.ResponseCode != 0 {
			t.Errorf("got %+v, want error_class blocked_address", a)
		}
		if got := len(r.at("/hook")); got != 0 {
			t.Errorf("the receiver was sent %d, want 0", got)
		}
	})
}

// What a receiver answers is bounded, and kept as it is.
func TestAnswer_IsBoundedAndKept(t *testing.T) {
	inBothWays(t, settings{"SHOPBELL_SENDER_MAX_RESPONSE_BYTES": "1KiB"}, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/hook", answer{code: 200, body: strings.Repeat("<æ&>", 1000), header: map[string]string{"X-Trace": "abc"}})
		h.newWebhook(t, "blomster", r.url+"/hook")
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		d := get[struct {
			Attempts []struct {
				ResponseBody    string                         `json:"response_body"`
				ResponseBodyCut bool                           `json:"response_body_cut"`
				ResponseHeaders []struct{ Name, Value string } `json:"response_headers"`
			}
		}](t, h, "GET", "/v1/shops/blomster/deliveries/"+r.at("/hook")[0].id(), "")
		a := d.Attempts[0]
		if !a.ResponseBodyCut || !strings.HasPrefix(a.ResponseBody, "<æ&><æ&>") && !strings.HasPrefix(a.ResponseBody, "data:") {
			t.Errorf("got body %.60q, cut: %v, want its first 1024 bytes, cut", a.ResponseBody, a.ResponseBodyCut)
		}
		if !slices.ContainsFunc(a.ResponseHeaders, func(h struct{ Name, Value string }) bool { return h.Name == "X-Trace" && h.Value == "abc" }) {
			t.Errorf("got headers %v, want X-Trace", a.ResponseHeaders)
		}
	})
}
