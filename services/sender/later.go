package sender

import (
	"slices"
	"strings"
	"time"

	"shopbell.dev/pkg/contract"
)

// later is what is remembered of a delivery that has failed, or was put off, and waits for its next attempt: enough to find its timer.
type later struct {
	deliveryID    string
	attempt       int
	due, accepted time.Time
	unanswered    bool      // its host did not answer
	putOff        bool      // it was not tried, since its host had not answered others
	began         time.Time // the attempt that failed, or when it was put off
}

func laterOf(d *contract.Delivery, x *exchange) later {
	return later{
		deliveryID: strings.Clone(d.ID), // the id alone, and not the header that it is a part of
		attempt:    d.Attempt, due: d.Due, accepted: d.AcceptedAt, unanswered: x.unanswered(), began: x.began,
	}
}

// wait remembers a delivery whose next attempt waits for its time, so that it can be called back when its receiver turns
// out not to be well. If it is known not to be, wait says why, and the delivery is to be called back now. So it is if its receiver, or
// the host, has come back since the attempt began that failed: it says nothing of who is back, and what was called back then could not be
// this one. Early says that.
func (l *lanes) wait(webhookID string, d later) (why string, early bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.of(webhookID)
	if ln.unwell {
		return ln.why, false
	}
	if ln.health.back.After(d.began) || d.unanswered && ln.host != nil && ln.host.back.After(d.began) {
		return "", true
	}
	if at := slices.IndexFunc(ln.failing, func(other later) bool { return other.deliveryID == d.deliveryID }); at >= 0 {
		ln.failing[at] = d // it has failed, or was put off, again
	} else if len(ln.failing) < maxRecalled && l.failing < maxFailing {
		ln.failing = append(ln.failing, d)
		l.failing++
	} else {
		return "", false
	}
	if d.unanswered {
		ln.host.awaits(ln)
	}
	return "", false
}

// Of so many deliveries it is remembered that they can be called back, of one lane and of all. What is not remembered
// comes in its time.
const (
	maxRecalled = 64
	maxFailing  = 1 << 16
)

// soonDue is how long before its time a delivery is no longer called back: its timer fires, if it has not fired with another
// sender long ago.
const soonDue = time.Second

// recall takes what has failed out of the lane, all of it or what is asked for, and gives what still waits for its time.
func (l *lanes) recall(ln *lane, which func(later) bool) (out []later) {
	before := len(ln.failing)
	ln.failing = slices.DeleteFunc(ln.failing, func(d later) bool {
		if which(d) && time.Until(d.due) >= soonDue {
			out = append(out, d)
		}
		return which(d)
	})
	l.failing -= before - len(ln.failing)
	if len(ln.failing) == 0 {
		ln.failing = nil
	}
	slices.SortStableFunc(out, func(a, b later) int { return a.accepted.Compare(b.accepted) })
	return out
}

func all(later) bool { return true }
