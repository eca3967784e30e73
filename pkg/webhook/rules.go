package webhook

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/expression"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/intern"
	"shopbell.dev/pkg/profile"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Rules are what a webhook has beside its address, its events and its secrets, worked out. They are the same for all
// webhooks that ask for the same, and do not change.
type Rules struct {
	// Profile is with the options that the webhook asks for.
	Profile    *profile.Profile
	Policy     profile.Policy
	Signatures []profile.Signature
	Delay      time.Duration
	// Environment of the events that are sent; empty: every one.
	Environment string
	// Filter and Transform are compiled; nil where the webhook has none.
	Filter    *expression.Filter
	Transform *expression.Transform
	// Format of the body: JSON, XML, or nothing, which is JSON.
	Format string
	// APIKeyHeader is where the shop's key stands, if the webhook names one.
	APIKeyHeader string
}

// shared are the rules that some webhook has. Most have those of their profile and none of their own.
var shared intern.Pool[asked, Rules]

// asked is what rules are worked out from.
type asked struct {
	profile *profile.Profile
	own     string // what is set beside it, encoded
}

// rulesOf works out the rules of a webhook. What is wrong with them is an Invalid fault that names the field; then they are as
// far as they could be worked out.
func rulesOf(w *shopbellv1.Webhook, profiles *profile.Set) (*Rules, error) {
	p, err := profiles.Get(w.Profile)
	if err != nil {
		return &Rules{}, err
	}
	own := &shopbellv1.Webhook{
		Options: w.Options, Signatures: w.Signatures, Policy: w.Policy, Delay: w.Delay, Environment: w.Environment, Filter: w.Filter,
		Transform: w.Transform, Format: w.Format, ApiKeyHeader: w.ApiKeyHeader,
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(own)
	if err != nil {
		return &Rules{}, err
	}
	return shared.Get(asked{p, string(encoded)}, func() (*Rules, error) {
		r := &Rules{Profile: p}
		return r, r.work(own)
	})
}

// work works out what a webhook has set beside its profile.
func (r *Rules) work(own *shopbellv1.Webhook) error {
	var err error
	if r.Profile, err = r.Profile.With(own.Options); err != nil {
		return err
	}
	r.Environment, r.Format, r.APIKeyHeader = own.GetEnvironment(), own.GetFormat(), cmp.Or(own.GetApiKeyHeader(), r.Profile.APIKeyHeader)
	if r.Signatures, err = r.Profile.Signing(own.Signatures); err != nil {
		return err
	}
	if r.Policy, err = r.Profile.Policy.With(own.Policy); err != nil {
		var bad fault.Collector
		bad.Include("policy.", err)
		return bad.Err()
	}
	if r.Delay, err = Delay(own.Delay); err != nil {
		return err
	}
	if text := own.GetFilter(); text != "" {
		if r.Filter, err = expression.ParseFilter(text); err != nil {
			return fault.Field("filter", "%v", err)
		}
	}
	if text := own.GetTransform(); text != "" {
		if r.Transform, err = expression.ParseTransform(text); err != nil {
			return fault.Field("transform", "%v", err)
		}
	}
	if r.Format != "" && r.Format != JSON && r.Format != XML {
		return fault.Field("format", "%q is neither %s nor %s", r.Format, JSON, XML)
	}
	return nil
}

func (r *Rules) signsWith(scheme profile.Scheme) bool {
	return slices.ContainsFunc(r.Signatures, func(s profile.Signature) bool { return s.Scheme == scheme })
}

var units = map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}

var unitNames = []string{"second", "minute", "hour", "day"}

const maxDelay = 366 * 24 * time.Hour

// Delay is how long a delay is; none is 0. A unit that is not known, or a length below one unit or over a year, is an
// Invalid fault.
func Delay(d *shopbellv1.Delay) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	unit, ok := units[d.Unit]
	switch {
	case !ok:
		return 0, fault.Field("delay.unit", "%q is not known%s; there are second, minute, hour and day", d.Unit, fault.DidYouMean(d.Unit, unitNames))
	case d.Value < 1 || time.Duration(d.Value) > maxDelay/unit:
		return 0, fault.Field("delay.value", "%d %ss is not between 1 %s and 366 days; leave delay out to send at once", d.Value, d.Unit, d.Unit)
	}
	return time.Duration(d.Value) * unit, nil
}
