package e2e

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type secrets struct {
	Secret    string
	PublicKey string `json:"public_key"`
	Old       []struct {
		Secret    string
		PublicKey string `json:"public_key"`
	}
}

// verified says whether the library of Standard Webhooks takes a request with a secret.
func verified(t *testing.T, in *received, secret string) error {
	t.Helper()
	w, err := standard.NewWebhook(secret)
	if err != nil {
		t.Fatalf("the library refuses the secret: %v", err)
	}
	return w.Verify(in.body, in.header)
}

func TestSignature_IsTakenByTheStandardWebhooksLibrary(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		w := h.newWebhook(t, "blomster", r.url+"/hook", policy("0.2s"))
		at := "/v1/shops/blomster/webhooks/" + w.ID
		first := get[secrets](t, h, "GET", at+"/secret", "")
		r.answer("/hook", answer{code: 500}, answer{})
		for i, body := range []string{
			`{"type":"order.created","data":` + payload + `}`,
			`{"type":"order.created","data":"æ – 日本"}`,
		} {
			h.publish(t, "blomster", body)
			r.await(t, "/hook", i+2) // the first is tried again
		}
		publishAt(t, h, "?type=label.printed", "\xff\xfe\x00", "Content-Type", "image/png")
		for i, in := range r.await(t, "/hook", 4) {
			if err := verified(t, in, first.Secret); err != nil {
				t.Errorf("request %d: got %v, want it verified", i+1, err)
			}
			in.body = append(in.body, ' ')
			if verified(t, in, first.Secret) == nil {
				t.Errorf("request %d: one more blank in the body is not noticed", i+1)
			}
		}

		second := get[secrets](t, h, "POST", at+":rotate_secret", "{}")
		if second.Secret == first.Secret || len(second.Old) != 1 || second.Old[0].Secret != first.Secret {
			t.Fatalf("rotate_secret: got %+v, want a new secret beside the old %s", second, first.Secret)
		}
		if now := get[secrets](t, h, "GET", at+"/secret", ""); fmt.Sprint(now) != fmt.Sprint(second) {
			t.Errorf("GET secret after rotating: got %+v, want %+v", now, second)
		}
		h.publish(t, "blomster", `{"type":"order.paid","data":{"total": 549.50}}`)
		in := r.await(t, "/hook", 5)[4]
		for name, secret := range map[string]string{"old": first.Secret, "new": second.Secret} {
			if err := verified(t, in, secret); err != nil {
				t.Errorf("with the %s secret after rotating: got %v, want it verified", name, err)
			}
		}

		third := get[secrets](t, h, "POST", at+":rotate_secret", `{"overlap": "0s"}`)
		h.publish(t, "blomster", `{"type":"order.paid","data":{"total": 549.50}}`)
		in = r.await(t, "/hook", 6)[5]
		if err := verified(t, in, third.Secret); err != nil {
			t.Errorf("with the newest secret: got %v, want it verified", err)
		}
		for _, old := range []string{first.Secret, second.Secret} {
			if verified(t, in, old) == nil {
				t.Errorf("an old secret signs on after a rotation without overlap")
			}
		}
	})
}

// verifiedByKey says whether a request has a signature of a public key, as the specification's text has it: behind "v1a,"
// the base64 of Ed25519 over the id, the timestamp and the body, with full stops between them.
func verifiedByKey(t *testing.T, in *received, public string) bool {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(public, "whpk_"))
	if err != nil || len(key) != ed25519.PublicKeySize || !strings.HasPrefix(public, "whpk_") {
		t.Fatalf("the public key %q is none: %v", public, err)
	}
	signed := slices.Concat([]byte(in.header.Get("webhook-id")+"."+in.header.Get("webhook-timestamp")+"."), in.body)
	for one := range strings.FieldsSeq(in.header.Get("webhook-signature")) {
		text, ok := strings.CutPrefix(one, "v1a,")
		got, err := base64.StdEncoding.DecodeString(text)
		if ok && err == nil && ed25519.Verify(key, signed, got) {
			return true
		}
	}
	return false
}

// wantSigned checks which secrets verify a request by the library, and which public keys, and that no others do.
func wantSigned(t *testing.T, what string, in *received, all []secrets, bySecret, byKey []int) {
	t.Helper()
	for i, s := range all {
		if err := verified(t, in, s.Secret); (err == nil) != slices.Contains(bySecret, i) {
			t.Errorf("%s: by secret %d: %v, want those of %v to verify it", what, i, err, bySecret)
		}
		if got := verifiedByKey(t, in, s.PublicKey); got != slices.Contains(byKey, i) {
			t.Errorf("%s: by public key %d: %v, want those of %v to verify it", what, i, got, byKey)
		}
	}
}

