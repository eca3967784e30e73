package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/rpc"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	"shopbell.dev/services/log/store"
)

// ExpungeShop removes what is held of a person or of a shop. The bus comes first and the log last, so that the log does not
// write again what it followed meanwhile.
func (l *Log) ExpungeShop(ctx context.Context, req *logv1.ExpungeShopRequest) (*logv1.ExpungeShopResponse, error) {
	if rpc.ShopKey(ctx) != nil {
		return nil, fault.New(fault.Forbidden, "to expunge needs the operator's key: it cannot be undone")
	}
	if err := checkExpunge(req); err != nil {
		return nil, err
	}
	x := &expunger{l: l, shop: req.GetShopId(), these: store.Events{IDs: req.GetEventIds(), All: req.GetEverything()}, removed: map[string]int64{}}
	if req.GetText() != "" {
		if err := x.find(ctx, req.GetText()); err != nil {
			return nil, err
		}
	}
	answer := &logv1.ExpungeShopResponse{
		EventIds: x.these.IDs[:min(len(x.these.IDs), maxExpungedNamed)], Events: int64(len(x.these.IDs)), Removed: x.removed,
	}
	if req.GetDryRun() {
		return answer, nil
	}
	// Whatever happens, it is told what is gone.
	defer func() {
		l.env.Log.InfoContext(ctx, "expunged", slog.String("shop_id", x.shop), slog.Bool("everything", x.these.All), slog.Int("events", len(x.these.IDs)),
			slog.Any("removed", x.removed), slog.String("by", rpc.Caller(ctx)))
	}()
	var err error
	answer.Again, err = x.remove(ctx)
	return answer, err
}

// maxExpungedNamed is how many events the answer names.
const maxExpungedNamed = 1000

func checkExpunge(req *logv1.ExpungeShopRequest) error {
	ways := 0
	for _, way := range []bool{len(req.GetEventIds()) > 0, req.GetText() != "", req.GetEverything()} {
		if way {
			ways++
		}
	}
	switch {
	case ways != 1:
		return fault.New(fault.Invalid, "say what to expunge by exactly one of event_ids, text and everything")
	case req.GetText() != "" && len(req.GetText()) < minExpungedText:
		return fault.Field("text", "%q would be found nearly everywhere; give at least %d characters", req.GetText(), minExpungedText)
	}
	return nil
}

const minExpungedText = 4

// expunger removes events of one shop.
type expunger struct {
	l       *Log
	shop    string
	these   store.Events
	removed map[string]int64 // by place
}

// place is where messages of the shop lie, beside those of others.
type place struct {
	stream   string
	subjects []string
	own      bool // they lie under the shop's own subjects
}

func (x *expunger) places() []place {
	places := []place{{contract.Events, []string{contract.ShopEventSubjects(x.shop)}, true}}
	for _, at := range contract.WaitingPlaces() {
		places = append(places, place{at.Stream, at.Subjects, false})
	}
	return append(places,
		place{contract.Held, []string{contract.HeldSubjects, contract.AllCancelSubjects}, false},
		place{contract.Outcomes, []string{contract.ShopOutcomeSubjects(x.shop)}, true},
		place{contract.Outcomes, []string{contract.SharedOutcomes}, false},
	)
}

// find finds the events that hold a text, in the log and in what the log may not have yet.
func (x *expunger) find(ctx context.Context, text string) error {
	logged, err := x.l.store.Holding(ctx, x.shop, text)
	if err != nil {
		return err
	}
	found, needle := make(map[string]bool), store.NewNeedle(text)
	for _, id := range logged {
		found[id] = true
	}
	for _, p := range x.places() {
		if err := x.each(ctx, p, func(_ jetstream.Stream, m bus.Stored) error {
			parts, err := partsOf(p.stream, m)
			for _, part := range parts {
				if part.shop == x.shop && part.eventID != "" && needle.In(part.data) {
					found[part.eventID] = true
				}
			}
			return err
		}); err != nil {
			return err
		}
	}
	x.these.IDs = slices.Sorted(maps.Keys(found))
	return nil
}

// remove removes the events, and says why to do it again.
func (x *expunger) remove(ctx context.Context) (again string, err error) {
	if !x.these.All && len(x.these.IDs) == 0 {
		return "", nil
	}
	wanted := make(map[string]bool, len(x.these.IDs))
	for _, id := range x.these.IDs {
		wanted[id] = true
	}
	for _, p := range x.places() {
		if p.own && x.these.All {
			err = x.purge(ctx, p)
		} else {
			err = x.each(ctx, p, func(stream jetstream.Stream, m bus.Stored) error { return x.removeFrom(ctx, p, stream, m, wanted) })
		}
		if err != nil {
			return "", fault.Away(2*time.Second, "the bus did not remove everything from %s; call it again: %w", p.stream, err)
		}
	}
	none, err := x.l.env.Bus.NoBatches(ctx)
	if err != nil {
		return "", fault.Away(2*time.Second, "the bus did not say what lies in %s; call it again: %w", contract.Batches, err)
	}
	if !none {
		again = "batches of events were being taken all the time, which may hold some still; call it again in a minute"
	}
	if x.removed[contract.Deliveries]+x.removed[contract.Later] > 0 {
		again = "deliveries were on their way, and attempts that were under way are still recorded; call it again in five minutes"
	}
	followed, err := x.followed(ctx)
	if err != nil {
		return "", err
	}
	if !followed {
		again = "the log is behind the bus and may write what it had read before; call it again in five minutes"
	}
	rows, err := x.l.store.Expunge(ctx, x.shop, x.these)
	for name, n := range map[string]int64{
		"log/events": rows.Events, "log/decisions": rows.Decisions, "log/deliveries": rows.Deliveries, "log/attempts": rows.Attempts, "log/changes": rows.Changes,
	} {
		if n > 0 {
			x.removed[name] = n
		}
	}
	return again, err
}

