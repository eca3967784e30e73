package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// S5: what holds across the shop systems.

var across sharedHouse

// presets are all profiles that ship.
var presets = []string{"shoporama", "shoprocket", "cloudcart", "shoprenter", "standard", "cloudevents"}

// anOrder is each preset's event for a new order.
var anOrder = map[string]string{
	"shoporama": "order_created", "shoprocket": "order.created", "cloudcart": "order.created", "shoprenter": "order_confirm",
	"standard": "order.created", "cloudevents": "order.created",
}

func TestShops_S5_01_NamesAreTheCatalogsAlone(t *testing.T) {
	h := across.enter(t)
	for _, row := range []struct{ preset, wrong, nearest string }{
		{"shoporama", "order.created", "order_created"},
		{"shoprocket", "order_created", "order.created"},
		{"cloudcart", "Order.Created", "order.created"},
		{"shoprenter", "order.confirm", "order_confirm"},
	} {
		s := h.newShop(t, row.preset)
		for _, r := range []refusal{
			s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", fmt.Sprintf(`{"url": "https://example.com/", "events": [%q]}`, row.wrong)),
			s.refused(t, http.StatusBadRequest, "POST", s.at+"/events", fmt.Sprintf(`{"type": %q, "data": {}}`, row.wrong)),
		} {
			if !strings.Contains(r.Message, fmt.Sprintf("did you mean %q?", row.nearest)) {
				t.Errorf("%s: %s is refused with %q, want the nearest name, %s", row.preset, row.wrong, r.Message, row.nearest)
			}
		}
	}
	for _, open := range []string{"standard", "cloudevents"} {
		s, r := h.newShop(t, open), newReceiver(t)
		const own = "Shop.moved_to-2.0"
		s.webhook(t, r.url+"/hook", fmt.Sprintf(`"events": [%q]`, own))
		s.publishOne(t, own, `{}`)
		if in := r.await(t, "/hook", 1)[0]; !contains(in.body, `"type":"`+own+`"`) {
			t.Errorf("%s: got %s, want the name as it is", open, in.body)
		}
		s.refused(t, http.StatusBadRequest, "POST", s.at+"/events", `{"type": "order created", "data": {}}`)
	}
}

// What an answer means under each preset's rules. The letters: d delivered, r tried again, f given up, x the webhook is
// off and the delivery kept, g the webhook is deleted and nothing tried again, D delivered and the webhook deleted.
//
// Four have the rules of Standard Webhooks: shoprocket (B7), shoprenter (D10), standard and cloudevents.
var verdicts = []struct {
	answer                         answer
	shoporama, cloudcart, standard string
}{
	{answer{code: 200}, "d", "d", "d"},
	{answer{code: 200, body: "<html><body>ok</body></html>"}, "d", "d", "d"},
	{answer{code: 201}, "d", "r", "d"},
	{answer{code: 202}, "d", "r", "d"},
	{answer{code: 204}, "d", "r", "d"},
	{answer{code: 206}, "d", "r", "d"},
	{answer{code: 299}, "d", "r", "d"},
	{answer{code: 301}, "f", "r", "r"},
	{answer{code: 302}, "f", "r", "r"},
	{answer{code: 304}, "f", "r", "r"},
	{answer{code: 307}, "f", "r", "r"},
	{answer{code: 400}, "f", "x", "r"},
	{answer{code: 401}, "f", "x", "r"},
	{answer{code: 402}, "f", "r", "r"},
	{answer{code: 403}, "f", "x", "r"},
	{answer{code: 404}, "f", "x", "r"},
	{answer{code: 405}, "f", "x", "r"},
	{answer{code: 406}, "f", "x", "r"},
	{answer{code: 407}, "f", "r", "r"},
	{answer{code: 408}, "f", "r", "r"},
	{answer{code: 409}, "f", "r", "r"},
	{answer{code: 410}, "f", "x", "x"},
	{answer{code: 411}, "f", "x", "r"},
	{answer{code: 412}, "f", "r", "r"},
	{answer{code: 418}, "f", "r", "r"},
	{answer{code: 429}, "f", "r", "r"},
	{answer{code: 500}, "f", "r", "r"},
	{answer{code: 502}, "f", "r", "r"},
	{answer{code: 503}, "f", "r", "r"},
	{answer{code: 504}, "f", "r", "r"},
	{answer{code: 599}, "f", "r", "r"},
	{answer{code: 200, body: "Please unsubscribe me."}, "d", "D", "d"},
	{answer{code: 500, body: "Please unsubscribe me."}, "f", "g", "r"},
	{answer{code: 410, body: "Please unsubscribe me."}, "f", "g", "x"},
	{answer{}, "f", "r", "r"}, // none comes, in every way that noAnswer knows
}

