package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// liveRate is how many events a second another shop publishes beside the job.
const liveRate = 200

// replay measures a replay with a kill -9 in its midst, and what events that happen meanwhile notice of it: deliveries are
// made, sent again by a job, and counted.
func replay(args []string) (err error) {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	program := flags.String("shopbell", "bin/shopbell", "the program under test")
	n := flags.Int("n", 100_000, "number of deliveries to send again")
	length := flags.Duration("length", 20*time.Second, "length of the live loads")
	rate := flags.Int("rate", 2000, "deliveries per second that are sent again; a job has 50 unless it is told otherwise")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *n < 5000 || *length < time.Second || *rate < 1 {
		return fmt.Errorf("%q: nothing but flags is taken, -n from 5000, -length from 1s, -rate from 1", args)
	}
	if _, err := exec.LookPath(*program); err != nil {
		return fmt.Errorf("find the program under test (make build makes it): %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "shopbell-replay-")
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
	return replayOver(ctx, *program, dir, rc, *n, *rate, *length)
}

func replayOver(ctx context.Context, program, dir string, rc *receiver, n, rate int, length time.Duration) error {
	s, err := startServe(ctx, program, dir, "")
	if err != nil {
		return fmt.Errorf("start serve: %w", err)
	}
	defer func() { s.kill() }()
	m := &meter{serve: s, receiver: rc, publisher: publisher(s.url), fan: 1, rules: rules{Profile: "standard"}}
	fmt.Fprintf(os.Stderr, "bench: %d deliveries are made …\n", n)
	made, err := m.run(ctx, load{batches, n, func(ctx context.Context, shop string, n int) (time.Duration, error) {
		return 0, m.publisher.batches(ctx, shop, n)
	}}, "old", n)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "bench: live events alone …")
	alone, err := m.live(ctx, length, "live-alone")
	if err != nil {
		return err
	}
	// From now on they go to another path, where each of them is to arrive.
	if err := m.move(ctx, "old", rc.url+"/again/0"); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "bench: the replay, and live events beside it …")
	var job struct {
		ID                   string
		Status               string
		Total, Done, Skipped int
	}
	began := time.Now()
	at := "/v1/shops/old/replays"
	if err := m.post(ctx, at, fmt.Sprintf(`{"status": "delivered", "rate_per_second": %d}`, rate), &job); err != nil {
		return err
	}
	counted := time.Since(began)
	beside, err := m.live(ctx, length, "live-beside")
	if err != nil {
		return err
	}
	at += "/" + job.ID
	if err := getJSON(ctx, m.serve.url+at, &job); err != nil {
		return err
	}
	atKill := job.Done
	if job.Status != "running" {
		return fmt.Errorf("the replay is %s before the kill: give more with -n", job.Status)
	}
	fmt.Fprintf(os.Stderr, "bench: kill -9 after %d of %d …\n", atKill, job.Total)
	s.kill()
	if s, err = startServe(ctx, program, dir, ""); err != nil {
		return fmt.Errorf("start serve again: %w", err)
	}
	again := row{deliveries: n}
	if err := rc.await(ctx, "again", &again); err != nil {
		return fmt.Errorf("skipped: %w", err)
	}
	for job.Status == "running" {
		if err := getJSON(ctx, s.url+at, &job); err != nil {
			return err
		}
		if time.Since(began) > 5*time.Minute+time.Duration(n/rate)*time.Second {
			return errors.New("the replay has sent all, and does not end")
		}
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Since(began)
	if err := s.stop(); err != nil {
		return err
	}
	fmt.Printf(`
A replay of %s deliveries at up to %d/s, with kill -9 after %s of them

%-44s %12s
%-44s %12s
%-44s %12s
%-44s %12s
%-44s %12s
%-44s %12s

%-44s %12s %12s
%-44s %12s %12s
%-44s %12s %12s
`, thousands(job.Total), rate, thousands(atKill),
		"making them (batches of 100)", made.took.Round(100*time.Millisecond),
		"counting them, until the job is answered", counted.Round(time.Millisecond),
		"from there until the last, restart in it", took.Round(100*time.Millisecond),
		"skipped", thousands(n-again.deliveries),
		"sent more than once", thousands(again.repeats),
		"that the job notes as done", thousands(job.Done),
		fmt.Sprintf("%d live events/s", liveRate), "p50", "p99",
		"alone", quantile(alone.latency, 0.5), quantile(alone.latency, 0.99),
		"beside the replay", quantile(beside.latency, 0.5), quantile(beside.latency, 0.99))
	return nil
}

// live publishes events at their rate, and measures how long each takes.
func (m *meter) live(ctx context.Context, length time.Duration, shop string) (row, error) {
	r := row{kind: steady, fan: 1, deliveries: int(length.Seconds() * liveRate)}
	if err := m.publisher.register(ctx, shop, m.receiver.url, 1, m.rules); err != nil {
		return r, err
	}
	if _, err := m.publisher.steady(ctx, shop, r.deliveries, liveRate); err != nil {
		return r, err
	}
	return r, m.receiver.await(ctx, shop, &r)
}

// move gives the one webhook of a shop another address.
func (m *meter) move(ctx context.Context, shop, url string) error {
	var list struct{ Webhooks []struct{ ID string } }
	if err := getJSON(ctx, m.serve.url+"/v1/shops/"+shop+"/webhooks", &list); err != nil {
		return err
	}
	_, err := do(ctx, http.MethodPatch, m.serve.url+"/v1/shops/"+shop+"/webhooks/"+list.Webhooks[0].ID,
		http.Header{"Content-Type": {"application/json"}}, fmt.Sprintf(`{"url": %q}`, url), http.StatusOK)
	return err
}

func (m *meter) post(ctx context.Context, path, body string, into any) error {
	answer, err := do(ctx, http.MethodPost, m.serve.url+path, http.Header{"Content-Type": {"application/json"}}, body, http.StatusOK)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, into)
}
