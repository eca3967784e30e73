package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"shopbell.dev/services/log/storetest"
)

// The two ways to run Shopbell.
const (
	one  = "one"  // all rooms in one process
	many = "many" // each room in a process of its own
)

// bus is the name of the NATS server among the processes.
const busServer = "nats"

// house is Shopbell at work.
type house struct {
	way string
	url string // of the REST edge
	key string // the operator's; empty: none is needed

	processes []*process // in the order in which they start
	grpc      map[string]string
	data      string // the one process's data folder
}

// settings are SHOPBELL_* and OTEL_* variables that a test wants, in place of what is set otherwise. An empty one is
// taken away.
type settings map[string]string

// inBothWays runs a test with Shopbell as one process and as many. Each has everything of its own.
func inBothWays(t *testing.T, own settings, test func(t *testing.T, h *house)) {
	t.Helper()
	t.Parallel()
	for _, way := range []string{one, many} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			test(t, open(t, way, own))
		})
	}
}

// open starts Shopbell and waits until it is ready. When the test ends it is stopped, and has to stop in order.
func open(t *testing.T, way string, own settings) *house {
	t.Helper()
	h := &house{way: way, grpc: map[string]string{}}
	if way == one {
		h.prepareOne(t, own)
	} else {
		h.prepareMany(t, own)
	}
	t.Cleanup(func() { h.close(t) })
	for _, p := range h.processes {
		p.begin(t)
	}
	for _, p := range h.processes {
		p.awaitReady(t)
	}
	return h
}

func (h *house) prepareOne(t *testing.T, own settings) {
	t.Helper()
	http, grpc := freeAddress(t), freeAddress(t)
	h.url, h.data = "http://"+http, filepath.Join(t.TempDir(), "data")
	for _, room := range rooms {
		h.grpc[room] = grpc
	}
	env := settings{"SHOPBELL_ALLOW_PRIVATE_ADDRESSES": "true"}
	h.add(t, &process{
		name: "shopbell", path: program(t, "shopbell"), args: []string{"serve", "--data", h.data, "--http", http, "--grpc", grpc},
		env: h.environment(env, own), ready: h.url + "/readyz",
	})
}

func (h *house) prepareMany(t *testing.T, own settings) {
	t.Helper()
	dir := t.TempDir()
	store := logStore(t, dir)
	natsAddress, monitor := freeAddress(t), freeAddress(t)
	config := filepath.Join(dir, "nats.conf")
	text := changed(t, "deploy/compose/nats.conf",
		"0.0.0.0:4222", natsAddress, "127.0.0.1:8222", monitor, "/data", filepath.Join(dir, "nats"))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	h.add(t, &process{
		name: busServer, path: program(t, "nats-server"), args: []string{"-c", config}, env: os.Environ(),
		ready: "http://" + monitor + "/healthz", codes: []int{1}, // which is how it ends after SIGTERM
	})
	places := map[string]string{"nats:4222": natsAddress}
	http := map[string]string{}
	for _, room := range rooms {
		http[room], h.grpc[room] = freeAddress(t), freeAddress(t)
		places[room+":8080"], places[room+":9090"] = http[room], h.grpc[room]
	}
	h.url = "http://" + http["gateway"]
	for _, room := range rooms {
		env := settings{}
		for name, value := range composeEnvironment(t, room) {
			env[name] = moved(value, places, http[room], h.grpc[room])
		}
		// Only what a test brings itself can be reached from here.
		delete(env, "OTEL_EXPORTER_OTLP_ENDPOINT")
		env["SHOPBELL_ALLOW_PRIVATE_ADDRESSES"] = "true"
		if room == "log" {
			env["SHOPBELL_LOG_STORE"] = store
		}
		h.add(t, &process{
			name: room, path: program(t, room), env: h.environment(env, own), ready: "http://" + http[room] + "/readyz",
		})
	}
}

// changed is a file's text with what is to stand there in place of what stands there: pairs of old and new.
func changed(t *testing.T, path string, pairs ...string) []byte {
	t.Helper()
	text := read(t, path)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%s no longer holds %q, which the tests replace", path, pairs[i])
		}
	}
	return []byte(strings.NewReplacer(pairs...).Replace(text))
}

// add gives a process its place among the others.
func (h *house) add(t *testing.T, p *process) {
	t.Helper()
	p.log = filepath.Join(t.TempDir(), p.name+".log")
	p.stopWithin = 10 * time.Second
	h.processes = append(h.processes, p)
}

// environment is that of a process: nothing of ours is left in it but what is set for the test.
func (h *house) environment(base, own settings) []string {
	all := settings{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "SHOPBELL_") && !strings.HasPrefix(name, "OTEL_") {
			all[name] = value
		}
	}
	for _, from := range []settings{base, own} {
		for name, value := range from {
			all[name] = value
		}
	}
	h.key = all["SHOPBELL_OPERATOR_KEY"]
	var out []string
	for name, value := range all {
		if value != "" {
			out = append(out, name+"="+value)
		}
	}
	slices.Sort(out)
	return out
}

var hostPort = regexp.MustCompile(`[a-z0-9.-]*:\d+`)

// moved gives a value of docker-compose.yml with the addresses that hold here.
func moved(value string, places map[string]string, http, grpc string) string {
	return hostPort.ReplaceAllStringFunc(value, func(at string) string {
		switch host, port, _ := strings.Cut(at, ":"); {
		case places[at] != "":
			return places[at]
		case (host == "" || host == "0.0.0.0") && port == "8080":
			return http
		case (host == "" || host == "0.0.0.0") && port == "9090":
			return grpc
		}
		return at
	})
}

// logStore is where the log of many processes is kept: in PostgreSQL, as docker-compose.yml has it, or in SQLite on a
// machine without it.
func logStore(t *testing.T, dir string) string {
	t.Helper()
	if !havePostgres() && os.Getenv("CI") != "true" {
		t.Log("the log is kept in SQLite, because there is no PostgreSQL on this machine")
		return "sqlite:" + filepath.Join(dir, "log.db")
	}
	return asURL(storetest.Postgres(t))
}

func havePostgres() bool {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	_, err := exec.LookPath("initdb")
	return len(found) > 0 || err == nil
}

// close stops all processes, the last that was started first, and shows what they wrote if the test failed.
func (h *house) close(t *testing.T) {
	t.Helper()
	for _, p := range slices.Backward(h.processes) {
		switch {
		case p.cmd == nil || !p.running():
		case t.Failed():
			p.kill(t)
		default:
			p.stop(t)
		}
	}
	for _, p := range h.processes {
		if p.raced() {
			t.Errorf("%s has a data race", p.name)
		}
	}
	if t.Failed() {
		for _, p := range h.processes {
			t.Logf("── %s wrote:\n%s", p.name, p.tail(40))
		}
	}
}

// process is the process that a room is in; "all" is the one that all are in.
func (h *house) process(room string) *process {
	if h.way == one {
		return h.processes[0]
	}
	return h.processes[slices.IndexFunc(h.processes, func(p *process) bool { return p.name == room })]
}

// kill ends the process that a room is in with SIGKILL.
func (h *house) kill(t testing.TB, room string) {
	t.Helper()
	h.process(room).kill(t)
}

// stop has the process that a room is in end in order, and fails the test when it does not.
func (h *house) stop(t testing.TB, room string) {
	t.Helper()
	h.process(room).stop(t)
}

// start starts the process that a room is in again, and returns when it is ready.
func (h *house) start(t testing.TB, room string) {
	t.Helper()
	p := h.process(room)
	p.begin(t)
	p.awaitReady(t)
}
