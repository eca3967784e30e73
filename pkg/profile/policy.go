package profile

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/fault"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Policy is how deliveries are attempted: every rule in force, nothing left out.
type Policy struct {
	Timeout         time.Duration   `yaml:"timeout"`
	RetrySchedule   []time.Duration `yaml:"retry_schedule"`
	MaxAttempts     int             `yaml:"max_attempts"` // 0: one more than the schedule is long
	Jitter          bool            `yaml:"jitter"`
	SuccessCodes    []string        `yaml:"success_codes"`
	DisableCodes    []int32         `yaml:"disable_codes"`
	HonorRetryAfter bool            `yaml:"honor_retry_after"`
	DisableAfter    string          `yaml:"disable_after"` // AtOnce, or LastAttempt; empty: AtOnce
	DeletePhrases   []string        `yaml:"delete_phrases"`
}

// When a code that disables does so (SHOPS.md C4).
const (
	AtOnce      = "at_once"
	LastAttempt = "last_attempt"
)

// The bounds of a policy.
const (
	minTimeout    = time.Second
	maxTimeout    = time.Minute
	maxRetries    = 50
	maxWait       = 31 * 24 * time.Hour
	maxRetryAfter = 24 * time.Hour
	minPhrase     = 8
	maxPhrase     = 200
)

func (p Policy) validate() error {
	var bad fault.Collector
	if p.Timeout < minTimeout || p.Timeout > maxTimeout {
		bad.Add("timeout", "%s is not between %s and %s", p.Timeout, minTimeout, maxTimeout)
	}
	if len(p.RetrySchedule) > maxRetries {
		bad.Add("retry_schedule", "it has %d entries; at most %d are taken", len(p.RetrySchedule), maxRetries)
	}
	for i, wait := range p.RetrySchedule {
		if wait < 100*time.Millisecond || wait > maxWait {
			bad.Add(fmt.Sprintf("retry_schedule[%d]", i), "%s is not between 0.1s and 31 days", wait)
		}
	}
	if p.MaxAttempts < 0 || p.MaxAttempts > len(p.RetrySchedule)+1 {
		bad.Add("max_attempts", "%d is not between 1 and %d, one more than retry_schedule has entries", p.MaxAttempts, len(p.RetrySchedule)+1)
	}
	if len(p.SuccessCodes) == 0 {
		bad.Add("success_codes", "it is empty: nothing would ever count as delivered; name codes such as \"2xx\" or \"200\"")
	}
	for i, code := range p.SuccessCodes {
		if !isCodePattern(code) {
			bad.Add(fmt.Sprintf("success_codes[%d]", i), "%q is neither a code such as \"200\" nor a class such as \"2xx\"", code)
		}
	}
	for i, code := range p.DisableCodes {
		if code < 300 || code > 599 {
			bad.Add(fmt.Sprintf("disable_codes[%d]", i), "%d is not between 300 and 599", code)
		}
	}
	if after := p.DisableAfter; after != "" && after != AtOnce && after != LastAttempt {
		bad.Add("disable_after", "%q is neither %s nor %s%s", after, AtOnce, LastAttempt, fault.DidYouMean(after, []string{AtOnce, LastAttempt}))
	}
	for i, phrase := range p.DeletePhrases {
		if len(phrase) < minPhrase || len(phrase) > maxPhrase {
			bad.Add(fmt.Sprintf("delete_phrases[%d]", i), "it has %d bytes; %d to %d are taken, so that no ordinary answer holds it", len(phrase), minPhrase, maxPhrase)
		}
	}
	return bad.Err()
}

func isCodePattern(s string) bool {
	if len(s) != 3 || s[0] < '1' || s[0] > '5' {
		return false
	}
	if s[1:] == "xx" {
		return true
	}
	n, err := strconv.Atoi(s)
	return err == nil && n >= 100
}

