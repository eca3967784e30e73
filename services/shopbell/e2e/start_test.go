package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refuses runs a program that must end at once, with code 1 and one line that says these.
func refuses(t *testing.T, environment map[string]string, says []string, path string, args ...string) {
	t.Helper()
	cmd := command(t, environment, path, args...)
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("got exit code %d (%v) with %q, want 1", code, err, out)
	}
	if took := time.Since(begun); took > slack {
		t.Errorf("it took %s to say so", took)
	}
	text := strings.TrimSuffix(string(out), "\n")
	if text == "" || strings.Contains(text, "\n") {
		t.Errorf("got %q, want one line", out)
	}
	for _, want := range says {
		if !strings.Contains(text, want) {
			t.Errorf("got %q, want it to say %q", text, want)
		}
	}
}

func TestStart_SaysInOneLineWhatIsWrong(t *testing.T) {
	t.Parallel()
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "shopbell.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, "VERSION"), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "VERSION"), []byte("a shopping list\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	blocked := filepath.Join(file("not a folder"), "data")
	free := func() string { return freeAddress(t) }

	for _, test := range []struct {
		name        string
		flags       []string // of serve, beside free addresses and a fresh folder
		config      string
		environment map[string]string
		says        []string
		alone       bool // a room that runs alone says it, too
	}{
		{name: "an unknown key", config: "sender:\n  max_in_fligth: 5\n", says: []string{"shopbell.yaml:2", `"sender.max_in_fligth"`, `did you mean "sender.max_in_flight"`}, alone: true},
		{name: "an unknown section", config: "sendre:\n  max_in_flight: 5\n", says: []string{"shopbell.yaml:1", `"sendre"`, `did you mean "sender"`}, alone: true},
		{name: "a time without a unit", config: "sender:\n  grace: 15\n", says: []string{"shopbell.yaml:2", "sender.grace", "unit"}, alone: true},
		{name: "a size without a unit", config: "sender:\n  max_response_bytes: 15\n", says: []string{"shopbell.yaml:2", "max_response_bytes", "KiB"}, alone: true},
		{name: "a value out of bounds", config: "sender:\n  max_in_flight: 0\n", says: []string{"sender", "max_in_flight", "between 1 and 20000"}, alone: true},
		{name: "an opened network that is none", config: "allow_addresses: [10.1.2.3/16]\n", says: []string{"shopbell.yaml:1", "allow_addresses", "10.1.0.0/16"}, alone: true},
		{name: "all networks opened", environment: map[string]string{"SHOPBELL_ALLOW_ADDRESSES": "10.0.0.0/8, 0.0.0.0/0"}, says: []string{"SHOPBELL_ALLOW_ADDRESSES", "every address there is"}, alone: true},
		{name: "a proxy without a port", environment: map[string]string{"SHOPBELL_SENDER_PROXY_URL": "http://me:s3cret@proxy"}, says: []string{"proxy_url", "no port"}},
		{name: "a file of authorities that is not there", config: "sender:\n  ca_file: /no/such/ca.pem\n", says: []string{"sender.ca_file", "/no/such/ca.pem"}},
		{name: "broken YAML", config: "sender: [\n", says: []string{"shopbell.yaml"}, alone: true},
		{name: "a list where keys belong", config: "- sender\n", says: []string{"shopbell.yaml:1"}, alone: true},
		{name: "a bad variable", environment: map[string]string{"SHOPBELL_SENDER_GRACE": "soon"}, says: []string{"SHOPBELL_SENDER_GRACE", "unit"}, alone: true},
		{name: "a config file that is not there", flags: []string{"--config", "/no/such/file.yaml"}, says: []string{"/no/such/file.yaml"}, alone: true},
		{name: "a port that is taken", environment: map[string]string{"SHOPBELL_HTTP": taken.Addr().String()}, says: []string{taken.Addr().String(), "taken by another program", "SHOPBELL_HTTP"}, alone: true},
		{name: "a gRPC port that is taken", environment: map[string]string{"SHOPBELL_GRPC": taken.Addr().String()}, says: []string{taken.Addr().String(), "taken by another program", "SHOPBELL_GRPC"}, alone: true},
		{name: "an address that is none", environment: map[string]string{"SHOPBELL_HTTP": "8080"}, says: []string{"http", "host:port"}, alone: true},
		{name: "open to all without a key", environment: map[string]string{"SHOPBELL_HTTP": "0.0.0.0:0"}, says: []string{"0.0.0.0:0", "SHOPBELL_OPERATOR_KEY"}, alone: true},
		{name: "open to all by name", environment: map[string]string{"SHOPBELL_GRPC": ":0"}, says: []string{"SHOPBELL_OPERATOR_KEY"}, alone: true},
		{name: "a key that is too short", environment: map[string]string{"SHOPBELL_OPERATOR_KEY": "secret"}, says: []string{"16 characters"}, alone: true},
		{name: "a key's file that is not there", environment: map[string]string{"SHOPBELL_OPERATOR_KEY_FILE": "/no/such/key"}, says: []string{"SHOPBELL_OPERATOR_KEY_FILE", "/no/such/key"}, alone: true},
		{name: "a folder of profiles that is not there", environment: map[string]string{"SHOPBELL_PROFILES": "/no/such/profiles"}, says: []string{"/no/such/profiles"}, alone: true},
		{name: "a default profile that there is not", environment: map[string]string{"SHOPBELL_SHOP_PROFILE": "standrad"}, says: []string{"standrad", `did you mean "standard"`}},
		{name: "a data folder of a newer version", flags: []string{"--data", newer}, says: []string{"newer Shopbell", "99", "--data"}},
		{name: "a data folder of something else", flags: []string{"--data", foreign}, says: []string{"VERSION", "is this a data folder of Shopbell?"}},
		{name: "a data folder that cannot be made", flags: []string{"--data", blocked}, says: []string{"data folder"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			flags := test.flags
			if test.config != "" {
				flags = append(flags, "--config", file(test.config))
			}
			environment := map[string]string{"SHOPBELL_HTTP": free(), "SHOPBELL_GRPC": free(), "SHOPBELL_DATA": filepath.Join(t.TempDir(), "data")}
			for name, value := range test.environment {
				environment[name] = value
			}
			t.Run(one, func(t *testing.T) {
				refuses(t, environment, test.says, program(t, "shopbell"), append([]string{"serve"}, flags...)...)
			})
			if test.alone {
				t.Run(many, func(t *testing.T) {
					refuses(t, environment, test.says, program(t, "sender"), flags...)
				})
			}
		})
	}
}

