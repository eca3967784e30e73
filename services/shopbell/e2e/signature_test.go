package e2e

import (
	"fmt"
	"testing"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type secrets struct {
	Secret string
	Old    []struct{ Secret string }
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
