package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"shopbell.dev/services/log/store"
)

// search measures every kind of search by samples of what was written, so that large shops are asked for more often than
// small ones. A page has 50 deliveries.
func search(ctx context.Context, s *subject, w *world, r *report) error {
	end := begin.Add(days * 24 * time.Hour)
	queries := []struct {
		name   string
		filter func(sample) store.Filter
	}{
		{"newest of a shop", func(sample) store.Filter { return store.Filter{} }},
		{"page in the middle of a shop", func(p sample) store.Filter { return store.Filter{Before: p.deliveryID} }},
		{"a webhook", func(p sample) store.Filter { return store.Filter{WebhookID: p.webhookID} }},
		{"event type", func(p sample) store.Filter { return store.Filter{EventType: p.eventType} }},
		{"rare event type", func(sample) store.Filter { return store.Filter{EventType: "order_16"} }},
		{"event type nobody has", func(sample) store.Filter { return store.Filter{EventType: "none"} }},
		{"status failed", func(sample) store.Filter { return store.Filter{Status: "failed"} }},
		{"status failed, a webhook", func(p sample) store.Filter { return store.Filter{Status: "failed", WebhookID: p.webhookID} }},
		{"status held, which none is", func(sample) store.Filter { return store.Filter{Status: "held"} }},
		{"status delivered", func(sample) store.Filter { return store.Filter{Status: "delivered"} }},
		{"code 404", func(sample) store.Filter { return store.Filter{Codes: store.Codes{Low: 404, High: 404}} }},
		{"code 4xx, a webhook", func(p sample) store.Filter {
			return store.Filter{Codes: store.Codes{Low: 400, High: 499}, WebhookID: p.webhookID}
		}},
		{"code 3xx, which none has", func(sample) store.Filter { return store.Filter{Codes: store.Codes{Low: 300, High: 399}} }},
		{"code 3xx, a webhook", func(p sample) store.Filter {
			return store.Filter{Codes: store.Codes{Low: 300, High: 399}, WebhookID: p.webhookID}
		}},
		{"code 201, which none has", func(sample) store.Filter { return store.Filter{Codes: store.Codes{Low: 201, High: 201}} }},
		{"code 201, a webhook", func(p sample) store.Filter {
			return store.Filter{Codes: store.Codes{Low: 201, High: 201}, WebhookID: p.webhookID}
		}},
		{"error class timeout", func(sample) store.Filter { return store.Filter{ErrorClass: "timeout"} }},
		{"error class nobody has", func(sample) store.Filter { return store.Filter{ErrorClass: "blocked_address"} }},
		{"error class nobody has, a webhook", func(p sample) store.Filter {
			return store.Filter{ErrorClass: "blocked_address", WebhookID: p.webhookID}
		}},
		{"status held, a webhook", func(p sample) store.Filter { return store.Filter{Status: "held", WebhookID: p.webhookID} }},
		{"status failed, rare type, webhook", func(p sample) store.Filter {
			return store.Filter{Status: "failed", EventType: "order_16", WebhookID: p.webhookID}
		}},
		{"type nobody has, a webhook", func(p sample) store.Filter { return store.Filter{EventType: "none", WebhookID: p.webhookID} }},
		{"an hour", func(p sample) store.Filter { return store.Filter{From: p.at, To: p.at.Add(time.Hour)} }},
		{"a day, status failed, type", func(p sample) store.Filter {
			return store.Filter{From: p.at, To: p.at.Add(24 * time.Hour), Status: "failed", EventType: p.eventType}
		}},
		{"all days, type, 404, webhook", func(p sample) store.Filter {
			return store.Filter{From: begin, To: end, EventType: p.eventType, Codes: store.Codes{Low: 404, High: 404}, WebhookID: p.webhookID}
		}},
		{"an event", func(p sample) store.Filter { return store.Filter{EventID: p.eventID} }},
		{"a delivery", func(p sample) store.Filter { return store.Filter{DeliveryID: p.deliveryID} }},
		{"text in an hour", func(p sample) store.Filter {
			return store.Filter{Text: p.email, From: p.at.Add(-time.Hour), To: p.at.Add(time.Minute)}
		}},
		{"text in a day", func(p sample) store.Filter {
			return store.Filter{Text: p.email, From: p.at.Add(-24 * time.Hour), To: p.at.Add(time.Minute)}
		}},
	}
	for _, q := range queries {
		progress("%s: %s", s.name, q.name)
		if err := r.measure(w, q.name, func(p sample) error {
			f := q.filter(p)
			f.ShopID, f.Limit = p.shopID, 50
			_, err := s.Deliveries(ctx, f)
			return err
		}); err != nil {
			return err
		}
		f := q.filter(w.samples[len(w.samples)/2])
		if f.EventID != "" {
			continue // its ids come from its decision
		}
		f.ShopID, f.Limit = w.samples[len(w.samples)/2].shopID, 50
		plan, err := s.explain(ctx, f)
		if err != nil {
			return err
		}
		r.plans = append(r.plans, []string{q.name, condensed(plan)})
	}
	return errors.Join(
		r.measure(w, "GetEvent, with its story", func(p sample) error { _, err := s.Event(ctx, p.shopID, p.eventID); return err }),
		r.measure(w, "GetDelivery", func(p sample) error { _, err := store.Detail(ctx, s, p.shopID, p.deliveryID); return err }))
}

