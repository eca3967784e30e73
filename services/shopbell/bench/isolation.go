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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// trial is one scenario: a load on receivers that are well, and what else goes on.
type trial struct {
	name string
	// webhooks are the manners of the receivers, by number; only those that are well are measured.
	webhooks []manner
	policy   string                   // of all webhooks, as JSON
	rates    []rate                   // what is published
	at       map[time.Duration]string // what the bad receivers are told while it runs
	before   int                      // events that are held for each bad receiver when it begins
	settle   time.Duration            // how long after the load what it left is waited for
}

// rate is events published to the webhooks from first on, one after the other, so many a second.
type rate struct {
	first, webhooks int
	perSecond       int
	bad             bool // to receivers that are not well: in the run without them nobody wants these
	inOrder         bool // one request after the other
}

// isolation runs the scenarios and prints a table of each beside the same load without the bad receivers.
func isolation(args []string) (err error) {
	flags := flag.NewFlagSet(scenarios, flag.ContinueOnError)
	shopbell := flags.String("shopbell", "bin/shopbell", "the program under test")
	size := extentFlags(flags)
	only := flags.String("only", "", "the scenarios to run, such as 1,5; all when empty")
	profile := flags.String("cpuprofile", "", "run serve beside a profiler; it writes FILE-run-1-row-1.pb.gz, FILE-run-1-row-1-allocs.pb.gz and so on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || size.length < 5*time.Second || size.hooks < 100 || size.before < 1000 {
		return fmt.Errorf("%q: nothing but flags is taken, -length from 5s, -webhooks from 100, -waiting from 1000", args)
	}
	if _, err := exec.LookPath(*shopbell); err != nil {
		return fmt.Errorf("find the program under test (make build makes it): %w", err)
	}
	leaveTheCores()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "shopbell-isolation-")
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
	lab := &lab{program: *shopbell, profile: *profile, dir: dir, length: size.length, apart: size.apart}
	wanted := func(n int) bool { return *only == "" || slices.Contains(strings.Split(*only, ","), fmt.Sprint(n)) }
	fmt.Printf("Loads of %s, each beside the same load without the receivers that are not well, whose events nobody wants then, and beside the same with well ones\n"+
		"in their place; the p99 of the second that has the median one, and the most memory in each half of it.\n\n", size.length)
	fmt.Printf("%-64s %9s %9s %9s %9s %10s %10s %7s %9s %9s\n", "", "healthy/s", "p50", "p99", "p99.9", "a second's", "at the bad", "CPU", "1st half", "2nd half")
	for i, t := range trials(*size) {
		if !wanted(i + 1) {
			continue
		}
		if err := lab.compare(ctx, i+1, t, size.args()); err != nil {
			return fmt.Errorf("scenario %d: %w", i+1, err)
		}
	}
	if wanted(5) {
		if err := lab.outage(ctx); err != nil {
			return fmt.Errorf("scenario 5: %w", err)
		}
	}
	if wanted(6) {
		if err := lab.order(ctx); err != nil {
			return fmt.Errorf("scenario 6: %w", err)
		}
	}
	return nil
}

// extent is how large the scenarios are.
type extent struct {
	length        time.Duration
	hooks, before int
	apart         bool
}

func extentFlags(flags *flag.FlagSet) *extent {
	s := &extent{}
	flags.DurationVar(&s.length, "length", time.Minute, "length of each load")
	flags.IntVar(&s.hooks, "webhooks", 20_000, "number of webhooks of scenario 2")
	flags.IntVar(&s.before, "waiting", 50_000, "number of deliveries that wait for each bad receiver of scenario 3, in thousands")
	flags.BoolVar(&s.apart, "apart", false, "receivers that are dead or hang have an address of their own each, and not one together")
	return s
}

func (s *extent) args() []string {
	return []string{"-length", s.length.String(), "-webhooks", strconv.Itoa(s.hooks), "-waiting", strconv.Itoa(s.before), "-apart=" + strconv.FormatBool(s.apart)}
}

