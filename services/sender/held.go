package sender

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
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

// hold is deliveries of one webhook that are to be held, in their order.
type hold struct {
	jobs   []*job
	called []later // what waits for a later attempt, and is to be held with the rest
	why    string
	off    bool // the webhook is switched off: nobody is to send what is held before it is on again

	shop, webhookID string        // whose lane holds from now on, unless it is off
	broken          bool          // its receiver is not well
	rest            time.Duration // what its receiver asks for
}

// holder moves deliveries into HELD. It is one goroutine, so that they lie there in the order in which they came.
type holder struct {
	s *Sender

	mu    sync.Mutex // guards queue
	queue []hold
	more  chan struct{}
}

func (h *holder) put(what hold) {
	h.mu.Lock()
	h.queue = append(h.queue, what)
	h.mu.Unlock()
	select {
	case h.more <- struct{}{}:
	default:
	}
}

// heldAtOnce is how many holds are published together.
const heldAtOnce = 256

// run moves what is put until ended is closed and nothing is left.
func (h *holder) run(ctx context.Context, ended <-chan struct{}) {
	for {
		h.mu.Lock()
		n := min(len(h.queue), heldAtOnce)
		batch := slices.Clone(h.queue[:n])
		clear(h.queue[:n]) // its array is not to keep them
		h.queue = h.queue[n:]
		h.mu.Unlock()
		if n > 0 {
			h.move(ctx, batch)
			continue
		}
		select {
		case <-h.more:
		case <-ended:
			h.mu.Lock()
			left := len(h.queue)
			h.mu.Unlock()
			if left == 0 {
				return
			}
		}
	}
}

func (h *holder) move(ctx context.Context, batch []hold) {
	s := h.s
	var records []*busv1.Record
	var msgs []*nats.Msg
	again := map[*job]error{} // comes again, and what became of holding it
	for _, what := range batch {
		for _, j := range what.jobs {
			if comesAgain(j.m) {
				again[j] = s.holdAgain(ctx, j, what.why)
				continue
			}
			tracing := bus.Extract(ctx, j.header)
			if what.why != inOrder { // then it goes without saying
				records = append(records, record.Traced(tracing, record.Change(&j.d, held, what.why)))
			}
			m := j.d.Hold(sequence(j.m))
			bus.Inject(tracing, m)
			msgs = append(msgs, m)
		}
	}
	bound, cancel := context.WithTimeout(ctx, publishTimeout)
	told, err := record.Messages(records...)
	if err == nil {
		err = s.behind.Publish(bound, append(told, msgs...)...)
	}
	cancel()
	for _, what := range batch {
		for _, j := range what.jobs {
			if problem, is := again[j]; is {
				s.settle(ctx, j.m, problem)
				continue
			}
			s.settle(ctx, j.m, err)
		}
		s.heldTotal.Add(float64(len(what.jobs)))
		switch {
		case err != nil && !what.off:
			s.laneChanged(what.webhookID) // its deliveries come again; it goes on holding only if it is entered as doing so
		case err != nil:
		case what.off:
			s.soon(ctx, func() { s.lookAgain(ctx, &what.jobs[0].d) })
		default:
			s.keep(ctx, what)
			if len(what.called) > 0 {
				s.soon(ctx, func() { s.callBack(ctx, what.webhookID, what.called, false) })
			}
		}
	}
}

// holdAgain holds a delivery whose message comes again: whoever had it before may have held it, and have been killed before he
// could answer. The bus knows such a hold by its id; where what was held is gone it was sent meanwhile, and nothing is to be done.
func (s *Sender) holdAgain(ctx context.Context, j *job, why string) error {
	ctx, cancel := context.WithTimeout(bus.Extract(ctx, j.header), publishTimeout)
	defer cancel()
	m := j.d.Hold(sequence(j.m))
	bus.Inject(ctx, m)
	told := record.Change(&j.d, held, why)
	if meta, err := j.m.Metadata(); err == nil {
		told.At = timestamppb.New(meta.Timestamp) // since then it has waited; what came of it meanwhile is later, also if nothing of that is left on the bus
	}
	acks, err := s.behind.PublishAcks(ctx, m)
	if err != nil {
		return err
	}
	if acks[0].Duplicate {
		left, _, err := s.behind.List(ctx, contract.Held, m.Subject, acks[0].Sequence, 1, 1)
		if err != nil || len(left) == 0 || left[0].Sequence != acks[0].Sequence {
			return err
		}
		told.At = timestamppb.New(left[0].Time) // what came of it since then is later
	}
	if why == inOrder {
		return nil
	}
	return s.tell(ctx, record.Traced(ctx, told))
}

