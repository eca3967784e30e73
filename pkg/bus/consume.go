package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/contract"
)

// Message is a message that was handed out. Exactly one of its verdicts must be given: Ack, Nak, NakWithDelay or Term.
type Message = jetstream.Msg

// heartbeat is how often the server says that a pull still stands. After two that were missed the client pulls anew, which
// also ends a stall of its own: under load nats.go 1.55 may handle all that it has pulled before it notes that the pull is
// over, and then waits without one. With the default of 15s that was seen to stop a consumer for 30s.
const heartbeat = time.Second

// Consume hands the messages of a consumer to handle one after the other, from one goroutine, until ctx ends; then it
// hands over what it has pulled and returns. Handle must not block longer than it takes another message to be made
// room for: it usually starts a goroutine. Ahead is how many messages are pulled in advance.
func (b *Bus) Consume(ctx context.Context, consumer string, ahead int, handle func(Message)) error {
	c, err := b.consumer(ctx, consumer)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // told to end before it began, which is no error
	}
	if err != nil {
		return err
	}
	flow, err := c.Consume(handle,
		jetstream.PullMaxMessages(ahead),
		jetstream.PullHeartbeat(heartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			b.log.WarnContext(ctx, "consuming is disturbed, going on", slog.String("consumer", consumer), slog.Any("error", err))
		}))
	if err != nil {
		return fmt.Errorf("consume %s: %w", consumer, err)
	}
	<-ctx.Done()
	// Drained, not stopped: a stop would leave what was pulled unanswered until its AckWait has passed.
	flow.Drain()
	select {
	case <-flow.Closed():
	case <-time.After(10 * time.Second):
		b.log.WarnContext(ctx, "consumer did not drain in time; what it had pulled comes again", slog.String("consumer", consumer))
	}
	return nil
}

// Batching is how messages are handed out in batches.
type Batching struct {
	// Workers is how many batches are handled at once.
	Workers int
	// Size is the most messages that a batch has.
	Size int
	// Now is how many messages a batch that is begun now has at most, if fewer than Size. Nil: Size.
	Now func() int
	// Linger is how long a batch waits for more messages after its first, while they come so fast that company messages are
	// expected in that time: who would wait for one or two others waits for nobody. 0 takes what is there.
	Linger time.Duration
}

// Batches hands the messages of a consumer to handle in batches of what has come in, until ctx ends; then it hands over
// what it has pulled, and returns. When handle returns nil the batch is acked; else it comes again after a while. The
// context that handle gets does not end with ctx: handle bounds its own work, and a batch that was begun is finished.
// Handle may Term a message that can never be handled.
func (b *Bus) Batches(ctx context.Context, consumer string, how Batching, handle func(context.Context, []Message) error) error {
	return b.BatchesThen(ctx, consumer, how, func(ctx context.Context, batch []Message) (func() error, error) { return nil, handle(ctx, batch) })
}

// BatchesThen is Batches for a handler that leaves something of its work for which nobody waits: what it gives beside its error is
// done while the next batches are handled, and its batch is acked when that returns nil as well. Of that as much may be under way as
// the consumer has unanswered.
func (b *Bus) BatchesThen(ctx context.Context, consumer string, how Batching, handle func(context.Context, []Message) (then func() error, err error)) error {
	queue := make(chan arrival, how.Size) // what one worker may take next while all are at work
	ended := make(chan struct{})          // nothing is put into the queue any more
	var wg sync.WaitGroup
	for range how.Workers {
		wg.Go(func() {
			for {
				batch := gather(queue, ended, how)
				if len(batch) == 0 {
					return
				}
				then, err := handle(context.WithoutCancel(ctx), batch)
				if err != nil || then == nil {
					b.settle(ctx, consumer, batch, err)
					continue
				}
				wg.Go(func() { b.settle(ctx, consumer, batch, then()) })
			}
		})
	}
	var last time.Time
	gap := how.Linger // between messages, of late
	err := b.Consume(ctx, consumer, 2*how.Size, func(m Message) {
		now := time.Now()
		gap += (min(now.Sub(last), how.Linger) - gap) / 8
		last = now
		one := arrival{m, gap < how.Linger/company}
		select {
		case queue <- one:
		case <-ended: // draining took too long; the message comes again
		}
	})
	close(ended)
	wg.Wait()
	return err
}