// trials are scenarios 1 to 4.
func trials(size extent) []trial {
	many := func(n int, m manner) []manner { return slices.Repeat([]manner{m}, n) }
	hooks, half := size.hooks, size.hooks/2
	return []trial{
		{
			name: "100 webhooks, 20 hang, 100 events/s", webhooks: slices.Concat(many(80, well), many(20, hangs)),
			policy: `{"timeout":"5s"}`, rates: []rate{{webhooks: 80, perSecond: 80}, {first: 80, webhooks: 20, perSecond: 20, bad: true}},
		},
		{
			name:     fmt.Sprintf("%d webhooks, half of them dead or hanging, 1,000 events/s, then well", hooks),
			webhooks: slices.Concat(many(half, well), many(half/2, dead), many(half-half/2, hangs)),
			policy:   `{"timeout":"5s"}`, rates: []rate{{webhooks: half, perSecond: 500}, {first: half, webhooks: half, perSecond: 500, bad: true}},
			at:     map[time.Duration]string{0: tellDie, size.length: tellMend},
			settle: 30 * time.Second,
		},
		{
			name:     fmt.Sprintf("tarpit, gzip bomb, black hole, one that cuts: %d held each, beside 1,000", size.before),
			webhooks: slices.Concat(many(1000, well), []manner{drips, bomb, silent, cuts}),
			policy:   `{"timeout":"5s"}`, rates: []rate{{webhooks: 1000, perSecond: 200}}, before: size.before,
		},
		{
			name: "one at 50 ms per answer with 2,000 events/s, beside others at 200 events/s", webhooks: slices.Concat(many(20, well), []manner{slow}),
			policy: `{"timeout":"5s"}`, rates: []rate{{webhooks: 20, perSecond: 200}, {first: 20, webhooks: 1, perSecond: 2000, bad: true}},
		},
	}
}

// lab is where trials are made.
type lab struct {
	program, profile, dir string
	length                time.Duration
	apart                 bool
	runs                  int
}

// cast says what the receivers of a run are that a trial has as not well.
type cast int

const (
	absent    cast = iota // what would go to them nobody wants
	wellToo               // as the others: what comes for them costs what it costs, and nothing goes wrong
	asTheyAre             // not well
)

// compare runs a trial without its bad receivers, with them, and, where something goes to them meanwhile, with well ones in their place.
func (l *lab) compare(ctx context.Context, number int, t trial, args []string) error {
	without, err := l.run(ctx, fmt.Sprintf("%d. without the bad", number), number, t, absent, args)
	if err != nil {
		return err
	}
	beside := func(what string, l *latency) string {
		times := func(with, without time.Duration) float64 { return float64(with) / float64(without) }
		return fmt.Sprintf("   %s to without: p50 %.2f, p99 %.2f, p99 of the median second %.2f", what, times(l.p50, without.p50), times(l.p99, without.p99),
			times(l.second, without.second))
	}
	with, err := l.run(ctx, fmt.Sprintf("%d. %s", number, t.name), number, t, asTheyAre, args)
	if err != nil {
		return err
	}
	fmt.Println(beside("with the bad", with) + " (the bar is 1.25)")
	if t.before == 0 {
		well, err := l.run(ctx, fmt.Sprintf("%d. the same, and all are well", number), number, t, wellToo, args)
		if err != nil {
			return err
		}
		fmt.Println(beside("with well ones in their place", well))
	}
	fmt.Println()
	return nil
}

// latency is how long deliveries took.
type latency struct {
	p50, p99, p999 time.Duration
	// second is the p99 of the second that has the median one: a machine that stands still now and then, whoever is at work on it, does not
	// change that.
	second time.Duration
}

func latencyOf(all []delivered) *latency {
	var whole, seconds []time.Duration
	bySecond := map[int64][]time.Duration{}
	for _, d := range all {
		whole = append(whole, d.after)
		bySecond[d.at.Unix()] = append(bySecond[d.at.Unix()], d.after)
	}
	for _, of := range bySecond {
		seconds = append(seconds, quantile(of, 0.99))
	}
	return &latency{quantile(whole, 0.5), quantile(whole, 0.99), quantile(whole, 0.999), quantile(seconds, 0.5)}
}

