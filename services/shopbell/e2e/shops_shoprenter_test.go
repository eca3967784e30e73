package e2e

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// S4: what Shoprenter's document promises.

var shoprenter sharedHouse

// webHook is a WebHook resource as our compatibility endpoint answers it.
type webHook struct {
	Label      string
	Event      string
	Status     json.RawMessage
	Parameters []struct{ Type, URL string } `json:"webHookParameters"`
	Delays     []struct {
		Delay json.RawMessage
		Unit  string `json:"delayUnit"`
	} `json:"webHookDelay"`
	IDs []string `json:"webhook_ids"`
}

// webHooks POSTs a WebHook resource that is taken.
func (s *premises) webHooks(t *testing.T, body string) (res webHook) {
	t.Helper()
	r := s.call(t, "POST", s.at+"/webHooks", body)
	if r.code != http.StatusCreated {
		t.Fatalf("POST webHooks %s: got %d %s, want 201", body, r.code, r.body)
	}
	r.read(t, &res)
	return res
}

// resource is the JSON of a WebHook resource with one target.
func resource(event, kind, url, more string) string {
	return fmt.Sprintf(`{"label": "test webhook", "event": %q, "status": 1, "webHookParameters": [{"type": %q, "url": %q}]%s}`, event, kind, url, more)
}

// shoprenterTypes are the document's five events: two of orders, three of the newsletter.
var shoprenterTypes = []string{"order_confirm", "order_status_change", "newsletter_subscribe", "newsletter_unsubscribe", "newsletter_update_subscriber"}

func TestShoprenter_S4_01_PropertiesOfTheResource(t *testing.T) {
	h := shoprenter.enter(t)
	s := h.newShop(t, "shoprenter")
	res := s.webHooks(t, resource("order_confirm", "json", "https://example.hu/hooks", `, "webHookDelay": [{"delay": 10, "delayUnit": "day"}]`))
	if res.Label != "test webhook" || res.Event != "order_confirm" || string(res.Status) != "1" || len(res.Parameters) != 1 || len(res.Delays) != 1 {
		t.Errorf("got %+v, want the five properties as they were given", res)
	}
	w := s.read(t, res.IDs[0])
	if w.Label != "test webhook" || !slices.Equal(w.Events, []string{"order_confirm"}) || w.Status != "enabled" || w.URL != "https://example.hu/hooks" ||
		w.Format != "json" || w.Delay == nil || w.Delay.Value != 10 || w.Delay.Unit != "day" || w.Profile != "shoprenter" {
		t.Errorf("as a webhook: got %+v, want the same", w)
	}
	r := s.refused(t, http.StatusBadRequest, "POST", s.at+"/webHooks", resource("order_confirm", "json", "https://example.hu/hooks", `, "webHookDelays": []`))
	if !strings.Contains(r.Message, "webHookDelays") {
		t.Errorf("a property that is none: got %q, want it named", r.Message)
	}
}

