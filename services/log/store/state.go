package store

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// State is a delivery's row: what is known of it without reading its attempts.
//
// A delivery's status comes from three kinds of facts that arrive in any order: the decision that made it, its
// attempts, and changes without an attempt. State keeps the last of each kind, and not only the status they amount to:
// so Merge gives the same however the facts came, and with however many repeats.
type State struct {
	ShopID, ID                    string
	WebhookID, EventID, EventType string
	Test                          bool
	CreatedAt                     time.Time
	Due                           time.Time // when the decision says that the first attempt is due; zero: at once
	Attempt                       AttemptState
	Change                        Change
}

// AttemptState is what the last attempt left behind. Without an attempt it is zero.
type AttemptState struct {
	Number        int32
	StartedAt     time.Time
	At            time.Time // when it was over
	Status        string    // the delivery's status after it
	Reason        string
	NextAttemptAt time.Time
	ResponseCode  int32
	ErrorClass    string
}

// Merge adds what another state of the same delivery knows. The webhook stays: all facts about a delivery name it, and
// rows are found by it.
func (s State) Merge(o State) State {
	s.EventID = cmp.Or(s.EventID, o.EventID)
	s.EventType = cmp.Or(s.EventType, o.EventType)
	s.Test = s.Test || o.Test
	s.CreatedAt = earlier(s.CreatedAt, o.CreatedAt)
	s.Due = earlier(s.Due, o.Due)
	if s.Attempt.compare(o.Attempt) < 0 {
		s.Attempt = o.Attempt
	}
	if s.Change.compare(o.Change) < 0 {
		s.Change = o.Change
	}
	return s
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Attempts are ranked by number first: the clocks of two senders may differ, the numbers do not. A number comes twice
// when a sender died before it could say that it had made the attempt.
func (a AttemptState) compare(b AttemptState) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), a.StartedAt.Compare(b.StartedAt), a.At.Compare(b.At))
}

func (c Change) compare(d Change) int {
	return cmp.Or(c.At.Compare(d.At), cmp.Compare(c.Status, d.Status), cmp.Compare(c.Reason, d.Reason))
}

// Status is what all facts amount to.
func (s State) Status() string {
	switch {
	case s.changed():
		return s.Change.Status
	case s.attempted():
		return s.Attempt.Status
	case !s.Due.IsZero():
		return "delayed"
	default:
		return "pending"
	}
}

func (s State) attempted() bool { return !s.Attempt.At.IsZero() }

// changed says that the last change counts. Of the same instant is a change that follows from the attempt, so it does.
func (s State) changed() bool {
	return !s.Change.At.IsZero() && !s.Change.At.Before(s.Attempt.At)
}

// Proto is the delivery as callers see it, without body and attempts.
func (s State) Proto() *shopbellv1.Delivery {
	d := &shopbellv1.Delivery{
		Id: s.ID, ShopId: s.ShopID, EventId: s.EventID, EventType: s.EventType, WebhookId: s.WebhookID, Test: s.Test,
		Status:       s.Status(),
		AttemptsMade: s.Attempt.Number, ResponseCode: s.Attempt.ResponseCode, ErrorClass: s.Attempt.ErrorClass,
		CreatedAt: stamp(s.CreatedAt),
	}
	switch {
	case s.changed():
		d.Reason, d.UpdatedAt = s.Change.Reason, stamp(s.Change.At)
	case s.attempted():
		d.Reason, d.UpdatedAt = s.Attempt.Reason, stamp(s.Attempt.At)
		d.NextAttemptAt = stamp(s.Attempt.NextAttemptAt)
	default:
		d.UpdatedAt, d.NextAttemptAt = stamp(s.CreatedAt), stamp(s.Due)
	}
	return d
}

// stamp leaves a zero time out.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