// callBack has deliveries that wait for a later attempt come now, so that they are held with the rest, or sent early as their receiver
// is well again: each one's timer is replaced by one that is due now. One of the two is there, whoever dies; where the timer has fired
// meanwhile, or somebody has cancelled the delivery or sends it by hand, nothing is done.
func (s *Sender) callBack(ctx context.Context, webhookID string, waiting []later, early bool) {
	for _, d := range waiting {
		if err := s.callOneBack(ctx, webhookID, d, early); err != nil && !bus.Outrun(err) {
			s.env.Log.WarnContext(ctx, "a delivery is not called back; it is sent in its time", slog.String("delivery_id", d.deliveryID), slog.Any("error", err))
		}
	}
}

func (s *Sender) callOneBack(ctx context.Context, webhookID string, waiting later, early bool) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	timer, err := s.behind.LastMessage(ctx, contract.Later, contract.LaterSubject(webhookID, waiting.deliveryID))
	if err != nil || timer == nil {
		return err
	}
	d, due, err := contract.ParseLater(timer.Header, timer.Data)
	if err != nil || d.Attempt != waiting.attempt || d.Cancel != "" || d.ByHand() || time.Until(due) < soonDue/2 {
		return err
	}
	if w := s.webhooks.Get(d.ShopID, webhookID); early && (w == nil || w.Off() != "") {
		return nil // it may be on again when the delivery is due
	}
	d.Due, d.Early = due, early
	m := d.InsteadOf(timer.Sequence, time.Now())
	bus.Inject(bus.Extract(ctx, timer.Header), m)
	return s.behind.Publish(ctx, m)
}

// holdOff has a delivery held because its webhook is off, by the revision that says so: whoever switches it on before the bus
// has what is held, and discards that, need not see it.
func (s *Sender) holdOff(j *job, why string) {
	j.d.OffRevision = j.w.Revision
	s.holder.put(hold{jobs: []*job{j}, why: why, off: true})
}

const wasDiscarded = "it was held, and discarded when the webhook was switched on again or deleted"

// discarded says whether the owner of the webhook, as it is now, has had this delivery discarded, which was held.
func (j *job) discarded(w *webhook.Webhook) bool {
	by := w.Discarded
	return j.held != nil && (j.held.sequence <= by.Sequence || j.d.OffRevision > 0 && j.d.OffRevision <= by.Revision)
}

// lookAgain is for deliveries that were held for a webhook that is off. Whoever switched it on or deleted it between our look
// and our publish has not seen them: either we see now that he has, or he sees what we hold.
func (s *Sender) lookAgain(ctx context.Context, d *contract.Delivery) {
	bound, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	now, err := s.webhooks.Fetch(bound, d.ShopID, d.WebhookID)
	if err != nil || now != nil && now.Off() != "" {
		return // if we could not see it, the sweeper looks again
	}
	s.lookBehind(ctx, d.WebhookID)
}

// keep sees to it that a lane that holds has an owner, who sends what is held when its time comes.
func (s *Sender) keep(ctx context.Context, what hold) {
	if b := s.backlogs.get(what.webhookID); b != nil {
		b.hint()
		if what.broken {
			b.broke(what.why, what.rest)
			s.tellOthers(ctx, what)
		}
		return
	}
	if _, held := s.register.lane(what.webhookID); held {
		return // by somebody else, who hears of what is added
	}
	bound, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	ours, err := s.register.claim(bound, what)
	if err != nil {
		s.env.Log.WarnContext(ctx, "lane has no owner yet; the sweeper finds it one", slog.String("webhook_id", what.webhookID), slog.Any("error", err))
	}
	if ours {
		s.own(what)
	}
}

// holdLane makes a lane hold what comes, and moves what waits in it into HELD.
func (s *Sender) holdLane(shop, webhookID, why string, unwell bool) {
	if what := s.lanes.hold(hold{why: why, shop: shop, webhookID: webhookID}, unwell); len(what.jobs)+len(what.called) > 0 {
		s.holder.put(what)
	}
}

// tellOthers lets the other senders know that the receiver of a lane of ours is not well.
func (s *Sender) tellOthers(ctx context.Context, what hold) {
	e, held := s.register.lane(what.webhookID)
	if !held || e.Unwell {
		return
	}
	bound, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := s.register.tell(bound, e, what.why); err != nil {
		s.env.Log.WarnContext(ctx, "other senders do not know that a receiver is not well", slog.String("webhook_id", what.webhookID), slog.Any("error", err))
	}
}

