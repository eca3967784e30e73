package contract

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The headers of our messages, beside the one that holds their fields. nats.Header tells upper from lower case.
const (
	hdrShop    = "Shopbell-Shop"
	hdrWebhook = "Shopbell-Webhook"
	hdrRelease = "Shopbell-Release"
	hdrRecords = "Shopbell-Records"
	hdrParts   = "Shopbell-Parts"

	hdrSchedule       = "Nats-Schedule"
	hdrScheduleTarget = "Nats-Schedule-Target"
)

// Event is an event as it lies on the bus: its payload is the message's body, everything else stands in a header.
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
	// Uncounted is how many of the attempts before this one the schedule does not count: those that were probes, and those
	// from before a job sent the delivery again.
	Uncounted int
	// Deferred is how often an attempt was put off, since nobody has answered at the receiver's host for a while.
	Deferred int
	// Sequence is the event's in EVENTS: the order in which events were accepted. It is set for ordered webhooks alone.
	Sequence uint64
	// MatchedThrough is a sequence in EVENTS up to which every event was matched before this one was, of a delivery for an ordered
	// webhook: what lies in HELD of those events lies before it. 0: it was not asked.
	MatchedThrough uint64
	// OffRevision is the webhook's revision by which it was off, of a delivery that is held because of that; 0: it is not. It tells
	// what the owner meant who had discarded what was held, also when the bus has it after that.
	OffRevision uint64
	// Due is when the schedule has this attempt made, of a delivery that is held; zero: at once.
	Due time.Time
	// Early says that this attempt is made before it is due, since its receiver is well again.
	Early   bool
	AskedAt time.Time // when somebody asked for this one attempt by hand; zero: the schedule asks for it
	AskedBy string    // who did, by the name of the key; may be empty
	// Asked says that somebody asked for an attempt of the schedule before its time: it is not put off again.
	Asked bool
	// Replay is the job that asked for this one attempt. What comes of it says nothing of how well the receiver keeps
	// up with what happens.
	Replay string
	// Cancel says, in a sentence, that the attempt is not to be made: the delivery is cancelled.
	Cancel    string
	WholeBody bool // Data is the body, made before, and goes out as it is
}

// Counted is the number of the attempt to make as the schedule counts.
func (d *Delivery) Counted() int { return d.Attempt - d.Uncounted }

// ByHand says whether somebody asked for this attempt. It is not followed by others, unless a job asked for it.
func (d *Delivery) ByHand() bool { return !d.AskedAt.IsZero() }

// Message makes the event's message. Its id makes a repeat harmless.
func (e *Event) Message() *nats.Msg {
	var f fields
	e.addTo(&f)
	f.text("accepted-by", e.AcceptedBy)
	return f.message(EventSubject(e.ShopID, e.Type, e.Bulk), e.ShopID+"/"+e.ID, e.Data)
}

func (e *Event) addTo(f *fields) {
	f.text("shop", e.ShopID)
	f.text("event", e.ID)
	f.text("type", e.Type)
	f.text("action", e.Action)
	f.text("occurred-at", e.OccurredAt)
	f.text("environment", e.Environment)
	f.text("key", e.Key)
	f.text("content-type", e.ContentType)
	f.time("accepted-at", e.AcceptedAt)
	f.flag("bulk", e.Bulk)
}

// ParseEvent reads an event's message. The event's Data is the message's.
func ParseEvent(h nats.Header, data []byte) (Event, error) {
	d := Delivery{Event: Event{Data: data}}
	if err := d.read(h); err != nil {
		return d.Event, fmt.Errorf("event message %s/%s: %w", d.ShopID, d.Event.ID, err)
	}
	return d.Event, d.Event.check()
}

func (e *Event) check() error {
	switch {
	case e.ShopID == "" || e.ID == "" || e.Type == "":
		return fmt.Errorf("event message: shop %q, id %q, type %q: none may be empty", e.ShopID, e.ID, e.Type)
	case e.AcceptedAt.IsZero():
		return fmt.Errorf("event message %s/%s: time of acceptance: there is none", e.ShopID, e.ID)
	}
	return nil
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
	way := Straight
	if d.Bulk || d.Replay != "" {
		way = Bulk
	}
	return d.message(DeliverySubject(d.WebhookID, way), id)
}

// Later makes the message that has this attempt made at the given time (a scheduled message, ADR-51). The server keeps
// it over restarts; a time that has passed is now.
func (d *Delivery) Later(at time.Time) *nats.Msg {
	id := d.ID + "/" + strconv.Itoa(d.Attempt) + "/later"
	if d.Deferred > 0 {
		id += "/" + strconv.Itoa(d.Deferred)
	}
	m := d.message(LaterSubject(d.WebhookID, d.ID), id)
	m.Header[hdrSchedule] = []string{scheduleAt + at.UTC().Format(time.RFC3339Nano)}
	m.Header[hdrScheduleTarget] = []string{DeliverySubject(d.WebhookID, Due)}
	return m
}