// open starts a serve and a site of its own.
func (l *lab) open(ctx context.Context, receivers int) (*serve, *site, error) {
	l.runs++
	profile := ""
	if l.profile != "" {
		profile = fmt.Sprintf("%s-run-%d", l.profile, l.runs)
	}
	s, err := startServe(ctx, l.program, filepath.Join(l.dir, fmt.Sprint(l.runs)), profile)
	if err != nil {
		return nil, nil, fmt.Errorf("start serve: %w", err)
	}
	where, err := startSite(ctx, receivers, false, nil)
	if err != nil {
		s.kill()
		return nil, nil, err
	}
	return s, where, nil
}

const place = "place" // the receivers' path

// shop is whose webhooks those are that are well, or not. They are of two shops: what comes of a shop in bursts may delay that
// shop's own events, and is not what is measured here.
func shop(bad bool) string {
	if bad {
		return "bad-place"
	}
	return place
}

func typeOf(webhook int) string { return fmt.Sprintf("to.%d", webhook) }

// register makes the webhooks: each wants the events of a type of its own. Those that are not well live at another site, or
// nowhere.
func register(ctx context.Context, s *serve, good, bad *site, manners []manner, policy string) error {
	return inParallel(ctx, len(manners), 16, func(ctx context.Context, i int) error {
		where := good
		if manners[i] != well {
			where = bad
		}
		if where == nil {
			return nil
		}
		_, err := where.register(ctx, s.url, shop(manners[i] != well), i, manners[i], policy)
		return err
	})
}

// run runs a trial once, prints its line, and gives how long the deliveries took to those that are well.
func (l *lab) run(ctx context.Context, title string, number int, t trial, who cast, args []string) (*latency, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, where, err := l.open(ctx, len(t.webhooks))
	if err != nil {
		return nil, err
	}
	defer s.kill()
	n, others, err := startNeighbour(ctx, number, args, s.url)
	if err != nil {
		return nil, err
	}
	defer n.end()
	others.apart = l.apart
	if who == absent {
		others = nil
	}
	if err := register(ctx, s, where, others, t.webhooks, t.policy); err != nil {
		return nil, err
	}
	if who == asTheyAre && t.before > 0 {
		if err := l.hold(ctx, s, n, t); err != nil {
			return nil, err
		}
	}
	s.forgetPeak()
	cpu, err := s.cpu()
	if err != nil {
		return nil, err
	}
	s.profiling(profileOn)
	began := time.Now()
	var publishing errgroup.Group
	switch who {
	case wellToo:
		_, err = n.tell(ctx, tellWell)
	case asTheyAre:
		for at, what := range t.at {
			tell := func() error { _, err := n.tell(ctx, what); return err }
			if at == 0 {
				err = tell()
			} else {
				defer time.AfterFunc(at, func() { _ = tell() }).Stop() // if it fails, the table says so
			}
		}
	}
	if err == nil {
		_, err = n.tell(ctx, tellPour)
	}
	if err != nil {
		return nil, err
	}
	p, published := publisher(s.url), make([]int, len(t.rates))
	for i, r := range t.rates {
		if !r.bad {
			publishing.Go(func() (err error) {
				published[i], err = pour(ctx, p, r, l.length)
				return err
			})
		}
	}
	var early int // the peak of the first half, and then that of the second
	publishing.Go(func() (err error) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(l.length / 2):
		}
		early, err = s.peak()
		s.forgetPeak()
		return err
	})
	if err := publishing.Wait(); err != nil {
		return nil, err
	}
	if err := n.poured(ctx); err != nil {
		return nil, err
	}
	took := time.Since(began)
	after, err := s.cpu()
	if err != nil {
		return nil, err
	}
	s.profiling(profileOff)
	wanted := 0
	for _, n := range published {
		wanted += n
	}
	missing := where.missing(ctx, t.webhooks, func(m manner) bool { return m == well }, wanted, 20*time.Second)
	var all []delivered
	for i, m := range t.webhooks {
		if m == well {
			p := where.spot(place, i)
			p.mu.Lock()
			all = append(all, p.took...)
			p.mu.Unlock()
		}
	}
	seen, err := n.tell(ctx, tellCount)
	if err != nil {
		return nil, err
	}
	late, err := s.peak()
	if err != nil {
		return nil, err
	}
	of := latencyOf(all)
	fmt.Printf("%-64.64s %9.1f %9s %9s %9s %10s %10d %5.1f s %5d MiB %5d MiB\n", title, float64(len(all))/took.Seconds(), of.p50, of.p99, of.p999, of.second, seen.Requests, (after - cpu).Seconds(), early>>20, late>>20)
	if missing > 0 {
		fmt.Printf("   %d deliveries to receivers that are well did not arrive\n", missing)
	}
	if who == asTheyAre && t.settle > 0 {
		err = l.settle(ctx, n, t, seen.Published)
	}
	return of, err
}

