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
	"syscall"
	"time"
)

// wide measures single events of a shop with very many webhooks, of which few want the event: because they name its type, and
// because of all, which name it, their filters say yes.
func wide(args []string) (err error) {
	flags := flag.NewFlagSet("wide", flag.ContinueOnError)
	shopbell := flags.String("shopbell", "bin/shopbell", "the program under test")
	webhooks := flags.Int("webhooks", 100_000, "number of webhooks")
	wanting := flags.Int("wanting", 1000, "number of those that want the event")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *wanting < 1 || *webhooks < *wanting {
		return fmt.Errorf("%q: nothing but flags is taken, -wanting from 1, -webhooks no fewer than these", args)
	}
	if _, err := exec.LookPath(*shopbell); err != nil {
		return fmt.Errorf("find the program under test (make build makes it): %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "shopbell-wide-")
	if err != nil {
		return fmt.Errorf("make a folder for the data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rc, err := startReceiver(ctx)
	if err != nil {
		return err
	}
	for _, by := range []string{"type", "filter"} {
		if err := wideBy(ctx, by, *shopbell, filepath.Join(dir, by), rc, *webhooks, *wanting); err != nil {
			return fmt.Errorf("by %s: %w", by, err)
		}
	}
	return nil
}

func wideBy(ctx context.Context, by, program, dir string, rc *receiver, webhooks, wanting int) error {
	s, err := startServe(ctx, program, dir, "")
	if err != nil {
		return fmt.Errorf("start serve: %w", err)
	}
	defer s.kill()
	began := time.Now()
	shop := "wide-" + by
	if err := inParallel(ctx, webhooks, 32, func(ctx context.Context, i int) error {
		wants := fmt.Sprintf(`"events": ["order.created"], "filter": "data.order_no > 0.0 && %d == 0"`, i%(webhooks/wanting))
		if by == "type" {
			wants = `"events": ["order.created"]`
			if i%(webhooks/wanting) != 0 {
				wants = fmt.Sprintf(`"events": ["order.type_%d"]`, i%100)
			}
		}
		text := fmt.Sprintf(`{"url": "%s/%s/%d", %s}`, rc.url, shop, i, wants)
		_, err := do(ctx, http.MethodPost, s.url+"/v1/shops/"+shop+"/webhooks", http.Header{"Content-Type": {"application/json"}}, text, http.StatusOK)
		return err
	}); err != nil {
		return fmt.Errorf("register webhooks: %w", err)
	}
	kib, err := s.resident()
	if err != nil {
		return err
	}
	fmt.Printf("by %s: %d webhooks registered in %s, then %s of memory\n", by, webhooks, time.Since(began).Round(time.Second), mib(kib))
	m := &meter{serve: s, receiver: rc, publisher: publisher(s.url), fan: wanting}
	for i := range 3 {
		before, err := s.cpu()
		if err != nil {
			return err
		}
		r := row{deliveries: wanting * (i + 1)}
		began := time.Now()
		if err := m.publisher.publish(ctx, shop, "application/json", eventText(i, time.Now()), 1); err != nil {
			return err
		}
		if err := rc.await(ctx, shop, &r); err != nil {
			return err
		}
		took := time.Since(began)
		_, after, err := m.awaitWhole(ctx, shop, i+1)
		if err != nil {
			return err
		}
		fmt.Printf("by %s: event %d was at its %d receivers after %s; %.2f CPU-s until the log had all of it\n",
			by, i+1, wanting, took.Round(time.Millisecond), (after - before).Seconds())
	}
	return s.stop()
}