func TestShoprenter_S4_02_LabelIsNeverSent(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newWire(t, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	const label = "Belső-címke-8c1f53"
	for _, kind := range []string{"json", "xml"} {
		res := s.webHooks(t, strings.Replace(resource("order_confirm", kind, r.url+"/"+kind, ""), "test webhook", label, 1))
		if w := s.read(t, res.IDs[0]); w.Label != label {
			t.Fatalf("got the label %q, want %q", w.Label, label)
		}
		get[hook](t, h, "PATCH", s.at+"/webhooks/"+res.IDs[0], "{"+waits(100*time.Millisecond)+"}")
		s.test(t, res.IDs[0], "order_confirm")
	}
	id := s.publishOne(t, "order_confirm", string(sampleData(t, h, "shoprenter", "order_confirm")))
	byWebhook, told := s.awaitStory(t, id, 2, is("failed"))
	if len(told.Considered) != 2 || told.Considered[0].Label != label { // it is for people
		t.Errorf("the story considers %+v, want the label in it", told.Considered)
	}
	for _, d := range byWebhook {
		s.resend(t, d)
	}
	for _, in := range r.await(t, 8) { // of both, a test, two attempts and one by hand
		if bytes.Contains(in.raw, []byte(label)) || bytes.Contains(in.raw, []byte("8c1f53")) {
			t.Errorf("the label was sent: %s", in.raw)
		}
	}
}

func TestShoprenter_S4_03_FiveEventsByTheResource(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	for _, eventType := range shoprenterTypes {
		s.webHooks(t, resource(eventType, "json", r.url+"/"+eventType, ""))
		s.publishOne(t, eventType, `{"n":1}`)
	}
	for _, eventType := range shoprenterTypes {
		if in := r.await(t, "/"+eventType, 1); !contains(in[0].body, `{"n":1}`) {
			t.Errorf("%s: got %s", eventType, in[0].body)
		}
	}
	// D3: as the document's list writes it.
	if res := s.webHooks(t, resource("Order_confirm", "json", r.url+"/capital", "")); res.Event != "order_confirm" {
		t.Errorf("Order_confirm: got %q, want order_confirm", res.Event)
	}
	refused := s.refused(t, http.StatusBadRequest, "POST", s.at+"/webHooks", resource("order_confirmed", "json", r.url+"/none", ""))
	if !strings.Contains(refused.Message, `did you mean "order_confirm"?`) {
		t.Errorf("order_confirmed: got %q, want the nearest name", refused.Message)
	}
}

// Whether a status change moved the customer into another group is for the platform to see; to us it is a status change
// like any other, and none is left out.
func TestShoprenter_S4_04_StatusChangeThatMovesTheGroup(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	s.webHooks(t, resource("order_status_change", "json", r.url+"/hook", ""))
	data := []string{
		`{"innerId":"190","orderHistory":{"status":"5","statusText":"Completed"}}`,
		`{"innerId":"190","orderHistory":{"status":"5","statusText":"Completed"},"customerGroup":{"from":"8","to":"9"}}`,
	}
	for i, order := range data {
		s.publishOne(t, "order_status_change", order)
		if in := r.await(t, "/hook", i+1)[i]; string(in.body) != `{"orders":{"order":[`+order+`]}}` {
			t.Errorf("got %s, want %s in its root", in.body, order)
		}
	}
}

func TestShoprenter_S4_05_StatusZeroSendsNothing(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	off := strings.Replace(resource("order_confirm", "json", r.url+"/off", ""), `"status": 1`, `"status": "0"`, 1) // D9: as text, too
	on := strings.Replace(resource("order_confirm", "json", r.url+"/on", ""), `"status": 1`, `"status": "1"`, 1)
	toggled, always := s.webHooks(t, off), s.webHooks(t, on)
	if string(toggled.Status) != "0" || string(always.Status) != "1" {
		t.Errorf("got the statuses %s and %s, want the numbers 0 and 1", toggled.Status, always.Status)
	}
	id := toggled.IDs[0]
	if w := s.read(t, id); w.Status != "disabled" {
		t.Errorf("status 0: the webhook is %s, want it disabled", w.Status)
	}
	// Each change holds for the next event.
	for n, step := range []string{"", ":enable", ":disable", ":enable"} {
		if step != "" {
			s.switched(t, id, step, `{}`)
		}
		s.publishOne(t, "order_confirm", fmt.Sprintf(`{"n":%d}`, n))
		r.await(t, "/on", n+1) // it is matched by now, to the other as well
	}
	s.awaitDeliveries(t, "status=delivered", 6)
	var got []string
	for _, in := range r.at("/off") {
		got = append(got, string(in.body))
	}
	if want := []string{`{"orders":{"order":[{"n":1}]}}`, `{"orders":{"order":[{"n":3}]}}`}; !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("got %q, want what was published while it was on: %q", got, want)
	}
	s.refused(t, http.StatusBadRequest, "POST", s.at+"/webHooks", strings.Replace(off, `"0"`, `2`, 1))
}

