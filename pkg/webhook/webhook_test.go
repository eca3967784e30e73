package webhook_test

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

var now = time.Date(2026, 5, 1, 8, 30, 0, 0, time.UTC)

func TestWebhook_SignsWithTheSecretsOfItsTime(t *testing.T) {
	s := state("demo", "wh_1", "paid")
	s.Secrets = []*busv1.Secret{
		{Value: "newest-secret-of-all"},
		{Value: "replaced-secret-number-2", ExpiresAt: timestamppb.New(now.Add(time.Hour))},
		{Value: "replaced-secret-number-1", ExpiresAt: timestamppb.New(now)},
	}
	w := webhook.New(s, 1, profiles(t))
	if w.Broken != "" {
		t.Fatal(w.Broken)
	}
	for at, want := range map[time.Time]int{now.Add(-time.Second): 3, now: 2, now.Add(time.Hour - 1): 2, now.Add(time.Hour): 1, now.AddDate(10, 0, 0): 1} {
		if got := w.Signing(at); len(got) != want {
			t.Errorf("at %s %d secrets sign, want %d", at, len(got), want)
		}
	}
}

func TestWebhook_SignsWithThePrivateKeysOfItsTimeWhereASchemeDoes(t *testing.T) {
	s := state("demo", "wh_1", "paid")
	s.Secrets = []*busv1.Secret{
		{Value: "newest-secret-of-all", PrivateKey: signature.NewPrivateKey()},
		{Value: "replaced-secret-number-2", PrivateKey: signature.NewPrivateKey(), ExpiresAt: timestamppb.New(now.Add(time.Hour))},
		{Value: "from-before-there-were-keys", ExpiresAt: timestamppb.New(now.Add(time.Hour))},
	}
	if w := webhook.New(s, 1, profiles(t)); len(w.PrivateKeys(now)) != 0 || len(w.Signing(now)) != 3 {
		t.Errorf("no scheme signs with private keys, and %d do", len(w.PrivateKeys(now)))
	}
	s.Webhook.Signatures = []string{"standard-webhooks-ed25519", "standard-webhooks"}
	w := webhook.New(s, 1, profiles(t))
	if w.Broken != "" {
		t.Fatal(w.Broken)
	}
	for at, want := range map[time.Time]int{now: 2, now.Add(time.Hour): 1} {
		keys := w.PrivateKeys(at)
		if len(keys) != want {
			t.Fatalf("at %s %d private keys sign, want %d", at, len(keys), want)
		}
		if newest, err := signature.ParsePrivateKey(s.Secrets[0].PrivateKey); err != nil || keys[0].Public() != newest.Public() {
			t.Errorf("at %s %s signs first, want the newest (%v)", at, keys[0].Public(), err)
		}
	}
	s.Secrets[0].PrivateKey = s.Secrets[0].PrivateKey[1:]
	if w := webhook.New(s, 1, profiles(t)); !strings.Contains(w.Broken, "private key") {
		t.Errorf("a private key that is cut: %q, want it said", w.Broken)
	}
}

