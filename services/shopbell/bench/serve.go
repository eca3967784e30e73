package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// serve is the program under test: `shopbell serve` with its defaults, in a process and a data folder of its own.
type serve struct {
	url      string // of its REST edge
	log      string // the file that it logs to
	child    *exec.Cmd
	gone     chan struct{} // closed when it has ended
	err      error         // what it ended with; may be read when gone is closed
	profiled bool
}

// startServe starts the program and returns once it is ready. With a profile, a prefix of files, it runs inside of this
// program, with a profiler beside it.
func startServe(ctx context.Context, program, dir, profile string) (*serve, error) {
	args := []string{"serve", "--data", filepath.Join(dir, "data"), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--allow-private-addresses"}
	c := exec.CommandContext(ctx, program, args...) //nolint:gosec // the program that -shopbell names
	if profile != "" {
		c = child(ctx, append([]string{"serve", profile}, args...)...)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	s := &serve{log: filepath.Join(dir, "serve.log"), child: c, gone: make(chan struct{}), profiled: profile != ""}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

// start starts the process, and returns once it says where its REST edge is.
func (s *serve) start() error {
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	s.child.Stdout, s.child.Stderr = log, log
	err = s.child.Start()
	_ = log.Close() // the child has its own
	if err != nil {
		return err
	}
	go func() { s.err = s.child.Wait(); close(s.gone) }()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(s.log)
		if err != nil {
			return err
		}
		if _, rest, ok := strings.Cut(string(text), " rest="); ok {
			if s.url, _, ok = strings.Cut(rest, " "); ok {
				return nil
			}
		}
		if err := s.ended(); err != nil {
			return fmt.Errorf("%w, and said:\n%s", err, text)
		}
	}
	s.kill()
	return errors.New("it is not ready after 30s")
}

// ended is an error when the program has ended, which it should not by itself.
func (s *serve) ended() error {
	select {
	case <-s.gone:
		return fmt.Errorf("serve has ended: %w", s.err)
	default:
		return nil
	}
}

// stop ends the program in order.
func (s *serve) stop() error {
	_ = s.child.Process.Signal(syscall.SIGTERM) // one that is gone is noticed below
	select {
	case <-s.gone:
	case <-time.After(30 * time.Second):
		return errors.New("serve was asked to stop, and still runs after 30s")
	}
	if s.err != nil {
		return fmt.Errorf("serve was asked to stop, and ended with: %w", s.err)
	}
	return nil
}

// kill ends the program at once. It may be called after stop.
func (s *serve) kill() {
	_ = s.child.Process.Kill()
	<-s.gone
}

// profiling switches the profiler on or off, if there is one.
func (s *serve) profiling(sig os.Signal) {
	if s.profiled {
		_ = s.child.Process.Signal(sig)
		if sig == profileOff {
			time.Sleep(time.Second) // it writes its files
		}
	}
}

// The signals that the profiler heeds.
const (
	profileOn  = syscall.SIGUSR1
	profileOff = syscall.SIGUSR2
)

// cpu is the time that the program has used so far, user and system, in the ticks of proc(5), which are 10 ms.
func (s *serve) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.child.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read serve's CPU time: %w", err)
	}
	var state string
	var skip, user, system int64
	_, err = fmt.Sscan(string(text[bytes.LastIndexByte(text, ')')+1:]), // from field 3 on; the name before may have blanks
		&state, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system)
	return time.Duration(user+system) * 10 * time.Millisecond, err
}

// forgetPeak has the kernel measure the peak of memory anew (proc(5), clear_refs). Where it cannot, the peak is that
// since the start.
func (s *serve) forgetPeak() {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.child.Process.Pid), []byte("5"), 0)
}

// peak is the most memory that the program had (VmHWM), in bytes.
func (s *serve) peak() (kib int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.child.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read serve's memory: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	_, err = fmt.Sscan(rest, &kib)
	return kib << 10, err
}

// written is how many messages the log has written, of all streams.
func (s *serve) written(ctx context.Context) (float64, error) {
	return s.counted(ctx, "shopbell_log_written_total")
}

// counted is what a counter of the program's metrics says, of all labels.
func (s *serve) counted(ctx context.Context, counter string) (total float64, err error) {
	text, err := do(ctx, http.MethodGet, s.url+"/metrics", http.Header{}, "", http.StatusOK)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, " "); strings.HasPrefix(name, counter) {
			var n float64
			if _, err := fmt.Sscan(value, &n); err != nil {
				return 0, fmt.Errorf("read serve's metrics: %w", err)
			}
			total += n
		}
	}
	return total, nil
}

// complaints are the lines of the program's log that are warnings, errors, or no log lines.
func (s *serve) complaints() (lines []string, err error) {
	text, err := os.ReadFile(s.log)
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, " level=WARN ") || strings.Contains(line, " level=ERROR ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines, err
}

// resident is the memory that the program has now (VmRSS), in bytes.
func (s *serve) resident() (kib int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.child.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read serve's memory: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	_, err = fmt.Sscan(rest, &kib)
	return kib << 10, err
}