func TestShoprenter_S4_06_Parameters(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	// D5: several are several targets. D4: "Url" as well.
	res := s.webHooks(t, fmt.Sprintf(`{"label": "two", "event": "order_confirm", "status": 1, "webHookParameters": [
		{"type": "json", "url": %q}, {"type": "xml", "Url": %q}]}`, r.url+"/json", r.url+"/xml"))
	if len(res.IDs) != 2 || res.Parameters[1].URL != r.url+"/xml" {
		t.Errorf("got %+v, want a webhook for each, and url in lower case", res)
	}
	answered := s.call(t, "POST", s.at+"/webHooks", fmt.Sprintf(`{"event": "order_confirm", "webHookParameters": [{"type": "json", "Url": %q}]}`, r.url+"/third"))
	if !contains(answered.body, `"url": `) || contains(answered.body, `"Url"`) {
		t.Errorf("got %s, want url in lower case", answered.body)
	}
	s.publishOne(t, "order_confirm", `{"innerId":"190"}`)
	if in := r.await(t, "/json", 1)[0]; string(in.body) != `{"orders":{"order":[{"innerId":"190"}]}}` || in.header.Get("Content-Type") != "application/json" {
		t.Errorf("json: got %s", in.body)
	}
	if in := r.await(t, "/xml", 1)[0]; !contains(in.body, "<orders><order><innerId>190</innerId></order></orders>") || in.header.Get("Content-Type") != "application/xml" {
		t.Errorf("xml: got %s", in.body)
	}
	before := len(get[struct{ Webhooks []hook }](t, h, "GET", s.at+"/webhooks", "").Webhooks)
	for name, parameters := range map[string]string{
		"none": `[]`, "another type": `[{"type": "csv", "url": "https://example.hu/"}]`, "no URL": `[{"type": "json"}]`,
		"a relative URL": `[{"type": "json", "url": "/hooks"}]`, "no list": `{"type": "json", "url": "https://example.hu/"}`,
		"the second bad": `[{"type": "json", "url": "https://example.hu/"}, {"type": "json", "url": "example.hu"}]`,
	} {
		s.refused(t, http.StatusBadRequest, "POST", s.at+"/webHooks", `{"event": "order_confirm", "status": 1, "webHookParameters": `+parameters+`}`)
		if now := len(get[struct{ Webhooks []hook }](t, h, "GET", s.at+"/webhooks", "").Webhooks); now != before {
			t.Errorf("%s: %d webhooks were made all the same", name, now-before)
		}
	}
}

func TestShoprenter_S4_07_DelayInDaysOrHours(t *testing.T) {
	h := shoprenter.enter(t)
	s := h.newShop(t, "shoprenter")
	for _, row := range []struct {
		delays string
		value  int
		unit   string
	}{
		{`[{"delay": 10, "delayUnit": "day"}]`, 10, "day"},
		{`[{"delay": 3, "delayUnit": "hour"}]`, 3, "hour"},
		{`[{"delay": "10", "delayUnit": "day"}]`, 10, "day"},
	} {
		res := s.webHooks(t, resource("order_confirm", "json", "https://example.hu/", `, "webHookDelay": `+row.delays))
		if w := s.read(t, res.IDs[0]); w.Delay == nil || w.Delay.Value != row.value || w.Delay.Unit != row.unit {
			t.Errorf("%s: got %+v", row.delays, w.Delay)
		}
		if got := string(res.Delays[0].Delay); got != fmt.Sprint(row.value) {
			t.Errorf("%s: answered %s, want the number", row.delays, got)
		}
	}
	for delays, says := range map[string]string{
		`[{"delay": 10, "delayUnit": "minute"}]`:                                       "neither day nor hour",
		`[{"delay": 10, "delayUnit": "days"}]`:                                         "neither day nor hour",
		`[{"delay": 10}]`:                                                              "neither day nor hour",
		`[{"delay": 0, "delayUnit": "day"}]`:                                           "delay",
		`[{"delay": -1, "delayUnit": "day"}]`:                                          "delay",
		`[{"delay": 1.5, "delayUnit": "day"}]`:                                         "whole number",
		`[{"delay": 1, "delayUnit": "day"}, {"delay": 2, "delayUnit": "hour"}]`:        "one is taken",
		`[{"delay": 100000000000000000000000000000000000000000, "delayUnit": "hour"}]`: "whole number",
	} {
		r := s.refused(t, http.StatusBadRequest, "POST", s.at+"/webHooks", resource("order_confirm", "json", "https://example.hu/", `, "webHookDelay": `+delays))
		if !strings.Contains(r.Message, says) {
			t.Errorf("%s: got %q, want it to say %q", delays, r.Message, says)
		}
	}
}