// settle waits for what was published to receivers that have become well, and prints what had come of it.
func (l *lab) settle(ctx context.Context, n *neighbour, t trial, published int) error {
	since := time.Now()
	for {
		seen, err := n.tell(ctx, tellCount)
		if err != nil {
			return err
		}
		if left := published - seen.Arrived; left == 0 || time.Since(since) > t.settle {
			fmt.Printf("   of %d events for the bad %d had not arrived %s after they were well again; it took %.1fs\n", published, left, t.settle, time.Since(since).Seconds())
			return nil
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// hold publishes what is to wait for the bad receivers while they answer 503, and waits until it is held. Then they become
// what they are: those that answer at all get their backlog from the next probe on, beside the load.
func (l *lab) hold(ctx context.Context, s *serve, n *neighbour, t trial) error {
	if _, err := n.tell(ctx, tellRefuse); err != nil {
		return err
	}
	for i, m := range t.webhooks {
		if m == well {
			continue
		}
		if err := flood(ctx, publisher(s.url), i, t.before); err != nil {
			return err
		}
	}
	const probes = 50 // and what they write, beside which nothing more happens; two seconds without more are taken for the end
	last := 0.0
	for since := time.Now(); time.Since(since) < 2*time.Second; time.Sleep(100 * time.Millisecond) { // between two looks
		held, err := s.counted(ctx, "shopbell_deliveries_held_total")
		if err != nil {
			return err
		}
		if written, err := s.written(ctx); err != nil {
			return err
		} else if held += written; held > last+probes {
			last, since = held, time.Now()
		}
	}
	_, err := n.tell(ctx, tellBegin)
	return err
}

// missing waits until as many deliveries as wanted have come to the receivers of some manners, and says how many have not.
func (s *site) missing(ctx context.Context, manners []manner, which func(manner) bool, wanted int, patience time.Duration) int {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // between two looks
		n := 0
		for i, m := range manners {
			if which(m) {
				p := s.spot(place, i)
				p.mu.Lock()
				n += len(p.took)
				p.mu.Unlock()
			}
		}
		if n >= wanted || time.Now().After(deadline) || ctx.Err() != nil {
			return wanted - n
		}
	}
}

// flood publishes events for one webhook as fast as it goes.
func flood(ctx context.Context, p publisher, webhook, events int) error {
	return inParallel(ctx, events/1000, 2, func(ctx context.Context, batch int) error {
		var text strings.Builder
		for i := range 1000 {
			text.WriteString(keyedText(typeOf(webhook), i, -1-batch*1000-i, time.Now()) + "\n")
		}
		return p.publish(ctx, shop(true), "application/x-ndjson", text.String(), 1000)
	})
}

// pour publishes at a rate: each event by itself, or in batches of a tenth of a second when they are more than 500 a second.
func pour(ctx context.Context, p publisher, r rate, length time.Duration) (published int, err error) {
	tick := time.Second / time.Duration(r.perSecond)
	if r.perSecond > 500 {
		tick = 100 * time.Millisecond
	}
	var requests errgroup.Group
	requests.SetLimit(64)
	if r.inOrder {
		requests.SetLimit(1)
	}
	began := time.Now()
	for at := time.Duration(0); at < length && ctx.Err() == nil; at += tick {
		time.Sleep(time.Until(began.Add(at))) // the load has its rate, however long a request takes
		due := int(float64(r.perSecond)*(at+tick).Seconds() + 0.5)
		var text strings.Builder
		n := 0
		for ; published < due; published++ {
			webhook := r.first + published%r.webhooks
			text.WriteString(keyedText(typeOf(webhook), published, published, time.Now()) + "\n")
			n++
		}
		if n > 0 {
			requests.Go(func() error { return p.publish(ctx, shop(r.bad), "application/x-ndjson", text.String(), n) })
		}
	}
	return published, requests.Wait()
}
