// Package bus is the way to NATS JetStream: it connects, ensures what the contract says, publishes and consumes.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/propagation"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
)

// Config is how to reach the bus.
type Config struct {
	// URL of the NATS servers, comma separated.
	URL string `yaml:"url"`
	// Credentials is the path of a NATS credentials file. Empty: none.
	Credentials string `yaml:"credentials"`
	// Replicas is how many nodes of the NATS cluster keep each stream and bucket: 1, 3 or 5.
	Replicas int `yaml:"replicas"`
	// KeepEvents is how long events stay on the bus: how long subscription and log may be away without loss.
	KeepEvents time.Duration `yaml:"keep_events"`
	// KeepOutcomes is the same for outcomes.
	KeepOutcomes time.Duration `yaml:"keep_outcomes"`
	// DuplicateWindow is how long an event's id is remembered; each costs 130 bytes of the server's memory.
	DuplicateWindow time.Duration `yaml:"duplicate_window"`
}

// Defaults suit a NATS server beside us.
func Defaults() Config {
	o := contract.DefaultOptions()
	return Config{
		URL: nats.DefaultURL, Replicas: o.Replicas,
		KeepEvents: o.KeepEvents, KeepOutcomes: o.KeepOutcomes, DuplicateWindow: o.DuplicateWindow,
	}
}

// Validate says what is wrong with a config.
func (c Config) Validate() error {
	var bad fault.Collector
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		bad.Add("replicas", "%d is not 1, 3 or 5", c.Replicas)
	}
	for name, d := range map[string]time.Duration{"keep_events": c.KeepEvents, "keep_outcomes": c.KeepOutcomes} {
		if d < time.Hour {
			bad.Add(name, "%s is too short to survive an outage; at least 1h", d)
		}
	}
	if c.DuplicateWindow < time.Minute || c.DuplicateWindow > c.KeepEvents {
		bad.Add("duplicate_window", "%s is not between 1m and keep_events", c.DuplicateWindow)
	}
	return bad.Err()
}

func (c Config) options() contract.Options {
	return contract.Options{Replicas: c.Replicas, KeepEvents: c.KeepEvents, KeepOutcomes: c.KeepOutcomes, DuplicateWindow: c.DuplicateWindow}
}

// Bus is the way to NATS JetStream. It may be used at once. Close it when all who use it are gone.
type Bus struct {
	conn *nats.Conn
	js   jetstream.JetStream
	log  *slog.Logger

	replicas int      // of each stream
	handles  sync.Map // from names of streams to what LastMessage reads them by, a jetstream.Stream

	aside *Bus // see Aside; nil: it is that
}

// Aside is the same bus by a connection of its own, for work that nobody waits for and that comes in bulk: a connection carries one
// message after the other, and what somebody waits for would stand behind thousands. It is closed with the bus.
func (b *Bus) Aside() *Bus {
	if b.aside == nil {
		return b
	}
	return b.aside
}

// maxPending is how many publishes may wait for their acks at once over one connection.
const maxPending = 16_384

// Connect connects to the servers, trying until ctx ends, and ensures that all streams, buckets and consumers are as
// the contract says. Options are added to the connection's own.
func Connect(ctx context.Context, cfg Config, log *slog.Logger, options ...nats.Option) (*Bus, error) {
	if cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(cfg.Credentials))
	}
	options = append([]nats.Option{
		nats.Name("shopbell"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		// What cannot be sent now is an error now: whoever publishes decides whether to try again, and nothing is
		// published long after its publisher was told that it was not.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // else we have closed the connection ourselves
				log.WarnContext(ctx, "bus away", slog.Any("error", err))
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { log.InfoContext(ctx, "bus back", slog.String("server", c.ConnectedServerName())) }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			log.WarnContext(ctx, "bus error", slog.Any("error", err), slog.String("subject", subject))
		}),
	}, options...)
	b, err := open(ctx, cfg, log, options)
	if err != nil {
		return nil, err
	}
	if b.aside, err = open(ctx, cfg, log, append(options, nats.Name("shopbell aside"))); err != nil {
		b.conn.Close()
		return nil, err
	}
	if err := b.ensure(ctx, cfg.options()); err != nil {
		b.Close()
		return nil, err
	}
	if err := retry(ctx, b.move); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func open(ctx context.Context, cfg Config, log *slog.Logger, options []nats.Option) (*Bus, error) {
	conn, err := dial(ctx, cfg.URL, log, options)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(maxPending), jetstream.WithPublishAsyncTimeout(5*time.Second))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return &Bus{conn: conn, js: js, log: log, replicas: max(cfg.Replicas, 1)}, nil
}

