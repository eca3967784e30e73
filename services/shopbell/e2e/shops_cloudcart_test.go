package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// S3: what CloudCart's document promises.

var cloudcart sharedHouse

// scaled is CloudCart's timetable with every wait divided by 100.
var scaled = []time.Duration{600 * time.Millisecond, 1200 * time.Millisecond, 1800 * time.Millisecond, 2400 * time.Millisecond, 3000 * time.Millisecond}

// waits is a policy with this timetable and everything else as the profile has it.
func waits(schedule ...time.Duration) string {
	var list []string
	for _, wait := range schedule {
		list = append(list, fmt.Sprintf(`"%gs"`, wait.Seconds()))
	}
	return `"policy": {"retry_schedule": [` + strings.Join(list, ", ") + `]}`
}

// quickly is five waits that a test need not wait for.
var quickly = waits(slices.Repeat([]time.Duration{100 * time.Millisecond}, 5)...)

func TestCloudCart_S3_01_KeyDestinationAndAction(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	w := s.webhook(t, r.url+"/hook", `"events": ["order.created"]`, `"api_key_id": "key_default"`)
	if w.URL != r.url+"/hook" || !slices.Equal(w.Events, []string{"order.created"}) || w.APIKeyID != "key_default" {
		t.Errorf("got %+v, want the key, the destination and the action", w)
	}
	s.publishOne(t, "order.created", `{"id":10457}`)
	in := r.await(t, "/hook", 1)[0]
	if got := string(in.body); got != `{"id":10457}` {
		t.Errorf("got %s, want the order as it is", got)
	}
	if got := in.header.Get("X-Api-Key"); got == "" || got != s.keySecret(t, "key_default") {
		t.Errorf("X-Api-Key: got %q, want the shop's own", got)
	}
}

// keySecret reads a key for webhooks, as its owner does who has to tell the receiver.
func (s *premises) keySecret(t *testing.T, id string) string {
	t.Helper()
	return get[apiKey](t, s.house, "GET", s.at+"/api_keys/"+id+"/secret", "").Key
}

func TestCloudCart_S3_02_DefaultOrOneThatWasCreated(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	list := get[struct {
		Keys []apiKey `json:"api_keys"`
	}](t, h, "GET", s.at+"/api_keys", "").Keys
	if len(list) != 1 || list[0].ID != "key_default" || list[0].Label != "Default" || list[0].Purpose != "webhooks" || list[0].Key != "" {
		t.Errorf("a new shop's keys: got %+v, want Default alone, without the key itself", list)
	}
	made := get[apiKey](t, h, "POST", s.at+"/api_keys", `{"label": "Zapier", "purpose": "webhooks"}`)
	r.answerBy("/created", func(in *received) answer { // one that sends back what it is sent
		echo := "key=" + in.header.Get("X-Api-Key")
		return answer{code: 200, body: echo, header: map[string]string{"X-Echo": echo}}
	})
	s.webhook(t, r.url+"/none") // C7: off by default
	changed := s.webhook(t, r.url+"/default", `"api_key_id": "key_default"`)
	s.webhook(t, r.url+"/created", `"api_key_id": "`+made.ID+`"`)
	s.webhook(t, r.url+"/header", `"api_key_id": "`+made.ID+`", "api_key_header": "X-Store"`)
	s.publishOne(t, "order.created", `{"id":10457}`)
	for path, want := range map[string][2]string{
		"/none": {"", ""}, "/default": {s.keySecret(t, "key_default"), ""}, "/created": {made.Key, ""}, "/header": {"", made.Key},
	} {
		in := r.await(t, path, 1)[0]
		if got := [2]string{in.header.Get("X-Api-Key"), in.header.Get("X-Store")}; got != want {
			t.Errorf("%s: got %q in X-Api-Key and X-Store, want %q", path, got, want)
		}
	}
	// Another choice holds for what is sent from then on, and the key is nowhere in the log.
	get[hook](t, h, "PATCH", s.at+"/webhooks/"+changed.ID, `{"api_key_id": "`+made.ID+`"}`)
	s.publishOne(t, "order.created", `{"id":10458}`)
	if got := r.await(t, "/default", 2)[1].header.Get("X-Api-Key"); got != made.Key {
		t.Errorf("after the change: got %q, want the other key", got)
	}
	s.awaitDeliveries(t, "status=delivered", 8)
	if text := h.call(t, "GET", s.at+"/deliveries", "").body; contains(text, "sbk_") {
		t.Errorf("a key is in the log: %s", text)
	}
	for _, d := range get[struct{ Deliveries []delivery }](t, h, "GET", s.at+"/deliveries", "").Deliveries {
		if one := h.call(t, "GET", s.at+"/deliveries/"+d.ID, ""); contains(one.body, "sbk_") {
			t.Errorf("a key is in the log: %s", one.body)
		}
	}
	// What opens Shopbell is never sent to anybody.
	access := get[apiKey](t, h, "POST", s.at+"/api_keys", `{"scopes": ["events:write"]}`)
	s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", `{"url": "https://example.com/hooks", "events": ["*"], "api_key_id": "`+access.ID+`"}`)
	s.refused(t, http.StatusBadRequest, "DELETE", s.at+"/api_keys/"+made.ID, "")
}

