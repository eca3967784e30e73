package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// The scenarios of isolation with one receiver: how soon its backlog is there, and what order costs.

// outage is scenario 5: one receiver that is away, and how soon what came meanwhile is there once it is back.
func (l *lab) outage(ctx context.Context) error {
	for _, ordered := range []string{"none", "webhook"} {
		if err := l.outageOf(ctx, ordered); err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

func (l *lab) outageOf(ctx context.Context, ordered string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, where, err := l.open(ctx, 1)
	if err != nil {
		return err
	}
	defer s.kill()
	if err := register(ctx, s, where, where, []manner{dead}, fmt.Sprintf(`{"ordered":%q}`, ordered)); err != nil {
		return err
	}
	away := l.length / 2
	backlog := int(50 * away.Seconds())
	var back time.Time
	published := make(chan error, 1)
	events := 0
	go func() {
		var err error
		events, err = pour(ctx, publisher(s.url), rate{webhooks: 1, perSecond: 50, bad: true, inOrder: true}, away+15*time.Second)
		published <- err
	}()
	time.Sleep(5 * time.Second) // so that it is known to be well
	where.die()
	time.Sleep(away) // what the scenario is about
	if err := where.live(ctx); err != nil {
		return err
	}
	back = time.Now()
	p := where.spot(place, 0)
	before := int(50 * 5)
	for deadline := back.Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) { // how exact the answer is
		p.mu.Lock()
		n := len(p.took)
		p.mu.Unlock()
		if n >= before+backlog {
			break
		}
	}
	took := time.Since(back)
	if err := <-published; err != nil {
		return err
	}
	left := where.missing(ctx, []manner{dead}, func(manner) bool { return true }, events, time.Minute)
	inversions := 0
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := 1; i < len(p.order); i++ {
		if p.order[i].number < p.order[i-1].number {
			inversions++
		}
	}
	fmt.Printf("5. away for %s under 50 events/s, ordered: %-8s backlog of %d there %.2fs after the return, %d of %d out of order, %d missing, %d repeats\n",
		away, ordered+",", backlog, took.Seconds(), inversions, len(p.order), left, p.repeats)
	return nil
}

// order is scenario 6: what order by key costs with a receiver that fails one time in five.
func (l *lab) order(ctx context.Context) error {
	rates := map[string]float64{}
	for _, ordered := range []string{"none", "key"} {
		took, cpu, inversions, events, err := l.orderOf(ctx, ordered)
		if err != nil {
			return err
		}
		rates[ordered] = float64(events) / took.Seconds()
		fmt.Printf("6. 10,000 keys, a receiver that fails 20 %%, ordered: %-5s %d events in %.1fs, %.0f/s, %.1f CPU-s, %d out of their key's order\n",
			ordered+",", events, took.Seconds(), rates[ordered], cpu.Seconds(), inversions)
	}
	fmt.Printf("   the rate in order is %.2f of that without\n", rates["key"]/rates["none"])
	return nil
}

func (l *lab) orderOf(ctx context.Context, ordered string) (took, cpu time.Duration, inversions, events int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, where, err := l.open(ctx, 1)
	if err != nil {
		return 0, 0, 0, 0, err
	}
	defer s.kill()
	policy := fmt.Sprintf(`{"ordered":%q,"retry_schedule":["1s","1s","1s","1s","1s","1s","1s","1s","1s","1s","1s","1s"]}`, ordered)
	if err := register(ctx, s, where, where, []manner{falters}, policy); err != nil {
		return 0, 0, 0, 0, err
	}
	const keys = 10_000
	events = 120_000 // the last ones wait for as many seconds as they fail times in a row, which must not be what is measured
	before, err := s.cpu()
	if err != nil {
		return 0, 0, 0, 0, err
	}
	s.profiling(profileOn)
	began := time.Now()
	// One request after the other: the order of the keys is that in which they were accepted.
	for number := 0; number < events; {
		var text strings.Builder
		for range 100 {
			text.WriteString(keyedText(typeOf(0), number%keys, number, time.Now()) + "\n")
			number++
		}
		if err := publisher(s.url).publish(ctx, shop(true), "application/x-ndjson", text.String(), 100); err != nil {
			return 0, 0, 0, 0, err
		}
	}
	if left := where.missing(ctx, []manner{falters}, func(manner) bool { return true }, events, 3*time.Minute); left > 0 {
		return 0, 0, 0, 0, fmt.Errorf("ordered %s: %d of %d did not arrive", ordered, left, events)
	}
	s.profiling(profileOff)
	after, err := s.cpu()
	if err != nil {
		return 0, 0, 0, 0, err
	}
	p := where.spot(place, 0)
	p.mu.Lock()
	defer p.mu.Unlock()
	last := map[int]int{}
	for _, a := range p.order {
		if before, ok := last[a.key]; ok && a.number < before {
			inversions++
		}
		last[a.key] = a.number
	}
	return p.last.Sub(began), after - before, inversions, events, nil
}
