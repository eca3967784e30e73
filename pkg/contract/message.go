package contract

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The headers of our messages. nats.Header tells upper from lower case.
const (
	hdrShop        = "Shopbell-Shop"
	hdrEvent       = "Shopbell-Event"
	hdrType        = "Shopbell-Type"
	hdrAction      = "Shopbell-Action"
	hdrOccurredAt  = "Shopbell-Occurred-At"
	hdrEnvironment = "Shopbell-Environment"
	hdrKey         = "Shopbell-Key"
	hdrContentType = "Shopbell-Content-Type"
	hdrAcceptedAt  = "Shopbell-Accepted-At"
	hdrAcceptedBy  = "Shopbell-Accepted-By"
	hdrDelivery    = "Shopbell-Delivery"
	hdrWebhook     = "Shopbell-Webhook"
	hdrRevision    = "Shopbell-Webhook-Revision"
	hdrMatchedAt   = "Shopbell-Matched-At"
	hdrAttempt     = "Shopbell-Attempt"
	hdrBulk        = "Shopbell-Bulk"
	hdrUncounted   = "Shopbell-Uncounted"
	hdrSequence    = "Shopbell-Sequence"
	hdrDue         = "Shopbell-Due"
	hdrByHand      = "Shopbell-By-Hand"
	hdrAskedBy     = "Shopbell-Asked-By"
	hdrReplay      = "Shopbell-Replay"
	hdrCancel      = "Shopbell-Cancel"
	hdrWholeBody   = "Shopbell-Whole-Body"
	hdrRelease     = "Shopbell-Release"

	hdrSchedule       = "Nats-Schedule"
	hdrScheduleTarget = "Nats-Schedule-Target"
)

// Event is an event as it lies on the bus: its payload is the message's body, everything else its headers.
type Event struct {
	ShopID, ID, Type, Action string
	OccurredAt               string // RFC 3339, as the publisher wrote it
	Environment              string // "live" or "test"
	Key                      string
	ContentType              string
	AcceptedAt               time.Time
	AcceptedBy               string // the key it came with, by its name; empty where none is asked for, and on deliveries
	Data                     []byte
	// Bulk says that it came in a burst of its shop, and goes behind what others publish one by one.
	Bulk bool
}

// Delivery is an event on its way to one webhook. Data is the event's payload, or the finished body when WholeBody is
// set.
type Delivery struct {
	Event
	ID, WebhookID string
	// Revision is the webhook's when it was matched: whoever sends knows from it when his own view is older.
	Revision  uint64
	MatchedAt time.Time
	Attempt   int // the number of the attempt to make, from 1
	// Uncounted is how many of the attempts before this one the schedule does not count: those that were probes.
	Uncounted int
	// Sequence is the event's in EVENTS: the order in which events were accepted. It is set for ordered webhooks alone.
	Sequence uint64
	// Due is when the schedule has this attempt made, of a delivery that is held; zero: at once.
	Due     time.Time
	AskedAt time.Time // when somebody asked for this one attempt by hand; zero: the schedule asks for it
	AskedBy string    // who did, by the name of the key; may be empty
	// Replay is the job that asked for this one attempt. What comes of it says nothing of how well the receiver keeps
	// up with what happens.
	Replay string
	// Cancel says, in a sentence, that the attempt is not to be made: the delivery is cancelled.
	Cancel    string
	WholeBody bool // Data is the body, made before, and goes out as it is
}

// Counted is the number of the attempt to make as the schedule counts.
func (d *Delivery) Counted() int { return d.Attempt - d.Uncounted }

// ByHand says whether somebody asked for this attempt. It is not followed by others.
func (d *Delivery) ByHand() bool { return !d.AskedAt.IsZero() }

// Message makes the event's message. Its id makes a repeat harmless.
func (e *Event) Message() *nats.Msg {
	m := &nats.Msg{Subject: EventSubject(e.ShopID, e.Type, e.Bulk), Header: make(nats.Header, 12), Data: e.Data}
	e.setHeaders(m.Header)
	set(m.Header, hdrAcceptedBy, e.AcceptedBy)
	m.Header[jetstream.MsgIDHeader] = []string{e.ShopID + "/" + e.ID}
	return m
}

