package e2e

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite" // the log's store, to be slowed down from outside

	"shopbell.dev/services/log/storetest"
)

// What becomes of deliveries, which need the log for nothing, and of the log, while its store is away, full, slow or
// nobody writes to it.

// flow is a steady stream of events of one shop to one receiver.
type flow struct {
	*premises
	r       *receiver
	webhook hook

	mu     sync.Mutex // guards what follows
	sent   []time.Time
	phases []phase
}

// phase is a part of a flow: the events from the end of the phase before it until this one.
type phase struct {
	name  string
	until int
}

func (h *house) newFlow(t *testing.T) *flow {
	t.Helper()
	f := &flow{premises: h.newShop(t, "standard"), r: newReceiver(t)}
	f.webhook = f.premises.webhook(t, f.r.url+"/hook")
	return f
}

// run publishes so many events a second for a time, each by a request of its own, and returns when all of them have been
// delivered.
func (f *flow) run(t *testing.T, name string, perSecond int, during time.Duration) {
	t.Helper()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 32) // so many publishers there are
	ticks := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticks.Stop()
	first := len(f.sent)
	for n := first; n < first+int(during.Seconds()*float64(perSecond)); n++ {
		<-ticks.C
		slots <- struct{}{}
		f.mu.Lock()
		f.sent = append(f.sent, time.Now())
		f.mu.Unlock()
		wg.Go(func() {
			defer func() { <-slots }()
			r, err := f.try(t.Context(), "POST", f.at+"/events", []byte(numbered(fmt.Sprintf("event-%d", n), n)))
			if err != nil || r.code != http.StatusAccepted {
				t.Errorf("%s: publish: got %d %s, error %v; want 202", name, r.code, r.body, err)
			}
		})
	}
	wg.Wait()
	f.phases = append(f.phases, phase{name, len(f.sent)})
	f.r.await(t, "/hook", len(f.sent))
}

// check waits until the log has all of it, and compares it with what the receiver got: each event once.
func (f *flow) check(t *testing.T) {
	t.Helper()
	var got stats
	eventually(t, "everything is in the log", func() error {
		if got = f.stats(t, "/webhooks/"+f.webhook.ID+"/stats?hours=2"); int(got.Total.Delivered) < len(f.sent) {
			return fmt.Errorf("%v of %d are there", got.Total.Delivered, len(f.sent))
		}
		return nil
	})
	if n := float64(len(f.sent)); got.Total.Deliveries != n || got.Total.Delivered != n || got.Total.Attempts != n {
		t.Errorf("statistics: got %+v, want %v deliveries, each delivered by one attempt", got.Total, n)
	}
	var logged, received []string
	for _, d := range f.deliveries(t, "status=delivered") {
		if logged = append(logged, d.ID); d.AttemptsMade != 1 {
			t.Errorf("delivery %s: got %d attempts, want 1", d.ID, d.AttemptsMade)
		}
	}
	events := map[string]bool{}
	for _, in := range f.r.at("/hook") {
		received, events[in.order()] = append(received, in.id()), true
	}
	slices.Sort(logged)
	slices.Sort(received)
	if !slices.Equal(logged, received) || len(events) != len(f.sent) || len(received) != len(f.sent) {
		t.Errorf("the log has %d deliveries, the receiver got %d of %d events, want the same %d", len(logged), len(received), len(events), len(f.sent))
	}
}

// table shows how long events took from the beginning of their publishing until they were at the receiver, by phase.
func (f *flow) table() string {
	took := map[string]time.Duration{}
	for _, in := range f.r.at("/hook") {
		took[in.order()] = time.Duration(in.at.UnixNano())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %8s %8s %8s %8s %8s\n", "published to received", "events", "p50", "p90", "p99", "max")
	first := 0
	for _, p := range f.phases {
		var all []time.Duration
		for n := first; n < p.until; n++ {
			all = append(all, took[fmt.Sprint(n)]-time.Duration(f.sent[n].UnixNano()))
		}
		first = p.until
		slices.Sort(all)
		at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))].Round(100 * time.Microsecond) }
		fmt.Fprintf(&b, "%-28s %8d %8s %8s %8s %8s\n", p.name, len(all), at(0.5), at(0.9), at(0.99), at(1))
	}
	return b.String()
}

