package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// receiver is a plain server that answers 200 and counts, for each load by itself. It may be used at once.
type receiver struct {
	url   string
	mu    sync.Mutex // guards what follows, and what is in it
	loads map[string]*tally
}

// tally is what the receiver has seen of one load.
type tally struct {
	requests, bytes int
	distinct        map[string]bool // the webhook-ids
	latency         []time.Duration // of the distinct ones: from when the event was sent until its body was read
	problem         error           // with what came last and could not be understood
}

// startReceiver starts a receiver, which ends with ctx.
func startReceiver(ctx context.Context) (*receiver, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	rc := &receiver{url: "http://" + l.Addr().String(), loads: map[string]*tally{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{load}/{webhook}", rc.receive)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return rc, nil
}

func (rc *receiver) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	now := time.Now()
	sent, serr := sentTime(body)
	rc.mu.Lock()
	t := rc.load(r.PathValue("load"))
	t.requests++
	t.bytes += len(body)
	if err := errors.Join(err, serr); err != nil {
		t.problem = fmt.Errorf("the receiver cannot understand what it got: %w", err)
	}
	if id := r.Header.Get("webhook-id"); !t.distinct[id] {
		t.distinct[id] = true
		t.latency = append(t.latency, now.Sub(sent))
	}
	rc.mu.Unlock()
	_, _ = w.Write([]byte(`{"ok":true}`))
}

// load gives the tally of a load; rc.mu must be held.
func (rc *receiver) load(name string) *tally {
	if rc.loads[name] == nil {
		rc.loads[name] = &tally{distinct: map[string]bool{}}
	}
	return rc.loads[name]
}

// patience is how long nothing new may happen before what is missing counts as lost. It is longer than AckWait, and than
// the 30 seconds after which the bus's client notices that nobody asks for messages: what comes then is late, not lost.
const patience = time.Minute

// await waits until a number of deliveries of a load have come, not counting repeats, and completes their row.
func (rc *receiver) await(ctx context.Context, load string, r *row) error {
	seen, since := 0, time.Now()
	for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		rc.mu.Lock()
		t := *rc.load(load)
		n := len(t.distinct)
		rc.mu.Unlock()
		switch {
		case t.problem != nil:
			return t.problem
		case n >= r.deliveries:
			r.latency, r.body, r.repeats = t.latency, t.bytes/t.requests, t.requests-n
			return nil
		case n > seen:
			seen, since = n, time.Now()
		case time.Since(since) > patience:
			return fmt.Errorf("lost: of accepted events %d of %d deliveries arrived, and none in the last %s", seen, r.deliveries, patience)
		}
	}
	return ctx.Err()
}
