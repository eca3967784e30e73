// Package run is a process: it puts rooms together, starts them in order, says whether they are well, and stops them
// in order.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/key"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/rpc"
	"shopbell.dev/pkg/shop"
	"shopbell.dev/pkg/telemetry"
)

// Version is the program's; the build sets it.
var Version = "dev"

// Common is what every process can be told.
type Common struct {
	// HTTP is the address for REST, health and metrics.
	HTTP string `yaml:"http"`
	// GRPC is the address for gRPC.
	GRPC string `yaml:"grpc"`
	// OperatorKey opens every call, of every shop. It must be set unless both addresses are loopback ones.
	OperatorKey config.Secret `yaml:"operator_key"`
	// AllowPrivateAddresses lets webhooks point into private networks and at this machine.
	AllowPrivateAddresses bool `yaml:"allow_private_addresses"`
	// AllowAddresses are networks and addresses that webhooks may point into although they are not on the public
	// Internet.
	AllowAddresses []address.Range `yaml:"allow_addresses"`
	// Profiles is a folder of *.yaml profiles beside the presets. Empty: none.
	Profiles string `yaml:"profiles"`
	// Shop is what holds for shops that have set nothing.
	Shop shop.Defaults `yaml:"shop"`
	// LogFormat is "text" or "json".
	LogFormat string `yaml:"log_format"`
	// LogLevel is "debug", "info", "warn" or "error".
	LogLevel slog.Level `yaml:"log_level"`
	// Pprof is an address where the Go profiler answers (/debug/pprof/), without keys. Empty: nowhere.
	Pprof string `yaml:"pprof"`
	// StopTimeout bounds how long each room may take to finish what it has begun.
	StopTimeout time.Duration `yaml:"stop_timeout"`
}

// CommonDefaults suit a room in a container of its own, behind its own port.
func CommonDefaults() Common {
	return Common{HTTP: "127.0.0.1:8080", GRPC: "127.0.0.1:9090", Shop: shop.Defaults{Profile: "standard", Environment: shop.Live}, LogFormat: "text", LogLevel: slog.LevelInfo, StopTimeout: 20 * time.Second}
}

// Validate says what is wrong with the settings.
func (c Common) Validate() error {
	var bad fault.Collector
	for name, address := range map[string]string{"http": c.HTTP, "grpc": c.GRPC} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			bad.Add(name, "%q is no address; write host:port, such as 127.0.0.1:8080", address)
		} else if c.OperatorKey == "" && !isLoopback(address) {
			bad.Add(name, "%s can be reached from outside, so an operator's key is needed: set SHOPBELL_OPERATOR_KEY, or listen on 127.0.0.1", address)
		}
	}
	if c.OperatorKey != "" && len(c.OperatorKey) < 16 {
		bad.Add("operator_key", "it is shorter than 16 characters; make one with: openssl rand -hex 24")
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		bad.Add("log_format", "%q is neither text nor json", c.LogFormat)
	}
	if e := c.Shop.Environment; e != shop.Live && e != shop.Test {
		bad.Add("shop.environment", "%q is neither live nor test", e)
	}
	if c.Pprof != "" && !isLoopback(c.Pprof) {
		bad.Add("pprof", "%s can be reached from outside, and the profiler asks for no key: choose an address on 127.0.0.1", c.Pprof)
	}
	if c.StopTimeout < time.Second {
		bad.Add("stop_timeout", "%s is too short to finish anything; at least 1s", c.StopTimeout)
	}
	return bad.Err()
}

func (c Common) guard() *address.Guard {
	opened := c.AllowAddresses
	if c.AllowPrivateAddresses {
		opened = append(slices.Clip(opened), address.Private...)
	}
	return address.NewGuard(opened...)
}

func isLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Room is how a room is made.
type Room struct {
	Name string
	New  func(*Env) (Service, error)
}

// Process is rooms that live together.
type Process struct {
	Name   string
	Common Common
	Bus    bus.Config
	// BusOptions are added to the connection's own, as for an embedded server.
	BusOptions []nats.Option
	Rooms      []Room
	Log        *slog.Logger
	// Ready, if set, is called once every room is ready.
	Ready func(Addresses)
}

// Addresses are where a process listens.
type Addresses struct{ HTTP, GRPC string }

