// Package store is what the log keeps, whichever database keeps it: the rows, and how what comes from the bus in any
// order becomes rows.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// ErrNotFound says that the shop has no such thing in the log. It comes wrapped.
var ErrNotFound = errors.New("not found")

// ErrAway says that the database cannot be used now, and may be usable later without anybody changing this process. It comes
// wrapped.
var ErrAway = errors.New("away")

// Store is the log's database. Its methods may be called at once, from many processes where the database is a server.
//
// It promises the same for every database; package storetest holds the promises as tests.
type Store interface {
	// Write stores a batch whole or not at all. Writing anything again changes nothing, and the order in which
	// batches come does not matter: an attempt may be there before its decision, and a decision before its event.
	// What no column can hold is stored in a safe form, so that one odd record never keeps the others waiting. An
	// error therefore means that the database is away or full, and that writing the same again later will do.
	Write(ctx context.Context, batch Batch) error

	// Event reads an event with its deliveries and their attempts. It returns ErrNotFound when neither the event nor
	// what was decided about it is there.
	Event(ctx context.Context, shopID, eventID string) (*Event, error)

	// Events lists the events of a shop that were accepted in a time span, with their data, the first first. Those of one
	// microsecond come in the order of their ids.
	Events(ctx context.Context, filter EventsFilter) ([]*shopbellv1.Event, error)

	// Deliveries lists deliveries without bodies and attempts, the greatest id first, which is the newest. With a text
	// in the filter it reads the data of their events, and at most so much of it: see Page.ReadTo.
	Deliveries(ctx context.Context, filter Filter) (*Page, error)

	// Details reads deliveries of a shop with their events, their attempts and the exact body of the last one, by their ids.
	// One that is not there is left out. One alone is read with Detail.
	Details(ctx context.Context, shopID string, deliveryIDs []string) (map[string]*Delivery, error)

	// Stats reads statistics, in the order of their keys; hours and days in which nothing was counted are left out.
	Stats(ctx context.Context, filter StatsFilter) ([]StatsRow, error)
	// ThinStats puts some of the hours that begin before hoursUntil together into their days, and forgets days that
	// begin before daysUntil. more says that it is to be called again; it takes small steps, so that writing goes on
	// between them.
	ThinStats(ctx context.Context, hoursUntil, daysUntil time.Time) (more bool, err error)

	// Attempts reads the attempts of these deliveries, each delivery's in their order, by the deliveries' ids. A delivery
	// without any is left out.
	Attempts(ctx context.Context, shopID string, deliveryIDs []string) (map[string][]*shopbellv1.Attempt, error)

	// Forget forgets detail, the oldest first: what belongs to events that were accepted longer ago than is kept, and more
	// until the log takes no more disk than it may. Statistics stay. It goes in steps between which others write, and does
	// what there is to do before it returns. Replicas may call it at once: one of them does it.
	Forget(ctx context.Context, now time.Time, keep Keep) (Forgotten, error)

	// Holding are the ids of the shop's events that hold a text (see Needle) in their data, or in what was sent and answered
	// for them. It reads all that there is of the shop.
	Holding(ctx context.Context, shopID, text string) ([]string, error)

	// Expunge removes these events of the shop with all that became of them. It leaves
	// statistics. Calling it again removes what came meanwhile.
	Expunge(ctx context.Context, shopID string, these Events) (Expunged, error)

	// Size is how many bytes the log takes on disk.
	Size(ctx context.Context) (int64, error)

	// Close ends all connections. It waits for calls that are under way.
	Close() error
}

// Detail reads a delivery as Store.Details does. It returns ErrNotFound.
func Detail(ctx context.Context, s Store, shopID, deliveryID string) (*Delivery, error) {
	known, err := s.Details(ctx, shopID, []string{deliveryID})
	if err != nil {
		return nil, err
	}
	d, ok := known[Key(deliveryID)]
	if !ok {
		return nil, fmt.Errorf("read delivery %s/%s: %w", shopID, deliveryID, ErrNotFound)
	}
	return d, nil
}

// Batch is what is written at once.
type Batch struct {
	// Events need shop_id, id, accepted_at and data.
	Events []*shopbellv1.Event
	// Records need at and shop_id. What names neither an event nor a delivery, and kinds of records that a newer
	// release invented, are left out.
	Records []*busv1.Record
}

// Keep is how much detail is kept.
type Keep struct {
	Age   time.Duration // 0: any
	Bytes int64         // on disk; 0: any
}

// Forgotten is what Forget did.
type Forgotten struct {
	// Until is the time before which events were accepted whose detail was forgotten; zero when there was none.
	Until time.Time
	// ForSize says that it had to go before its time, because the log was too large.
	ForSize bool
}

// Events are ids of events, or all events.
type Events struct {
	IDs []string
	All bool
}

// Expunged is how many rows were removed.
type Expunged struct{ Events, Decisions, Deliveries, Attempts, Changes int64 }

// EventsFilter chooses events of a shop.
type EventsFilter struct {
	ShopID string
	// When they were accepted, in whole microseconds: From is in the span, To is not.
	From, To time.Time
	// After leaves out those that were accepted at From itself and whose ids are not greater: with the time and the id of
	// the last one of a list, the next one begins behind it.
	After string
	Limit int
}

// Page is a part of a list of deliveries.
type Page struct {
	Deliveries []*shopbellv1.Delivery
	// ReadTo is set when a search for text has read as much as one call may, and the page is not full: the last id
	// that it has looked at. With it as Filter.Before the search goes on.
	ReadTo string
}

// Event is an event and what became of it.
type Event struct {
	// Event is the event with its data and without a story. Only its ids and its type are set until it has come
	// itself.
	Event *shopbellv1.Event
	// Decision is which webhooks it goes to; nil until that is known.
	Decision *busv1.Decision
	// DecidedAt is when that was decided.
	DecidedAt time.Time
	// Deliveries are the deliveries that Decision names, in its order.
	Deliveries []*Delivery
}

// Delivery is a delivery and what became of it.
type Delivery struct {
	// Delivery holds its attempts, and its body where BodyKnown says so.
	Delivery *shopbellv1.Delivery
	// Attempts are the records of the attempts, in the order of Delivery.Attempts. The last one is the one that
	// Delivery speaks of.
	Attempts []*busv1.AttemptMade
	// Changes are what happened to it besides attempts, the oldest first.
	Changes []Change
	// Event is the event without a story; nil when it is not there, and where an Event holds this delivery.
	Event *shopbellv1.Event
	// BodyKnown says that Delivery.Body is what the last attempt sent, even when that is nothing. It is false before
	// the first attempt, and while the event's data is missing.
	BodyKnown bool
}

// Change is a status that a delivery took without an attempt.
type Change struct {
	At             time.Time
	Status, Reason string
}
