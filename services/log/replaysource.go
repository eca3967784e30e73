package eventlog

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

const (
	// maxAhead is how many bytes of events a job reads ahead.
	maxAhead = 8 << 20
	// askAtOnce is for how many deliveries of a chunk the bus is asked at once whether they wait for a time.
	askAtOnce = 8
)

// deliverySource gives the deliveries that a filter chooses, the oldest first.
type deliverySource struct {
	*replays
	job   *job
	ahead []string // the rest of the page
	read  bool     // the page is read
}

func (s *deliverySource) next(ctx context.Context, n int) ([]parcel, bool, error) {
	for len(s.ahead) == 0 {
		if s.read {
			if int(s.job.Page) == len(s.job.Marks) {
				return nil, true, nil
			}
			s.job.Page++
			s.read = false
		}
		if err := s.readPage(ctx); err != nil {
			return nil, false, err
		}
	}
	ids := s.ahead[:min(n, len(s.ahead))]
	known, err := s.log.store.Details(ctx, s.job.Replay.GetShopId(), ids)
	if err != nil {
		return nil, false, err
	}
	webhooks := &reached{log: s.log, shop: s.job.Replay.GetShopId(), known: map[string]reachedWebhook{}}
	parcels, err := parcels(ctx, ids, func(ctx context.Context, id *string) (parcel, error) {
		return s.parcel(ctx, *id, known[*id], webhooks)
	})
	return parcels, false, err
}

// parcels makes what a job sends of each of these, several at once.
func parcels[T any](ctx context.Context, of []T, parcelOf func(context.Context, *T) (parcel, error)) ([]parcel, error) {
	made := make([]parcel, len(of))
	making, work := errgroup.WithContext(ctx)
	making.SetLimit(askAtOnce)
	for i := range of {
		making.Go(func() (err error) {
			made[i], err = parcelOf(work, &of[i])
			return err
		})
	}
	return made, making.Wait()
}

func (s *deliverySource) taken(n int) { s.ahead = s.ahead[n:] }

// readPage reads the ids of a page that are still to be sent, the oldest first.
func (s *deliverySource) readPage(ctx context.Context) error {
	f, err := replayFilter(s.job.Replay.Asked)
	if err != nil {
		return err
	}
	if int(s.job.Page) < len(s.job.Marks) {
		f.Before = s.job.Marks[s.job.Page]
	}
	if f.Since = s.job.Cursor; s.job.Page > 0 {
		f.Since = max(f.Since, s.job.Marks[s.job.Page-1])
	}
	s.ahead = nil
	err = s.log.each(ctx, f, func(page []*shopbellv1.Delivery) error {
		for _, d := range page {
			if !d.GetTest() && d.GetId() != s.job.Cursor {
				s.ahead = append(s.ahead, d.GetId())
			}
		}
		return nil
	})
	slices.Reverse(s.ahead)
	s.read = err == nil
	return err
}

func (s *deliverySource) parcel(ctx context.Context, id string, known *store.Delivery, webhooks *reached) (parcel, error) {
	p := parcel{cursor: id}
	var w *webhook.Webhook
	var err error
	switch {
	case known == nil:
		err = errForgotten
	case known.Delivery.GetStatus() == "held":
		err = errHeld
	default:
		w, err = webhooks.reach(ctx, known.Delivery.GetWebhookId())
	}
	var m *nats.Msg
	if err == nil {
		m, err = s.log.again(ctx, known, w, s.job.asking())
	}
	switch {
	case fault.IsKind(err, fault.NotFound) || fault.IsKind(err, fault.Precondition):
		p.skipped = err.Error()
		return p, nil
	case err != nil:
		return p, err
	}
	p.msgs = []*nats.Msg{m}
	return p, nil
}

// Why a job leaves a delivery alone.
var (
	errForgotten = fault.New(fault.NotFound, "the log no longer has it")
	errHeld      = fault.New(fault.Precondition, "it is held: it is sent when its receiver is well again, or its webhook switched on") // it would be sent twice
)