// saysTrouble waits until /readyz of the log's process tells of the store, and stays 200; or until it does not tell.
func (h *house) saysTrouble(t *testing.T, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("/readyz speaks of the store: %v", want), func() error {
		resp, err := quick.Get(h.process("log").ready)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		text := make([]byte, 4096)
		n, _ := resp.Body.Read(text)
		if resp.StatusCode != http.StatusOK {
			return fatal{fmt.Errorf("it answers %d %s: the room is still of use", resp.StatusCode, text[:n])}
		}
		if contains(text[:n], "log: its store takes nothing since") != want {
			return fmt.Errorf("it answers %s", text[:n])
		}
		return nil
	})
}

// wrote says whether the process of the log wrote a line with all of these.
func (h *house) wrote(t *testing.T, parts ...string) bool {
	t.Helper()
	text, err := os.ReadFile(h.process("log").log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return true
		}
	}
	return false
}

func TestStoreAway_DeliveriesGoOnAndTheLogCatchesUp(t *testing.T) {
	t.Parallel()
	perSecond, around, outage := 200, 2*time.Second, 7*time.Second
	if os.Getenv("SHOPBELL_SLOW_TESTS") != "" {
		perSecond, around, outage = 500, 15*time.Second, time.Minute
	}
	pg := storetest.OwnCluster(t)
	h := open(t, many, settings{"SHOPBELL_LOG_STORE": asURL(pg.DSN("postgres"))})
	f := h.newFlow(t)
	f.run(t, "PostgreSQL is there", perSecond, around)
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	f.run(t, "PostgreSQL is away", perSecond, outage) // they are at the receiver before it is back
	h.saysTrouble(t, true)
	if r := h.call(t, "GET", f.at+"/deliveries", ""); r.code != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("reading the log meanwhile: got %d %s, want 503 with Retry-After", r.code, r.body)
	}
	if err := pg.Start(); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	f.run(t, "it is back", perSecond, around)
	f.check(t)
	t.Logf("the log was complete %s after PostgreSQL was back\n%s", time.Since(back).Round(100*time.Millisecond), f.table())
	h.saysTrouble(t, false)
	if !h.wrote(t, "ERROR", "the log's store takes nothing") || !h.wrote(t, "INFO", "takes what happens again") {
		t.Error("the log room does not say that its store was away and is back")
	}
}

func TestStoreAway_AtStartKeepsNobodyFromWorking(t *testing.T) {
	t.Parallel()
	pg := storetest.OwnCluster(t)
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	h := open(t, one, settings{"SHOPBELL_LOG_STORE": asURL(pg.DSN("postgres"))})
	f := h.newFlow(t)
	f.run(t, "PostgreSQL is away since before the start", 100, time.Second)
	if r := h.call(t, "GET", f.at+"/deliveries", ""); r.code != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("reading the log meanwhile: got %d %s, want 503 with Retry-After", r.code, r.body)
	}
	eventually(t, "a line says which database cannot be reached", func() error {
		if !h.wrote(t, "ERROR", "the log's store takes nothing", "connect to the log's database") {
			return errors.New("none does")
		}
		return nil
	})
	if err := pg.Start(); err != nil {
		t.Fatal(err)
	}
	f.check(t)
	h.saysTrouble(t, false)
}

// asURL is a keyword string of PostgreSQL as a URL.
func asURL(address string) string {
	parts := map[string]string{}
	for _, part := range strings.Fields(address) {
		name, value, _ := strings.Cut(part, "=")
		parts[name] = value
	}
	return fmt.Sprintf("postgres:///%s?host=%s&user=%s&pool_max_conns=8", parts["dbname"], parts["host"], parts["user"])
}

func TestStoreSlow_DeliveriesGoOnAndTheLogCatchesUp(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		f := h.newFlow(t)
		f.run(t, "the store is as usual", 100, time.Second)
		release := h.blockStore(t)
		f.run(t, "it waits for a lock", 100, 4*time.Second)
		release()
		f.check(t)
		t.Logf("\n%s", f.table())
	})
}

