package sender

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// Profiles for tests: enveloped is retried at once, bare has no envelope and signs in hex, slow waits for an hour.
const (
	enveloped = "name: enveloped\nopen_catalog: true\nenvelope: '{\"id\":{id},\"type\":{type},\"webshop\":{webshop_id},\"data\":{data}}'\nsignatures: [{scheme: standard-webhooks}]\n" +
		"policy: {timeout: 5s, retry_schedule: [100ms, 100ms], success_codes: [2xx], disable_codes: [410], honor_retry_after: true}\n"
	bare = "name: bare\nopen_catalog: true\nheaders: {X-Webhook-Event: '{type}'}\nsignatures: [{scheme: hmac-sha256-hex, header: X-Webhook-Signature, prefix: sha256=}]\n" +
		"policy: {timeout: 5s, success_codes: [2xx]}\n"
	renaming = "name: renaming\nopen_catalog: true\nenvelope: '{\"n\":[{data}]}'\nheaders: {X-Key: '{key}', X-Shop: '{webshop_id}', x-type: '{type}'}\n" +
		"options: [{name: short, rename: {at: [n], names: {order_number: no}}}, {name: shorter, rename: {names: {n: x}}}]\npolicy: {timeout: 5s, success_codes: [2xx]}\n"
	broken = "name: broken\nopen_catalog: true\nsignatures: [{scheme: standard-webhooks}]\n" +
		"policy: {timeout: 5s, retry_schedule: [100ms, 100ms, 100ms], success_codes: [2xx], honor_retry_after: true, breaker: {failures: 10, hang_share: 0.5}}\n"
	slow = "name: slow\nopen_catalog: true\nsignatures: [{scheme: standard-webhooks}]\npolicy: {timeout: 5s, retry_schedule: [1h], success_codes: [2xx]}\n"
)