// With gives the policy with the rules that an owner has set himself in place of its own, or an Invalid fault whose
// fields are those of the owner's policy.
func (p Policy) With(own *shopbellv1.Policy) (Policy, error) {
	if own == nil {
		return p, nil
	}
	if own.Timeout != nil {
		p.Timeout = own.Timeout.AsDuration()
	}
	if len(own.RetrySchedule) > 0 {
		p.RetrySchedule = nil
		p.MaxAttempts = 0
		for _, wait := range own.RetrySchedule {
			p.RetrySchedule = append(p.RetrySchedule, wait.AsDuration())
		}
	}
	if own.MaxAttempts != nil {
		p.MaxAttempts = int(*own.MaxAttempts)
		if p.MaxAttempts < 1 {
			return p, fault.Field("max_attempts", "%d is not 1 or more", p.MaxAttempts)
		}
	}
	if own.Jitter != nil {
		p.Jitter = *own.Jitter
	}
	if len(own.SuccessCodes) > 0 {
		p.SuccessCodes = own.SuccessCodes
	}
	if len(own.DisableCodes) > 0 {
		p.DisableCodes = own.DisableCodes
	}
	if own.HonorRetryAfter != nil {
		p.HonorRetryAfter = *own.HonorRetryAfter
	}
	if own.DisableAfter != nil {
		p.DisableAfter = *own.DisableAfter
	}
	if len(own.DeletePhrases) > 0 {
		p.DeletePhrases = own.DeletePhrases
	}
	return p, p.validate()
}

// Attempts is the most attempts that are made by themselves.
func (p Policy) Attempts() int {
	if p.MaxAttempts > 0 {
		return p.MaxAttempts
	}
	return len(p.RetrySchedule) + 1
}

// Succeeds says whether an answer with this code is a success.
func (p Policy) Succeeds(code int) bool {
	for _, pattern := range p.SuccessCodes {
		if pattern[1:] == "xx" && code/100 == int(pattern[0]-'0') || pattern == strconv.Itoa(code) {
			return true
		}
	}
	return false
}

// Disables says whether an answer with this code switches the webhook off, when it answers an attempt that is, or is not,
// the last.
func (p Policy) Disables(code int, last bool) bool {
	return slices.Contains(p.DisableCodes, int32(code)) && (last || p.DisableAfter != LastAttempt)
}

// phraseWithin is how much of an answer is searched for phrases (SHOPS.md C3).
const phraseWithin = 64 << 10

// Deletes gives the phrase in an answer's body that deletes the webhook, or nothing.
func (p Policy) Deletes(body []byte) string {
	if len(p.DeletePhrases) == 0 {
		return ""
	}
	text := bytes.ToLower(body[:min(len(body), phraseWithin)])
	for _, phrase := range p.DeletePhrases {
		if bytes.Contains(text, bytes.ToLower([]byte(phrase))) {
			return phrase
		}
	}
	return ""
}

// Wait is how long after the failed attempt of this number (from 1) the next one follows; ok is false when none does.
// Random is a number from 0 to 1: with jitter it adds up to a tenth. RetryAfter is what the receiver asked for, 0 when
// it asked for nothing.
func (p Policy) Wait(attempt int, retryAfter time.Duration, random float64) (wait time.Duration, ok bool) {
	if attempt >= p.Attempts() || attempt > len(p.RetrySchedule) {
		return 0, false
	}
	wait = p.RetrySchedule[attempt-1]
	if p.Jitter {
		wait += time.Duration(random * 0.1 * float64(wait))
	}
	if p.HonorRetryAfter {
		wait = max(wait, min(retryAfter, maxRetryAfter))
	}
	return wait, true
}

// Proto is the policy as the API shows it.
func (p Policy) Proto() *shopbellv1.Policy {
	return &shopbellv1.Policy{
		Timeout: durationpb.New(p.Timeout), RetrySchedule: durations(p.RetrySchedule),
		MaxAttempts: proto.Int32(int32(p.Attempts())), Jitter: proto.Bool(p.Jitter), SuccessCodes: p.SuccessCodes,
		DisableCodes: p.DisableCodes, HonorRetryAfter: proto.Bool(p.HonorRetryAfter),
		DisableAfter: proto.String(cmp.Or(p.DisableAfter, AtOnce)), DeletePhrases: p.DeletePhrases,
	}
}