// company is how many messages a batch that waits expects at least.
const company = 4

// arrival is a message that came, and whether others are expected soon after it.
type arrival struct {
	Message

	soon bool
}

// gather waits for a message and makes a batch of it and of those that come within the linger. When the queue has ended
// it takes what is left; an empty batch is the end.
func gather(queue <-chan arrival, ended <-chan struct{}, how Batching) (batch []Message) {
	var over <-chan time.Time
	select {
	case m := <-queue:
		batch = append(batch, m.Message)
		if m.soon {
			over = time.After(how.Linger)
		}
	case <-ended:
	}
	size := how.Size
	if how.Now != nil {
		size = min(size, max(1, how.Now()))
	}
	for len(batch) < size {
		select {
		case m := <-queue:
			batch = append(batch, m.Message)
			continue
		default:
		}
		if over == nil {
			return batch
		}
		select {
		case m := <-queue:
			batch = append(batch, m.Message)
		case <-over:
			over = nil
		case <-ended:
			over = nil
		}
	}
	return batch
}

// Collect hands the messages of a consumer to handle in batches of what lies there, size at most, one after the other, until ctx ends.
// It looks again when the pause has passed since it looked last, or at once when the batch was full; where nothing lies it waits for
// what comes. So what comes all the time is handed out by the bus in lumps, at a fraction of what each costs by itself. When handle
// returns nil the batch is acked; else it comes again after a while. The context that handle gets does not end with ctx: handle
// bounds its own work, and a batch that was begun is finished. Handle may Term a message that can never be handled. Where ctx ends
// while the bus is away, it returns within ten seconds, as Consume does.
func (b *Bus) Collect(ctx context.Context, consumer string, size int, pause time.Duration, handle func(context.Context, []Message) error) error {
	c, err := b.consumer(ctx, consumer)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // told to end before it began, which is no error
	}
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		next := time.Now().Add(pause)
		batch, err := lying(ctx, c, size)
		if len(batch) > 0 {
			b.settle(ctx, consumer, batch, handle(context.WithoutCancel(ctx), batch))
		}
		switch {
		case err != nil && ctx.Err() == nil:
			b.log.WarnContext(ctx, "consuming is disturbed, going on", slog.String("consumer", consumer), slog.Any("error", err))
			next = time.Now().Add(heartbeat)
		case len(batch) >= size:
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(next)):
		}
	}
	return nil
}

// lying gives what lies there for a consumer, size messages at most, or waits for some until ctx ends.
func lying(ctx context.Context, c jetstream.Consumer, size int) (batch []Message, err error) {
	got, err := c.FetchNoWait(size)
	if err != nil {
		return nil, err
	}
	for m := range got.Messages() {
		batch = append(batch, m)
	}
	if err := got.Error(); len(batch) > 0 || err != nil {
		return batch, err
	}
	// One at a time, and drained at the end: what is handed out in the moment in which ctx ends would else lie until its AckWait.
	next, err := c.Messages(jetstream.PullMaxMessages(1), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, next.Drain)()
	m, err := next.Next()
	for next.Drain(); err == nil; m, err = next.Next() {
		batch = append(batch, m)
	}
	if errors.Is(err, jetstream.ErrMsgIteratorClosed) { // drained
		err = nil
	}
	return batch, err
}

// ErrLater is what a handler returns for a batch that it has no time for any more, in whole or in part: it comes again at once, to
// who takes messages then, and no line tells of it.
var ErrLater = errors.New("there is no time for it before the stop; it comes again")

