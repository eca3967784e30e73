package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres gives the address of a new, empty database in a private PostgreSQL cluster, which the first call starts
// from the machine's own binaries and which ends with the test binary, however that ends. Where there are no binaries
// the test is skipped with a line that says so; under CI=true it fails instead, so that nobody takes half of the
// tests for all of them.
func Postgres(t testing.TB) (dsn string) {
	t.Helper()
	once.Do(func() {
		cluster, errStart = StartCluster("/tmp", "shared_buffers=64MB", "fsync=off", "full_page_writes=off", "synchronous_commit=off")
	})
	need(t, errStart)
	name := fmt.Sprintf("log_%d", databases.Add(1))
	if err := cluster.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	t.Cleanup(func() {
		if err := cluster.Exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop the database: %v", err)
		}
	})
	return cluster.DSN(name)
}

// OwnCluster starts a cluster that the test alone uses, and may kill: what it has said that it has is there afterwards.
// It ends with the test. Without PostgreSQL it does as Postgres does.
func OwnCluster(t testing.TB) *Cluster {
	t.Helper()
	c, err := StartCluster("/tmp", "shared_buffers=64MB", "fsync=off", "full_page_writes=off")
	need(t, err)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Errorf("stop PostgreSQL: %v", err)
		}
	})
	return c
}

// need is for the error of StartCluster.
func need(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrNoPostgres) {
		message := fmt.Sprintf("the PostgreSQL part did not run: %v", err)
		if os.Getenv("CI") == "true" {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
}

var (
	once      sync.Once
	cluster   *Cluster
	errStart  error
	databases atomic.Int64
)

// ErrNoPostgres says that the machine has no PostgreSQL.
var ErrNoPostgres = errors.New("no initdb in /usr/lib/postgresql/*/bin or PATH (Debian: apt install postgresql)")

// Cluster is a private PostgreSQL that runs.
type Cluster struct {
	dir string // holds data, socket and log
	// The supervisor stops the cluster when this closes, which the kernel does for us.
	stdin      io.WriteCloser
	supervisor *exec.Cmd
}

// supervise runs PostgreSQL until standard input ends, ends and starts it as the lines there say, and leaves nothing
// behind. A shell does it, and not the test, so that it also happens when the test binary is killed.
const supervise = `
bin=$1; dir=$2; shift 2
start() {
	"$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c max_connections=200 "$@" >>"$dir/log" 2>&1 </dev/null &
}
start "$@"
while read -r what; do
	case $what in
	kill) kill -QUIT $!; wait $! ;;
	start) start "$@" ;;
	esac
done
kill -QUIT $!
wait $!
rm -rf "$dir"`

// binaries is where initdb and postgres are; empty when they are not on this machine.
var binaries = func() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	return ""
}

// StartCluster starts a cluster from the machine's own binaries, in a new folder below parent, with these settings. It
// ends with this process, however that ends, and leaves nothing behind. The error is ErrNoPostgres where there are no
// binaries.
func StartCluster(parent string, settings ...string) (*Cluster, error) {
	bin := binaries()
	if bin == "" {
		return nil, ErrNoPostgres
	}
	credential, err := postgresUser()
	if err != nil {
		return nil, err
	}
	// The path of a socket may have 107 bytes, and the user postgres must be able to go there.
	dir, err := os.MkdirTemp(parent, "shopbell-pg-")
	if err != nil {
		return nil, err
	}
	if credential != nil {
		if err := os.Chown(dir, int(credential.Uid), int(credential.Gid)); err != nil {
			return nil, err
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...) //nolint:noctx,gosec // it lives as long as the test binary; the programs are PostgreSQL's
		cmd.Dir = dir
		// A session of its own: Ctrl-C reaches the tests, and the supervisor cleans up after them.
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Setsid: true}
		return cmd
	}
	if out, err := command(filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "postgres",
		"--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync").CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w\n%s", err, out), os.RemoveAll(dir))
	}
	args := []string{"-c", supervise, "sh", bin, dir}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	supervisor := command("/bin/sh", args...)
	stdin, err := supervisor.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := supervisor.Start(); err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, stdin: stdin, supervisor: supervisor}
	return c, c.wait()
}

// postgresUser is who PostgreSQL runs as when we are root, which it refuses to be. nil is ourselves.
func postgresUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil is what SysProcAttr takes for "as we are"
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("find the user that PostgreSQL runs as: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// wait returns when the cluster answers.
func (c *Cluster) wait() error {
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = c.Exec("SELECT 1"); err == nil {
			return nil
		}
	}
	log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
	return fmt.Errorf("no answer in 2m: %w\n%s", err, log)
}

// DSN is the address of a database of the cluster.
func (c *Cluster) DSN(database string) string {
	return "host=" + c.dir + " user=postgres dbname=" + database
}

// Exec runs a statement in the database "postgres".
func (c *Cluster) Exec(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // the answer is there by then
	_, err = conn.Exec(ctx, statement)
	return err
}

// Kill ends the server at once, and keeps the folder.
func (c *Cluster) Kill() error {
	if _, err := io.WriteString(c.stdin, "kill\n"); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); c.Exec("SELECT 1") == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("it goes on a minute after it was told to end")
		}
	}
	return nil
}

// Start starts it again after Kill, and returns when it answers.
func (c *Cluster) Start() error {
	if _, err := io.WriteString(c.stdin, "start\n"); err != nil {
		return err
	}
	return c.wait()
}

// Stop ends the cluster and removes its folder.
func (c *Cluster) Stop() error { return errors.Join(c.stdin.Close(), c.supervisor.Wait()) }

// CPU is the processor time that the cluster used so far, for benchmarks. Zero where there is no /proc.
func (c *Cluster) CPU() time.Duration {
	pidFile, err := os.ReadFile(filepath.Join(c.dir, "data", "postmaster.pid"))
	if err != nil {
		return 0
	}
	postmaster, _, _ := strings.Cut(string(pidFile), "\n")
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var ticks int64
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		pid, rest, _ := strings.Cut(string(stat), " (")
		fields := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		// From the third on: state, parent, …; 11 and 12 from there are its own time, 13 and 14 that of ended children.
		if len(fields) > 14 && (pid == postmaster || fields[1] == postmaster) {
			for _, field := range fields[11:15] {
				n, _ := strconv.ParseInt(field, 10, 64)
				ticks += n
			}
		}
	}
	return time.Duration(ticks) * (time.Second / 100)
}
