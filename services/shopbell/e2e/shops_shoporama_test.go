package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// S1: what Shoporama's documents promise, as its receivers and its shops' owners see it.

var shoporama sharedHouse

// theSeventeen are the names that can be subscribed to (S1.1 to S1.5).
var theSeventeen = []string{
	"order_created", "paid", "new_status", "new_return", "product", "stock", "category", "customer_created", "newsletter_subscribe",
	"add_to_basket", "update_basket", "view_basket", "view_address", "view_shipping", "view_approve", "view_thanks", "approved",
}

func TestShoporama_S1_05_UnderscoresAlone(t *testing.T) {
	h := shoporama.enter(t)
	s := h.newShop(t, "shoporama")
	got := h.profile(t, "shoporama").types()
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(theSeventeen))) {
		t.Errorf("GET /v1/profiles/shoporama: got the types %q, want the document's 17", got)
	}
	all, err := json.Marshal(theSeventeen)
	if err != nil {
		t.Fatal(err)
	}
	if w := s.webhook(t, "https://example.com/hooks", `"events": `+string(all)); !slices.Equal(w.Events, theSeventeen) {
		t.Errorf("a webhook for all 17: got %q", w.Events)
	}
	for what, r := range map[string]refusal{
		"subscribing": s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", `{"url": "https://example.com/hooks", "events": ["paid", "order.created"]}`),
		"publishing":  s.refused(t, http.StatusBadRequest, "POST", s.at+"/events", `{"type": "order.created", "data": {}}`),
	} {
		if !strings.Contains(r.Message, `did you mean "order_created"?`) {
			t.Errorf("%s to order.created: got %q, want it to name the right spelling", what, r.Message)
		}
	}
}

func TestShoporama_S1_06_PingGoesToTheOneWebhook(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	for what, refusal := range map[string]refusal{
		"subscribing": s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", `{"url": "https://example.com/hooks", "events": ["test.ping"]}`),
		"publishing":  s.refused(t, http.StatusBadRequest, "POST", s.at+"/events", `{"type": "test.ping", "data": {}}`),
	} {
		if !strings.Contains(refusal.Message, "test sends alone") {
			t.Errorf("%s to test.ping: got %q, want it to say what the name is for", what, refusal.Message)
		}
	}
	// A1: to the one webhook, whatever it subscribes to, and to no other; the same envelope with an action of its own.
	w := s.webhook(t, r.url+"/this", `"events": ["paid"]`)
	s.webhook(t, r.url+"/other")
	if got := s.test(t, w.ID, "test.ping"); !got.Success {
		t.Errorf("test.ping: got %+v, want a success", got)
	}
	in := r.await(t, "/this", 1)[0]
	body, names := object(t, in.body)
	if want := []string{"event", "action", "timestamp", "webshop_id", "data"}; !slices.Equal(names, want) {
		t.Errorf("test.ping: got members %q, want %q", names, want)
	}
	if string(body["event"]) != `"test.ping"` || string(body["action"]) != `"test"` || body["data"][0] != '{' {
		t.Errorf("test.ping: got %s, want event test.ping, action test and an object", in.body)
	}
	if got := in.header.Get("X-Webhook-Event"); got != "test.ping" {
		t.Errorf("X-Webhook-Event: got %q, want test.ping", got)
	}
	s.publishOne(t, "paid", `{}`)
	if got := r.await(t, "/other", 1); got[0].header.Get("X-Webhook-Event") != "paid" {
		t.Errorf("the other webhook was sent %s, want only what is published", got[0].body)
	}
}

func TestShoporama_S1_07_SentArrivesAsANewStatus(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", `{"url": "https://example.com/hooks", "events": ["order_sent"]}`)
	s.refused(t, http.StatusBadRequest, "POST", s.at+"/events", `{"type": "order_sent", "data": {}}`)
	// Whoever waits for orders that are sent listens to new_status, and may leave the others to a filter.
	s.webhook(t, r.url+"/sent", `"events": ["new_status"]`, `"filter": "data.status == \"sent\""`)
	for _, status := range []string{"processing", "sent"} {
		s.publishOne(t, "new_status", fmt.Sprintf(`{"order_id":56789,"status":%q}`, status))
	}
	in := r.await(t, "/sent", 1)
	body, _ := object(t, in[0].body)
	if data, _ := object(t, body["data"]); string(data["status"]) != `"sent"` || string(body["event"]) != `"new_status"` || len(in) != 1 {
		t.Errorf("got %d requests, the first %s; want one, event new_status with the new status in data.status", len(in), in[0].body)
	}
}