const scheduleAt = "@at "

// InsteadOf makes the timer that takes the place of the delivery's timer with this sequence in LATER, and is due now.
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

// Hold makes the message that keeps the delivery until its webhook's lane takes it. From is the sequence, in its stream, of
// the message that is held, 0 for one that never lay there.
func (d *Delivery) Hold(from uint64) *nats.Msg {
	id := fmt.Sprintf("%s/held/%d/%d", d.ID, from, d.Attempt)
	if d.Deferred > 0 { // DELIVERIES may have had it under the same number
		id += "/" + strconv.Itoa(d.Deferred)
	}
	return d.message(HeldSubject(d.WebhookID), id)
}

// CancelHeld makes the message that has the delivery cancelled where it is held; Cancel says why. It replaces the one before
// it, and has no id: what was asked once and found nothing may be asked again.
func (d *Delivery) CancelHeld() *nats.Msg {
	m := d.message(CancelSubject(d.WebhookID, d.ID), "")
	delete(m.Header, jetstream.MsgIDHeader)
	m.Header[jetstream.MsgRollup], m.Data = []string{jetstream.MsgRollupSubject}, nil
	return m
}

func (d *Delivery) message(subject, id string) *nats.Msg {
	var f fields
	d.addTo(&f)
	f.text("delivery", d.ID)
	f.text("webhook", d.WebhookID)
	f.number("webhook-revision", d.Revision)
	f.time("matched-at", d.MatchedAt)
	f.number("attempt", uint64(d.Attempt))
	f.number("uncounted", uint64(d.Uncounted))
	f.number("deferred", uint64(d.Deferred))
	if !d.Due.IsZero() {
		f.time("due", d.Due)
	}
	f.flag("early", d.Early)
	f.number("sequence", d.Sequence)
	f.number("matched-through", d.MatchedThrough)
	f.number("off-revision", d.OffRevision)
	if d.ByHand() {
		f.time("by-hand", d.AskedAt)
	}
	f.text("asked-by", d.AskedBy)
	f.flag("asked", d.Asked)
	f.text("replay", d.Replay)
	f.text("cancel", d.Cancel)
	f.flag("whole-body", d.WholeBody)
	return f.message(subject, id, d.Data)
}

// ParseDelivery reads a delivery's message. The delivery's Data is the message's.
func ParseDelivery(h nats.Header, data []byte) (Delivery, error) {
	d := Delivery{Event: Event{Data: data}}
	if err := d.read(h); err != nil {
		return d, fmt.Errorf("delivery message %s: %w", d.ID, err)
	}
	if err := d.check(); err != nil {
		return d, err
	}
	switch {
	case d.ID == "" || d.WebhookID == "":
		return d, fmt.Errorf("delivery message of %s/%s: delivery %q, webhook %q: none may be empty", d.ShopID, d.Event.ID, d.ID, d.WebhookID)
	case d.MatchedAt.IsZero():
		return d, fmt.Errorf("delivery message %s: time of matching: there is none", d.ID)
	case d.Attempt < 1:
		return d, fmt.Errorf("delivery message %s: attempt %d is not a number from 1", d.ID, d.Attempt)
	case d.Uncounted < 0 || d.Uncounted >= d.Attempt:
		return d, fmt.Errorf("delivery message %s: %d of %d attempts are not counted", d.ID, d.Uncounted, d.Attempt-1)
	}
	return d, nil
}

