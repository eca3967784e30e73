package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// manner is how a receiver behaves.
type manner string

const (
	well    manner = "well"
	hangs   manner = "hangs"   // reads, and never answers
	dead    manner = "dead"    // nobody listens; it lives at an address of its own
	slow    manner = "slow"    // answers after 50 ms
	drips   manner = "drips"   // answers one byte a second
	bomb    manner = "bomb"    // answers 1 GiB of zeros, packed
	silent  manner = "silent"  // accepts the connection and reads nothing
	cuts    manner = "cuts"    // closes in the middle of its answer
	falters manner = "falters" // answers 503 one time in five
	refuses manner = "refuses" // answers 503
)

// site is many receivers on one machine, each with a path and a manner of its own. It may be used at once.
type site struct {
	url     string
	silent  string // the address of those that read nothing
	mortal  string // the address of those that can be dead
	host    string // where it listens
	apart   bool   // those that are dead or hang have an address of their own each
	server  *http.Server
	life    net.Listener // of the mortal; nil while they are dead
	ended   <-chan struct{}
	zeros   []byte
	healthy sync.Map // by path: *spot

	manners []atomic.Value // by number: manner
	watch   func(number int, r *http.Request) (answered func(taken bool))
}

// spot is what one receiver has seen.
type spot struct {
	requests atomic.Int64

	mu      sync.Mutex // guards what follows
	seen    map[string]bool
	took    []delivered // the distinct ones that were answered 2xx
	order   []arrival
	last    time.Time
	repeats int
}

// delivered is when a receiver took a delivery, and how long after it was sent.
type delivered struct {
	at    time.Time
	after time.Duration
}

// arrival is an event that has arrived for the first time.
type arrival struct{ key, number int }

// startSite starts receivers that are all well; it ends with ctx. Apart lets them have addresses of their own. Watch, if there is one, is called with each request, and
// what it gives when the request was answered: taken is 2xx.
func startSite(ctx context.Context, receivers int, apart bool, watch func(number int, r *http.Request) (answered func(taken bool))) (*site, error) {
	var lc net.ListenConfig
	host := "127.0.0.1"
	if apart {
		host = "" // all addresses
	}
	l, err := lc.Listen(ctx, "tcp4", host+":0")
	if err != nil {
		return nil, fmt.Errorf("start the receivers: %w", err)
	}
	mute, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the receivers: %w", err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	for range 1 << 10 {
		_, _ = z.Write(make([]byte, 1<<20)) // into memory
	}
	_ = z.Close()
	s := &site{url: here(l), host: host, apart: apart, silent: "http://" + mute.Addr().String(), ended: ctx.Done(), zeros: packed.Bytes(), manners: make([]atomic.Value, receivers), watch: watch}
	for i := range s.manners {
		s.manners[i].Store(well)
	}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.server.Serve(l) }()
	s.mortal = "http://:0"
	if err := s.live(ctx); err != nil {
		return nil, err
	}
	go func() { // connections are accepted, and nothing is read from them
		var kept []net.Conn
		for {
			c, err := mute.Accept()
			if err != nil {
				for _, c := range kept {
					_ = c.Close()
				}
				return
			}
			kept = append(kept, c)
		}
	}()
	context.AfterFunc(ctx, func() { _ = s.server.Close(); _ = mute.Close() })
	return s, nil
}

// live has the mortal receivers listen.
func (s *site) live(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", s.host+portOf(s.mortal))
	if err != nil {
		return fmt.Errorf("start the receivers that can die: %w", err)
	}
	s.mortal, s.life = here(l), &mortals{Listener: l}
	go func() { _ = s.server.Serve(s.life) }()
	return nil
}

// here is where this machine reaches a listener.
func here(l net.Listener) string {
	return fmt.Sprintf("http://127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port)
}

// die has nobody listen any more where the mortal receivers were, and cuts what they have.
func (s *site) die() { _ = s.life.Close() }

// mortals is a listener that takes its connections with it.
type mortals struct {
	net.Listener
	mu    sync.Mutex // guards conns
	conns []net.Conn
}

// Accept is net.Listener's.
func (m *mortals) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if err == nil {
		m.mu.Lock()
		m.conns = append(m.conns, c)
		m.mu.Unlock()
	}
	return c, err
}

