package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is a program that a test started, or is about to.
type process struct {
	name  string
	path  string
	args  []string
	env   []string
	ready string // answers 200 once it can take work
	// codes are what it may end with when it is told to stop; none: 0.
	codes []int
	// stopWithin is how long it may take to stop.
	stopWithin time.Duration

	log    string // where it writes
	cmd    *exec.Cmd
	exited chan struct{}
}

// begin starts the program without waiting until it is ready.
func (p *process) begin(t testing.TB) {
	t.Helper()
	if p.running() {
		t.Fatalf("%s runs already", p.name)
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("open the log of %s: %v", p.name, err)
	}
	defer func() { _ = out.Close() }()
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.env, filepath.Dir(p.log), out, out
	p.cmd.SysProcAttr = diesWithUs()
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	p.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // how it ended is in its ProcessState
		close(exited)
	}(p.cmd, p.exited)
}

// awaitReady returns when the program can take work.
func (p *process) awaitReady(t testing.TB) {
	t.Helper()
	eventually(t, p.name+" is ready", func() error {
		if !p.running() {
			return fatal{fmt.Errorf("it ended with %s", p.cmd.ProcessState)}
		}
		resp, err := quick.Get(p.ready)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %d %s", resp.StatusCode, text)
		}
		return nil
	})
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill ends the program at once, without any chance to do something about it.
func (p *process) kill(t testing.TB) {
	t.Helper()
	if !p.running() {
		t.Fatalf("%s is to be killed, and does not run", p.name)
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// stop tells the program to stop, and fails the test unless it does so soon and with a good code.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if !p.running() {
		t.Errorf("%s is to stop, and ended by itself before (%s)", p.name, p.cmd.ProcessState)
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(p.stopWithin):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // Go then writes what all goroutines are doing
		select {
		case <-p.exited:
		case <-time.After(5 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
		t.Errorf("%s did not stop within %s of being told to", p.name, p.stopWithin)
		return
	}
	code := p.cmd.ProcessState.ExitCode()
	for _, good := range append(p.codes, 0) {
		if code == good {
			return
		}
	}
	t.Errorf("%s stopped with code %d (%s), want 0", p.name, code, p.cmd.ProcessState)
}

// pause has the program do nothing until resume: it is there, and does not answer.
func (p *process) pause()  { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) resume() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

// tail is the end of what the program wrote.
func (p *process) tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	if cut := len(all) - lines; cut > 0 {
		all = append([]string{fmt.Sprintf("… %d lines before", cut)}, all[cut:]...)
	}
	return strings.Join(all, "\n")
}

// raced says whether the race detector found something in the program.
func (p *process) raced() bool {
	text, _ := os.ReadFile(p.log)
	return bytes.Contains(text, []byte("DATA RACE"))
}

// quick is for questions whose answer, if there is one, comes at once.
var quick = &http.Client{Timeout: slack, Transport: &http.Transport{DisableKeepAlives: true}}

// fatal is an error that waiting does not mend.
type fatal struct{ error }

// patience is how long is waited for what is so sooner or later, or never: longer than it takes until what a killed process had
// taken is handed out again, however busy the machine is.
const patience = 2 * time.Minute

// slack is how much longer than it should something may take on a machine that has others at work.
const slack = 10 * time.Second

// eventually waits until a fact is there: until is nil is what check answers. What never is ends the test, with what was
// missing last.
func eventually(t testing.TB, fact string, check func() error) {
	t.Helper()
	within(t, patience, fact, check)
}

// within is eventually for what may take longer by itself.
func within(t testing.TB, most time.Duration, fact string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(most)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if errors.As(err, &fatal{}) || time.Now().After(deadline) {
			t.Fatalf("%s: not so within %s: %v", fact, most, err)
		}
		time.Sleep(wait)
	}
}

// ports are below those that the kernel gives to outgoing connections: a process that is started again finds its own
// still free.
var nextPort atomic.Int64

func init() { nextPort.Store(int64(os.Getpid()) * 61 % 10_000) }

// freeAddress is an address on this machine at which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 10_000 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+nextPort.Add(1)%12_000)
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}
