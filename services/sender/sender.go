// Package sender makes the attempts: it renders, signs and POSTs each delivery, decides what follows from the answer,
// and puts that onto the bus before it lets go of the delivery.
package sender

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/record"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/shop"
	"shopbell.dev/pkg/webhook"
	senderv1 "shopbell.dev/proto/shopbell/sender/v1"
)

// Config is what sender can be told.
type Config struct {
	// MaxInFlight is how many exchanges may be under way at once. One shop has seven eighths of them at most.
	MaxInFlight int `yaml:"max_in_flight"`
	// MaxResponseBytes is how much of an answer's body is read.
	MaxResponseBytes config.Size `yaml:"max_response_bytes"`
	// KeptResponseBytes is how much of an answer's headers, and of its body, is kept in the log: what a receiver answers is
	// carried over the bus, and it may answer with its whole shop each time.
	KeptResponseBytes config.Size `yaml:"kept_response_bytes"`
	// Grace is how long exchanges under way may take to finish when the sender stops. One that is interrupted then is
	// not an attempt; it is made again.
	Grace time.Duration `yaml:"grace"`
	// KeepHeld is how long deliveries are held for a webhook that stays switched off. Then they are cancelled.
	KeepHeld time.Duration `yaml:"keep_held"`

	// MaxIdleConnections is how many connections to receivers are kept open for the next exchange.
	MaxIdleConnections int `yaml:"max_idle_connections"`
	// CAFile is a file of PEM certificates that are trusted beside those that the machine trusts. Empty: none.
	CAFile string `yaml:"ca_file"`
	// ClientCertificate and ClientKey are PEM files of what is shown to receivers that ask who we are. Empty: nothing.
	ClientCertificate string `yaml:"client_certificate"`
	ClientKey         string `yaml:"client_key"`
	// ProxyURL is the proxy through which receivers are reached: http://, https:// or socks5://. Empty: none.
	ProxyURL config.Secret `yaml:"proxy_url"`
}

// Defaults suit a shop platform of any size.
func Defaults() Config {
	return Config{MaxInFlight: 4096, MaxResponseBytes: 64 << 10, KeptResponseBytes: 8 << 10, Grace: 15 * time.Second, KeepHeld: 30 * 24 * time.Hour, MaxIdleConnections: 4096}
}

// Validate says what is wrong with the settings.
func (c Config) Validate() error {
	var bad fault.Collector
	if c.MaxInFlight < 1 || c.MaxInFlight > 20_000 {
		bad.Add("max_in_flight", "%d is not between 1 and 20000", c.MaxInFlight)
	}
	if c.MaxResponseBytes < 1<<10 || c.MaxResponseBytes > 1<<20 {
		bad.Add("max_response_bytes", "%s is not between 1KiB and 1MiB", c.MaxResponseBytes)
	}
	if c.KeptResponseBytes < 1<<10 || c.KeptResponseBytes > 1<<20 {
		bad.Add("kept_response_bytes", "%s is not between 1KiB and 1MiB", c.KeptResponseBytes)
	}
	if c.Grace < 0 || c.Grace > 5*time.Minute {
		bad.Add("grace", "%s is not between 0s and 5m", c.Grace)
	}
	if c.KeepHeld < time.Hour {
		bad.Add("keep_held", "%s is too short for a shop to switch its webhook on again; at least 1h", c.KeepHeld)
	}
	c.checkExchange(&bad)
	return bad.Err()
}

// Sender is the room.
type Sender struct {
	senderv1.UnimplementedSenderServiceServer
	cfg      Config
	env      *run.Env
	behind   *bus.Bus // for bursts, what is due and what is held: behind what goes straight through
	webhooks *webhook.Directory
	shops    *shop.Directory
	client   *client
	agent    string // what we call ourselves to receivers

	busy     working
	lanes    *lanes
	register *register
	backlogs *backlogs
	governor governor
	holder   *holder
	pool     *pool
	matched  *bus.Matched
	records  *record.Writer
	asides   chan struct{}
	under    sync.WaitGroup // asides

	attempts *prometheus.CounterVec
	latency  prometheus.Histogram
	exchange prometheus.Histogram
	inFlight prometheus.Gauge

	heldTotal prometheus.Counter
}

