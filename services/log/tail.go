package eventlog

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/run"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// The kinds of things that happen, as listeners are told of them.
const (
	happenedAttempt = "attempt"
	happenedStatus  = "status"
	happenedGap     = "gap"
)

// TailDeliveries tells of what happens until the caller leaves or this process stops.
func (l *Log) TailDeliveries(r *logv1.ListDeliveriesRequest, stream grpc.ServerStreamingServer[logv1.TailDeliveriesResponse]) error {
	filter, err := tailFilter(r)
	if err != nil {
		return err
	}
	me := l.tails.join(filter)
	defer l.tails.leave(me)
	select {
	case <-me.open:
	case <-stream.Context().Done():
		return stream.Context().Err()
	case <-l.env.Stopping:
		return nil
	}
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	for {
		next := me.take()
		if next == nil {
			select {
			case <-me.wake:
			case <-stream.Context().Done():
				return stream.Context().Err()
			case <-l.env.Stopping:
				return nil
			}
			continue
		}
		if err := stream.Send(next); err != nil {
			return err
		}
	}
}

func tailFilter(r *logv1.ListDeliveriesRequest) (store.Filter, error) {
	var wrong fault.Collector
	for field, set := range map[string]bool{
		"from": r.GetFrom() != nil, "to": r.GetTo() != nil, "text": r.GetText() != "", "page_size": r.GetPageSize() != 0, "page_token": r.GetPageToken() != "",
	} {
		if set {
			wrong.Add(field, "what is still to happen is not chosen by it; leave it out")
		}
	}
	if err := wrong.Err(); err != nil {
		return store.Filter{}, err
	}
	return filterOf(r)
}

// tails hands on what happens to those who listen. The bus is followed while somebody does, once for all of them, and
// beside what writes the log: however many listen, it is not slowed.
type tails struct {
	env *run.Env

	wanted chan struct{} // somebody listens

	mu        sync.Mutex // guards what follows
	listeners map[string]map[*listener]bool
	following bool
	stop      context.CancelFunc // of the following
}

func newTails(env *run.Env) *tails {
	return &tails{env: env, wanted: make(chan struct{}, 1), listeners: map[string]map[*listener]bool{}}
}

// run follows the bus whenever somebody listens, until ctx ends.
func (t *tails) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wanted:
		}
		for t.begin(ctx) {
		}
	}
}

// begin follows the bus until nobody listens; it gives true when it has to be begun again.
func (t *tails) begin(ctx context.Context) (again bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	t.stop = cancel
	nobody := len(t.listeners) == 0
	t.mu.Unlock()
	if nobody {
		return false
	}
	err := t.env.Bus.Tail(ctx, contract.Outcomes, contract.OutcomeSubjects, func() { t.opened(ctx) }, t.hand)
	if err == nil || ctx.Err() != nil {
		return false
	}
	t.env.Log.WarnContext(ctx, "those who listen wait: the bus cannot be followed, trying again", slog.Any("error", err))
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Second):
		return true
	}
}

// opened tells those who have joined that they miss nothing from now on, unless this following has been stopped: they
// wait for the next.
func (t *tails) opened(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	t.following = true
	for _, shop := range t.listeners {
		for l := range shop {
			l.opened()
		}
	}
}

func (t *tails) join(filter store.Filter) *listener {
	l := &listener{filter: filter, open: make(chan struct{}), wake: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners[filter.ShopID] == nil {
		t.listeners[filter.ShopID] = map[*listener]bool{}
	}
	t.listeners[filter.ShopID][l] = true
	if t.following {
		l.opened()
	}
	signal(t.wanted)
	return l
}

func (t *tails) leave(l *listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.listeners[l.filter.ShopID], l); len(t.listeners[l.filter.ShopID]) == 0 {
		delete(t.listeners, l.filter.ShopID)
	}
	if len(t.listeners) == 0 && t.stop != nil {
		t.stop()
		t.following = false
	}
}

// hand gives what a message tells to those who listen to the shop.
func (t *tails) hand(m bus.Message) {
	shop, _, ok := contract.ParseOutcomeSubject(m.Subject())
	t.mu.Lock()
	defer t.mu.Unlock()
	if !ok || shop != "" && len(t.listeners[shop]) == 0 {
		return
	}
	records, err := record.Read(m.Headers(), m.Data())
	if err != nil {
		return // whoever writes the log says so
	}
	place := ""
	if meta, err := m.Metadata(); err == nil {
		place = strconv.FormatUint(meta.Sequence.Stream, 10)
	}
	for _, r := range records {
		listeners := t.listeners[r.GetShopId()]
		if len(listeners) == 0 {
			continue
		}
		for _, what := range happened(r) {
			what.Id = place
			for l := range listeners {
				if chosen(l.filter, what) {
					l.put(what)
				}
			}
		}
	}
}

