package sender

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/expression"
	"shopbell.dev/pkg/key"
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
	whole               bool        // before is all of it, and does not hold the data as it came
	headers             http.Header // that the profile has beside it
}

// render makes a delivery's body, and the headers that its profile has beside it. It fails when the webhook's transform,
// or its format, does not fit the data.
func render(d *contract.Delivery, w *webhook.Webhook, shop *shopbellv1.Shop) (body, error) {
	value := func(place string) string { return fill(place, d, w, shop) }
	b, err := renderBody(d, w, value)
	b.headers = make(http.Header, len(w.Profile.Headers))
	for name, v := range w.Profile.Headers {
		if text := v.For(value); text != "" {
			b.headers[name] = []string{text}
		}
	}
	return b, err
}

func renderBody(d *contract.Delivery, w *webhook.Webhook, value func(place string) string) (body, error) {
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
	inJSON := func(place string) string {
		if place == "webshop_id" {
			return value(place) // a number
		}
		return profile.Quote(value(place))
	}
	if !event.IsJSON(&d.Event) {
		text, enveloped := w.Profile.Whole(d.Data, inJSON)
		if !enveloped {
			return b, nil
		}
		return format(body{before: text, contentType: envelopeType(w), whole: true}, w)
	}
	if before, after, enveloped := w.Profile.Around(d.Type, d.Data, inJSON); enveloped {
		b.before, b.after, b.contentType = before, after, envelopeType(w)
	}
	for _, r := range w.Profile.Renames {
		b = body{before: event.Rename(b.bytes(), r.At, r.Names), contentType: b.contentType, whole: true}
	}
	return format(b, w)
}

// envelopeType is the content type of a body in its envelope.
func envelopeType(w *webhook.Webhook) string { return cmp.Or(w.Profile.ContentType, event.JSON) }

// format gives a JSON body the form that the webhook wants.
func format(b body, w *webhook.Webhook) (body, error) {
	if w.Format != webhook.XML {
		return b, nil
	}
	text, err := xmlbody.FromJSON(b.bytes())
	if err != nil {
		return b, fmt.Errorf("the body cannot be written as XML: %w", err)
	}
	return body{before: text, contentType: xmlbody.ContentType, whole: true}, nil
}

// fill is what stands for a place of an envelope or of a header.
func fill(place string, d *contract.Delivery, w *webhook.Webhook, shop *shopbellv1.Shop) string {
	switch place {
	case "id":
		return d.Event.ID
	case "type":
		return d.Type
	case "action":
		return w.Profile.Action(d.Type, d.Action)
	case "occurred_at":
		return d.OccurredAt
	case "shop_id":
		return d.ShopID
	case "webshop_id":
		return strconv.FormatUint(uint64(shop.GetWebshopId()), 10)
	case "environment":
		return d.Environment
	case "key":
		return d.Key
	case "content_type":
		return d.ContentType
	}
	return ""
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

// headers makes the headers of a request with a body, whose text is signed.
func headers(d *contract.Delivery, w *webhook.Webhook, b body, text []byte, agent string, now time.Time) http.Header {
	h := make(http.Header, 8+len(b.headers)+len(w.OwnHeaders))
	for name, value := range w.OwnHeaders {
		h.Set(name, value)
	}
	h["User-Agent"] = []string{agent}
	h["Content-Type"] = []string{b.contentType}
	for name, values := range b.headers {
		h.Del(name) // it may stand there in another case
		h[name] = values
	}
	if name, key := w.APIKey(); name != "" {
		h.Del(name)
		h[name] = []string{key}
	}
	sign(h, d.ID, w, text, now)
	return h
}

// sign sets the headers that hold signatures. Each scheme signs with all secrets of its time as far as its header has
// room, so that receivers can be moved from one secret, and from one scheme, to another one by one.
func sign(h http.Header, deliveryID string, w *webhook.Webhook, body []byte, now time.Time) {
	secrets := w.Signing(now)
	var standard []string
	for _, s := range w.Signatures {
		switch s.Scheme {
		case profile.StandardWebhooks:
			standard = append(standard, signature.Standard(secrets, deliveryID, now, body))
		case profile.StandardWebhooksEd25519:
			if keys := w.PrivateKeys(now); len(keys) > 0 {
				standard = append(standard, signature.StandardEd25519(keys, deliveryID, now, body))
			}
		case profile.HMACSHA256Hex:
			// There is room for one signature. While a replaced secret still signs it is that one's, so that nothing
			// changes for a receiver until its owner has had the time to give it the new one.
			h.Del(s.Header)
			h[s.Header] = []string{s.Prefix + signature.Hex(secrets[len(secrets)-1], body)}
		}
	}
	if len(standard) > 0 {
		h[signature.HeaderID] = []string{deliveryID}
		h[signature.HeaderTimestamp] = []string{strconv.FormatInt(now.Unix(), 10)}
		h[signature.HeaderSignature] = []string{strings.Join(standard, " ")}
	}
}

// secretWords are what names of headers have whose values nobody else may see.
var secretWords = []string{"auth", "cookie", "credential", "key", "password", "secret", "token"}

const mask = "••••••"

// shown gives headers as they are kept in the log: by name, with secrets masked, and a shop's key wherever it stands.
func shown(h http.Header, masked bool) []*shopbellv1.Header {
	out := make([]*shopbellv1.Header, 0, len(h))
	for name, values := range h {
		secret := masked && namesSecret(name)
		for _, value := range values {
			if secret || strings.Contains(value, key.Prefix) {
				value = mask
			}
			out = append(out, &shopbellv1.Header{Name: readable(name), Value: readable(value)})
		}
	}
	slices.SortFunc(out, func(a, b *shopbellv1.Header) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func namesSecret(header string) bool {
	header = strings.ToLower(header)
	return slices.ContainsFunc(secretWords, func(word string) bool { return strings.Contains(header, word) })
}

// readable is a receiver's text as a record can hold it, which is UTF-8. What is not is taken for ISO-8859-1, as HTTP once
// meant it: a record that could not be made would have the delivery made again and again.
func readable(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	runes := make([]rune, len(text))
	for i := range len(text) {
		runes[i] = rune(text[i])
	}
	return string(runes)
}
