// Package eventlog is the log: it remembers every event, every decision and every attempt, and tells their stories. It
// follows the bus and is never in the way of what is delivered.
package eventlog

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/webhook"
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
	// Batch is the most events, or records of what became of them, that are written in one transaction.
	Batch int `yaml:"batch"`
	// Linger is how often the log looks for more while there is something to write: how far it may follow behind. What it takes from
	// the bus at once, and writes in one transaction, is cheapest, a decision and the attempts that follow from it above all.
	Linger time.Duration `yaml:"linger"`
	// Keep is how long the detail of an event is kept: its data, its deliveries, their attempts. 0s: without end. Statistics
	// are kept longer.
	Keep time.Duration `yaml:"keep"`
	// MaxBytes is how much disk the log may take. Detail goes before its time then, the oldest first. 0B: any.
	MaxBytes config.Size `yaml:"max_bytes"`
	// StatsHours is how long statistics by the hour are kept; then they are put together into days. Whole days.
	StatsHours time.Duration `yaml:"stats_hours"`
	// StatsDays is how long statistics by the day are kept. Whole days.
	StatsDays time.Duration `yaml:"stats_days"`
}

// Defaults suit one machine.
func Defaults() Config {
	return Config{
		Store: "sqlite:data/log.db", Batch: 10_000, Linger: 200 * time.Millisecond,
		Keep: 30 * day, MaxBytes: 10 << 30,
		StatsHours: 35 * day, StatsDays: 400 * day,
	}
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
	if c.Keep != 0 && c.Keep < day {
		bad.Add("keep", "%s is less than 24h; 0s keeps detail without end", c.Keep)
	}
	if c.MaxBytes != 0 && c.MaxBytes < minBytes {
		bad.Add("max_bytes", "%s is less than %s, which the log needs for its work; 0B lets it grow without end", c.MaxBytes, config.Size(minBytes))
	}
	if c.StatsHours < day || c.StatsHours%day != 0 {
		bad.Add("stats_hours", "%s is not 24h or more whole days; write 840h for 35 days", c.StatsHours)
	}
	if c.StatsDays < c.StatsHours || c.StatsDays%day != 0 {
		bad.Add("stats_days", "%s is not stats_hours or longer in whole days; write 9600h for 400 days", c.StatsDays)
	}
	return bad.Err()
}

// minBytes is the least ceiling: several times what a burst adds between two looks at the size.
const minBytes = 256 << 20

// Log is the room.
type Log struct {
	queries
	cfg      Config
	env      *run.Env
	webhooks *webhook.Directory // to read single ones from the bucket; it follows nothing
	tails    *tails
	replays  *replays
	trouble  *trouble

	last    atomic.Int64 // the Unix time in ns after which no batch is begun; 0: the log is not told to stop
	away    away
	reach   func(context.Context) error // whether the store can be used; nil: it can since the room was opened
	written *prometheus.CounterVec
	lag     *prometheus.GaugeVec
	pending *prometheus.GaugeVec
	writing prometheus.Histogram

	size, forgotten prometheus.Gauge
}

// New makes the room, opens its store and mounts it on the process's gRPC server. A PostgreSQL that is away now is waited for
// while the room is at work: see awaitStore.
func New(cfg Config, env *run.Env) (run.Service, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	st, reach, err := open(ctx, string(cfg.Store))
	if err != nil {
		return nil, err
	}
	env.Bus = env.Bus.Aside() // the log follows: nothing of it is to stand before what is being delivered
	webhooks, err := webhook.Open(ctx, env.Bus, env.Profiles, env.Log)
	if err != nil {
		return nil, err
	}
	troubles := &trouble{tell: env.Trouble}
	l := &Log{
		trouble: troubles, away: away{log: env.Log, trouble: func(text string) { troubles.note(troubleStore, text) }},
		queries: queries{store: st}, reach: reach, cfg: cfg, env: env, webhooks: webhooks, tails: newTails(env),
		written: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shopbell_log_written_total", Help: "Messages that the log has written, by stream."}, []string{"stream"}),
		lag:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "shopbell_log_lag_seconds", Help: "Age of the oldest message that the log has not written yet, by stream; 0: there is none."}, []string{"stream"}),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "shopbell_log_pending", Help: "Messages that the log has not written yet, by stream."}, []string{"stream"}),
		writing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shopbell_log_write_seconds", Help: "Time that writing a batch took.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		size:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "shopbell_log_bytes", Help: "Disk that the log takes."}),
		forgotten: prometheus.NewGauge(prometheus.GaugeOpts{Name: "shopbell_log_forgotten_until_seconds", Help: "Unix time before which the detail of events was forgotten last; 0: none since the start."}),
	}
	env.Metrics.MustRegister(l.written, l.lag, l.pending, l.writing, l.size, l.forgotten)
	if l.replays, err = openReplays(ctx, l); err != nil {
		return nil, err
	}
	logv1.RegisterLogServiceServer(env.GRPC, l)
	logv1.RegisterReplayServiceServer(env.GRPC, l.replays)
	return l, nil
}

// reachTimeout is how long others may wait for a database that does not answer, before the room begins without it.
const reachTimeout = 5 * time.Second

// open opens the store. reach is nil, or what says whether a store that is away can be used.
func open(ctx context.Context, where string) (st store.Store, reach func(context.Context) error, err error) {
	if path, ok := strings.CutPrefix(where, "sqlite:"); ok {
		st, err = sqlite.Open(context.WithoutCancel(ctx), path) // its migrations take as long as they do
		return st, nil, err
	}
	pg, err := postgres.New(where)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	switch err := pg.Reach(ctx); {
	case err == nil:
		return pg, nil, nil
	case errors.Is(err, store.ErrAway):
		return pg, pg.Reach, nil
	default:
		return nil, nil, errors.Join(err, pg.Close())
	}
}