// outcome is the letter of what came of a first attempt.
func outcome(status, webhookStatus string) string {
	letter := map[string]string{
		"delivered enabled": "d", "retrying enabled": "r", "failed enabled": "f", "held disabled": "x", "failed deleted": "g", "delivered deleted": "D",
	}[status+" "+webhookStatus]
	if letter == "" {
		return status + ", webhook " + webhookStatus
	}
	return letter
}

func TestShops_S5_02_AnswersAndWhatTheyMean(t *testing.T) {
	h := across.enter(t)
	r, silent := newReceiver(t), noAnswer(t)
	type expected struct{ url, letter string }
	shops, ids, wants := map[string]*premises{}, map[string]string{}, map[string]map[string]expected{} // by preset; the last by webhook, too
	for _, preset := range presets {
		s := h.newShop(t, preset)
		shops[preset], wants[preset] = s, map[string]expected{}
		add := func(url, letter string, more ...string) {
			wants[preset][s.newWebhook(t, s.id, url, append(more, fmt.Sprintf(`"events": [%q]`, anOrder[preset]))...).ID] = expected{url, letter}
		}
		for i, row := range verdicts {
			letter := row.standard
			switch preset {
			case "shoporama":
				letter = row.shoporama
			case "cloudcart":
				letter = row.cloudcart
			}
			if row.answer.code == 0 {
				for url := range silent {
					add(url, letter, `"policy": {"timeout": "2s"}`)
				}
				continue
			}
			path := fmt.Sprintf("/%s/%d/%d", preset, i, row.answer.code)
			row.answer.header = map[string]string{"Location": r.url + "/there"}
			r.answer(path, row.answer)
			add(r.url+path, letter)
		}
		ids[preset] = s.publishOne(t, anOrder[preset], `{"id":10457}`)
	}
	for _, preset := range presets {
		s, want := shops[preset], wants[preset]
		byWebhook, _ := s.awaitStory(t, ids[preset], len(want), attempted)
		for id, w := range want {
			d := byWebhook[id]
			status := map[string]string{"x": "disabled", "g": "deleted", "D": "deleted"}[w.letter]
			if status != "" {
				s.awaitWebhook(t, id, status)
			}
			// Of the first attempt: a second may have been made by now.
			if got := outcome(d.Attempts[0].Verdict, s.read(t, id).Status); got != w.letter {
				t.Errorf("%s, %s: got %s, want %s", preset, w.url, got, w.letter)
			}
		}
	}
	if got := len(r.at("/there")); got != 0 {
		t.Errorf("%d redirects were followed, want none", got)
	}
}

