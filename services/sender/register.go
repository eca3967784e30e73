package sender

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// register is which lanes hold deliveries, who owns them, and which senders are alive. It follows the LANES bucket, in
// which everything is written under the condition that nobody else has written meanwhile: so a lane has one owner at a
// time, whichever senders reach for it.
//
// There is no wake-up message that could be lost or come back: a lane stands in the bucket until its owner has emptied
// it, the owner keeps the time in memory, and when a sender falls silent the others share out its lanes.
type register struct {
	me      string
	bucket  jetstream.KeyValue
	log     *slog.Logger
	changed func(webhookID string) // called, without the lock, when a lane's entry has come or gone

	mu      sync.Mutex // guards what follows
	lanes   map[string]entry
	members map[string]time.Time // when each was last heard of, by our clock
}

type entry struct {
	*busv1.LaneState
	revision uint64
}

const (
	beatEvery = 2 * time.Second
	// silence is how long nothing is heard of a sender until the others take its lanes.
	silence = 10 * time.Second
)

func newRegister(me string, bucket jetstream.KeyValue, log *slog.Logger) *register {
	return &register{me: me, bucket: bucket, log: log, changed: func(string) {}, lanes: map[string]entry{}, members: map[string]time.Time{}}
}

// follow is a watch (see bus.Together).
func (r *register) follow(b *bus.Bus) func(ctx context.Context, filled func()) error {
	return func(ctx context.Context, filled func()) error {
		full := false
		return b.Watch(ctx, contract.Lanes, func(e bus.Entry) { r.put(ctx, e, full) }, func() { full = true; filled() })
	}
}

func (r *register) put(ctx context.Context, e bus.Entry, live bool) {
	webhookID, sender := contract.ParseLaneKey(e.Key())
	there := e.Operation() == jetstream.KeyValuePut
	if sender != "" {
		heard := time.Now()
		if !live { // it may have been written long ago
			heard = e.Created()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if there {
			r.members[sender] = heard
		} else {
			delete(r.members, sender)
		}
		return
	}
	state := &busv1.LaneState{}
	if err := proto.Unmarshal(e.Value(), state); there && err != nil {
		r.log.ErrorContext(ctx, "a lane cannot be read", slog.String("webhook_id", webhookID), slog.Any("error", err))
		return
	}
	r.mu.Lock()
	if known := r.lanes[webhookID]; e.Revision() < known.revision {
		r.mu.Unlock() // we know better, having written it ourselves
		return
	}
	if there {
		r.lanes[webhookID] = entry{state, e.Revision()}
	} else {
		delete(r.lanes, webhookID)
	}
	r.mu.Unlock()
	r.changed(webhookID)
}

// lane gives the entry of a lane that holds deliveries.
func (r *register) lane(webhookID string) (entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.lanes[webhookID]
	return e, ok
}

func (r *register) count() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.lanes)
}

// share is among how many senders a webhook's limits are shared out: those that are alive.
func (r *register) share() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 1
	for name, heard := range r.members {
		if name != r.me && time.Since(heard) < silence {
			n++
		}
	}
	return n
}

// claim enters a lane as ours. It is false when another sender has it already.
func (r *register) claim(ctx context.Context, what hold) (bool, error) {
	webhookID := what.webhookID
	state := &busv1.LaneState{ShopId: what.shop, WebhookId: webhookID, Owner: r.me, Reason: what.why, Since: timestamppb.Now(), Unwell: what.broken}
	return r.write(state, func(value []byte) (uint64, error) { return r.bucket.Create(ctx, contract.LaneKey(webhookID), value) })
}

// takeOver makes a lane ours that belongs to a sender that is silent. It is false when another sender was first.
func (r *register) takeOver(ctx context.Context, e entry) (bool, error) {
	state := proto.CloneOf(e.LaneState)
	state.Owner = r.me
	return r.write(state, func(value []byte) (uint64, error) {
		return r.bucket.Update(ctx, contract.LaneKey(e.WebhookId), value, e.revision)
	})
}