func profiles(t *testing.T) *profile.Set {
	t.Helper()
	files := fstest.MapFS{}
	for name, text := range map[string]string{"enveloped": enveloped, "bare": bare, "renaming": renaming, "broken": broken, "slow": slow} {
		files[name+".yaml"] = &fstest.MapFile{Data: []byte(text)}
	}
	set, err := profile.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func state(url, rules string) *busv1.WebhookState {
	return &busv1.WebhookState{
		Webhook: &shopbellv1.Webhook{Id: "wh_1", ShopId: "demo", Url: url, Events: []string{"*"}, Profile: rules, Status: webhook.Enabled},
		Secrets: []*busv1.Secret{{Value: secret}},
	}
}

func delivery(data, contentType string) *contract.Delivery {
	now := time.Now()
	return &contract.Delivery{
		Event: contract.Event{
			ShopID: "demo", ID: "evt_1", Type: "order.created", OccurredAt: "2026-05-01T10:30:00+02:00", Environment: "live",
			ContentType: contentType, AcceptedAt: now, Data: []byte(data),
		},
		ID: "dlv_1", WebhookID: "wh_1", MatchedAt: now, Attempt: 1,
	}
}

func TestRender_WritesAroundTheBytes(t *testing.T) {
	const awkward = "{ \"total\":549.50,\n\"a\":\"\\/<&>\"}"
	for _, row := range []struct {
		name, rules string
		change      func(*contract.Delivery, *shopbellv1.Webhook)
		data        string
		contentType string
		want        string
		wantType    string
	}{
		{"an envelope", "enveloped", nil, awkward, "application/json", `{"id":"evt_1","type":"order.created","webshop":42,"data":` + awkward + `}`, "application/json"},
		{"an envelope around JSON of a kind of its own", "enveloped", nil, "1", "application/vnd.shop+json; charset=utf-8", `{"id":"evt_1","type":"order.created","webshop":42,"data":1}`, "application/json"},
		{"no envelope", "bare", nil, awkward, "application/json", awkward, "application/json"},
		{"data that is not JSON has none", "enveloped", nil, "<a/>\x00\xff", "text/xml; charset=iso-8859-1", "<a/>\x00\xff", "text/xml; charset=iso-8859-1"},
		{"data that is not JSON, in base64", "cloudevents", nil, "<a/>\x00\xff", "text/xml; charset=iso-8859-1", `{"specversion":"1.0","id":"evt_1","source":"demo","type":"order.created","time":"2026-05-01T10:30:00+02:00","datacontenttype":"text/xml; charset=iso-8859-1","data_base64":"PGEvPgD/"}`, "application/cloudevents+json"},
		{"no data at all, in base64", "cloudevents", nil, "", "application/octet-stream", `{"specversion":"1.0","id":"evt_1","source":"demo","type":"order.created","time":"2026-05-01T10:30:00+02:00","datacontenttype":"application/octet-stream","data_base64":""}`, "application/cloudevents+json"},
		{"data that is not JSON, in binary mode", "cloudevents", func(_ *contract.Delivery, w *shopbellv1.Webhook) { w.Options = []string{"binary"} }, "<a/>", "text/xml", "<a/>", "text/xml"},
		{"a body that was made before", "enveloped", func(d *contract.Delivery, _ *shopbellv1.Webhook) { d.WholeBody = true }, awkward, "application/json", awkward, "application/json"},
		{"an option that renames", "renaming", func(_ *contract.Delivery, w *shopbellv1.Webhook) { w.Options = []string{"short"} }, `{ "order_number":1.50,"a":"\/"}`, "application/json", `{"n":[{ "no":1.50,"a":"\/"}]}`, "application/json"},
		{"two that do", "renaming", func(_ *contract.Delivery, w *shopbellv1.Webhook) { w.Options = []string{"short", "shorter"} }, `{"order_number":1}`, "application/json", `{"x":[{"no":1}]}`, "application/json"},
		{"an option that finds nothing to rename", "renaming", func(_ *contract.Delivery, w *shopbellv1.Webhook) { w.Options = []string{"short"} }, `1`, "application/json", `{"n":[1]}`, "application/json"},
		{"data that is not JSON is not renamed", "renaming", func(_ *contract.Delivery, w *shopbellv1.Webhook) { w.Options = []string{"short"} }, `order_number=1`, "text/plain", `order_number=1`, "text/plain"},
		{"a renamed body as XML", "renaming", func(_ *contract.Delivery, w *shopbellv1.Webhook) {
			w.Options, w.Format = []string{"short"}, proto.String("xml")
		}, `{"order_number":1}`, "application/json", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<data><n><no>1</no></n></data>", "application/xml"},
		{"a transform makes the whole body", "enveloped", func(_ *contract.Delivery, w *shopbellv1.Webhook) {
			w.Transform = proto.String("{'text': 'Order ' + string(data.order_no) + ' of ' + shop_id}")
		}, `{"order_no":1042}`, "application/json", `{"text":"Order 1042 of demo"}`, "application/json"},
	} {
		d := delivery(row.data, row.contentType)
		s := state("https://example.com", row.rules)
		if row.change != nil {
			row.change(d, s.Webhook)
		}
		w := webhook.New(s, 1, profiles(t))
		if w.Broken != "" {
			t.Fatal(w.Broken)
		}
		got, err := render(d, w, &shopbellv1.Shop{WebshopId: proto.Uint32(42)})
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		if string(got.bytes()) != row.want || got.contentType != row.wantType {
			t.Errorf("%s: %q as %s, want %q as %s", row.name, got.bytes(), got.contentType, row.want, row.wantType)
		}
	}
}

func TestHeaders_AreThoseOfTheProfileAndTheOwner(t *testing.T) {
	now := time.Unix(1777624200, 0)
	body := []byte(`{"id":1}`)
	parsed, err := signature.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		rules, key, header string
		want               http.Header
	}{
		{"slow", "sbk_x", "", http.Header{
			"User-Agent": {"Shopbell/test"}, "Content-Type": {"application/json"}, "X-Env": {"prod"}, "X-Api-Key": {"sbk_x"}, "webhook-id": {"dlv_1"},
			"webhook-timestamp": {strconv.FormatInt(now.Unix(), 10)}, "webhook-signature": {signature.Standard([]signature.Secret{parsed}, "dlv_1", now, body)},
		}},
		{"enveloped", "", "", http.Header{
			"User-Agent": {"Shopbell/test"}, "Content-Type": {"application/json"}, "X-Env": {"prod"}, "webhook-id": {"dlv_1"},
			"webhook-timestamp": {strconv.FormatInt(now.Unix(), 10)}, "webhook-signature": {signature.Standard([]signature.Secret{parsed}, "dlv_1", now, body)},
		}},
		{"bare", "sbk_x", "X-Store", http.Header{
			"User-Agent": {"Shopbell/test"}, "Content-Type": {"application/json"}, "X-Env": {"prod"}, "X-Webhook-Event": {"order.created"}, "X-Store": {"sbk_x"},
			"X-Webhook-Signature": {"sha256=" + signature.Hex(parsed, body)},
		}},
	} {
		s := state("https://example.com", row.rules)
		s.Webhook.Headers = map[string]string{"x-env": "prod"}
		s.ApiKey = row.key
		if row.header != "" {
			s.Webhook.ApiKeyHeader = &row.header
		}
		d, w := delivery("1", "application/json"), webhook.New(s, 1, profiles(t))
		b, err := render(d, w, &shopbellv1.Shop{})
		if err != nil {
			t.Fatal(err)
		}
		got := headers(d, w, b, body, "Shopbell/test", now)
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.rules, diff)
		}
	}
}

