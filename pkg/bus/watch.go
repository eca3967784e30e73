package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Entry is a value of a bucket, or its removal.
type Entry = jetstream.KeyValueEntry

// Watch calls put for every value of a bucket, then filled once, then put for every change, until ctx ends. All calls
// come from one goroutine.
func (b *Bus) Watch(ctx context.Context, bucket string, put func(Entry), filled func()) error {
	kv, err := b.Bucket(ctx, bucket)
	if err != nil {
		return err
	}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch bucket %s: %w", bucket, err)
	}
	defer func() { _ = w.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, ok := <-w.Updates():
			switch {
			case !ok && ctx.Err() == nil:
				return fmt.Errorf("watch of bucket %s ended", bucket)
			case !ok:
				return nil
			case entry == nil: // all there was at first has come
				filled()
			default:
				put(entry)
			}
		}
	}
}
