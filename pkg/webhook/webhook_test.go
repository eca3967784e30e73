package webhook_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/fault"
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

func TestWebhook_ShowsItsRulesAndNoSecret(t *testing.T) {
	s := state("demo", "wh_1", "paid")
	s.Webhook.Profile, s.Webhook.Policy = "own", &shopbellv1.Policy{Timeout: durationpb.New(7 * time.Second)}
	s.Webhook.Secret = proto.String("whsec_left-over-in-the-state")
	s.Secrets[0].Value = "the-secret-that-signs"
	w := webhook.New(s, 0x2a, profiles(t))
	got := w.Proto()
	text := got.String()
	if strings.Contains(text, "whsec_") || strings.Contains(text, "the-secret-that-signs") || got.Secret != nil {
		t.Errorf("a secret is shown: %s", text)
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