func TestHeaders_OfTheProfileAreFilledOrLeftOut(t *testing.T) {
	for key, want := range map[string]http.Header{
		"":             {"X-Shop": {"42"}, "x-type": {"order.created"}},
		"order:1 \r\n": {"X-Shop": {"42"}, "x-type": {"order.created"}, "X-Key": {"order:1%20%0D%0A"}},
	} {
		d, w := delivery("1", "application/json"), webhook.New(state("https://example.com", "renaming"), 1, profiles(t))
		d.Key = key
		d.WholeBody = true // one that is sent again has them, too
		b, err := render(d, w, &shopbellv1.Shop{WebshopId: proto.Uint32(42)})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, b.headers); diff != "" {
			t.Errorf("key %q (-want +got):\n%s", key, diff)
		}
	}
}

// arrived are headers as a receiver reads them, by which two that are one stand twice.
func arrived(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		for _, value := range values {
			out.Add(name, value)
		}
	}
	return out
}

// A webhook's own header that is the profile's in another case, as after the profile has changed, is sent once.
func TestHeaders_StandOnce(t *testing.T) {
	s := state("https://example.com", "renaming")
	s.Webhook.Headers = map[string]string{"X-Type": "own", "X-Webhook-Signature": "own"}
	s.Webhook.Signatures = []string{"hmac-sha256-hex"}
	d, w := delivery("1", "application/json"), webhook.New(s, 1, profiles(t))
	b, err := render(d, w, &shopbellv1.Shop{})
	if err != nil {
		t.Fatal(err)
	}
	h := arrived(headers(d, w, b, b.bytes(), "Shopbell/test", time.Now()))
	if !slices.Equal(h.Values("X-Type"), []string{"order.created"}) || len(h.Values("X-Webhook-Signature")) != 1 || h.Get("X-Webhook-Signature") == "own" {
		t.Errorf("headers %v, want the profile's alone", h)
	}
}

