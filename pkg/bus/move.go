package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/contract"
)

// How much is moved at once.
const (
	movedAtOnce = 256
	movedBytes  = 8 << 20
)

// move brings what an earlier build left where it no longer lies to where it lies now. A million timers take minutes: when its time is up
// it has moved some, and is called again for the rest. Whoever dies meanwhile, or does it beside another, may leave a delivery there twice.
func (b *Bus) move(ctx context.Context) error {
	for _, left := range contract.Moved() {
		if err := b.js.DeleteConsumer(ctx, left.Stream, left.Consumer); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fmt.Errorf("remove consumer %s from %s: %w", left.Consumer, left.Stream, err)
		}
		for _, subject := range left.Subjects {
			if err := b.moveFrom(ctx, left.Stream, subject); err != nil {
				return fmt.Errorf("move %s out of %s: %w", subject, left.Stream, err)
			}
		}
	}
	return nil
}

func (b *Bus) moveFrom(ctx context.Context, stream, subject string) error {
	moved := 0
	for next, more := uint64(1), true; more; {
		var batch []Stored
		var err error
		if batch, more, err = b.List(ctx, stream, subject, next, movedAtOnce, movedBytes); err != nil {
			return err
		}
		msgs := make([]*nats.Msg, len(batch))
		for i, m := range batch {
			next = m.Sequence + 1
			msgs[i] = contract.Again(m.Subject, m.Header, m.Data, m.Sequence)
		}
		if err := b.Publish(ctx, msgs...); err != nil {
			return err
		}
		for _, m := range batch {
			if err := b.Remove(ctx, stream, m.Sequence); err != nil {
				return err
			}
		}
		moved += len(batch)
	}
	if moved > 0 {
		b.log.InfoContext(ctx, "what an earlier build left is where it lies now", slog.String("stream", stream), slog.String("subjects", subject), slog.Int("messages", moved))
	}
	return nil
}
