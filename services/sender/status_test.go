package sender

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/profile"
)

// promised is what a preset's documents promise of answers, in our words and not in the preset's.
type promised struct {
	success func(code int) bool
	off     []int           // codes that switch the webhook off, at the first answer
	waits   []time.Duration // before the second attempt, the third and so on
	exact   bool            // the waits are exact; otherwise up to a tenth more
}

func any2xx(code int) bool  { return code >= 200 && code <= 299 }
func only200(code int) bool { return code == 200 }

// byStandardWebhooks holds for the presets whose documents leave it open: SHOPS.md B7 and D10.
var byStandardWebhooks = promised{
	success: any2xx, off: []int{410},
	waits: []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	},
}

var promises = map[string]promised{
	"shoporama": {success: any2xx}, // S1.23, S1.24
	"cloudcart": { // S3.8, S3.13, S3.14, S3.17, C4
		success: only200, off: []int{400, 401, 403, 404, 405, 406, 410, 411}, exact: true,
		waits: []time.Duration{time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute, 5 * time.Minute},
	},
	"shoprocket": byStandardWebhooks, "shoprenter": byStandardWebhooks, "standard": byStandardWebhooks, "cloudevents": byStandardWebhooks,
}

// follows says what is promised to follow from an attempt of this number; a code of 0 is no answer.
func (p promised) follows(code, attempt int, byHand bool, random float64) string {
	switch {
	case code > 0 && p.success(code):
		return "delivered"
	case slices.Contains(p.off, code) && byHand:
		return "failed, off"
	case slices.Contains(p.off, code):
		return "held, off"
	case byHand || attempt > len(p.waits):
		return "failed"
	}
	wait := p.waits[attempt-1]
	if !p.exact {
		wait += time.Duration(random * 0.1 * float64(wait))
	}
	return "retrying in " + wait.String()
}

// followed is the same of a verdict.
func followed(v verdict) string {
	text := v.status
	if v.wait > 0 {
		text += " in " + v.wait.String()
	}
	if v.off {
		text += ", off"
	}
	if v.phrase != "" {
		text += ", deleted"
	}
	return text
}

func presetPolicies(t *testing.T) map[string]profile.Policy {
	t.Helper()
	set, err := profile.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]profile.Policy{}
	for _, name := range set.Names() {
		p, err := set.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = p.Policy
		if _, ok := promises[name]; !ok {
			t.Errorf("nothing is written down of what preset %s promises", name)
		}
	}
	return out
}

// Every answer that HTTP has, on every attempt of every preset.
func TestDecide_EveryStatusByEveryPreset(t *testing.T) {
	t.Parallel()
	for name, policy := range presetPolicies(t) {
		p := promises[name]
		for code := 100; code <= 599; code++ {
			for attempt := 1; attempt <= len(p.waits)+2; attempt++ {
				for _, byHand := range []bool{false, true} {
					for _, random := range []float64{0, 1} {
						got := followed(decide(policy, attempt, byHand, &exchange{code: code, body: []byte("what it says")}, random))
						if want := p.follows(code, attempt, byHand, random); got != want {
							t.Fatalf("%s: %d to attempt %d (by hand: %v, jitter of %v): %s, want %s", name, code, attempt, byHand, random, got, want)
						}
					}
				}
			}
		}
	}
}

// The phrase deletes under one preset, whatever the code, and means nothing under the others (S3.20, S3.21, C3).
func TestDecide_ThePhraseByEveryPreset(t *testing.T) {
	t.Parallel()
	for name, policy := range presetPolicies(t) {
		p := promises[name]
		for code := 100; code <= 599; code++ {
			want := p.follows(code, 1, false, 0)
			switch {
			case name == "cloudcart" && code == 200:
				want = "delivered, deleted"
			case name == "cloudcart":
				want = "failed, deleted"
			}
			if got := followed(decide(policy, 1, false, &exchange{code: code, body: []byte("<p>PLEASE unsubscribe me</p>")}, 0)); got != want {
				t.Fatalf("%s: the phrase with %d: %s, want %s", name, code, got, want)
			}
		}
	}
}

