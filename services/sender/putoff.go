package sender

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// putOff is that a delivery is not attempted now.
type putOff struct {
	host         string
	since, until time.Time // nobody has answered there; the attempt waits
}

// leastPutOff is how long a delivery is put off at least, if the repeat is not made before. One that has waited for longer is put off for as
// long as it has waited and no more: a sender that is started anew knows nothing of it, and should not find it much later.
const leastPutOff = time.Minute

// maxPutOff is how many deliveries of a webhook may wait for a later attempt before others are put off no more: they are attempted,
// so that the lane holds if they fail.
const maxPutOff = 8

// putOff says whether a delivery is not to be attempted now, since nobody has answered at its receiver's host lately, its own webhook's
// attempts among them, one of which is to be repeated: it waits until it is known what came of that, unless the host, which is probed,
// answers before. Then wasPutOff follows. Nil: it is to be attempted, as is what somebody asked for, what has been on its way for as long
// as the webhook's whole schedule, and what could not be remembered. So a receiver that is away costs the attempts of one delivery,
// however many wait.
func (l *lanes) putOff(j *job, now time.Time) *putOff {
	rules := j.w.Policy
	if j.d.ByHand() || j.d.Asked || j.d.Early || !rules.Breaks() || now.Sub(j.d.MatchedAt) > rules.Patience() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.all[j.d.WebhookID]
	if ln == nil || ln.held || l.failing >= maxFailing {
		return nil
	}
	h := l.hosts[hostOf(j.w.URL)]
	if h == nil || h != ln.host || !h.away(now) {
		return nil
	}
	var until time.Time
	others := ln.puttingOff
	for _, d := range ln.failing {
		if d.deliveryID == j.d.ID { // it was put off before
			continue
		}
		others++
		known := d.due.Add(rules.Timeout + soonDue)
		if d.unanswered && !d.putOff && known.After(now) && (until.IsZero() || known.Before(until)) {
			until = known
		}
	}
	if until.IsZero() || others >= maxPutOff {
		return nil
	}
	if longest := now.Add(max(leastPutOff, now.Sub(j.d.MatchedAt))); until.After(longest) {
		until = longest
	}
	ln.puttingOff++
	return &putOff{hostOf(j.w.URL), h.since, until}
}

// wasPutOff is told that what was to be put off is, or could not be.
func (l *lanes) wasPutOff(webhookID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(webhookID).puttingOff--
}

// putOff publishes that a delivery is put off, and its timer. It is delayed and not held: it lies where whoever cancels what waits for its
// time finds it.
func (s *Sender) putOff(ctx context.Context, j *job, p *putOff) error {
	defer s.lanes.wasPutOff(j.d.WebhookID)
	now := time.Now()
	d := j.d
	d.Deferred++
	why := fmt.Sprintf("nobody behind %s has answered since %s; it is sent when somebody does, and looked at again at %s",
		p.host, clock(p.since), clock(p.until))
	if err := s.publish(ctx, s.records.WriteCalmly, changeOf(&d, delayed, why), d.Later(p.until)); err != nil {
		return err
	}
	s.wait(ctx, d.WebhookID, later{
		deliveryID: strings.Clone(d.ID), attempt: d.Attempt, due: p.until, accepted: d.AcceptedAt, unanswered: true, putOff: true, began: now,
	})
	return nil
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
