package profile

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	MaxInFlight     int             `yaml:"max_in_flight"`   // 0: defaultInFlight
	RatePerSecond   float64         `yaml:"rate_per_second"` // 0: as many as there are
	Ordered         string          `yaml:"ordered"`         // Unordered, ByKey or ByWebhook; empty: Unordered
	WhenStuck       string          `yaml:"when_stuck"`      // GiveUp or Block; empty: GiveUp
	Breaker         Breaker         `yaml:"breaker"`
}

// Breaker says when a receiver counts as not well. Without a retry schedule there is none: what is sent once must not
// wait for better times.
type Breaker struct {
	Failures    int           `yaml:"failures"`      // in a row; 0: never
	HangShare   float64       `yaml:"hang_share"`    // of the latest attempts; 0: never
	ProbeAtMost time.Duration `yaml:"probe_at_most"` // 0: defaultProbe
}

// What keeps its order on the way to a receiver.
const (
	Unordered = "none"
	ByKey     = "key"
	ByWebhook = "webhook"
)

// What follows when an ordered delivery has failed for the last time.
const (
	GiveUp = "give_up"
	Block  = "block"
)

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
	maxInFlight   = 1000
	minRate       = 0.01
	maxRate       = 100_000
	maxFailures   = 1000
	minProbe      = time.Second
	maxProbe      = time.Hour
)

// What holds where a profile says nothing.
const (
	defaultInFlight = 32
	defaultProbe    = time.Minute
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
	if p.MaxInFlight < 0 || p.MaxInFlight > maxInFlight {
		bad.Add("max_in_flight", "%d is not between 1 and %d", p.MaxInFlight, maxInFlight)
	}
	if p.RatePerSecond != 0 && !(p.RatePerSecond >= minRate && p.RatePerSecond <= maxRate) {
		bad.Add("rate_per_second", "%g is neither 0, which is no limit, nor between %g and %d", p.RatePerSecond, minRate, maxRate)
	}
	if kinds := []string{Unordered, ByKey, ByWebhook}; p.Ordered != "" && !slices.Contains(kinds, p.Ordered) {
		bad.Add("ordered", "%q is none of %s%s", p.Ordered, strings.Join(kinds, ", "), fault.DidYouMean(p.Ordered, kinds))
	}
	if kinds := []string{GiveUp, Block}; p.WhenStuck != "" && !slices.Contains(kinds, p.WhenStuck) {
		bad.Add("when_stuck", "%q is neither %s%s", p.WhenStuck, strings.Join(kinds, " nor "), fault.DidYouMean(p.WhenStuck, kinds))
	}
	b := p.Breaker
	if b.Failures < 0 || b.Failures > maxFailures {
		bad.Add("breaker.failures", "%d is not between 0, which is never, and %d", b.Failures, maxFailures)
	}
	if b.HangShare != 0 && !(b.HangShare >= 0.1 && b.HangShare <= 1) {
		bad.Add("breaker.hang_share", "%g is neither 0, which is never, nor between 0.1 and 1", b.HangShare)
	}
	if b.ProbeAtMost != 0 && (b.ProbeAtMost < minProbe || b.ProbeAtMost > maxProbe) {
		bad.Add("breaker.probe_at_most", "%s is not between %s and %s", b.ProbeAtMost, minProbe, maxProbe)
	}
	return bad.Err()
}

// InFlight is how many exchanges with the receiver may be under way at once.
func (p Policy) InFlight() int { return cmp.Or(p.MaxInFlight, defaultInFlight) }

// IsOrdered says whether deliveries reach the receiver in an order.
func (p Policy) IsOrdered() bool { return p.Ordered == ByKey || p.Ordered == ByWebhook }

// Breaks says whether the receiver can count as not well.
func (p Policy) Breaks() bool {
	return p.Attempts() > 1 && (p.Breaker.Failures > 0 || p.Breaker.HangShare > 0)
}

// ProbeAtMost is the longest wait between two probes.
func (p Policy) ProbeAtMost() time.Duration { return cmp.Or(p.Breaker.ProbeAtMost, defaultProbe) }

// minPatience is how long a delivery is held at least for a receiver that is not well.
const minPatience = time.Hour

// Patience is how long after it was matched a delivery may be held for a receiver that is not well: as long as the
// schedule would have gone on trying, and an hour at least.
func (p Policy) Patience() time.Duration {
	sum := time.Duration(0)
	for _, wait := range p.RetrySchedule {
		sum += wait
	}
	return max(sum, minPatience)
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
	if own.MaxInFlight != nil {
		p.MaxInFlight = int(*own.MaxInFlight)
		if p.MaxInFlight < 1 {
			return p, fault.Field("max_in_flight", "%d is not 1 or more", p.MaxInFlight)
		}
	}
	if own.RatePerSecond != nil {
		p.RatePerSecond = *own.RatePerSecond
	}
	if own.Ordered != nil {
		p.Ordered = *own.Ordered
	}
	if own.WhenStuck != nil {
		p.WhenStuck = *own.WhenStuck
	}
	if b := own.Breaker; b != nil {
		if b.Failures != nil {
			p.Breaker.Failures = int(*b.Failures)
		}
		if b.HangShare != nil {
			p.Breaker.HangShare = *b.HangShare
		}
		if b.ProbeAtMost != nil {
			p.Breaker.ProbeAtMost = b.ProbeAtMost.AsDuration()
		}
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

// blockedWait is how long after a failure the next attempt of a delivery that blocks follows when there is no schedule.
const blockedWait = time.Minute

// Blocks is how long after its last failed attempt an ordered delivery that blocks those behind it is tried again; ok is
// false when it is given up.
func (p Policy) Blocks() (wait time.Duration, ok bool) {
	if !p.IsOrdered() || p.WhenStuck != Block {
		return 0, false
	}
	if n := len(p.RetrySchedule); n > 0 {
		return p.RetrySchedule[n-1], true
	}
	return blockedWait, true
}

// Proto is the policy as the API shows it.
func (p Policy) Proto() *shopbellv1.Policy {
	return &shopbellv1.Policy{
		Timeout: durationpb.New(p.Timeout), RetrySchedule: durations(p.RetrySchedule),
		MaxAttempts: proto.Int32(int32(p.Attempts())), Jitter: proto.Bool(p.Jitter), SuccessCodes: p.SuccessCodes,
		DisableCodes: p.DisableCodes, HonorRetryAfter: proto.Bool(p.HonorRetryAfter),
		DisableAfter: proto.String(cmp.Or(p.DisableAfter, AtOnce)), DeletePhrases: p.DeletePhrases,
		MaxInFlight: proto.Int32(int32(p.InFlight())), RatePerSecond: proto.Float64(p.RatePerSecond),
		Ordered: proto.String(cmp.Or(p.Ordered, Unordered)), WhenStuck: proto.String(cmp.Or(p.WhenStuck, GiveUp)),
		Breaker: &shopbellv1.Breaker{
			Failures: proto.Int32(int32(p.Breaker.Failures)), HangShare: proto.Float64(p.Breaker.HangShare),
			ProbeAtMost: durationpb.New(p.ProbeAtMost()),
		},
	}
}