func TestCloudCart_S3_03_OneAction(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	s.webhook(t, r.url+"/created", `"events": ["order.created"]`)
	s.webhook(t, r.url+"/status", `"events": ["order.status_changed"]`)
	for _, eventType := range h.profile(t, "cloudcart").types() {
		s.publishOne(t, eventType, fmt.Sprintf(`{"of":%q}`, eventType))
	}
	s.awaitDeliveries(t, "status=delivered", 2)
	for path, want := range map[string]string{"/created": `{"of":"order.created"}`, "/status": `{"of":"order.status_changed"}`} {
		if in := r.await(t, path, 1); len(in) != 1 || string(in[0].body) != want {
			t.Errorf("%s was sent %d, the first %s; want its one action, %s", path, len(in), in[0].body, want)
		}
	}
}

func TestCloudCart_S3_04_JSONOrXML(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	for path, more := range map[string]string{"/default": `"label": "none"`, "/json": `"format": "json"`, "/xml": `"format": "xml"`} {
		s.webhook(t, r.url+path, more)
	}
	const data = `{"order":{"id":10457,"name":"Десислава & <син>","products":[{"sku":"a"},{"sku":"b"}],"note":null}}`
	s.publishOne(t, "order.created", data)
	for _, path := range []string{"/default", "/json"} {
		if in := r.await(t, path, 1)[0]; string(in.body) != data || in.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %s, %s; want the data as application/json", path, in.header.Get("Content-Type"), in.body)
		}
	}
	in := r.await(t, "/xml", 1)[0]
	var order struct {
		XMLName  xml.Name `xml:"order"`
		ID       string   `xml:"id"`
		Name     string   `xml:"name"`
		Products []struct {
			SKU string `xml:"sku"`
		} `xml:"products"`
	}
	if err := xml.Unmarshal(in.body, &order); err != nil {
		t.Fatalf("got %s, which is not the order in XML: %v", in.body, err)
	}
	if order.ID != "10457" || order.Name != "Десислава & <син>" || len(order.Products) != 2 || order.Products[1].SKU != "b" {
		t.Errorf("got %+v of %s, want what the data holds", order, in.body)
	}
	if got := in.header.Get("Content-Type"); got != "application/xml" {
		t.Errorf("Content-Type: got %q, want application/xml", got)
	}
	s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", `{"url": "https://example.com/hooks", "events": ["*"], "format": "yaml"}`)
}

// afterFirst publishes an order, which goes to a webhook for each URL, and gives, by URL, what the log has once every
// one has made an attempt.
func (s *premises) afterFirst(t *testing.T, urls ...string) map[string]logEntry {
	t.Helper()
	for _, url := range urls {
		s.webhook(t, url, `"events": ["order.created"]`)
	}
	byWebhook, _ := s.awaitStory(t, s.publishOne(t, "order.created", `{"id":10457}`), len(urls), attempted)
	out := map[string]logEntry{}
	for _, d := range byWebhook {
		out[d.Attempts[0].URL] = d
	}
	return out
}