func TestShoprenter_S4_08_WithoutDelayAtOnce(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	for i, delay := range []string{"", `, "webHookDelay": []`} {
		path := fmt.Sprintf("/%d", i)
		s.webHooks(t, resource("order_confirm", "json", r.url+path, delay))
	}
	published := time.Now()
	s.publishOne(t, "order_confirm", `{}`)
	for _, path := range []string{"/0", "/1"} {
		if waited := r.await(t, path, 1)[0].at.Sub(published); waited > slack {
			t.Errorf("%s: sent after %s, want at once", path, waited)
		}
	}
}

func TestShoprenter_S4_09_ExampleOfTheDocument(t *testing.T) {
	h := shoprenter.enter(t)
	s := h.newShop(t, "shoprenter")
	const example = `{
    "label": "test webhook",
    "event": "order_confirm",
    "status": 1,
    "webHookParameters": [
        {
            "type": "json",
            "url": "http://shoprenter.hu"
        }
    ],
    "webHookDelay": [
        {
            "delay": 10,
            "delayUnit": "day"
        }
    ]
}`
	r := s.call(t, "POST", s.at+"/webHooks", example, "Content-Type", "application/json")
	if r.code != http.StatusCreated {
		t.Fatalf("got %d %s, want 201", r.code, r.body)
	}
	given, names := object(t, []byte(example))
	answered, _ := object(t, r.body)
	for _, name := range names {
		if got, want := compacted(t, answered[name]), compacted(t, given[name]); got != want {
			t.Errorf("%s: answered %s, want it as it was given, %s", name, got, want)
		}
	}
	var res webHook
	r.read(t, &res)
	id := s.publishOne(t, "order_confirm", `{"innerId":"190"}`)
	d, told := s.awaitOne(t, id, "delayed")
	if d.WebhookID != res.IDs[0] || d.NextAttemptAt == nil || (d.NextAttemptAt.Sub(s.acceptedAt(t, id))-240*time.Hour).Abs() > time.Millisecond {
		t.Errorf("got %+v, want it due in 10 days", d)
	}
	told.says(t, "accepted", "matched to 1 of 1 webhook", "delayed for "+res.IDs[0])
}

func compacted(t *testing.T, text []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return out.String()
}

// What an hour and a day are to us: when a delivery is due, by the log. That it is sent then is tried with seconds, and
// over a kill -9 in TestShoprenter_S4_10_DelaySurvivesAKill.
func TestShoprenter_S4_10_HoursAndDaysInSeconds(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	due := map[string]time.Duration{} // by webhook
	for _, row := range []struct {
		n    int
		unit string
		want time.Duration
	}{{1, "hour", 3600 * time.Second}, {36, "hour", 129_600 * time.Second}, {1, "day", 86_400 * time.Second}, {10, "day", 864_000 * time.Second}, {90, "day", 7_776_000 * time.Second}} {
		res := s.webHooks(t, resource("order_confirm", "json", r.url+"/later", fmt.Sprintf(`, "webHookDelay": [{"delay": %d, "delayUnit": %q}]`, row.n, row.unit)))
		due[res.IDs[0]] = row.want
	}
	second := s.webhook(t, r.url+"/second", `"delay": {"value": 2, "unit": "second"}`)
	id := s.publishOne(t, "order_confirm", `{"n":1}`)
	byWebhook, _ := s.awaitStory(t, id, len(due)+1, func(d logEntry) error {
		if want := map[bool]string{true: "delivered", false: "delayed"}[d.WebhookID == second.ID]; d.Status != want {
			return fmt.Errorf("it is %s", d.Status)
		}
		return nil
	})
	accepted := s.acceptedAt(t, id)
	for webhook, want := range due {
		d := byWebhook[webhook]
		if d.NextAttemptAt == nil || (d.NextAttemptAt.Sub(accepted)-want).Abs() > time.Millisecond {
			t.Errorf("got %+v, want it due %s after the event, which was at %s", d, want, accepted)
		}
	}
	in := r.await(t, "/second", 1)[0]
	if waited := in.at.Sub(accepted); waited < 2*time.Second || waited > 2*time.Second+slack {
		t.Errorf("2 seconds: sent after %s", waited)
	}
	if got := len(r.at("/later")); got != 0 {
		t.Errorf("%d were sent long before they are due", got)
	}
}

