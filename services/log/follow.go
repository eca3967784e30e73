package eventlog

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/telemetry"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
	"shopbell.dev/services/log/store"
)

// Run follows the bus until ctx ends; then it writes what it has pulled and closes the store.
func (l *Log) Run(ctx context.Context, ready func()) error {
	ready()
	how := bus.Batching{Workers: 1, Size: l.cfg.Batch, Linger: l.cfg.Linger}
	followers, work := errgroup.WithContext(ctx)
	followers.Go(func() error { return l.env.Bus.Batches(work, contract.LogEvents, how, l.writeEvents) })
	followers.Go(func() error { return l.env.Bus.Batches(work, contract.LogOutcomes, how, l.writeRecords) })
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

func (l *Log) writeEvents(ctx context.Context, batch []bus.Message) error {
	var b store.Batch
	for _, m := range batch {
		e, err := contract.ParseEvent(m.Headers(), m.Data())
		if err != nil {
			l.leaveOut(ctx, m, err)
			continue
		}
		b.Events = append(b.Events, &shopbellv1.Event{
			ShopId: e.ShopID, Id: e.ID, Type: e.Type, Action: e.Action, OccurredAt: e.OccurredAt, Environment: e.Environment, Key: e.Key,
			ContentType: e.ContentType, AcceptedAt: timestamppb.New(e.AcceptedAt), AcceptedBy: e.AcceptedBy, Content: &shopbellv1.Event_Data{Data: e.Data},
			TraceId: telemetry.TraceID(bus.Extract(ctx, m.Headers())),
		})
	}
	return l.write(ctx, contract.Events, batch, b)
}

func (l *Log) writeRecords(ctx context.Context, batch []bus.Message) error {
	var b store.Batch
	for _, m := range batch {
		r := &busv1.Record{}
		if err := proto.Unmarshal(m.Data(), r); err != nil {
			l.leaveOut(ctx, m, err)
			continue
		}
		b.Records = append(b.Records, r)
	}
	return l.write(ctx, contract.Outcomes, batch, b)
}

// leaveOut lets go of a message that can never be written.
func (l *Log) leaveOut(ctx context.Context, m bus.Message, err error) {
	l.env.Log.ErrorContext(ctx, "a message cannot be read; the log leaves it out", slog.String("subject", m.Subject()), slog.Any("error", err))
	_ = m.TermWithReason(err.Error())
}

// writeTimeout bounds the writing of one batch; after that it is written again.
const writeTimeout = 15 * time.Second

func (l *Log) write(ctx context.Context, stream string, batch []bus.Message, b store.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	began := time.Now()
	if err := l.store.Write(ctx, b); err != nil {
		return fmt.Errorf("write to the log: %w", err)
	}
	l.writing.Observe(time.Since(began).Seconds())
	l.written.WithLabelValues(stream).Add(float64(len(batch)))
	if meta, err := batch[0].Metadata(); err == nil {
		l.lag.Set(time.Since(meta.Timestamp).Seconds())
	}
	for _, m := range batch {
		if in := bus.Extract(ctx, m.Headers()); trace.SpanContextFromContext(in).IsSampled() {
			_, span := l.env.Tracer.Start(in, "write to the log", trace.WithTimestamp(began), trace.WithSpanKind(trace.SpanKindConsumer))
			span.End()
		}
	}
	return nil
}