// wantOnly publishes each of the values of a status and one that is none, to a shop that has its data checked and to one
// that does not.
func wantOnly(t *testing.T, eventType, key string, values []string) {
	t.Helper()
	h := cloudcart.enter(t)
	strict, lax, r := h.newShop(t, "cloudcart", `"check_schemas": true`), h.newShop(t, "cloudcart"), newReceiver(t)
	strict.webhook(t, r.url+"/strict")
	for _, e := range h.profile(t, "cloudcart").Events {
		var schema struct {
			Properties map[string]struct{ Enum []string }
		}
		if err := json.Unmarshal(e.Schema, &schema); err != nil || !slices.Equal(schema.Properties[key].Enum, values) {
			t.Errorf("%s: the profile shows the schema %s (%v), want %s to be one of %q", e.Name, e.Schema, err, key, values)
		}
	}
	for i, value := range values {
		data := fmt.Sprintf(`{ "n":%d.50, %q : %q }`, i, key, value)
		strict.publishOne(t, eventType, data)
		if in := r.await(t, "/strict", i+1)[i]; string(in.body) != data {
			t.Errorf("%s %s: got %s, want the data as it is", key, value, in.body)
		}
	}
	for _, other := range []string{`"shipped"`, `"PAID"`, `""`, `7`, `null`} {
		body := fmt.Sprintf(`{"type": %q, "data": {%q: %s}}`, eventType, key, other)
		got := strict.refused(t, http.StatusBadRequest, "POST", strict.at+"/events", body)
		want := fmt.Sprintf(`data.%s: %s is not allowed; there are "%s"`, key, other, strings.Join(values, `", "`))
		if got.Message != want {
			t.Errorf("%s %s is refused with\n%s\nwant\n%s", key, other, got.Message, want)
		}
		strict.refused(t, http.StatusBadRequest, "POST", strict.at+"/events:explain", body)
		lax.publishOne(t, eventType, fmt.Sprintf(`{%q: %s}`, key, other))
	}
}

func TestCloudCart_S3_05_OtherOrderStatusesAreRefused(t *testing.T) {
	wantOnly(t, "order.status_changed", "status", []string{"pending", "voided", "timeouted", "cancelled", "failed", "refunded", "paid", "complete"})
}

func TestCloudCart_S3_06_OtherPaymentStatusesAreRefused(t *testing.T) {
	wantOnly(t, "order.payment_status_changed", "payment_status", []string{"requested", "pending", "held", "completed", "failed", "refunded", "cancelled", "timeouted"})
}

func TestCloudCart_S3_07_OtherFulfilmentStatusesAreRefused(t *testing.T) {
	wantOnly(t, "order.fulfilment_status_changed", "fulfilment_status", []string{"not_fulfilled", "fulfilled"})
}

func TestCloudCart_S3_08_Only200IsDelivered(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	want, urls := map[string]string{}, []string{}
	for code, status := range map[int]string{200: "delivered", 201: "retrying", 202: "retrying", 203: "retrying", 204: "retrying", 206: "retrying", 226: "retrying"} {
		path := fmt.Sprintf("/%d", code)
		r.answer(path, answer{code: code})
		want[r.url+path] = status
		urls = append(urls, r.url+path)
	}
	for url, d := range s.afterFirst(t, urls...) {
		if d.Status != want[url] {
			t.Errorf("%s: got %s, want %s", url, d.Status, want[url])
		}
	}
}