func TestShoporama_S1_08_SeveralEventsThatCanBeChanged(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	w := s.webhook(t, r.url+"/hook", `"events": ["order_created", "paid"]`)
	got := func() (types []string) {
		for _, in := range r.at("/hook") {
			types = append(types, in.header.Get("X-Webhook-Event"))
		}
		return types
	}
	publish := func() {
		for _, eventType := range []string{"paid", "stock", "order_created"} {
			id := s.publishOne(t, eventType, `{}`)
			s.awaitEvent(t, s.id, id, func(e event) error { // one after the other, so that their order is known
				if !e.Story.Decided || len(e.Story.Deliveries) == 1 && e.Story.Deliveries[0].Status != "delivered" {
					return fmt.Errorf("not delivered yet")
				}
				return nil
			})
		}
	}
	publish()
	if want := []string{"paid", "order_created"}; !slices.Equal(got(), want) {
		t.Errorf("with order_created and paid: got %q, want %q", got(), want)
	}
	if now := get[hook](t, h, "PATCH", s.at+"/webhooks/"+w.ID, `{"events": ["stock"]}`); !slices.Equal(now.Events, []string{"stock"}) {
		t.Errorf("after the change: got events %q, want stock", now.Events)
	}
	publish()
	if want := []string{"paid", "order_created", "stock"}; !slices.Equal(got(), want) {
		t.Errorf("after the change: got %q, want %q", got(), want)
	}
	s.refused(t, http.StatusBadRequest, "POST", s.at+"/webhooks", `{"url": "https://example.com/hooks", "events": []}`)
}

func TestShoporama_S1_09_NoLimitToWebhooks(t *testing.T) {
	h := shoporama.enter(t)
	s := h.newShop(t, "shoporama")
	const n = 1000
	ids := map[string]bool{}
	for i := range n {
		ids[s.newWebhook(t, s.id, fmt.Sprintf("https://example.com/hooks/%d", i), `"events": ["paid"]`).ID] = true
	}
	if len(ids) != n {
		t.Errorf("got %d webhooks with ids of their own, want %d", len(ids), n)
	}
	explained := get[struct{ Considered []considered }](t, h, "POST", s.at+"/events:explain", `{"type": "paid", "data": {}}`)
	if got := len(explained.Considered); got != n {
		t.Errorf("an event would go to %d webhooks, want all %d", got, n)
	}
	t.Run("S1_10_EachHasASecretOfItsOwn", func(t *testing.T) {
		seen := map[string]bool{}
		for id := range ids {
			secret := s.secret(t, id)
			if seen[secret] || secret == "" {
				t.Fatalf("webhook %s has the secret of another, or none", id)
			}
			seen[secret] = true
		}
	})
	t.Run("S1_12_TheListHasThemAll", func(t *testing.T) {
		listed, pages := map[string]bool{}, 0
		for token := ""; ; {
			page := get[struct {
				Webhooks []hook
				Next     string `json:"next_page_token"`
			}](t, h, "GET", s.at+"/webhooks?page_size=300&page_token="+token, "")
			for _, w := range page.Webhooks {
				listed[w.ID] = true
			}
			pages++
			if token = page.Next; token == "" {
				break
			}
		}
		if len(listed) != n || pages != 4 {
			t.Errorf("got %d webhooks on %d pages, want %d on 4", len(listed), pages, n)
		}
	})
}

func TestShoporama_S1_10_SecretIsGeneratedAndCanBeRead(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	made := s.call(t, "POST", s.at+"/webhooks", fmt.Sprintf(`{"url": %q, "events": ["paid"]}`, r.url+"/hook"))
	var w hook
	made.read(t, &w)
	secret := s.secret(t, w.ID)
	if len(secret) < 32 || contains(made.body, secret) {
		t.Errorf("got the secret %q, want a long one that only …/secret shows", secret)
	}
	if again := s.secret(t, w.ID); again != secret {
		t.Errorf("read again: got %q, want the same, %q", again, secret)
	}
	s.publishOne(t, "paid", `{}`)
	wantHexSignature(t, r.await(t, "/hook", 1)[0], secret)
}

func TestShoporama_S1_11_ManagedOverREST(t *testing.T) {
	h := shoporama.enter(t)
	s := h.newShop(t, "shoporama")
	w := s.webhook(t, "https://example.com/hooks", `"events": ["paid"]`, `"label": "Warehouse"`)
	if w.URL != "https://example.com/hooks" || w.Label != "Warehouse" || w.Status != "enabled" || w.Profile != "shoporama" {
		t.Errorf("read: got %+v, want what was made", w)
	}
	changed := get[hook](t, h, "PATCH", s.at+"/webhooks/"+w.ID, `{"url": "https://example.com/new", "label": "ERP"}`)
	if changed.URL != "https://example.com/new" || changed.Label != "ERP" || !slices.Equal(changed.Events, []string{"paid"}) {
		t.Errorf("changed: got %+v, want the new URL and label, and the events as they were", changed)
	}
	if off := s.switched(t, w.ID, ":disable", `{}`); off.Status != "disabled" {
		t.Errorf("switched off: got %s", off.Status)
	}
	if on := s.switched(t, w.ID, ":enable", `{}`); on.Status != "enabled" {
		t.Errorf("switched on: got %s", on.Status)
	}
	get[struct{}](t, h, "DELETE", s.at+"/webhooks/"+w.ID, "")
	s.refused(t, http.StatusNotFound, "GET", s.at+"/webhooks/"+w.ID, "")
}