// A shop moves its receiver from one scheme to another, and from one secret to the next, with no request in between that
// the receiver could not verify.
func TestSignature_OfSeveralSchemesAndSecretsAtOnce(t *testing.T) {
	h := across.enter(t)
	s, r := h.newShop(t, "shoporama"), newReceiver(t)
	w := s.webhook(t, r.url+"/hook", `"events": ["paid"]`, policy("0.2s"))
	at := s.at + "/webhooks/" + w.ID
	sent := 0
	next := func() *received {
		t.Helper()
		s.publishOne(t, "paid", `{"name":"Søren Ærø","total":549.50}`)
		sent++
		return r.await(t, "/hook", sent)[sent-1]
	}
	first := get[secrets](t, h, "GET", at+"/secret", "")
	all := []secrets{first}
	in := next()
	wantHexSignature(t, in, first.Secret)
	if got := in.header.Get("webhook-signature"); got != "" {
		t.Errorf("before it is asked for there is webhook-signature %q", got)
	}

	get[struct{}](t, h, "PATCH", at, `{"signatures": ["hmac-sha256-hex", "standard-webhooks", "standard-webhooks-ed25519"]}`)
	in = next()
	wantHexSignature(t, in, first.Secret)
	wantSigned(t, "three schemes", in, all, []int{0}, []int{0})
	if got := strings.Fields(in.header.Get("webhook-signature")); len(got) != 2 || !strings.HasPrefix(got[0], "v1,") || !strings.HasPrefix(got[1], "v1a,") {
		t.Errorf("webhook-signature: %q, want v1 and v1a", got)
	}

	// What was attempted before the rotation, and is tried again after it, is signed with both as well.
	rotated := make(chan struct{})
	r.answer("/hook", answer{code: 500, until: rotated}, answer{})
	in = next()
	wantSigned(t, "before the rotation", in, all, []int{0}, []int{0})
	second := get[secrets](t, h, "POST", at+":rotate_secret", `{"overlap": "3600s"}`)
	if second.PublicKey == first.PublicKey || len(second.Old) != 1 || second.Old[0].PublicKey != first.PublicKey {
		t.Fatalf("rotate_secret: got %+v, want a new key beside %s", second, first.PublicKey)
	}
	close(rotated)
	all = append(all, second)
	sent++
	in = r.await(t, "/hook", sent)[sent-1]
	wantHexSignature(t, in, first.Secret)
	wantSigned(t, "tried again within the overlap", in, all, []int{0, 1}, []int{0, 1})

	// The overlap ends when the owner says so, also for what has waited.
	rotated = make(chan struct{})
	r.answer("/hook", answer{code: 500, until: rotated}, answer{})
	wantSigned(t, "within the overlap", next(), all, []int{0, 1}, []int{0, 1})
	ended := get[secrets](t, h, "POST", at+":rotate_secret", fmt.Sprintf(`{"secret": %q, "overlap": "0s"}`, second.Secret))
	if ended.PublicKey != second.PublicKey || len(ended.Old) > 0 {
		t.Fatalf("rotate_secret with the same secret: got %+v, want its key to stay %s", ended, second.PublicKey)
	}
	close(rotated)
	sent++
	in = r.await(t, "/hook", sent)[sent-1]
	wantHexSignature(t, in, second.Secret)
	wantSigned(t, "tried again after the overlap", in, all, []int{1}, []int{1})

	// Once the receiver verifies by the public key the others go, and come back as the profile has them.
	get[struct{}](t, h, "PATCH", at, `{"signatures": ["standard-webhooks-ed25519"]}`)
	in = next()
	wantSigned(t, "the key alone", in, all, nil, []int{1})
	if got := in.header.Get("X-Webhook-Signature"); got != "" {
		t.Errorf("the profile's own scheme goes on: %q", got)
	}
	if got := get[struct{ Signatures []string }](t, h, "PATCH", at, `{"signatures": []}`); fmt.Sprint(got.Signatures) != "[hmac-sha256-hex]" {
		t.Errorf("without schemes of its own it shows %q, want the profile's", got.Signatures)
	}
	in = next()
	wantHexSignature(t, in, second.Secret)
	if got := in.header.Get("webhook-signature"); got != "" {
		t.Errorf("after all there is webhook-signature %q", got)
	}
}

func TestSecret_IsInNoOtherAnswerAndInNoLog(t *testing.T) {
	inBothWays(t, settings{"SHOPBELL_LOG_LEVEL": "debug"}, func(t *testing.T, h *house) {
		r := newReceiver(t)
		const given = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cywgbm9ib2R5IGVsc2U="
		w := h.newWebhook(t, "blomster", r.url+"/hook", `"secret": "`+given+`", "headers": {"Authorization": "Bearer of-the-receiver"}`)
		id := h.publish(t, "blomster", `{"type":"order.created","data":{}}`)[0].ID
		in := r.await(t, "/hook", 1)[0]
		if err := verified(t, in, given); err != nil {
			t.Errorf("with the given secret: got %v, want it verified", err)
		}
		if got := in.header.Get("Authorization"); got != "Bearer of-the-receiver" {
			t.Errorf("the webhook's own header: got %q, want it sent", got)
		}
		h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		at := "/v1/shops/blomster/webhooks/"
		answers := map[string]reply{}
		for _, path := range []string{at, at + w.ID, "/v1/shops/blomster/events/" + id, "/v1/shops/blomster/deliveries", "/v1/shops/blomster/deliveries/" + in.id()} {
			answers["GET "+path] = h.call(t, "GET", path, "")
		}
		answers["PATCH"] = h.call(t, "PATCH", at+w.ID, `{"label": "Warehouse"}`)
		answers[":test"] = h.call(t, "POST", at+w.ID+":test", `{}`)
		answers[":disable"] = h.call(t, "POST", at+w.ID+":disable", `{}`)
		for name, a := range answers {
			if contains(a.body, given[6:30]) {
				t.Errorf("%s shows the secret: %s", name, a.body)
			}
			if contains(a.body, "of-the-receiver") && name != "GET "+at && name != "GET "+at+w.ID && name[0] == 'G' {
				t.Errorf("%s shows the receiver's key: %s", name, a.body)
			}
		}
		for _, p := range h.processes {
			for _, hidden := range []string{given[6:30], "of-the-receiver"} {
				if p.name != busServer && contains([]byte(p.tail(100_000)), hidden) {
					t.Errorf("%s writes %q into its log", p.name, hidden)
				}
			}
		}
	})
}
