package subscription

import (
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/shop"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// The bounds of a webhook.
const (
	maxLabel       = 200
	maxEventTypes  = 500
	maxHeaders     = 50
	maxHeaderBytes = 8 << 10
)

// check says what is wrong with a webhook before it is stored.
func (s *Subscription) check(state *busv1.WebhookState) error {
	w := state.Webhook
	var bad fault.Collector
	bad.Include("", s.env.Guard.CheckURL(w.Url))
	if len(w.GetLabel()) > maxLabel {
		bad.Add("label", "it has %d bytes; at most %d are taken", len(w.GetLabel()), maxLabel)
	}
	if env := w.GetEnvironment(); env != "" && env != shop.Live && env != shop.Test {
		bad.Add("environment", "%q is neither live nor test; leave it out for both", env)
	}
	rules, err := s.env.Profiles.Get(w.Profile)
	bad.Include("", err)
	s.checkEvents(w, &bad)
	if err == nil {
		for i, t := range w.Events {
			if t != webhook.AnyType && !notice.Is(t) {
				bad.Include("", fault.On(fmt.Sprintf("events[%d]", i), rules.CheckType(t)))
			}
		}
		var checked *webhook.Webhook
		if checked, err = webhook.Check(state, s.env.Profiles); err == nil {
			checkOverRules(w.Headers, checked, &bad)
			checkKeyHeader(w.GetApiKeyHeader(), checked, &bad)
		}
		bad.Include("", err)
	}
	checkHeaders(w.Headers, &bad)
	return bad.Err()
}

func (s *Subscription) checkEvents(w *shopbellv1.Webhook, bad *fault.Collector) {
	switch {
	case len(w.Events) == 0:
		bad.Add("events", "it is empty; name the event types that are wanted, or \"*\" for all")
	case len(w.Events) > maxEventTypes:
		bad.Add("events", "it has %d entries; at most %d are taken; \"*\" is every type", len(w.Events), maxEventTypes)
	}
	for i, t := range w.Events {
		if t == webhook.AnyType {
			continue
		}
		if err := contract.CheckEventType(t); err != nil {
			bad.Include("", fault.On(fmt.Sprintf("events[%d]", i), err))
		}
		if slices.Contains(w.Events[:i], t) {
			bad.Add(fmt.Sprintf("events[%d]", i), "%q stands twice", t)
		}
	}
}

// reserved are headers that Shopbell or HTTP itself sets.
var reserved = []string{
	"Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection",
	"Proxy-Authorization", "Te", "Trailer", "Upgrade", "Expect", "User-Agent", "Traceparent", "Tracestate", "Accept-Encoding",
	"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature",
}

// checkOverRules refuses headers that the webhook's rules set.
func checkOverRules(headers map[string]string, w *webhook.Webhook, bad *fault.Collector) {
	for _, set := range w.Headers() {
		for name := range headers {
			if strings.EqualFold(name, set) {
				bad.Add("headers."+name, "the webhook's profile, one of its signatures or its API key sets it; choose another name")
			}
		}
	}
}

// checkKeyHeader refuses to put the shop's key where something else stands.
func checkKeyHeader(name string, w *webhook.Webhook, bad *fault.Collector) {
	same := 0
	for _, set := range w.Headers() {
		if strings.EqualFold(name, set) {
			same++
		}
	}
	switch {
	case name == "":
	case !httpguts.ValidHeaderFieldName(name):
		bad.Add("api_key_header", "%q is no header name; use letters, digits and '-'", name)
	case slices.Contains(reserved, textproto.CanonicalMIMEHeaderKey(name)), same > 1:
		bad.Add("api_key_header", "Shopbell, HTTP, or the webhook's profile sets %s; choose another name", name)
	}
}

func checkHeaders(headers map[string]string, bad *fault.Collector) {
	if len(headers) > maxHeaders {
		bad.Add("headers", "there are %d; at most %d are taken", len(headers), maxHeaders)
	}
	size := 0
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		value := headers[name]
		size += len(name) + len(value)
		at := "headers." + name
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		if other, twice := seen[canonical]; twice {
			bad.Add("headers", "%s and %s are one header, which stands twice", other, name)
		}
		seen[canonical] = name
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			bad.Add("headers", "%q is no header name; use letters, digits and '-'", name)
		case slices.Contains(reserved, canonical):
			bad.Add(at, "Shopbell or HTTP sets it; choose another name")
		case !httpguts.ValidHeaderFieldValue(value) || strings.TrimSpace(value) != value:
			bad.Add(at, "its value has a line break, another control character, or a blank at an end")
		}
	}
	if size > maxHeaderBytes {
		bad.Add("headers", "they have %d bytes; at most %d are taken", size, maxHeaderBytes)
	}
}

// setByUs are fields that only Shopbell sets. A change may hold them, as when somebody sends back what he has read.
var setByUs = []string{"id", "shop_id", "created_at", "updated_at", "etag", "disabled_at", "disabled_reason", "warnings"}

// apply changes the fields of w that mask names, or without one those that have a value in change, to what they are in
// change.
func apply(w, change *shopbellv1.Webhook, mask *fieldmaskpb.FieldMask) error {
	paths := mask.GetPaths()
	if mask == nil {
		paths = populated(change)
	}
	for _, path := range paths {
		field, rest, nested := strings.Cut(path, ".")
		switch {
		case slices.Contains(setByUs, field):
			continue
		case field == "status":
			if change.Status != "" && change.Status != w.Status {
				return fault.Field("status", "it is not changed so; use POST …/webhooks/%s:enable or :disable", w.Id)
			}
			continue
		case field == "secret":
			return fault.Field("secret", "it is not changed so; use POST …/webhooks/%s:rotate_secret, which lets the old one sign for a while", w.Id)
		case nested && field == "policy":
			if w.Policy == nil {
				w.Policy = &shopbellv1.Policy{}
			}
			from := change.Policy
			if from == nil {
				from = &shopbellv1.Policy{}
			}
			name, _, _ := strings.Cut(rest, ".")
			if err := copyField(w.Policy, from, name, "policy."); err != nil {
				return err
			}
		default: // a part of headers or of delay stands for the whole
			if err := copyField(w, change, field, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// populated are the names of a message's fields that have a value.
func populated(m proto.Message) (names []string) {
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		names = append(names, string(f.Name()))
		return true
	})
	return names
}

func copyField(to, from proto.Message, name, prefix string) error {
	fields := to.ProtoReflect().Descriptor().Fields()
	f := fields.ByName(protoreflect.Name(name))
	if f == nil {
		var known []string
		for i := range fields.Len() {
			known = append(known, string(fields.Get(i).Name()))
		}
		return fault.Field("update_mask", "%s%s is not known%s", prefix, name, fault.DidYouMean(name, known))
	}
	if from.ProtoReflect().Has(f) {
		to.ProtoReflect().Set(f, from.ProtoReflect().Get(f))
	} else {
		to.ProtoReflect().Clear(f)
	}
	return nil
}
