// Package ingest takes events from publishers, over REST and gRPC, and answers once the bus has stored them.
package ingest

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/key"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/rpc"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/shop"
	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
)

// Config is what ingest can be told.
type Config struct {
	// MaxEventBytes is the most that one event's data may have, up to 4MiB.
	MaxEventBytes config.Size `yaml:"max_event_bytes"`
	// MaxRequestBytes is the most that one request may have.
	MaxRequestBytes config.Size `yaml:"max_request_bytes"`
	// SinglesPerSecond is how many events a second of one shop go before the bursts of others. What a shop publishes once it is
	// beyond it, and beyond one second's worth at once, is a burst: it is matched and sent beside what all others publish, not
	// before it, and yields to it. 0: all go together, as they come. Each process of ingest counts for itself.
	SinglesPerSecond int `yaml:"singles_per_second"`
	// Timeout bounds how long the bus may take to store; after that the publisher is asked to come again.
	Timeout time.Duration `yaml:"timeout"`
}

// Defaults suit a shop platform of any size.
func Defaults() Config {
	return Config{
		MaxEventBytes: 1 << 20, MaxRequestBytes: 32 << 20, SinglesPerSecond: 600, Timeout: 5 * time.Second,
	}
}

// Validate says what is wrong with the settings.
func (c Config) Validate() error {
	var bad fault.Collector
	if c.MaxEventBytes < 1 || c.MaxEventBytes > 4<<20 {
		bad.Add("max_event_bytes", "%s is not between 1B and 4MiB", c.MaxEventBytes)
	}
	if c.MaxRequestBytes < c.MaxEventBytes {
		bad.Add("max_request_bytes", "%s is less than max_event_bytes", c.MaxRequestBytes)
	}
	if c.SinglesPerSecond < 0 || c.SinglesPerSecond > 100_000 {
		bad.Add("singles_per_second", "%d is not between 0, which tells no bursts apart, and 100000", c.SinglesPerSecond)
	}
	if c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute {
		bad.Add("timeout", "%s is not between 100ms and 1m", c.Timeout)
	}
	return bad.Err()
}

// Ingest is the room.
type Ingest struct {
	ingestv1.UnimplementedIngestServiceServer
	cfg   Config
	env   *run.Env
	shops *shop.Directory
	hot   bursts

	taken   *prometheus.CounterVec
	storing prometheus.Histogram
}

// New makes the room and mounts it on the process's HTTP and gRPC servers.
func New(cfg Config, env *run.Env) (run.Service, error) {
	shops, err := env.Shops()
	if err != nil {
		return nil, err
	}
	in := &Ingest{
		cfg: cfg, env: env, shops: shops, hot: bursts{perSecond: cfg.SinglesPerSecond},
		taken: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shopbell_events_total", Help: "Events that publishers sent, by what became of them: accepted, duplicate, refused (their fault, or faster than their key allows) or unavailable (the bus did not store them).",
		}, []string{"status"}),
		storing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shopbell_event_store_seconds", Help: "How long the bus took to store a request's events.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}),
	}
	env.Metrics.MustRegister(in.taken, in.storing)
	ingestv1.RegisterIngestServiceServer(env.GRPC, in)
	env.HTTP.HandleFunc("POST /v1/shops/{shop_id}/events", in.publishHTTP)
	return in, nil
}

// leastSilence is half of how long a batch lies at least before others take its publisher for dead.
const leastSilence = 5 * time.Second

// Run publishes what others have left half done until ctx ends: what else ingest does, the process's HTTP and gRPC servers ask
// of it.
func (in *Ingest) Run(ctx context.Context, ready func()) error {
	ready()
	in.env.Bus.Aside().FinishBatches(ctx, 2*max(in.cfg.Timeout, leastSilence))
	return nil
}

// The answers for an event.
const (
	accepted  = "accepted"
	duplicate = "duplicate"
)

// parcel is events on their way onto the bus: the answers that their publisher gets, and the messages.
type parcel struct {
	answers []*ingestv1.Accepted
	msgs    []*nats.Msg
	place   []int // of each message's answer
	bulk    bool  // they are a burst
}

func (p *parcel) add(more *parcel) {
	for _, at := range more.place {
		p.place = append(p.place, at+len(p.answers))
	}
	p.answers, p.msgs, p.bulk = append(p.answers, more.answers...), append(p.msgs, more.msgs...), p.bulk || more.bulk
}

