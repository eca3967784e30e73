package sender

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/webhook"
)

// putOff is that a delivery is not attempted now.
type putOff struct {
	host         string
	since, until time.Time // nobody has answered there; the attempt waits
	hanging      int       // exchanges for which it waits in place of that; 0: it waits for the host, or for those in line
	inLine       int       // deliveries of its shop that wait for a place; 0: it does not wait for them
	decided      time.Time
}

// why is the sentence for the delivery's story.
func (p *putOff) why() string {
	if p.inLine > 0 {
		return fmt.Sprintf("%d deliveries of its shop wait for a place, as many of its requests are under way as may be, and others' are not to wait behind them; "+
			"it is looked at again at %s", p.inLine, clock(p.until))
	}
	if p.hanging > 0 {
		return fmt.Sprintf("%d requests of its shop wait for answers that do not come, and its receiver has not been heard of lately, so that it does not take a place that others need; "+
			"it is looked at again at %s", p.hanging, clock(p.until))
	}
	return contract.WaitsForHost(p.host, p.since, p.until)
}

// putOff says whether a delivery is not to be attempted now, since nobody has answered at its receiver's host lately, or since it may hang as
// too many do. Where its own webhook was not answered there, and has an attempt to repeat, it waits until it is known what came of that; where
// the host is shut to its shop or to all, it waits for its probes, if it has not been tried yet itself. Both are sent when the host answers. Then wasPutOff
// follows. Nil: it is to be attempted, as is what somebody asked for, what has been on its way for as long as the webhook's whole schedule,
// and what could not be remembered. So a receiver that is away costs the attempts of one delivery, however many wait, and a host that is costs few more than its probes.
func (l *lanes) putOff(j *job, now time.Time) *putOff {
	rules := j.w.Policy
	if j.d.ByHand() || j.d.Asked || j.d.Early {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.makeRoom(j, now); p != nil {
		return p
	}
	if !rules.Breaks() || now.Sub(j.d.MatchedAt) > rules.Patience() {
		return nil
	}
	if len(l.hosts) == 0 || l.failing >= maxFailing {
		return nil
	}
	h := l.hosts[webhook.Host(j.w.URL)]
	if h == nil || !h.away(now) {
		return nil
	}
	ln := l.of(j.d.WebhookID)
	if ln.held || ln.host != nil && ln.host != h {
		return nil
	}
	until, others := ln.awaited(j, now)
	if others >= contract.MaxPutOff {
		return nil
	}
	longest := now.Add(max(contract.LeastPutOff, now.Sub(j.d.MatchedAt)))
	if until.IsZero() {
		if j.d.Counted() > 1 || !h.isShut(j.d.ShopID, now) {
			return nil
		}
		until = longest
	}
	if until.After(longest) {
		until = longest
	}
	ln.host = h
	ln.puttingOff++
	return &putOff{host: webhook.Host(j.w.URL), since: h.since, until: until, decided: now}
}

// How long a delivery is put off at least to make room for others, and for how long after it was matched that is done at most.
const (
	leastRoom = 5 * time.Second
	mostRoom  = time.Hour
)

// makeRoom puts a delivery off while many exchanges of its shop hang, if its receiver has taken nothing lately: it may be one more. While many wait for a
// place behind so many that are under way, it puts off whatever comes. It is done whatever the
// webhook's rules are, since it would wait for a place otherwise. It is called with the lock.
func (l *lanes) makeRoom(j *job, now time.Time) *putOff {
	shop := j.d.ShopID
	hanging, inLine := l.crowd.crowded(shop, l.limit), l.crowd.part(shop).waiting
	if inLine < longLine || l.mayTake(shop) {
		inLine = 0
	}
	waited := now.Sub(j.d.MatchedAt)
	if hanging == 0 && inLine == 0 || waited > mostRoom {
		return nil
	}
	ln := l.of(j.d.WebhookID)
	if ln.held || inLine == 0 && ln.health.failures == 0 && now.Sub(ln.health.success) < idleAfter {
		return nil
	}
	if ln.host == nil {
		ln.host = l.hosts[webhook.Host(j.w.URL)] // if that is away, its return has this one sent
	}
	ln.puttingOff++
	return &putOff{hanging: hanging, inLine: inLine, until: now.Add(max(leastRoom, waited)), decided: now}
}

// awaited says when it is known what comes of an attempt of another delivery that nobody answered and that is to be repeated, and how many
// others wait. A zero time: there is none. It is called with the lanes' lock.
func (ln *lane) awaited(j *job, now time.Time) (until time.Time, others int) {
	others = ln.puttingOff
	for _, d := range ln.failing {
		if d.deliveryID == j.d.ID { // it was put off before
			continue
		}
		others++
		known := d.due.Add(j.w.Policy.Timeout + soonDue)
		if d.unanswered && !d.putOff && known.After(now) && (until.IsZero() || known.Before(until)) {
			until = known
		}
	}
	return until, others
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
	d := j.d
	d.Deferred++
	next := []*nats.Msg{d.Later(p.until)}
	if comesAgain(j.m) {
		was, err := s.setAgain(ctx, next[0])
		if err != nil || was {
			return err
		}
		next = nil
	}
	if err := s.publish(ctx, s.records.WriteCalmly, record.Change(&d, delayed, p.why()), next...); err != nil {
		return err
	}
	if j.w.Policy.Breaks() { // else it has no attempts beside its schedule's, and is not called back
		s.wait(ctx, d.WebhookID, later{
			deliveryID: strings.Clone(d.ID), attempt: d.Attempt, due: p.until, accepted: d.AcceptedAt, unanswered: true, putOff: true, began: p.decided,
		})
	}
	return nil
}

// setAgain publishes the timer of what is put off and was handed out before, and says whether it had been set then, by somebody who was
// killed before he could say so to the bus: he told of it, and it may have been sent since, after which it is not to be told as delayed.
func (s *Sender) setAgain(ctx context.Context, timer *nats.Msg) (was bool, err error) {
	bus.Inject(ctx, timer)
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	acks, err := s.env.Bus.PublishAcks(bound, timer)
	return err == nil && acks[0].Duplicate, err
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
