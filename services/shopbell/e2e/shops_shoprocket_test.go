package e2e

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// S2: what Shoprocket's document promises.

var shoprocket sharedHouse

func TestShoprocket_S2_02_OneOrMoreEventsAndAURL(t *testing.T) {
	h := shoprocket.enter(t)
	s, r := h.newShop(t, "shoprocket"), newReceiver(t)
	one := s.webhook(t, r.url+"/one", `"events": ["order.created"]`)
	many := s.webhook(t, r.url+"/many", `"events": ["order.created", "order.deleted", "customer.updated"]`)
	if !slices.Equal(one.Events, []string{"order.created"}) || len(many.Events) != 3 {
		t.Errorf("got events %q and %q, want those that were chosen", one.Events, many.Events)
	}
	for _, eventType := range []string{"order.created", "order.updated", "order.deleted", "customer.created", "customer.updated"} {
		s.publishOne(t, eventType, `{}`)
	}
	if in := r.await(t, "/many", 3); len(in) != 3 {
		t.Errorf("/many was sent %d, want its 3", len(in))
	}
	s.awaitDeliveries(t, "status=delivered", 4)
	if in := r.await(t, "/one", 1); len(in) != 1 {
		t.Errorf("/one was sent %d, want its 1", len(in))
	}
	for field, body := range map[string]string{"events": `{"url": "https://mysite.com/webhooks"}`, "url": `{"events": ["order.created"]}`} {
		if r := s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", body); !slices.Contains(r.fields(), field) {
			t.Errorf("%s: got %+v, want it refused for %s", body, r, field)
		}
	}
}

func TestShoprocket_S2_03_AbsoluteURL(t *testing.T) {
	h := shoprocket.enter(t)
	s := h.newShop(t, "shoprocket")
	const body = `{"url": %q, "events": ["order.created"]}`
	for _, relative := range []string{"mysite.com/hooks", "/hooks", "hooks", "//mysite.com/hooks", "", "https://", "https:///hooks", "ftp://mysite.com/hooks"} {
		r := s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", fmt.Sprintf(body, relative))
		if !slices.Equal(r.fields(), []string{"url"}) {
			t.Errorf("%q: got %+v, want it refused for url", relative, r)
		}
	}
	r := s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", fmt.Sprintf(body, "mysite.com/hooks"))
	if !strings.Contains(r.Message, "relative") || !strings.Contains(r.Message, "https://") {
		t.Errorf("mysite.com/hooks: got %q, want it to say what is wrong and how to write it", r.Message)
	}
	if w := s.webhook(t, "https://mysite.com/webhooks", `"events": ["order.created"]`); w.URL != "https://mysite.com/webhooks" {
		t.Errorf("got URL %q, want it as it was given", w.URL)
	}
}

func TestShoprocket_S2_04_SummaryAfterSaving(t *testing.T) {
	h := shoprocket.enter(t)
	s := h.newShop(t, "shoprocket")
	saved := get[hook](t, h, "POST", s.at+"/webhooks", `{"url": "https://mysite.com/webhooks", "events": ["order.created", "customer.created"]}`)
	if saved.Status != "enabled" || !slices.Equal(saved.Events, []string{"order.created", "customer.created"}) {
		t.Errorf("after saving: got %+v, want its status and its events", saved)
	}
	if secret := s.secret(t, saved.ID); len(secret) < 32 {
		t.Errorf("after saving: got the secret %q, want one", secret)
	}
}

func TestShoprocket_S2_05_SecretVerifiesTheRequest(t *testing.T) {
	h := shoprocket.enter(t)
	s, r := h.newShop(t, "shoprocket"), newReceiver(t)
	w := s.webhook(t, r.url+"/hook")
	secret := s.secret(t, w.ID)
	for i, data := range signedData {
		s.publishOne(t, "order.created", data)
		in := r.await(t, "/hook", i+1)[i]
		wantHexSignature(t, in, secret) // B1: both, so that a receiver may use either
		if err := verified(t, in, secret); err != nil {
			t.Errorf("the library of Standard Webhooks says %v to %s", err, in.body)
		}
		in.body = append(in.body, ' ')
		if verified(t, in, secret) == nil {
			t.Errorf("one more blank in the body is not noticed")
		}
	}
}