// blockStore has somebody else hold the log's database, so that writing waits until release.
func (h *house) blockStore(t *testing.T) (release func()) {
	t.Helper()
	address := h.logStoreOf(t)
	ctx := context.Background()
	if path, ok := strings.CutPrefix(address, "sqlite:"); ok {
		db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_txlock=immediate")
		if err != nil {
			t.Fatal(err)
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		return func() { _, _ = tx.Rollback(), db.Close() }
	}
	conn, err := pgx.Connect(ctx, strings.Split(address, "&pool")[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "BEGIN; LOCK TABLE attempts IN EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(ctx) }
}

// logStoreOf is where the house keeps its log.
func (h *house) logStoreOf(t *testing.T) string {
	t.Helper()
	for _, entry := range h.process("log").env {
		if at, ok := strings.CutPrefix(entry, "SHOPBELL_LOG_STORE="); ok {
			return at
		}
	}
	return "sqlite:" + filepath.Join(h.data, "log.db")
}

func TestLogStopped_DeliveriesGoOnAndTheLogCatchesUp(t *testing.T) {
	inManyProcesses(t, nil, func(t *testing.T, h *house) {
		f := h.newFlow(t)
		f.run(t, "the log is there", 100, time.Second)
		h.stop(t, "log")
		f.run(t, "the log is stopped", 100, 3*time.Second)
		h.start(t, "log")
		f.check(t)
		t.Logf("\n%s", f.table())
	})
}

// TestStoreOdd_WhatNoColumnHoldsIsWrittenAndKeepsNothingWaiting has everything that shops and receivers can choose be as
// awkward as it gets: NUL, bytes that are not UTF-8, the greatest size.
func TestStoreOdd_WhatNoColumnHoldsIsWrittenAndKeepsNothingWaiting(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		s := h.newShop(t, "standard")
		url := oddReceiver(t)
		w := s.webhook(t, url+"/%00/%ff%c3?q=%00%ff&r=\u00fc", `"label": "\u0000 \ud83d\ude00"`, policy("1s"))
		large := `{"n":"` + strings.Repeat("\u00e9\\u0000", 120_000) + `"}`
		for name, publish := range map[string]struct {
			query, data, contentType string
		}{
			"bytes": {"?type=order.created&id=bytes", "\x00\xff\xc3\x28 \xed\xa0\x80", "application/octet-stream"},
			"large": {"?type=order.created&id=large", large, "application/json"},
			"text":  {"?type=order.created&id=text", "\xff\xfe", "text/plain; charset=\"utf-16\""},
		} {
			r := h.call(t, "POST", s.at+"/events"+publish.query, publish.data, "Content-Type", publish.contentType)
			if r.code != http.StatusAccepted {
				t.Fatalf("%s: got %d %s, want 202", name, r.code, r.body)
			}
		}
		plain := s.publishOne(t, "order.created", `{"n":1}`)
		for _, id := range []string{"bytes", "large", "text", plain} {
			e := h.awaitEvent(t, s.id, id, allAre("delivered", 1))
			d := e.Story.Deliveries[0]
			if len(d.Attempts) != 2 || d.Attempts[0].ErrorClass != "protocol" || d.Attempts[0].Error == "" {
				t.Errorf("%s: got attempts %+v, want an answer that is no HTTP, and then a success", id, d.Attempts)
			}
		}
		if got := s.stats(t, "/webhooks/"+w.ID+"/stats").Total; got.Delivered != 4 || got.Attempts != 8 || got.ErrorsByResponseCode["none"] != 4 {
			t.Errorf("statistics: got %+v, want 4 deliveries by 8 attempts", got)
		}
		h.saysTrouble(t, false)
	})
}

// oddReceiver answers each delivery 200, with all else as no text should be, and the first time with a header that is none.
func oddReceiver(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex // guards seen
	seen := map[string]bool{}
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				mu.Lock()
				header, id := "X-Odd-\x00\u00fc: c\r\n", req.Header.Get("webhook-id")
				if seen[id] {
					header = ""
				}
				seen[id] = true
				mu.Unlock()
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 \xff\xfe\r\nX-Odd: a\xff\xc3( b\r\n%sContent-Type: \xff\r\nContent-Length: 6\r\nConnection: close\r\n\r\n\x00\xff\xc3(x\x00", header)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return "http://" + l.Addr().String()
}
