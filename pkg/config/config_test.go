package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"shopbell.dev/pkg/config"
)

type common struct {
	HTTP  string        `yaml:"http"`
	Key   config.Secret `yaml:"operator_key"`
	Level slog.Level    `yaml:"log_level"`
	Shop  struct {
		Profile string `yaml:"profile"`
	} `yaml:"shop"`
}

type sender struct {
	Workers int             `yaml:"workers"`
	Max     config.Size     `yaml:"max_response_bytes"`
	Grace   time.Duration   `yaml:"grace"`
	On      bool            `yaml:"on"`
	Ratio   float64         `yaml:"ratio"`
	Names   []string        `yaml:"names"`
	Waits   []time.Duration `yaml:"waits"`
	Ignored string          `yaml:"-"`
}

func (s sender) Validate() error {
	if s.Workers < 1 {
		return errors.New("workers: none")
	}
	return nil
}

type settings struct {
	common common
	sender sender
}

func defaults() *settings {
	s := &settings{common: common{HTTP: "127.0.0.1:8080"}, sender: sender{Workers: 4, Max: 1 << 20, Grace: 15 * time.Second, Names: []string{"a"}}}
	s.common.Shop.Profile = "standard"
	return s
}

func (s *settings) sections() []config.Section {
	return []config.Section{{Into: &s.common}, {Name: "sender", Into: &s.sender}}
}