// pack makes the messages of events whose fields are checked, and says what does not fit the shop, or comes faster than the
// caller's key allows.
func (in *Ingest) pack(ctx context.Context, shopID string, events []contract.Event, prefix func(int) string) (*parcel, error) {
	if err := contract.CheckShopID(shopID); err != nil {
		return nil, err
	}
	if err := in.complete(shopID, rpc.Caller(ctx), events, prefix); err != nil {
		in.taken.WithLabelValues("refused").Add(float64(len(events)))
		return nil, err
	}
	if wait := rpc.ShopKey(ctx).Take(len(events), time.Now()); wait > 0 {
		in.taken.WithLabelValues("refused").Add(float64(len(events)))
		return nil, tooFast(rpc.ShopKey(ctx), wait)
	}
	ctx, span := in.env.Tracer.Start(ctx, "publish events", trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	if span.IsRecording() {
		span.SetAttributes(attribute.String("shop_id", shopID), attribute.Int("events", len(events)))
	}
	bulk := in.hot.take(shopID, len(events), time.Now())
	p := &parcel{bulk: bulk}
	first := make(map[string]bool, len(events))
	for i := range events {
		e := &events[i]
		if first[e.ID] { // the same id twice in one request
			p.answers = append(p.answers, &ingestv1.Accepted{Id: e.ID, Status: duplicate})
			continue
		}
		first[e.ID] = true
		e.Bulk = bulk
		m := e.Message()
		bus.Inject(ctx, m)
		p.place = append(p.place, len(p.answers))
		p.msgs = append(p.msgs, m)
		p.answers = append(p.answers, &ingestv1.Accepted{Id: e.ID, Status: accepted})
	}
	return p, nil
}

func tooFast(k *key.Key, wait time.Duration) error {
	f := fault.New(fault.Exhausted, "the key %s may publish %g events a second here: send these again after %s", k, k.GetRatePerSecond(), wait.Round(time.Millisecond))
	f.Retry = wait
	return f
}

// publish puts a parcel onto the bus and returns once it is stored, with the answers in the events' order. Errors are
// for the publisher.
func (in *Ingest) publish(ctx context.Context, p *parcel, put func(*bus.Bus, context.Context, ...*nats.Msg) ([]bus.Ack, error)) ([]*ingestv1.Accepted, error) {
	if len(p.msgs) == 0 {
		return p.answers, nil
	}
	begun := time.Now()
	bound, cancel := context.WithTimeoutCause(ctx, in.cfg.Timeout, errTooSlow)
	defer cancel()
	by := in.env.Bus
	if p.bulk {
		by = by.Aside()
	}
	acks, err := put(by, bound, p.msgs...)
	in.storing.Observe(time.Since(begun).Seconds())
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err() // the publisher has gone
		}
		in.taken.WithLabelValues("unavailable").Add(float64(len(p.msgs)))
		in.env.Log.ErrorContext(ctx, "events not stored, publisher asked to come again", slog.Int("events", len(p.msgs)), slog.Any("error", err))
		return nil, fault.Away(2*time.Second, "the bus did not store the events; send them again with the same ids, which makes a repeat harmless")
	}
	for i, ack := range acks {
		if ack.Duplicate {
			p.answers[p.place[i]].Status = duplicate
		}
	}
	for _, a := range p.answers {
		in.taken.WithLabelValues(a.Status).Inc()
	}
	return p.answers, nil
}

var errTooSlow = errors.New("the bus took longer than ingest.timeout")

// complete fills in what the publisher may leave out, and says what does not fit the shop.
func (in *Ingest) complete(shopID, caller string, events []contract.Event, prefixOf func(int) string) error {
	settings := in.shops.Get(shopID)
	now := time.Now()
	var bad fault.Collector
	for i := range events {
		e := &events[i]
		prefix := prefixOf(i)
		if notice.Is(e.Type) {
			bad.Add(prefix+"type", "%q is published by Shopbell alone", e.Type)
		}
		if size := config.Size(len(e.Data)); size > in.cfg.MaxEventBytes {
			return fault.New(fault.TooLarge, "%sdata has %d bytes; at most %s are taken (ingest.max_event_bytes): send a reference in place of what is large", prefix, size, in.cfg.MaxEventBytes)
		}
		bad.Include(prefix, in.shops.Check(settings, e))
		e.ShopID, e.AcceptedAt, e.AcceptedBy = shopID, now, caller
		if e.ID == "" {
			e.ID = id.New(id.Event, now)
		}
		if e.Environment == "" {
			e.Environment = settings.GetEnvironment()
		}
		if e.OccurredAt == "" {
			e.OccurredAt = now.UTC().Format("2006-01-02T15:04:05.000Z07:00")
		}
	}
	return bad.Err()
}