func TestStart_RefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	for _, line := range [][]string{
		{"shopbell", "serve", "--adress=x"}, {"shopbell", "serve", "now"}, {"shopbell", "server"}, {"sender", "-adress=x"}, {"sender", "now"},
	} {
		cmd := command(t, nil, program(t, line[0]), line[1:]...)
		out, _ := cmd.CombinedOutput()
		wrong := strings.Trim(strings.TrimSuffix(line[len(line)-1], "=x"), "-")
		if cmd.ProcessState.ExitCode() <= 0 || !contains(out, wrong) {
			t.Errorf("%q: got exit code %d with %q, want one that is not 0, and the word", line, cmd.ProcessState.ExitCode(), out)
		}
	}
}

func TestStart_ADataFolderHasOneProcess(t *testing.T) {
	t.Parallel()
	h := open(t, one, nil)
	pid := fmt.Sprint(h.process("all").cmd.Process.Pid)
	refuses(t, map[string]string{"SHOPBELL_HTTP": freeAddress(t), "SHOPBELL_GRPC": freeAddress(t)},
		[]string{h.data, "in use by another process", pid, "--data"}, program(t, "shopbell"), "serve", "--data", h.data)
	if a := h.call(t, "GET", "/v1/profiles", ""); a.code != http.StatusOK {
		t.Errorf("the one that has it: got %d %s, want it at work", a.code, a.body)
	}
	// A port that is taken leaves the folder as it was.
	refuses(t, map[string]string{"SHOPBELL_HTTP": strings.TrimPrefix(h.url, "http://"), "SHOPBELL_GRPC": freeAddress(t)},
		[]string{"taken by another program", "--http"}, program(t, "shopbell"), "serve", "--data", filepath.Join(t.TempDir(), "data"))
	// And a process that was killed leaves it free.
	h.kill(t, "all")
	h.start(t, "all")
}

// What cannot be reached at the start is waited for; SIGTERM ends the waiting.
func TestStart_ARoomWaitsForTheBus(t *testing.T) {
	t.Parallel()
	p := &process{
		name: "sender", path: program(t, "sender"), log: filepath.Join(t.TempDir(), "sender.log"), stopWithin: 10 * time.Second,
		env:   []string{"SHOPBELL_HTTP=" + freeAddress(t), "SHOPBELL_GRPC=" + freeAddress(t), "SHOPBELL_BUS_URL=nats://" + freeAddress(t)},
		codes: []int{1},
	}
	p.begin(t)
	eventually(t, "it says what it waits for", func() error {
		if text := p.tail(10); !strings.Contains(text, "bus not there yet") {
			return fmt.Errorf("it says %q", text)
		}
		return nil
	})
	p.stop(t)
}