// happened is what a record says of deliveries.
func happened(r *busv1.Record) (all []*logv1.TailDeliveriesResponse) {
	say := func(what string, d *shopbellv1.Delivery) {
		d.ShopId, d.EventId, d.EventType, d.UpdatedAt = r.GetShopId(), r.GetEventId(), r.GetEventType(), r.GetAt()
		all = append(all, &logv1.TailDeliveriesResponse{At: r.GetAt(), What: what, Delivery: d})
	}
	switch what := r.GetWhat().(type) {
	case *busv1.Record_Decision:
		for _, c := range what.Decision.GetConsidered() {
			if !c.GetMatched() {
				continue
			}
			d := &shopbellv1.Delivery{Id: c.GetDeliveryId(), WebhookId: c.GetWebhookId(), Status: "pending", CreatedAt: r.GetAt()}
			if due := what.Decision.GetDue()[c.GetWebhookId()]; due != nil {
				d.Status, d.NextAttemptAt = "delayed", due
			}
			say(happenedStatus, d)
		}
	case *busv1.Record_Attempt:
		made := what.Attempt
		a := made.GetAttempt()
		say(happenedAttempt, &shopbellv1.Delivery{
			Id: made.GetDeliveryId(), WebhookId: made.GetWebhookId(), Status: made.GetStatus(), Reason: made.GetReason(),
			AttemptsMade: a.GetNumber(), CreatedAt: made.GetMatchedAt(), NextAttemptAt: a.GetNextAttemptAt(),
			ResponseCode: a.GetResponseCode(), ErrorClass: a.GetErrorClass(), Test: made.GetTest(), Attempts: []*shopbellv1.Attempt{brief(a)},
		})
	case *busv1.Record_Change:
		if c := what.Change; c.GetDeliveryId() != "" {
			say(happenedStatus, &shopbellv1.Delivery{
				Id: c.GetDeliveryId(), WebhookId: c.GetWebhookId(), Status: c.GetStatus(), Reason: c.GetReason(), CreatedAt: c.GetMatchedAt(),
			})
		}
	}
	return all
}

// brief is an attempt without what may be large: a queue of them is kept for each who listens.
func brief(a *shopbellv1.Attempt) *shopbellv1.Attempt {
	return &shopbellv1.Attempt{
		Number: a.GetNumber(), StartedAt: a.GetStartedAt(), DurationMs: a.GetDurationMs(), Timings: a.GetTimings(),
		ResponseCode: a.GetResponseCode(), ErrorClass: a.GetErrorClass(), Error: a.GetError(), Verdict: a.GetVerdict(), Url: a.GetUrl(),
		TraceId: a.GetTraceId(), ByHand: a.GetByHand(), AskedBy: a.GetAskedBy(), ReplayId: a.GetReplayId(), NextAttemptAt: a.GetNextAttemptAt(),
	}
}

// chosen says whether a filter lets through what happened.
func chosen(f store.Filter, what *logv1.TailDeliveriesResponse) bool {
	d := what.GetDelivery()
	is := func(want, got string) bool { return want == "" || want == got }
	code := int(d.GetResponseCode())
	return is(f.WebhookID, d.GetWebhookId()) && is(f.EventType, d.GetEventType()) && is(f.EventID, d.GetEventId()) &&
		is(f.DeliveryID, d.GetId()) && is(f.Status, d.GetStatus()) && is(f.ErrorClass, d.GetErrorClass()) &&
		(!f.Codes.None || what.GetWhat() == happenedAttempt && code == 0) &&
		(f.Codes.High == 0 || f.Codes.Low <= code && code <= f.Codes.High)
}

// listener is one who listens. What he has not taken yet waits in a queue; when that is full, what comes is counted and
// left out, until he has taken all of it and knows how much he missed.
type listener struct {
	filter store.Filter
	open   chan struct{} // closed when he misses nothing from then on
	wake   chan struct{} // there is something to take
	once   sync.Once

	mu     sync.Mutex // guards what follows
	queue  []*logv1.TailDeliveriesResponse
	missed uint32
}

// maxQueue is how many things may wait for one who listens: some 500 bytes each.
const maxQueue = 1000

func (l *listener) opened() { l.once.Do(func() { close(l.open) }) }

func (l *listener) put(what *logv1.TailDeliveriesResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missed > 0 || len(l.queue) == maxQueue {
		l.missed++
		return
	}
	l.queue = append(l.queue, what)
	signal(l.wake)
}

// take gives what comes next, or nil when nothing has come.
func (l *listener) take() (next *logv1.TailDeliveriesResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.queue) > 0:
		next, l.queue = l.queue[0], l.queue[1:]
	case l.missed > 0:
		next, l.missed = &logv1.TailDeliveriesResponse{At: timestamppb.Now(), What: happenedGap, Missed: l.missed}, 0
	}
	return next
}

// signal leaves a sign, unless there is one already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
