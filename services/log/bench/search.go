package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"shopbell.dev/services/log/store"
)

// search measures every kind of search by samples of what was written, so that large shops are asked for more often than
// small ones. A page has 50 deliveries.
func search(ctx context.Context, s *subject, w *world) error {
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
		{"error class timeout", func(sample) store.Filter { return store.Filter{ErrorClass: "timeout"} }},
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
	const each = 50
	fmt.Printf("\n| search | p50 ms | p99 ms | found in all |\n|---|---|---|---|\n")
	for _, q := range queries {
		var times []time.Duration
		found := 0
		for range each {
			p := w.samples[w.random.IntN(len(w.samples))]
			f := q.filter(p)
			f.ShopID, f.Limit = p.shopID, 50
			began := time.Now()
			page, err := s.Deliveries(ctx, f)
			if err != nil {
				return err
			}
			times = append(times, time.Since(began))
			found += len(page.Deliveries)
		}
		slices.Sort(times)
		fmt.Printf("| %s | %.1f | %.1f | %d |\n", q.name, ms(times[each/2]), ms(times[each-1]), found)
	}
	var events, deliveries []time.Duration
	for range each {
		p := w.samples[w.random.IntN(len(w.samples))]
		began := time.Now()
		if _, err := s.Event(ctx, p.shopID, p.eventID); err != nil {
			return err
		}
		events = append(events, time.Since(began))
		began = time.Now()
		if _, err := s.Delivery(ctx, p.shopID, p.deliveryID); err != nil {
			return err
		}
		deliveries = append(deliveries, time.Since(began))
	}
	slices.Sort(events)
	slices.Sort(deliveries)
	fmt.Printf("| GetEvent, with its story | %.1f | %.1f | %d |\n", ms(events[each/2]), ms(events[each-1]), each)
	fmt.Printf("| GetDelivery | %.1f | %.1f | %d |\n", ms(deliveries[each/2]), ms(deliveries[each-1]), each)

	fmt.Printf("\nPlans:\n\n")
	p := w.samples[len(w.samples)/2]
	for _, q := range queries {
		f := q.filter(p)
		if f.EventID != "" {
			continue // its ids come from its decision
		}
		f.ShopID, f.Limit = p.shopID, 50
		plan, err := s.explain(ctx, f)
		if err != nil {
			return err
		}
		fmt.Printf("- %s:\n\n```\n%s\n```\n\n", q.name, folded(plan))
	}
	return nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

var partName = regexp.MustCompile(`_(20\d{6}_\d{4}|1970\w+)(_\w+idx|_pkey)?|rows=\d+|_\d+ on `)

// folded shows of the parts of a plan that are alike only the first.
func folded(plan string) string {
	var lines []string
	seen := map[string]int{}
	for line := range strings.SplitSeq(plan, "\n") {
		kind := partName.ReplaceAllString(line, "")
		if seen[kind]++; seen[kind] == 1 {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}
