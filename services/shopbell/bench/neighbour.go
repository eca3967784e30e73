package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// neighbour is the process in which the receivers live that are not well, and the publishers of what goes to them. In the world
// they have machines of their own; here they share the cores with those that are measured, but not their process, whose
// publishing and receiving would wait for theirs.
type neighbour struct {
	place neighbourPlace
	child *exec.Cmd
	leave io.Closer // ends it
}

// neighbourPlace is what a neighbour says of itself when it is ready.
type neighbourPlace struct {
	Control             string // where it is told what to do
	URL, Silent, Mortal string // where its receivers are
}

// What a neighbour can be told.
const (
	tellRefuse = "refuse" // its receivers answer 503 from now on
	tellBegin  = "begin"  // they are as their trial has them
	tellDie    = "die"    // those that can be dead are
	tellMend   = "mend"   // all are well again
	tellWell   = "well"   // all are well from the beginning
	tellPour   = "pour"   // begin to publish what goes to them
	tellCount  = "count"  // say what they have seen
)

// neighbourCount is what a neighbour answers.
type neighbourCount struct {
	Pouring   bool // it publishes
	Failed    string
	Published int
	Requests  int64 // at its receivers since the beginning
	Arrived   int   // distinct events that were answered 2xx
}

const neighbourWord = "neighbour"

// startNeighbour starts the neighbour of a trial. The receivers' URLs are those of the site that it gives.
func startNeighbour(ctx context.Context, trial int, args []string, at string) (*neighbour, *site, error) {
	c := child(ctx, append([]string{neighbourWord, "-trial", fmt.Sprint(trial), "-at", at}, args...)...)
	in, err := c.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := c.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the bad receivers: %w", err)
	}
	n := &neighbour{child: c, leave: in}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &n.place)
	}
	if err != nil {
		n.end()
		return nil, nil, fmt.Errorf("start the bad receivers: %w", err)
	}
	return n, &site{url: n.place.URL, silent: n.place.Silent, mortal: n.place.Mortal}, nil
}

// end ends the neighbour. It may be called once.
func (n *neighbour) end() {
	_ = n.leave.Close()
	_ = n.child.Wait() // it has nothing to say
}

func (n *neighbour) tell(ctx context.Context, what string) (count neighbourCount, err error) {
	answer, err := do(ctx, http.MethodPost, n.place.Control+"/"+what, http.Header{}, "", http.StatusOK)
	if err != nil {
		return count, fmt.Errorf("tell the bad receivers to %s: %w", what, err)
	}
	return count, json.Unmarshal(answer, &count)
}

// poured waits until it has published everything.
func (n *neighbour) poured(ctx context.Context) error {
	for {
		count, err := n.tell(ctx, tellCount)
		switch {
		case err != nil:
			return err
		case count.Failed != "":
			return fmt.Errorf("publish for the bad receivers: %s", count.Failed)
		case !count.Pouring:
			return nil
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

// leaveTheCores has receivers and publishers collect seldom: each time takes one of the cores that serve has as well for ten
// milliseconds or more, which would stand in its figures.
func leaveTheCores() { debug.SetGCPercent(1000) }

// beNeighbour is the process. It ends when its input does.
func beNeighbour(args []string) error {
	flags := flag.NewFlagSet(neighbourWord, flag.ContinueOnError)
	number := flags.Int("trial", 1, "whose receivers")
	at := flags.String("at", "", "the REST edge")
	size := extentFlags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	leaveTheCores()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	t := trials(*size)[*number-1]
	s, err := startSite(ctx, len(t.webhooks), size.apart, nil)
	if err != nil {
		return err
	}
	h := &host{trial: t, site: s, publisher: publisher(*at), length: size.length}
	h.behave(func(m manner) manner { return m })
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	control := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = control.Serve(l) }()
	defer func() { _ = control.Close() }()
	line, err := json.Marshal(neighbourPlace{Control: "http://" + l.Addr().String(), URL: s.url, Silent: s.silent, Mortal: s.mortal})
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// host is what goes on in a neighbour.
type host struct {
	trial     trial
	site      *site
	publisher publisher
	length    time.Duration
	published atomic.Int64
	pouring   atomic.Bool
	failed    atomic.Value // what kept it from publishing; a string
}

// behave gives each receiver that is not well a manner, by the one that its trial has for it.
func (h *host) behave(as func(manner) manner) {
	for i, m := range h.trial.webhooks {
		if m != well {
			h.site.manners[i].Store(as(m))
		}
	}
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.URL.Path[1:] {
	case tellRefuse:
		h.behave(func(manner) manner { return refuses })
	case tellBegin:
		h.behave(func(m manner) manner { return m })
		for i := range h.trial.webhooks {
			h.site.spot(place, i).requests.Store(0)
		}
	case tellDie:
		h.site.die()
	case tellWell:
		h.behave(func(manner) manner { return well })
	case tellMend:
		h.behave(func(manner) manner { return well })
		err = h.site.live(context.WithoutCancel(r.Context()))
	case tellPour:
		h.pouring.Store(true)
		go h.pour() // until the process ends
	case tellCount:
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	failed, _ := h.failed.Load().(string)
	count := neighbourCount{Pouring: h.pouring.Load(), Failed: failed, Published: int(h.published.Load())}
	for i, m := range h.trial.webhooks {
		if m == well {
			continue
		}
		p := h.site.spot(place, i)
		count.Requests += p.requests.Load()
		p.mu.Lock()
		count.Arrived += len(p.took)
		p.mu.Unlock()
	}
	_ = json.NewEncoder(w).Encode(count) // he may be gone
}

func (h *host) pour() {
	defer h.pouring.Store(false)
	var publishing errgroup.Group
	for _, r := range h.trial.rates {
		if r.bad {
			publishing.Go(func() error {
				n, err := pour(context.Background(), h.publisher, r, h.length)
				h.published.Add(int64(n))
				return err
			})
		}
	}
	if err := publishing.Wait(); err != nil {
		h.failed.Store(err.Error())
	}
}