func TestShoporama_S1_12_ListOfWebhooks(t *testing.T) {
	h := shoporama.enter(t)
	s := h.newShop(t, "shoporama")
	list := func() (labels []string) {
		for _, w := range get[struct{ Webhooks []hook }](t, h, "GET", s.at+"/webhooks", "").Webhooks {
			labels = append(labels, w.Label+" "+w.Status)
		}
		return labels
	}
	if got := list(); len(got) != 0 {
		t.Errorf("a new shop: got webhooks %q, want none", got)
	}
	s.webhook(t, "https://example.com/a", `"label": "Warehouse"`)
	w := s.webhook(t, "https://example.com/b", `"label": "ERP"`)
	s.switched(t, w.ID, ":disable", `{}`)
	if want := []string{"Warehouse enabled", "ERP disabled"}; !slices.Equal(list(), want) {
		t.Errorf("got %q, want %q", list(), want)
	}
}

func TestShoporama_S1_13_POSTWithJSON(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newWire(t, wireOK)
	s.webhook(t, r.url+"/hook")
	s.publishOne(t, "paid", `{"order_id":56789}`)
	in := r.await(t, 1)[0]
	if in.method != http.MethodPost || in.path != "/hook" {
		t.Errorf("got %s %s, want POST /hook", in.method, in.path)
	}
	if !json.Valid(in.body) {
		t.Errorf("got body %q, which is not JSON", in.body)
	}
}

func TestShoporama_S1_14_EnvelopeAsReceived(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	w := s.webhook(t, r.url+"/hook")
	s.publish(t, s.id, `{"type": "order_created", "action": "create", "occurred_at": "2026-05-01T10:30:00+02:00",
		"data": {"order_id":56789,"order_no":1042,"email":"kunde@example.com","total":549.50}}`)
	const want = `{"event":"order_created","action":"create","timestamp":"2026-05-01T10:30:00+02:00","webshop_id":1234,` +
		`"data":{"order_id":56789,"order_no":1042,"email":"kunde@example.com","total":549.50}}`
	if got := string(r.await(t, "/hook", 1)[0].body); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// A4: an event that names no action has its type's, when it is published and when it is tested.
	for i, row := range []struct{ eventType, want string }{
		{"order_created", "create"}, {"paid", "update"}, {"product", "update"}, {"customer_created", "create"},
	} {
		s.publishOne(t, row.eventType, `{}`)
		r.await(t, "/hook", 2*i+2)
		s.test(t, w.ID, row.eventType)
		for _, in := range r.await(t, "/hook", 2*i+3)[2*i+1:] {
			if body, _ := object(t, in.body); string(body["action"]) != `"`+row.want+`"` {
				t.Errorf("%s: got action %s, want %q", row.eventType, body["action"], row.want)
			}
		}
	}
}

func TestShoporama_S1_15_DataIsAsTheShopGaveIt(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	s.webhook(t, r.url+"/hook")
	for i, eventType := range theSeventeen {
		data := fmt.Sprintf(`{ "order_id": %d, "total": 549.50, "own": {"of": [%q]} }`, i, eventType)
		s.publishOne(t, eventType, data)
		in := r.await(t, "/hook", i+1)[i]
		if !bytes.HasSuffix(in.body, []byte(`,"data":`+data+"}")) {
			t.Errorf("%s: got %s, want the data as it is: %s", eventType, in.body, data)
		}
	}
}

func TestShoporama_S1_16_NumbersArriveAsWritten(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	s.webhook(t, r.url+"/hook")
	const data = `{"total":549.50,"rate":1.0E+2,"zero":-0.0,"ean":12345678901234567890,"long":0.1000000000000000055511151231257827}`
	s.publishOne(t, "paid", data)
	if in := r.await(t, "/hook", 1)[0]; !contains(in.body, data) {
		t.Errorf("got %s, want %s in it", in.body, data)
	}
}

func TestShoporama_S1_17_ContentType(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	s.webhook(t, r.url+"/hook")
	s.publishOne(t, "paid", `{}`)
	if got := r.await(t, "/hook", 1)[0].header.Values("Content-Type"); !slices.Equal(got, []string{"application/json"}) {
		t.Errorf("Content-Type: got %q, want application/json", got)
	}
}