// asking is who asks for what a job sends. The time is the job's: a chunk that is repeated is the same.
func (j *job) asking() asking {
	return asking{by: j.Replay.GetCreatedBy(), at: j.Replay.GetCreatedAt().AsTime(), replay: j.Replay.GetId()}
}

// reached are the webhooks of a chunk: each is asked for once.
type reached struct {
	log  *Log
	shop string

	mu    sync.Mutex // guards what follows
	known map[string]reachedWebhook
}

// reachedWebhook is a webhook, or why nothing can be sent to it.
type reachedWebhook struct {
	*webhook.Webhook
	whyNot error
}

func (r *reached) reach(ctx context.Context, webhookID string) (*webhook.Webhook, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.known[webhookID]
	if !ok {
		known.Webhook, known.whyNot = r.log.reachable(ctx, r.shop, webhookID, false)
		if known.whyNot != nil && !fault.IsKind(known.whyNot, fault.Precondition) {
			return nil, known.whyNot
		}
		r.known[webhookID] = known
	}
	return known.Webhook, known.whyNot
}

// eventSource gives the events of a time span as deliveries to one webhook.
type eventSource struct {
	*replays
	job   *job
	ahead []placed
	end   bool // there are no more
}

func (s *eventSource) next(ctx context.Context, n int) ([]parcel, bool, error) {
	asked := s.job.Replay.Asked
	w, err := s.log.reachable(ctx, asked.GetShopId(), asked.GetToWebhookId(), false)
	if fault.IsKind(err, fault.Precondition) {
		s.job.Replay.Status, s.job.Replay.Reason = replayPaused, err.Error()
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if len(s.ahead) == 0 && !s.end {
		s.end = true
		size := 0
		err := s.events(ctx, s.job.ReplayState, w, func(e placed) bool {
			s.ahead = append(s.ahead, e)
			size += len(e.Data)
			s.end = len(s.ahead) < replayPage && size < maxAhead
			return s.end
		})
		if err != nil {
			s.ahead, s.end = nil, false
			return nil, false, err
		}
	}
	some := s.ahead[:min(n, len(s.ahead))]
	ids := make([]string, len(some))
	for i := range some {
		ids[i] = w.DeliveryID(&some[i].Event)
	}
	known, err := s.log.store.Details(ctx, w.ShopID, ids)
	if err != nil {
		return nil, false, err
	}
	parcels := make([]parcel, len(some))
	for i := range some {
		if parcels[i], err = s.parcel(&some[i], ids[i], known[ids[i]], w); err != nil {
			return nil, false, err
		}
	}
	return parcels, s.end && len(some) == len(s.ahead), nil
}

func (s *eventSource) taken(n int) { s.ahead = s.ahead[n:] }

// parcel is an event's delivery to the webhook, and the record that says of the event that it was made. Where it was made
// before, the attempt counts on.
func (s *eventSource) parcel(e *placed, id string, known *store.Delivery, w *webhook.Webhook) (parcel, error) {
	a := s.job.asking()
	d := contract.Delivery{
		Event: e.Event, ID: id, WebhookID: w.ID, Revision: w.Revision, MatchedAt: a.at, Attempt: 1,
		AskedAt: a.at, AskedBy: a.by, Replay: a.replay,
	}
	if known != nil {
		d.Uncounted = int(known.Delivery.GetAttemptsMade()) // the schedule begins anew
		d.Attempt += d.Uncounted
	}
	value, err := proto.Marshal(&busv1.Record{
		At: timestamppb.New(a.at), ShopId: e.ShopID, EventId: e.ID, EventType: e.Type,
		What: &busv1.Record_Decision{Decision: &busv1.Decision{Considered: []*shopbellv1.Considered{{
			WebhookId: d.WebhookID, Label: w.Label, Matched: true, Reason: "sent by replay " + a.replay, DeliveryId: d.ID,
		}}}},
	})
	if err != nil {
		return parcel{}, fmt.Errorf("record the delivery of %s: %w", e.ID, err)
	}
	return parcel{
		msgs:   []*nats.Msg{contract.RecordMessage(e.ShopID, d.WebhookID, value), d.Message()},
		cursor: e.spot.String(),
	}, nil
}