// D7: what is due for a webhook that is off by then is not sent, and says so; what is due for a deleted one is cancelled.
func TestShoprenter_S4_10_OffOrGoneWhenItIsDue(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	const delay = `"delay": {"value": 8, "unit": "second"}` // long enough for all that is done before it is due
	off, gone, stays := s.webhook(t, r.url+"/off", delay), s.webhook(t, r.url+"/gone", delay), s.webhook(t, r.url+"/stays", delay)
	id := s.publishOne(t, "order_confirm", `{"n":1}`)
	s.awaitStory(t, id, 3, is("delayed"))
	s.switched(t, off.ID, ":disable", `{}`)
	get[struct{}](t, h, "DELETE", s.at+"/webhooks/"+gone.ID, "")
	byWebhook, _ := s.awaitStory(t, id, 3, func(d logEntry) error {
		if d.Status == "delayed" || d.Status == "pending" {
			return errors.New("it waits")
		}
		return nil
	})
	for _, row := range []struct{ id, status, says string }{
		{off.ID, "cancelled", "switched off by its owner when the delivery was due"}, {gone.ID, "cancelled", "deleted"}, {stays.ID, "delivered", ""},
	} {
		if d := byWebhook[row.id]; d.Status != row.status || !strings.Contains(d.Reason, row.says) {
			t.Errorf("got %s because %q, want %s because %q", d.Status, d.Reason, row.status, row.says)
		}
	}
	if n := len(r.at("/off")) + len(r.at("/gone")); n != 0 {
		t.Errorf("%d were sent to webhooks that were off or gone", n)
	}
}

func TestShoprenter_S4_11_OrderInItsRoot(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	s.webHooks(t, resource("order_confirm", "json", r.url+"/hook", ""))
	order := sampleData(t, h, "shoprenter", "order_confirm")
	s.publishOne(t, "order_confirm", string(order))
	in := r.await(t, "/hook", 1)[0]
	if want := `{"orders":{"order":[` + string(order) + `]}}`; string(in.body) != want {
		t.Errorf("got  %s\nwant %s", in.body, want)
	}
	root, _ := object(t, in.body)
	orders, _ := object(t, root["orders"])
	var list []json.RawMessage
	if err := json.Unmarshal(orders["order"], &list); err != nil || len(list) != 1 {
		t.Fatalf("orders.order: got %s, want a list with one order", orders["order"])
	}
	if _, names := object(t, list[0]); len(names) != 47 {
		t.Errorf("got %d keys, want 47", len(names))
	}
}

func TestShoprenter_S4_17_BytesOfTheProducerSurvive(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	s.webHooks(t, resource("order_confirm", "json", r.url+"/hook", ""))
	const inner = `{ "shippingZoneName":"Hajdú-Bihar","escaped":"Hajd\u00fa-Bihar","innerResourceId":"orders\/b3JkZXItb3JkZXJfaWQ9MTkw","bare":"a/b",` +
		`"shippingNetPrice":970.0714,"shippingGrossPrice":"1006","couponGrossPrice":null,"fax":"" }`
	rooted := "{\n \"orders\":{\"order\":[" + inner + "]}}"
	for i, row := range []struct{ data, want string }{
		{inner, `{"orders":{"order":[` + inner + `]}}`}, {rooted, rooted},
	} {
		s.publishOne(t, "order_confirm", row.data)
		if in := r.await(t, "/hook", i+1)[i]; string(in.body) != row.want {
			t.Errorf("got  %s\nwant %s", in.body, row.want)
		}
	}
	for _, d := range s.awaitDeliveries(t, "status=delivered", 2) {
		if got := s.delivery(t, d).Body; !strings.Contains(got, inner) {
			t.Errorf("the log shows %q, want the bytes as they were sent", got)
		}
	}
}

// leaf is a value and the names that lead to it, with "/" between them. A list adds none: its items follow each other.
type leaf struct{ path, text string }

