// Command bench measures Shopbell on the machine it runs on: what a bare signed POST costs, what the whole way from
// publish to an answered delivery with the log written costs beside it, and how the two compare. It prints one table,
// and fails when an event that was accepted did not arrive or is not in the log.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// children are what bench starts of itself in processes of their own, so that their CPU time can be told from its own.
var children = map[string]func(args []string) error{"bare": postBare, neighbourWord: beNeighbour, "serve": serveProfiled, "others": serveOthers, "sender": serveSender}

// scenarios is the word with which bench measures what bad receivers do to others.
const scenarios = "isolation"

// others are what bench measures when it is called with a word.
var others = map[string]func(args []string) error{scenarios: isolation, "kills": kills, "many": many, "replay": replay, "waiting": waiting, "wide": wide}

func main() {
	run := bench
	if len(os.Args) > 1 && others[os.Args[1]] != nil {
		run = func() error { return others[os.Args[1]](os.Args[2:]) }
	}
	if len(os.Args) > 1 && children[os.Args[1]] != nil {
		run = func() error { return children[os.Args[1]](os.Args[2:]) }
	}
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// child makes the command that runs one of the children; it is killed when ctx ends.
func child(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "/proc/self/exe", args...) //nolint:gosec // this very program
	c.Stderr = os.Stderr
	return c
}

// plan is how much is measured, and how.
type plan struct {
	shopbell    string
	posts       int // of the bare limit
	deliveries  int // of each row at full speed, whatever its fan-out
	rate        int // events a second of the steady rows
	steady      time.Duration
	concurrency int
	cpuprofile  string
	rules       rules
}

func parsePlan() (plan, error) {
	var p plan
	quick := flag.Bool("quick", false, "measure little: says whether it works, not how fast it is")
	flag.StringVar(&p.shopbell, "shopbell", "bin/shopbell", "the program under test")
	flag.IntVar(&p.posts, "posts", 200_000, "number of bare POSTs")
	flag.IntVar(&p.deliveries, "deliveries", 50_000, "number of deliveries of each row at full speed")
	flag.IntVar(&p.rate, "rate", 200, "events per second of the steady rows")
	flag.DurationVar(&p.steady, "steady", 30*time.Second, "length of the steady rows")
	flag.IntVar(&p.concurrency, "concurrency", 32, "requests under way at once, of the bare client and of the publisher")
	flag.StringVar(&p.cpuprofile, "cpuprofile", "", "run serve beside a profiler; it writes FILE-fanout-1-row-1.pb.gz, FILE-fanout-1-row-1-allocs.pb.gz and so on")
	flag.StringVar(&p.rules.Profile, "profile", "standard", "profile of the webhooks; shoprocket signs twice")
	flag.Func("signatures", "how requests are signed in place of the profile's, such as standard-webhooks,standard-webhooks-ed25519", func(list string) error {
		p.rules.Signatures = strings.Split(list, ",")
		return nil
	})
	flag.Parse()
	if *quick {
		p.posts, p.deliveries, p.steady = 20_000, 3000, 2*time.Second
	}
	if flag.NArg() > 0 || p.posts < 100 || p.deliveries < 1000 || p.rate < 1 || p.steady < time.Second || p.concurrency < 1 {
		return p, fmt.Errorf("%q: nothing but flags is taken, -posts from 100, -deliveries from 1000, -rate and -concurrency from 1, -steady from 1s", os.Args[1:])
	}
	return p, nil
}

// bench measures all rows and prints them.
func bench() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := parsePlan()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath(p.shopbell); err != nil {
		return fmt.Errorf("find the program under test (make build makes it): %w", err)
	}
	dir, err := os.MkdirTemp("", "shopbell-bench-")
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
	out := newReport(p, dir)
	r, err := measureBare(ctx, p, rc)
	if err != nil {
		return fmt.Errorf("bare POSTs: %w", err)
	}
	out.rows = append(out.rows, r)
	for _, fan := range []int{1, 10} {
		if err := benchFanOut(ctx, p, rc, fan, filepath.Join(dir, fmt.Sprintf("fanout-%d", fan)), out); err != nil {
			return fmt.Errorf("fan-out %d: %w", fan, err)
		}
	}
	out.print()
	return nil
}

// benchFanOut measures the rows of one fan-out, on a serve of its own with an empty data folder.
func benchFanOut(ctx context.Context, p plan, rc *receiver, fan int, dir string, out *report) error {
	profile := ""
	if p.cpuprofile != "" {
		profile = fmt.Sprintf("%s-fanout-%d", p.cpuprofile, fan)
	}
	s, err := startServe(ctx, p.shopbell, dir, profile)
	if err != nil {
		return fmt.Errorf("start serve: %w", err)
	}
	defer s.kill()
	m := &meter{serve: s, receiver: rc, publisher: publisher(s.url), fan: fan, rules: p.rules}
	for _, l := range []load{
		{singles, p.deliveries / fan, func(ctx context.Context, shop string, n int) (time.Duration, error) {
			return 0, m.publisher.singles(ctx, shop, n, p.concurrency)
		}},
		{batches, p.deliveries / fan, func(ctx context.Context, shop string, n int) (time.Duration, error) {
			return 0, m.publisher.batches(ctx, shop, n)
		}},
		{steady, int(p.steady.Seconds() * float64(p.rate)), func(ctx context.Context, shop string, n int) (time.Duration, error) {
			return m.publisher.steady(ctx, shop, n, p.rate)
		}},
	} {
		fmt.Fprintf(os.Stderr, "bench: fan-out %d, %s …\n", fan, l.kind)
		r, err := m.measure(ctx, l)
		if err != nil {
			return fmt.Errorf("%s: %w", l.kind, errors.Join(err, s.ended()))
		}
		out.rows = append(out.rows, r)
	}
	if err := s.stop(); err != nil {
		return err
	}
	return out.complaints(s)
}