func TestCloudCart_S3_09_FiveSecondsForTheAnswer(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	// C5: the status has to come in time; where only the rest of the body is late, it counts.
	half := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = fmt.Fprint(w, "begun")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-req.Context().Done():
		case <-time.After(20 * time.Second):
		}
	}))
	t.Cleanup(half.Close)
	for path, hold := range map[string]time.Duration{"/in-time": 4 * time.Second, "/too-late": 7 * time.Second} {
		r.answerBy(path, func(*received) answer { return answer{until: after(hold)} })
	}
	got := s.afterFirst(t, r.url+"/in-time", r.url+"/too-late", half.URL)
	inTime, tooLate := got[r.url+"/in-time"], got[r.url+"/too-late"]
	if a := inTime.Attempts[0]; inTime.Status != "delivered" || a.DurationMS < 4000 {
		t.Errorf("answered after 4 s: got %s after %g ms (%s), want it delivered", inTime.Status, a.DurationMS, a.Error)
	}
	if a := tooLate.Attempts[0]; tooLate.Status != "retrying" || a.ErrorClass != "timeout" || a.ResponseCode != 0 || a.DurationMS < 5000 || !strings.Contains(a.Error, "no answer within 5s") {
		t.Errorf("answered after 7 s: got %s after %g ms (%s), want a timeout after 5 s, and another attempt", tooLate.Status, a.DurationMS, a.Error)
	}
	if d := got[half.URL]; d.Status != "delivered" || !d.Attempts[0].ResponseBodyCut || d.Attempts[0].ResponseBody != "begun" {
		t.Errorf("200 in time and half a body: got %+v, want it delivered, and marked as cut", d)
	}
}

func TestCloudCart_S3_10_RedirectsAreNotFollowed(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	var urls []string
	for _, code := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		path := fmt.Sprintf("/%d", code)
		r.answer(path, answer{code: code, header: map[string]string{"Location": r.url + "/there"}})
		urls = append(urls, r.url+path)
	}
	// One that leads nowhere is a redirect as well.
	r.answer("/nowhere", answer{code: 301})
	r.answer("/broken", answer{code: 302, header: map[string]string{"Location": "http://[::1"}})
	urls = append(urls, r.url+"/nowhere", r.url+"/broken")
	for url, d := range s.afterFirst(t, urls...) {
		if d.Status != "retrying" || d.ErrorClass != "http_status" {
			t.Errorf("%s: got %+v, want a failure with another attempt", url, d)
		}
		if url != r.url+"/304" && !strings.Contains(d.Attempts[0].Error, "redirects are not followed") {
			t.Errorf("%s: got the error %q, want it to say what is to be done", url, d.Attempts[0].Error)
		}
	}
	if got := len(r.at("/there")); got != 0 {
		t.Errorf("%d redirects were followed, want none", got)
	}
}

// noAnswer are URLs at which no answer comes, by the error class that the log has of it. What hangs does so until the
// test is over.
func noAnswer(t *testing.T) map[string]string {
	t.Helper()
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	r := newReceiver(t)
	r.answer("/hangs", answer{until: never})
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // that nobody trusts it
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	return map[string]string{
		"http://" + freeAddress(t) + "/refused":                               "connect",
		"http://no-such-host.invalid/dns":                                     "dns",
		strings.Replace(r.url, "http:", "https:", 1) + "/no-tls":              "tls",
		untrusted.URL + "/untrusted":                                          "tls",
		newWire(t, "").url + "/closes":                                        "connect",
		newWire(t, "HTTP/1.1 200 OK\r\nContent-Le").url + "/closes-in-header": "protocol",
		newWire(t, "220 mail.example.com ESMTP\r\n").url + "/not-http":        "protocol",
		r.url + "/hangs": "timeout",
	}
}

func TestCloudCart_S3_11_NoAnswerIsTriedAgain(t *testing.T) {
	h := cloudcart.enter(t)
	s, classes := h.newShop(t, "cloudcart"), noAnswer(t)
	ids := map[string]string{}
	for url := range classes {
		timeout := "20s"
		if classes[url] == "timeout" {
			timeout = "2s"
		}
		ids[s.webhook(t, url, fmt.Sprintf(`"policy": {"timeout": %q, "retry_schedule": ["0.1s"]}`, timeout)).ID] = url
	}
	byWebhook, _ := s.awaitStory(t, s.publishOne(t, "order.created", `{}`), len(classes), is("failed"))
	for id, url := range ids {
		d := byWebhook[id]
		if len(d.Attempts) != 2 || d.ErrorClass != classes[url] || d.ResponseCode != 0 {
			t.Errorf("%s: got class %q, code %d after %d attempts, want %q, none and 2", url, d.ErrorClass, d.ResponseCode, len(d.Attempts), classes[url])
		}
		if w := s.read(t, id); w.Status != "enabled" {
			t.Errorf("%s: the webhook is %s, want only codes to switch it off", url, w.Status)
		}
	}
}

