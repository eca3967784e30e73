package bus

import (
	"context"
	"log/slog"
	"time"

	"shopbell.dev/pkg/contract"
)

const (
	// fillEvery is how often it is looked at how busy a stream is.
	fillEvery = time.Second
	// fillFrom is how many messages of a stream in that time make it busy.
	fillFrom = 50
	// emptyAfter is how many looks a quiet stream may be filled by one who was killed.
	emptyAfter = 60
)

// KeepFilled keeps a stream from being empty while it is busy, until ctx ends: a message that says nothing lies in it then.
// Of a stream whose last message goes the server removes the file and makes another one, before it takes or gives anything
// else of that stream; of one that is emptied with each message that costs more than the messages. When the stream is quiet
// the message goes, so that nothing of what was delivered stays on the disk. Any number of processes may do so at once.
func (b *Bus) KeepFilled(ctx context.Context, stream string) {
	tick := time.NewTicker(fillEvery)
	defer tick.Stop()
	filled := false
	var last uint64
	for looks := 0; ; looks++ {
		select {
		case <-ctx.Done():
			if filled {
				bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				defer cancel()
				b.empty(bound, stream)
			}
			return
		case <-tick.C:
		}
		s, err := b.Stream(ctx, stream)
		if err != nil {
			continue // the bus is away
		}
		now := s.CachedInfo().State.LastSeq
		switch {
		case last > 0 && now >= last+fillFrom:
			filled = true // also after an error
			acks, err := b.fill(ctx, stream)
			if err != nil {
				continue
			}
			now = acks[0].Sequence
		case filled, looks%emptyAfter == 0:
			filled = !b.empty(ctx, stream)
		}
		last = now
	}
}

// fill fills a stream. It ends soon, but not with ctx: what is still on its way then would come after it was taken away.
func (b *Bus) fill(ctx context.Context, stream string) ([]Ack, error) {
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), fillEvery)
	defer cancel()
	return b.PublishAcks(bound, contract.Filler(stream))
}

// empty takes away what fills a stream.
func (b *Bus) empty(ctx context.Context, stream string) bool {
	_, err := b.RemoveAll(ctx, stream, contract.FillerSubject(stream))
	if err != nil && ctx.Err() == nil {
		b.log.WarnContext(ctx, "a stream's filler stays, trying again", slog.String("stream", stream), slog.Any("error", err))
	}
	return err == nil
}
