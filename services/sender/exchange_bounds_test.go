package sender

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/testwait"
)

// drips says something byte after byte.
func drips(first, each string) func(net.Conn) {
	return func(conn net.Conn) {
		reads(first)(conn)
		for {
			time.Sleep(5 * time.Millisecond) // so that each is a piece of its own, and few have come by the deadline
			if _, err := io.WriteString(conn, each); err != nil {
				return
			}
		}
	}
}

// floods says something again and again, as fast as it is taken.
func floods(first, each string) func(net.Conn) {
	return func(conn net.Conn) {
		reads(first)(conn)
		all := []byte(strings.Repeat(each, 1+4096/len(each)))
		for {
			if _, err := conn.Write(all); err != nil {
				return
			}
		}
	}
}

func compressed(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// nothingCompressed is gzip that goes on without end and unpacks to nothing: empty blocks.
func nothingCompressed() (first, each string) {
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.NoCompression)
	if err != nil {
		panic(err)
	}
	_ = z.Flush()
	return "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", out.String()
}

// Whatever a receiver sends and however slowly, the exchange ends at its deadline, and what was read of the answer is
// what is kept.
func TestDo_EndsWhateverIsSent(t *testing.T) {
	t.Parallel()
	const short, limit = 2 * time.Second, 1 << 10
	ok := "HTTP/1.1 200 OK\r\n"
	emptyFirst, emptyEach := nothingCompressed()
	bomb := compressed(t, compressed(t, make([]byte, 10<<20)))
	for _, row := range []struct {
		name    string
		answer  func(net.Conn)
		tls     bool
		timeout time.Duration
		want    string // class, or the code with "cut" behind it
		body    string
	}{
		{"a body that drips", drips(ok+"Content-Length: 100000\r\n\r\n", "x"), false, short, "200 cut", "x"},
		{"a body that drips in chunks", drips(ok+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), false, short, "200 cut", "x"},
		{"headers that drip", drips(ok+"X: ", "x"), false, short, "timeout", ""},
		{"a status that drips", drips("HTTP/1.1 2", "0"), false, short, "timeout protocol", ""},
		{"hints that drip", drips("", "HTTP/1.1 103 Early Hints\r\n\r\n"), false, short, "timeout", ""},
		{"a handshake that drips", drips("\x16\x03\x03\x40\x00", "\x02"), true, short, "timeout tls", ""},
		{"trailers that drip", drips(ok+"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\nx\r\n0\r\nX: ", "y"), false, short, "200 cut", "x"},
		{"hints without end", floods("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), false, 10 * time.Second, "body_too_large", ""},
		{"hints without a header, without end", floods("", "HTTP/1.1 103 x\r\n\r\n"), false, 10 * time.Second, "body_too_large", ""},
		{"a status without end", floods("HTTP/1.1 200 ", "x"), false, 10 * time.Second, "body_too_large", ""},
		{"headers without end", floods(ok, "X: y\r\n"), false, 10 * time.Second, "body_too_large", ""},
		{"a body without end", floods(ok+"\r\n", "x"), false, 10 * time.Second, "200 cut", strings.Repeat("x", limit)},
		{"chunks without end", floods(ok+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), false, 10 * time.Second, "200 cut", strings.Repeat("x", limit)},
		{"extensions of a chunk without end", floods(ok+"Transfer-Encoding: chunked\r\n\r\n1;", "x"), false, 10 * time.Second, "200 cut", ""},
		{"trailers without end", floods(ok+"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n", "X: y\r\n"), false, 10 * time.Second, "200 cut", ""},
		{"an empty compressed body without end", floods(ok+"Content-Encoding: gzip\r\n\r\n"+emptyFirst, emptyEach), false, 10 * time.Second, "200 cut", ""},
		{"a compressed body's name without end", floods(ok+"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff", "x"), false, 10 * time.Second, "200 cut", ""},
		{"compressed twice, it is unpacked once", closes(ok + "Content-Encoding: gzip\r\n\r\n" + string(bomb)), false, 10 * time.Second, "200", string(compressed(t, make([]byte, 10<<20)))[:limit]},
		{"compressed twice, and it says so", closes(ok + "Content-Encoding: gzip, gzip\r\n\r\n" + string(bomb[:100])), false, 10 * time.Second, "200", string(bomb[:100])},
		{"compressed in a way that was not asked for", closes(ok + "Content-Encoding: br\r\n\r\nxyz"), false, 10 * time.Second, "200", "xyz"},
		{"a compressed body that breaks off", closes(ok + "Content-Encoding: gzip\r\n\r\n" + string(compressed(t, []byte("hello"))[:14])), false, 10 * time.Second, "200 cut", ""},
		{"shorter than it says", closes(ok + "Content-Length: 9000000000000\r\n\r\nhi"), false, 10 * time.Second, "200 cut", "hi"},
		{"longer than it says", closes(ok + "Connection: close\r\nContent-Length: 2\r\n\r\nhi there"), false, 10 * time.Second, "200", "hi"},
		{"two lengths", closes(ok + "Content-Length: 2\r\nContent-Length: 5\r\n\r\nhi"), false, 10 * time.Second, "protocol", ""},
		{"no status at all", closes("\r\n\r\n"), false, 10 * time.Second, "protocol", ""},
		{"HTTP/0.9", closes("<html>"), false, 10 * time.Second, "protocol", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			target := "http://"
			if row.tls {
				target = "https://"
			}
			x := post(t, address.NewGuard(address.Private...), nil, target+receiver(t, row.answer), []byte("{}"), row.timeout, limit)
			got := x.class
			if x.code > 0 {
				got = strings.TrimSpace(fmt.Sprint(x.code, map[bool]string{true: " cut"}[x.cut]))
			}
			if strings.HasPrefix(row.name, "compressed twice, it is") {
				got = strings.TrimSuffix(got, " cut")
			}
			if got == "" || !strings.Contains(row.want, got) || row.want == "200" && x.cut && !strings.Contains(row.name, "twice") {
				t.Errorf("%s (%s), want %s", got, x.problem, row.want)
			}
			if !strings.HasPrefix(string(x.body), row.body) || len(x.body) > limit {
				t.Errorf("a body of %d bytes: %.60q, want %.60q", len(x.body), x.body, row.body)
			}
			if x.duration > 8*time.Second {
				t.Errorf("it took %s", x.duration)
			}
		})
	}
}

// A receiver that answers before it has read all has answered.
func TestDo_TakesAnAnswerThatComesEarly(t *testing.T) {
	t.Parallel()
	target := receiver(t, reads("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"))
	x := post(t, address.NewGuard(address.Private...), nil, "http://"+target, make([]byte, 32<<20), 10*time.Second, 1<<10)
	if x.code != 413 || string(x.body) != "no" {
		t.Errorf("%d %q, %s: %s; want 413", x.code, x.body, x.class, x.problem)
	}
}

// What hangs while a connection is made ends with the exchange that it is made for.
func TestDo_EndsResolvingWithTheExchange(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 10)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}
	c := clientWith(t, address.NewGuard(), Config{}, resolver)
	if x := do(t.Context(), c, "http://shop.example.com/", http.Header{}, nil, 50*time.Millisecond, 1<<10); x.class != "timeout" {
		t.Errorf("%s: %s, want timeout", x.class, x.problem)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) { // and not when the resolver has waited for long enough
		t.Errorf("it ended by %v, want that nobody waits for it any more", err)
	}
}