func TestShops_S5_02_EveryRuleCanBeSetAlone(t *testing.T) {
	h := across.enter(t)
	for _, preset := range presets {
		s, base := h.newShop(t, preset), h.profile(t, preset).Policy
		for field, row := range map[string]struct {
			value string
			want  func(rules) rules // of the preset's rules
		}{
			"timeout":           {`"7s"`, func(r rules) rules { r.Timeout = "7s"; return r }},
			"retry_schedule":    {`["1s", "2s"]`, func(r rules) rules { r.RetrySchedule, r.MaxAttempts = []string{"1s", "2s"}, 3; return r }},
			"max_attempts":      {`1`, func(r rules) rules { r.MaxAttempts = 1; return r }},
			"jitter":            {fmt.Sprint(!base.Jitter), func(r rules) rules { r.Jitter = !r.Jitter; return r }},
			"success_codes":     {`["202"]`, func(r rules) rules { r.SuccessCodes = []string{"202"}; return r }},
			"disable_codes":     {`[418]`, func(r rules) rules { r.DisableCodes = []int{418}; return r }},
			"disable_after":     {`"last_attempt"`, func(r rules) rules { r.DisableAfter = "last_attempt"; return r }},
			"delete_phrases":    {`["leave me alone"]`, func(r rules) rules { r.DeletePhrases = []string{"leave me alone"}; return r }},
			"honor_retry_after": {fmt.Sprint(!base.HonorRetryAfter), func(r rules) rules { r.HonorRetryAfter = !r.HonorRetryAfter; return r }},
		} {
			got := s.webhook(t, "https://example.com/", fmt.Sprintf(`"policy": {%q: %s}`, field, row.value)).Policy
			if want := row.want(base); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s with %s %s: got %+v, want %+v", preset, field, row.value, got, want)
			}
		}
	}
}

func TestShops_S5_04_Envelopes(t *testing.T) {
	h := across.enter(t)
	const at = "2026-05-01T10:30:00+02:00"
	for _, row := range []struct{ preset, eventType, data, want string }{
		{"shoporama", "paid", `{"n": 1.50}`, `{"event":"paid","action":"update","timestamp":"` + at + `","webshop_id":1234,"data":{"n": 1.50}}`},
		{"shoprocket", "order.created", `{"n": "1.50"}`, `{"data":{"n": "1.50"},"type":"order.created","webhook_environment":"test"}`},
		{"cloudcart", "order.created", `{"n": 1.50}`, `{"n": 1.50}`},
		{"shoprenter", "order_confirm", `{"n": 1.50}`, `{"orders":{"order":[{"n": 1.50}]}}`},
		{"shoprenter", "order_status_change", `{"n": 1.50}`, `{"orders":{"order":[{"n": 1.50}]}}`},
		{"shoprenter", "newsletter_subscribe", `{"n": 1.50}`, `{"newsletter":{"subscriber":[{"n": 1.50}]}}`},
		{"shoprenter", "newsletter_unsubscribe", `{"n": 1.50}`, `{"newsletter":{"subscriber":[{"n": 1.50}]}}`},
		{"shoprenter", "newsletter_update_subscriber", `{"n": 1.50}`, `{"newsletter":{"subscriber":[{"n": 1.50}]}}`},
		{"shoprenter", "order_confirm", `{"orders": {"order":[{"n": 1.50}]}}`, `{"orders": {"order":[{"n": 1.50}]}}`},
		{"shoprenter", "newsletter_subscribe", `{"newsletter": {"subscriber":[]}}`, `{"newsletter": {"subscriber":[]}}`},
		{"shoprenter", "newsletter_subscribe", `{"orders": {}}`, `{"newsletter":{"subscriber":[{"orders": {}}]}}`},
		{"standard", "order.created", `{"n": 1.50}`, `{"type":"order.created","timestamp":"` + at + `","data":{"n": 1.50}}`},
		{"cloudevents", "order.created", `{"n": 1.50}`, `{"specversion":"1.0","id":"the-event","source":"{shop}","type":"order.created","time":"` + at +
			`","datacontenttype":"application/json","data":{"n": 1.50}}`},
	} {
		s, r := h.newShop(t, row.preset, `"environment": "test"`), newReceiver(t)
		s.webhook(t, r.url+"/hook")
		s.publish(t, s.id, fmt.Sprintf(`{"id": "the-event", "type": %q, "occurred_at": %q, "data": %s}`, row.eventType, at, row.data))
		want := strings.Replace(row.want, "{shop}", s.id, 1)
		if got := string(r.await(t, "/hook", 1)[0].body); got != want {
			t.Errorf("%s, %s:\ngot  %s\nwant %s", row.preset, row.eventType, got, want)
		}
	}
}

