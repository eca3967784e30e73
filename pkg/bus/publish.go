package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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

// Of so many messages of one publisher all may be on their way at once, and of fewer of one that has a connection aside. A stream takes
// its messages one after the other, so that a message which comes alone waits for no more than so many of anybody who publishes
// thousands.
const (
	atOnce      = 64
	atOnceAside = 16
)

// publishOnce publishes the messages at these places side by side and returns the places of those that are not held.
func (b *Bus) publishOnce(ctx context.Context, msgs []*nats.Msg, acks []Ack, todo []int) (failed []int, err error) {
	futures := make([]jetstream.PubAckFuture, len(todo))
	await := func(i int) {
		at := todo[i]
		if futures[i] == nil {
			failed = append(failed, at)
			return
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
	atOnce := atOnce
	if b.aside == nil {
		atOnce = atOnceAside
	}
	for i, at := range todo {
		if i >= atOnce {
			await(i - atOnce)
		}
		f, ferr := b.js.PublishMsgAsync(msgs[at])
		if ferr != nil {
			err = ferr
			continue
		}
		futures[i] = f
	}
	for i := max(0, len(todo)-atOnce); i < len(todo); i++ {
		await(i)
	}
	return failed, err
}

// error codes of the server for messages with a condition.
const (
	errWrongSequence jetstream.ErrorCode = 10071
	errInFlight      jetstream.ErrorCode = 10164 // in a cluster: another message with a condition on this subject is under way
)

// Outrun says of an error of Publish that the message was to take the place of another one, and somebody was faster: that
// one is no longer there.
func Outrun(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == errWrongSequence || api.ErrorCode == errInFlight)
}
