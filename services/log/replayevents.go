package eventlog

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/webhook"
	logv1 "shopbell.dev/proto/shopbell/log/v1"

	"shopbell.dev/services/log/store"
)

// placed is an event and where a job found it.
type placed struct {
	contract.Event
	spot spot
}

// spot is where an event lies: on the bus, or in the log alone. Its zero value is before all events.
type spot struct {
	sequence uint64 // on the bus; 0: in the log
	accepted int64  // in microseconds; 0 in cursors of before
	id       string // in the log
}

func (p spot) String() string {
	if p.sequence > 0 {
		return fmt.Sprintf("%d %d", p.sequence, p.accepted)
	}
	return fmt.Sprintf("log %d %s", p.accepted, p.id)
}

// parseSpot reads a job's cursor.
func parseSpot(cursor string) (p spot, err error) {
	if cursor == "" {
		return p, nil
	}
	if n, _ := fmt.Sscanf(cursor, "log %d %s", &p.accepted, &p.id); n > 0 {
		return p, nil
	}
	if n, _ := fmt.Sscanf(cursor, "%d %d", &p.sequence, &p.accepted); n == 0 || p.sequence == 0 {
		return p, fmt.Errorf("cursor of the job: %q is no spot of an event", cursor)
	}
	return p, nil
}

// events gives the events that a job sends to its webhook, in their order, from behind its cursor on: from the log what the
// bus no longer has, and then from the bus.
func (r *replays) events(ctx context.Context, state *logv1.ReplayState, w *webhook.Webhook, give func(placed) (more bool)) error {
	if err := r.split(ctx, state); err != nil {
		return err
	}
	at, err := parseSpot(state.Cursor)
	if err != nil {
		return err
	}
	asked := state.Replay.Asked
	wanted := func(e *contract.Event) bool {
		if asked.GetEventType() != "" && e.Type != asked.GetEventType() || !w.Subscribes(e.Type) {
			return false
		}
		yes, _ := w.Wants(e, webhook.View(e))
		return yes
	}
	from := asked.GetFrom().AsTime()
	if before := state.GetFromLogBefore(); before != nil && at.sequence == 0 {
		more, err := r.loggedEvents(ctx, state, at, func(e placed) bool { return !wanted(&e.Event) || give(e) })
		if err != nil || !more {
			return err
		}
		if from = before.AsTime(); !from.Before(asked.GetTo().AsTime()) {
			return nil
		}
	}
	return r.busEvents(ctx, state, from, at.sequence, func(e placed) bool { return !wanted(&e.Event) || give(e) })
}

// eventsAtOnce is how many events are read from the log at once; their data is in memory together.
const eventsAtOnce = 50

// loggedEvents gives the events of a job that are read from the log.
func (r *replays) loggedEvents(ctx context.Context, state *logv1.ReplayState, at spot, give func(placed) bool) (more bool, err error) {
	asked := state.Replay.Asked
	f := store.EventsFilter{ShopID: asked.GetShopId(), From: asked.GetFrom().AsTime(), To: state.GetFromLogBefore().AsTime(), Limit: eventsAtOnce}
	if to := asked.GetTo().AsTime(); to.Before(f.To) {
		f.To = to
	}
	if at != (spot{}) {
		f.From, f.After = time.UnixMicro(at.accepted), at.id
	}
	for {
		page, err := r.log.store.Events(ctx, f)
		if err != nil {
			return false, err
		}
		for _, e := range page {
			accepted := e.GetAcceptedAt().AsTime()
			if f.From, f.After = accepted, e.GetId(); !give(placed{eventOf(e), spot{accepted: accepted.UnixMicro(), id: e.GetId()}}) {
				return false, nil
			}
		}
		if len(page) < f.Limit {
			return true, nil
		}
	}
}

// busEvents gives the events of a job that were accepted from a time on and lie on the bus behind a sequence.
func (r *replays) busEvents(ctx context.Context, state *logv1.ReplayState, from time.Time, behind uint64, give func(placed) bool) error {
	asked := state.Replay.Asked
	begin := bus.From{Time: from} // the bus stores an event a moment after it was accepted
	if behind > 0 {
		begin = bus.From{Sequence: behind + 1}
	}
	err := r.log.env.Bus.Read(ctx, contract.Events, contract.ShopEventSubjects(asked.GetShopId()), begin, func(m bus.Message) bool {
		meta, err := m.Metadata()
		if err != nil || meta.Sequence.Stream > state.LastEvent {
			return false
		}
		e, err := contract.ParseEvent(m.Headers(), m.Data())
		if err != nil || e.AcceptedAt.Before(from) || !e.AcceptedAt.Before(asked.GetTo().AsTime()) {
			return true
		}
		return give(placed{e, spot{sequence: meta.Sequence.Stream, accepted: e.AcceptedAt.UnixMicro()}})
	})
	if err != nil {
		return fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	return nil
}

// storedWithin is how long after it was accepted an event is on the bus at the latest.
const storedWithin = time.Minute

// split sees to it that what the bus no longer has is read from the log. The bus may have let go of more since a job began, as
// one may be paused for days: then it goes back to the log, a little further than it was, so that nothing is left out.
func (r *replays) split(ctx context.Context, state *logv1.ReplayState) error {
	events, err := r.log.env.Bus.Stream(ctx, contract.Events)
	if err != nil {
		return fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	has := events.CachedInfo().State
	at, err := parseSpot(state.Cursor)
	if err != nil || has.FirstSeq <= at.sequence+1 || at.sequence > 0 && at.accepted == 0 {
		return err // nothing behind it is gone, or, of a job from before, it is not known from when on
	}
	first := state.Replay.Asked.GetTo().AsTime()
	if has.Msgs > 0 && has.FirstTime.Before(first) {
		first = has.FirstTime.Truncate(time.Microsecond).Add(time.Microsecond)
	}
	before := state.GetFromLogBefore()
	if !state.Replay.Asked.GetFrom().AsTime().Before(first) || before != nil && !before.AsTime().Before(first) {
		return nil
	}
	if followed, err := r.log.env.Bus.Past(ctx, contract.LogEvents, has.FirstSeq-1); err != nil || !followed {
		return fault.Away(2*time.Second, "the log does not have the events yet that the bus no longer has; try again: %w", err)
	}
	state.FromLogBefore = timestamppb.New(first)
	if at.sequence > 0 {
		state.Cursor = spot{accepted: at.accepted - storedWithin.Microseconds()}.String()
	}
	return nil
}
