package sender

import (
	"context"
	"slices"
	"strings"
	"time"

	"shopbell.dev/pkg/webhook"
)

// host is what the receivers of several webhooks may have in common. One that does not answer is away for all of them, and so is back
// for all once it answers any. Only those that did not answer are known.
type host struct {
	silent  int                // attempts in a row that nobody answered
	since   time.Time          // the first of them
	shut    inARow             // webhooks, whosever, for which no connection could be made
	shutTo  map[string]*inARow // by shop: its webhooks that were not answered, be it that they hang
	answer  time.Time          // the latest
	back    time.Time          // the latest that came when it was away
	used    time.Time          // the latest attempt
	probe   time.Time          // when it is to be probed
	calling bool               // it was away, and those that wait for it are called back with each answer
	lanes   []*lane            // have deliveries that nobody answered, and that wait for a later attempt
}

// inARow counts different webhooks, one after the other.
type inARow struct {
	webhooks int
	since    time.Time // the first of them
	tried    time.Time // the latest attempt for another one, when they were many
}

// add counts a webhook, which keeps in counted the row that it is among.
func (r *inARow) add(counted *time.Time, now time.Time) {
	switch {
	case r.webhooks == 0:
		r.webhooks, r.since, *counted = 1, now, now
	case !counted.Equal(r.since):
		r.webhooks, *counted = r.webhooks+1, r.since
	}
}

// called is deliveries of a webhook that are called back.
type called struct {
	webhookID string
	waits     []later
}

// unanswered says that nobody answered, or somebody who stands before the receiver and does not reach it.
func (x *exchange) unanswered() bool {
	switch x.class {
	case "timeout", "connect", "dns", "tls":
		return true
	}
	return x.code == 502 || x.code == 503 || x.code == 504
}

// away says that nobody has answered at the host lately, more than once.
func (h *host) away(now time.Time) bool { return h.silent > 1 && now.Sub(h.answer) > lately }

// manyShut is how many webhooks in a row were not answered when a host counts as shut.
const manyShut = 10

// triedEvery is how often one that is shut is tried for a webhook for which it was not, beside its probes.
const triedEvery = 5 * time.Second

// isShut says that the host is away, and that nobody could connect to it, whoever's receiver it was, or that none of many receivers of this shop
// has answered; and that this has been seen just now. Once in a
// while it says no, so that somebody sees. One who does connect and hangs, or is cut off, says nothing of another shop's receiver: a shop
// could have another's wait that way.
func (h *host) isShut(shop string, now time.Time) bool {
	row := h.shutFor(shop, now)
	if row == nil {
		return false
	}
	if now.Sub(row.tried) < triedEvery {
		return true
	}
	row.tried = now
	return false
}

// callTwo is how many webhooks are called back for each answer of a host that was away: two, so that they double with each answer for
// as long as it answers, and stop when it does not.
const callTwo = 2

// heard takes in whether a webhook's host answered, and gives what is called back: what nobody answered before, of any webhooks with
// the same host. It is called with the lock.
func (l *lanes) heard(ln *lane, target string, x *exchange, now time.Time) (back []called) {
	unanswered := x.unanswered()
	if len(l.hosts) == 0 && !unanswered {
		return nil // as always
	}
	name := webhook.Host(target)
	h := l.hosts[name]
	if h == nil && unanswered {
		h = &host{}
		l.hosts[strings.Clone(name)] = h
	}
	if h == nil || !unanswered && x.code == 0 { // which says nothing of the host
		return nil
	}
	ln.host, h.used = h, now
	if unanswered {
		if h.silent == 0 {
			h.since, h.probe = now, now.Add(firstProbe)
		}
		h.silent++
		if x.reached {
			h.shut = inARow{}
		} else {
			h.shut.add(&ln.shut, now)
		}
		its := h.shutTo[ln.shop]
		if its == nil {
			its = &inARow{}
			if h.shutTo == nil {
				h.shutTo = map[string]*inARow{}
			}
			h.shutTo[ln.shop] = its
		}
		its.add(&ln.silent, now)
		h.calling = h.calling && !h.away(now)
		return nil
	}
	if h.away(now) {
		h.calling, h.back = true, now
	}
	h.silent, h.shut, h.answer = 0, inARow{}, now
	delete(h.shutTo, ln.shop)
	for h.calling && len(back) < callTwo {
		other := h.next()
		if other == nil {
			h.calling = false
			break
		}
		back = append(back, called{other.id, l.recall(other, func(d later) bool { return d.unanswered })})
	}
	return back
}

// next takes the first of the host's lanes in which something waits that it did not answer. Nil: there is none.
func (h *host) next() *lane {
	for len(h.lanes) > 0 {
		ln := shift(&h.lanes)
		ln.waits = false
		if ln.host == h && slices.ContainsFunc(ln.failing, func(d later) bool { return d.unanswered }) {
			return ln
		}
	}
	return nil
}

// awaits says that something waits in a lane that its host did not answer.
func (h *host) awaits(ln *lane) {
	if h != nil && !ln.waits {
		ln.waits = true
		h.lanes = append(h.lanes, ln)
	}
}

// probe gives what is called back to see whether hosts that are away are there again: one delivery each, and no more than so many. A host
// is probed a second after it was found to be away, then again after a tenth of the time for which it has been, or after a second where
// that is less.
func (l *lanes) probe(now time.Time, most int) (back []called) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		if len(back) == most {
			break
		}
		if !h.away(now) || now.Before(h.probe) {
			continue
		}
		h.probe = now.Add(max(now.Sub(h.since)/10, firstProbe))
		ln := h.next()
		if ln == nil {
			continue
		}
		at := slices.IndexFunc(ln.failing, func(d later) bool { return d.unanswered })
		first := ln.failing[at].deliveryID
		back = append(back, called{ln.id, l.recall(ln, func(d later) bool { return d.deliveryID == first })})
		if len(ln.failing) > 0 {
			h.awaits(ln)
		}
	}
	return back
}

// forgetHosts drops the hosts for which nothing waits any more. It is called with the lock.
func (l *lanes) forgetHosts(now time.Time) {
	for name, h := range l.hosts {
		if now.Sub(h.used) < idleAfter {
			continue
		}
		h.lanes = slices.DeleteFunc(h.lanes, func(ln *lane) bool {
			ln.waits = len(ln.failing) > 0 && ln.host == h
			return !ln.waits
		})
		if len(h.lanes) == 0 {
			delete(l.hosts, name)
		}
	}
}

// How many hosts are probed in a second at most, beside what is sent otherwise, and when nothing is.
const (
	hostsBeside = 20
	hostsAlone  = 1000
)

// lookAround probes hosts that are away, tells which are shut, and counts the exchanges that hang, until ctx ends.
func (s *Sender) lookAround(ctx, hard context.Context) {
	const often = 4 // a second
	tick := time.NewTicker(time.Second / often)
	defer tick.Stop()
	var shut shutTeller
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			shut.tell(s, now)
			most := hostsBeside
			if s.governor.pace.PerSecond() == 0 {
				most = hostsAlone
			}
			s.callAllBack(hard, s.lanes.probe(now, most/often))
			s.lanes.lookAtCrowd(now)
		}
	}
}

// callAllBack has deliveries sent early.
func (s *Sender) callAllBack(ctx context.Context, all []called) {
	for _, c := range all {
		s.soon(ctx, func() { s.callBack(ctx, c.webhookID, c.waits, true) })
	}
}