// New makes the room and mounts it on the process's gRPC server.
func New(cfg Config, env *run.Env) (run.Service, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	webhooks, err := env.Webhooks(ctx)
	if err != nil {
		return nil, err
	}
	shops, err := env.Shops()
	if err != nil {
		return nil, err
	}
	client, err := newClient(env.Guard, cfg, nil)
	if err != nil {
		return nil, err
	}
	s := &Sender{
		cfg: cfg, env: env, behind: env.Bus.Aside(), webhooks: webhooks, shops: shops, agent: "Shopbell/" + env.Version,
		client: client,
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shopbell_attempts_total", Help: "Attempts, by what was decided (delivered, retrying, failed, held) and, if they failed, by why.",
		}, []string{"verdict", "error_class"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shopbell_delivery_latency_seconds", Help: "Time from an event's acceptance until it was delivered.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 12),
		}),
		exchange: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shopbell_exchange_seconds", Help: "Time that whole exchanges with receivers took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
		inFlight:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "shopbell_attempts_in_flight", Help: "Exchanges under way."}),
		heldTotal: prometheus.NewCounter(prometheus.CounterOpts{Name: "shopbell_deliveries_held_total", Help: "Deliveries that were held because their webhook's lane did not take them."}),
		records:   record.NewWriter(env.Bus),
		matched:   env.Bus.Aside().Matched(floorEvery),
		asides:    make(chan struct{}, maxAsides),
	}
	bucket, err := env.Bus.Bucket(ctx, contract.Lanes)
	if err != nil {
		return nil, err
	}
	s.register = newRegister(id.New(id.Sender, time.Now()), bucket, env.Log)
	s.lanes = newLanes(cfg.MaxInFlight, s.register.share)
	s.register.changed = s.laneChanged
	s.backlogs = &backlogs{all: map[string]*backlog{}}
	s.holder = &holder{s: s, more: make(chan struct{}, 1)}
	s.lanes.broke = s.holder.put
	s.pool = &pool{do: s.handle, jobs: make(chan *job), ended: make(chan struct{})}
	env.Metrics.MustRegister(s.attempts, s.latency, s.exchange, s.inFlight, s.heldTotal,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shopbell_lanes_held", Help: "Webhooks whose deliveries are held, with any sender."},
			func() float64 { return float64(s.register.count()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shopbell_lanes_owned", Help: "Webhooks whose held deliveries this sender sends."},
			func() float64 { return float64(s.backlogs.count()) }))
	senderv1.RegisterSenderServiceServer(env.GRPC, s)
	return s, nil
}

// ahead is how many deliveries of each kind are pulled in advance: enough to keep the exchanges busy, few enough that those which
// wait here are begun before their AckWait has passed.
const ahead = 512

// maxAsides is how many deliveries whose webhook must be asked for are looked at together.
const maxAsides = 64