func TestShoporama_S1_18_EventHeaderEqualsBody(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	s.webhook(t, r.url+"/hook")
	for _, eventType := range theSeventeen {
		s.publishOne(t, eventType, `{}`)
	}
	seen := map[string]bool{}
	for _, in := range r.await(t, "/hook", len(theSeventeen)) {
		body, _ := object(t, in.body)
		header := in.header.Values("X-Webhook-Event")
		if len(header) != 1 || string(body["event"]) != `"`+header[0]+`"` {
			t.Errorf("got X-Webhook-Event %q with event %s, want one and the same", header, body["event"])
			continue
		}
		seen[header[0]] = true
	}
	if len(seen) != len(theSeventeen) {
		t.Errorf("got %d different events, want all %d", len(seen), len(theSeventeen))
	}
}

// wantHexSignature checks X-Webhook-Signature as S1.19 has it, by the standard library alone.
func wantHexSignature(t *testing.T, in *received, secret string) {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(in.body)
	if got, want := in.header.Get("X-Webhook-Signature"), "sha256="+hex.EncodeToString(mac.Sum(nil)); got != want {
		t.Errorf("X-Webhook-Signature: got %q, want %q for %q", got, want, in.body)
	}
}

// signedData is what signatures are tried with: ASCII, not ASCII, nothing, and what a parser would write differently.
var signedData = []string{`{"order_id":56789,"total":549.50}`, `{"name":"Søren Ærø – 日本 😀"}`, `{}`, `null`, `""`, payload}

func TestShoporama_S1_19_SignatureOverTheRawBody(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	w := s.webhook(t, r.url+"/hook")
	for i, data := range signedData {
		s.publishOne(t, "paid", data)
		wantHexSignature(t, r.await(t, "/hook", i+1)[i], s.secret(t, w.ID))
	}
	// What is no JSON has no envelope, and is signed as it is; nothing at all as well.
	for i, bare := range []string{"\xff\xfe\x00", ""} {
		r2 := s.call(t, "POST", s.at+"/events?type=paid", bare, "Content-Type", "application/octet-stream")
		if r2.code != http.StatusAccepted {
			t.Fatalf("publish %q: got %d %s", bare, r2.code, r2.body)
		}
		wantHexSignature(t, r.await(t, "/hook", len(signedData)+i+1)[len(signedData)+i], s.secret(t, w.ID))
	}
}

