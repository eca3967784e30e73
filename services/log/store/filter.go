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
	Limit      int       // required
}

// Codes chooses deliveries by what their last attempt was answered. The zero value lets everything through.
type Codes struct {
	Low, High int  // answered with a code from Low to High
	None      bool // attempted, and not answered at all
}

// Span is between which ids the filter's deliveries lie: from low on, and less than high, where they are not empty.
// It spares a database reading what is older or newer; the exact times are still to be compared.
func (f Filter) Span() (low, high string) {
	high = Key(f.Before)
	if !f.To.IsZero() {
		if bound := idAt(f.To.Add(clocksApart)); high == "" || bound < high {
			high = bound
		}
	}
	if !f.From.IsZero() {
		low = idAt(f.From.Add(-lateMatch))
	}
	return low, high
}

const (
	// A delivery's id holds the time at which its event was accepted, and created_at the time at which it was
	// matched. So long may subscription have been away between the two; the bus keeps events for a week.
	lateMatch = 8 * 24 * time.Hour
	// How far the clock of the one may be ahead of the other's.
	clocksApart = 10 * time.Minute
)

// idAt is less than every delivery's id of that time or later.
func idAt(t time.Time) string {
	var u ulid.ULID
	_ = u.SetTime(uint64(max(t.UnixMilli(), 0))) // fails only for times after the year 10889
	return id.Delivery + u.String()[:10]
}

// TimeOf is the time that a delivery's id holds: when its event was accepted. It is zero for an id that is not ours.
func TimeOf(deliveryID string) time.Time {
	u, err := ulid.ParseStrict(strings.TrimPrefix(deliveryID, id.Delivery))
	if err != nil || u.Timestamp().Year() > 9999 {
		return time.Time{}
	}
	return u.Timestamp().UTC()
}
