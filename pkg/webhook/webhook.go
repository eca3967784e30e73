// Package webhook is the webhooks as the rooms see them: with their rules worked out, and a directory of all of them
// that follows the bucket they are kept in.
package webhook

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

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
//
// There may be a hundred thousand of them in a process, all of which the collector marks each time. So a webhook is few
// objects: what others tend to have too is in Rules, which they share, and its texts are parts of one, its state as it lies
// in the bucket. Who needs all of that decodes it (State).
type Webhook struct {
	ID, ShopID, Label, URL string
	Events                 []string
	Status                 string // Enabled, Disabled or Deleted
	DisabledReason         string
	OffByReceiver          bool              // and not by its owner: what arrives is held
	OwnHeaders             map[string]string // beside those of its rules
	APIKeyID               string            // that it names; empty: none
	Revision               uint64            // its state's, in the bucket
	Discarded              Discarded
	*Rules
	// Broken says why its rules cannot be worked out, as when its profile is no longer there. What arrives is held.
	Broken string

	apiKey string
	state  string // a busv1.WebhookState, encoded
	keys   []key

	// Nearly all have one of each, which needs no object of its own.
	oneEvent [1]string
	oneKey   [1]key
}

// Discarded is what of its held deliveries the owner has had discarded: those held because it was off by a revision up to
// Revision, and those in HELD up to Sequence.
type Discarded struct{ Revision, Sequence uint64 }

type key struct {
	signature.Secret
	private *signature.PrivateKey // nil where no scheme signs with it
	expires time.Time             // zero: never
}

func (k *key) signs(now time.Time) bool { return k.expires.IsZero() || now.Before(k.expires) }

// New works out the rules of a webhook. What is wrong with them is in Broken.
func New(state *busv1.WebhookState, revision uint64, profiles *profile.Set) *Webhook {
	w, err := Check(state, profiles)
	return w.at(revision, err)
}

// Check works out the rules of a webhook and says what is wrong with them: an Invalid fault that names the field.
func Check(state *busv1.WebhookState, profiles *profile.Set) (*Webhook, error) {
	encoded, err := proto.Marshal(state)
	if err != nil {
		return &Webhook{Rules: &Rules{}}, fmt.Errorf("write the webhook %s: %w", state.Webhook.Id, err)
	}
	return check(state, string(encoded), profiles)
}

// read is New of a state as it lies in the bucket. It fails when that cannot be read.
func read(encoded []byte, revision uint64, profiles *profile.Set) (*Webhook, error) {
	state := &busv1.WebhookState{}
	if err := proto.Unmarshal(encoded, state); err != nil {
		return nil, err
	}
	if state.Webhook == nil {
		return nil, errors.New("there is none in it")
	}
	w, err := check(state, string(encoded), profiles)
	return w.at(revision, err), nil
}

func (w *Webhook) at(revision uint64, wrong error) *Webhook {
	w.Revision = revision
	if wrong != nil {
		w.Broken = wrong.Error()
	}
	return w
}

func check(state *busv1.WebhookState, encoded string, profiles *profile.Set) (*Webhook, error) {
	own := state.Webhook
	in := func(text string) string { return partOf(encoded, text) }
	w := &Webhook{
		ID: in(own.Id), ShopID: in(own.ShopId), Label: in(own.GetLabel()), URL: in(own.Url),
		Status: in(own.Status), DisabledReason: in(own.GetDisabledReason()), OffByReceiver: state.OffByReceiver,
		APIKeyID: in(own.GetApiKeyId()), apiKey: in(state.ApiKey), state: encoded,
		Discarded: Discarded{state.Discarded.GetRevision(), state.Discarded.GetSequence()},
	}
	w.Events = slices.Grow(w.oneEvent[:0], len(own.Events))
	for _, name := range own.Events {
		w.Events = append(w.Events, in(name))
	}
	if len(own.Headers) > 0 {
		w.OwnHeaders = make(map[string]string, len(own.Headers))
		for name, value := range own.Headers {
			w.OwnHeaders[in(name)] = in(value)
		}
	}
	var err error
	if w.Rules, err = rulesOf(own, profiles); err != nil {
		return w, err
	}
	return w, w.readKeys(state.Secrets, in)
}

// partOf is a text as a part of the one that holds it, so that it needs no memory of its own: an encoded message holds its
// texts as they are.
func partOf(whole, text string) string {
	if at := strings.Index(whole, text); at >= 0 {
		return whole[at : at+len(text)]
	}
	return text
}

// State is all that lies in the bucket of the webhook: a copy, decoded anew each time.
func (w *Webhook) State() *busv1.WebhookState {
	state := &busv1.WebhookState{}
	_ = proto.Unmarshal([]byte(w.state), state) // it was decoded, or encoded, before
	return state
}

// readKeys reads what signs, once for all deliveries. Private keys are read only where a scheme signs with them: it
// takes a while.
func (w *Webhook) readKeys(secrets []*busv1.Secret, in func(string) string) error {
	w.keys = slices.Grow(w.oneKey[:0], len(secrets))
	for i, s := range secrets {
		secret, err := signature.ParseSecret(in(s.Value))
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
	if w.apiKey == "" {
		return "", ""
	}
	return w.APIKeyHeader, w.apiKey
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
	if scheme, _, _ := strings.Cut(w.URL, ":"); strings.EqualFold(scheme, "http") {
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
	case w.Status != Enabled:
		return w.DisabledReason
	}
	return ""
}

// Proto is the webhook as the API shows it: with the rules in force and without its secret.
func (w *Webhook) Proto() *shopbellv1.Webhook {
	out := w.State().Webhook
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

// Host is the scheme, host and port that a URL names.
func Host(target string) string {
	start := strings.Index(target, "://") + len("://")
	if end := strings.IndexAny(target[start:], "/?#"); end >= 0 {
		return target[:start+end]
	}
	return target
}
