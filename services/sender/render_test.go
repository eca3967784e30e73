package sender

import (
	"net/http"
	"strconv"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

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
	slow = "name: slow\nopen_catalog: true\nsignatures: [{scheme: standard-webhooks}]\npolicy: {timeout: 5s, retry_schedule: [1h], success_codes: [2xx]}\n"
)

func profiles(t *testing.T) *profile.Set {
	t.Helper()
	set, err := profile.Load(fstest.MapFS{"enveloped.yaml": {Data: []byte(enveloped)}, "bare.yaml": {Data: []byte(bare)}, "slow.yaml": {Data: []byte(slow)}})
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
		{"a body that was made before", "enveloped", func(d *contract.Delivery, _ *shopbellv1.Webhook) { d.WholeBody = true }, awkward, "application/json", awkward, "application/json"},
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
		rules string
		want  http.Header
	}{
		{"enveloped", http.Header{
			"User-Agent": {"Shopbell/test"}, "Content-Type": {"application/json"}, "X-Env": {"prod"}, "webhook-id": {"dlv_1"},
			"webhook-timestamp": {strconv.FormatInt(now.Unix(), 10)}, "webhook-signature": {signature.Standard([]signature.Secret{parsed}, "dlv_1", now, body)},
		}},
		{"bare", http.Header{
			"User-Agent": {"Shopbell/test"}, "Content-Type": {"application/json"}, "X-Env": {"prod"}, "X-Webhook-Event": {"order.created"},
			"X-Webhook-Signature": {"sha256=" + signature.Hex(parsed, body)},
		}},
	} {
		s := state("https://example.com", row.rules)
		s.Webhook.Headers = map[string]string{"x-env": "prod"}
		got := headers(delivery("1", ""), webhook.New(s, 1, profiles(t)), "application/json", body, "Shopbell/test", now)
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.rules, diff)
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