// failures are the ways in which no answer comes, and what its owner is told of each.
var failures = []struct {
	name, class string
	body        int // bytes that are sent; 0: a few
	target      func(t *testing.T) (string, *x509.Certificate)
}{
	{"nothing listens", "connect", 0, func(t *testing.T) (string, *x509.Certificate) { return "http://" + closedPort(t), nil }},
	{"no such host", "dns", 0, func(*testing.T) (string, *x509.Certificate) { return "http://no-such-host.invalid/", nil }},
	{"an address that is not public", "blocked_address", 0, func(t *testing.T) (string, *x509.Certificate) { return "http://" + receiver(t, hangs), nil }},
	{"hung up without an answer", "connect", 0, func(t *testing.T) (string, *x509.Certificate) { return "http://" + receiver(t, closes("")), nil }},
	{"hung up while the request is sent", "connect", 4 << 20, func(t *testing.T) (string, *x509.Certificate) {
		return "http://" + receiver(t, func(conn net.Conn) { _ = conn.Close() }), nil
	}},
	{"reset", "connect", 0, func(t *testing.T) (string, *x509.Certificate) {
		return "http://" + receiver(t, func(conn net.Conn) {
			reads("")(conn)
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}), nil
	}},
	{"hung up in the headers", "connect", 0, func(t *testing.T) (string, *x509.Certificate) {
		return "http://" + receiver(t, closes("HTTP/1.1 200 OK\r\nX: ")), nil
	}},
	{"a certificate for another host", "tls", 0, func(t *testing.T) (string, *x509.Certificate) {
		s := handler(t, true, func(http.ResponseWriter, *http.Request) {})
		return strings.Replace(s.URL, "127.0.0.1", "localhost", 1), s.Certificate()
	}},
	{"a certificate that nobody trusts", "tls", 0, func(t *testing.T) (string, *x509.Certificate) {
		return handler(t, true, func(http.ResponseWriter, *http.Request) {}).URL, nil
	}},
	{"an old TLS", "tls", 0, func(t *testing.T) (string, *x509.Certificate) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL, s.Certificate()
	}},
	{"no TLS", "tls", 0, func(t *testing.T) (string, *x509.Certificate) {
		return "https://" + receiver(t, closes("SSH-2.0-OpenSSH_9.9\r\n")), nil
	}},
	{"the handshake hangs", "timeout", 0, func(t *testing.T) (string, *x509.Certificate) { return "https://" + receiver(t, hangs), nil }},
	{"the answer does not come", "timeout", 0, func(t *testing.T) (string, *x509.Certificate) { return "http://" + receiver(t, hangs), nil }},
	{"the request is not read", "timeout", 32 << 20, func(t *testing.T) (string, *x509.Certificate) { return "http://" + receiver(t, hangs), nil }},
	{"the headers do not end", "timeout", 0, func(t *testing.T) (string, *x509.Certificate) {
		return "http://" + receiver(t, reads("HTTP/1.1 200 OK\r\nX: ")), nil
	}},
	{"a flood of headers", "body_too_large", 0, func(t *testing.T) (string, *x509.Certificate) {
		return handler(t, false, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 200<<10)) }).URL, nil
	}},
	{"no HTTP", "protocol", 0, func(t *testing.T) (string, *x509.Certificate) {
		return "http://" + receiver(t, closes("220 mail.example.com ESMTP\r\n")), nil
	}},
	{"a length that is none", "protocol", 0, func(t *testing.T) (string, *x509.Certificate) {
		return "http://" + receiver(t, closes("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n")), nil
	}},
}

// Real exchanges that fail in every way, each under the rules of every preset: a failure like any other, which never
// switches a webhook off (S3.11, S3.18).
func TestExchange_EveryFailureByEveryPreset(t *testing.T) {
	t.Parallel()
	for name, policy := range presetPolicies(t) {
		for _, failure := range failures {
			t.Run(name+"/"+failure.name, func(t *testing.T) {
				t.Parallel()
				target, trust := failure.target(t)
				timeout := policy.Timeout
				if failure.class == "timeout" {
					timeout = 100 * time.Millisecond
				}
				body := []byte(`{"n":1}`)
				if failure.body > 0 {
					body = make([]byte, failure.body)
				}
				guard := address.NewGuard(address.Private...)
				if failure.class == "blocked_address" {
					guard = address.NewGuard()
				}
				x := post(t, guard, trust, target, body, timeout, 1<<10)
				if x.class != failure.class || x.code != 0 || x.problem == "" {
					t.Fatalf("%s: %s, code %d, want %s and no code", x.class, x.problem, x.code, failure.class)
				}
				p := promises[name]
				for attempt := 1; attempt <= len(p.waits)+2; attempt++ {
					if got, want := followed(decide(policy, attempt, false, x, 0)), p.follows(0, attempt, false, 0); got != want {
						t.Errorf("attempt %d: %s, want %s", attempt, got, want)
					}
				}
			})
		}
	}
}

// An answer whose code has come in time counts by its code, also when its body is cut (C5).
func TestExchange_ACutBodyCountsByItsCode(t *testing.T) {
	t.Parallel()
	policies := presetPolicies(t)
	for _, code := range []int{200, 204, 301, 410, 500} {
		for how, answer := range map[string]func(string) func(net.Conn){"breaks off": closes, "does not end": reads} {
			t.Run(fmt.Sprintf("%d %s", code, how), func(t *testing.T) {
				t.Parallel()
				target := "http://" + receiver(t, answer(fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 100\r\n\r\nhalf", code)))
				x := post(t, address.NewGuard(address.Private...), nil, target, []byte("{}"), time.Second, 1<<10)
				if x.code != code || x.class != "" {
					t.Fatalf("%d, %s: %s, want %d", x.code, x.class, x.problem, code)
				}
				if code != http.StatusNoContent && (!x.cut || string(x.body) != "half") {
					t.Errorf("body %q, cut: %v, want a half that is marked", x.body, x.cut)
				}
				for name, policy := range policies {
					if got, want := followed(decide(policy, 1, false, x, 0)), promises[name].follows(code, 1, false, 0); got != want {
						t.Errorf("%s: %s, want %s", name, got, want)
					}
				}
			})
		}
	}
}

// Real answers with every code that ends an exchange; those below 200 do not, but 101.
func TestExchange_EveryStatusIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		var code int
		_, _ = fmt.Sscan(r.URL.Query().Get("code"), &code)
		w.WriteHeader(code)
	}))
	t.Cleanup(s.Close)
	client := clientWith(t, address.NewGuard(address.Private...), Config{}, nil)
	for code := 200; code <= 599; code++ {
		x := do(t.Context(), client, fmt.Sprintf("%s/?code=%d", s.URL, code), http.Header{}, []byte("{}"), 10*time.Second, 1<<10)
		if x.code != code || x.class != "" {
			t.Errorf("%d is taken as %d, %s: %s", code, x.code, x.class, x.problem)
		}
	}
}