// jsonLeaves are the leaves of a JSON text, in their order. Null is an empty text.
func jsonLeaves(t *testing.T, dec *json.Decoder, path string) (out []leaf) {
	t.Helper()
	token, err := dec.Token()
	if err != nil {
		t.Fatal(err)
	}
	switch token {
	case json.Delim('{'):
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, jsonLeaves(t, dec, path+"/"+name.(string))...)
		}
	case json.Delim('['):
		for dec.More() {
			out = append(out, jsonLeaves(t, dec, path)...)
		}
	case nil:
		return []leaf{{path, ""}}
	default:
		return []leaf{{path, fmt.Sprint(token)}}
	}
	if _, err := dec.Token(); err != nil { // the bracket at the end
		t.Fatal(err)
	}
	return out
}

// xmlLeaves are the leaves of an XML text, in their order: elements without elements.
func xmlLeaves(t *testing.T, text []byte) (out []leaf) {
	t.Helper()
	dec := xml.NewDecoder(bytes.NewReader(text))
	var path []string
	var chars strings.Builder
	empty := false // no element has ended since the last one began
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("not well-formed: %v: %s", err, text)
		}
		switch token := token.(type) {
		case xml.StartElement:
			path = append(path, token.Name.Local)
			chars.Reset()
			empty = true
		case xml.CharData:
			chars.Write(token)
		case xml.EndElement:
			if empty {
				out = append(out, leaf{"/" + strings.Join(path, "/"), chars.String()})
			}
			path, empty = path[:len(path)-1], false
		}
	}
}

func TestShoprenter_S4_18_XMLCarriesTheSameData(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	for _, kind := range []string{"json", "xml"} {
		for _, eventType := range shoprenterTypes {
			s.webHooks(t, resource(eventType, kind, r.url+"/"+kind, ""))
		}
	}
	var data []string
	for _, eventType := range shoprenterTypes {
		data = append(data, string(sampleData(t, h, "shoprenter", eventType)))
	}
	types := append(slices.Clone(shoprenterTypes), "order_confirm")
	data = append(data, `{"comment":"1 < 2 && \"3\" > 'x' ]]> <!-- \u00e1\t\n","shippingNetPrice":970.0714,"long":12345678901234567890,"rate":1.0E+2,"none":null,"empty":"","yes":true}`)
	for i, eventType := range types {
		s.publishOne(t, eventType, data[i])
		plain, marked := r.await(t, "/json", i+1)[i], r.await(t, "/xml", i+1)[i]
		if got := marked.header.Get("Content-Type"); got != "application/xml" {
			t.Errorf("%s: got Content-Type %q, want application/xml", eventType, got)
		}
		if !bytes.HasPrefix(marked.body, []byte(`<?xml version="1.0" encoding="UTF-8"?>`)) {
			t.Errorf("%s: got %.60s, want it to begin with the declaration", eventType, marked.body)
		}
		dec := json.NewDecoder(bytes.NewReader(plain.body))
		dec.UseNumber()
		if want, got := jsonLeaves(t, dec, ""), xmlLeaves(t, marked.body); !slices.Equal(got, want) {
			t.Errorf("%s: the XML has\n%q\nthe JSON\n%q", eventType, got, want)
		}
		// It is signed as it is sent.
		var id string
		for _, w := range get[struct{ Webhooks []hook }](t, h, "GET", s.at+"/webhooks", "").Webhooks {
			if w.Format == "xml" && w.Events[0] == eventType {
				id = w.ID
			}
		}
		if err := verified(t, marked, s.secret(t, id)); err != nil {
			t.Errorf("%s: the XML's signature: %v", eventType, err)
		}
	}
}

func TestShoprenter_S4_19_SubscriberInItsRoot(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	s.webHooks(t, resource("newsletter_subscribe", "json", r.url+"/hook", ""))
	const subscriber = `{"id":"1","firstname":"Test","lastname":"Péter","email":"test@example.hu","phone":"+36201234567","status":1,` +
		`"language":"1","hash":"b53807cef8e6582bc95c31f4b5ac17f8","subscribe_date":"2023-01-20 11:11:11"}`
	s.publishOne(t, "newsletter_subscribe", subscriber)
	in := r.await(t, "/hook", 1)[0]
	if want := `{"newsletter":{"subscriber":[` + subscriber + `]}}`; string(in.body) != want {
		t.Errorf("got  %s\nwant %s", in.body, want)
	}
}