func dial(ctx context.Context, url string, log *slog.Logger, options []nats.Option) (*nats.Conn, error) {
	for told := false; ; told = true {
		conn, err := nats.Connect(url, options...)
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			return nil, fmt.Errorf("connect to the bus at %s: %w: check bus.credentials", url, err)
		}
		if !told {
			log.WarnContext(ctx, "bus not there yet, trying on", slog.String("url", url), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to the bus at %s: %w (stopped trying: %w)", url, err, context.Cause(ctx))
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// ensure creates what is not there and changes what differs. All rooms do so when they start, in any order.
func (b *Bus) ensure(ctx context.Context, o contract.Options) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, cfg := range contract.Streams(o) {
		if err := retry(ctx, func(ctx context.Context) error { _, err := b.js.CreateOrUpdateStream(ctx, cfg); return err }); err != nil {
			return fmt.Errorf("ensure stream %s: %w", cfg.Name, err)
		}
	}
	for _, cfg := range contract.Buckets(o) {
		if err := retry(ctx, func(ctx context.Context) error { _, err := b.js.CreateOrUpdateKeyValue(ctx, cfg); return err }); err != nil {
			return fmt.Errorf("ensure bucket %s: %w", cfg.Bucket, err)
		}
	}
	for _, c := range contract.Consumers() {
		if err := retry(ctx, func(ctx context.Context) error {
			_, err := b.js.CreateOrUpdateConsumer(ctx, c.Stream, c.Config)
			return err
		}); err != nil {
			return fmt.Errorf("ensure consumer %s: %w", c.Config.Durable, err)
		}
	}
	return nil
}

// answerTimeout bounds how long the bus may take to answer: a cluster that has no leader does not, also when it has one later.
const answerTimeout = 5 * time.Second

// retry calls do until it succeeds, the error is not one that passes, or ctx ends.
func retry(ctx context.Context, do func(context.Context) error) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		once, cancel := context.WithTimeout(ctx, answerTimeout)
		err := do(once)
		cancel()
		if err == nil || !passing(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// passing says whether the same call may succeed a moment later: the bus is away, busy or between two leaders.
func passing(err error) bool {
	for _, known := range []error{
		nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
		nats.ErrConnectionDraining,
		jetstream.ErrNoStreamResponse, jetstream.ErrAsyncPublishTimeout, jetstream.ErrTooManyStalledMsgs,
		context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.Code >= 500 || api.ErrorCode == errNoPeers)
}

// errNoPeers is the server's code for streams that the nodes of a cluster do not suffice for: some may not have come yet.
const errNoPeers jetstream.ErrorCode = 10005

// Connected says whether the bus can be reached right now, also aside.
func (b *Bus) Connected() bool {
	return b.conn.IsConnected() && (b.aside == nil || b.aside.Connected())
}

// Bucket opens a bucket of the contract.
func (b *Bus) Bucket(ctx context.Context, name string) (jetstream.KeyValue, error) {
	kv, err := b.js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return kv, nil
}

// Stream opens a stream of the contract.
func (b *Bus) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := b.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, err)
	}
	return s, nil
}

// Close sends what is still to be sent and closes the connections.
func (b *Bus) Close() {
	if b.aside != nil {
		b.aside.Close()
	}
	if b.conn.IsConnected() {
		if err := b.conn.FlushTimeout(2 * time.Second); err != nil {
			b.log.Warn("bus closed with messages unsent", slog.Any("error", err))
		}
	}
	b.conn.Close()
}

// propagator writes W3C trace context.
var propagator = propagation.TraceContext{}

// carrier lets a trace travel in NATS headers, in lower case as other clients look for it: nats.Header tells upper
// from lower case, which OpenTelemetry's own carrier does not mind.
type carrier nats.Header

func (c carrier) Get(key string) string {
	if v := c[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (c carrier) Set(key, value string) { c[key] = []string{value} }

func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

// Inject writes the trace of ctx into a message's headers.
func Inject(ctx context.Context, m *nats.Msg) {
	if m.Header == nil {
		m.Header = nats.Header{}
	}
	propagator.Inject(ctx, carrier(m.Header))
}

// Extract gives a context with the trace that a message's headers hold.
func Extract(ctx context.Context, h nats.Header) context.Context {
	return propagator.Extract(ctx, carrier(h))
}