func (s *settings) load(t *testing.T, file string, environment ...string) error {
	t.Helper()
	path := ""
	if file != "" {
		path = write(t, "shopbell.yaml", file)
	}
	return config.Load(path, environment, s.sections()...)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad_EnvironmentOverFileOverDefaults(t *testing.T) {
	s := defaults()
	err := s.load(t, "http: 127.0.0.1:1\nshop: {profile: shoporama}\nsender:\n  workers: 7\n  grace: 1m\n",
		"SHOPBELL_SENDER_WORKERS=9", "SHOPBELL_SHOP_PROFILE=cloudcart", "PATH=/bin", "SHOPBELL_SENDER_PORT=tcp://10.0.0.1:9090", "OTHER_SENDER_GRACE=1s")
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.common.HTTP, want.common.Shop.Profile = "127.0.0.1:1", "cloudcart"
	want.sender.Workers, want.sender.Grace = 9, time.Minute
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(settings{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoad_ReadsEveryKind(t *testing.T) {
	want := sender{Workers: 12, Max: 10 << 30, Grace: 90 * time.Second, On: true, Ratio: 0.5, Names: []string{"a", "b"}, Waits: []time.Duration{5 * time.Second, time.Hour}}
	for name, load := range map[string]func(*settings) error{
		"file": func(s *settings) error {
			return s.load(t, "sender:\n  workers: 12\n  max_response_bytes: 10GiB\n  grace: 1m30s\n  on: true\n  ratio: 0.5\n  names: [a, b]\n  waits:\n    - 5s\n    - 1h\nlog_level: warn\n")
		},
		"environment": func(s *settings) error {
			return s.load(t, "", "SHOPBELL_SENDER_WORKERS=12", "SHOPBELL_SENDER_MAX_RESPONSE_BYTES=10GiB", "SHOPBELL_SENDER_GRACE=1m30s",
				"SHOPBELL_SENDER_ON=true", "SHOPBELL_SENDER_RATIO=0.5", "SHOPBELL_SENDER_NAMES= a, b,", "SHOPBELL_SENDER_WAITS=5s,1h", "SHOPBELL_LOG_LEVEL=warn")
		},
	} {
		s := defaults()
		if err := load(s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, s.sender); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if s.common.Level != slog.LevelWarn {
			t.Errorf("%s: level %v, want warn", name, s.common.Level)
		}
	}
}

func TestLoad_TextStaysText(t *testing.T) {
	for _, text := range []string{"0123", "true", "null", "1e3", "a: b", "# no comment", `"quoted"`, " blanks ", "[a]", "", "2026-05-01", "*"} {
		s := defaults()
		if err := s.load(t, "", "SHOPBELL_OPERATOR_KEY="+text, "SHOPBELL_HTTP="+text); err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if string(s.common.Key) != text || s.common.HTTP != text {
			t.Errorf("%q is read as %q and %q", text, string(s.common.Key), s.common.HTTP)
		}
	}
}

func TestLoad_TakesAValueFromAFile(t *testing.T) {
	for _, row := range []struct{ name, content, want string }{
		{"as it stands", "a b:c#", "a b:c#"},
		{"without the line's end", "secret\n", "secret"},
		{"without any line's end", "secret\r\n\n", "secret"},
		{"with blanks", " secret ", " secret "},
	} {
		s := defaults()
		if err := s.load(t, "operator_key: from the config file", "SHOPBELL_OPERATOR_KEY_FILE="+write(t, "key", row.content)); err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		if string(s.common.Key) != row.want {
			t.Errorf("%s: %q, want %q", row.name, string(s.common.Key), row.want)
		}
	}
}

func TestLoad_SaysWhereAndWhatInstead(t *testing.T) {
	for _, row := range []struct {
		name, file string
		env        []string
		want       []string
	}{
		{"an unknown key", "http: x\nhtpp: y\n", nil, []string{":2: ", `"htpp" is not known`, `did you mean "http"?`}},
		{"an unknown key of a section", "sender:\n  workers: 1\n\n  worker: 2\n", nil, []string{":4: ", `"sender.worker"`, `did you mean "sender.workers"?`}},
		{"an unknown section", "sendr:\n  workers: 1\n", nil, []string{":1: ", `"sendr"`, `did you mean "sender"?`}},
		{"a key in camel case", "sender: {maxResponseBytes: 1KiB}\n", nil, []string{`did you mean "sender.max_response_bytes"?`}},
		{"a hidden field", "hidden: x\n", nil, []string{`"hidden" is not known`}},
		{"a section that holds one value", "sender: 5\n", nil, []string{":1: ", `"sender" must hold keys and values`}},
		{"a file that is a list", "- http\n", nil, []string{":1: ", "keys and values"}},
		{"a file that is no YAML", "http: [\n", nil, []string{"shopbell.yaml", "yaml"}},
		{"a time without a unit", "sender:\n  grace: 15\n", nil, []string{":2: sender.grace: ", "with a unit"}},
		{"a time that is none", "sender:\n  grace: soon\n", nil, []string{":2: sender.grace: ", "with a unit"}},
		{"a size without a unit", "sender: {max_response_bytes: 1000}\n", nil, []string{`"1000" is no size`, "1MiB"}},
		{"a size that is too large", "sender: {max_response_bytes: 9999999999GiB}\n", nil, []string{"is no size"}},
		{"a negative size", "sender: {max_response_bytes: -1KiB}\n", nil, []string{"is no size"}},
		{"a number that is none", "sender: {workers: many}\n", nil, []string{"sender.workers: it must be a number"}},
		{"a truth that is none", "sender: {on: perhaps}\n", nil, []string{"sender.on: it must be true or false"}},
		{"a list that is none", "sender: {names: {a: b}}\n", nil, []string{":1: sender.names: "}},
		{"a key twice", "http: x\nlog_level: info\nhttp: y\n", nil, []string{":3: ", `"http"`, "twice"}},
		{"a variable that is no number", "", []string{"SHOPBELL_SENDER_WORKERS=many"}, []string{"SHOPBELL_SENDER_WORKERS: it must be a number"}},
		{"a variable that is no size", "", []string{"SHOPBELL_SENDER_MAX_RESPONSE_BYTES=1MB"}, []string{"SHOPBELL_SENDER_MAX_RESPONSE_BYTES: ", "1MiB"}},
		{"a variable that is no time", "", []string{"SHOPBELL_SENDER_WAITS=5s,10"}, []string{"SHOPBELL_SENDER_WAITS: "}},
		{"a file that is not there", "", []string{"SHOPBELL_OPERATOR_KEY_FILE=/nowhere/key"}, []string{"SHOPBELL_OPERATOR_KEY_FILE: ", "/nowhere/key"}},
		{"what Validate says", "sender: {workers: 0}\n", nil, []string{"settings of sender: workers: none"}},
		{"what Validate says of the environment", "", []string{"SHOPBELL_SENDER_WORKERS=0"}, []string{"settings of sender: workers: none"}},
	} {
		err := defaults().load(t, row.file, row.env...)
		if err == nil {
			t.Errorf("%s: no error", row.name)
			continue
		}
		for _, want := range row.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q, want %q in it", row.name, err, want)
			}
		}
	}
	if err := config.Load("/nowhere/shopbell.yaml", nil); err == nil || !strings.Contains(err.Error(), "/nowhere/shopbell.yaml") {
		t.Errorf("a config file that is not there: %v, want its path", err)
	}
}

func TestLoad_TakesFilesWithNothingInThem(t *testing.T) {
	for _, file := range []string{"", "\n", "# all by default\n", "---\n", "sender:\n", "sender: {}\n", "http:\nsender:\n  grace:\n"} {
		s := defaults()
		if err := config.Load(write(t, "shopbell.yaml", file), nil, s.sections()...); err != nil {
			t.Errorf("%q: %v", file, err)
		}
		if diff := cmp.Diff(defaults(), s, cmp.AllowUnexported(settings{})); diff != "" {
			t.Errorf("%q changes the defaults (-want +got):\n%s", file, diff)
		}
	}
}

func TestWrite_CanBeReadAgain(t *testing.T) {
	s := defaults()
	s.sender.Names, s.sender.Waits, s.sender.Max = []string{"a, b", "c: d"}, []time.Duration{5 * time.Second, 36 * time.Hour}, 1536
	s.common.HTTP = "[::1]:8080"
	var out bytes.Buffer
	if err := config.Write(&out, s.sections()...); err != nil {
		t.Fatal(err)
	}
	got := &settings{}
	if err := got.load(t, out.String()); err != nil {
		t.Fatalf("what is printed cannot be read: %v\n%s", err, &out)
	}
	if diff := cmp.Diff(s, got, cmp.AllowUnexported(settings{})); diff != "" {
		t.Errorf("(-printed +read):\n%s\n%s", diff, &out)
	}
}

func TestSecret_PrintsAsDots(t *testing.T) {
	const secret = config.Secret("hunter2hunter2hunter2")
	s := defaults()
	s.common.Key = secret
	var out bytes.Buffer
	if err := config.Write(&out, s.sections()...); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("settings", slog.Any("key", secret), slog.Any("all", s.common))
	slog.New(slog.NewTextHandler(&out, nil)).Info("settings", slog.Any("key", secret), slog.Any("all", s.common))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&out, verb+"\n"+verb+"\n", secret, s.common)
	}
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		text, err := marshal(s.common)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
	}
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("a secret is printed:\n%s", &out)
	}
	if !strings.Contains(out.String(), "••••••") {
		t.Errorf("no dots are printed, so that nobody sees that there is a secret:\n%s", &out)
	}
	if got := config.Secret("").String(); got != `""` {
		t.Errorf("no secret prints as %s, want \"\"", got)
	}
}

func TestSize_PrintsAsItIsWritten(t *testing.T) {
	for size, want := range map[config.Size]string{0: "0B", 1: "1B", 1000: "1000B", 1 << 10: "1KiB", 1536: "1536B", 1 << 20: "1MiB", 3 << 20: "3MiB", 10 << 30: "10GiB"} {
		if got := size.String(); got != want {
			t.Errorf("Size(%d) prints as %s, want %s", int64(size), got, want)
		}
		var back config.Size
		if err := yaml.Unmarshal([]byte(size.String()), &back); err != nil || back != size {
			t.Errorf("%s is read as %d, %v, want %d", size, back, err, size)
		}
	}
}

func FuzzLoad_NeverPanics(f *testing.F) {
	f.Add("http: x\nsender: {workers: 1}\n", "SHOPBELL_SENDER_NAMES=a,b")
	f.Add("sender: &a {names: [*a]}\n", "SHOPBELL_SENDER_WAITS=")
	f.Add("<<: {http: x}\n", "=")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, file, variable string) {
		if strings.Contains(variable, "_FILE") {
			t.Skip("files of secrets are tested by themselves")
		}
		path := filepath.Join(dir, "fuzz.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = config.Load(path, []string{variable}, defaults().sections()...)
	})
}
