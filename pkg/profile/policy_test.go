package profile

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/fault"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func base() Policy {
	return Policy{
		Timeout: 15 * time.Second, RetrySchedule: []time.Duration{5 * time.Second, time.Minute, time.Hour}, Jitter: true,
		SuccessCodes: []string{"2xx"}, DisableCodes: []int32{410}, HonorRetryAfter: true,
	}
}

func spans(in ...time.Duration) []*durationpb.Duration { return durations(in) }

func TestPolicy_WithPutsTheOwnersRulesInPlace(t *testing.T) {
	for _, row := range []struct {
		name   string
		own    *shopbellv1.Policy
		change func(*Policy)
	}{
		{"no rules of his own", nil, func(*Policy) {}},
		{"none set", &shopbellv1.Policy{}, func(*Policy) {}},
		{"the timeout alone", &shopbellv1.Policy{Timeout: durationpb.New(time.Second)}, func(p *Policy) { p.Timeout = time.Second }},
		{"the schedule alone", &shopbellv1.Policy{RetrySchedule: spans(time.Second)}, func(p *Policy) { p.RetrySchedule = []time.Duration{time.Second} }},
		{"the attempts alone", &shopbellv1.Policy{MaxAttempts: proto.Int32(2)}, func(p *Policy) { p.MaxAttempts = 2 }},
		{"one attempt is no retry", &shopbellv1.Policy{MaxAttempts: proto.Int32(1)}, func(p *Policy) { p.MaxAttempts = 1 }},
		{"no jitter", &shopbellv1.Policy{Jitter: proto.Bool(false)}, func(p *Policy) { p.Jitter = false }},
		{"other successes", &shopbellv1.Policy{SuccessCodes: []string{"200", "3xx"}}, func(p *Policy) { p.SuccessCodes = []string{"200", "3xx"} }},
		{"other codes that disable", &shopbellv1.Policy{DisableCodes: []int32{404, 410}}, func(p *Policy) { p.DisableCodes = []int32{404, 410} }},
		{"no Retry-After", &shopbellv1.Policy{HonorRetryAfter: proto.Bool(false)}, func(p *Policy) { p.HonorRetryAfter = false }},
		{"disabled later", &shopbellv1.Policy{DisableAfter: proto.String(LastAttempt)}, func(p *Policy) { p.DisableAfter = LastAttempt }},
		{"phrases", &shopbellv1.Policy{DeletePhrases: []string{"delete this webhook"}}, func(p *Policy) { p.DeletePhrases = []string{"delete this webhook"} }},
	} {
		want := base()
		row.change(&want)
		got, err := base().With(row.own)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

// A preset's bound on attempts belongs to its schedule. With another schedule all of that one is used.
func TestPolicy_WithAnotherScheduleForgetsThePresetsAttempts(t *testing.T) {
	p := base()
	p.MaxAttempts = 2
	got, err := p.With(&shopbellv1.Policy{RetrySchedule: spans(time.Second, time.Second, time.Second, time.Second)})
	if err != nil || got.Attempts() != 5 {
		t.Errorf("%d attempts, %v, want 5", got.Attempts(), err)
	}
}

func TestPolicy_WithRefusesWhatCannotBe(t *testing.T) {
	many := make([]time.Duration, 51)
	for i := range many {
		many[i] = time.Second
	}
	for _, row := range []struct {
		name   string
		own    *shopbellv1.Policy
		fields []string
	}{
		{"no time at all", &shopbellv1.Policy{Timeout: durationpb.New(0)}, []string{"timeout"}},
		{"too little time", &shopbellv1.Policy{Timeout: durationpb.New(999 * time.Millisecond)}, []string{"timeout"}},
		{"too much time", &shopbellv1.Policy{Timeout: durationpb.New(time.Minute + 1)}, []string{"timeout"}},
		{"a wait of nothing", &shopbellv1.Policy{RetrySchedule: spans(time.Second, 0)}, []string{"retry_schedule[1]"}},
		{"a wait backwards", &shopbellv1.Policy{RetrySchedule: spans(-time.Second)}, []string{"retry_schedule[0]"}},
		{"a wait of months", &shopbellv1.Policy{RetrySchedule: spans(32 * 24 * time.Hour)}, []string{"retry_schedule[0]"}},
		{"too many waits", &shopbellv1.Policy{RetrySchedule: spans(many...)}, []string{"retry_schedule"}},
		{"no attempt", &shopbellv1.Policy{MaxAttempts: proto.Int32(0)}, []string{"max_attempts"}},
		{"attempts backwards", &shopbellv1.Policy{MaxAttempts: proto.Int32(-1)}, []string{"max_attempts"}},
		{"more attempts than the schedule has", &shopbellv1.Policy{MaxAttempts: proto.Int32(5)}, []string{"max_attempts"}},
		{
			"a code that is none", &shopbellv1.Policy{SuccessCodes: []string{"2xx", "ok", "20", "600", "099", "6xx", "2XX", "+20", "2x"}},
			[]string{"success_codes[1]", "success_codes[2]", "success_codes[3]", "success_codes[4]", "success_codes[5]", "success_codes[6]", "success_codes[7]", "success_codes[8]"},
		},
		{"a success that disables", &shopbellv1.Policy{DisableCodes: []int32{200, 299, 600, -1}}, []string{"disable_codes[0]", "disable_codes[1]", "disable_codes[2]", "disable_codes[3]"}},
		{"disabled some time", &shopbellv1.Policy{DisableAfter: proto.String("later")}, []string{"disable_after"}},
		{"a phrase that any answer may have", &shopbellv1.Policy{DeletePhrases: []string{"delete"}}, []string{"delete_phrases[0]"}},
		{"several at once", &shopbellv1.Policy{Timeout: durationpb.New(0), SuccessCodes: []string{"x"}}, []string{"timeout", "success_codes[0]"}},
	} {
		_, err := base().With(row.own)
		var f *fault.Fault
		if !errors.As(err, &f) {
			t.Errorf("%s: %v, want a fault", row.name, err)
			continue
		}
		var got []string
		for _, v := range f.Fields {
			got = append(got, v.Field)
		}
		if !slices.Equal(got, row.fields) {
			t.Errorf("%s: fields %q, want %q", row.name, got, row.fields)
		}
	}
}

func TestPolicy_WaitFollowsTheSchedule(t *testing.T) {
	const s, min, h = time.Second, time.Minute, time.Hour
	for _, row := range []struct {
		name       string
		change     func(*Policy)
		attempt    int
		retryAfter time.Duration
		random     float64
		want       time.Duration
		ok         bool
	}{
		{"after the first", func(*Policy) {}, 1, 0, 0, 5 * s, true},
		{"after the second", func(*Policy) {}, 2, 0, 0, min, true},
		{"after the last but one", func(*Policy) {}, 3, 0, 0, h, true},
		{"after the last", func(*Policy) {}, 4, 0, 0, 0, false},
		{"after one too many", func(*Policy) {}, 5, 0, 0, 0, false},
		{"long after", func(*Policy) {}, 1 << 30, 0, 0, 0, false},
		{"jitter adds a part", func(*Policy) {}, 2, 0, 0.5, min + 3*s, true},
		{"jitter adds a tenth at most", func(*Policy) {}, 3, 0, 1, h + 6*min, true},
		{"jitter is off", func(p *Policy) { p.Jitter = false }, 3, 0, 1, h, true},
		{"fewer attempts than the schedule has", func(p *Policy) { p.MaxAttempts = 2 }, 1, 0, 0, 5 * s, true},
		{"the last of fewer attempts", func(p *Policy) { p.MaxAttempts = 2 }, 2, 0, 0, 0, false},
		{"one attempt", func(p *Policy) { p.MaxAttempts = 1 }, 1, 0, 0, 0, false},
		{"no schedule", func(p *Policy) { p.RetrySchedule = nil }, 1, 0, 0, 0, false},
		{"the receiver asks for more", func(*Policy) {}, 1, 2 * min, 0, 2 * min, true},
		{"the receiver asks for less", func(*Policy) {}, 2, s, 0, min, true},
		{"the receiver asks for more than a day", func(*Policy) {}, 1, 48 * h, 0, 24 * h, true},
		{"the receiver asks, and is not heard", func(p *Policy) { p.HonorRetryAfter = false }, 1, 2 * min, 0, 5 * s, true},
		{"the receiver asks after the last", func(*Policy) {}, 4, 2 * min, 0, 0, false},
		{"the schedule waits longer than a day", func(p *Policy) { p.RetrySchedule = []time.Duration{72 * h} }, 1, 48 * h, 0, 72 * h, true},
	} {
		p := base()
		row.change(&p)
		if got, ok := p.Wait(row.attempt, row.retryAfter, row.random); got != row.want || ok != row.ok {
			t.Errorf("%s: %s, %v, want %s, %v", row.name, got, ok, row.want, row.ok)
		}
	}
}

func TestPolicy_DeletesByPhrase(t *testing.T) {
	p := base()
	if got := p.Deletes([]byte("delete this webhook")); got != "" {
		t.Errorf("without phrases: %q", got)
	}
	p.DeletePhrases = []string{"Delete this webhook", "no longer wanted"}
	for _, row := range []struct{ name, body, want string }{
		{"as it stands", "please delete this webhook now", "Delete this webhook"},
		{"in another case", "NO LONGER WANTED", "no longer wanted"},
		{"in parts", "delete this\nwebhook", ""},
		{"an empty answer", "", ""},
		{"within 64 KiB", string(make([]byte, 64<<10-16)) + "no longer wanted", "no longer wanted"},
		{"behind them", string(make([]byte, 64<<10-15)) + "no longer wanted", ""},
	} {
		if got := p.Deletes([]byte(row.body)); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}
