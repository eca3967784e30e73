package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// LastMessage reads the last message on a subject of a stream, or nil when there is none. Any replica of the stream may answer,
// which may not have heard of the latest yet; see Last.
func (b *Bus) LastMessage(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	handle, opened := b.handles.Load(stream)
	if !opened { // once: to open a stream is to ask the server for its state
		s, err := b.Stream(ctx, stream)
		if err != nil {
			return nil, err
		}
		handle, _ = b.handles.LoadOrStore(stream, s)
	}
	m, err := handle.(jetstream.Stream).GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil //nolint:nilnil // the doc says so
	}
	if err != nil {
		return nil, fmt.Errorf("read the last message at %s: %w", subject, err)
	}
	return m, nil
}

// From is where reading begins: at a sequence or, when that is 0, at a time.
type From struct {
	Sequence uint64
	Time     time.Time
}

// readBatch is how many messages are asked for together.
const readBatch = 256

// Read calls handle for the messages that are stored now under the subjects of a stream, in their order, until it gives
// false or has been given all of them. Nothing is acked, and nothing is kept of the reading.
func (b *Bus) Read(ctx context.Context, stream, subjects string, from From, handle func(Message) (more bool)) error {
	cfg := jetstream.ConsumerConfig{
		FilterSubject: subjects, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: 30 * time.Second,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from.Sequence,
	}
	if from.Sequence == 0 {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &from.Time
	}
	c, err := b.js.CreateConsumer(ctx, stream, cfg)
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	defer func() {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = b.js.DeleteConsumer(bound, stream, c.CachedInfo().Name) // if this is not heard, it goes away by itself
	}()
	for left := c.CachedInfo().NumPending; left > 0; {
		batch, err := c.Fetch(readBatch, jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		got := 0
		for m := range batch.Messages() {
			got++
			meta, err := m.Metadata()
			if err != nil {
				return fmt.Errorf("read %s: %w", stream, err)
			}
			if left = meta.NumPending; !handle(m) {
				return nil
			}
			if left == 0 {
				break
			}
		}
		if err := batch.Error(); err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if got == 0 && left > 0 {
			return fmt.Errorf("read %s: the bus has %d more messages, and does not give them", stream, left)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
