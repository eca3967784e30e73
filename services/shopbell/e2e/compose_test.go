package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"

	"shopbell.dev/pkg/bus"
)

// composeKey is the operator's key in the environment of docker-compose.yml.
const composeKey = "of the tests, and of nobody else"

// repository is the top of it, from here.
const repository = "../../.."

// The one service that is neither a room nor stays: it prepares the bus's volume.
const natsVolume = "nats-volume"

var composeProject = sync.OnceValues(func() (*types.Project, error) {
	return loadCompose("SHOPBELL_OPERATOR_KEY=" + composeKey)
})

// loadCompose reads docker-compose.yml as `docker compose` does, with this environment alone.
func loadCompose(environment ...string) (*types.Project, error) {
	options, err := cli.NewProjectOptions([]string{filepath.Join(repository, "docker-compose.yml")}, cli.WithEnv(environment))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(context.Background())
}

func compose(t testing.TB) *types.Project {
	t.Helper()
	project, err := composeProject()
	if err != nil {
		t.Fatalf("load docker-compose.yml: %v", err)
	}
	return project
}

// composeService is a service of docker-compose.yml.
func composeService(t testing.TB, name string) types.ServiceConfig {
	t.Helper()
	service, ok := compose(t).Services[name]
	if !ok {
		t.Fatalf("docker-compose.yml has no service %s", name)
	}
	return service
}

// composeEnvironment is what docker-compose.yml gives a service. The operator's key in it is composeKey.
func composeEnvironment(t testing.TB, service string) map[string]string {
	t.Helper()
	environment := map[string]string{}
	for name, value := range composeService(t, service).Environment {
		if value != nil {
			environment[name] = *value
		}
	}
	return environment
}

func TestCompose_SaysHowToMakeTheOperatorKey(t *testing.T) {
	t.Parallel()
	_, err := loadCompose()
	if err == nil || !strings.Contains(err.Error(), "SHOPBELL_OPERATOR_KEY=$(openssl rand -hex 24)") {
		t.Errorf("without an operator's key: got %v, want an error that says how to make one", err)
	}
}

func TestCompose_HasAServiceForEachRoom(t *testing.T) {
	t.Parallel()
	for _, room := range rooms {
		service := composeService(t, room)
		if got, want := service.Image, "shopbell/"+room+":dev"; got != want {
			t.Errorf("image of %s: got %s, want %s", room, got, want)
		}
		if service.Build == nil {
			t.Errorf("%s is not built from this repository", room)
			continue
		}
		if got := service.Build.Args["SERVICE"]; got == nil || *got != room {
			t.Errorf("build argument SERVICE of %s: got %v, want %s", room, got, room)
		}
		if got := service.PullPolicy; got != types.PullPolicyNever {
			t.Errorf("pull policy of %s: got %q, want %q: somebody else may have an image of that name", room, got, types.PullPolicyNever)
		}
	}
}

var pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?[0-9]+\.[0-9]+\.?[0-9]*(-alpine)?$`)

func TestCompose_PinsEveryImage(t *testing.T) {
	t.Parallel()
	var images []string
	for _, service := range compose(t).Services {
		if service.Build == nil {
			images = append(images, service.Image)
		}
	}
	for line := range strings.Lines(read(t, "deploy/Dockerfile")) {
		if words := strings.Fields(line); len(words) > 0 && words[0] == "FROM" {
			words = slices.DeleteFunc(words[1:], func(word string) bool { return strings.HasPrefix(word, "--") })
			images = append(images, words[0])
		}
	}
	for _, image := range images {
		if !pinned.MatchString(image) && image != "scratch" {
			t.Errorf("image %s is not pinned to a version", image)
		}
	}
}

func TestCompose_ConfinesEveryContainer(t *testing.T) {
	t.Parallel()
	for name, service := range compose(t).Services {
		if !service.ReadOnly {
			t.Errorf("%s may write to its root", name)
		}
		if !slices.Equal(service.CapDrop, []string{"ALL"}) {
			t.Errorf("capabilities dropped by %s: got %q, want ALL", name, service.CapDrop)
		}
		if !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may gain privileges: got %q", name, service.SecurityOpt)
		}
		if service.Privileged || service.Pid != "" || service.Ipc != "" || service.NetworkMode == "host" {
			t.Errorf("%s shares something with its host", name)
		}
		for _, volume := range service.Volumes {
			if volume.Type != types.VolumeTypeBind {
				continue
			}
			if !volume.ReadOnly {
				t.Errorf("%s may write to %s", name, volume.Source)
			}
			if _, err := os.Stat(volume.Source); err != nil {
				t.Errorf("%s is to have a file that is not there: %v", name, err)
			}
		}
		if name == natsVolume {
			// A new volume is root's, and nobody but root can give it away. It can do nothing else.
			if !slices.Equal(service.CapAdd, []string{"CHOWN"}) || service.NetworkMode != "none" {
				t.Errorf("%s: got capabilities %q and network %q, want CHOWN and none", name, service.CapAdd, service.NetworkMode)
			}
			continue
		}
		if uid, err := strconv.Atoi(strings.Split(service.User, ":")[0]); err != nil || uid == 0 {
			t.Errorf("user of %s: got %q, want one that is not root, by number", name, service.User)
		}
		if len(service.CapAdd) > 0 {
			t.Errorf("%s takes capabilities back: %q", name, service.CapAdd)
		}
		if service.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("restart policy of %s: got %q, want %s", name, service.Restart, types.RestartPolicyUnlessStopped)
		}
	}
	if user := composeService(t, "ingest").User; !strings.Contains(read(t, "deploy/Dockerfile"), "\nUSER "+user+"\n") {
		t.Errorf("deploy/Dockerfile does not run as %s, which is what the rooms run as", user)
	}
}

func TestCompose_PublishesTheGatewayAndPagesAlone(t *testing.T) {
	t.Parallel()
	got := map[string]string{}
	for name, service := range compose(t).Services {
		if service.ContainerName != "" {
			t.Errorf("%s has the fixed name %s, so that there can be only one", name, service.ContainerName)
		}
		for _, port := range service.Ports {
			got[name] += fmt.Sprintf("%s:%s:%d ", port.HostIP, port.Published, port.Target)
		}
	}
	want := map[string]string{
		"gateway": "127.0.0.1:8080:8080 ", "jaeger": "127.0.0.1:16686:16686 ", "prometheus": "127.0.0.1:9091:9090 ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("published ports (-want +got):\n%s", diff)
	}
}

func TestCompose_RoomsMayFinishBeforeTheyAreKilled(t *testing.T) {
	t.Parallel()
	for _, room := range rooms {
		environment := composeEnvironment(t, room)
		stop, err := time.ParseDuration(environment["SHOPBELL_STOP_TIMEOUT"])
		if err != nil {
			t.Errorf("SHOPBELL_STOP_TIMEOUT of %s: %v", room, err)
		}
		// The doors and the traces have 5s each.
		period := composeService(t, room).StopGracePeriod
		if period == nil || time.Duration(*period) <= stop+15*time.Second {
			t.Errorf("stop_grace_period of %s: got %v, want more than %s and 15s", room, period, stop)
		}
		if text := environment["SHOPBELL_SENDER_GRACE"]; text != "" {
			if grace, err := time.ParseDuration(text); err != nil || grace >= stop {
				t.Errorf("SHOPBELL_SENDER_GRACE: got %s, %v, want less than SHOPBELL_STOP_TIMEOUT, which is %s", text, err, stop)
			}
		}
	}
}

func TestCompose_RoomsKnowTheirSettings(t *testing.T) {
	t.Parallel()
	for _, room := range rooms {
		t.Run(room, func(t *testing.T) {
			t.Parallel()
			environment := composeEnvironment(t, room)
			path := program(t, room)
			runProgram(t, environment, path, "-check")
			inForce := map[string]string{}
			for name, value := range printed(t, runProgram(t, environment, path, "-print-config")) {
				value = strings.ReplaceAll(strings.Trim(value, "[]"), ", ", ",") // a list, as the environment has it
				inForce["SHOPBELL_"+strings.ToUpper(strings.ReplaceAll(name, ".", "_"))] = value
			}
			const dots = "••••••" // a secret
			for name, want := range environment {
				if !strings.HasPrefix(name, "SHOPBELL_") {
					continue
				}
				if got, known := inForce[name]; !known {
					t.Errorf("%s is not known to %s", name, room)
				} else if got != want && got != dots {
					t.Errorf("%s: got %s in force, want %s", name, got, want)
				}
			}
		})
	}
}

func TestCompose_HealthCheckTellsWhetherARoomIsReady(t *testing.T) {
	t.Parallel()
	for _, room := range rooms {
		check := composeService(t, room).HealthCheck
		if check == nil || check.Disable {
			t.Fatalf("%s has no health check", room)
		}
		// What the image has is the room's binary and nothing else.
		entrypoint := `ENTRYPOINT ["` + check.Test[1] + `"]`
		if check.Test[0] != "CMD" || !strings.Contains(read(t, "deploy/Dockerfile"), entrypoint) {
			t.Errorf("health check of %s: got %q, want one that runs what deploy/Dockerfile calls ENTRYPOINT", room, check.Test)
		}
		// In there it must come to its end before it is given up.
		if check.Timeout == nil || time.Duration(*check.Timeout) < 3*time.Second {
			t.Errorf("timeout of the health check of %s: got %v, want 3s at least", room, check.Timeout)
		}
	}
	arguments := composeService(t, "ingest").HealthCheck.Test[2:]
	for _, tt := range []struct {
		name   string
		status int
		says   string // in the error; none: it is ready
	}{
		{name: "ready", status: http.StatusOK},
		{name: "not ready", status: http.StatusServiceUnavailable, says: "the bus cannot be reached"},
		{name: "nobody is there", says: "connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			room := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/readyz" {
					t.Errorf("asked for %s, want /readyz", r.URL.Path)
				}
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.says))
			}))
			defer room.Close()
			_, port, err := net.SplitHostPort(room.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if tt.status == 0 {
				room.Close()
			}
			environment := composeEnvironment(t, "ingest")
			// As in the container: it listens everywhere, and is asked at home.
			environment["SHOPBELL_HTTP"] = "0.0.0.0:" + port
			out, err := command(t, environment, program(t, "ingest"), arguments...).CombinedOutput()
			if tt.says == "" {
				if err != nil {
					t.Errorf("got %v: %s, want no error", err, out)
				}
				return
			}
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), tt.says) {
				t.Errorf("got %v: %s, want exit status 1 and %q", err, out, tt.says)
			}
		})
	}
}

func TestCompose_StartsWithTheBus(t *testing.T) {
	t.Parallel()
	project := compose(t)
	var before func(name string) []string
	before = func(name string) []string {
		var all []string
		for other := range project.Services[name].DependsOn {
			all = append(append(all, other), before(other)...)
		}
		return all
	}
	want := map[string]string{
		"nats":         natsVolume + " " + types.ServiceConditionCompletedSuccessfully,
		"ingest":       "nats " + types.ServiceConditionHealthy,
		"subscription": "nats " + types.ServiceConditionHealthy,
		"sender":       "nats " + types.ServiceConditionHealthy,
		"log":          "nats " + types.ServiceConditionHealthy + ", postgres " + types.ServiceConditionHealthy,
	}
	for name, want := range want {
		var got []string
		for other, how := range project.Services[name].DependsOn {
			got = append(got, other+" "+how.Condition)
		}
		slices.Sort(got)
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s waits for %s, want %s", name, got, want)
		}
	}
	for _, name := range append([]string{"nats", "postgres"}, rooms...) {
		if project.Services[name].HealthCheck == nil {
			t.Errorf("%s has no health check, and others wait for its health", name)
		}
		for _, other := range before(name) {
			if slices.Contains([]string{"collector", "jaeger", "prometheus"}, other) {
				t.Errorf("%s waits for %s, and has to work without it", name, other)
			}
		}
	}
	for _, room := range rooms {
		if room != "gateway" && !slices.Contains(before("gateway"), room) {
			t.Errorf("the gateway opens before %s is there", room)
		}
	}
}

func TestCompose_EveryAddressIsThere(t *testing.T) {
	t.Parallel()
	project := compose(t)
	listens := map[string][]string{"nats": {"4222"}, "postgres": {"5432"}, "collector": {"4317", "4318"}}
	for _, room := range rooms {
		for _, name := range []string{"SHOPBELL_HTTP", "SHOPBELL_GRPC"} {
			_, port, _ := net.SplitHostPort(composeEnvironment(t, room)[name])
			listens[room] = append(listens[room], port)
		}
	}
	address := regexp.MustCompile(`(?:^|//|@)([a-z0-9.-]+):(\d+)`)
	seen := 0
	for _, room := range rooms {
		for name, value := range composeEnvironment(t, room) {
			for _, found := range address.FindAllStringSubmatch(value, -1) {
				host, port := found[1], found[2]
				if host == "0.0.0.0" {
					continue
				}
				seen++
				if !slices.Contains(listens[host], port) {
					t.Errorf("%s=%s of %s: nothing is at %s:%s", name, value, room, host, port)
				}
				if !meet(project.Services[room], project.Services[host]) {
					t.Errorf("%s=%s of %s: %s is in none of its networks", name, value, room, host)
				}
			}
		}
	}
	// The bus and the collector for each of five, four rooms for the gateway, the database for the log.
	if want := 2*len(rooms) + 4 + 1; seen != want {
		t.Errorf("addresses seen: got %d, want %d", seen, want)
	}
}

