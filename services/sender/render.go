package sender

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/expression"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/webhook"
	"shopbell.dev/pkg/xmlbody"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// body is what is sent: the event's data as it came, and what the profile writes around it.
type body struct {
	before, data, after []byte
	contentType         string
	whole               bool // before is all of it, and does not hold the data as it came
}

// render makes a delivery's body. It fails when the webhook's transform, or its format, does not fit the data.
func render(d *contract.Delivery, w *webhook.Webhook, shop *shopbellv1.Shop) (body, error) {
	b := body{data: d.Data, contentType: d.ContentType}
	if d.WholeBody {
		return b, nil
	}
	if w.Transform != nil {
		text, err := w.Transform.Body(&expression.Event{Type: d.Type, Action: d.Action, ShopID: d.ShopID, Environment: d.Environment, Data: d.Data})
		if err != nil {
			return b, fmt.Errorf("the webhook's transform does not fit the event: %w", err)
		}
		return format(body{before: text, contentType: event.JSON, whole: true}, w)
	}
	if !event.IsJSON(&d.Event) {
		return b, nil
	}
	before, after, enveloped := w.Profile.Around(d.Type, d.Data, func(place string) string { return fill(place, d, w, shop) })
	if enveloped {
		b.before, b.after, b.contentType = before, after, event.JSON
		if w.Profile.ContentType != "" {
			b.contentType = w.Profile.ContentType
		}
	}
	return format(b, w)
}

// format gives a JSON body the form that the webhook wants.
func format(b body, w *webhook.Webhook) (body, error) {
	if w.Webhook.GetFormat() != webhook.XML {
		return b, nil
	}
	text, err := xmlbody.FromJSON(b.bytes())
	if err != nil {
		return b, fmt.Errorf("the body cannot be written as XML: %w", err)
	}
	return body{before: text, contentType: xmlbody.ContentType, whole: true}, nil
}

// fill is what stands for a place of an envelope, as JSON.
func fill(place string, d *contract.Delivery, w *webhook.Webhook, shop *shopbellv1.Shop) string {
	switch place {
	case "id":
		return profile.Quote(d.Event.ID)
	case "type":
		return profile.Quote(d.Type)
	case "action":
		return profile.Quote(w.Profile.Action(d.Type, d.Action))
	case "occurred_at":
		return profile.Quote(d.OccurredAt)
	case "shop_id":
		return profile.Quote(d.ShopID)
	case "webshop_id":
		return strconv.FormatUint(uint64(shop.GetWebshopId()), 10)
	case "environment":
		return profile.Quote(d.Environment)
	}
	return "null"
}

// bytes is the body in one piece.
func (b body) bytes() []byte {
	if len(b.before) == 0 && len(b.after) == 0 {
		return b.data
	}
	out := make([]byte, 0, len(b.before)+len(b.data)+len(b.after))
	out = append(out, b.before...)
	out = append(out, b.data...)
	return append(out, b.after...)
}

// headers makes a request's headers, signed.
func headers(d *contract.Delivery, w *webhook.Webhook, contentType string, body []byte, agent string, now time.Time) http.Header {
	h := make(http.Header, 8+len(w.Webhook.Headers))
	for name, value := range w.Webhook.Headers {
		h.Set(name, value)
	}
	h["User-Agent"] = []string{agent}
	h["Content-Type"] = []string{contentType}
	for name, value := range w.Profile.Headers {
		h[name] = []string{value.For(d.Type)}
	}
	secrets := w.Signing(now)
	for _, s := range w.Profile.Signatures {
		switch s.Scheme {
		case profile.StandardWebhooks:
			h[signature.HeaderID] = []string{d.ID}
			h[signature.HeaderTimestamp] = []string{strconv.FormatInt(now.Unix(), 10)}
			h[signature.HeaderSignature] = []string{signature.Standard(secrets, d.ID, now, body)}
		case profile.HMACSHA256Hex:
			// There is room for one signature. While a replaced secret still signs it is that one's, so that nothing
			// changes for a receiver until its owner has had the time to give it the new one.
			h[s.Header] = []string{s.Prefix + signature.Hex(secrets[len(secrets)-1], body)}
		}
	}
	return h
}

// secretWords are what names of headers have whose values nobody else may see.
var secretWords = []string{"auth", "cookie", "credential", "key", "password", "secret", "token"}

const mask = "••••••"

// shown gives headers as they are kept in the log: by name, with secrets masked.
func shown(h http.Header, masked bool) []*shopbellv1.Header {
	out := make([]*shopbellv1.Header, 0, len(h))
	for name, values := range h {
		for _, value := range values {
			if masked && slices.ContainsFunc(secretWords, func(word string) bool { return strings.Contains(strings.ToLower(name), word) }) {
				value = mask
			}
			out = append(out, &shopbellv1.Header{Name: name, Value: value})
		}
	}
	slices.SortFunc(out, func(a, b *shopbellv1.Header) int { return strings.Compare(a.Name, b.Name) })
	return out
}
