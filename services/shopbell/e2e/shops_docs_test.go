package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// linesOf says how many lines each part of SHOPS.md has.
var linesOf = map[int]int{1: 31, 2: 15, 3: 22, 4: 20, 5: 6}

var (
	numberedTest = regexp.MustCompile(`(?m)^func (Test\w*_S([1-5])_(\d\d)_\w+)\(`)
	subtest      = regexp.MustCompile(`t\.Run\("(S([1-5])_(\d\d)_\w+)"`)
	docRow       = regexp.MustCompile(`(?m)^\| (S\d\.\d+) \| ([^|]+) \| ([^|]+) \|$`)
	docName      = regexp.MustCompile("`(Test[^`]*)`")
)

// shopTests are the tests of the tree whose names carry a line's number, by the line; a subtest stands behind the test
// that runs it.
func shopTests(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	err := filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found := numberedTest.FindAllSubmatchIndex(text, -1)
		for i, at := range found {
			end := len(text)
			if i+1 < len(found) {
				end = found[i+1][0]
			}
			name := string(text[at[2]:at[3]])
			line := lineOf(string(text[at[4]:at[5]]), string(text[at[6]:at[7]]))
			out[line] = append(out[line], name)
			for _, sub := range subtest.FindAllSubmatch(text[at[0]:end], -1) {
				line := lineOf(string(sub[2]), string(sub[3]))
				out[line] = append(out[line], name+"/"+string(sub[1]))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// lineOf is the line that the numbers in a test's name stand for: 1 and 05 are S1.5.
func lineOf(part, number string) string {
	n, _ := strconv.Atoi(number) // it is two digits
	return fmt.Sprintf("S%s.%d", part, n)
}

// docs/shops.md has every line once, in order, each with the tests of the tree that carry its number, or says why there
// is none.
func TestDocs_NameATestForEveryLine(t *testing.T) {
	rows := docRow.FindAllStringSubmatch(read(t, "docs/shops.md"), -1)
	var got, want []string
	for _, row := range rows {
		got = append(got, row[1])
	}
	for part := 1; part <= len(linesOf); part++ {
		for n := 1; n <= linesOf[part]; n++ {
			want = append(want, fmt.Sprintf("S%d.%d", part, n))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/shops.md has the lines\n%q, want\n%q", got, want)
	}
	tests := shopTests(t)
	for _, row := range rows {
		line, cell := row[1], row[3]
		var named []string
		for _, m := range docName.FindAllStringSubmatch(cell, -1) {
			named = append(named, m[1])
			if !slices.Contains(tests[line], m[1]) {
				t.Errorf("%s: docs/shops.md names %s, and no test of that name carries the line's number", line, m[1])
			}
		}
		if slices.Sort(named); len(slices.Compact(slices.Clone(named))) != len(named) {
			t.Errorf("%s: docs/shops.md names a test twice: %q", line, named)
		}
		for _, name := range tests[line] {
			if !slices.Contains(named, name) {
				t.Errorf("%s: docs/shops.md does not name %s", line, name)
			}
		}
		if len(named) == 0 && !strings.HasPrefix(cell, "not yet: ") && !strings.HasPrefix(cell, "not tested: ") {
			t.Errorf("%s: docs/shops.md names no test, and does not say why: %q", line, cell)
		}
		delete(tests, line)
	}
	for line, names := range tests {
		t.Errorf("%q carry %s, which is no line of docs/shops.md", names, line)
	}
}