func (e *Event) setHeaders(h nats.Header) {
	set(h, hdrShop, e.ShopID)
	set(h, hdrEvent, e.ID)
	set(h, hdrType, e.Type)
	set(h, hdrAction, e.Action)
	set(h, hdrOccurredAt, e.OccurredAt)
	set(h, hdrEnvironment, e.Environment)
	set(h, hdrKey, e.Key)
	set(h, hdrContentType, e.ContentType)
	set(h, hdrAcceptedAt, e.AcceptedAt.UTC().Format(time.RFC3339Nano))
	setFlag(h, hdrBulk, e.Bulk)
}

// ParseEvent reads an event's message. The event's Data is the message's.
func ParseEvent(h nats.Header, data []byte) (Event, error) {
	e := Event{
		ShopID: get(h, hdrShop), ID: get(h, hdrEvent), Type: get(h, hdrType), Action: get(h, hdrAction),
		OccurredAt: get(h, hdrOccurredAt), Environment: get(h, hdrEnvironment), Key: get(h, hdrKey),
		ContentType: get(h, hdrContentType), AcceptedBy: get(h, hdrAcceptedBy), Data: data,
		Bulk: get(h, hdrBulk) != "",
	}
	if e.ShopID == "" || e.ID == "" || e.Type == "" {
		return e, fmt.Errorf("event message: shop %q, id %q, type %q: none may be empty", e.ShopID, e.ID, e.Type)
	}
	var err error
	if e.AcceptedAt, err = time.Parse(time.RFC3339Nano, get(h, hdrAcceptedAt)); err != nil {
		return e, fmt.Errorf("event message %s/%s: time of acceptance: %w", e.ShopID, e.ID, err)
	}
	return e, nil
}

// Message makes the message that has this attempt made at once. All messages of a delivery have ids that name what they
// follow from, so that whoever repeats himself after a crash makes no second one.
func (d *Delivery) Message() *nats.Msg {
	id := d.ID + "/" + strconv.Itoa(d.Attempt)
	switch {
	case d.Replay != "": // one attempt for each job, whichever number it has by the time a job's chunk is repeated
		id = d.Replay + "/" + d.ID
	case d.ByHand():
		id += "/" + strconv.FormatInt(d.AskedAt.UnixNano(), 36)
	}
	return d.message(d.subject(), id)
}

// subject is where the delivery lies. A replay is a burst too.
func (d *Delivery) subject() string { return DeliverySubject(d.WebhookID, d.Bulk || d.Replay != "") }

// Later makes the message that has this attempt made at the given time (a scheduled message, ADR-51). The server keeps
// it over restarts; a time that has passed is now.
func (d *Delivery) Later(at time.Time) *nats.Msg {
	m := d.message(LaterSubject(d.WebhookID, d.ID), d.ID+"/"+strconv.Itoa(d.Attempt)+"/later")
	m.Header[hdrSchedule] = []string{scheduleAt + at.UTC().Format(time.RFC3339Nano)}
	m.Header[hdrScheduleTarget] = []string{d.subject()}
	return m
}

const scheduleAt = "@at "

// InsteadOf makes the timer that takes the place of the delivery's timer with this sequence in DELIVERIES, and is due now.
// The bus refuses it when another message has come to that place, or the timer's time has: one of the two is there, and
// never both.
func (d *Delivery) InsteadOf(timer uint64, now time.Time) *nats.Msg {
	m := d.Later(now)
	m.Header[jetstream.MsgIDHeader] = []string{d.ID + "/instead/" + strconv.FormatUint(timer, 10) + "/" + strconv.FormatInt(now.UnixNano(), 36)}
	m.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(timer, 10)}
	return m
}

