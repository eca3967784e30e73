package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// many measures what a delivery costs by the number of webhooks: the same load goes to one, to some and to very many, each
// of which wants the events of a type of its own, so that every event goes to one of them. Then it goes to the same ones
// again: the first delivery to a webhook makes what the log and the bus keep of each webhook and type.
func many(args []string) (err error) {
	flags := flag.NewFlagSet("many", flag.ContinueOnError)
	shopbell := flags.String("shopbell", "bin/shopbell", "the program under test")
	numbers := flags.String("webhooks", "1,1000,100000", "numbers of webhooks, a row for each")
	deliveries := flags.Int("deliveries", 20_000, "number of deliveries of each row")
	profile := flags.String("cpuprofile", "", "run serve beside a profiler; it writes FILE-1-row-1.pb.gz, FILE-1-row-1-allocs.pb.gz and so on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *deliveries < 1000 {
		return fmt.Errorf("%q: nothing but flags is taken, -deliveries from 1000", args)
	}
	if _, err := exec.LookPath(*shopbell); err != nil {
		return fmt.Errorf("find the program under test (make build makes it): %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "shopbell-many-")
	if err != nil {
		return fmt.Errorf("make a folder for the data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rc, err := startReceiver(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%-12s %18s %10s %10s %10s %10s\n", "webhooks", "CPU-s/1,000: first", "again", "p50", "before", "at most")
	for text := range strings.SplitSeq(*numbers, ",") {
		webhooks, err := strconv.Atoi(text)
		if err != nil || webhooks < 1 {
			return fmt.Errorf("-webhooks: %q is not a number from 1", text)
		}
		prefix := ""
		if *profile != "" {
			prefix = *profile + "-" + text
		}
		if err := manyOf(ctx, *shopbell, filepath.Join(dir, text), prefix, rc, webhooks, *deliveries); err != nil {
			return fmt.Errorf("%d webhooks: %w", webhooks, err)
		}
	}
	return nil
}

func manyOf(ctx context.Context, program, dir, profile string, rc *receiver, webhooks, deliveries int) error {
	s, err := startServe(ctx, program, dir, profile)
	if err != nil {
		return fmt.Errorf("start serve: %w", err)
	}
	defer s.kill()
	shop := fmt.Sprintf("many-%d", webhooks)
	if err := inParallel(ctx, webhooks, 32, func(ctx context.Context, i int) error {
		text := fmt.Sprintf(`{"url": "%s/%s/%d", "events": [%q], "profile": "standard"}`, rc.url, shop, i, typeOf(i))
		_, err := do(ctx, http.MethodPost, s.url+"/v1/shops/"+shop+"/webhooks", http.Header{"Content-Type": {"application/json"}}, text, http.StatusOK)
		return err
	}); err != nil {
		return fmt.Errorf("register webhooks: %w", err)
	}
	m := &meter{serve: s, receiver: rc, publisher: publisher(s.url), fan: 1, rules: rules{Profile: "standard"}}
	spread := load{kind: singles, send: func(ctx context.Context, shop string, n int) (time.Duration, error) {
		first := max(0, n-deliveries) // those before it were sent by the run before
		return 0, inParallel(ctx, n-first, 32, func(ctx context.Context, i int) error {
			return m.publisher.publish(ctx, shop, "application/json", typedText(typeOf(i*7919%webhooks), first+i, time.Now()), 1)
		})
	}}
	if _, err := m.run(ctx, spread, shop+"-warm-up", deliveries/10); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	before, err := s.resident()
	if err != nil {
		return err
	}
	first, err := m.runIn(ctx, spread, shop, deliveries)
	if err != nil {
		return err
	}
	s.profiling(profileOn)
	again, err := m.runIn(ctx, spread, shop, 2*deliveries)
	if err != nil {
		return err
	}
	again.deliveries, again.latency = deliveries, again.latency[deliveries:]
	fmt.Printf("%-12s %18.3f %10.3f %10s %10s %10s\n", thousands(webhooks), first.perThousand(), again.perThousand(), quantile(again.latency, 0.5), mib(before),
		mib(max(first.peak, again.peak)))
	return s.stop()
}
