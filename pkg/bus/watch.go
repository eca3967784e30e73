package bus

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
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

// Together runs watches side by side until ctx ends or one of them fails, and calls filled once all of them have called
// theirs.
func Together(ctx context.Context, filled func(), watches ...func(ctx context.Context, filled func()) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var missing atomic.Int64
	missing.Store(int64(len(watches)))
	for _, watch := range watches {
		group.Go(func() error {
			return watch(ctx, func() {
				if missing.Add(-1) == 0 {
					filled()
				}
			})
		})
	}
	return group.Wait()
}