// ParseLater reads a timer's message: the delivery, and when it is due.
func ParseLater(h nats.Header, data []byte) (d Delivery, due time.Time, err error) {
	if d, err = ParseDelivery(h, data); err != nil {
		return d, due, err
	}
	at, ok := strings.CutPrefix(get(h, hdrSchedule), scheduleAt)
	if !ok {
		return d, due, fmt.Errorf("timer of delivery %s: %q is not %q and a time", d.ID, get(h, hdrSchedule), scheduleAt)
	}
	if due, err = time.Parse(time.RFC3339Nano, at); err != nil {
		return d, due, fmt.Errorf("timer of delivery %s: when it is due: %w", d.ID, err)
	}
	return d, due, nil
}

// Hold makes the message that keeps the delivery until its webhook's lane takes it. From is the sequence in DELIVERIES of
// the message that is held, 0 for one that never lay there.
func (d *Delivery) Hold(from uint64) *nats.Msg {
	return d.message(HeldSubject(d.WebhookID), fmt.Sprintf("%s/held/%d/%d", d.ID, from, d.Attempt))
}

func (d *Delivery) message(subject, id string) *nats.Msg {
	m := &nats.Msg{Subject: subject, Header: d.headers(), Data: d.Data}
	m.Header[jetstream.MsgIDHeader] = []string{id}
	return m
}

func (d *Delivery) headers() nats.Header {
	h := make(nats.Header, 20)
	d.setHeaders(h)
	set(h, hdrDelivery, d.ID)
	set(h, hdrWebhook, d.WebhookID)
	if d.Revision > 0 {
		set(h, hdrRevision, strconv.FormatUint(d.Revision, 10))
	}
	set(h, hdrMatchedAt, d.MatchedAt.UTC().Format(time.RFC3339Nano))
	set(h, hdrAttempt, strconv.Itoa(d.Attempt))
	if d.Uncounted > 0 {
		set(h, hdrUncounted, strconv.Itoa(d.Uncounted))
	}
	if !d.Due.IsZero() {
		set(h, hdrDue, d.Due.UTC().Format(time.RFC3339Nano))
	}
	if d.Sequence > 0 {
		set(h, hdrSequence, strconv.FormatUint(d.Sequence, 10))
	}
	if d.ByHand() {
		set(h, hdrByHand, d.AskedAt.UTC().Format(time.RFC3339Nano))
	}
	set(h, hdrAskedBy, d.AskedBy)
	set(h, hdrReplay, d.Replay)
	set(h, hdrCancel, d.Cancel)
	setFlag(h, hdrWholeBody, d.WholeBody)
	return h
}

// ParseDelivery reads a delivery's message. The delivery's Data is the message's.
func ParseDelivery(h nats.Header, data []byte) (Delivery, error) {
	e, err := ParseEvent(h, data)
	d := Delivery{
		Event: e, ID: get(h, hdrDelivery), WebhookID: get(h, hdrWebhook),
		AskedBy: get(h, hdrAskedBy), Replay: get(h, hdrReplay), Cancel: get(h, hdrCancel),
		WholeBody: get(h, hdrWholeBody) != "",
	}
	if err != nil {
		return d, err
	}
	if d.ID == "" || d.WebhookID == "" {
		return d, fmt.Errorf("delivery message of %s/%s: delivery %q, webhook %q: none may be empty", e.ShopID, e.ID, d.ID, d.WebhookID)
	}
	if d.MatchedAt, err = time.Parse(time.RFC3339Nano, get(h, hdrMatchedAt)); err != nil {
		return d, fmt.Errorf("delivery message %s: time of matching: %w", d.ID, err)
	}
	if text := get(h, hdrRevision); text != "" {
		if d.Revision, err = strconv.ParseUint(text, 10, 64); err != nil {
			return d, fmt.Errorf("delivery message %s: revision of the webhook: %w", d.ID, err)
		}
	}
	if asked := get(h, hdrByHand); asked != "" {
		if d.AskedAt, err = time.Parse(time.RFC3339Nano, asked); err != nil {
			return d, fmt.Errorf("delivery message %s: time of asking: %w", d.ID, err)
		}
	}
	if d.Attempt, err = strconv.Atoi(get(h, hdrAttempt)); err != nil || d.Attempt < 1 {
		return d, fmt.Errorf("delivery message %s: attempt %q is not a number from 1", d.ID, get(h, hdrAttempt))
	}
	if text := get(h, hdrUncounted); text != "" {
		if d.Uncounted, err = strconv.Atoi(text); err != nil || d.Uncounted < 0 || d.Uncounted >= d.Attempt {
			return d, fmt.Errorf("delivery message %s: %q of %d attempts are not counted", d.ID, text, d.Attempt-1)
		}
	}
	if due := get(h, hdrDue); due != "" {
		if d.Due, err = time.Parse(time.RFC3339Nano, due); err != nil {
			return d, fmt.Errorf("delivery message %s: time when it is due: %w", d.ID, err)
		}
	}
	if text := get(h, hdrSequence); text != "" {
		if d.Sequence, err = strconv.ParseUint(text, 10, 64); err != nil {
			return d, fmt.Errorf("delivery message %s: sequence of the event: %w", d.ID, err)
		}
	}
	return d, nil
}