func TestWebhook_WarnsItsOwner(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*busv1.WebhookState)
		want   []string // parts of the warnings
	}{
		{"https", func(*busv1.WebhookState) {}, nil},
		{"http (SHOPS.md A8)", func(s *busv1.WebhookState) { s.Webhook.Url = "http://example.com/https:" }, []string{"use https"}},
		{"http in capitals", func(s *busv1.WebhookState) { s.Webhook.Url = "HTTP://example.com" }, []string{"use https"}},
		{"a scheme without its key", func(s *busv1.WebhookState) { s.Webhook.Signatures = []string{"standard-webhooks-ed25519"} }, []string{"rotate its secret"}},
		{"a scheme with its key", func(s *busv1.WebhookState) {
			s.Webhook.Signatures, s.Secrets[0].PrivateKey = []string{"standard-webhooks-ed25519"}, signature.NewPrivateKey()
		}, nil},
		{"rules that cannot be worked out", func(s *busv1.WebhookState) { s.Webhook.Profile, s.Webhook.Url = "x", "http://example.com" }, []string{"use https"}},
		{"warnings that were stored", func(s *busv1.WebhookState) { s.Webhook.Warnings = []string{"old"} }, nil},
	} {
		s := state("demo", "wh_1", "paid")
		row.change(s)
		got := webhook.New(s, 1, profiles(t)).Proto().Warnings
		if len(got) != len(row.want) || len(got) > 0 && !strings.Contains(got[0], row.want[0]) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestWebhook_SharesItsRulesWithThoseThatAskForTheSame(t *testing.T) {
	set, own := profiles(t), func(s *busv1.WebhookState) {
		s.Webhook.Policy, s.Webhook.Filter = &shopbellv1.Policy{MaxInFlight: proto.Int32(3)}, proto.String("data.total > 1.0")
	}
	with := func(set *profile.Set, change func(*busv1.WebhookState)) *webhook.Webhook {
		s := state("demo", "wh_1", "paid")
		change(s)
		return webhook.New(s, 1, set)
	}
	plain, some := with(set, func(*busv1.WebhookState) {}), with(set, own)
	for _, row := range []struct {
		name   string
		w      *webhook.Webhook
		shares *webhook.Webhook // nil: it has rules of its own
	}{
		{"another address, label, header, secret, event and status", with(set, func(s *busv1.WebhookState) {
			s.Webhook.Url, s.Webhook.Label, s.Webhook.Headers = "https://example.org", proto.String("x"), map[string]string{"X-A": "b"}
			s.Webhook.Events, s.Webhook.Status, s.Secrets[0].Value = []string{"*"}, webhook.Disabled, signature.NewSecret()
		}), plain},
		{"the same policy and filter", with(set, own), some},
		{"another policy", with(set, func(s *busv1.WebhookState) { own(s); s.Webhook.Policy.MaxInFlight = proto.Int32(4) }), nil},
		{"another filter", with(set, func(s *busv1.WebhookState) { own(s); s.Webhook.Filter = proto.String("data.total > 2.0") }), nil},
		{"another environment", with(set, func(s *busv1.WebhookState) { s.Webhook.Environment = proto.String("live") }), nil},
		{"another profile", with(set, func(s *busv1.WebhookState) { s.Webhook.Profile = "own" }), nil},
		{"a profile of the same name in another set", with(profiles(t), func(*busv1.WebhookState) {}), nil},
		{"rules that cannot be worked out", with(set, func(s *busv1.WebhookState) { s.Webhook.Filter = proto.String("data.") }), nil},
	} {
		for _, other := range []*webhook.Webhook{plain, some} {
			if shares := row.w.Rules == other.Rules; shares != (row.shares == other) {
				t.Errorf("%s: it shares its rules: %v, want %v", row.name, shares, !shares)
			}
		}
	}
	runtime.KeepAlive(plain)
	runtime.KeepAlive(some)
}

func TestWebhook_KeepsItsWholeState(t *testing.T) {
	s := state("demo", "wh_1", "paid", "refunded")
	s.Webhook.Label, s.Webhook.Headers = proto.String("paid"), map[string]string{"X-Env": "prod", "Authorization": "Bearer demo"}
	s.Webhook.ApiKeyId, s.ApiKey = proto.String("key_default"), "sbk_text"
	s.Webhook.DisabledReason, s.OffByReceiver, s.Recovered = proto.String("it answered 410"), true, &busv1.Recovered{Was: "off"}
	w := webhook.New(s, 1, profiles(t))
	if diff := cmp.Diff(s, w.State(), protocmp.Transform()); diff != "" {
		t.Errorf("its state (-want +got):\n%s", diff)
	}
	header, key := w.APIKey()
	got := []any{w.ID, w.ShopID, w.Label, w.URL, w.Events, w.Status, w.DisabledReason, w.OffByReceiver, w.OwnHeaders, w.APIKeyID, header, key}
	want := []any{
		"wh_1", "demo", "paid", "https://example.com/hooks",
		[]string{"paid", "refunded"},
		webhook.Enabled, "it answered 410", true,
		map[string]string{"X-Env": "prod", "Authorization": "Bearer demo"},
		"key_default", "X-Api-Key", "sbk_text",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("its parts (-want +got):\n%s", diff)
	}
	if w.State().Webhook.Url = "changed"; w.State().Webhook.Url != w.URL {
		t.Error("who changes a state that was given out changes the webhook")
	}
}

func TestWebhook_ShowsItsRulesAndNoSecret(t *testing.T) {
	s := state("demo", "wh_1", "paid")
	s.Webhook.Profile, s.Webhook.Policy = "own", &shopbellv1.Policy{Timeout: durationpb.New(7 * time.Second)}
	s.Webhook.Secret, s.Webhook.Signatures = proto.String("whsec_left-over-in-the-state"), []string{"hmac-sha256-hex"}
	s.Secrets[0].Value = "the-secret-that-signs"
	w := webhook.New(s, 0x2a, profiles(t))
	got := w.Proto()
	text := got.String()
	if strings.Contains(text, "whsec_") || strings.Contains(text, "the-secret-that-signs") || got.Secret != nil {
		t.Errorf("a secret is shown: %s", text)
	}
	if want := []string{"hmac-sha256-hex"}; !slices.Equal(got.Signatures, want) {
		t.Errorf("signatures %q, want those that it asks for", got.Signatures)
	}
	if got := webhook.New(state("demo", "wh_1", "paid"), 1, profiles(t)).Proto().Signatures; !slices.Equal(got, []string{"standard-webhooks"}) {
		t.Errorf("signatures %q, want the profile's", got)
	}
	if got.Etag != "2a" {
		t.Errorf("etag %q, want 2a", got.Etag)
	}
	if p := got.Policy; p.Timeout.AsDuration() != 7*time.Second || len(p.RetrySchedule) != 2 || p.GetMaxAttempts() != 3 || !slices.Equal(p.SuccessCodes, []string{"2xx"}) {
		t.Errorf("policy %v, want its own timeout and the rest of the profile's", p)
	}
	if got.Policy.Timeout = nil; s.Webhook.Policy.Timeout == nil || s.Webhook.Policy.RetrySchedule != nil {
		t.Error("what is shown shares its rules with the state")
	}
}

func TestWebhook_SaysWhyNothingIsSentToIt(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*busv1.WebhookState)
		want   string
	}{
		{"it is on", func(*busv1.WebhookState) {}, ""},
		{"it is off", func(s *busv1.WebhookState) {
			s.Webhook.Status, s.Webhook.DisabledReason = webhook.Disabled, proto.String("switched off by its owner")
		}, "switched off by its owner"},
		{"its rules are broken", func(s *busv1.WebhookState) { s.Webhook.Profile = "x" }, "its rules cannot be worked out: profile: there is no profile"},
	} {
		s := state("demo", "wh_1", "paid")
		row.change(s)
		if got := webhook.New(s, 1, profiles(t)).Off(); !strings.HasPrefix(got, row.want) || row.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestDelay_IsReadInItsUnit(t *testing.T) {
	for _, row := range []struct {
		name  string
		value int32
		unit  string
		want  time.Duration
		field string // that is refused
	}{
		{"a second", 1, "second", time.Second, ""},
		{"minutes", 90, "minute", 90 * time.Minute, ""},
		{"hours", 36, "hour", 36 * time.Hour, ""},
		{"ten days (SHOPS.md S1)", 10, "day", 240 * time.Hour, ""},
		{"the longest in days", 366, "day", 366 * 24 * time.Hour, ""},
		{"the longest in seconds", 366 * 24 * 3600, "second", 366 * 24 * time.Hour, ""},
		{"too many days", 367, "day", 0, "delay.value"},
		{"a second too much", 366*24*3600 + 1, "second", 0, "delay.value"},
		{"the most that fits the field", 1<<31 - 1, "day", 0, "delay.value"},
		{"nothing", 0, "day", 0, "delay.value"},
		{"backwards", -1, "hour", 0, "delay.value"},
		{"a plural", 2, "days", 0, "delay.unit"},
		{"no unit", 2, "", 0, "delay.unit"},
		{"another unit", 2, "week", 0, "delay.unit"},
	} {
		got, err := webhook.Delay(&shopbellv1.Delay{Value: row.value, Unit: row.unit})
		var f *fault.Fault
		if row.field != "" && (!errors.As(err, &f) || f.Fields[0].Field != row.field) || row.field == "" && err != nil || got != row.want {
			t.Errorf("%s: %s, %v, want %s, error on %q", row.name, got, err, row.want, row.field)
		}
	}
	if got, err := webhook.Delay(nil); got != 0 || err != nil {
		t.Errorf("no delay: %s, %v", got, err)
	}
}

func TestHost_IsWhatAURLNames(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://one.example/in/1?a=b": "https://one.example", "http://one.example:8080": "http://one.example:8080",
		"https://one.example?a=/": "https://one.example", "https://[2606:4700::1]:8443/": "https://[2606:4700::1]:8443",
	} {
		if got := webhook.Host(url); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
}
