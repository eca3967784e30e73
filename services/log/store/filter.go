package store

import (
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"shopbell.dev/pkg/id"
)

// Filter chooses deliveries. All parts combine; those that are zero let everything through.
type Filter struct {
	ShopID     string // required
	WebhookID  string
	EventType  string
	EventID    string // finds only the deliveries that a decision about the event made
	DeliveryID string
	Status     string
	Codes      Codes
	ErrorClass string    // of the last attempt
	Text       string    // stands in the event's data; see Needle
	From       time.Time // created at this time or later
	To         time.Time // created before this time
	Before     string    // only ids less than this: the last id of the page before
	Since      string    // only this id and greater ones
	Limit      int       // required
}

// Codes chooses deliveries by what their last attempt was answered. The zero value lets everything through.
type Codes struct {
	Low, High int  // answered with a code from Low to High
	None      bool // attempted, and not answered at all
}

// Troubled says that the filter chooses only deliveries that were not simply delivered with a 2xx and no error. Stores
// have an index of these: they are few, and what people look for.
func (f Filter) Troubled() bool {
	return f.Status != "" && f.Status != "delivered" || f.Codes.None || f.Codes.High > 0 && (f.Codes.High < 200 || f.Codes.Low > 299) ||
		f.ErrorClass != ""
}

// OtherSuccess says that the filter chooses only deliveries of one code from 201 to 299 that may be simply delivered. Stores have
// an index of these: where most receivers answer 200, they are few.
func (f Filter) OtherSuccess() bool {
	return f.Codes.Low == f.Codes.High && f.Codes.Low > 200 && f.Codes.High < 300 && !f.Troubled()
}

// Span is between which ids the filter's deliveries lie: from low on, and less than high, where they are not empty.
// It spares a database reading what is older or newer; the exact times are still to be compared. late is the longest time
// between an event and its matching among deliveries created between From and To, as the store remembers it.
func (f Filter) Span(late time.Duration) (low, high string) {
	high = Key(f.Before)
	if !f.To.IsZero() {
		if bound := FirstID(f.To.Add(clocksApart)); high == "" || bound < high {
			high = bound
		}
	}
	if !f.From.IsZero() {
		low = FirstID(f.From.Add(-max(late, usualLateness)))
	}
	low = max(low, Key(f.Since))
	return low, high
}

const (
	// A delivery's id holds the time at which its event was accepted, and created_at the time at which it was matched.
	// Stores remember when that took longer: subscription was away, or far behind.
	usualLateness = time.Minute
	// How far the clock of the one may be ahead of the other's.
	clocksApart = 10 * time.Minute
)

// FirstID is the least id that a delivery of that time can have.
func FirstID(t time.Time) string {
	var u ulid.ULID
	_ = u.SetTime(uint64(max(t.UnixMilli(), 0))) // fails only for times after the year 10889
	return id.Delivery + u.String()
}

// Born is the time that a delivery's id holds: when its event was accepted. It is 1970 for an id that is not ours.
func Born(deliveryID string) time.Time {
	rest, ours := strings.CutPrefix(deliveryID, id.Delivery)
	u, err := ulid.ParseStrict(rest)
	if !ours || err != nil || u.Timestamp().Year() > 9999 {
		return unknownTime
	}
	return u.Timestamp().UTC()
}
