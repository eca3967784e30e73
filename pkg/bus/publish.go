package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Ack is what the stream answered for a message: that it holds it.
type Ack struct {
	Sequence uint64
	// Duplicate is true when the stream held a message with this id already; nothing was added.
	Duplicate bool
}

// Publish publishes messages and returns when the streams hold all of them. What passes (a bus that is away, or between
// two leaders) is tried again with the same ids until ctx ends. After an error some may be held and some not: the
// caller repeats all of them with the same ids, or refuses what they came from.
func (b *Bus) Publish(ctx context.Context, msgs ...*nats.Msg) error {
	_, err := b.PublishAcks(ctx, msgs...)
	return err
}

// PublishAcks is Publish that also gives the acks, in the order of the messages.
func (b *Bus) PublishAcks(ctx context.Context, msgs ...*nats.Msg) ([]Ack, error) {
	acks := make([]Ack, len(msgs))
	todo := make([]int, len(msgs))
	for i := range todo {
		todo[i] = i
	}
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		failed, err := b.publishOnce(ctx, msgs, acks, todo)
		if len(failed) == 0 {
			return acks, nil
		}
		if !passing(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("publish to %s: %w", msgs[failed[0]].Subject, err)
		}
		todo = failed
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("publish to %s: %w (stopped trying: %w)", msgs[failed[0]].Subject, err, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// publishOnce publishes the messages at these places side by side and returns the places of those that are not held.
func (b *Bus) publishOnce(ctx context.Context, msgs []*nats.Msg, acks []Ack, todo []int) (failed []int, err error) {
	futures := make([]jetstream.PubAckFuture, len(todo))
	for i, at := range todo {
		f, ferr := b.js.PublishMsgAsync(msgs[at])
		if ferr != nil {
			err = ferr
			continue
		}
		futures[i] = f
	}
	for i, at := range todo {
		if futures[i] == nil {
			failed = append(failed, at)
			continue
		}
		select {
		case ack := <-futures[i].Ok():
			acks[at] = Ack{ack.Sequence, ack.Duplicate}
		case ferr := <-futures[i].Err():
			failed, err = append(failed, at), ferr
		case <-ctx.Done():
			failed, err = append(failed, at), ctx.Err()
		}
	}
	return failed, err
}

// MaxBatch is how many messages PublishBatch takes: the server's limit (ADR-50).
const MaxBatch = 1000

// error codes of the server for batches (ADR-50).
const (
	errBatchDuplicate  jetstream.ErrorCode = 10201
	errBatchIncomplete jetstream.ErrorCode = 10176 // also what follows when the server has too many batches open
	errWrongLastID     jetstream.ErrorCode = 10070
	errWrongSequence   jetstream.ErrorCode = 10071
	errInFlight        jetstream.ErrorCode = 10164 // in a cluster: another message with a condition on this subject is under way
)

// Outrun says of an error of Publish that the message was to take the place of another one, and somebody was faster: that
// one is no longer there.
func Outrun(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == errWrongSequence || api.ErrorCode == errInFlight)
}

// PublishBatch publishes up to MaxBatch messages of one stream whole or not at all, and answers for each whether the
// stream held it before. The messages must have ids, each a different one.
func (b *Bus) PublishBatch(ctx context.Context, msgs ...*nats.Msg) ([]Ack, error) {
	if len(msgs) == 1 {
		return b.PublishAcks(ctx, msgs...)
	}
	select {
	case b.batches <- struct{}{}:
		defer func() { <-b.batches }()
	case <-ctx.Done():
		return nil, fmt.Errorf("publish a batch of %d: %w", len(msgs), ctx.Err())
	}
	acks := make([]Ack, len(msgs))
	fresh := msgs
	for {
		err := b.retry(ctx, time.Minute, func(ctx context.Context) error { return b.batchOnce(ctx, fresh) })
		var api *jetstream.APIError
		switch {
		case err == nil:
			return acks, nil
		case errors.As(err, &api) && api.ErrorCode == errBatchDuplicate:
			// A batch with a message that is held already is refused whole. Find out which those are, leave them
			// out, and publish the rest.
			if fresh, err = b.withoutHeld(ctx, msgs, acks); err != nil {
				return nil, err
			}
			if len(fresh) == 0 {
				return acks, nil
			}
		default:
			return nil, fmt.Errorf("publish a batch of %d: %w", len(fresh), err)
		}
	}
}

func (b *Bus) batchOnce(ctx context.Context, msgs []*nats.Msg) error {
	batch := nuid.Next()
	for i, m := range msgs {
		part := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: make(nats.Header, len(m.Header)+3)}
		for k, v := range m.Header {
			part.Header[k] = v
		}
		part.Header["Nats-Batch-Id"] = []string{batch}
		part.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i + 1)}
		if i < len(msgs)-1 {
			if err := b.conn.PublishMsg(part); err != nil {
				return err
			}
			continue
		}
		part.Header["Nats-Batch-Commit"] = []string{"1"}
		if _, err := b.js.PublishMsg(ctx, part, jetstream.WithRetryAttempts(0)); err != nil {
			return err
		}
	}
	return nil
}

// withoutHeld asks the stream for each message whether it holds its id, notes that in acks, and gives the others. It
// asks by publishing each under a condition that cannot hold (that the message before it had an id that no message
// has): the server answers a known id before it looks at that condition, and stores nothing either way.
func (b *Bus) withoutHeld(ctx context.Context, msgs []*nats.Msg, acks []Ack) (fresh []*nats.Msg, err error) {
	futures := make([]jetstream.PubAckFuture, len(msgs))
	for i, m := range msgs {
		probe := &nats.Msg{Subject: m.Subject, Header: nats.Header{
			jetstream.MsgIDHeader:             m.Header[jetstream.MsgIDHeader],
			jetstream.ExpectedLastMsgIDHeader: {"no message has this id"},
		}}
		if futures[i], err = b.js.PublishMsgAsync(probe); err != nil {
			return nil, fmt.Errorf("ask whether %s is held: %w", m.Subject, err)
		}
	}
	for i, f := range futures {
		select {
		case ack := <-f.Ok():
			if !ack.Duplicate {
				return nil, fmt.Errorf("ask whether %s is held: the stream stored the question", msgs[i].Subject)
			}
			acks[i] = Ack{ack.Sequence, true}
		case err := <-f.Err():
			var api *jetstream.APIError
			if !errors.As(err, &api) || api.ErrorCode != errWrongLastID {
				return nil, fmt.Errorf("ask whether %s is held: %w", msgs[i].Subject, err)
			}
			fresh = append(fresh, msgs[i])
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return fresh, nil
}