// tell enters that the receiver of a lane that is ours is not well.
func (r *register) tell(ctx context.Context, e entry, why string) error {
	state := proto.CloneOf(e.LaneState)
	state.Reason, state.Unwell = why, true
	_, err := r.write(state, func(value []byte) (uint64, error) {
		return r.bucket.Update(ctx, contract.LaneKey(e.WebhookId), value, e.revision)
	})
	return err
}

func (r *register) write(state *busv1.LaneState, write func([]byte) (uint64, error)) (bool, error) {
	value, err := proto.Marshal(state)
	if err != nil {
		return false, fmt.Errorf("enter the lane of %s: %w", state.WebhookId, err)
	}
	revision, err := write(value)
	if errors.Is(err, jetstream.ErrKeyExists) || isWrongRevision(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("enter the lane of %s: %w", state.WebhookId, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lanes[state.WebhookId].revision < revision {
		r.lanes[state.WebhookId] = entry{state, revision}
	}
	return true, nil
}

func isWrongRevision(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// markerTTL is how long the bucket remembers that a lane was let go.
const markerTTL = time.Hour

// letGo takes our entry of a lane away. It is false when it is not ours any more.
func (r *register) letGo(ctx context.Context, e entry) (bool, error) {
	err := r.bucket.Purge(ctx, contract.LaneKey(e.WebhookId), jetstream.LastRevision(e.revision), jetstream.PurgeTTL(markerTTL))
	if isWrongRevision(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("let the lane of %s go: %w", e.WebhookId, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lanes[e.WebhookId].revision == e.revision {
		delete(r.lanes, e.WebhookId)
	}
	return true, nil
}

// beat says, until ctx ends, that we are alive; at the end it says that we are gone.
func (r *register) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		bound, cancel := context.WithTimeout(ctx, silence)
		if _, err := r.bucket.Put(bound, contract.MemberKey(r.me), nil); err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "other senders are not told that this one is alive; they may take its lanes", slog.Any("error", err))
		}
		cancel()
		select {
		case <-ctx.Done():
			bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), beatEvery)
			defer cancel()
			_ = r.bucket.Purge(bound, contract.MemberKey(r.me), jetstream.PurgeTTL(markerTTL)) // else silence says it later
			return
		case <-tick.C:
		}
	}
}

// orphans are the lanes whose owners are silent and which fall to us. The senders that are alive share them out by
// their names; what one of them leaves lying for long the others take too.
func (r *register) orphans(now time.Time) (out []entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	alive := map[string]bool{r.me: true}
	for name, heard := range r.members {
		if now.Sub(heard) < silence {
			alive[name] = true
		}
	}
	for webhookID, e := range r.lanes {
		if alive[e.Owner] {
			continue
		}
		heir, best := "", uint32(0)
		for name := range alive {
			h := fnv.New32a()
			_, _ = h.Write([]byte(name + "/" + webhookID))
			if sum := h.Sum32(); heir == "" || sum > best {
				heir, best = name, sum
			}
		}
		if heir == r.me || now.Sub(r.members[e.Owner]) > 2*silence {
			out = append(out, e)
		}
	}
	return out
}

// forgetSilent removes the senders that nothing was heard of for long.
func (r *register) forgetSilent(ctx context.Context, now time.Time) {
	r.mu.Lock()
	var gone []string
	for name, heard := range r.members {
		if name != r.me && now.Sub(heard) > 10*silence {
			gone = append(gone, name)
		}
	}
	r.mu.Unlock()
	for _, name := range gone {
		_ = r.bucket.Purge(ctx, contract.MemberKey(name), jetstream.PurgeTTL(markerTTL)) // else the next time
	}
}

// ours are the lanes that are entered as ours.
func (r *register) ours() (out []entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.lanes {
		if e.Owner == r.me {
			out = append(out, e)
		}
	}
	return out
}