// read takes the fields of a message, which are an event's or a delivery's. Fields that a newer program has written and
// we do not know are passed over.
func (d *Delivery) read(h nats.Header) (err error) {
	for name, value := range allFields(h) {
		switch name {
		case "shop":
			d.ShopID = value
		case "event":
			d.Event.ID = value
		case "type":
			d.Type = value
		case "action":
			d.Action = value
		case "occurred-at":
			d.OccurredAt = value
		case "environment":
			d.Environment = value
		case "key":
			d.Key = value
		case "content-type":
			d.ContentType = value
		case "accepted-at":
			d.AcceptedAt, err = parseTime("time of acceptance", value)
		case "accepted-by":
			d.AcceptedBy = value
		case "bulk":
			d.Bulk = value != ""
		case "delivery":
			d.ID = value
		case "webhook":
			d.WebhookID = value
		case "webhook-revision":
			d.Revision, err = parseNumber("revision of the webhook", value)
		case "matched-at":
			d.MatchedAt, err = parseTime("time of matching", value)
		case "attempt":
			d.Attempt, err = parseSmall("attempt", value)
		case "uncounted":
			d.Uncounted, err = parseSmall("attempts that are not counted", value)
		case "deferred":
			d.Deferred, err = parseSmall("how often it was put off", value)
		case "due":
			d.Due, err = parseTime("time when it is due", value)
		case "early":
			d.Early = value != ""
		case "sequence":
			d.Sequence, err = parseNumber("sequence of the event", value)
		case "matched-through":
			d.MatchedThrough, err = parseNumber("sequence up to which events were matched", value)
		case "off-revision":
			d.OffRevision, err = parseNumber("revision by which the webhook was off", value)
		case "by-hand":
			d.AskedAt, err = parseTime("time of asking", value)
		case "asked-by":
			d.AskedBy = value
		case "asked":
			d.Asked = value != ""
		case "replay":
			d.Replay = value
		case "cancel":
			d.Cancel = value
		case "whole-body":
			d.WholeBody = value != ""
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Again makes the message anew that lay in a stream with this sequence, to be stored where it belongs now: with the headers that its
// publisher gave it, but for those that speak of where it lay.
func Again(subject string, h nats.Header, data []byte, sequence uint64) *nats.Msg {
	m := &nats.Msg{Subject: subject, Header: make(nats.Header, len(h)), Data: data}
	for name, values := range h {
		if !strings.HasPrefix(name, "Nats-") || name == hdrSchedule || name == hdrScheduleTarget {
			m.Header[name] = values
		}
	}
	m.Header[jetstream.MsgIDHeader] = []string{"again/" + strconv.FormatUint(sequence, 10)}
	return m
}

// Release asks whoever makes attempts to empty what is held for a webhook: to send it, or to discard it.
type Release struct {
	ShopID, WebhookID string
	Discard           bool
	// Through is the sequence in HELD up to which it is meant: what is held later is not.
	Through uint64
}

// Message makes the release's message.
func (r *Release) Message() *nats.Msg {
	m := &nats.Msg{Subject: DeliverySubject(r.WebhookID, Straight), Header: make(nats.Header, 5)}
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

func get(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// RecordMessage makes the message of a record; webhookID may be empty. It has no id: a record that is there twice counts once, and
// the bus would have to remember two minutes of ids.
func RecordMessage(shop, webhookID string, record []byte) *nats.Msg {
	return &nats.Msg{Subject: OutcomeSubject(shop, webhookID), Data: record}
}

// RecordsMessage makes the message of several records, which may be of several shops (empty) and webhooks (empty).
func RecordsMessage(shop, webhookID string, records []byte, count int) *nats.Msg {
	m := RecordMessage(shop, webhookID, records)
	m.Header = nats.Header{hdrRecords: {strconv.Itoa(count)}}
	if shop == "" {
		m.Subject = SharedOutcomes
	}
	return m
}

// IsRecords says whether a message of OUTCOMES holds several records.
func IsRecords(h nats.Header) bool { return get(h, hdrRecords) != "" }

// BatchMessage makes the message of a part of a batch, which has so many parts.
func BatchMessage(batchID string, part, parts int, body []byte) *nats.Msg {
	return &nats.Msg{Subject: BatchSubject(batchID), Data: body, Header: nats.Header{
		jetstream.MsgIDHeader: {batchID + "/" + strconv.Itoa(part)}, hdrParts: {strconv.Itoa(parts)},
	}}
}

// PartsOf is how many parts the batch has of which a message is one; 0 when it is none.
func PartsOf(h nats.Header) int {
	n, err := strconv.Atoi(get(h, hdrParts))
	if err != nil {
		return 0
	}
	return n
}

// ShopOf is the shop that a message speaks of.
func ShopOf(h nats.Header) string {
	for name, value := range allFields(h) {
		if name == "shop" {
			return value
		}
	}
	return ""
}

// TriesMessage makes the message of what was tried with a held delivery. It replaces the one before it.
func TriesMessage(webhookID, deliveryID string, tries []byte) *nats.Msg {
	return &nats.Msg{Subject: TriesSubject(webhookID, deliveryID), Data: tries, Header: nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}}}
}

// SwitchMessage makes the message that asks for a webhook to be switched off.
func SwitchMessage(shop, webhookID string, wish []byte, id string) *nats.Msg {
	return &nats.Msg{Subject: SwitchSubject(shop, webhookID), Data: wish, Header: nats.Header{jetstream.MsgIDHeader: {id}}}
}