func TestDo_EndsDiallingWithTheExchange(t *testing.T) {
	t.Parallel()
	hanging := receiver(t, hangs)
	c := clientWith(t, address.NewGuard(address.Private...), Config{}, nil)
	var open atomic.Int32
	dial := c.transport.DialContext
	c.transport.DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
		conn, err := dial(ctx, network, to)
		if err == nil {
			open.Add(1)
			own := conn.(*connection)
			own.Conn = &counted{own.Conn, &open, sync.Once{}}
		}
		return conn, err
	}
	for range 20 {
		if x := do(t.Context(), c, "https://"+hanging, http.Header{}, nil, 20*time.Millisecond, 1<<10); x.class != "timeout" {
			t.Errorf("%s: %s, want timeout", x.class, x.problem)
		}
	}
	testwait.Until(t, "the connections whose handshakes hang are closed", func() bool { return open.Load() == 0 })
}

// A connection outlives the exchange that it was made for.
func TestDo_KeepsAConnectionBeyondItsFirstDeadline(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		var connections atomic.Int32
		s := handler(t, secure, func(http.ResponseWriter, *http.Request) {})
		c := clientWith(t, address.NewGuard(address.Private...), Config{}, nil)
		if secure {
			c.transport.TLSClientConfig.RootCAs = x509.NewCertPool()
			c.transport.TLSClientConfig.RootCAs.AddCert(s.Certificate())
		}
		dial := c.transport.DialContext
		c.transport.DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
			connections.Add(1)
			return dial(ctx, network, to)
		}
		const timeout = 2 * time.Second
		began := time.Now()
		for _, wait := range []time.Duration{0, timeout + 100*time.Millisecond} {
			time.Sleep(wait - time.Since(began)) // until the first one's deadline is over
			if x := do(t.Context(), c, s.URL, http.Header{}, nil, timeout, 1<<10); x.code != 200 {
				t.Errorf("%s: %s", x.class, x.problem)
			}
		}
		if n := connections.Load(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	}
}