func TestShops_S5_05_BodyExactlyAsGiven(t *testing.T) {
	h := across.enter(t)
	bodies := []struct{ contentType, body string }{
		{"text/xml; charset=iso-8859-1", "<?xml version=\"1.0\"?>\r\n<a>\xe6</a>\n"},
		{"image/png", "\x89PNG\r\n\x1a\n\x00\x00\xff\xfe{\"a\": 1}\x00"},
		{"text/csv", "order;total\r\n1042;549,50\r\n"},
		{"application/octet-stream", ""},
	}
	for _, preset := range presets {
		s, r := h.newShop(t, preset), newReceiver(t)
		own := []string{}
		if preset == "cloudevents" { // in whose structured mode a body that is not JSON is part of one that is
			own = append(own, `"options": ["binary"]`)
		}
		s.webhook(t, r.url+"/hook", own...)
		n := 0
		wantNext := func(contentType, body string) {
			t.Helper()
			a := s.call(t, "POST", s.at+"/events?type="+anOrder[preset], body, "Content-Type", contentType)
			if a.code != http.StatusAccepted {
				t.Fatalf("%s: publish %q: got %d %s", preset, body, a.code, a.body)
			}
			n++
			in := r.await(t, "/hook", n)[n-1]
			if string(in.body) != body || in.header.Get("Content-Type") != contentType {
				t.Errorf("%s: got %q as %s, want %q as %s", preset, in.body, in.header.Get("Content-Type"), body, contentType)
			}
		}
		for _, b := range bodies {
			wantNext(b.contentType, b.body)
		}
		if preset == "cloudcart" { // no envelope: JSON goes out as it is, too
			wantNext("application/json", "\n "+payload+" \r\n\t")
		}
	}
	// The webhook's format is for JSON; what is none stays what it is.
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	s.webhook(t, r.url+"/xml", `"format": "xml"`)
	s.call(t, "POST", s.at+"/events?type=order.created", bodies[1].body, "Content-Type", bodies[1].contentType)
	if in := r.await(t, "/xml", 1)[0]; string(in.body) != bodies[1].body {
		t.Errorf("an image to a webhook that wants XML: got %q, want it as it is", in.body)
	}
}

// A shop's settings hold for what is asked next: a webhook keeps the profile that it is made with.
func TestShops_SettingsHoldForWhatFollows(t *testing.T) {
	h := across.enter(t)
	for range 100 {
		s := h.newShop(t, "shoporama")
		if w := s.webhook(t, "https://example.com/", `"events": ["paid"]`); w.Profile != "shoporama" {
			t.Fatalf("a webhook of a shop that was made shoporama just now has the profile %s", w.Profile)
		}
	}
}

// Each preset's signature, whatever the format and the envelope: a receiver that verifies goes on verifying.
func TestShops_S5_02_Signatures(t *testing.T) {
	h := across.enter(t)
	for _, preset := range presets {
		s, r := h.newShop(t, preset), newReceiver(t)
		w := s.webhook(t, r.url+"/hook")
		s.publishOne(t, anOrder[preset], `{"name":"Søren Ærø"}`)
		in, secret := r.await(t, "/hook", 1)[0], s.secret(t, w.ID)
		standard, hex := in.header.Get("webhook-signature") != "", in.header.Get("X-Webhook-Signature") != ""
		if want := !slices.Contains([]string{"shoporama", "cloudcart"}, preset); standard != want {
			t.Errorf("%s: signed by Standard Webhooks: %v, want %v", preset, standard, want)
		}
		if want := slices.Contains([]string{"shoporama", "shoprocket"}, preset); hex != want {
			t.Errorf("%s: X-Webhook-Signature: %v, want %v", preset, hex, want)
		}
		if standard {
			if err := verified(t, in, secret); err != nil {
				t.Errorf("%s: %v", preset, err)
			}
		}
		if hex {
			wantHexSignature(t, in, secret)
		}
	}
}
