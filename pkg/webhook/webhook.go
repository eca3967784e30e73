// Package webhook is the webhooks as the rooms see them: with their rules worked out, and a directory of all of them
// that follows the bucket they are kept in.
package webhook

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/expression"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/signature"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// AnyType is the event type that stands for every type.
const AnyType = "*"

// The formats of a body.
const (
	JSON = "json"
	XML  = "xml"
)

// The statuses of a webhook.
const (
	Enabled  = "enabled"
	Disabled = "disabled"
	Deleted  = "deleted" // by its receiver; it can be switched on again for KeepDeleted
)

// KeepDeleted is how long a webhook that its receiver has deleted can be had back (SHOPS.md C3).
const KeepDeleted = 30 * 24 * time.Hour

// Webhook is a webhook with its rules worked out. It does not change and may be used at once.
type Webhook struct {
	*busv1.WebhookState
	Revision uint64 // its state's, in the bucket
	// Profile is with the options that the webhook asks for.
	Profile    *profile.Profile
	Policy     profile.Policy
	Signatures []profile.Signature
	Delay      time.Duration
	// Filter and Transform are compiled; nil where the webhook has none.
	Filter    *expression.Filter
	Transform *expression.Transform
	// Broken says why its rules cannot be worked out, as when its profile is no longer there. What arrives is held.
	Broken string

	keys []key
}

type key struct {
	signature.Secret
	private *signature.PrivateKey // nil where no scheme signs with it
	expires time.Time             // zero: never
}

func (k *key) signs(now time.Time) bool { return k.expires.IsZero() || now.Before(k.expires) }

// New works out the rules of a webhook. What is wrong with them is in Broken.
func New(state *busv1.WebhookState, revision uint64, profiles *profile.Set) *Webhook {
	w, err := Check(state, profiles)
	w.Revision = revision
	if err != nil {
		w.Broken = err.Error()
	}
	return w
}

// Check works out the rules of a webhook and says what is wrong with them: an Invalid fault that names the field.
func Check(state *busv1.WebhookState, profiles *profile.Set) (*Webhook, error) {
	w := &Webhook{WebhookState: state}
	return w, w.work(profiles)
}

func (w *Webhook) work(profiles *profile.Set) error {
	var err error
	if w.Profile, err = profiles.Get(w.Webhook.Profile); err != nil {
		return err
	}
	if w.Profile, err = w.Profile.With(w.Webhook.Options); err != nil {
		return err
	}
	if w.Signatures, err = w.Profile.Signing(w.Webhook.Signatures); err != nil {
		return err
	}
	if w.Policy, err = w.Profile.Policy.With(w.Webhook.Policy); err != nil {
		var bad fault.Collector
		bad.Include("policy.", err)
		return bad.Err()
	}
	if w.Delay, err = Delay(w.Webhook.Delay); err != nil {
		return err
	}
	if text := w.Webhook.GetFilter(); text != "" {
		if w.Filter, err = expression.ParseFilter(text); err != nil {
			return fault.Field("filter", "%v", err)
		}
	}
	if text := w.Webhook.GetTransform(); text != "" {
		if w.Transform, err = expression.ParseTransform(text); err != nil {
			return fault.Field("transform", "%v", err)
		}
	}
	if f := w.Webhook.GetFormat(); f != "" && f != JSON && f != XML {
		return fault.Field("format", "%q is neither %s nor %s", f, JSON, XML)
	}
	return w.readKeys()
}

// readKeys reads what signs, once for all deliveries. Private keys are read only where a scheme signs with them: it
// takes a while.
func (w *Webhook) readKeys() error {
	for i, s := range w.Secrets {
		secret, err := signature.ParseSecret(s.Value)
		if err != nil {
			return fault.Field("secret", "the %s: %v", []string{"newest", "older one"}[min(i, 1)], err)
		}
		k := key{Secret: secret}
		if w.signsWith(profile.StandardWebhooksEd25519) && len(s.PrivateKey) > 0 {
			private, err := signature.ParsePrivateKey(s.PrivateKey)
			if err != nil {
				return fault.Field("secret", "its private key: %v", err)
			}
			k.private = &private
		}
		if s.ExpiresAt != nil {
			k.expires = s.ExpiresAt.AsTime()
		}
		w.keys = append(w.keys, k)
	}
	return nil
}

func (w *Webhook) signsWith(scheme profile.Scheme) bool {
	return slices.ContainsFunc(w.Signatures, func(s profile.Signature) bool { return s.Scheme == scheme })
}

// Signing are the secrets that sign at this time, the newest first.
func (w *Webhook) Signing(now time.Time) []signature.Secret {
	secrets := make([]signature.Secret, 0, len(w.keys))
	for _, k := range w.keys {
		if k.signs(now) {
			secrets = append(secrets, k.Secret)
		}
	}
	return secrets
}

// PrivateKeys are the private keys that sign at this time, the newest first; there are none unless a scheme of the
// webhook signs with them.
func (w *Webhook) PrivateKeys(now time.Time) (keys []signature.PrivateKey) {
	for _, k := range w.keys {
		if k.private != nil && k.signs(now) {
			keys = append(keys, *k.private)
		}
	}
	return keys
}

// APIKey gives the key by which the receiver knows the shop, and the header in which it stands; nothing when the webhook
// names none.
func (w *Webhook) APIKey() (header, text string) {
	if w.ApiKey == "" {
		return "", ""
	}
	return cmp.Or(w.Webhook.GetApiKeyHeader(), w.Profile.APIKeyHeader), w.ApiKey
}

// Headers are the names of the headers that the webhook's rules set in each request, beside those of every request.
func (w *Webhook) Headers() []string {
	names := slices.Collect(maps.Keys(w.Profile.Headers))
	for _, s := range w.Signatures {
		if s.Header != "" {
			names = append(names, s.Header)
		}
	}
	if header, _ := w.APIKey(); header != "" {
		names = append(names, header)
	}
	return names
}

// warnings are what the webhook's owner should look at though nothing is wrong.
func (w *Webhook) warnings() (out []string) {
	if scheme, _, _ := strings.Cut(w.Webhook.Url, ":"); strings.EqualFold(scheme, "http") {
		out = append(out, "the URL begins with http: whoever sits between Shopbell and the receiver can read what is sent; use https if the receiver takes it")
	}
	if w.signsWith(profile.StandardWebhooksEd25519) && (len(w.keys) == 0 || w.keys[0].private == nil) {
		out = append(out, fmt.Sprintf("%s signs nothing yet, for the webhook has no private key: rotate its secret, which makes one", profile.StandardWebhooksEd25519))
	}
	return out
}

// Off says why nothing is sent to the webhook now, or nothing.
func (w *Webhook) Off() string {
	switch {
	case w.Broken != "":
		return "its rules cannot be worked out: " + w.Broken
	case w.Webhook.Status != Enabled:
		return w.Webhook.GetDisabledReason()
	}
	return ""
}

// Proto is the webhook as the API shows it: with the rules in force and without its secret.
func (w *Webhook) Proto() *shopbellv1.Webhook {
	out := proto.CloneOf(w.Webhook)
	out.Secret = nil
	out.Etag = Etag(w.Revision)
	out.Warnings = w.warnings()
	if w.Broken == "" {
		out.Policy = w.Policy.Proto()
		out.Signatures = nil
		for _, s := range w.Signatures {
			out.Signatures = append(out.Signatures, string(s.Scheme))
		}
	}
	return out
}

// Etag names a revision of a webhook's state.
func Etag(revision uint64) string { return fmt.Sprintf("%x", revision) }

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
