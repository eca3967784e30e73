package eventlog

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// tell makes an event's story: what was considered, what was sent, and all of it as sentences in the order in which it
// happened.
func tell(e *store.Event) *shopbellv1.Story {
	t := teller{labels: make(map[string]string)}
	for _, c := range e.Decision.GetConsidered() {
		t.labels[c.GetWebhookId()] = c.GetLabel()
	}
	t.accepted(e.Event)
	t.decision(e)
	s := &shopbellv1.Story{Decided: e.Decision != nil, Considered: e.Decision.GetConsidered()}
	for _, d := range e.Deliveries {
		s.Deliveries = append(s.Deliveries, d.Delivery)
		t.delivery(d)
	}
	// Stable: of things in the same instant, what was told first comes first.
	slices.SortStableFunc(t.lines, func(a, b *shopbellv1.StoryLine) int {
		return a.GetAt().AsTime().Compare(b.GetAt().AsTime())
	})
	s.Lines = t.lines
	return s
}

// teller gathers sentences.
type teller struct {
	labels map[string]string // of webhooks, by id
	lines  []*shopbellv1.StoryLine
}

func (t *teller) say(at time.Time, of *shopbellv1.StoryLine, format string, args ...any) {
	of.At, of.Text = timestamppb.New(at), fmt.Sprintf(format, args...)
	t.lines = append(t.lines, of)
}

func (t *teller) accepted(e *shopbellv1.Event) {
	if e.GetAcceptedAt() != nil {
		t.say(e.GetAcceptedAt().AsTime(), &shopbellv1.StoryLine{}, "accepted%s", because(" by ", e.GetAcceptedBy()))
	}
}

func (t *teller) decision(e *store.Event) {
	if e.Decision == nil {
		return
	}
	// A decision that was made again, after a crash, was made when the first of its deliveries was.
	at := e.DecidedAt
	for _, d := range e.Deliveries {
		if made := d.Delivery.GetCreatedAt(); made != nil && made.AsTime().Before(at) {
			at = made.AsTime()
		}
	}
	considered, matched := e.Decision.GetConsidered(), 0
	for _, c := range considered {
		if c.GetMatched() {
			matched++
		}
	}
	switch len(considered) {
	case 0:
		t.say(at, &shopbellv1.StoryLine{}, "matched to no webhook: none subscribes to %s", e.Event.GetType())
	case 1:
		t.say(at, &shopbellv1.StoryLine{}, "matched to %d of 1 webhook", matched)
	default:
		t.say(at, &shopbellv1.StoryLine{}, "matched to %d of %d webhooks", matched, len(considered))
	}
	for _, c := range considered {
		line := &shopbellv1.StoryLine{WebhookId: c.GetWebhookId(), DeliveryId: c.GetDeliveryId()}
		due, delayed := e.Decision.GetDue()[c.GetWebhookId()]
		switch {
		case !c.GetMatched():
			t.say(at, line, "passed over %s%s", t.webhook(c.GetWebhookId()), because(": ", c.GetReason()))
		case delayed:
			t.say(at, line, "delayed for %s until %s", t.webhook(c.GetWebhookId()), clock(due.AsTime()))
		}
	}
}

func (t *teller) delivery(d *store.Delivery) {
	for _, made := range d.Attempts {
		t.attempt(d.Delivery, made)
	}
	for _, c := range d.Changes {
		line := &shopbellv1.StoryLine{WebhookId: d.Delivery.GetWebhookId(), DeliveryId: d.Delivery.GetId()}
		t.say(c.At, line, "%s", t.outcome(d.Delivery.GetWebhookId(), c.Status, c.Reason, 0))
	}
}