// counted is a connection that says when it is closed.
type counted struct {
	net.Conn
	open *atomic.Int32
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// However many hosts there are, and whether they speak HTTP/1.1 or HTTP/2, so many idle connections are kept.
func TestDo_KeepsFewConnectionsOfManyHosts(t *testing.T) {
	for _, row := range []struct {
		name  string
		hosts int
		tls   bool
	}{{"HTTP/1.1", 3000, false}, {"HTTP/2", 300, true}} {
		t.Run(row.name, func(t *testing.T) {
			const keep = 50
			ca := newAuthority(t)
			var open atomic.Int32
			l, err := net.Listen("tcp4", "0.0.0.0:0")
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
			_ = s.Listener.Close()
			s.Listener, s.EnableHTTP2 = l, true
			s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				switch state {
				case http.StateNew:
					open.Add(1)
				case http.StateClosed:
					open.Add(-1)
				default:
				}
			}
			scheme := "http"
			if row.tls {
				scheme, s.TLS = "https", &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "*.example.com")}}
				s.StartTLS()
			} else {
				s.Start()
			}
			t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
			_, port, err := net.SplitHostPort(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			names := map[string][]reply{}
			for i := range row.hosts {
				names[fmt.Sprintf("shop%d.example.com", i)] = []reply{{addresses: fmt.Sprintf("127.1.%d.%d", i/250, 1+i%250)}}
			}
			c := clientWith(t, address.NewGuard(address.Private...), Config{CAFile: ca.file(t), MaxIdleConnections: keep}, nameserver(t, names))
			before := runtime.NumGoroutine()
			var all sync.WaitGroup
			hosts := make(chan int)
			for range 8 {
				all.Go(func() {
					for i := range hosts {
						x := do(t.Context(), c, fmt.Sprintf("%s://shop%d.example.com:%s/", scheme, i, port), http.Header{}, []byte("{}"), 10*time.Second, 1<<10)
						if x.code != 200 || row.tls && string(x.body) != "HTTP/2.0" {
							t.Errorf("host %d: %d %q, %s: %s", i, x.code, x.body, x.class, x.problem)
						}
					}
				})
			}
			for i := range row.hosts {
				hosts <- i
			}
			close(hosts)
			all.Wait()
			testwait.Until(t, fmt.Sprintf("at most %d connections are open", keep), func() bool { return open.Load() <= keep })
			if n := open.Load(); n < keep/2 {
				t.Errorf("%d connections are open, want about %d: they are to be used again", n, keep)
			}
			// On our side two for each connection, on the server's one or two.
			testwait.Until(t, "the goroutines are gone with the connections", func() bool { return runtime.NumGoroutine() <= before+6*keep })
			if n := c.connections.idle.Len(); n > keep {
				t.Errorf("%d connections are remembered, want at most %d", n, keep)
			}
		})
	}
}