// Run makes attempts until ctx ends; then it finishes those under way, within the grace.
func (s *Sender) Run(ctx context.Context, ready func()) error {
	// The register goes last: exchanges under way need it to the end.
	follow, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFollowing()
	hard, interrupt := context.WithCancel(context.WithoutCancel(ctx))
	defer interrupt()
	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	s.lanes.run = func(j *job) { s.pool.run(hard, j) }
	s.backlogs.ctx, s.backlogs.after = work, func(b *backlog) {
		if b.unheard() && work.Err() == nil {
			s.keep(hard, hold{why: isCancelled, shop: b.shop, webhookID: b.webhookID})
		}
		s.lookBehind(hard, b.webhookID)
	}
	filled, gone := make(chan struct{}), make(chan error, 1)
	go func() {
		defer stopWork() // without its register the sender cannot go on
		gone <- bus.Together(follow, func() { close(filled) }, s.register.follow(s.env.Bus), s.busy.report)
	}()
	select {
	case <-filled:
		ready()
	case <-ctx.Done():
		stopFollowing()
		return <-gone
	case err := <-gone:
		return err
	}
	holderEnds, holderGone := make(chan struct{}), make(chan struct{})
	go func() { defer close(holderGone); s.holder.run(hard, holderEnds) }()
	var side, listening sync.WaitGroup
	side.Go(func() { s.register.beat(work) })
	side.Go(func() { s.lookAround(work, hard) })
	for _, stream := range []string{contract.Deliveries, contract.Later, contract.Held} { // what is sent is gone from there
		side.Go(func() { s.behind.KeepFilled(work, stream) })
	}
	listen := func(subjects string, heard func(ctx context.Context, m *nats.Msg)) {
		listening.Add(1)
		opened := sync.OnceFunc(listening.Done)
		side.Go(func() {
			defer opened()
			if err := s.behind.Overhear(work, subjects, opened, func(m *nats.Msg) { heard(work, m) }); err != nil {
				s.env.Log.WarnContext(work, "what is held waits for the sweeper, and what was put off for its time", slog.String("subjects", subjects), slog.Any("error", err))
			}
		})
	}
	listen(contract.HeldSubjects, s.heard)
	listen(contract.AllCancelSubjects, s.heardWish)
	listen(contract.PutOffsSubject, s.heardPutOffs)
	side.Go(func() {
		listening.Wait() // what was published before is found by sweeping
		s.sweep(work)
	})
	side.Go(func() {
		<-work.Done()
		for _, j := range s.lanes.close() {
			s.giveBack(j)
		}
	})
	take := func(m bus.Message) {
		if work.Err() != nil { // not begun: another sender may have it at once
			_ = m.Nak()
			return
		}
		s.take(hard, m)
	}
	consuming, consume := errgroup.WithContext(work)
	consuming.Go(func() error { return s.behind.Consume(consume, contract.BulkSender, ahead, take) })
	consuming.Go(func() error {
		return s.behind.Consume(consume, contract.DueSender, ahead, func(m bus.Message) {
			take(m)
			s.spread(m)
		})
	})
	consuming.Go(func() error { return s.env.Bus.Consume(consume, contract.Sender, ahead, take) })
	err := consuming.Wait()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		stopWork() // which it may not be when consuming has failed
		side.Wait()
		s.under.Wait()
		s.backlogs.wg.Wait()
		s.pool.wait()
		close(holderEnds)
		<-holderGone
		s.under.Wait() // what the holder has begun
	}()
	select {
	case <-finished:
	case <-time.After(s.cfg.Grace):
		s.env.Log.WarnContext(ctx, "exchanges are interrupted; they are made again after the next start")
		interrupt()
		<-finished
	}
	s.client.CloseIdleConnections()
	stopFollowing()
	if ferr := <-gone; err == nil {
		err = ferr
	}
	return err
}

// working is the messages that are being worked on, so that the bus can be told before it hands them to somebody else.
// Its zero value is ready.
type working struct {
	mu    sync.Mutex // guards since
	since map[bus.Message]time.Time
}

func (w *working) begin(m bus.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since == nil {
		w.since = map[bus.Message]time.Time{}
	}
	w.since[m] = time.Now()
}

func (w *working) end(m bus.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.since, m)
}

// reportEvery is a quarter of the consumer's AckWait.
const reportEvery = 5 * time.Second

// report tells the bus, until ctx ends, of the messages that take long.
func (w *working) report(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var long []bus.Message
		w.mu.Lock()
		for m, since := range w.since {
			if time.Since(since) > reportEvery {
				long = append(long, m)
			}
		}
		w.mu.Unlock()
		for _, m := range long {
			_ = m.InProgress() // if this is not heard, somebody else makes the attempt as well
		}
	}
}