// settle acks a batch, or asks for it again.
func (b *Bus) settle(ctx context.Context, consumer string, batch []Message, err error) {
	if errors.Is(err, ErrLater) {
		for _, m := range batch {
			_ = m.Nak() // if this is not sent, AckWait brings the message back
		}
		return
	}
	if err == nil {
		for _, m := range batch {
			if err := m.Ack(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
				b.log.WarnContext(ctx, "ack not sent; the message comes again", slog.String("consumer", consumer), slog.Any("error", err))
			}
		}
		return
	}
	b.log.ErrorContext(ctx, "batch not handled, trying again", slog.String("consumer", consumer),
		slog.Int("messages", len(batch)), slog.Any("error", err))
	for _, m := range batch {
		_ = m.NakWithDelay(time.Second) // if this is not sent either, AckWait brings the message back
	}
}

func (b *Bus) consumer(ctx context.Context, name string) (jetstream.Consumer, error) {
	for _, c := range contract.Consumers() {
		if c.Config.Durable != name {
			continue
		}
		consumer, err := b.js.Consumer(ctx, c.Stream, name)
		if err != nil {
			return nil, fmt.Errorf("open consumer %s: %w", name, err)
		}
		return consumer, nil
	}
	return nil, fmt.Errorf("consumer %s is not in the contract", name)
}

// Pending is how many messages a consumer has not been given yet, and how many it has not answered.
func (b *Bus) Pending(ctx context.Context, name string) (waiting uint64, unanswered int, err error) {
	c, err := b.consumer(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("ask for consumer %s: %w", name, err)
	}
	return info.NumPending, info.NumAckPending, nil
}

// Lag is how far a consumer's work is behind what is stored.
type Lag struct {
	// Messages are those that nobody has answered yet.
	Messages uint64
	// Oldest is when the oldest of them was stored; zero when there is none.
	Oldest time.Time
}

// Lag is how far a consumer's work is behind.
func (b *Bus) Lag(ctx context.Context, name string) (Lag, error) {
	c, err := b.consumer(ctx, name)
	if err != nil {
		return Lag{}, err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return Lag{}, fmt.Errorf("ask for consumer %s: %w", name, err)
	}
	lag := Lag{Messages: info.NumPending + uint64(info.NumAckPending)}
	if lag.Messages == 0 {
		return lag, nil
	}
	s, err := b.Stream(ctx, info.Stream)
	if err != nil {
		return lag, err
	}
	oldest, err := s.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(info.Config.FilterSubject))
	if errors.Is(err, jetstream.ErrMsgNotFound) { // answered meanwhile
		return Lag{}, nil
	}
	if err != nil {
		return lag, fmt.Errorf("read the oldest message of consumer %s: %w", name, err)
	}
	lag.Oldest = oldest.Time
	return lag, nil
}

// Past says whether a consumer has answered everything that is for it up to this sequence of its stream, which must have been stored
// before the call.
func (b *Bus) Past(ctx context.Context, name string, sequence uint64) (bool, error) {
	floor, err := b.floor(ctx, name, sequence)
	return floor >= sequence, err
}

// floor is a sequence up to which a consumer has answered every message that is for it: last at most, a sequence of its stream at
// which or behind which something was stored before the call, and less than that while it has not answered all that came before.
func (b *Bus) floor(ctx context.Context, name string, last uint64) (uint64, error) {
	c, err := b.consumer(ctx, name)
	if err != nil {
		return 0, err
	}
	now := c.CachedInfo() // of a moment ago
	switch {
	case now.NumAckPending > 0:
		return min(now.AckFloor.Stream, last), nil
	case now.NumPending > 0:
		return min(now.Delivered.Stream, last), nil
	}
	// That nothing is left says the consumer, which is told of what is stored at the same time as whoever stored it, or a moment later:
	// by another goroutine of its server, or, where its leader is another node than the stream's, by its replica of the stream.
	newest, err := b.Last(ctx, now.Stream, now.Config.FilterSubject)
	if err == nil && newest > now.Delivered.Stream {
		last = min(now.Delivered.Stream, last)
	}
	return last, err
}