// each is how many different deliveries each kind of search is made for, so that p99 is the second-worst.
const each = 100

// measure times a search for as many samples, all of them once and then, when what they read is in memory, once more.
func (r *report) measure(w *world, name string, search func(sample) error) error {
	samples := make([]sample, each)
	for i := range samples {
		samples[i] = w.samples[w.random.IntN(len(w.samples))]
	}
	row := []string{name}
	for _, quantiles := range [][]int{{50}, {50, 99}} {
		times := make([]time.Duration, each)
		for i, p := range samples {
			began := time.Now()
			if err := search(p); err != nil {
				return err
			}
			times[i] = time.Since(began)
		}
		slices.Sort(times)
		for _, q := range quantiles {
			row = append(row, fmt.Sprintf("%.1f", ms(times[(each*q-1)/100])))
		}
	}
	r.searches = append(r.searches, row)
	return nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

var (
	page    = regexp.MustCompile(`^SEARCH deliveries USING INDEX deliveries_by_shop \(shop_id=\? AND id=\?\)\n`)
	literal = regexp.MustCompile(`'[^']*'(::[a-z ]+(\[\])?)?`)
	part    = regexp.MustCompile(`(deliveries)_(20\d{6}_\d{4}|1970\w*?)(_\w+?idx\d*|_pkey)?( deliveries(_\d+)?)?\b`)
	aside   = regexp.MustCompile(` \((actual|never)[^)]*\)`)
)

// condensed is a plan on one line: what it goes through, and by which condition, each kind of step once. Of a page that
// SQLite finds in an index, it is how the ids are found.
func condensed(plan string) string {
	var steps []string
	for line := range strings.SplitSeq(page.ReplaceAllString(plan, ""), "\n") {
		line = strings.TrimPrefix(strings.TrimSpace(line), "->  ")
		if strings.Contains(line, "LIST SUBQUERY") || strings.Contains(line, "json_each") || strings.HasPrefix(line, "Limit") || strings.HasPrefix(line, "Planning") ||
			strings.HasPrefix(line, "Execution") || strings.HasPrefix(line, "Filter") || strings.HasPrefix(line, "Rows Removed") ||
			strings.HasPrefix(line, "Heap Fetches") || strings.HasPrefix(line, "Buffers") || strings.HasPrefix(line, "Subplans Removed") {
			continue
		}
		line = part.ReplaceAllString(aside.ReplaceAllString(literal.ReplaceAllString(line, "…"), ""), "$1$3")
		if line != "" && !slices.Contains(steps, line) {
			steps = append(steps, line)
		}
	}
	return strings.Join(steps, "; ")
}
