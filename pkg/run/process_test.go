package run_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

const key = "the-operators-own-key"

func common() run.Common {
	c := run.CommonDefaults()
	c.HTTP, c.GRPC = "127.0.0.1:0", "127.0.0.1:0"
	return c
}

// process runs a process on a bus of its own and gives where it listens, once it is ready. stop ends it and gives its
// error.
func process(t *testing.T, c run.Common, rooms ...run.Room) (at run.Addresses, server *bus.Embedded, stop func() error) {
	t.Helper()
	_, server = bustest.Server(t)
	at, stop = processAt(t, server, c, rooms...)
	return at, server, stop
}

// processAt is process on a bus that is there.
func processAt(t *testing.T, server *bus.Embedded, c run.Common, rooms ...run.Room) (at run.Addresses, stop func() error) {
	t.Helper()
	ready := make(chan run.Addresses, 1)
	p := &run.Process{
		Name: "test", Common: c, Bus: bus.Defaults(), BusOptions: []nats.Option{server.Option()}, Log: quiet, Rooms: rooms,
		Ready: func(a run.Addresses) { ready <- a },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = func() error {
		cancel()
		select {
		case err := <-done:
			done <- err
			return err
		case <-time.After(time.Minute):
			return errors.New("the process does not stop")
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	select {
	case at = <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("the process ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the process is never ready")
	}
	return at, stop
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// idle is a room that only waits.
func idle(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	return nil
}

// desk is a gRPC service that a room registers.
type desk struct {
	subscriptionv1.UnimplementedSubscriptionServiceServer
}

func (desk) ListProfiles(context.Context, *subscriptionv1.ListProfilesRequest) (*subscriptionv1.ListProfilesResponse, error) {
	return &subscriptionv1.ListProfilesResponse{}, nil
}

func TestProcess_AnswersForItsRooms(t *testing.T) {
	t.Parallel()
	c := common()
	c.OperatorKey = key
	var local *grpc.ClientConn
	at, _, stop := process(t, c, run.Room{Name: "desk", New: func(env *run.Env) (run.Service, error) {
		counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "shopbell_desk_total", Help: "Of the test."})
		counter.Add(3)
		env.Metrics.MustRegister(counter)
		subscriptionv1.RegisterSubscriptionServiceServer(env.GRPC, desk{})
		env.HTTP.HandleFunc("GET /v1/thing", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("a thing")) })
		env.HTTP.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("a page")) })
		var err error
		local, err = env.Dial("")
		return service(idle), err
	}})
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": "shopbell_desk_total 3", "/page": "a page"} {
		if code, body := get(t, "http://"+at.HTTP+path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("GET %s: %d %.200s, want 200 with %q", path, code, body, want)
		}
	}
	if code, body := get(t, "http://"+at.HTTP+"/v1/thing"); code != http.StatusUnauthorized {
		t.Errorf("GET /v1/thing without a key: %d %s, want 401", code, body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at.HTTP+"/v1/thing", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET /v1/thing with the key: %d, want 200", resp.StatusCode)
	}

	conn, err := grpc.NewClient(at.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, service := range []string{"", "shopbell.subscription.v1.SubscriptionService"} {
		answer, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("gRPC health of %q: %v, %v, want SERVING", service, answer, err)
		}
	}
	withKey := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key)
	for name, conn := range map[string]*grpc.ClientConn{"the port": conn, "inside": local} {
		desk := subscriptionv1.NewSubscriptionServiceClient(conn)
		if _, err := desk.ListProfiles(withKey, &subscriptionv1.ListProfilesRequest{}); err != nil {
			t.Errorf("call over %s: %v", name, err)
		}
		if _, err := desk.ListProfiles(t.Context(), &subscriptionv1.ListProfilesRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("call over %s without a key: %v, want Unauthenticated", name, err)
		}
	}
	_ = local.Close()
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := net.Dial("tcp", at.HTTP); err == nil {
		t.Errorf("%s is open after the end", at.HTTP)
	}
}