// With the names of the document's table (D1): every value as it came, and nothing else in the message renamed.
func TestShoprenter_S4_19_PrefixedNamesAsReceived(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	w := s.webhook(t, r.url+"/json", `"options": ["prefixed_names"]`)
	s.webhook(t, r.url+"/xml", `"options": ["prefixed_names"], "format": "xml", "events": ["newsletter_subscribe"]`)
	const (
		plain    = `{"id":"1", "firstname":"Test","lastname":"P\u00e9ter","email":"test@example.hu","phone":"+36\/20","status":1.0,"language":"1","hash":"b538","subscribe_date":"2023-01-20 11:11:11","own":{"id":7}}`
		prefixed = `{"subscriber_id":"1", "subscriber_firstname":"Test","subscriber_lastname":"P\u00e9ter","subscriber_email":"test@example.hu","subscriber_phone":"+36\/20",` +
			`"subscriber_status":1.0,"subscriber_language":"1","subscriber_hash":"b538","subscriber_subscribe_date":"2023-01-20 11:11:11","own":{"id":7}}`
	)
	for i, row := range []struct{ eventType, data, want string }{
		{"newsletter_subscribe", plain, `{"newsletter":{"subscriber":[` + prefixed + `]}}`},
		{"newsletter_unsubscribe", `{"newsletter":{"subscriber":[` + plain + `,{"id":2}]}}`, `{"newsletter":{"subscriber":[` + prefixed + `,{"subscriber_id":2}]}}`},
		{"order_confirm", `{"id":1,"email":"x","firstname":"y"}`, `{"orders":{"order":[{"id":1,"email":"x","firstname":"y"}]}}`},
	} {
		id := s.publishOne(t, row.eventType, row.data)
		in := r.await(t, "/json", i+1)[i]
		if string(in.body) != row.want {
			t.Errorf("%s: got  %s\nwant %s", row.eventType, in.body, row.want)
		}
		if err := verified(t, in, s.secret(t, w.ID)); err != nil {
			t.Errorf("%s: %v", row.eventType, err)
		}
		if i > 0 {
			continue
		}
		byWebhook, _ := s.awaitStory(t, id, 2, is("delivered"))
		if got := s.delivery(t, byWebhook[w.ID]); got.Body != row.want {
			t.Errorf("the log has %s, want the body that was sent", got.Body)
		}
	}
	if in := r.await(t, "/xml", 1)[0]; !contains(in.body, "<subscriber_lastname>Péter</subscriber_lastname>") || contains(in.body, "<firstname>") {
		t.Errorf("as XML: got %s, want prefixed names", in.body)
	}
	s.refused(t, http.StatusBadRequest, "PATCH", s.at+"/webhooks/"+w.ID, `{"options": ["prefixed"]}`)
}

func TestShoprenter_S4_20_NewsletterBodiesAsReceived(t *testing.T) {
	h := shoprenter.enter(t)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	var shapes []string
	for i, eventType := range shoprenterTypes[2:] {
		res := s.webHooks(t, resource(eventType, "json", r.url+"/hook", ""))
		s.test(t, res.IDs[0], eventType) // with the preset's own subscriber
		s.publishOne(t, eventType, `{"id":"1","status":0}`)
		got := r.await(t, "/hook", 2*i+2)[2*i:]
		if want := `{"newsletter":{"subscriber":[{"id":"1","status":0}]}}`; string(got[1].body) != want {
			t.Errorf("%s: got %s, want %s", eventType, got[1].body, want)
		}
		dec := json.NewDecoder(bytes.NewReader(got[0].body))
		dec.UseNumber()
		var names []string
		for _, l := range jsonLeaves(t, dec, "") {
			names = append(names, l.path)
		}
		shapes = append(shapes, strings.Join(names, " "))
	}
	const root = "/newsletter/subscriber/"
	want := root + strings.Join([]string{"id", "firstname", "lastname", "email", "phone", "status", "language", "hash", "subscribe_date"}, " "+root)
	for i, shape := range shapes {
		if shape != want {
			t.Errorf("%s: got %s, want %s", shoprenterTypes[2+i], shape, want)
		}
	}
}
