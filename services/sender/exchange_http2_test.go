package sender

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"shopbell.dev/pkg/address"
)

// frames speaks HTTP/2 by hand to each connection, after the handshake and the client's preface.
func frames(t *testing.T, ca *authority, answer func(*http2.Framer)) (url string, connections *atomic.Int32) {
	t.Helper()
	connections = &atomic.Int32{}
	return "https://" + receiver(t, func(conn net.Conn) {
		connections.Add(1)
		defer func() { _ = conn.Close() }()
		s := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1")}, NextProtos: []string{"h2"}})
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(s, preface); err != nil {
			return
		}
		f := http2.NewFramer(s, s)
		f.AllowIllegalWrites = true
		answer(f)
	}), connections
}

// asked reads until a request's headers have come, and gives its stream.
func asked(f *http2.Framer) uint32 {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return 0
		}
		if h, ok := frame.(*http2.HeadersFrame); ok {
			return h.StreamID
		}
	}
}

// drain reads all that comes, so that whoever sends is not held up.
func drain(f *http2.Framer) {
	go func() {
		for {
			if _, err := f.ReadFrame(); err != nil {
				return
			}
		}
	}()
}

func block(fields ...string) []byte {
	var out bytes.Buffer
	e := hpack.NewEncoder(&out)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return out.Bytes()
}

func forever(step func(i int) error) {
	for i := 0; step(i) == nil; i++ {
	}
}

// A receiver that speaks HTTP/2 to do harm costs an attempt, and neither time nor memory.
func TestDo_EndsWhateverIsSentOverHTTP2(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, row := range []struct {
		name    string
		answer  func(*http2.Framer)
		class   string // one of
		timeout time.Duration
	}{
		{"it goes away at once, on every connection", func(f *http2.Framer) {
			_ = f.WriteSettings()
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
			drain(f)
			time.Sleep(50 * time.Millisecond)
		}, "connect", 5 * time.Second},
		{"it goes away when it is asked, and would have the request again", func(f *http2.Framer) {
			_ = f.WriteSettings()
			asked(f)
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
			drain(f)
			time.Sleep(50 * time.Millisecond)
		}, "connect", 5 * time.Second},
		{"it goes away when it is asked", func(f *http2.Framer) {
			_ = f.WriteSettings()
			asked(f)
			_ = f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("too much"))
			drain(f)
			time.Sleep(50 * time.Millisecond)
		}, "connect protocol timeout", 3 * time.Second},
		{"it resets every request", func(f *http2.Framer) {
			_ = f.WriteSettings()
			for id := asked(f); id != 0; id = asked(f) {
				_ = f.WriteRSTStream(id, http2.ErrCodeInternal)
			}
		}, "connect protocol", 5 * time.Second},
		{"it refuses every request", func(f *http2.Framer) {
			_ = f.WriteSettings()
			for id := asked(f); id != 0; id = asked(f) {
				_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
			}
		}, "connect protocol timeout", time.Second},
		{"hints without end", func(f *http2.Framer) {
			_ = f.WriteSettings()
			id := asked(f)
			drain(f)
			forever(func(int) error {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "103", "link", strings.Repeat("x", 100)), EndHeaders: true})
			})
		}, "body_too_large", 5 * time.Second},
		{"hints without a header, without end", func(f *http2.Framer) {
			_ = f.WriteSettings()
			id := asked(f)
			drain(f)
			forever(func(int) error {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "103"), EndHeaders: true})
			})
		}, "body_too_large", 5 * time.Second},
		{"headers that are continued without end", func(f *http2.Framer) {
			_ = f.WriteSettings()
			id := asked(f)
			drain(f)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "200")})
			forever(func(i int) error {
				return f.WriteContinuation(id, false, block(fmt.Sprintf("x-%d", i), strings.Repeat("x", 1000)))
			})
		}, "body_too_large protocol", 5 * time.Second},
		{"headers that are continued with nothing", func(f *http2.Framer) {
			_ = f.WriteSettings()
			id := asked(f)
			drain(f)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "200")})
			forever(func(int) error { return f.WriteContinuation(id, false, nil) })
		}, "body_too_large protocol", 5 * time.Second},
		{"settings without end", func(f *http2.Framer) {
			drain(f)
			forever(func(int) error {
				return f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
			})
		}, "body_too_large", 5 * time.Second},
		{"pings without end", func(f *http2.Framer) {
			_ = f.WriteSettings()
			drain(f)
			forever(func(int) error { return f.WritePing(false, [8]byte{}) })
		}, "body_too_large", 5 * time.Second},
		{"a header that unpacks to much", func(f *http2.Framer) {
			_ = f.WriteSettings()
			id := asked(f)
			drain(f)
			var out bytes.Buffer
			e := hpack.NewEncoder(&out)
			_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			for range 10_000 { // one byte each, behind the first
				_ = e.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 2000)})
			}
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: out.Bytes()[:min(out.Len(), 16<<10)], EndHeaders: true})
			time.Sleep(time.Minute)
		}, "body_too_large", 5 * time.Second},
		{"nothing", func(f *http2.Framer) {
			_ = f.WriteSettings()
			drain(f)
			time.Sleep(time.Minute)
		}, "timeout", 200 * time.Millisecond},
		{"a window that lets nothing through", func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			drain(f)
			time.Sleep(time.Minute)
		}, "timeout", 200 * time.Millisecond},
		{"no request at a time", func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
			drain(f)
			time.Sleep(time.Minute)
		}, "timeout connect", 200 * time.Millisecond},
		{"a frame larger than is allowed", func(f *http2.Framer) {
			_ = f.WriteSettings()
			id := asked(f)
			drain(f)
			_ = f.WriteData(id, false, make([]byte, 4<<20))
			time.Sleep(time.Minute)
		}, "protocol connect", 5 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			target, connections := frames(t, ca, row.answer)
			before := time.Now()
			x := post(t, address.NewGuard(address.Private...), ca.certificate, target, []byte(`{"a":1}`), row.timeout, 1<<10)
			t.Logf("%s: %s (%d) after %s, %d connections", x.class, x.problem, x.code, time.Since(before), connections.Load())
			if x.class == "" || !strings.Contains(row.class, x.class) {
				t.Errorf("code %d, %s: %s; want %s", x.code, x.class, x.problem, row.class)
			}
			if n := connections.Load(); n > maxDials {
				t.Errorf("%d connections were made, want at most %d", n, maxDials)
			}
		})
	}
}