// What it follows is in its memory: of a bucket that no room needs, nothing may be.
func TestProcess_FollowsOnceWhatItsRoomsNeed(t *testing.T) {
	t.Parallel()
	var given []*webhook.Directory
	needing := func(name string, stop func(*run.Env) error) run.Room {
		return run.Room{Name: name, New: func(env *run.Env) (run.Service, error) {
			webhooks, err := env.Webhooks(t.Context())
			given = append(given, webhooks)
			return service(func(ctx context.Context, ready func()) error {
				if webhooks.Get("demo", "wh_1") == nil {
					return errors.New("it runs before the directory is filled")
				}
				return errors.Join(idle(ctx, ready), stop(env))
			}), err
		}}
	}
	put := func(b *bus.Bus, id string) (uint64, error) {
		bucket, err := b.Bucket(context.WithoutCancel(t.Context()), contract.Webhooks)
		if err != nil {
			return 0, err
		}
		value, err := proto.Marshal(&busv1.WebhookState{Webhook: &shopbellv1.Webhook{Id: id, ShopId: "demo", Profile: "standard"}})
		if err != nil {
			return 0, err
		}
		return bucket.Put(context.WithoutCancel(t.Context()), contract.WebhookKey("demo", id), value)
	}
	b, server := bustest.Server(t)
	if _, err := put(b, "wh_1"); err != nil {
		t.Fatal(err)
	}
	_, stop := processAt(t, server, common(), needing("first", func(env *run.Env) error {
		revision, err := put(env.Bus, "wh_2")
		if err != nil {
			return err
		}
		bound, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if given[0].Await(bound, "demo", "wh_2", revision); bound.Err() != nil {
			return errors.New("the directory is not followed while the room stops")
		}
		return nil
	}), needing("second", func(*run.Env) error { return nil }))
	if len(given) != 2 || given[0] != given[1] {
		t.Errorf("two rooms were given %v, want the same directory twice", given)
	}
	for name, want := range map[string]int{contract.Webhooks: 1, contract.Shops: 0} {
		bucket, err := b.Stream(t.Context(), "KV_"+name)
		if err != nil {
			t.Fatal(err)
		}
		if got := bucket.CachedInfo().State.Consumers; got != want {
			t.Errorf("%s is followed %d times, want %d", name, got, want)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestProcess_IsNotReadyWhileTheBusIsAway(t *testing.T) {
	t.Parallel()
	at, server, _ := process(t, common(), run.Room{Name: "idle", New: func(*run.Env) (run.Service, error) { return service(idle), nil }})
	if err := run.Healthcheck(t.Context(), at.HTTP); err != nil {
		t.Errorf("healthcheck: %v", err)
	}
	server.Stop()
	testwait.Until(t, "GET /readyz answers 503, since the bus cannot be reached", func() bool {
		code, body := get(t, "http://"+at.HTTP+"/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "the bus cannot be reached")
	})
	if err := run.Healthcheck(t.Context(), at.HTTP); err == nil || !strings.Contains(err.Error(), "the bus cannot be reached") {
		t.Errorf("healthcheck without a bus: %v, want what is missing", err)
	}
	if code, _ := get(t, "http://"+at.HTTP+"/healthz"); code != http.StatusOK {
		t.Errorf("GET /healthz without a bus: %d, want 200: the process is alive", code)
	}
}

func TestProcess_TellsOfTroubleAndStaysReady(t *testing.T) {
	t.Parallel()
	var trouble func(string)
	at, _, _ := process(t, common(), run.Room{Name: "desk", New: func(env *run.Env) (run.Service, error) {
		trouble = env.Trouble
		return service(idle), nil
	}})
	for text, want := range map[string]string{"no ink": "ready\ndesk: no ink\n", "": "ready\n"} {
		trouble(text)
		if code, body := get(t, "http://"+at.HTTP+"/readyz"); code != http.StatusOK || body != want {
			t.Errorf("GET /readyz with trouble %q: got %d %q, want 200 %q", text, code, body, want)
		}
	}
}

func TestProcess_IsNotReadyWhenNoneOfItsRoomsIs(t *testing.T) {
	t.Parallel()
	var desk, shelf func(string)
	room := func(name string, notReady *func(string)) run.Room {
		return run.Room{Name: name, New: func(env *run.Env) (run.Service, error) { *notReady = env.NotReady; return service(idle), nil }}
	}
	at, _, _ := process(t, common(), room("desk", &desk), room("shelf", &shelf))
	readyz := func(what string, wantCode int, want string) {
		t.Helper()
		if code, body := get(t, "http://"+at.HTTP+"/readyz"); code != wantCode || body != want {
			t.Errorf("GET /readyz with %s: got %d %q, want %d %q", what, code, body, wantCode, want)
		}
	}
	desk("no ink")
	readyz("one room of no use", http.StatusOK, "ready\ndesk: not ready: no ink\n")
	shelf("no books")
	readyz("both of no use", http.StatusServiceUnavailable, "desk: not ready: no ink\nshelf: not ready: no books\n")
	desk("")
	shelf("")
	readyz("both of use", http.StatusOK, "ready\n")
}

func TestProcess_SaysWhichPortIsTakenAndWhatToDo(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	address := taken.Addr().String()
	for setting, change := range map[string]func(*run.Common){
		"HTTP": func(c *run.Common) { c.HTTP = address }, "GRPC": func(c *run.Common) { c.GRPC = address },
	} {
		c := common()
		change(&c)
		p := &run.Process{Name: "test", Common: c, Bus: bus.Defaults(), Log: quiet}
		err := p.Run(t.Context())
		for _, want := range []string{address + " is taken", "--" + strings.ToLower(setting), "SHOPBELL_" + setting} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s taken: %v, want %q in it", setting, err, want)
			}
		}
	}
}

func TestProcess_NamesTheRoomThatDoesNotOpen(t *testing.T) {
	t.Parallel()
	_, server := bustest.Server(t)
	var began []string
	p := &run.Process{
		Name: "test", Common: common(), Bus: bus.Defaults(), BusOptions: []nats.Option{server.Option()}, Log: quiet,
		Rooms: []run.Room{
			{Name: "log", New: func(*run.Env) (run.Service, error) {
				return service(func(context.Context, func()) error { began = append(began, "log"); return nil }), nil
			}},
			{Name: "sender", New: func(*run.Env) (run.Service, error) { return nil, errors.New("no room") }},
		},
	}
	if err := p.Run(t.Context()); err == nil || err.Error() != "open sender: no room" {
		t.Errorf("error %v, want open sender: no room", err)
	}
	if len(began) > 0 {
		t.Errorf("%q began although another cannot open", began)
	}
}

func TestProcess_ReadsProfilesFromAFolder(t *testing.T) {
	t.Parallel()
	c := common()
	c.Profiles = filepath.Join(t.TempDir(), "nowhere")
	p := &run.Process{Name: "test", Common: c, Bus: bus.Defaults(), Log: quiet}
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.Profiles) {
		t.Errorf("a folder that is not there: %v, want its path", err)
	}
	c.Profiles = t.TempDir()
	if err := os.WriteFile(filepath.Join(c.Profiles, "own.yaml"), []byte("name: own\nopen_catalog: true\npolicy: {timeout: 5s, success_codes: [2xx]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var names []string
	process(t, c, run.Room{Name: "idle", New: func(env *run.Env) (run.Service, error) {
		names = env.Profiles.Names()
		return service(idle), nil
	}})
	if !strings.Contains(fmt.Sprint(names), "own") || !strings.Contains(fmt.Sprint(names), "standard") {
		t.Errorf("profiles %q, want own beside the presets", names)
	}
}

func TestHealthcheck_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{"nonsense": "is no address", "127.0.0.1:1": "refused", ":1": "127.0.0.1:1", "0.0.0.0:1": "127.0.0.1:1"} {
		if err := run.Healthcheck(t.Context(), address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", address, err, want)
		}
	}
}

func TestCommon_RefusesWhatIsNotSafe(t *testing.T) {
	t.Parallel()
	if err := run.CommonDefaults().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, row := range []struct {
		name   string
		change func(*run.Common)
		want   string // a part of the error; empty: it is good
	}{
		{"an IPv6 loopback", func(c *run.Common) { c.HTTP = "[::1]:8080" }, ""},
		{"localhost", func(c *run.Common) { c.GRPC = "localhost:9090" }, ""},
		{"every interface with a key", func(c *run.Common) { c.HTTP, c.GRPC, c.OperatorKey = ":8080", "0.0.0.0:9090", key }, ""},
		{"every interface without a key", func(c *run.Common) { c.HTTP = ":8080" }, "http: :8080 can be reached from outside"},
		{"every IPv4 interface without a key", func(c *run.Common) { c.GRPC = "0.0.0.0:9090" }, "SHOPBELL_OPERATOR_KEY"},
		{"a network's address without a key", func(c *run.Common) { c.HTTP = "10.0.0.5:8080" }, "http: "},
		{"a name without a key", func(c *run.Common) { c.HTTP = "shopbell.example.com:8080" }, "http: "},
		{"no port", func(c *run.Common) { c.HTTP = "127.0.0.1" }, "write host:port"},
		{"a key that can be guessed", func(c *run.Common) { c.OperatorKey = "short" }, "openssl rand"},
		{"another log format", func(c *run.Common) { c.LogFormat = "xml" }, "log_format: "},
		{"another environment", func(c *run.Common) { c.Shop.Environment = "prod" }, "shop.environment: "},
		{"no time to stop", func(c *run.Common) { c.StopTimeout = 0 }, "stop_timeout: "},
		{"a profiler for this machine", func(c *run.Common) { c.Pprof = "127.0.0.1:6060" }, ""},
	} {
		c := run.CommonDefaults()
		row.change(&c)
		err := c.Validate()
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}
