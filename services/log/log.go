// Package eventlog is the log: it remembers every event, every decision and every attempt, and tells their stories. It
// follows the bus and is never in the way of what is delivered.
package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/run"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	"shopbell.dev/services/log/postgres"
	"shopbell.dev/services/log/sqlite"
	"shopbell.dev/services/log/store"
)

// Config is what the log can be told.
type Config struct {
	// Store is where it is kept: "sqlite:" and a path, or a "postgres://" URL. It may hold a password, so it is never
	// printed.
	Store config.Secret `yaml:"store"`
	// Batch is the most messages that are written in one transaction.
	Batch int `yaml:"batch"`
	// Linger is how long a batch waits to be filled: how far the log may follow behind. A decision and the attempts that
	// follow from it are cheapest to write together.
	Linger time.Duration `yaml:"linger"`
}

// Defaults suit one machine.
func Defaults() Config {
	return Config{Store: "sqlite:data/log.db", Batch: 3000, Linger: 200 * time.Millisecond}
}

// Validate says what is wrong with the settings.
func (c Config) Validate() error {
	var bad fault.Collector
	kind, _, _ := strings.Cut(string(c.Store), ":")
	if kinds := []string{"sqlite", "postgres", "postgresql"}; kind != kinds[0] && kind != kinds[1] && kind != kinds[2] {
		bad.Add("store", "it begins with %q%s; write sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE", kind, fault.DidYouMean(kind, kinds))
	}
	if c.Batch < 1 || c.Batch > 10_000 {
		bad.Add("batch", "%d is not between 1 and 10000", c.Batch)
	}
	if c.Linger < 0 || c.Linger > 10*time.Second {
		bad.Add("linger", "%s is not between 0s and 10s", c.Linger)
	}
	return bad.Err()
}

// Log is the room.
type Log struct {
	queries
	cfg Config
	env *run.Env

	written *prometheus.CounterVec
	lag     prometheus.Gauge
	writing prometheus.Histogram
}

// New makes the room, opens its store and mounts it on the process's gRPC server.
func New(cfg Config, env *run.Env) (run.Service, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	st, err := open(ctx, string(cfg.Store))
	if err != nil {
		return nil, err
	}
	l := &Log{
		queries: queries{store: st}, cfg: cfg, env: env,
		written: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shopbell_log_written_total", Help: "Messages that the log has written, by stream."}, []string{"stream"}),
		lag:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "shopbell_log_lag_seconds", Help: "Age of the oldest message in the batch that was written last."}),
		writing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shopbell_log_write_seconds", Help: "Time that writing a batch took.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
	}
	env.Metrics.MustRegister(l.written, l.lag, l.writing)
	logv1.RegisterLogServiceServer(env.GRPC, l)
	return l, nil
}

func open(ctx context.Context, where string) (store.Store, error) {
	if path, ok := strings.CutPrefix(where, "sqlite:"); ok {
		return sqlite.Open(ctx, path)
	}
	return postgres.Open(ctx, where)
}

// ResendDelivery sends a delivery again: one attempt, marked as by hand.
func (l *Log) ResendDelivery(ctx context.Context, req *logv1.ResendDeliveryRequest) (*logv1.ResendDeliveryResponse, error) {
	known, err := l.store.Delivery(ctx, req.GetShopId(), req.GetDeliveryId())
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "no delivery %q in shop %q: check both ids", req.GetDeliveryId(), req.GetShopId())
	}
	if err != nil {
		return nil, fmt.Errorf("read the delivery to send again: %w", err)
	}
	d, err := again(known, time.Now())
	if err != nil {
		return nil, err
	}
	m := d.Message()
	bus.Inject(ctx, m)
	if err := l.env.Bus.Publish(ctx, m); err != nil {
		return nil, fault.Away(2*time.Second, "the bus did not take the delivery; try again: %w", err)
	}
	return &logv1.ResendDeliveryResponse{DeliveryId: d.ID}, nil
}

// logLag is how long after a delivery was made the log may still lack its event: it follows the two by consumers of their
// own.
const logLag = time.Minute

// again makes one more attempt out of what is known of a delivery: with the body that was sent before, or, before the
// first attempt, with the event's data.
func again(known *store.Delivery, now time.Time) (*contract.Delivery, error) {
	was := known.Delivery
	d := &contract.Delivery{
		ID: was.GetId(), WebhookID: was.GetWebhookId(), MatchedAt: was.GetCreatedAt().AsTime(), AskedAt: now,
		Attempt: int(was.GetAttemptsMade()) + 1,
		Event:   contract.Event{ShopID: was.GetShopId(), ID: was.GetEventId(), Type: was.GetEventType(), AcceptedAt: was.GetCreatedAt().AsTime()},
	}
	if e := known.Event; e != nil {
		d.Event = contract.Event{
			ShopID: e.GetShopId(), ID: e.GetId(), Type: e.GetType(), Action: e.GetAction(), OccurredAt: e.GetOccurredAt(),
			Environment: e.GetEnvironment(), Key: e.GetKey(), ContentType: e.GetContentType(), AcceptedAt: e.GetAcceptedAt().AsTime(), Data: e.GetData(),
		}
	}
	switch {
	case known.BodyKnown:
		d.Data, d.WholeBody, d.ContentType = was.GetBody(), true, sentType(known)
	case known.Event == nil && now.Sub(was.GetCreatedAt().AsTime()) < logLag:
		return nil, fault.Away(time.Second, "the log does not have the event's data yet; try again")
	case known.Event == nil || len(known.Attempts) > 0:
		return nil, fault.New(fault.Precondition, "the log no longer has the data of this delivery, so it cannot be sent again; publish the event anew")
	}
	return d, nil
}

// sentType is the content type that the last attempt was sent with.
func sentType(known *store.Delivery) string {
	last := known.Attempts[len(known.Attempts)-1]
	for _, h := range last.GetAttempt().GetRequestHeaders() {
		if strings.EqualFold(h.GetName(), "Content-Type") {
			return h.GetValue()
		}
	}
	return event.JSON
}
