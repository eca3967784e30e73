package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/telemetry"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
	"shopbell.dev/services/log/store"
)

// maxPulled is the most messages of a batch, and that are in memory. Each may hold many records.
const maxPulled = 1500

// lastWrites is for how long batches are still begun when the log is told to stop. What it has pulled by then, and not written, goes
// back to the bus: it may be hundreds of thousands of records, and a process that does not stop in time is killed.
const lastWrites = time.Second

// Run follows the bus until ctx ends; then it writes what it has pulled, as far as there is time, and closes the store.
func (l *Log) Run(ctx context.Context, ready func()) error {
	ready()
	size := min(maxPulled, l.cfg.Batch)
	followers, work := errgroup.WithContext(ctx) // work ends, too, when one of them has failed
	defer context.AfterFunc(work, func() { l.last.Store(time.Now().Add(lastWrites).UnixNano()) })()
	followers.Go(func() error { return l.env.Bus.Collect(work, contract.LogEvents, size, l.cfg.Linger, l.writeEvents) })
	followers.Go(func() error { return l.env.Bus.Collect(work, contract.LogOutcomes, size, l.cfg.Linger, l.writeRecords) })
	followers.Go(func() error { return l.awaitStore(work) })
	followers.Go(func() error { l.watchLag(work); return nil })
	followers.Go(func() error { return l.tails.run(work) })
	followers.Go(func() error { return l.replays.run(work) })
	followers.Go(func() error { l.thinStats(work); return nil })
	followers.Go(func() error { l.retain(work); return nil })
	err := followers.Wait()
	if cerr := l.store.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("close the log: %w", cerr)
	}
	return err
}