func TestCloudCart_S3_12_FirstAttemptAtOnce(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	s.webhook(t, r.url+"/hook")
	published := time.Now()
	s.publishOne(t, "order.created", `{}`)
	if waited := r.await(t, "/hook", 1)[0].at.Sub(published); waited > slack {
		t.Errorf("the first attempt came after %s, want at once", waited)
	}
}

// wantSpacing checks that each request followed the one before by its wait, counted from the end of the attempt that
// the receiver held for so long (C6): never earlier, and soon after.
func wantSpacing(t *testing.T, got []*received, held time.Duration, schedule []time.Duration) {
	t.Helper()
	const early = 20 * time.Millisecond // the two clocks are one, but the attempt ends a little after the answer
	for i, want := range schedule {
		between := got[i+1].at.Sub(got[i].at) - held
		t.Logf("attempt %d followed after %s, want %s", i+2, between.Round(time.Millisecond), want)
		if between < want-early || between > want+slack {
			t.Errorf("attempt %d followed after %s, want %s", i+2, between, want)
		}
	}
}

// wantTimetable checks the same by what the log says of each attempt: to the millisecond.
func wantTimetable(t *testing.T, attempts []logAttempt, schedule []time.Duration) {
	t.Helper()
	if len(attempts) != len(schedule)+1 {
		t.Fatalf("the log has %d attempts, want %d", len(attempts), len(schedule)+1)
	}
	for i, want := range schedule {
		a := attempts[i]
		if a.NextAttemptAt == nil {
			t.Errorf("attempt %d: the log does not say when the next is due", i+1)
			continue
		}
		if got := a.NextAttemptAt.Sub(a.over()); (got - want).Abs() > time.Millisecond {
			t.Errorf("attempt %d: the next was due after %s, want %s", i+1, got, want)
		}
	}
	if last := attempts[len(schedule)]; last.NextAttemptAt != nil {
		t.Errorf("after the last attempt another is due at %s", last.NextAttemptAt)
	}
}

func TestCloudCart_S3_13_ScheduleByAHundredth(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	const held = 150 * time.Millisecond
	// A receiver's wish for another time changes nothing.
	r.answerBy("/hook", func(*received) answer {
		return answer{code: 500, header: map[string]string{"Retry-After": "3"}, until: after(held)}
	})
	w := s.webhook(t, r.url+"/hook", waits(scaled...))
	if w.Policy.Jitter || w.Policy.MaxAttempts != 6 || w.Policy.Timeout != "5s" {
		t.Errorf("the rules in force: got %+v, want CloudCart's with another timetable", w.Policy)
	}
	id := s.publishOne(t, "order.created", `{}`)
	d, _ := s.awaitOne(t, id, "failed")
	got := r.at("/hook")
	if len(got) != 6 {
		t.Fatalf("got %d requests, want 6", len(got))
	}
	wantSpacing(t, got, held, scaled)
	wantTimetable(t, d.Attempts, scaled)
}

// The timetable itself: what the next attempt is due after, by the log, with the profile's own waits.
func TestCloudCart_S3_13_SixtySecondsAfterTheFirst(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	r.answer("/hook", answer{code: 500})
	w := s.webhook(t, r.url+"/hook")
	if want := []string{"60s", "120s", "180s", "240s", "300s"}; !slices.Equal(w.Policy.RetrySchedule, want) {
		t.Errorf("the rules in force: got %q, want %q", w.Policy.RetrySchedule, want)
	}
	d, _ := s.awaitOne(t, s.publishOne(t, "order.created", `{}`), "retrying")
	if a := d.Attempts[0]; a.NextAttemptAt == nil || (a.NextAttemptAt.Sub(a.over())-time.Minute).Abs() > time.Millisecond {
		t.Errorf("got %+v, want the next attempt due 60 s after the end of the first", a)
	}
}

