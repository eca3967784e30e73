package subscription

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// shutHosts is what the senders say of hosts at which nobody answers. What is matched for a receiver there is put off at once, and does not
// pass through a sender who would do the same: of a host that is dead that is all that most of its deliveries cost. It is so where every sender
// that was heard of lately says so: one alone may be cut off himself.
//
// Now and then one goes to the senders all the same, who see by it whether the host is still shut, and so do those beyond the
// first few of a webhook, so that its lane holds.
type shutHosts struct {
	mu    sync.Mutex // guards what follows
	words map[string]word
	shut  map[shutTo]time.Time // since when; what all words agree on
	until time.Time            // the last word holds
	hosts map[string]*atHost   // of those that are shut
}

// word is what a sender has said.
type word struct {
	hosts map[shutTo]time.Time
	until time.Time // it holds
}

// shutTo is a host that is shut to a shop, or, where that is empty, to all.
type shutTo struct{ host, shop string }

// atHost is what goes on at a host that is shut.
type atHost struct {
	tried  time.Time      // when one was sent all the same
	putOff map[string]int // deliveries, by webhook
}

// triedEvery is how often one is sent all the same. The senders know better whether it is to be tried.
const triedEvery = time.Second

// heard takes in a sender's word.
func (s *shutHosts) heard(said *busv1.ShutHosts, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.words == nil {
		s.words = map[string]word{}
	}
	w := word{map[shutTo]time.Time{}, now.Add(contract.ShutHolds)}
	for _, h := range said.GetHosts() {
		w.hosts[shutTo{h.GetHost(), h.GetShopId()}] = h.GetSince().AsTime()
	}
	s.words[said.GetSender()], s.until = w, w.until
	maps.DeleteFunc(s.words, func(_ string, w word) bool { return now.After(w.until) })
	s.shut = map[shutTo]time.Time{}
	still := map[string]*atHost{}
	for _, w := range s.words {
		for at, since := range w.hosts {
			if !s.allSay(at) {
				continue
			}
			s.shut[at] = since
			if still[at.host] = s.hosts[at.host]; still[at.host] == nil {
				still[at.host] = &atHost{putOff: map[string]int{}}
			}
		}
	}
	s.hosts = still
}

func (s *shutHosts) allSay(at shutTo) bool {
	for _, w := range s.words {
		if !w.says(at) {
			return false
		}
	}
	return true
}

// says says whether a host is shut to a shop by this word, or to all.
func (w word) says(at shutTo) bool {
	_, toIt := w.hosts[at]
	_, toAll := w.hosts[shutTo{host: at.host}]
	return toIt || toAll
}

// putsOff says whether a delivery to a webhook is to be put off now, and since when its host is shut.
func (s *shutHosts) putsOff(w *webhook.Webhook, now time.Time) (since time.Time, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.shut) == 0 || now.After(s.until) || !w.Policy.Breaks() || w.Off() != "" {
		return since, false
	}
	host := webhook.Host(w.URL)
	at := s.hosts[host]
	if at == nil {
		return since, false
	}
	if since, yes = s.shut[shutTo{host: host}]; !yes {
		since, yes = s.shut[shutTo{host, w.ShopID}]
	}
	switch {
	case !yes || at.putOff[w.ID] >= contract.MaxPutOff:
		return since, false
	case now.Sub(at.tried) >= triedEvery:
		at.tried = now
		return since, false
	}
	at.putOff[w.ID]++
	return since, true
}

// putOff adds that a delivery was put off, since its host is shut, and gives its timer.
func (all *decided) putOff(ctx context.Context, d *contract.Delivery, w *webhook.Webhook, since time.Time) *nats.Msg {
	d.Deferred = 1
	until := d.MatchedAt.Add(contract.LeastPutOff)
	host := webhook.Host(w.URL)
	all.waits = append(all.waits, record.Traced(ctx, record.Change(d, contract.Delayed, contract.WaitsForHost(host, since, until))))
	all.putOffs = append(all.putOffs, &busv1.PutOff{
		DeliveryId: d.ID, WebhookId: d.WebhookID, Host: host,
		AcceptedAt: timestamppb.New(d.AcceptedAt), DecidedAt: timestamppb.New(d.MatchedAt), Due: timestamppb.New(until),
	})
	return d.Later(until)
}

// putOffs are told to the senders in lumps: a message for each would cost more than it is worth.
type putOffs struct {
	mu   sync.Mutex
	list []*busv1.PutOff
}

func (p *putOffs) add(more []*busv1.PutOff) {
	if len(more) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, more...)
}

func (p *putOffs) take() (list []*busv1.PutOff) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list, p.list = p.list, nil
	return list
}

const (
	toldEvery  = 100 * time.Millisecond
	toldAtOnce = 1000 // in a message
)

// listen hears which hosts are shut, and tells what was put off for that, until ctx ends.
func (s *Subscription) listen(ctx context.Context, b *bus.Bus) error {
	tick := time.NewTicker(toldEvery)
	defer tick.Stop()
	listening := make(chan error, 1)
	go func() {
		listening <- b.Overhear(ctx, contract.ShutHostsSubject, func() {}, func(m *nats.Msg) {
			said := &busv1.ShutHosts{}
			if err := proto.Unmarshal(m.Data, said); err != nil {
				s.env.Log.ErrorContext(ctx, "what a sender says of hosts cannot be read; all goes through it", slog.Any("error", err))
				return
			}
			s.shut.heard(said, time.Now())
		})
	}()
	for {
		select {
		case err := <-listening: // ctx has ended
			s.tellPutOffs(ctx, b)
			return err
		case <-tick.C:
			s.tellPutOffs(ctx, b)
		}
	}
}

func (s *Subscription) tellPutOffs(ctx context.Context, b *bus.Bus) {
	for list := s.putOffs.take(); len(list) > 0; list = list[min(len(list), toldAtOnce):] {
		told, err := proto.Marshal(&busv1.PutOffs{Deliveries: list[:min(len(list), toldAtOnce)]})
		if err == nil {
			err = b.Tell(contract.PutOffsSubject, told)
		}
		if err != nil {
			s.env.Log.WarnContext(ctx, "senders are not told what was put off; it is sent in its time", slog.Any("error", err))
			return
		}
	}
}