// Close is net.Listener's, and closes what was accepted.
func (m *mortals) Close() error {
	err := m.Listener.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.conns = nil
	return err
}

// target is the URL of a receiver in a scenario. Those that are dead or silent live elsewhere for good.
func (s *site) target(load string, number int, m manner) string {
	path := "/" + load + "/" + strconv.Itoa(number)
	switch m {
	case silent:
		return s.silent + path
	case dead:
		return s.own(s.mortal, number) + path
	case hangs:
		return s.own(s.url, number) + path
	}
	return s.url + path
}

// own is a receiver's own address where it has one: all of 127.0.0.0/8 leads to this machine.
func (s *site) own(url string, number int) string {
	if !s.apart {
		return url
	}
	return fmt.Sprintf("http://127.1.%d.%d%s", number>>8&255, number&255, portOf(url))
}

// portOf is the port that a URL ends with, with its colon.
func portOf(url string) string { return url[strings.LastIndexByte(url, ':'):] }

// register makes a webhook of a shop that wants the events of a type of its own, and gives its id. At is where the REST edge
// is.
func (s *site) register(ctx context.Context, at, shop string, number int, m manner, policy string) (id string, err error) {
	text := fmt.Sprintf(`{"url":%q,"events":[%q],"profile":"standard","policy":%s}`, s.target(place, number, m), typeOf(number), policy)
	answer, err := do(ctx, http.MethodPost, at+"/v1/shops/"+shop+"/webhooks", http.Header{"Content-Type": {"application/json"}}, text, http.StatusOK)
	if err != nil {
		return "", fmt.Errorf("register a webhook: %w", err)
	}
	if s.manners != nil { // else the receivers are in another process
		s.manners[number].Store(m)
	}
	var made struct{ ID string }
	if err := json.Unmarshal(answer, &made); err != nil || made.ID == "" {
		return "", fmt.Errorf("register a webhook: the answer %.200q has no id: %w", answer, err)
	}
	return made.ID, nil
}

func (s *site) spot(load string, number int) *spot {
	v, _ := s.healthy.LoadOrStore("/"+load+"/"+strconv.Itoa(number), &spot{seen: map[string]bool{}})
	return v.(*spot)
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	load, text, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	number, err := strconv.Atoi(text)
	if err != nil || number >= len(s.manners) {
		http.NotFound(w, r)
		return
	}
	taken := false
	if s.watch != nil {
		answered := s.watch(number, r)
		defer func() { answered(taken) }()
	}
	p := s.spot(load, number)
	request := p.requests.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	now := time.Now()
	switch s.manners[number].Load() {
	case hangs:
		select {
		case <-s.ended:
		case <-r.Context().Done():
		}
		return
	case slow:
		time.Sleep(50 * time.Millisecond)
	case drips:
		hijackSlowly(w, s.ended)
		return
	case bomb:
		w.Header().Set("Content-Encoding", "gzip")
		s.pour(r.Context(), w)
	case cuts:
		hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
		return
	case refuses, falters:
		if s.manners[number].Load() == refuses || request%5 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
	}
	sent, err := sentTime(body)
	if err != nil {
		return
	}
	taken = true
	p.mu.Lock()
	defer p.mu.Unlock()
	if id := r.Header.Get("webhook-id"); p.seen[id] {
		p.repeats++
	} else {
		p.seen[id] = true
		p.took = append(p.took, delivered{now, now.Sub(sent)})
		p.last = now
		if at, ok := keyed(body); ok {
			p.order = append(p.order, at)
		}
	}
}

// pour writes the bomb as fast as it is read, more or less: what is written ahead of that costs the machine, which the bomb's
// sender would have elsewhere.
func (s *site) pour(ctx context.Context, w http.ResponseWriter) {
	const step = 4 << 10
	for rest := s.zeros; len(rest) > 0; rest = rest[min(step, len(rest)):] {
		if _, err := w.Write(rest[:min(step, len(rest))]); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// hijack answers what is no answer, and closes.
func hijack(w http.ResponseWriter, text string) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(c, text) // he may be gone
	_ = c.Close()
}

func hijackSlowly(w http.ResponseWriter, ended <-chan struct{}) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n") // he may be gone
	for {
		if _, err := io.WriteString(c, "x"); err != nil {
			return
		}
		select {
		case <-ended:
			return
		case <-time.After(time.Second):
		}
	}
}