// removeFrom removes a message, or has one in its place that holds what is not to be removed.
func (x *expunger) removeFrom(ctx context.Context, p place, stream jetstream.Stream, m bus.Stored, wanted map[string]bool) error {
	parts, err := partsOf(p.stream, m)
	if err != nil {
		return err
	}
	var rest []*busv1.Record
	for _, part := range parts {
		if part.shop != x.shop || !x.these.All && !wanted[part.eventID] {
			rest = append(rest, part.record)
		}
	}
	if len(rest) == len(parts) {
		return nil
	}
	if len(rest) > 0 { // it is of OUTCOMES: whoever dies here leaves records there twice, which count once
		msgs, err := record.Messages(rest...)
		if err != nil {
			return err
		}
		if err := x.l.env.Bus.Publish(ctx, msgs...); err != nil {
			return err
		}
	}
	if p.stream == contract.Held { // what was noted of a held delivery's attempts goes first: nobody would find it afterwards
		d, _ := contract.ParseDelivery(m.Header, m.Data) // what it could read
		n, err := x.l.env.Bus.RemoveAll(ctx, contract.Held, contract.TriesSubject(d.WebhookID, d.ID))
		if err != nil {
			return err
		}
		x.removed[p.stream] += int64(n)
	}
	// Its place on the disk is overwritten.
	if err := stream.SecureDeleteMsg(ctx, m.Sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	x.removed[p.stream]++
	return nil
}

// How much of the bus is read at once.
const (
	listAtOnce = 500
	listBytes  = 8 << 20
)

// each reads the messages that lie in a place now.
func (x *expunger) each(ctx context.Context, p place, do func(stream jetstream.Stream, m bus.Stored) error) error {
	stream, err := x.l.env.Bus.Stream(ctx, p.stream)
	if err != nil {
		return err
	}
	last := stream.CachedInfo().State.LastSeq
	for _, subject := range p.subjects {
		for next, more := uint64(1), true; more && next <= last; {
			var batch []bus.Stored
			if batch, more, err = x.l.env.Bus.List(ctx, p.stream, subject, next, listAtOnce, listBytes); err != nil {
				return err
			}
			for _, m := range batch {
				next = m.Sequence + 1
				if err := do(stream, m); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// part is what a message holds of one event.
type part struct {
	shop, eventID string
	data          []byte
	record        *busv1.Record // of OUTCOMES
}

// partsOf takes a message apart. What cannot be read, and what names no event, has no parts.
func partsOf(stream string, m bus.Stored) ([]part, error) {
	if stream != contract.Outcomes {
		e, _ := contract.ParseEvent(m.Header, m.Data) // what it could read
		return []part{{shop: e.ShopID, eventID: e.ID, data: m.Data}}, nil
	}
	if contract.IsSwitch(m.Subject) {
		return nil, nil // it names a webhook alone
	}
	records, err := record.Read(m.Header, m.Data)
	if err != nil {
		return nil, nil //nolint:nilerr // the log leaves it out, too
	}
	parts := make([]part, len(records))
	for i, r := range records {
		data, err := proto.Marshal(r)
		if err != nil {
			return nil, err
		}
		parts[i] = part{r.GetShopId(), r.GetEventId(), data, r}
	}
	return parts, nil
}

// purge removes everything under the shop's own subjects at once.
func (x *expunger) purge(ctx context.Context, p place) error {
	for _, subject := range p.subjects {
		n, err := x.l.env.Bus.RemoveAll(ctx, p.stream, subject)
		if err != nil {
			return err
		}
		x.removed[p.stream] += int64(n)
	}
	return nil
}

// followed waits a while until the log has written all that it may have read before.
func (x *expunger) followed(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, x.l.cfg.Linger+writeTimeout)
	defer cancel()
	for consumer, of := range map[string]string{contract.LogEvents: contract.Events, contract.LogOutcomes: contract.Outcomes} {
		stream, err := x.l.env.Bus.Stream(ctx, of)
		if err != nil {
			return false, err
		}
		for last := stream.CachedInfo().State.LastSeq; ; {
			past, err := x.l.env.Bus.Past(ctx, consumer, last)
			if past {
				break
			}
			if err != nil && ctx.Err() == nil {
				return false, err
			}
			select {
			case <-ctx.Done():
				return false, nil
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return true, nil
}