// Release asks whoever consumes DELIVERIES to empty what is held for a webhook: to send it, or to discard it.
type Release struct {
	ShopID, WebhookID string
	Discard           bool
	// Through is the sequence in HELD up to which it is meant: what is held later is not.
	Through uint64
}

// Message makes the release's message.
func (r *Release) Message() *nats.Msg {
	m := &nats.Msg{Subject: DeliverySubject(r.WebhookID, false), Header: make(nats.Header, 5)}
	set(m.Header, hdrShop, r.ShopID)
	set(m.Header, hdrWebhook, r.WebhookID)
	what := "send"
	if r.Discard {
		what = "discard"
	}
	set(m.Header, hdrRelease, what+" "+strconv.FormatUint(r.Through, 10))
	m.Header[jetstream.MsgIDHeader] = []string{"release/" + r.WebhookID + "/" + what + "/" + strconv.FormatUint(r.Through, 10)}
	return m
}

// ParseRelease reads a release's message; ok is false when the message is none.
func ParseRelease(h nats.Header) (r Release, ok bool, err error) {
	text := get(h, hdrRelease)
	if text == "" {
		return r, false, nil
	}
	r = Release{ShopID: get(h, hdrShop), WebhookID: get(h, hdrWebhook)}
	var what string
	if _, err := fmt.Sscanf(text, "%s %d", &what, &r.Through); err != nil || r.WebhookID == "" || (what != "send" && what != "discard") {
		return r, true, fmt.Errorf("release message of webhook %q: %q is not \"send\" or \"discard\" and a sequence", r.WebhookID, text)
	}
	r.Discard = what == "discard"
	return r, true, nil
}

// set leaves out what is empty. A value never holds a line break: everything that becomes a header is checked where it
// comes in.
func set(h nats.Header, name, value string) {
	if value != "" {
		h[name] = []string{value}
	}
}

func setFlag(h nats.Header, name string, on bool) {
	if on {
		h[name] = []string{"1"}
	}
}

func get(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// RecordMessage makes the message of a record; webhookID may be empty. A repeat with the same id is one record.
func RecordMessage(shop, webhookID string, record []byte, id string) *nats.Msg {
	return &nats.Msg{Subject: OutcomeSubject(shop, webhookID), Data: record, Header: nats.Header{jetstream.MsgIDHeader: {id}}}
}

// ShopOf is the shop that a message speaks of.
func ShopOf(h nats.Header) string { return get(h, hdrShop) }

// TriesMessage makes the message of what was tried with a held delivery. It replaces the one before it.
func TriesMessage(webhookID, deliveryID string, tries []byte) *nats.Msg {
	return &nats.Msg{Subject: TriesSubject(webhookID, deliveryID), Data: tries, Header: nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}}}
}

// SwitchMessage makes the message that asks for a webhook to be switched off.
func SwitchMessage(shop, webhookID string, wish []byte, id string) *nats.Msg {
	return &nats.Msg{Subject: SwitchSubject(shop, webhookID), Data: wish, Header: nats.Header{jetstream.MsgIDHeader: {id}}}
}
