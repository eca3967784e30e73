// Package e2e runs every test against real processes, in both ways that Shopbell runs: as one process ("one", which is
// `shopbell serve`), and as many ("many": a NATS server, PostgreSQL where the machine has it, and a process for each
// room, with the environment of docker-compose.yml).
package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Most of the time tests wait for timers, so that more of them run at once than there are processors.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0)))
	}
	code := m.Run()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
	client.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "the tests are over, and something of theirs still runs:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// programs are what the tests run: built once, by the first test that needs one.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

// program gives the path of a program.
func program(t testing.TB, name string) string {
	t.Helper()
	programs.once.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "shopbell-e2e-"); programs.err == nil { //nolint:usetesting // it outlives the first test
			programs.err = build(programs.dir)
		}
	})
	if programs.err != nil {
		t.Fatalf("build the programs: %v", programs.err)
	}
	return filepath.Join(programs.dir, name)
}

// rooms are the programs that are rooms, in the order in which they start.
var rooms = []string{"log", "sender", "subscription", "ingest", "gateway"}

func build(dir string) error {
	packages := []string{"shopbell.dev/services/shopbell/cmd/shopbell"}
	for _, room := range rooms {
		packages = append(packages, "shopbell.dev/services/"+room+"/cmd/"+room)
	}
	args := append([]string{"build", "-o", dir + "/"}, raceFlags...)
	for _, args := range [][]string{
		append(args, packages...),
		{"build", "-o", filepath.Join(dir, "nats-server"), "github.com/nats-io/nats-server/v2"},
	} {
		out, err := exec.Command(filepath.Join(runtime.GOROOT(), "bin", "go"), args...).CombinedOutput() //nolint:staticcheck // the go that built this test
		if err != nil {
			return fmt.Errorf("go %v: %w\n%s", args, err, out)
		}
	}
	return nil
}