// attempt says what was sent and answered, and then what became of the delivery by it.
func (t *teller) attempt(d *shopbellv1.Delivery, made *busv1.AttemptMade) {
	a := made.GetAttempt()
	line := func() *shopbellv1.StoryLine {
		return &shopbellv1.StoryLine{WebhookId: d.GetWebhookId(), DeliveryId: d.GetId(), Attempt: a.GetNumber()}
	}
	over := a.GetStartedAt().AsTime().Add(time.Duration(a.GetDurationMs() * float64(time.Millisecond)))
	var b strings.Builder
	fmt.Fprintf(&b, "attempt %d", a.GetNumber())
	switch {
	case a.GetReplayId() != "":
		fmt.Fprintf(&b, ", by replay %s,%s", a.GetReplayId(), asked(a))
	case a.GetByHand():
		fmt.Fprintf(&b, ", by hand,%s", asked(a))
	case a.GetAskedBy() != "":
		fmt.Fprintf(&b, ", ahead of its time,%s", asked(a))
	}
	fmt.Fprintf(&b, " to %s ", address(a.GetUrl()))
	if a.GetResponseCode() > 0 {
		fmt.Fprintf(&b, "answered %d after %s", a.GetResponseCode(), took(a.GetDurationMs()))
	} else {
		fmt.Fprintf(&b, "got no answer in %s", took(a.GetDurationMs()))
	}
	// Of a plain 500 the code says it all; of a wrong certificate or an answer that was too long only the error does.
	if a.GetErrorClass() != "" && a.GetErrorClass() != "http_status" {
		fmt.Fprintf(&b, " (%s%s)", a.GetErrorClass(), because(": ", hideQuery(a.GetError(), a.GetUrl())))
	}
	if made.GetStatus() == "retrying" {
		b.WriteString(": the next attempt is due")
		if a.GetNextAttemptAt() != nil {
			b.WriteString(" at " + clock(a.GetNextAttemptAt().AsTime()))
		}
		b.WriteString(because("; this one was ", hideQuery(made.GetReason(), a.GetUrl())))
	}
	t.say(over, line(), "%s", b.String())
	if made.GetStatus() != "retrying" {
		t.say(over, line(), "%s",
			t.outcome(d.GetWebhookId(), made.GetStatus(), hideQuery(made.GetReason(), a.GetUrl()), a.GetNumber()))
	}
}

// asked says who asked for an attempt.
func asked(a *shopbellv1.Attempt) string {
	if a.GetAskedBy() == "" {
		return ""
	}
	return " asked for by " + a.GetAskedBy() + ","
}

// outcome says which status a delivery took, after so many attempts, or by a change when that is 0.
func (t *teller) outcome(webhookID, status, reason string, attempts int32) string {
	webhook := t.webhook(webhookID)
	switch status {
	case "delivered":
		return "delivered to " + webhook + because(": ", reason)
	case "held", "delayed":
		return status + " for " + webhook + because(" because ", reason)
	case "failed":
		switch {
		case strings.HasPrefix(reason, "given up"):
			return reason // it says it all
		case attempts == 0:
			return "given up for " + webhook + because(": ", reason)
		case attempts == 1:
			return "given up after 1 attempt" + because(": ", reason)
		default:
			return fmt.Sprintf("given up after %d attempts%s", attempts, because(": ", reason))
		}
	case "cancelled":
		return "cancelled for " + webhook + because(": ", reason)
	case "pending", "retrying":
		return "on its way to " + webhook + because(": ", reason)
	default: // of a newer release
		return status + " for " + webhook + because(": ", reason)
	}
}

// webhook names a webhook with its label, as it was when the event came.
func (t *teller) webhook(webhookID string) string {
	if label := t.labels[webhookID]; label != "" {
		return fmt.Sprintf("%s (%s)", webhookID, label)
	}
	return webhookID
}

func because(joint, reason string) string {
	if reason == "" {
		return ""
	}
	return joint + reason
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

func took(ms float64) string {
	if ms < 1 {
		return "less than 1 ms"
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// address is a URL without what may hold secrets: its query, its fragment and its user.
func address(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "an address that is not a URL"
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return u.String()
}

// hideQuery takes the query of that URL out of a sentence.
func hideQuery(sentence, raw string) string {
	if raw == "" {
		return sentence
	}
	return strings.ReplaceAll(sentence, raw, address(raw))
}
