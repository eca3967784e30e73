// Package subscription keeps the webhooks and the shops' settings and keys, and matches events to webhooks: one delivery
// for each webhook that wants an event, and one record of the decision.
package subscription

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/pace"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/shop"
	"shopbell.dev/pkg/webhook"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
)

// Config is what subscription can be told.
type Config struct {
	// Workers is how many batches of events are matched side by side.
	Workers int `yaml:"workers"`
	// Batch is the most events that are matched together.
	Batch int `yaml:"batch"`
}

// Defaults suit a shop platform of any size.
func Defaults() Config {
	return Config{Workers: 2, Batch: 256}
}

// Validate says what is wrong with the settings.
func (c Config) Validate() error {
	var bad fault.Collector
	if c.Workers < 1 || c.Workers > 64 {
		bad.Add("workers", "%d is not between 1 and 64", c.Workers)
	}
	if c.Batch < 1 || c.Batch > 1000 {
		bad.Add("batch", "%d is not between 1 and 1000", c.Batch)
	}
	return bad.Err()
}

// Subscription is the room.
type Subscription struct {
	subscriptionv1.UnimplementedSubscriptionServiceServer
	cfg      Config
	env      *run.Env
	shops    *shop.Directory
	webhooks *webhook.Directory
	bucket   jetstream.KeyValue // of webhooks
	settings jetstream.KeyValue // of shops
	keys     jetstream.KeyValue // of shops
	bursts   pace.Pace          // of what comes in bursts
	through  *bus.Matched
	shut     shutHosts
	putOffs  putOffs

	matched    prometheus.Counter
	passedOver prometheus.Counter
	decided    prometheus.Counter
	lag        prometheus.Histogram
}

const openTimeout = 10 * time.Second

// New makes the room and mounts it on the process's gRPC server.
func New(cfg Config, env *run.Env) (run.Service, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	s := &Subscription{
		cfg: cfg, env: env, bursts: pace.Pace{Least: leastOfBursts}, through: env.Bus.Aside().Matched(throughEvery),
		decided:    prometheus.NewCounter(prometheus.CounterOpts{Name: "shopbell_events_matched_total", Help: "Events whose webhooks were decided on."}),
		matched:    prometheus.NewCounter(prometheus.CounterOpts{Name: "shopbell_deliveries_created_total", Help: "Deliveries that were made: one for each webhook that wants an event."}),
		passedOver: prometheus.NewCounter(prometheus.CounterOpts{Name: "shopbell_webhooks_passed_over_total", Help: "Webhooks that subscribe to an event's type and were not sent it."}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shopbell_match_lag_seconds", Help: "Time from an event's acceptance until its deliveries were stored.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10),
		}),
	}
	var err error
	if s.shops, err = env.Shops(); err != nil {
		return nil, err
	}
	if s.webhooks, err = env.Webhooks(ctx); err != nil {
		return nil, err
	}
	if s.bucket, err = env.Bus.Bucket(ctx, contract.Webhooks); err != nil {
		return nil, err
	}
	if s.settings, err = env.Bus.Bucket(ctx, contract.Shops); err != nil {
		return nil, err
	}
	if s.keys, err = env.Bus.Bucket(ctx, contract.Keys); err != nil {
		return nil, err
	}
	env.Metrics.MustRegister(s.decided, s.matched, s.passedOver, s.lag, prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "shopbell_webhooks", Help: "Webhooks that are registered."},
		func() float64 { return float64(s.webhooks.Count()) }))
	subscriptionv1.RegisterSubscriptionServiceServer(env.GRPC, s)
	return s, nil
}

// Run matches events and switches webhooks off until ctx ends.
func (s *Subscription) Run(ctx context.Context, ready func()) error {
	ready()
	work, ctx := errgroup.WithContext(ctx)
	how := bus.Batching{Workers: s.cfg.Workers, Size: s.cfg.Batch, Linger: time.Millisecond}
	work.Go(func() error { return s.decideBursts(ctx, wayBy(s.env.Bus.Aside()), how) })
	straight := wayBy(s.env.Bus)
	work.Go(func() error {
		return straight.bus.BatchesThen(ctx, contract.Matcher, how, func(ctx context.Context, batch []bus.Message) (func() error, error) {
			_, then, err := s.decide(ctx, straight, batch)
			return then, err
		})
	})
	work.Go(func() error {
		return s.env.Bus.Batches(ctx, contract.Switcher, bus.Batching{Workers: 1, Size: 16}, s.switchOff)
	})
	work.Go(func() error { s.forgetDeleted(ctx); return nil })
	work.Go(func() error { return s.listen(ctx, s.env.Bus.Aside()) })
	return work.Wait()
}