// A receiver that takes few requests at a time gets more connections, and every request is answered.
func TestDo_SharesConnectionsOverHTTP2(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	var connections atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 4}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1")}}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	c := clientWith(t, address.NewGuard(address.Private...), Config{CAFile: ca.file(t)}, nil)
	for range 3 {
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				x := do(t.Context(), c, s.URL, http.Header{}, []byte("{}"), 20*time.Second, 1<<10)
				if x.code != 200 || string(x.body) != "HTTP/2.0" {
					t.Errorf("%d %s: %s %s", x.code, x.class, x.problem, x.body)
				}
			})
		}
		all.Wait()
	}
	t.Logf("%d connections for 3 times 40", connections.Load())
}

// A receiver that has gone silent on a connection is noticed, and one that shares nothing with it is not held up.
func TestDo_LeavesAConnectionOnWhichNothingComes(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	silent, connections := frames(t, ca, func(f *http2.Framer) {
		_ = f.WriteSettings()
		asked(f)
		time.Sleep(time.Minute) // reads nothing any more, and answers no ping
	})
	c := clientWith(t, address.NewGuard(address.Private...), Config{CAFile: ca.file(t)}, nil)
	c.transport.HTTP2.SendPingTimeout, c.transport.HTTP2.PingTimeout = 200*time.Millisecond, 3*time.Second
	well := secure(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1")}}, func(http.ResponseWriter, *http.Request) {})
	stuck := make(chan *exchange, 1)
	go func() { stuck <- do(t.Context(), c, silent, http.Header{}, []byte("{}"), 20*time.Second, 1<<10) }()
	for range 20 {
		if x := do(t.Context(), c, well, http.Header{}, []byte("{}"), 10*time.Second, 1<<10); x.code != 200 {
			t.Errorf("beside it: %s: %s", x.class, x.problem)
		}
	}
	x := <-stuck
	if x.class != "connect" || x.duration > 10*time.Second {
		t.Errorf("%s: %s after %s; want connect, long before the time is over", x.class, x.problem, x.duration)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1: the request was on its way, so it is not sent again", n)
	}
}

// What is read from a connection is bounded, but not for a receiver that is well, however often it is asked and however
// much it answers.
func TestDo_UsesAConnectionForLong(t *testing.T) {
	t.Parallel()
	const limit = 4 << 10
	ca := newAuthority(t)
	for _, over := range []string{"h2", "http/1.1"} {
		for _, size := range []int{limit, 1 << 20} { // as much as is taken, and far more
			var connections atomic.Int32
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) }))
			s.EnableHTTP2 = over == "h2"
			s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1")}}
			s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			s.StartTLS()
			t.Cleanup(s.Close)
			c := clientWith(t, address.NewGuard(address.Private...), Config{CAFile: ca.file(t)}, nil)
			do(t.Context(), c, s.URL, http.Header{}, nil, 10*time.Second, limit)
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for range 50 {
						if x := do(t.Context(), c, s.URL, http.Header{}, []byte("{}"), 20*time.Second, limit); x.code != 200 || len(x.body) != limit || x.cut != (size > limit) {
							t.Errorf("%s, %d bytes: %d, %d bytes, %s: %s", over, size, x.code, len(x.body), x.class, x.problem)
						}
					}
				})
			}
			all.Wait()
			if n := connections.Load(); over == "h2" && n != 1 || over != "h2" && size == limit && n > 100 {
				t.Errorf("%s, %d bytes: %d connections for 401 exchanges", over, size, n)
			}
		}
	}
}
