package eventlog

import (
	"context"
	"log/slog"
	"time"

	"shopbell.dev/services/log/store"
)

// How often what is too old or too much is looked for. A call that finds nothing costs a millisecond; the ceiling has room
// for what comes between two of them.
const retainEvery = 10 * time.Second

// retain forgets what is too old or too much until ctx ends.
func (l *Log) retain(ctx context.Context) {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	keep := store.Keep{Age: l.cfg.Keep, Bytes: int64(l.cfg.MaxBytes)}
	var told time.Time // when it was said last that the log is full
	for {
		now := time.Now()
		done, err := l.store.Forget(ctx, now, keep)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.env.Log.WarnContext(ctx, "what is too old or too much stays in the log for now", slog.Any("error", err))
		case done.ForSize && now.Sub(told) > time.Hour:
			told = now
			l.env.Log.WarnContext(ctx, "the log has reached log.max_bytes and forgets before log.keep is over", slog.Time("forgotten_until", done.Until),
				slog.String("max_bytes", l.cfg.MaxBytes.String()))
		}
		if size, err := l.store.Size(ctx); err == nil {
			l.size.Set(float64(size))
		}
		if !done.Until.IsZero() {
			l.forgotten.Set(float64(done.Until.Unix()))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