func TestSign_HasASignatureOfEachSchemeAndSecret(t *testing.T) {
	now := time.Unix(1777624200, 0)
	body := []byte(`{"id":1}`)
	s := state("https://example.com", "bare")
	s.Webhook.Signatures = []string{"standard-webhooks-ed25519", "hmac-sha256-hex", "standard-webhooks"}
	s.Secrets = []*busv1.Secret{
		{Value: "newest-secret-of-all", PrivateKey: signature.NewPrivateKey()},
		{Value: "replaced-secret-number-1", PrivateKey: signature.NewPrivateKey(), ExpiresAt: timestamppb.New(now.Add(time.Hour))},
	}
	w := webhook.New(s, 1, profiles(t))
	if w.Broken != "" {
		t.Fatal(w.Broken)
	}
	for at, signing := range map[time.Time][]*busv1.Secret{now: s.Secrets, now.Add(time.Hour): s.Secrets[:1]} {
		h := http.Header{}
		sign(h, "dlv_1", w, body, at)
		h = arrived(h)
		verifies := func(key string) bool {
			return signature.VerifyStandard(key, h.Get(signature.HeaderID), h.Get(signature.HeaderTimestamp), h.Get(signature.HeaderSignature), body, at, 0) == nil
		}
		for i, secret := range s.Secrets {
			key, err := signature.ParsePrivateKey(secret.PrivateKey)
			if err != nil {
				t.Fatal(err)
			}
			if want := i < len(signing); verifies(secret.Value) != want || verifies(key.Public()) != want {
				t.Errorf("at %s secret %d verifies %v, its public key %v, want %v", at, i, verifies(secret.Value), verifies(key.Public()), want)
			}
		}
		if got := len(strings.Fields(h.Get(signature.HeaderSignature))); got != 2*len(signing) {
			t.Errorf("at %s there are %d signatures, want %d", at, got, 2*len(signing))
		}
		oldest, err := signature.ParseSecret(signing[len(signing)-1].Value)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := h.Get("X-Webhook-Signature"), "sha256="+signature.Hex(oldest, body); got != want {
			t.Errorf("at %s X-Webhook-Signature is %s, want that of the oldest secret, %s", at, got, want)
		}
	}
}

func TestShown_MasksWhatIsSecret(t *testing.T) {
	h := http.Header{}
	for name := range map[string]bool{
		"Authorization": true, "X-Api-Key": true, "Cookie": true, "X-Auth": true, "X-Access-Token": true, "X-Shop-Secret": true,
		"X-Password": true, "Proxy-Authorization": true, "X-Credentials": true,
		"X-Env": false, "Content-Type": false, "webhook-signature": false, "webhook-id": false,
	} {
		h[name] = []string{"the value of " + name}
	}
	for _, got := range shown(h, true) {
		open := map[string]bool{"X-Env": true, "Content-Type": true, "webhook-signature": true, "webhook-id": true}[got.Name]
		if isOpen := got.Value == "the value of "+got.Name; isOpen != open || !open && got.Value != mask {
			t.Errorf("%s is shown as %q", got.Name, got.Value)
		}
	}
	for _, masked := range []bool{true, false} {
		if got := shown(http.Header{"X-Store": {"sbk_x"}}, masked); got[0].Value != mask {
			t.Errorf("a shop's key in X-Store is shown as %q", got[0].Value)
		}
	}
	last := ""
	for _, got := range shown(h, false) {
		if got.Value != "the value of "+got.Name {
			t.Errorf("unmasked, %s is shown as %q", got.Name, got.Value)
		}
		if got.Name < last {
			t.Errorf("%s stands behind %s", got.Name, last)
		}
		last = got.Name
	}
}

func TestShown_IsTextWhateverTheReceiverWrote(t *testing.T) {
	got := shown(http.Header{"X-Odd": {"caf\xe9", "\xff\xfe"}, "X-Fine": {"café ✓"}}, false)
	want := []string{"café ✓", "café", "ÿþ"}
	for i, h := range got {
		if h.Value != want[i] {
			t.Errorf("%s: got %q, want %q", h.Name, h.Value, want[i])
		}
	}
}
