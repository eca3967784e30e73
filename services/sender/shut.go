package sender

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// Whoever matches events is told which hosts are shut, and puts off by himself what goes there: it costs a message and a pass through the
// sender less. We are told of it, so that it is sent when the host answers. Neither is stored: what is not heard is sent through us, or when its
// time comes.

// maxToldShut is how many hosts are told of at most.
const maxToldShut = 1000

// shutFor gives the row of webhooks by which the host is shut to a shop, or, for no shop, to everybody; nil when it is not.
func (h *host) shutFor(shop string, now time.Time) *inARow {
	row := &h.shut
	if its := h.shutTo[shop]; its != nil && its.webhooks >= manyShut {
		row = its
	}
	if row.webhooks < manyShut || !h.away(now) {
		return nil
	}
	return row
}

// shutHosts are the hosts that are shut, and to whom, in order. There is none while so much waits that what is put off elsewhere could not be
// remembered.
func (l *lanes) shutHosts(now time.Time) (out []*busv1.ShutHost) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing >= maxFailing/2 {
		return nil
	}
	for name, h := range l.hosts {
		add := func(shop string) {
			out = append(out, &busv1.ShutHost{Host: name, ShopId: shop, Since: timestamppb.New(h.since)})
		}
		if h.shutFor("", now) != nil {
			add("")
			continue
		}
		for shop := range h.shutTo {
			if h.shutFor(shop, now) != nil {
				add(shop)
			}
		}
	}
	slices.SortFunc(out, func(a, b *busv1.ShutHost) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.ShopId, b.ShopId))
	})
	return out[:min(len(out), maxToldShut)]
}

// shutTeller tells of the hosts that are shut.
type shutTeller struct {
	told []byte
	at   time.Time
}

// tell says which hosts are shut, if it is another word than the last one, or that was said a while ago.
func (t *shutTeller) tell(s *Sender, now time.Time) {
	word, err := proto.Marshal(&busv1.ShutHosts{Sender: s.register.me, Hosts: s.lanes.shutHosts(now)})
	if err != nil || now.Sub(t.at) < contract.ShutToldEvery && slices.Equal(word, t.told) {
		return
	}
	t.told, t.at = word, now
	_ = s.behind.Tell(contract.ShutHostsSubject, word) // they send through us what they do not know of
}

// heardPutOffs is told what was put off when it was matched. It is remembered, or sent, as what we put off ourselves.
func (s *Sender) heardPutOffs(ctx context.Context, m *nats.Msg) {
	all := &busv1.PutOffs{}
	if err := proto.Unmarshal(m.Data, all); err != nil {
		s.env.Log.ErrorContext(ctx, "what was put off cannot be read; it is sent in its time", slog.Any("error", err))
		return
	}
	now := time.Now()
	for _, p := range all.GetDeliveries() {
		d := later{
			deliveryID: p.GetDeliveryId(), attempt: 1, due: p.GetDue().AsTime(), accepted: p.GetAcceptedAt().AsTime(),
			unanswered: true, putOff: true, began: p.GetDecidedAt().AsTime(),
		}
		switch known, away := s.lanes.livesAt(p.GetWebhookId(), p.GetHost(), now); {
		case !known: // others know that host, and call it back
		case away:
			s.wait(ctx, p.GetWebhookId(), d)
		default: // it has answered meanwhile
			s.soon(ctx, func() { s.callBack(ctx, p.GetWebhookId(), []later{d}, true) })
		}
	}
}

// livesAt notes where a webhook's receiver is, and says whether that host is known here, and away.
func (l *lanes) livesAt(webhookID, name string, now time.Time) (known, away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.hosts[name]
	if h == nil {
		return false, false
	}
	ln := l.of(webhookID)
	if ln.host == nil {
		ln.host = h
	}
	return ln.host == h, h.away(now)
}