func TestCloudCart_S3_15_SuccessStopsTheSequence(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	const n = 6 // the first, the second, … the sixth attempt succeeds
	for i := range n {
		var answers []answer
		for range i {
			answers = append(answers, answer{code: 500})
		}
		r.answer(fmt.Sprintf("/%d", i+1), append(answers, answer{}, answer{code: 500})...)
		s.webhook(t, fmt.Sprintf("%s/%d", r.url, i+1), quickly)
	}
	byWebhook, _ := s.awaitStory(t, s.publishOne(t, "order.created", `{}`), n, is("delivered"))
	for _, d := range byWebhook {
		path := d.Attempts[0].URL[len(r.url):]
		if got, want := fmt.Sprintf("/%d", len(d.Attempts)), path; got != want || len(r.at(path)) != len(d.Attempts) {
			t.Errorf("%s: got %d attempts in the log and %d requests, want as many as its name says", path, len(d.Attempts), len(r.at(path)))
		}
		if last := d.Attempts[len(d.Attempts)-1]; last.NextAttemptAt != nil {
			t.Errorf("%s: after the success another attempt is due at %s", path, last.NextAttemptAt)
		}
	}
}

func TestCloudCart_S3_16_GivenUpAfterTheSixth(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	r.answer("/hook", answer{code: 500})
	s.webhook(t, r.url+"/hook", `"events": ["order.created"]`, quickly)
	d, told := s.awaitOne(t, s.publishOne(t, "order.created", `{}`), "failed")
	told.says(t, "attempt 1", "attempt 2", "attempt 3", "attempt 4", "attempt 5", "attempt 6", "given up after 6 attempts")
	if d.AttemptsMade != 6 || d.NextAttemptAt != nil {
		t.Errorf("got %+v, want 6 attempts and none due", d)
	}
	// Longer than any wait of its timetable: what was to come would have come.
	s.webhook(t, r.url+"/later", `"events": ["order.updated"]`, `"delay": {"value": 1, "unit": "second"}`)
	s.publishOne(t, "order.updated", `{}`)
	r.await(t, "/later", 1)
	if got := len(r.at("/hook")); got != 6 {
		t.Errorf("got %d requests, want 6", got)
	}
}

// disabling are the codes that deactivate.
var disabling = []int{400, 401, 403, 404, 405, 406, 410, 411}

func TestCloudCart_S3_17_CodesThatSwitchTheWebhookOff(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	var urls []string
	for _, code := range disabling {
		path := fmt.Sprintf("/%d", code)
		r.answer(path, answer{code: code})
		urls = append(urls, r.url+path)
	}
	for url, d := range s.afterFirst(t, urls...) {
		// C4: at the first answer. What was to be tried again is kept, and not thrown away.
		if d.Status != "held" || len(d.Attempts) != 1 {
			t.Errorf("%s: got %s after %d attempts, want held after the first", url, d.Status, len(d.Attempts))
		}
		w := s.awaitWebhook(t, d.WebhookID, "disabled")
		if code := url[len(url)-3:]; !strings.Contains(w.DisabledReason, "answered "+code) || w.DisabledAt == nil {
			t.Errorf("%s: got the reason %q at %v, want the code and the time", url, w.DisabledReason, w.DisabledAt)
		}
	}
}

func TestCloudCart_S3_18_OtherCodesLeaveItOn(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	var urls []string
	for code := 300; code < 600; code++ {
		if slices.Contains(disabling, code) {
			continue
		}
		path := fmt.Sprintf("/%d", code)
		r.answer(path, answer{code: code})
		urls = append(urls, r.url+path)
	}
	r.answer("/410", answer{code: 410}) // of which it is known when it takes effect
	urls = append(urls, r.url+"/410")
	got := s.afterFirst(t, urls...)
	s.awaitWebhook(t, got[r.url+"/410"].WebhookID, "disabled")
	delete(got, r.url+"/410")
	for url, d := range got {
		if d.Status != "retrying" {
			t.Errorf("%s: got %s, want retrying", url, d.Status)
		}
	}
	list := get[struct{ Webhooks []hook }](t, h, "GET", s.at+"/webhooks?page_size=500", "").Webhooks
	for _, w := range list {
		if want := map[bool]string{true: "disabled", false: "enabled"}[w.URL == r.url+"/410"]; w.Status != want {
			t.Errorf("%s: the webhook is %s, want it %s", w.URL, w.Status, want)
		}
	}
	if len(list) != 293 {
		t.Errorf("got %d webhooks, want one for each code", len(list))
	}
}