// A connection that is closed to make room while an exchange is being given it costs the exchange nothing.
func TestDo_GoesOnWhenItsConnectionWasClosedToMakeRoom(t *testing.T) {
	t.Parallel()
	for _, over := range []string{"HTTP/1.1", "HTTP/2.0"} {
		var requests atomic.Int32
		s := handler(t, over == "HTTP/2.0", func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			_, _ = io.WriteString(w, r.Proto)
		})
		c := clientWith(t, address.NewGuard(address.Private...), Config{}, nil)
		if over == "HTTP/2.0" {
			c.transport.TLSClientConfig.RootCAs = x509.NewCertPool()
			c.transport.TLSClientConfig.RootCAs.AddCert(s.Certificate())
		}
		var last *brittle
		dial := c.transport.DialContext
		c.transport.DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
			conn, err := dial(ctx, network, to)
			if err == nil {
				last = &brittle{Conn: conn.(*connection).Conn}
				conn.(*connection).Conn = last
			}
			return conn, err
		}
		for i := range 3 {
			if i == 1 { // as end does to the one that was not used for longest
				c.connections.mu.Lock()
				c.connections.idle.Front().Value.(*connection).closed = true
				c.connections.mu.Unlock()
				last.broken.Store(true)
			}
			if x := do(t.Context(), c, s.URL, http.Header{}, []byte("{}"), 10*time.Second, 1<<10); x.code != 200 || string(x.body) != over {
				t.Errorf("%s, exchange %d: %q, %s: %s", over, i, x.body, x.class, x.problem)
			}
		}
		if n := requests.Load(); n != 3 {
			t.Errorf("%s: %d requests, want 3", over, n)
		}
	}
}

// brittle is a connection that breaks when it is told to, and then says so at the next write.
type brittle struct {
	net.Conn
	broken atomic.Bool
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.broken.Load() {
		return 0, net.ErrClosed
	}
	return b.Conn.Write(p)
}

// A name that nobody answers for costs those who ask for it their time, and nobody else anything.
func TestDo_WaitsForNoNameButItsOwn(t *testing.T) {
	t.Parallel()
	var names sync.WaitGroup
	resolver := nameserver(t, map[string][]reply{
		"dead.example.com": {{silent: true}}, "broken.example.com": {{broken: true}}, "well.example.com": {{addresses: "127.0.0.1"}},
	})
	s := handler(t, false, func(http.ResponseWriter, *http.Request) {})
	well := strings.Replace(s.URL, "127.0.0.1", "well.example.com", 1)
	c := clientWith(t, address.NewGuard(address.Private...), Config{}, resolver)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var waiting atomic.Int32
	for range 200 {
		waiting.Add(1)
		names.Go(func() {
			defer waiting.Add(-1)
			x := do(ctx, c, "http://dead.example.com/", http.Header{}, []byte("{}"), time.Minute, 1<<10)
			if x.class != "interrupted" && x.class != "dns" {
				t.Errorf("dead: %d %s: %s", x.code, x.class, x.problem)
			}
		})
	}
	for range 20 {
		if x := do(t.Context(), c, well, http.Header{}, []byte("{}"), 10*time.Second, 1<<10); x.code != 200 {
			t.Errorf("well: %s: %s", x.class, x.problem)
		}
		c.CloseIdleConnections()
	}
	if n := waiting.Load(); n != 200 {
		t.Errorf("%d of 200 still wait for the dead name", n)
	}
	stop()
	names.Wait()
	x := do(t.Context(), c, "http://dead.example.com/", http.Header{}, nil, 100*time.Millisecond, 1<<10)
	if x.class != "timeout" || !strings.Contains(x.problem, "still being resolved") {
		t.Errorf("dead: %s: %s, want timeout while it is resolved", x.class, x.problem)
	}
	if x := do(t.Context(), c, "http://broken.example.com/", http.Header{}, nil, 10*time.Second, 1<<10); x.class != "dns" {
		t.Errorf("broken: %s: %s, want dns", x.class, x.problem)
	}
}
