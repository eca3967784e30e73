package bus

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"
)

// Tail calls open once, and then handle for every message that is stored under the subjects of a stream from then on, one
// after the other, until ctx ends. It is nobody's work: nothing is acked, nobody shares it, and nothing is kept of it. When
// the bus was away it goes on where it was.
func (b *Bus) Tail(ctx context.Context, stream, subjects string, open func(), handle func(Message)) error {
	s, err := b.Stream(ctx, stream)
	if err != nil {
		return err
	}
	// By sequence, and not "new": a consumer that is made anew before the first message came must miss none.
	c, err := b.js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subjects}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: s.CachedInfo().State.LastSeq + 1,
	})
	if err != nil {
		return fmt.Errorf("tail %s: %w", stream, err)
	}
	flow, err := c.Consume(handle, jetstream.PullHeartbeat(heartbeat), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		b.log.DebugContext(ctx, "tailing is disturbed, going on", slog.String("stream", stream), slog.Any("error", err))
	}))
	if err != nil {
		return fmt.Errorf("tail %s: %w", stream, err)
	}
	open()
	<-ctx.Done()
	flow.Stop()
	<-flow.Closed()
	return nil
}