// Run starts the rooms in their order, serves until ctx ends or one of them fails, stops them in reverse order, and
// returns when all is gone.
func (p *Process) Run(ctx context.Context) (err error) {
	httpListener, err := listen(ctx, p.Common.HTTP, "http")
	if err != nil {
		return err
	}
	defer func() { _ = httpListener.Close() }()
	grpcListener, err := listen(ctx, p.Common.GRPC, "grpc")
	if err != nil {
		return err
	}
	defer func() { _ = grpcListener.Close() }()

	tel, err := telemetry.Start(ctx, "shopbell-"+p.Name, Version)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if terr := tel.Stop(ctx); terr != nil {
			p.Log.WarnContext(ctx, "traces are left unsent", slog.Any("error", terr))
		}
	}()

	profiles, err := loadProfiles(p.Common.Profiles)
	if err != nil {
		return err
	}
	b, err := bus.Connect(ctx, p.Bus, p.Log, p.BusOptions...)
	if err != nil {
		return err
	}
	defer b.Close()

	shopKeys := key.NewDirectory(p.Log)
	keys := rpc.NewKeys(string(p.Common.OperatorKey), shopKeys)
	grpcServer, err := rpc.NewServer(keys, tel.Provider(), p.Log)
	if err != nil {
		return fmt.Errorf("make the gRPC server: %w", err)
	}
	inside := bufconn.Listen(1 << 20)
	env := &Env{
		Log: p.Log, Bus: b, Profiles: profiles, Tracing: tel.Provider(), Metrics: tel.Metrics, GRPC: grpcServer,
		HTTP: http.NewServeMux(), Guard: p.Common.guard(), Keys: shopKeys,
		Shop: p.Common.Shop, Version: Version, Stopping: ctx.Done(), shared: &directories{log: p.Log},
	}
	env.local = func() (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///inside", append(env.dialOptions(),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return inside.DialContext(ctx) }))...)
	}
	status := &Health{}
	var rooms []Named
	for _, room := range p.Rooms {
		own := *env
		own.Log, own.Tracer = p.Log.With(slog.String("room", room.Name)), tel.Tracer(room.Name)
		own.Trouble = func(text string) { status.trouble(room.Name, text) }
		own.NotReady = func(text string) { status.notReady(room.Name, text) }
		service, err := room.New(&own)
		if err != nil {
			return fmt.Errorf("open %s: %w", room.Name, err)
		}
		rooms = append(rooms, Named{room.Name, service})
	}
	// The directories open first and close last: what a room has begun needs them to its end.
	links := slices.Concat([]Named{{"keys", follower(shopKeys.Follow(b))}}, env.Directories(), rooms)

	grpcHealth := health.NewServer()
	grpcHealth.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	status.onChange(func(ready bool) {
		state := healthv1.HealthCheckResponse_NOT_SERVING
		if ready {
			state = healthv1.HealthCheckResponse_SERVING
		}
		grpcHealth.SetServingStatus("", state)
		for name := range grpcServer.GetServiceInfo() {
			grpcHealth.SetServingStatus(name, state)
		}
		if ready && p.Ready != nil {
			go p.Ready(Addresses{httpListener.Addr().String(), grpcListener.Addr().String()})
		}
	})
	healthv1.RegisterHealthServer(grpcServer, grpcHealth)
	reflection.Register(grpcServer)
	if p.Common.Pprof != "" {
		l, err := listen(ctx, p.Common.Pprof, "pprof")
		if err != nil {
			return err
		}
		links = append(links, Named{"pprof", &httpService{l, profiler(), p.Log}})
	}
	// The doors open last and close first: a request that was let in finds every room at work until it is answered.
	links = append(links,
		Named{"grpc", &grpcService{grpcServer, []net.Listener{grpcListener, inside}}},
		Named{"http", &httpService{httpListener, p.handler(env, tel, status, keys), p.Log}})
	return Chain(ctx, p.Log, p.Common.StopTimeout, status, links...)
}

// follower is a watch as a link of the chain.
type follower func(ctx context.Context, filled func()) error

func (f follower) Run(ctx context.Context, ready func()) error { return f(ctx, ready) }

func loadProfiles(folder string) (*profile.Set, error) {
	if folder == "" {
		return profile.Load(nil)
	}
	if _, err := os.Stat(folder); err != nil {
		return nil, fmt.Errorf("open the folder of profiles: %w", err)
	}
	return profile.Load(os.DirFS(folder))
}

func listen(ctx context.Context, address, setting string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another program: stop that one, or choose another address with --%s (SHOPBELL_%s)", address, setting, strings.ToUpper(setting))
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// handler is everything that the process serves over HTTP.
func (p *Process) handler(env *Env, tel *telemetry.Telemetry, status *Health, keys rpc.Keys) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready, rooms := status.Ready()
		switch {
		case !ready:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintf(w, "not ready; open so far: %s\n", strings.Join(rooms, ", "))
		case !env.Bus.Connected():
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte("not ready: the bus cannot be reached\n"))
		case len(p.Rooms) > 0 && status.uselessRooms() == len(p.Rooms):
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(status.Troubles()))
		default:
			_, _ = w.Write([]byte("ready\n" + status.Troubles()))
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(tel.Metrics, promhttp.HandlerOpts{}))
	mux.Handle("/v1/", rpc.RequireKey(keys, p.Log, env.HTTP))
	mux.Handle("/", env.HTTP)
	return mux
}

// profiler is Go's, on a mux of its own.
func profiler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

type grpcService struct {
	server    *grpc.Server
	listeners []net.Listener
}

func (s *grpcService) Run(ctx context.Context, ready func()) error {
	failed := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { failed <- s.server.Serve(l) }()
	}
	ready()
	var err error
	waiting := len(s.listeners)
	select {
	case <-ctx.Done():
	case err = <-failed:
		waiting--
	}
	gone := make(chan struct{})
	go func() { s.server.GracefulStop(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		s.server.Stop()
		<-gone
	}
	for range waiting {
		// A listener that had not begun to serve when the stop came says that the server is stopped: that is no fault.
		if serr := <-failed; err == nil && !errors.Is(serr, grpc.ErrServerStopped) {
			err = serr
		}
	}
	return err
}

type httpService struct {
	listener net.Listener
	handler  http.Handler
	log      *slog.Logger
}

func (s *httpService) Run(ctx context.Context, ready func()) error {
	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(s.listener) }()
	ready()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(bound); err != nil {
		_ = server.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
