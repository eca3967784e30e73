package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"shopbell.dev/pkg/contract"
)

// waiting measures what deliveries cost that wait for their time: memory, disk, the time until a serve is ready again after a
// stop and after a kill, and what they cost the deliveries that do not wait.
func waiting(args []string) (err error) {
	flags := flag.NewFlagSet("waiting", flag.ContinueOnError)
	shopbell := flags.String("shopbell", "bin/shopbell", "the program under test")
	n := flags.Int("deliveries", 1_000_000, "number of deliveries that wait")
	live := flags.Int("live", 20_000, "number of deliveries that do not wait, of each row")
	profile := flags.String("cpuprofile", "", "run serve beside a profiler; it writes FILE-1-row-1.pb.gz, FILE-1-row-1-allocs.pb.gz and so on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *n < perEvent*batchSize || *live < 1000 {
		return fmt.Errorf("%q: nothing but flags is taken, -deliveries from %d, -live from 1000", args, perEvent*batchSize)
	}
	if _, err := exec.LookPath(*shopbell); err != nil {
		return fmt.Errorf("find the program under test (make build makes it): %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "shopbell-waiting-")
	if err != nil {
		return fmt.Errorf("make a folder for the data: %w", err)
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\n(data and serve's log are left in %s)", err, dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	rc, err := startReceiver(ctx)
	if err != nil {
		return err
	}
	w := &waitingRoom{program: *shopbell, dir: dir, receiver: rc, live: *live, profile: *profile}
	return w.measure(ctx, *n)
}

// perEvent is how many webhooks wait for each event.
const perEvent = 50

// waitingRoom is a serve in which deliveries wait.
type waitingRoom struct {
	program, dir string
	receiver     *receiver
	live, shops  int
	profile      string // prefix of its files; empty: none
	starts       int
	serve        *serve
}

func (w *waitingRoom) measure(ctx context.Context, n int) error {
	fmt.Printf("%-34s %10s %10s %10s %10s %14s\n", "", "ready in", "memory", "bus", "log", "CPU-s per 1000")
	if err := w.start(ctx, "nothing waits"); err != nil {
		return err
	}
	defer func() { w.serve.kill() }()
	began := time.Now()
	cpu, err := w.fill(ctx, n)
	if err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	fmt.Printf("%d deliveries were made to wait in %s, with %.3f CPU-s per 1000\n", n, time.Since(began).Round(time.Second), cpu.Seconds()*1000/float64(n))
	// What it costs to tell repeats of those that were just made is not what it costs that they wait.
	for _, stream := range contract.Streams(contract.DefaultOptions()) {
		if stream.Name == contract.Later {
			fmt.Fprintf(os.Stderr, "bench: waiting for %s, until the bus has forgotten their messages' ids …\n", stream.Duplicates)
			time.Sleep(stream.Duplicates + 5*time.Second)
		}
	}
	if err := w.row(ctx, fmt.Sprintf("%d wait", n), 0); err != nil {
		return err
	}
	if err := w.serve.stop(); err != nil {
		return err
	}
	if err := w.start(ctx, "after a stop"); err != nil {
		return err
	}
	w.serve.kill()
	return w.start(ctx, "after kill -9")
}

// start starts the serve, and prints a row of it.
func (w *waitingRoom) start(ctx context.Context, name string) (err error) {
	profile := ""
	if w.starts++; w.profile != "" {
		profile = fmt.Sprintf("%s-%d", w.profile, w.starts)
	}
	began := time.Now()
	if w.serve, err = startServe(ctx, w.program, w.dir, profile); err != nil {
		return fmt.Errorf("start serve: %w", err)
	}
	return w.row(ctx, name, time.Since(began))
}

// row measures deliveries that do not wait, and prints what the serve takes.
func (w *waitingRoom) row(ctx context.Context, name string, ready time.Duration) error {
	m := &meter{serve: w.serve, receiver: w.receiver, publisher: publisher(w.serve.url), fan: 1, rules: rules{Profile: "standard"}}
	if _, _, err := m.awaitLog(ctx); err != nil {
		return err
	}
	kib, err := w.serve.resident()
	if err != nil {
		return err
	}
	bus, log := size(filepath.Join(w.dir, "data"), "log.db")
	w.shops++
	m.serve.profiling(profileOn)
	r, err := m.run(ctx, load{singles, w.live, func(ctx context.Context, shop string, n int) (time.Duration, error) {
		return 0, m.publisher.singles(ctx, shop, n, 32)
	}}, fmt.Sprintf("live-%d", w.shops), w.live)
	if err != nil {
		return fmt.Errorf("%s: live deliveries: %w", name, err)
	}
	since := "-"
	if ready > 0 {
		since = fmt.Sprintf("%.1f s", ready.Seconds())
	}
	fmt.Printf("%-34s %10s %10s %10s %10s %14.3f\n", name, since, mib(kib), mib(bus), mib(log), r.perThousand())
	return nil
}

func mib(bytes int) string { return fmt.Sprintf("%d MiB", bytes>>20) }

// fill has deliveries wait for three days, and returns when the log has all of them, with the CPU time that it took.
func (w *waitingRoom) fill(ctx context.Context, n int) (time.Duration, error) {
	p := publisher(w.serve.url)
	before, err := w.serve.cpu()
	if err != nil {
		return 0, err
	}
	for i := range perEvent {
		text := fmt.Sprintf(`{"url": "%s/late/%d", "events": ["*"], "delay": {"value": 3, "unit": "day"}}`, w.receiver.url, i)
		if _, err := do(ctx, http.MethodPost, string(p)+"/v1/shops/late/webhooks", http.Header{"Content-Type": {"application/json"}}, text, http.StatusOK); err != nil {
			return 0, fmt.Errorf("register a webhook: %w", err)
		}
	}
	if err := p.batches(ctx, "late", n/perEvent); err != nil {
		return 0, err
	}
	var counted struct {
		Total struct{ Deliveries, Attempts float64 }
	}
	for seen, since := 0.0, time.Now(); ; time.Sleep(time.Second) { // between two looks
		if err := getJSON(ctx, w.serve.url+"/v1/shops/late/stats", &counted); err != nil {
			return 0, err
		}
		switch got := counted.Total.Deliveries; {
		case counted.Total.Attempts > 0:
			return 0, errors.New("a delivery that should wait was attempted")
		case int(got) == n/perEvent*perEvent:
			after, err := w.serve.cpu()
			return after - before, err
		case got > seen:
			seen, since = got, time.Now()
		case time.Since(since) > patience:
			return 0, fmt.Errorf("%v of %d deliveries wait, and none more came in %s", got, n, patience)
		}
	}
}

// size is what the log's files in a folder take, and what all others do, in bytes.
func size(dir, logName string) (others, log int) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // what goes while we look is not counted
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // see above
		}
		if info, err := d.Info(); err == nil {
			if strings.HasPrefix(d.Name(), logName) {
				log += int(info.Size())
			} else {
				others += int(info.Size())
			}
		}
		return nil
	})
	return others, log
}