// own begins the work on a lane that is entered as ours.
func (s *Sender) own(what hold) {
	s.holdLane(what.shop, what.webhookID, what.why, false)
	b := newBacklog(s, what.shop, what.webhookID)
	if what.broken {
		b.broke(what.why, what.rest)
	}
	s.backlogs.begin(b)
}

// tries is what is noted of the attempts of a held delivery.
type tries struct {
	attempt, uncounted int
	due                time.Time
}

func (t tries) message(webhookID, deliveryID string) (*nats.Msg, error) {
	value, err := proto.Marshal(&busv1.Tries{Attempt: int32(t.attempt), Uncounted: int32(t.uncounted), Due: timestamppb.New(t.due)})
	if err != nil {
		return nil, fmt.Errorf("note the attempts of %s: %w", deliveryID, err)
	}
	return contract.TriesMessage(webhookID, deliveryID, value), nil
}

// release has what is held for a webhook sent, or discards it.
func (s *Sender) release(ctx context.Context, r *contract.Release) error {
	if !r.Discard {
		s.keep(ctx, hold{why: "what was held is sent", shop: r.ShopID, webhookID: r.WebhookID})
		return nil
	}
	return s.discard(ctx, r.WebhookID, wasDiscarded, upTo(r.Through))
}

// upTo is what is held up to a sequence.
func upTo(sequence uint64) func(bus.Stored) bool {
	return func(raw bus.Stored) bool { return raw.Sequence <= sequence }
}

// outlived is what has been held for longer than anything is kept for a webhook that is switched off.
func (s *Sender) outlived(raw bus.Stored) bool { return time.Since(raw.Time) > s.cfg.KeepHeld }

// discardDeleted cancels all that is held for a webhook that was deleted, and forgets what is noted of it.
func (s *Sender) discardDeleted(ctx context.Context, webhookID string) error {
	if err := s.discard(ctx, webhookID, wasDeleted, func(bus.Stored) bool { return true }); err != nil {
		return err
	}
	_, err := s.behind.RemoveAll(ctx, contract.Held, contract.TriesSubjects(webhookID))
	return err
}

// discardOutlived cancels what has been held for too long while its webhook was switched off.
func (s *Sender) discardOutlived(ctx context.Context, webhookID string) error {
	return s.discard(ctx, webhookID, fmt.Sprintf("it was held for longer than %s, while its webhook was switched off; it can be sent again by hand", s.cfg.KeepHeld), s.outlived)
}

// discard cancels what is held for a webhook, in its order, for as long as which says so. Whoever is killed meanwhile is
// followed by another, who goes on with what is left.
func (s *Sender) discard(ctx context.Context, webhookID, reason string, which func(bus.Stored) bool) error {
	tried := map[string]bool{}
	if err := s.eachHeld(ctx, contract.TriesSubjects(webhookID), func(raw bus.Stored) (bool, error) {
		tried[contract.DeliveryOfTries(raw.Subject)] = true
		return true, nil
	}); err != nil {
		return err
	}
	for next, more := uint64(1), true; more; {
		var batch []bus.Stored
		var err error
		if batch, more, err = s.behind.List(ctx, contract.Held, contract.HeldSubject(webhookID), next, heldAtOnce, readBytes); err != nil {
			return err
		}
		var records []*busv1.Record
		var ends []string // deliveries
		for i, raw := range batch {
			if next = raw.Sequence + 1; !which(raw) {
				batch, more = batch[:i], false
				break
			}
			d, err := contract.ParseDelivery(raw.Header, raw.Data)
			if err != nil {
				s.env.Log.ErrorContext(ctx, "a message in HELD is no delivery; it is left out", slog.Any("error", err))
				continue
			}
			records = append(records, record.Traced(bus.Extract(ctx, raw.Header), record.Change(&d, cancelled, reason)))
			ends = append(ends, d.ID)
		}
		if err := s.tell(ctx, records...); err != nil {
			return err
		}
		for _, raw := range batch {
			if err := s.behind.Remove(ctx, contract.Held, raw.Sequence); err != nil {
				return err
			}
		}
		for _, id := range ends {
			if !tried[id] {
				continue
			}
			if _, err := s.behind.RemoveAll(ctx, contract.Held, contract.TriesSubject(webhookID, id)); err != nil {
				return err
			}
		}
	}
	return nil
}