func TestShoprocket_S2_06_TestDataOfAnyEvent(t *testing.T) {
	h := shoprocket.enter(t)
	s, r := h.newShop(t, "shoprocket", `"environment": "test"`), newReceiver(t)
	w := s.webhook(t, r.url+"/hook", `"events": ["order.created"]`)
	types := h.profile(t, "shoprocket").types()
	if len(types) < 6 {
		t.Fatalf("got types %q, want the document's six and more", types)
	}
	for i, eventType := range types { // B2: all of the catalog, not only those that are subscribed to
		got := s.test(t, w.ID, eventType)
		in := r.await(t, "/hook", i+1)[i]
		if !got.Success || got.RequestBody != string(in.body) {
			t.Errorf("%s: got %+v, want what was sent: %s", eventType, got, in.body)
		}
		body, _ := object(t, in.body)
		data, names := object(t, body["data"])
		if string(body["type"]) != `"`+eventType+`"` || len(names) < 5 || string(data["store_environment"]) != `"test"` {
			t.Errorf("%s: got %s, want dummy data of that type from a test shop", eventType, in.body)
		}
		wantHexSignature(t, in, s.secret(t, w.ID))
	}
	s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks/"+w.ID+":test", `{"event_type": "order_created"}`)
	if first := s.test(t, w.ID, ""); !strings.Contains(first.RequestBody, `"type":"order.created"`) {
		t.Errorf("without a choice: got %s, want what the webhook subscribes to", first.RequestBody)
	}
}

