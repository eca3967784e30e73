package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bars that we hold ourselves to: CPU-seconds for 1,000 deliveries by fan-out, and the latency that half of them stay under.
var cpuBars = map[int]float64{1: 0.15, 10: 0.10}

const latencyBar = 3 * time.Millisecond

// report gathers what is printed in the end.
type report struct {
	plan  plan
	where string // and in what state
	rows  []row
	notes []string
}

func newReport(p plan, dir string) *report {
	load, _ := os.ReadFile("/proc/loadavg")
	return &report{plan: p, where: fmt.Sprintf("%d cores, %s/%s, %s, load before %.4s, data in %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), load, dir)}
}

// complaints notes what the program under test complained of.
func (o *report) complaints(s *serve) error {
	lines, err := s.complaints()
	if len(lines) > 0 {
		o.notes = append(o.notes, fmt.Sprintf("serve logged %d warnings or errors, the first: %.300s", len(lines), lines[0]))
	}
	return err
}

func (o *report) print() {
	if rules := o.plan.rules; rules.Profile != "standard" || rules.Signatures != nil {
		o.notes = append(o.notes, fmt.Sprintf("the webhooks have profile %s and signatures %s, the bare POSTs have those of standard", rules.Profile, cmp.Or(strings.Join(rules.Signatures, ", "), "as it has")))
	}
	fmt.Printf("\nShopbell on %s\n\n%-34s %10s %10s %12s %10s %10s %9s\n", o.where, "", "deliveries", "per second", "CPU-s/1,000", "p50", "p99", "peak")
	for _, r := range o.rows {
		title, peak := fmt.Sprintf("fan-out %2d, %s", r.fan, r.kind), fmt.Sprintf("%d MiB", r.peak>>20)
		switch r.kind {
		case bare:
			title, peak = bare, "-"
		case steady:
			title += fmt.Sprintf(" %d events/s", o.plan.rate)
		}
		fmt.Printf("%-34s %10s %10s %12.3f %10s %10s %9s\n", title, thousands(r.deliveries), thousands(int(r.perSecond())),
			r.perThousand(), quantile(r.latency, 0.5), quantile(r.latency, 0.99), peak)
		if r.repeats > 0 {
			o.notes = append(o.notes, fmt.Sprintf("%s: %d requests were repeats of a delivery that had arrived", title, r.repeats))
		}
	}
	o.printBars()
	o.explain()
	for _, note := range o.notes {
		fmt.Println("Note: " + note)
	}
}

func (o *report) printBars() {
	limit := o.rows[0]
	fmt.Printf("\n%-34s %10s %10s %12s %10s\n", "against the bars", "bar", "measured", "met", "to bare")
	for _, r := range o.rows {
		switch p50 := quantile(r.latency, 0.5); r.kind {
		case singles:
			fmt.Printf("%-34s %10.3f %10.3f %12s %9.1fx\n", fmt.Sprintf("CPU-s/1,000, fan-out %d", r.fan), cpuBars[r.fan], r.perThousand(),
				yes(r.perThousand() <= cpuBars[r.fan]), r.perThousand()/limit.perThousand())
			fmt.Printf("%-34s %10s %10s %12s %9.2fx\n", fmt.Sprintf("deliveries/s, fan-out %d", r.fan), "-", thousands(int(r.perSecond())), "-", r.perSecond()/limit.perSecond())
		case steady:
			fmt.Printf("%-34s %10s %10s %12s %10s\n", fmt.Sprintf("p50 at %d events/s, fan-out %d", o.plan.rate, r.fan), latencyBar, p50, yes(p50 < latencyBar), "-")
		}
	}
}

// explain says how the numbers came about.
func (o *report) explain() {
	var late time.Duration
	for _, r := range o.rows {
		late = max(late, r.late)
	}
	fmt.Printf(`
How it is counted. Bodies have %d bytes, and the receiver answers 200 at once. Single events are published
with %d requests at once, batches with %d, steady ones each at its own time. CPU is that of the whole process of
"shopbell serve" with its defaults, bus and log inside, from the first publish until the log has written
everything; of the bare POSTs it is that of their client's process. Receiver and publisher have the same
cores, and are not counted. p50 and p99 go from publish to the receiver (at full speed that is mostly waiting
in line); in the steady rows from the time that was due, after which the publisher began at most %s late.
Peak is VmHWM of serve during the row. Every accepted event arrived at each of its webhooks and is in the
log: counted by the receiver, and read back over REST.
`, o.rows[len(o.rows)-1].body, o.plan.concurrency, batchesAtOnce, late.Round(100*time.Microsecond))
}

// quantile is the time that a share of all do not exceed.
func quantile(all []time.Duration, share float64) time.Duration {
	slices.Sort(all)
	return all[int(share*float64(len(all)-1))].Round(10 * time.Microsecond)
}

func yes(met bool) string {
	if met {
		return "yes"
	}
	return "NO"
}

func thousands(n int) string {
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return strings.TrimSpace(text)
}