// awaitStore waits, until ctx ends, for a store that was away when the room was opened. Nobody else waits: what happens is
// delivered, and kept on the bus. A store that this release must not use ends the room, as it would have at its start.
func (l *Log) awaitStore(ctx context.Context) error {
	if l.reach == nil {
		return nil
	}
	since := time.Now()
	l.env.NotReady("its store could not be reached when it started at " + since.UTC().Format(time.RFC3339) +
		", its log lines tell why; it tries again, deliveries go on, and what happens waits on the bus")
	for wait := shortestWait; ; wait = min(2*wait, longestWait) {
		bound, cancel := context.WithTimeout(ctx, writeTimeout)
		err := l.reach(bound)
		cancel()
		if err == nil {
			l.env.NotReady("")
			l.away.over(ctx, opening)
			return nil
		}
		if !errors.Is(err, store.ErrAway) {
			return err
		}
		if ctx.Err() == nil {
			l.away.noted(ctx, opening, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// opening stands in place of a stream: nothing is asked of the store yet, but that it be there.
const opening = "none"

func (l *Log) writeEvents(ctx context.Context, batch []bus.Message) error {
	var b store.Batch
	var traces []context.Context
	for _, m := range batch {
		e, err := contract.ParseEvent(m.Headers(), m.Data())
		if err != nil {
			l.leaveOut(ctx, m, err)
			continue
		}
		tracing := bus.Extract(ctx, m.Headers())
		traces = append(traces, tracing)
		b.Events = append(b.Events, &shopbellv1.Event{
			ShopId: e.ShopID, Id: e.ID, Type: e.Type, Action: e.Action, OccurredAt: e.OccurredAt, Environment: e.Environment, Key: e.Key,
			ContentType: e.ContentType, AcceptedAt: timestamppb.New(e.AcceptedAt), AcceptedBy: e.AcceptedBy, Content: &shopbellv1.Event_Data{Data: e.Data},
			TraceId: telemetry.TraceID(tracing),
		})
	}
	return l.write(ctx, contract.Events, b, traces)
}

func (l *Log) writeRecords(ctx context.Context, batch []bus.Message) error {
	var records []*busv1.Record
	for _, m := range batch {
		some, err := record.Read(m.Headers(), m.Data())
		if err != nil {
			l.leaveOut(ctx, m, err)
			continue
		}
		records = append(records, some...)
	}
	l.replays.heed(records)
	for some := range slices.Chunk(records, l.cfg.Batch) { // a message may hold several
		traces := make([]context.Context, len(some))
		for i, r := range some {
			traces[i] = record.Trace(ctx, r)
		}
		if err := l.write(ctx, contract.Outcomes, store.Batch{Records: some}, traces); err != nil {
			return err
		}
	}
	return nil
}

// leaveOut lets go of a message that can never be written.
func (l *Log) leaveOut(ctx context.Context, m bus.Message, err error) {
	l.env.Log.ErrorContext(ctx, "a message cannot be read; the log leaves it out", slog.String("subject", m.Subject()), slog.Any("error", err))
	_ = m.TermWithReason(err.Error())
}

const (
	// writeTimeout bounds the writing of one batch; after that it is written again.
	writeTimeout = 15 * time.Second
	// The waits between tries while the store is away.
	shortestWait = 100 * time.Millisecond
	longestWait  = 2 * time.Second
)

// untilWritten writes a batch, and says when the try began that did it. While the store is away or full it tries again and
// keeps the batch: to give some ten thousand messages back to the bus every second would cost those who deliver. So nothing
// else is pulled meanwhile; it waits on the bus, which hands out again what is unanswered for long: to write it twice does no
// harm. When the process stops the batch goes back to the bus.
func (l *Log) untilWritten(ctx context.Context, stream string, b store.Batch) (began time.Time, err error) {
	for wait := shortestWait; ; wait = min(2*wait, longestWait) {
		began = time.Now()
		if err = l.writeOnce(ctx, b); err == nil {
			l.away.over(ctx, stream)
			return began, nil
		}
		l.away.noted(ctx, stream, err)
		select {
		case <-l.env.Stopping:
			return began, err
		case <-time.After(wait):
		}
	}
}

func (l *Log) writeOnce(ctx context.Context, b store.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return l.store.Write(ctx, b)
}

// away tells people that the store takes nothing, once in a while, and when it does again.
type away struct {
	log     *slog.Logger
	trouble func(string) // has /readyz say it

	mu      sync.Mutex      // guards what follows
	waiting map[string]bool // the streams whose messages wait
	since   time.Time
	told    time.Time
}

// tellEvery is how often the log line comes again.
const tellEvery = time.Minute

func (a *away) noted(ctx context.Context, stream string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if len(a.waiting) == 0 {
		a.waiting, a.since, a.told = map[string]bool{}, now, time.Time{}
		a.trouble("its store takes nothing since " + now.UTC().Format(time.RFC3339) +
			", its log lines tell why; deliveries go on, and what happens waits on the bus")
	}
	a.waiting[stream] = true
	if now.Sub(a.told) < tellEvery {
		return
	}
	a.told = now
	a.log.ErrorContext(ctx, "the log's store takes nothing, trying again; deliveries go on, and what happens waits on the bus as long as the bus keeps it",
		slog.String("stream", stream), slog.Duration("away", now.Sub(a.since)), slog.Any("error", err))
}

func (a *away) over(ctx context.Context, stream string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.waiting[stream] {
		return
	}
	if delete(a.waiting, stream); len(a.waiting) == 0 {
		a.log.InfoContext(ctx, "the log's store takes what happens again", slog.Duration("away", time.Since(a.since)))
		a.trouble("")
	}
}

// write writes a batch that belongs to these traces, or leaves it on the bus when the log has no time for it any more.
func (l *Log) write(ctx context.Context, stream string, b store.Batch, traces []context.Context) error {
	if last := l.last.Load(); last != 0 && time.Now().UnixNano() > last {
		return bus.ErrLater
	}
	began, err := l.untilWritten(ctx, stream, b)
	if err != nil {
		return fmt.Errorf("write to the log: %w", err)
	}
	l.writing.Observe(time.Since(began).Seconds())
	l.written.WithLabelValues(stream).Add(float64(len(b.Events) + len(b.Records)))
	for _, in := range traces {
		if trace.SpanContextFromContext(in).IsSampled() {
			_, span := l.env.Tracer.Start(in, "write to the log", trace.WithTimestamp(began), trace.WithSpanKind(trace.SpanKindConsumer))
			span.End()
		}
	}
	return nil
}
