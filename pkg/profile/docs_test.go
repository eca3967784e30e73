package profile

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// docs/profiles.md shows a file with every key there is, and it is a good one.
func TestDocs_ShowEveryKeyOfAProfile(t *testing.T) {
	text, err := os.ReadFile("../../docs/profiles.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	file, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/profiles.md shows no file")
	}
	set, err := Load(fstest.MapFS{"acme.yaml": {Data: []byte(file)}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := set.Get("acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.With([]string{"bare", "long_names"}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"Profile", "Policy", "Event", "Signature", "Option", "Rename", "Breaker"} {
		for _, key := range keys(name) {
			if !regexp.MustCompile(`(?m)^[ -]*` + key + `:`).MatchString(file) {
				t.Errorf("%s of %s is not shown", key, name)
			}
		}
	}
	for _, place := range slices.Concat(places, schemes) {
		if !strings.Contains(file, place) {
			t.Errorf("%s is not shown", place)
		}
	}
}
