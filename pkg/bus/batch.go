package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/contract"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// A batch is whole or not at all because it lies in BATCHES, in one message, before the first of its messages is published, and
// until the last one is. Whoever dies between the two is followed by another, who finds it there. (The server's own atomic
// batches, ADR-50, open a store on the disk for each and wait for it, while all that others publish to the stream waits too.)

// maxPart is how much of a batch is in one message: what does not fit is parted, and whole when all parts are there. A single
// message may be larger, up to what the bus takes.
const maxPart = MaxPayload / 2

// PublishBatch publishes messages whole or not at all, and answers for each whether its stream held it before. The messages
// must have ids. They come onto their streams in their order, with others between them; where the bus did not take one at once,
// which is tried again, it comes behind those that it took. After an error it is not known whether they will be there: the
// caller repeats all of them with the same ids.
func (b *Bus) PublishBatch(ctx context.Context, msgs ...*nats.Msg) ([]Ack, error) {
	if len(msgs) == 1 {
		return b.PublishAcks(ctx, msgs...)
	}
	parts, err := BatchParts(nuid.Next(), msgs)
	if err != nil {
		return nil, err
	}
	kept, err := b.PublishAcks(ctx, parts...)
	if err != nil {
		return nil, err
	}
	acks, err := b.PublishAcks(ctx, msgs...)
	if err != nil {
		return nil, err
	}
	for _, part := range kept {
		if err := b.Remove(ctx, contract.Batches, part.Sequence); err != nil {
			b.log.DebugContext(ctx, "a batch that is published is published again, which changes nothing", slog.Any("error", err))
		}
	}
	return acks, nil
}

// BatchParts makes the messages that hold a batch in BATCHES.
func BatchParts(batchID string, msgs []*nats.Msg) ([]*nats.Msg, error) {
	var bodies [][]byte
	for part, size := (&busv1.Batch{}), 0; len(msgs) > 0; part, size = (&busv1.Batch{}), 0 {
		for len(msgs) > 0 {
			m := batched(msgs[0])
			if size += proto.Size(m); size > maxPart && len(part.Messages) > 0 {
				break
			}
			part.Messages, msgs = append(part.Messages, m), msgs[1:]
		}
		body, err := proto.Marshal(part)
		if err != nil {
			return nil, fmt.Errorf("put a batch together: %w", err)
		}
		bodies = append(bodies, body)
	}
	parts := make([]*nats.Msg, len(bodies))
	for i, body := range bodies {
		parts[i] = contract.BatchMessage(batchID, i, len(bodies), body)
	}
	return parts, nil
}

func batched(m *nats.Msg) *busv1.BatchedMessage {
	out := &busv1.BatchedMessage{Subject: m.Subject, Headers: make(map[string]string, len(m.Header)), Data: m.Data}
	for name := range m.Header {
		out.Headers[name] = m.Header[name][0] // none of ours has two values
	}
	return out
}

func unbatched(m *busv1.BatchedMessage) *nats.Msg {
	out := &nats.Msg{Subject: m.GetSubject(), Header: make(nats.Header, len(m.GetHeaders())), Data: m.GetData()}
	for name, value := range m.GetHeaders() {
		out.Header[name] = []string{value}
	}
	return out
}

const (
	// batchAbandoned is how long the parts of a batch lie of which some are missing, before they are removed: longer than
	// anybody goes on trying to publish them.
	batchAbandoned = 5 * time.Minute
	// batchesAtOnce is how many are looked at together.
	batchesAtOnce = 64
)

// FinishBatches publishes, until ctx ends, the batches that others have left when they died: those that have lain for this long,
// in which their publishers would have been done. Any number of processes may do so: a message that is published again is there once.
func (b *Bus) FinishBatches(ctx context.Context, silence time.Duration) {
	tick := time.NewTicker(silence / 2)
	defer tick.Stop()
	for {
		if err := b.finishBatches(ctx, silence); err != nil && ctx.Err() == nil {
			b.log.WarnContext(ctx, "batches that were left are not published yet, trying again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// finishBatches publishes the batches that have lain for so long.
func (b *Bus) finishBatches(ctx context.Context, silence time.Duration) error {
	for next, more := uint64(1), true; more; {
		var found []Stored
		var err error
		if found, more, err = b.List(ctx, contract.Batches, contract.BatchSubjects, next, batchesAtOnce, MaxPayload); err != nil {
			return err
		}
		for _, first := range found {
			next = first.Sequence + 1
			if time.Since(first.Time) < silence {
				return nil // as are all behind it
			}
			if err := b.finishBatch(ctx, first); err != nil {
				return err
			}
		}
	}
	return nil
}

var errNoBatch = errors.New("it is no batch")

// finishBatch publishes the batch of which this is a part, if it is whole, and removes it.
func (b *Bus) finishBatch(ctx context.Context, one Stored) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	parts, wanted := []Stored{one}, contract.PartsOf(one.Header)
	for more := wanted > 1; more; {
		var rest []Stored
		var err error
		if rest, more, err = b.List(ctx, contract.Batches, one.Subject, parts[len(parts)-1].Sequence+1, wanted, 2*MaxPayload); err != nil {
			return err
		}
		parts = append(parts, rest...)
	}
	switch msgs, err := messagesOf(parts); {
	case len(parts) < wanted && time.Since(one.Time) < batchAbandoned:
		return nil // its publisher may be at it
	case len(parts) < wanted: // nobody was told that it is taken
	case err != nil:
		b.log.ErrorContext(ctx, "a message on BATCHES is no batch; it is left out", slog.Any("error", err))
	default:
		if err := b.Publish(ctx, msgs...); err != nil {
			return err
		}
		b.log.InfoContext(ctx, "a batch whose publisher has died is published", slog.Int("messages", len(msgs)))
	}
	for _, part := range parts {
		if err := b.Remove(ctx, contract.Batches, part.Sequence); err != nil {
			return err
		}
	}
	return nil
}

// NoBatches waits a moment for one in which no batch is under way, and says whether it came. Then nothing of any batch is on the
// disk: the server removes a file when the last of its messages is.
func (b *Bus) NoBatches(ctx context.Context) (bool, error) {
	stream, err := b.Stream(ctx, contract.Batches)
	if err != nil {
		return false, err
	}
	for range 100 {
		info, err := stream.Info(ctx)
		if err != nil {
			return false, fmt.Errorf("look for batches: %w", err)
		}
		if info.State.Msgs == 0 {
			return true, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return false, nil
}

func messagesOf(parts []Stored) (msgs []*nats.Msg, err error) {
	for _, part := range parts {
		body := &busv1.Batch{}
		if err := proto.Unmarshal(part.Data, body); err != nil {
			return nil, fmt.Errorf("read a batch: %w", err)
		}
		for _, m := range body.GetMessages() {
			msgs = append(msgs, unbatched(m))
		}
	}
	if len(msgs) == 0 {
		return nil, errNoBatch
	}
	return msgs, nil
}
