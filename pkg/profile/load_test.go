package profile

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s has changed (-golden +now); if that is meant, run: go test ./profile -update\n%s", path, diff)
	}
}

// Each file is good but for one thing; the first line says what Load must say of it.
func TestLoad_SaysWhatIsWrongWithAFile(t *testing.T) {
	files, err := filepath.Glob("testdata/busted_*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no broken files are there", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "\n")
			want, ok := strings.CutPrefix(first, "# want: ")
			if !ok {
				t.Fatalf("%s does not begin with the error that is wanted: %q", file, first)
			}
			_, err = Load(fstest.MapFS{filepath.Base(file): {Data: text}})
			if err == nil {
				t.Fatal("no error")
			}
			if got, want := err.Error(), "profile "+filepath.Base(file)+": "+want; got != want {
				t.Errorf("error\n %s\nwant\n %s", got, want)
			}
		})
	}
}

func TestLoad_TakesProfilesBesideThePresetsAndInTheirPlace(t *testing.T) {
	own := "name: own\nopen_catalog: true\npolicy: {timeout: 5s, success_codes: [\"200\"]}\n"
	set, err := Load(fstest.MapFS{
		"a.yaml":        {Data: []byte(own)},
		"standard.yaml": {Data: []byte(strings.Replace(own, "own", "standard", 1))},
		"notes.txt":     {Data: []byte("not a profile")},
	})
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Join(set.Names(), " ")
	if !strings.Contains(names, "own") || !strings.Contains(names, "standard") {
		t.Errorf("names %q, want own and standard among them", names)
	}
	standard, err := set.Get("standard")
	if err != nil || standard.Policy.Timeout != 5*time.Second || len(standard.Events) != 0 {
		t.Errorf("standard = %+v, %v, want what the file says in place of the preset", standard, err)
	}
	if _, err := set.Get("standart"); err == nil || !strings.Contains(err.Error(), `did you mean "standard"?`) || !strings.Contains(err.Error(), "there are ") {
		t.Errorf("an unknown name: %v, want the nearest and all", err)
	}
}

func TestLoad_PresetsAreWhatTheAPIShows(t *testing.T) {
	set, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range set.Names() {
		p, err := set.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := protojson.Marshal(p.Proto())
		if err != nil {
			t.Fatalf("%s cannot be shown: %v", name, err)
		}
		if !strings.Contains(string(text), name) {
			t.Errorf("%s is shown as %s", name, text)
		}
		if own, err := p.Policy.With(p.Policy.Proto()); err != nil || cmp.Diff(own.Proto().String(), p.Policy.Proto().String()) != "" {
			t.Errorf("%s: the rules that are shown are not taken back: %v", name, err)
		}
	}
}

// The waits of each preset, to be held against what its documents promise: without jitter, and the most with it.
func TestPresets_Timetables(t *testing.T) {
	set, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range set.Names() {
		p, err := set.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		fmt.Fprintf(&out, "%s: %d attempts, each of at most %s\n", name, p.Policy.Attempts(), p.Policy.Timeout)
		var early, late time.Duration
		fmt.Fprintf(&out, "attempt  1  at once\n")
		for attempt := 1; ; attempt++ {
			least, ok := p.Policy.Wait(attempt, 0, 0)
			most, _ := p.Policy.Wait(attempt, 0, 1)
			if !ok {
				fmt.Fprintf(&out, "given up %s after the event\n", span(early, late))
				break
			}
			early, late = early+least, late+most
			fmt.Fprintf(&out, "attempt %2d  %s after the one before, %s after the event\n", attempt+1, span(least, most), span(early, late))
		}
		golden(t, name+"_timetable", out.String())
	}
}

func span(least, most time.Duration) string {
	if least == most {
		return clock(least)
	}
	return clock(least) + " to " + clock(most)
}

// clock is a time in hours, minutes and seconds, with what is nothing left out.
func clock(d time.Duration) string {
	var parts []string
	for _, unit := range []struct {
		name string
		of   time.Duration
	}{{"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if n := d / unit.of; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, unit.name))
			d %= unit.of
		}
	}
	if len(parts) == 0 {
		return "0 s"
	}
	return strings.Join(parts, " ")
}

// What an answer's code means to each preset, for every code there is.
func TestPresets_Codes(t *testing.T) {
	set, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range set.Names() {
		p, err := set.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		meaning := func(code int) string {
			switch {
			case p.Policy.Succeeds(code):
				return "success"
			case p.Policy.Disables(code, false):
				return "failure, and switches the webhook off"
			case p.Policy.Disables(code, true):
				return "failure, and switches the webhook off after the last attempt"
			}
			return "failure"
		}
		from := 100
		for code := 101; code <= 600; code++ {
			if code < 600 && meaning(code) == meaning(from) {
				continue
			}
			codes := fmt.Sprintf("%d-%d", from, code-1)
			if from == code-1 {
				codes = fmt.Sprint(from)
			}
			fmt.Fprintf(&out, "%-7s %s\n", codes, meaning(from))
			from = code
		}
		golden(t, name+"_codes", out.String())
	}
}

func FuzzParse_MakesRulesThatCanBeUsed(f *testing.F) {
	f.Add("name: own\nopen_catalog: true\nenvelope: '{\"a\":{data}}'\nsignatures: [{scheme: standard-webhooks}]\npolicy: {timeout: 5s, success_codes: [2xx]}\nevents: [{name: a, sample: '1'}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parse([]byte(text))
		if err != nil {
			return
		}
		for code := 100; code < 600; code++ {
			p.Policy.Succeeds(code)
			p.Policy.Disables(code, true)
		}
		for attempt := 1; attempt <= p.Policy.Attempts()+1; attempt++ {
			p.Policy.Wait(attempt, time.Hour, 0.5)
		}
		if _, err := p.Policy.With(p.Policy.Proto()); err != nil {
			t.Errorf("the rules that are shown are not taken back: %v", err)
		}
	})
}
