package sender

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/webhook"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// body is what is sent: the event's data as it came, and what the profile writes around it.
type body struct {
	before, data, after []byte
	contentType         string
}

// render makes a delivery's body.
func render(d *contract.Delivery, w *webhook.Webhook) body {
	b := body{data: d.Data, contentType: d.ContentType}
	if d.WholeBody || w.Profile.Envelope.String() == "" || !event.IsJSON(&d.Event) {
		return b
	}
	b.contentType = "application/json"
	b.before, b.after = w.Profile.Envelope.Around(func(place string) string {
		switch place {
		case "id":
			return d.Event.ID
		case "type":
			return d.Type
		case "action":
			return d.Action
		case "occurred_at":
			return d.OccurredAt
		case "shop_id":
			return d.ShopID
		case "environment":
			return d.Environment
		}
		return ""
	})
	return b
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
	for _, scheme := range w.Profile.Signatures {
		if scheme == profile.StandardWebhooks {
			h[signature.HeaderID] = []string{d.ID}
			h[signature.HeaderTimestamp] = []string{strconv.FormatInt(now.Unix(), 10)}
			h[signature.HeaderSignature] = []string{signature.Standard(w.Keys(now), d.ID, now, body)}
		}
	}
	return h
}

// secretWords are what names of headers have whose values nobody else may see.
var secretWords = []string{"authorization", "cookie", "key", "token", "secret", "password"}

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