func TestShoprocket_S2_07_AnswerToATestIsShown(t *testing.T) {
	h := shoprocket.enter(t)
	s, r := h.newShop(t, "shoprocket"), newReceiver(t)
	r.answer("/good", answer{code: 201, body: "created"})
	r.answer("/bad", answer{code: 500, body: "no such table"})
	for path, want := range map[string]struct {
		success       bool
		code          int
		body, verdict string
	}{
		"/good": {true, 201, "created", "delivered"}, "/bad": {false, 500, "no such table", "failed"},
	} {
		got := s.test(t, s.webhook(t, r.url+path).ID, "order.created")
		a := got.Attempt
		if got.Success != want.success || a.ResponseCode != want.code || a.ResponseBody != want.body || a.Verdict != want.verdict {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
		if a.DurationMS <= 0 || got.Diagnosis == "" || len(a.RequestHeaders) == 0 {
			t.Errorf("%s: got %+v, want how long it took, a diagnosis in words and the request's headers", path, got)
		}
	}
}

func TestShoprocket_S2_08_EnvelopeAsReceived(t *testing.T) {
	h := shoprocket.enter(t)
	r := newReceiver(t)
	for _, environment := range []string{"test", "live"} {
		s := h.newShop(t, "shoprocket", fmt.Sprintf(`"environment": %q`, environment))
		s.webhook(t, r.url+"/"+environment)
		s.publishOne(t, "order.created", `{"id":"716","total_amount":"21.95","order_notes":null}`)
		want := fmt.Sprintf(`{"data":{"id":"716","total_amount":"21.95","order_notes":null},"type":"order.created","webhook_environment":%q}`, environment)
		if got := string(r.await(t, "/"+environment, 1)[0].body); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		// An event that says its environment itself is believed.
		s.publish(t, s.id, `{"type": "order.created", "environment": "test", "data": {}}`)
		if got := string(r.await(t, "/"+environment, 2)[1].body); got != `{"data":{},"type":"order.created","webhook_environment":"test"}` {
			t.Errorf("an event of the test environment: got %s", got)
		}
	}
}

// sampleData is the sample of an event type, as a shop's own program might write it: other blanks, the same bytes
// otherwise.
func sampleData(t *testing.T, h *house, preset, eventType string) json.RawMessage {
	t.Helper()
	for _, e := range h.profile(t, preset).Events {
		if e.Name == eventType {
			return e.Sample
		}
	}
	t.Fatalf("%s has no %s", preset, eventType)
	return nil
}

func TestShoprocket_S2_10_TypesSurviveTheJourney(t *testing.T) {
	h := shoprocket.enter(t)
	s, r := h.newShop(t, "shoprocket"), newReceiver(t)
	s.webhook(t, r.url+"/hook")
	for i, eventType := range []string{"order.created", "order.updated", "order.deleted"} {
		order := sampleData(t, h, "shoprocket", eventType)
		s.publishOne(t, eventType, string(order))
		in := r.await(t, "/hook", i+1)[i]
		if want := `{"data":` + string(order) + `,"type":"` + eventType + `","webhook_environment":"live"}`; string(in.body) != want {
			t.Errorf("got  %s\nwant %s", in.body, want)
		}
		body, _ := object(t, in.body)
		data, names := object(t, body["data"])
		if len(names) != 44 || data["raw_order_id"][0] == '"' || data["id"][0] != '"' || data["subtotal"][0] != '"' || string(data["order_notes"]) == "" {
			t.Errorf("%s: got %s, want 44 keys: raw_order_id a number, id and money strings, absent values null", eventType, in.body)
		}
	}
}

func TestShoprocket_S2_14_TimesAreNotReformatted(t *testing.T) {
	h := shoprocket.enter(t)
	s, r := h.newShop(t, "shoprocket"), newReceiver(t)
	s.webhook(t, r.url+"/hook")
	const data = `{"created_at":"2022-05-23 14:37:24","updated_at":null,"order_items":[{"created_at":"2022-05-23 20:07:22"}]}`
	s.publishOne(t, "order.created", data)
	if in := r.await(t, "/hook", 1)[0]; !contains(in.body, data) {
		t.Errorf("got %s, want %s in it", in.body, data)
	}
}

// inspected is a house that trusts the certificate of the tests' HTTPS servers.
var inspected sharedHouse

// A stand-in for webhook.site: HTTPS, HTTP/2, and a page of HTML for an answer.
func TestShoprocket_S2_15_InspectorOverHTTPS(t *testing.T) {
	const page = "<!DOCTYPE html>\n<html><body><h1>This URL has no default content configured.</h1></body></html>\n"
	proto := make(chan string, 10)
	site := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto <- r.Method + " " + r.Proto
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.Header().Set("Set-Cookie", "laravel_session=x; secure; httponly")
		_, _ = fmt.Fprint(w, page)
	}))
	site.EnableHTTP2 = true
	site.StartTLS()
	t.Cleanup(site.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: site.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	inspected.own = settings{"SSL_CERT_FILE": ca}
	h := inspected.enter(t)
	s := h.newShop(t, "shoprocket")
	w := s.webhook(t, site.URL+"/0b9f0c0e-7b1c-4f5e-9d0a-000000000000")
	d, _ := s.awaitOne(t, s.publishOne(t, "order.created", string(sampleData(t, h, "shoprocket", "order.created"))), "delivered")
	if a := d.Attempts[0]; a.ResponseCode != 200 || a.ResponseBody != page {
		t.Errorf("got %+v, want 200 with the page", a)
	}
	if got := s.test(t, w.ID, "order.updated"); !got.Success || got.Attempt.ResponseBody != page {
		t.Errorf("a test: got %+v, want a success with the page", got)
	}
	for range 2 {
		if got := <-proto; got != "POST HTTP/2.0" {
			t.Errorf("got %s, want POST by HTTP/2", got)
		}
	}
	if now := s.read(t, w.ID); now.Status != "enabled" {
		t.Errorf("the webhook is %s, want a page to change nothing", now.Status)
	}
}
