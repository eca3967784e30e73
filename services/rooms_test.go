// Package services_test holds the rule of who may import whom (DESIGN.md, "Folders").
package services_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// levels are the packages of pkg from bottom to top. A package imports only packages of the rows that stand before its
// own.
var levels = [][]string{
	{"testwait"}, // for tests alone
	{"intern", "pace"},
	{"fault", "id", "signature", "expression", "xmlbody", "telemetry"},
	{"contract", "address", "config"},
	{"event", "notice", "profile", "bus"},
	{"bus/bustest", "telemetry/telemetrytest"}, // for tests alone
	{"record"},
	{"shop", "webhook", "key"},
	{"rpc"},
	{"run"},
	{"run/runtest"}, // for tests alone
}

// whole is the room that puts the others together; only it, and what lies below it, imports rooms.
const whole = "shopbell"

const (
	pkgPath      = "shopbell.dev/pkg"
	servicesPath = "shopbell.dev/services"
)

// source is a Go file and what it imports.
type source struct {
	file    string // from the top of the repository
	dir     string // from the top of its module; "." is the module's own
	test    bool
	imports []string
}

// sources are all Go files of a module.
func sources(t *testing.T, module string) (out []source) {
	t.Helper()
	root := filepath.Join("..", module)
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) != ".go" || strings.Contains(filepath.ToSlash(name), "/testdata/") {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		s := source{file: module + "/" + rel, dir: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go")}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, imported)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("no Go files below %s", root)
	}
	return out
}

// in gives the part of an import path behind a module's, and whether it is of that module.
func in(module, imported string) (string, bool) {
	rest, ok := strings.CutPrefix(imported, module+"/")
	return rest, ok || imported == module
}

// room is the room that a folder of services belongs to.
func room(dir string) string { return strings.Split(dir, "/")[0] }

func TestRooms_DoNotImportEachOther(t *testing.T) {
	rooms := map[string]bool{}
	for _, s := range sources(t, "services") {
		rooms[room(s.dir)] = true
		for _, imported := range s.imports {
			other, ok := in(servicesPath, imported)
			if !ok || room(other) == room(s.dir) || room(s.dir) == whole {
				continue
			}
			t.Errorf("%s imports the room %s: a room knows the others by gRPC and by the bus alone. Call its service through env.Dial, "+
				"follow its bucket or consume its stream; what both need belongs into pkg. Only services/%s puts rooms together, and tests "+
				"of several rooms are at home in services/%s/e2e.", s.file, imported, whole, whole)
		}
	}
	for _, name := range []string{"ingest", "subscription", "sender", "log", "gateway", whole} {
		if !rooms[name] {
			t.Errorf("services/%s was not looked at: is this test still in services?", name)
		}
	}
}

func TestPkg_DoesNotImportRooms(t *testing.T) {
	for _, s := range sources(t, "pkg") {
		for _, imported := range s.imports {
			if _, ok := in(servicesPath, imported); ok {
				t.Errorf("%s imports %s: pkg is the floor that rooms stand on. Move what is needed down into pkg, or take it as a "+
					"parameter (a func or a small interface) that the room gives.", s.file, imported)
			}
		}
	}
}

func TestPkg_ImportsOnlyDownwards(t *testing.T) {
	level := map[string]int{}
	for i, row := range levels {
		for _, name := range row {
			level[name] = i
		}
	}
	seen := map[string]bool{}
	for _, s := range sources(t, "pkg") {
		if s.test || s.dir == "zz" { // zz only keeps modules in go.mod until they are used
			continue
		}
		mine, known := level[s.dir]
		if !known && !seen[s.dir] {
			t.Errorf("package pkg/%s has no level: add it to the table in services/rooms_test.go, in a row behind those of all that it imports", s.dir)
		}
		seen[s.dir] = true
		for _, imported := range s.imports {
			name, ok := in(pkgPath, imported)
			theirs, listed := level[name]
			if ok && known && listed && theirs >= mine {
				t.Errorf("%s imports %s, which is not below it: move what both need into a package further down, or take it as a "+
					"parameter. If the two have changed places for good, change the table in services/rooms_test.go.", s.file, imported)
			}
			if ok && strings.HasSuffix(name, "test") {
				t.Errorf("%s imports %s: it is for tests, and would come into the programs with all that it needs", s.file, imported)
			}
		}
	}
	for name := range level {
		if !seen[name] {
			t.Errorf("package pkg/%s is gone: take it out of the table in services/rooms_test.go", name)
		}
	}
}

func TestPrograms_HoldNoTestHelpers(t *testing.T) {
	for _, s := range sources(t, "services") {
		if s.test || strings.HasSuffix(s.dir, "test") || slices.Contains(strings.Split(s.dir, "/"), "e2e") {
			continue
		}
		for _, imported := range s.imports {
			if imported == "testing" || imported == "net/http/httptest" || strings.HasPrefix(imported, pkgPath) && strings.HasSuffix(imported, "test") {
				t.Errorf("%s imports %s, which is for tests: keep it in _test.go files, or in a package whose name ends in test", s.file, imported)
			}
		}
	}
}

// A shop platform imports proto without our dependencies.
func TestProto_ImportsNeitherPkgNorRooms(t *testing.T) {
	for _, s := range sources(t, "proto") {
		for _, imported := range s.imports {
			_, pkg := in(pkgPath, imported)
			_, services := in(servicesPath, imported)
			if pkg || services {
				t.Errorf("%s imports %s: proto is what publishers import, and must bring nothing else of ours. Write the helper into "+
					"pkg, around the generated type.", s.file, imported)
			}
		}
	}
}
