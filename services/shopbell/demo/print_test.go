package demo

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"shopbell.dev/pkg/profile"
)

// Every sample of every preset is broken into lines that fit, and every name and value stays as it came.
func TestLines_FitATerminalAndChangeNothing(t *testing.T) {
	set, err := profile.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{`{}`, `[]`, `1.50`, `"a, {b}"`, `{"a":"\/\"}{,","b":[{"c":1.0},[]]}`, `[` + strings.Repeat(`{"a":[1,2,{"b":"`+strings.Repeat("é,\\\"", 20)+`"}]},`, 9) + `1]`}
	for _, name := range set.Names() {
		p, err := set.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range p.Events {
			texts = append(texts, e.Sample)
		}
	}
	for _, text := range texts {
		got := lines([]byte(text))
		var was, is bytes.Buffer
		if err := json.Compact(&was, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := json.Compact(&is, []byte(got)); err != nil || is.String() != was.String() {
			t.Errorf("%s\nis printed as\n%s\n(%v)", text, got, err)
		}
		for line := range strings.Lines(got) {
			if utf8.RuneCountInString(line) > width-3 && strings.Count(line, `":`) > 1 {
				t.Errorf("a line is too long for %d columns: %s", width, line)
			}
		}
	}
	if got := lines([]byte("<a/>")); got != "<a/>" {
		t.Errorf("XML is printed as %q", got)
	}
}