func meet(a, b types.ServiceConfig) bool {
	for name := range a.Networks {
		if _, both := b.Networks[name]; both {
			return true
		}
	}
	return false
}

func TestCompose_PrometheusAsksEveryRoom(t *testing.T) {
	t.Parallel()
	var config struct {
		ScrapeConfigs []struct {
			JobName     string `yaml:"job_name"`
			MetricsPath string `yaml:"metrics_path"`
			DNS         []struct {
				Names []string
				Port  int
			} `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	decode(t, "deploy/compose/prometheus.yml", &config)
	asked := map[string]int{}
	for _, job := range config.ScrapeConfigs {
		for _, found := range job.DNS {
			for _, name := range found.Names {
				asked[name] = found.Port
			}
		}
		if job.MetricsPath != "" {
			t.Errorf("job %s asks for %s, want /metrics, which is what is asked for when nothing is said", job.JobName, job.MetricsPath)
		}
	}
	want := map[string]int{}
	for _, room := range rooms {
		want[room] = 8080
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("rooms and ports that are asked for metrics (-want +got):\n%s", diff)
	}
}

func TestCompose_CollectorPassesTracesOn(t *testing.T) {
	t.Parallel()
	type endpoint struct{ Endpoint string }
	var config struct {
		Receivers map[string]struct{ Protocols map[string]endpoint }
		Exporters map[string]endpoint
		Service   struct {
			Pipelines map[string]struct{ Receivers, Exporters []string }
		}
	}
	decode(t, "deploy/compose/collector.yaml", &config)
	traces := config.Service.Pipelines["traces"]
	if !slices.Contains(traces.Receivers, "otlp") || !slices.Contains(traces.Exporters, "otlp_grpc") {
		t.Errorf("pipeline of traces: got %+v, want one from otlp to otlp_grpc", traces)
	}
	if got, want := config.Receivers["otlp"].Protocols["grpc"].Endpoint, "0.0.0.0:4317"; got != want {
		t.Errorf("the collector listens at %s, want %s", got, want)
	}
	if got, want := config.Exporters["otlp_grpc"].Endpoint, "jaeger:4317"; got != want {
		t.Errorf("the collector passes on to %s, want %s", got, want)
	}
	composeService(t, "jaeger")
}

func TestCompose_BusIsAsTheEmbeddedOne(t *testing.T) {
	t.Parallel()
	got, err := server.ProcessConfigFile(filepath.Join(repository, "deploy/compose/nats.conf"))
	if err != nil {
		t.Fatalf("read nats.conf: %v", err)
	}
	if !got.JetStream || got.MaxPayload != bus.MaxPayload || got.SyncInterval != 100*time.Millisecond || got.SyncAlways {
		t.Errorf("got JetStream %v, max_payload %d, sync %s (always: %v), want true, %d, 100ms (always: false)",
			got.JetStream, got.MaxPayload, got.SyncInterval, got.SyncAlways, bus.MaxPayload)
	}
	var volume string
	for _, v := range composeService(t, "nats").Volumes {
		if v.Type == types.VolumeTypeVolume {
			volume = v.Target
		}
	}
	if got.StoreDir != volume {
		t.Errorf("the bus stores in %s, and its volume is at %s", got.StoreDir, volume)
	}
	probe := composeService(t, "nats").HealthCheck.Test
	if want := fmt.Sprintf("http://127.0.0.1:%d/healthz", got.HTTPPort); probe[len(probe)-1] != want {
		t.Errorf("health check of nats asks at %s, want %s", probe[len(probe)-1], want)
	}
}

var commentedIn = regexp.MustCompile(`(?m)^( *)#([a-z_]+:)`)

func TestExampleConfig_HasEverySettingWithItsDefault(t *testing.T) {
	t.Parallel()
	path := filepath.Join(repository, "deploy/config/shopbell.yaml")
	shopbell := program(t, "shopbell")
	defaults := runProgram(t, nil, shopbell, "serve", "--print-config")
	// Nothing is set in it, so that it may be copied and used as it is.
	if diff := cmp.Diff(defaults, runProgram(t, nil, shopbell, "serve", "--print-config", "--config", path)); diff != "" {
		t.Errorf("settings in force with the file as it is (-without +with):\n%s", diff)
	}
	all := commentedIn.ReplaceAllString(read(t, "deploy/config/shopbell.yaml"), "$1$2")
	file := filepath.Join(t.TempDir(), "shopbell.yaml")
	if err := os.WriteFile(file, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaults, runProgram(t, nil, shopbell, "serve", "--print-config", "--config", file)); diff != "" {
		t.Errorf("settings in force with all of the file (-without +with):\n%s", diff)
	}
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(all), &tree); err != nil {
		t.Fatalf("read the example with all settings in: %v", err)
	}
	inFile := leaves("", tree)
	for name := range printed(t, defaults) {
		if _, there := inFile[name]; !there {
			t.Errorf("%s is not in deploy/config/shopbell.yaml", name)
		}
		delete(inFile, name)
	}
	for name := range inFile {
		t.Errorf("%s is in deploy/config/shopbell.yaml, and is no setting", name)
	}
	// It prints as dots, so the comparison above does not see it.
	if got := tree["log"].(map[string]any)["store"]; got != "sqlite:data/log.db" {
		t.Errorf("log.store: got %v, want sqlite:data/log.db, where `data` is data", got)
	}
}

// leaves are the settings of a YAML file, named with dots.
func leaves(prefix string, tree map[string]any) map[string]bool {
	all := map[string]bool{}
	for key, value := range tree {
		if section, ok := value.(map[string]any); ok {
			for name := range leaves(prefix+key+".", section) {
				all[name] = true
			}
			continue
		}
		all[prefix+key] = true
	}
	return all
}

// printed is what --print-config printed: settings and their values.
func printed(t testing.TB, text string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			t.Fatalf("%q is not a setting and its value", line)
		}
		all[name] = strings.Trim(value, `"`)
	}
	return all
}

// command is a program in an environment that has nothing else of ours.
func command(t testing.TB, environment map[string]string, path string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"HOME=" + os.Getenv("HOME"), "PATH=" + os.Getenv("PATH")}
	for name, value := range environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// runProgram gives what a program printed, which must end well.
func runProgram(t testing.TB, environment map[string]string, path string, args ...string) string {
	t.Helper()
	cmd := command(t, environment, path, args...)
	var wrong strings.Builder
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", filepath.Base(path), strings.Join(args, " "), err, wrong.String())
	}
	return string(out)
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func decode(t testing.TB, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, path)), into); err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
}
