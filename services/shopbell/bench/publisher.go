package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// publisher is a shop platform: it registers webhooks and publishes events at this URL.
type publisher string

// rules are those of the webhooks under test.
type rules struct {
	Profile    string   `json:"profile"`
	Signatures []string `json:"signatures"` // none: the profile's
}

// register makes webhooks of a shop that want every event.
func (p publisher) register(ctx context.Context, shop, target string, webhooks int, r rules) error {
	for i := range webhooks {
		text, err := json.Marshal(struct {
			Label  string   `json:"label"`
			URL    string   `json:"url"`
			Events []string `json:"events"`
			rules
		}{fmt.Sprintf("webhook %d", i), fmt.Sprintf("%s/%s/%d", target, shop, i), []string{"*"}, r})
		if err != nil {
			return err
		}
		if _, err := do(ctx, http.MethodPost, string(p)+"/v1/shops/"+shop+"/webhooks", http.Header{"Content-Type": {"application/json"}}, string(text), http.StatusOK); err != nil {
			return fmt.Errorf("register a webhook: %w", err)
		}
	}
	return nil
}

// singles publishes n events with a request for each, as fast as that many requests at once go.
func (p publisher) singles(ctx context.Context, shop string, n, concurrency int) error {
	return inParallel(ctx, n, concurrency, func(ctx context.Context, i int) error {
		return p.publish(ctx, shop, "application/json", eventText(i, time.Now()), 1)
	})
}

// The events in a batch, and the batches under way at once.
const (
	batchSize     = 100
	batchesAtOnce = 4
)

// batches publishes n events in batches.
func (p publisher) batches(ctx context.Context, shop string, n int) error {
	return inParallel(ctx, (n+batchSize-1)/batchSize, batchesAtOnce, func(ctx context.Context, batch int) error {
		var text strings.Builder
		first, now := batch*batchSize, time.Now()
		size := min(batchSize, n-first)
		for i := range size {
			text.WriteString(eventText(first+i, now) + "\n")
		}
		return p.publish(ctx, shop, "application/x-ndjson", text.String(), size)
	})
}

// steady publishes n events at a rate, each at its own time, however long the others take, and says how late the latest
// began. What the event says of when it was sent is that time, so that a publisher that is held up hides nothing.
func (p publisher) steady(ctx context.Context, shop string, n, rate int) (late time.Duration, err error) {
	lates := make([]time.Duration, n)
	requests, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for i := 0; i < n && ctx.Err() == nil; i++ {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		requests.Go(func() error {
			lates[i] = time.Since(due)
			return p.publish(ctx, shop, "application/json", eventText(i, due), 1)
		})
	}
	err = requests.Wait()
	return slices.Max(lates), err
}

// publish sends one request and checks that every event of it was accepted. What the edge cannot take now is sent again, as
// its answer asks for.
func (p publisher) publish(ctx context.Context, shop, contentType, text string, events int) error {
	var list struct{ Events []struct{ Status string } }
	for tries := 1; ; tries++ {
		code, answer, err := exchange(ctx, http.MethodPost, string(p)+"/v1/shops/"+shop+"/events", http.Header{"Content-Type": {contentType}}, text)
		if err == nil && code == http.StatusServiceUnavailable && tries < 30 {
			time.Sleep(2 * time.Second)
			continue
		}
		if err == nil && code != http.StatusAccepted {
			err = fmt.Errorf("answered %d: %.1000s", code, answer)
		}
		if err == nil {
			err = json.Unmarshal(answer, &list)
		}
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		taken := 0
		for _, e := range list.Events {
			if e.Status == "accepted" || tries > 1 && e.Status == "duplicate" {
				taken++
			}
		}
		if taken != events {
			return fmt.Errorf("publish: %d of %d new events were accepted: %.1000s", taken, events, answer)
		}
		return nil
	}
}

// client keeps as many connections as there are requests at once, with the buffers that the sender has.
var client = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 1024, WriteBufferSize: 16 << 10},
}

// do sends a request, checks the answer's status, and gives its body.
func do(ctx context.Context, method, url string, h http.Header, body string, want int) ([]byte, error) {
	code, answer, err := exchange(ctx, method, url, h, body)
	if err == nil && code != want {
		err = fmt.Errorf("%s %s answered %d: %.1000s", method, url, code, answer)
	}
	return answer, err
}

// exchange sends a request, and gives the answer's status and body.
func exchange(ctx context.Context, method, url string, h http.Header, body string) (code int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header = h
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	return resp.StatusCode, answer, nil
}

// getJSON reads what lies at a URL.
func getJSON(ctx context.Context, url string, into any) error {
	answer, err := do(ctx, http.MethodGet, url, http.Header{}, "", http.StatusOK)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, into)
}

// inParallel does what has the numbers from 0 to n, some of it at once, and stops at the first that fails.
func inParallel(ctx context.Context, n, concurrency int, do func(context.Context, int) error) error {
	var next atomic.Int64
	workers, ctx := errgroup.WithContext(ctx)
	for range concurrency {
		workers.Go(func() error {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return workers.Wait()
}
