package sender

import (
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/profile"
)

// rules are three attempts, 10s and 60s apart.
func rules(change func(*profile.Policy)) profile.Policy {
	p := profile.Policy{
		Timeout: 5 * time.Second, RetrySchedule: []time.Duration{10 * time.Second, time.Minute}, SuccessCodes: []string{"2xx"},
		DisableCodes: []int32{410}, HonorRetryAfter: true,
	}
	if change != nil {
		change(&p)
	}
	return p
}

func TestDecide_SaysWhatFollows(t *testing.T) {
	answered := func(code int) *exchange { return &exchange{code: code} }
	for _, row := range []struct {
		name    string
		change  func(*profile.Policy)
		attempt int
		byHand  bool
		x       *exchange
		random  float64
		want    verdict // its reason is a part of the reason
	}{
		{"a success", nil, 1, false, answered(200), 0, verdict{status: delivered}},
		{"another success", nil, 1, false, answered(299), 0, verdict{status: delivered}},
		{"a success on the last attempt", nil, 3, false, answered(204), 0, verdict{status: delivered}},
		{"a success by hand", nil, 7, true, answered(200), 0, verdict{status: delivered}},
		{"only 200 counts", func(p *profile.Policy) { p.SuccessCodes = []string{"200"} }, 1, false, answered(204), 0, verdict{status: retrying, wait: 10 * time.Second}},
		{"a redirect is no success", nil, 1, false, answered(302), 0, verdict{status: retrying, wait: 10 * time.Second}},
		{"a failure", nil, 1, false, answered(500), 0, verdict{status: retrying, wait: 10 * time.Second}},
		{"a second failure", nil, 2, false, answered(404), 0, verdict{status: retrying, wait: time.Minute}},
		{"the last failure", nil, 3, false, answered(500), 0, verdict{status: failed, reason: "given up after 3 attempts"}},
		{"a failure behind the last", nil, 9, false, answered(500), 0, verdict{status: failed, reason: "given up after 9 attempts"}},
		{"the only attempt", func(p *profile.Policy) { p.MaxAttempts = 1 }, 1, false, answered(500), 0, verdict{status: failed, reason: "the only attempt"}},
		{"no answer", nil, 1, false, &exchange{class: "timeout"}, 0, verdict{status: retrying, wait: 10 * time.Second}},
		{"no answer on the last attempt", nil, 3, false, &exchange{class: "dns"}, 0, verdict{status: failed, reason: "given up after 3 attempts"}},
		{"a good code that came too late", nil, 1, false, &exchange{code: 200, class: "timeout"}, 0, verdict{status: retrying, wait: 10 * time.Second}},
		{"jitter", func(p *profile.Policy) { p.Jitter = true }, 1, false, answered(500), 1, verdict{status: retrying, wait: 11 * time.Second}},
		{"the receiver asks for time", nil, 1, false, &exchange{code: 429, retryAfter: time.Hour}, 0, verdict{status: retrying, wait: time.Hour}},
		{"a failure by hand", nil, 1, true, answered(500), 0, verdict{status: failed, reason: "by hand failed"}},
		{"no answer by hand", nil, 1, true, &exchange{class: "connect"}, 0, verdict{status: failed, reason: "by hand failed"}},
		{"the receiver switches off", nil, 1, false, answered(410), 0, verdict{status: held, off: true, reason: "answered 410, which switches the webhook off; it is kept"}},
		{"the receiver switches off on the last attempt", nil, 3, false, answered(410), 0, verdict{status: held, off: true, reason: "it is kept"}},
		{"the receiver switches off by hand", nil, 1, true, answered(410), 0, verdict{status: failed, off: true, reason: "switches the webhook off"}},
		{"it would switch off, but not yet", func(p *profile.Policy) { p.DisableAfter = profile.LastAttempt }, 1, false, answered(410), 0, verdict{status: retrying, wait: 10 * time.Second}},
		{"it switches off with the last attempt", func(p *profile.Policy) { p.DisableAfter = profile.LastAttempt }, 3, false, answered(410), 0, verdict{status: held, off: true, reason: "it is kept"}},
		{"nothing switches off", func(p *profile.Policy) { p.DisableCodes = nil }, 1, false, answered(410), 0, verdict{status: retrying, wait: 10 * time.Second}},
		{"a phrase deletes", phrase, 1, false, &exchange{code: 500, body: []byte("<h1>Delete this webhook!")}, 0, verdict{status: failed, phrase: "delete this webhook", reason: `answered "delete this webhook", which deletes the webhook`}},
		{"a phrase deletes with a success", phrase, 1, false, &exchange{code: 200, body: []byte("ok, but delete this webhook")}, 0, verdict{status: delivered, phrase: "delete this webhook", reason: "which deletes the webhook"}},
		{"a phrase goes before a code", phrase, 1, false, &exchange{code: 410, body: []byte("delete this webhook")}, 0, verdict{status: failed, phrase: "delete this webhook", reason: "which deletes the webhook"}},
	} {
		got := decide(rules(row.change), row.attempt, row.byHand, row.x, row.random)
		reason := got.reason
		got.reason, row.want.reason = "", strings.TrimSpace(row.want.reason)
		want := row.want
		want.reason = ""
		if got != want || !strings.Contains(reason, row.want.reason) || row.want.reason == "" && reason != "" {
			t.Errorf("%s: %+v because %q, want %+v because %q", row.name, got, reason, want, row.want.reason)
		}
	}
}

func phrase(p *profile.Policy) { p.DeletePhrases = []string{"delete this webhook"} }

// Whatever the answer, a delivery ends: after the schedule it is not retried.
func FuzzDecide_Ends(f *testing.F) {
	f.Add(1, 500, "", int64(0), 0.5, false)
	f.Add(3, 410, "timeout", int64(time.Hour), 1.0, true)
	f.Fuzz(func(t *testing.T, attempt, code int, class string, retryAfter int64, random float64, byHand bool) {
		if attempt < 1 || random < 0 || random > 1 || retryAfter < 0 || code < 0 {
			t.Skip("no attempt has such numbers")
		}
		v := decide(rules(nil), attempt, byHand, &exchange{code: code, class: class, retryAfter: time.Duration(retryAfter)}, random)
		switch v.status {
		case retrying:
			if attempt >= 3 || byHand || v.wait < 10*time.Second || v.wait > 25*time.Hour {
				t.Errorf("attempt %d (by hand %v) is followed by another after %s", attempt, byHand, v.wait)
			}
		case delivered:
			if class != "" || code < 200 || code > 299 {
				t.Errorf("code %d with %q is delivered", code, class)
			}
		case failed, held:
		default:
			t.Errorf("status %q", v.status)
		}
	})
}

func TestParseRetryAfter_ReadsSecondsAndTimes(t *testing.T) {
	now := time.Date(2026, 5, 1, 8, 30, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                               0,
		"120":                            2 * time.Minute,
		"0":                              0,
		"-5":                             0,
		" 7 ":                            7 * time.Second,
		"1.5":                            0,
		"soon":                           0,
		"2147483647":                     1 << 30 * time.Second,
		"99999999999999999999":           0,
		"Fri, 01 May 2026 08:31:00 GMT":  time.Minute,
		"Friday, 01-May-26 08:31:00 GMT": time.Minute,
		"Fri May  1 08:31:00 2026":       time.Minute,
		"Fri, 01 May 2026 08:29:00 GMT":  0,
		"2026-05-01T08:31:00Z":           0,
	} {
		if got := parseRetryAfter(strings.TrimSpace(text), now); got != want {
			t.Errorf("parseRetryAfter(%q) = %s, want %s", text, got, want)
		}
	}
}