func TestCloudCart_S3_19_DeactivatedUntilItIsSwitchedOn(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	r.answer("/hook", answer{code: 404})
	w := s.webhook(t, r.url+"/hook", `"events": ["order.created"]`)
	d, _ := s.awaitOne(t, s.publishOne(t, "order.created", `{"n":0}`), "held")
	off := s.awaitWebhook(t, w.ID, "disabled")
	if !strings.Contains(off.DisabledReason, "404") || !strings.Contains(off.DisabledReason, d.ID) || off.DisabledAt == nil {
		t.Errorf("switched off: got %+v, want the cause, the delivery and the time", off)
	}
	for i := range 3 {
		_, told := s.awaitOne(t, s.publishOne(t, "order.created", fmt.Sprintf(`{"n":%d}`, i+1)), "held")
		told.says(t, "held for "+w.ID, "404")
	}
	if got := len(r.at("/hook")); got != 1 {
		t.Errorf("got %d requests while it is off, want the one that switched it off", got)
	}
	r.answer("/hook", answer{})
	if on := s.switched(t, w.ID, ":enable", `{"held": "send"}`); on.Status != "enabled" || on.DisabledReason != "" || on.DisabledAt != nil {
		t.Errorf("switched on: got %+v, want it enabled without a cause", on)
	}
	s.awaitDeliveries(t, "status=delivered", 4) // all that was kept
	s.awaitOne(t, s.publishOne(t, "order.created", `{"n":4}`), "delivered")
	bodies := map[string]bool{}
	for _, in := range r.at("/hook")[1:] {
		bodies[string(in.body)] = true
	}
	if len(bodies) != 5 {
		t.Errorf("after it was switched on: got %v, want the four that were kept and the new one", bodies)
	}
}

const phrase = "please unsubscribe me"

func TestCloudCart_S3_20_PhraseDeletesTheWebhook(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte("<p>" + phrase + "</p>"))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	deletes := map[string]answer{
		"/plain":   {body: phrase},
		"/capital": {body: "PLEASE Unsubscribe me!"},
		"/page":    {body: "<html><body><p>" + phrase + "</p></body></html>"},
		"/last":    {body: strings.Repeat(" ", 64<<10-len(phrase)) + phrase},
		"/gzip":    {body: packed.String(), header: map[string]string{"Content-Encoding": "gzip"}},
	}
	stays := map[string]answer{
		"/empty": {}, "/part": {body: "please unsubscribe"}, "/beyond": {body: strings.Repeat(" ", 64<<10) + phrase},
	}
	var urls []string
	for _, list := range []map[string]answer{deletes, stays} {
		for path, a := range list {
			r.answer(path, a)
			urls = append(urls, r.url+path)
		}
	}
	got := s.afterFirst(t, urls...)
	for path := range deletes {
		w := s.awaitWebhook(t, got[r.url+path].WebhookID, "deleted")
		if !strings.Contains(w.DisabledReason, phrase) || w.DisabledAt == nil {
			t.Errorf("%s: got %+v, want the phrase and the time", path, w)
		}
	}
	for path := range stays {
		if w := s.read(t, got[r.url+path].WebhookID); w.Status != "enabled" {
			t.Errorf("%s: the webhook is %s, want it enabled", path, w.Status)
		}
	}
	// Nothing goes to what is deleted, and the story says why.
	id := s.publishOne(t, "order.created", `{"id":2}`)
	_, told := s.awaitStory(t, id, len(stays), is("delivered"))
	for path := range deletes {
		told.says(t, "passed over "+got[r.url+path].WebhookID+": it was deleted by its receiver")
		if n := len(r.at(path)); n != 1 {
			t.Errorf("%s was sent %d, want only the one that deleted it", path, n)
		}
	}
	// C3: for 30 days it can be had back.
	back := got[r.url+"/plain"].WebhookID
	r.answer("/plain", answer{})
	if on := s.switched(t, back, ":enable", `{}`); on.Status != "enabled" {
		t.Errorf("undone: got %s, want it enabled", on.Status)
	}
	s.awaitStory(t, s.publishOne(t, "order.created", `{"id":3}`), len(stays)+1, is("delivered"))
}