// phpReceiver starts testdata/receiver.php, which knows the secret that is given to the func it returns.
func phpReceiver(t *testing.T) (url string, knows func(secret string)) {
	t.Helper()
	php, err := exec.LookPath("php")
	if err != nil {
		const missing = "php is missing (apt-get install php-cli): the document's own receiver is not tried"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	script, err := filepath.Abs("testdata/receiver.php")
	if err != nil {
		t.Fatal(err)
	}
	dir, address := t.TempDir(), freeAddress(t)
	secretFile := filepath.Join(dir, "secret")
	knows = func(secret string) {
		if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	knows("none yet")
	p := &process{
		name: "php", path: php, args: []string{"-n", "-S", address, script}, env: append(os.Environ(), "SECRET_FILE="+secretFile),
		ready: "http://" + address + "/", log: filepath.Join(dir, "php.log"),
	}
	t.Cleanup(func() {
		if p.running() {
			p.kill(t)
		}
		if t.Failed() {
			t.Logf("── php wrote:\n%s", p.tail(40))
		}
	})
	p.begin(t)
	p.awaitReady(t)
	return "http://" + address, knows
}

func TestShoporama_S1_19_PHPReceiverOfTheDocument(t *testing.T) {
	h := shoporama.enter(t)
	s := h.newShop(t, "shoporama")
	url, knows := phpReceiver(t)
	w := s.webhook(t, url+"/hook")
	first := s.secret(t, w.ID)
	knows(first)
	var taken []string // the ids of events that PHP has to take
	accepted := func(eventType, data string) { taken = append(taken, s.publishOne(t, eventType, data)) }
	awaitTaken := func(what string) {
		t.Helper()
		for _, id := range taken {
			d, _ := s.awaitOne(t, id, "delivered")
			if got, want := d.Attempts[0].ResponseBody, "thanks for "+d.EventType; got != want {
				t.Errorf("%s: PHP answers %q, want %q", what, got, want)
			}
		}
		taken = nil
	}
	for _, data := range signedData {
		accepted("paid", data)
	}
	for _, eventType := range theSeventeen {
		accepted(eventType, `{"n":1}`)
	}
	awaitTaken("with its secret")
	if got := s.test(t, w.ID, "test.ping"); !got.Success || got.Attempt.ResponseBody != "thanks for test.ping" {
		t.Errorf("test.ping: got %+v, want PHP to take it", got)
	}
	// With another secret it refuses: it does look.
	knows(first + "x")
	if d, _ := s.awaitOne(t, s.publishOne(t, "paid", `{}`), "failed"); d.ResponseCode != http.StatusUnauthorized {
		t.Errorf("with another secret: got %d, want 401", d.ResponseCode)
	}
	// Within the overlap of a rotation the receiver that knows the old secret goes on.
	knows(first)
	second := get[secrets](t, h, "POST", s.at+"/webhooks/"+w.ID+":rotate_secret", `{"overlap": "3600s"}`).Secret
	accepted("paid", `{"total":549.50}`)
	awaitTaken("within the overlap")
	// When its owner has given it the new one, he ends the overlap: the same secret again, and none beside it.
	get[secrets](t, h, "POST", s.at+"/webhooks/"+w.ID+":rotate_secret", fmt.Sprintf(`{"secret": %q, "overlap": "0s"}`, second))
	knows(second)
	accepted("paid", `{"total":549.50}`)
	awaitTaken("after the overlap")
}

func TestShoporama_S1_20_ResendIsSignedAnew(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	w := s.webhook(t, r.url+"/hook")
	r.answer("/hook", answer{code: 500}, answer{})
	d, _ := s.awaitOne(t, s.publishOne(t, "paid", payload), "failed")
	get[secrets](t, h, "POST", s.at+"/webhooks/"+w.ID+":rotate_secret", `{"overlap": "0s"}`)
	s.resend(t, d)
	got := r.await(t, "/hook", 2)
	if !bytes.Equal(got[0].body, got[1].body) {
		t.Errorf("sent again: got %q, want the same bytes, %q", got[1].body, got[0].body)
	}
	if got[0].header.Get("X-Webhook-Signature") == got[1].header.Get("X-Webhook-Signature") {
		t.Error("sent again with the signature of before, although the secret has changed")
	}
	wantHexSignature(t, got[1], s.secret(t, w.ID))
	if e := got[1].header.Get("X-Webhook-Event"); e != "paid" {
		t.Errorf("sent again: got X-Webhook-Event %q, want paid", e)
	}
}

func TestShoporama_S1_20_PHPTakesAResend(t *testing.T) {
	h := shoporama.enter(t)
	s := h.newShop(t, "shoporama")
	url, knows := phpReceiver(t)
	w := s.webhook(t, url+"/hook")
	id := s.publishOne(t, "order_created", payload)
	d, _ := s.awaitOne(t, id, "failed") // PHP does not know the secret yet
	knows(s.secret(t, w.ID))
	s.resend(t, d)
	if d, _ = s.awaitOne(t, id, "delivered"); d.ResponseCode != http.StatusOK {
		t.Errorf("sent again: PHP answers %d, want 200", d.ResponseCode)
	}
}

func TestShoporama_S1_21_SentByAQueue(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	s.webhook(t, r.url+"/quick")
	slow := s.webhook(t, r.url+"/slow", `"events": ["order_created"]`)
	// Whoever publishes does not wait for receivers, and no receiver for another.
	r.answer("/slow", answer{until: never})
	begun := time.Now()
	s.publishOne(t, "order_created", `{}`)
	if took := time.Since(begun); took > slack {
		t.Errorf("publishing took %s while a receiver hangs", took)
	}
	if first := r.await(t, "/quick", 1)[0].at.Sub(begun); first > slack {
		t.Errorf("the other receiver was sent it after %s, want a few seconds at most", first)
	}
	get[struct{}](t, h, "DELETE", s.at+"/webhooks/"+slow.ID, "")
	// A burst, for which the latest first attempt counts. No peak load is declared yet that this would be.
	const n, most = 3000, 120 * time.Second
	published := map[string]time.Time{}
	for from := 0; from < n; from += 500 {
		var batch []string
		for i := from; i < from+500; i++ {
			batch = append(batch, fmt.Sprintf(`{"type":"stock","data":{"n":%d}}`, i))
		}
		at := time.Now()
		s.publish(t, s.id, "["+strings.Join(batch, ",")+"]")
		for i := from; i < from+500; i++ {
			published[fmt.Sprint(i)] = at
		}
	}
	var latest time.Duration
	for _, in := range r.await(t, "/quick", n+1)[1:] {
		body, _ := object(t, in.body)
		data, _ := object(t, body["data"])
		latest = max(latest, in.at.Sub(published[string(data["n"])]))
	}
	t.Logf("the latest of %d first attempts came %s after its event was published", n, latest.Round(time.Millisecond))
	if latest > most {
		t.Errorf("the latest first attempt came after %s, want %s at most", latest, most)
	}
}

func TestShoporama_S1_22_FourGroupsOverREST(t *testing.T) {
	h := shoporama.enter(t)
	var groups []string
	for _, e := range h.profile(t, "shoporama").Events {
		if !e.TestOnly && !slices.Contains(groups, e.Group) {
			groups = append(groups, e.Group)
		}
	}
	if want := []string{"Orders", "Products", "Checkout flow", "Customers and other"}; !slices.Equal(groups, want) {
		t.Errorf("got groups %q, want %q", groups, want)
	}
}

func TestShoporama_S1_23_OnlyA2xxIsDelivered(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	want := map[string]string{} // by webhook
	add := func(url, verdict string) { want[s.webhook(t, url).ID] = verdict }
	for _, code := range []int{200, 201, 202, 203, 204, 206, 226, 299, 300, 301, 304, 307, 400, 401, 404, 410, 418, 429, 500, 503, 599} {
		path := fmt.Sprintf("/%d", code)
		r.answer(path, answer{code: code, header: map[string]string{"Location": r.url + "/200"}})
		verdict := "failed"
		if code/100 == 2 {
			verdict = "delivered"
		}
		add(r.url+path, verdict)
	}
	add("http://"+freeAddress(t)+"/nobody", "failed")
	add(newWire(t, "").url+"/closes", "failed")
	byWebhook, _ := s.awaitStory(t, s.publishOne(t, "paid", `{}`), len(want), func(d logEntry) error {
		if d.Status != "delivered" && d.Status != "failed" {
			return fmt.Errorf("it is %s", d.Status)
		}
		return nil
	})
	for id, d := range byWebhook {
		a := d.Attempts[0]
		if d.Status != want[id] {
			t.Errorf("%s: got %s, want %s", a.URL, d.Status, want[id])
		}
		if (a.Error == "") != (want[id] == "delivered") {
			t.Errorf("%s: the log has the error %q, want one exactly where it failed", a.URL, a.Error)
		}
		if got := s.read(t, id); got.Status != "enabled" {
			t.Errorf("%s: the webhook is %s, want no answer to switch it off", a.URL, got.Status)
		}
	}
}

func TestShoporama_S1_24_NoRetryUnlessAsked(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	r.answer("/once", answer{code: 500})
	r.answer("/again", answer{code: 500}, answer{code: 503}, answer{})
	once := s.webhook(t, r.url+"/once")
	if p := once.Policy; p.MaxAttempts != 1 || len(p.RetrySchedule) != 0 {
		t.Errorf("the rules in force: got %+v, want one attempt", p)
	}
	s.webhook(t, r.url+"/again", `"events": ["stock"]`, policy("0.1s", "0.1s")) // A2: an owner may want it
	_, told := s.awaitOne(t, s.publishOne(t, "paid", `{}`), "failed")
	told.says(t, "attempt 1", "given up after the only attempt", "it can be sent again by hand")
	byWebhook, _ := s.awaitStory(t, s.publishOne(t, "stock", `{}`), 2, func(d logEntry) error {
		if d.Status != "delivered" && d.Status != "failed" {
			return fmt.Errorf("it is %s", d.Status)
		}
		return nil
	})
	if got := byWebhook[once.ID]; got.Status != "failed" || got.AttemptsMade != 1 {
		t.Errorf("got %s after %d attempts, want failed after 1", got.Status, got.AttemptsMade)
	}
	// By now the other one has been tried three times; this one was not.
	if got := len(r.at("/once")); got != 2 {
		t.Errorf("/once was sent %d for 2 events, want one each", got)
	}
	if got := len(r.at("/again")); got != 3 {
		t.Errorf("/again was sent %d, want 3: its owner asked for it", got)
	}
}

func TestShoporama_S1_25_ResendArrives(t *testing.T) {
	h := shoporama.enter(t)
	s := h.newShop(t, "shoporama")
	address := freeAddress(t)
	s.webhook(t, "http://"+address+"/hook")
	id := s.publishOne(t, "order_created", `{"order_id":56789}`)
	d, _ := s.awaitOne(t, id, "failed")
	r := newReceiverAt(t, address) // it is back
	s.resend(t, d)
	if in := r.await(t, "/hook", 1)[0]; !contains(in.body, `"data":{"order_id":56789}`) {
		t.Errorf("got %s, want the order", in.body)
	}
	now, told := s.awaitOne(t, id, "delivered")
	if len(now.Attempts) != 2 || !now.Attempts[1].ByHand {
		t.Errorf("got attempts %+v, want two, the second by hand", now.Attempts)
	}
	told.says(t, "attempt 1", "given up", "attempt 2, by hand,", "delivered")
}

func TestShoporama_S1_26_NothingIsLostWhileTheReceiverIsDown(t *testing.T) {
	h := shoporama.enter(t)
	s := h.newShop(t, "shoporama")
	address := freeAddress(t)
	s.webhook(t, "http://"+address+"/hook")
	const n = 1000
	var batch []string
	for i := range n {
		batch = append(batch, fmt.Sprintf(`{"id":"order-%d","type":"order_created","data":{"n":%d}}`, i, i))
	}
	s.publish(t, s.id, "["+strings.Join(batch, ",")+"]")
	failed := s.awaitDeliveries(t, "status=failed", n)
	r := newReceiverAt(t, address)
	for _, d := range failed {
		s.resend(t, d)
	}
	arrived := map[string]bool{}
	for _, in := range r.await(t, "/hook", n) {
		body, _ := object(t, in.body)
		arrived[string(body["data"])] = true
	}
	if len(arrived) != n {
		t.Errorf("got %d different orders, want all %d", len(arrived), n)
	}
	s.awaitDeliveries(t, "status=delivered", n)
	s.awaitDeliveries(t, "status=failed", 0)
}

func TestShoporama_S1_27_LogOfADelivery(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	r.answer("/hook", answer{code: 503, body: "back at noon"})
	w := s.webhook(t, r.url+"/hook", `"label": "Warehouse"`)
	other := s.webhook(t, r.url+"/other")
	begun := time.Now()
	s.publishOne(t, "paid", `{"order_id":56789}`)
	listed := s.awaitDeliveries(t, "status=failed&webhook_id="+w.ID, 1)[0]
	if listed.WebhookID != w.ID || listed.EventType != "paid" || listed.ResponseCode != 503 || listed.AttemptsMade != 1 {
		t.Errorf("in the list: got %+v, want paid to %s with 503", listed, w.ID)
	}
	if at := listed.CreatedAt; at.Before(begun.Add(-time.Second)) || at.After(time.Now()) {
		t.Errorf("time: got %s, want one after %s", at, begun)
	}
	d := s.delivery(t, listed)
	in := r.await(t, "/hook", 1)[0]
	if d.Body != string(in.body) {
		t.Errorf("payload: got %q, want what was sent, %q", d.Body, in.body)
	}
	a := d.Attempts[0]
	if a.DurationMS <= 0 || a.StartedAt.Before(begun) || a.ResponseCode != 503 || a.ResponseBody != "back at noon" || a.Error == "" {
		t.Errorf("attempt: got %+v, want its time, its duration, 503, what was answered and an error text", a)
	}
	s.resend(t, d)
	r.await(t, "/hook", 2)
	s.awaitDeliveries(t, "status=delivered&webhook_id="+other.ID, 1)
	if own := s.deliveries(t, "webhook_id="+other.ID); len(own) != 1 || own[0].WebhookID != other.ID {
		t.Errorf("the other webhook's log: got %+v, want its own delivery alone", own)
	}
	// No answer at all has an error text as well.
	nobody := s.webhook(t, "http://"+freeAddress(t), `"events": ["stock"]`)
	s.publishOne(t, "stock", `{}`)
	d = s.delivery(t, s.awaitDeliveries(t, "status=failed&webhook_id="+nobody.ID, 1)[0])
	if a := d.Attempts[0]; a.ResponseCode != 0 || !strings.Contains(a.Error, "nothing listens there") {
		t.Errorf("nobody there: got %+v, want no code and an error that says so", a)
	}
}

func TestShoporama_S1_28_LogFiltersCombine(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	r.answer("/bad", answer{code: 404})
	good, bad := s.webhook(t, r.url+"/good"), s.webhook(t, r.url+"/bad")
	publish := func(before int) {
		for _, eventType := range []string{"paid", "stock"} {
			s.publishOne(t, eventType, `{}`)
		}
		s.awaitDeliveries(t, "status=delivered", before+2)
		s.awaitDeliveries(t, "status=failed", before+2)
	}
	publish(0)
	noon := time.Now().UTC().Format(time.RFC3339Nano)
	publish(2)
	for query, want := range map[string]int{
		"": 8, "event_type=paid": 4, "status=failed": 4, "status=delivered": 4, "from=" + noon: 4, "to=" + noon: 4,
		"response_code=404": 4, "response_code=2xx": 4, "webhook_id=" + good.ID: 4,
		"event_type=paid&status=failed": 2, "event_type=paid&status=failed&from=" + noon: 1, "event_type=stock&status=delivered&to=" + noon: 1,
		"webhook_id=" + bad.ID + "&status=delivered": 0, "webhook_id=" + bad.ID + "&event_type=paid&from=" + noon: 1,
		"from=" + noon + "&to=" + time.Now().Add(time.Minute).UTC().Format(time.RFC3339Nano): 4,
	} {
		list := s.deliveries(t, query)
		if len(list) != want {
			t.Errorf("%q: got %d, want %d", query, len(list), want)
		}
		for _, d := range list {
			for field, got := range map[string]string{"event_type": d.EventType, "status": d.Status, "webhook_id": d.WebhookID} {
				if _, rest, ok := strings.Cut("&"+query, "&"+field+"="); ok && !strings.HasPrefix(rest+"&", got+"&") {
					t.Errorf("%q: got one with %s %s", query, field, got)
				}
			}
		}
	}
}

func TestShoporama_S1_30_PingIsInTheLog(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	r.answer("/hook", answer{}, answer{code: 500})
	w := s.webhook(t, r.url+"/hook")
	for _, want := range []struct {
		code   int
		status string
	}{{200, "delivered"}, {500, "failed"}} {
		sent := s.test(t, w.ID, "test.ping")
		if sent.Success != (want.status == "delivered") || sent.Attempt.ResponseCode != want.code {
			t.Errorf("test.ping: got %+v, want %d", sent, want.code)
		}
		listed := s.awaitDeliveries(t, "event_type=test.ping&status="+want.status+"&webhook_id="+w.ID, 1)[0]
		if listed.ID != sent.DeliveryID || !listed.Test || listed.ResponseCode != want.code {
			t.Errorf("in the log: got %+v, want the test with %d, marked as one", listed, want.code)
		}
	}
	if got := len(r.at("/hook")); got != 2 {
		t.Errorf("got %d requests, want one for each test", got)
	}
}

func TestShoporama_S1_31_StatisticsOf30Days(t *testing.T) {
	h := shoporama.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	r.answer("/mixed", answer{}, answer{code: 500}, answer{code: 404}, answer{})
	w := s.webhook(t, r.url+"/mixed")
	nobody := s.webhook(t, "http://"+freeAddress(t)+"/")
	for range 5 {
		s.publishOne(t, "paid", `{}`)
	}
	s.awaitDeliveries(t, "status=failed&webhook_id="+w.ID, 2)
	s.awaitDeliveries(t, "status=delivered&webhook_id="+w.ID, 3)
	s.awaitDeliveries(t, "status=failed&webhook_id="+nobody.ID, 5)
	s.test(t, w.ID, "test.ping") // counts nowhere (A1)
	s.awaitDeliveries(t, "event_type=test.ping", 1)

	check := func(what string, got, want period) {
		t.Helper()
		if got.Latency != nil && got.Latency.P50 > 0 && got.Latency.P50 <= got.Latency.P90 && got.Latency.P90 <= got.Latency.P99 {
			want.Latency = got.Latency
		}
		got.From, got.To = time.Time{}, time.Time{}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	one, most := 1.0, 0.6
	of := s.stats(t, "/webhooks/"+w.ID+"/stats?days=30")
	mixed := period{
		Deliveries: 5, Delivered: 3, Failed: 2, SuccessRate: &most, AttemptsPerDelivery: &one, Attempts: 5,
		ErrorsByClass: map[string]float64{"http_status": 2}, ErrorsByResponseCode: map[string]float64{"500": 1, "404": 1},
	}
	check("the webhook", of.Total, mixed)
	if len(of.Days) != 30 || !of.Days[29].To.Equal(of.Total.To) || !of.Days[0].From.Equal(of.Total.From) || of.Days[29].To.Sub(of.Days[0].From) != 30*24*time.Hour {
		t.Errorf("got %d days from %v to %v, want the last 30", len(of.Days), of.Total.From, of.Total.To)
	}

	// A resend by hand that is answered well turns a failure into a success.
	failed := s.awaitDeliveries(t, "response_code=404", 1)[0]
	s.resend(t, failed)
	s.awaitDeliveries(t, "status=delivered&webhook_id="+w.ID, 4+1) // with the ping
	of = s.stats(t, "/stats?hours=48")
	rate, attempts := 0.4, 1.1
	check("the shop", of.Total, period{
		Deliveries: 10, Delivered: 4, Failed: 6, SuccessRate: &rate, AttemptsPerDelivery: &attempts, Attempts: 11,
		ErrorsByClass: map[string]float64{"http_status": 2, "connect": 5}, ErrorsByResponseCode: map[string]float64{"500": 1, "404": 1, "none": 5},
	})
	if len(of.Hours) != 48 || len(of.Days) != 0 {
		t.Errorf("got %d hours and %d days, want 48 hours", len(of.Hours), len(of.Days))
	}
	if why := s.refused(t, http.StatusBadRequest, "GET", s.at+"/stats?days=1000", ""); !slices.Equal(why.fields(), []string{"days"}) {
		t.Errorf("1000 days: got %+v, want a refusal of the field days", why)
	}
}

// stats are what "…/stats" answers.
type stats struct {
	Total       period
	Days, Hours []period
}

type period struct {
	From, To                                          time.Time
	Deliveries, Delivered, Failed, Cancelled, Waiting float64
	SuccessRate                                       *float64 `json:"success_rate"`
	AttemptsPerDelivery                               *float64 `json:"attempts_per_delivery"`
	Attempts                                          float64
	ErrorsByClass                                     map[string]float64 `json:"errors_by_class"`
	ErrorsByResponseCode                              map[string]float64 `json:"errors_by_response_code"`
	Latency                                           *struct {
		P50 float64 `json:"p50_ms"`
		P90 float64 `json:"p90_ms"`
		P99 float64 `json:"p99_ms"`
	}
}

func (s *premises) stats(t *testing.T, path string) stats {
	t.Helper()
	return get[stats](t, s.house, "GET", s.at+path, "")
}