func TestCloudCart_S3_21_PhraseInAnyAnswer(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	var urls []string
	for _, code := range []int{200, 201, 302, 402, 404, 410, 429, 500, 503} {
		path := fmt.Sprintf("/%d", code)
		r.answer(path, answer{code: code, body: phrase})
		urls = append(urls, r.url+path)
	}
	for url, d := range s.afterFirst(t, urls...) {
		s.awaitWebhook(t, d.WebhookID, "deleted")
		want := "failed"
		if strings.HasSuffix(url, "/200") {
			want = "delivered"
		}
		if d.Status != want || len(d.Attempts) != 1 {
			t.Errorf("%s: got %s after %d attempts, want %s after 1", url, d.Status, len(d.Attempts), want)
		}
	}
}

func TestCloudCart_S3_22_LogAndOwnerAreTold(t *testing.T) {
	h := cloudcart.enter(t)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	s.webhook(t, r.url+"/owner", `"events": ["webhook.disabled", "webhook.recovered", "delivery.failed"]`)
	r.answer("/404", answer{code: 404})
	r.answer("/phrase", answer{body: phrase})
	r.answer("/down", answer{code: 500})
	notices := map[string]map[string]any{} // by the webhook and the word that its reason has
	awaitNotice := func(w hook, word string) map[string]any {
		t.Helper()
		eventually(t, "the owner of "+w.URL+" is told: "+word, func() error {
			for _, in := range r.at("/owner") {
				var n map[string]any
				if err := json.Unmarshal(in.body, &n); err != nil {
					return fatal{fmt.Errorf("%s: %w", in.body, err)}
				}
				if reason, _ := n["reason"].(string); n["webhook_id"] == w.ID && strings.Contains(reason, word) {
					notices[w.ID] = n
					return nil
				}
			}
			return errors.New("not yet")
		})
		return notices[w.ID]
	}
	for _, row := range []struct {
		path, status, word string
		says               []string
	}{
		{"/404", "disabled", "switched off by its receiver", []string{"attempt 1", "answered 404", "held", "answered 404, which switches the webhook off"}},
		{"/phrase", "deleted", "deleted by its receiver", []string{"attempt 1", "answered 200", "delivered"}},
		{"/down", "enabled", "given up after 6 attempts", []string{"attempt 6", "answered 500", "given up after 6 attempts"}},
	} {
		w := s.webhook(t, r.url+row.path, `"events": ["order.created"]`, `"label": "ERP"`, quickly)
		id := s.publishOne(t, "order.created", `{"id":10457}`)
		n := awaitNotice(w, row.word)
		if n["url"] != w.URL || n["label"] != "ERP" || n["delivery_id"] == "" {
			t.Errorf("%s: the owner is told %v, want the URL, the label and the delivery", row.path, n)
		}
		s.awaitWebhook(t, w.ID, row.status)
		_, told := s.awaitStory(t, id, 1, func(d logEntry) error {
			if d.Status == "pending" || d.Status == "retrying" {
				return errors.New("it goes on")
			}
			return nil
		})
		told.says(t, row.says...)
		get[struct{}](t, h, "DELETE", s.at+"/webhooks/"+w.ID, "")
	}
	// What the phrase has done stands with the delivery that brought it.
	for _, d := range s.deliveries(t, "status=delivered&event_type=order.created") {
		if !strings.Contains(d.Reason, phrase) {
			t.Errorf("the delivery whose answer had the phrase: got the reason %q, want it to say that the webhook was deleted by it", d.Reason)
		}
	}
}
