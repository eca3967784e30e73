package sender

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/address"
)

// receiver is a listener that answers each connection by hand.
func receiver(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go answer(conn)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// reads takes a request to its end, and then says something.
func reads(answer string) func(net.Conn) {
	return func(conn net.Conn) {
		buffer := make([]byte, 64<<10)
		if _, err := conn.Read(buffer); err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer)
	}
}

// closes is reads that closes the connection behind it.
func closes(answer string) func(net.Conn) {
	return func(conn net.Conn) {
		reads(answer)(conn)
		_ = conn.Close()
	}
}

func hangs(net.Conn) {}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func handler(t *testing.T, tlsToo bool, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(answer)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = nil
	if tlsToo {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func post(t *testing.T, guard *address.Guard, trust *x509.Certificate, target string, body []byte, timeout time.Duration, limit int64) *exchange {
	t.Helper()
	client := clientWith(t, guard, Config{}, nil)
	if trust != nil {
		pool := x509.NewCertPool()
		pool.AddCert(trust)
		client.transport.TLSClientConfig.RootCAs = pool
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // no exchange takes so long, whatever its rules
	defer cancel()
	done := make(chan *exchange, 1)
	go func() {
		done <- do(ctx, client, target, http.Header{"Content-Type": {"application/json"}}, body, timeout, limit)
	}()
	select {
	case x := <-done:
		return x
	case <-time.After(15 * time.Second):
		t.Fatal("the exchange does not end")
		return nil
	}
}

// clientWith makes a client with settings; those that are zero are the defaults.
func clientWith(t testing.TB, guard *address.Guard, cfg Config, resolver *net.Resolver) *client {
	t.Helper()
	cfg.MaxInFlight = 8
	if cfg.MaxIdleConnections == 0 {
		cfg.MaxIdleConnections = 8
	}
	c, err := newClient(guard, cfg, resolver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// Real failures, by what a receiver's owner is told of them.
func TestDo_SaysWhyThereIsNoAnswer(t *testing.T) {
	t.Parallel()
	open, strict := address.NewGuard(address.Private...), address.NewGuard()
	const short = time.Second // a machine that is busy makes the connection and sends the request in it
	for _, row := range []struct {
		name    string
		target  func(t *testing.T) (string, *x509.Certificate)
		guard   *address.Guard
		body    int // bytes
		class   string
		problem string
	}{
		{
			"nothing listens", func(t *testing.T) (string, *x509.Certificate) { return "http://" + closedPort(t), nil }, open, 10,
			"connect", "the receiver refuses the connection: nothing listens there",
		},
		{
			"there is no such host", func(*testing.T) (string, *x509.Certificate) {
				return "http://no-such-host.invalid/hooks?token=s3cret", nil
			}, open, 10,
			"dns", "no-such-host.invalid",
		},
		{
			"the address is ours", func(t *testing.T) (string, *x509.Certificate) { return "http://" + receiver(t, hangs), nil }, strict, 10,
			"blocked_address", "not on the public Internet",
		},
		{"the name leads to an address of ours", func(t *testing.T) (string, *x509.Certificate) {
			return "http://" + strings.Replace(receiver(t, hangs), "127.0.0.1", "localhost", 1), nil
		}, strict, 10, "blocked_address", "the host leads to"},
		{"the certificate is for another host", func(t *testing.T) (string, *x509.Certificate) {
			s := handler(t, true, func(http.ResponseWriter, *http.Request) {})
			return strings.Replace(s.URL, "127.0.0.1", "localhost", 1), s.Certificate()
		}, open, 10, "tls", "the receiver's certificate is not for this host: x509: certificate is valid for"},
		{"nobody trusts the certificate", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, true, func(http.ResponseWriter, *http.Request) {}).URL, nil
		}, open, 10, "tls", "the receiver's certificate is not trusted: x509: "},
		{"plain HTTP where TLS is spoken of", func(t *testing.T) (string, *x509.Certificate) {
			return strings.Replace(handler(t, false, func(http.ResponseWriter, *http.Request) {}).URL, "http:", "https:", 1), nil
		}, open, 10, "tls", "no TLS connection could be made: "},
		{"something that is neither", func(t *testing.T) (string, *x509.Certificate) {
			return "https://" + receiver(t, closes("SSH-2.0-OpenSSH_9.9\r\n")), nil
		}, open, 10, "tls", "no TLS connection could be made: "},
		{"only an old TLS", func(t *testing.T) (string, *x509.Certificate) {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
			s.StartTLS()
			t.Cleanup(s.Close)
			return s.URL, s.Certificate()
		}, open, 10, "tls", "the receiver speaks no TLS 1.2 or later"},
		{
			"the TLS handshake hangs", func(t *testing.T) (string, *x509.Certificate) { return "https://" + receiver(t, hangs), nil }, open, 10,
			"timeout", "no answer within 1s: the TLS handshake was not finished",
		},
		{
			"the receiver hangs", func(t *testing.T) (string, *x509.Certificate) { return "http://" + receiver(t, hangs), nil }, open, 10,
			"timeout", "no answer within 1s: the request was sent, but the receiver did not answer",
		},
		{
			"the receiver does not read", func(t *testing.T) (string, *x509.Certificate) { return "http://" + receiver(t, hangs), nil }, open, 32 << 20,
			"timeout", "no answer within 1s: the request was not sent to its end",
		},
		{"headers that never end", func(t *testing.T) (string, *x509.Certificate) {
			return "http://" + receiver(t, reads("HTTP/1.1 200 OK\r\nX: ")), nil
		}, open, 10, "timeout", "no answer within 1s"},
		{
			"the receiver hangs up", func(t *testing.T) (string, *x509.Certificate) { return "http://" + receiver(t, closes("")), nil }, open, 10,
			"connect", "the receiver closed the connection without an answer",
		},
		{"the receiver hangs up in the headers", func(t *testing.T) (string, *x509.Certificate) {
			return "http://" + receiver(t, closes("HTTP/1.1 200 OK\r\nX: ")), nil
		}, open, 10, "connect", "the receiver closed the connection without an answer"},
		{"a flood of headers", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 200<<10)) }).URL, nil
		}, open, 10, "body_too_large", "the answer's headers are larger than 65536 bytes"},
		{
			"no HTTP", func(t *testing.T) (string, *x509.Certificate) {
				return "http://" + receiver(t, closes("220 mail.example.com ESMTP\r\n")), nil
			}, open, 10,
			"protocol", "what the receiver answered is not HTTP: ",
		},
		{"a length that is none", func(t *testing.T) (string, *x509.Certificate) {
			return "http://" + receiver(t, closes("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n")), nil
		}, open, 10, "protocol", "what the receiver answered is not HTTP: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			target, trust := row.target(t)
			timeout := 10 * time.Second
			if row.class == "timeout" {
				timeout = short
			}
			x := post(t, row.guard, trust, target, bytes.Repeat([]byte("1"), row.body), timeout, 1<<10)
			if x.class != row.class || !strings.Contains(x.problem, row.problem) || x.code != 0 {
				t.Errorf("code %d, %s: %s\nwant 0, %s: %s", x.code, x.class, x.problem, row.class, row.problem)
			}
			shut := row.class == "dns" || row.class == "tls" || row.class == "blocked_address" || row.name == "nothing listens" || row.name == "the TLS handshake hangs"
			if x.reached == shut {
				t.Errorf("there was a connection: %t", x.reached)
			}
			if strings.Contains(x.problem, "s3cret") || strings.Contains(x.problem, "/hooks") {
				t.Errorf("the URL is in %q", x.problem)
			}
			if x.duration <= 0 || x.duration > 12*time.Second {
				t.Errorf("it took %s", x.duration)
			}
		})
	}
}

func TestDo_TakesAnAnswerAsItIs(t *testing.T) {
	t.Parallel()
	const limit = 1 << 10
	long := strings.Repeat("x", 3*limit)
	for _, row := range []struct {
		name   string
		target func(t *testing.T) (string, *x509.Certificate)
		code   int
		body   string
		cut    bool
	}{
		{"a success", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }).URL, nil
		}, 200, "ok", false},
		{"a success over HTTP/2", func(t *testing.T) (string, *x509.Certificate) {
			s := handler(t, true, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
			return s.URL, s.Certificate()
		}, 200, "HTTP/2.0", false},
		{"no body", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }).URL, nil
		}, 204, "", false},
		{"a failure", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }).URL, nil
		}, 500, "no\n", false},
		{
			"a code that nobody knows", func(t *testing.T) (string, *x509.Certificate) {
				return "http://" + receiver(t, closes("HTTP/1.1 799 ?\r\n\r\nx")), nil
			},
			799, "x", false,
		},
		{"a redirect is not followed", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/" {
					t.Error("the redirect was followed")
				}
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			}).URL, nil
		}, 307, "", false},
		{"a redirect to nowhere", func(t *testing.T) (string, *x509.Certificate) {
			return "http://" + receiver(t, closes("HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n")), nil
		}, 302, "", false},
		{"exactly as much as is taken", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, long[:limit]) }).URL, nil
		}, 200, long[:limit], false},
		{"more than is taken", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, long) }).URL, nil
		}, 200, long[:limit], true},
		{"more than is taken, and it never ends", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := io.WriteString(w, long); err != nil {
						return
					}
				}
			}).URL, nil
		}, 200, long[:limit], true},
		{"little that unpacks to much", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				for range 10_000 {
					if _, err := io.WriteString(z, long); err != nil {
						return
					}
				}
				_ = z.Close()
			}).URL, nil
		}, 200, long[:limit], true},
		{"what does not unpack", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = io.WriteString(w, "not gzip at all")
			}).URL, nil
		}, 200, "", true},
		{"it breaks off in the body", func(t *testing.T) (string, *x509.Certificate) {
			return "http://" + receiver(t, closes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")), nil
		}, 200, "half", true},
		{"the body does not come", func(t *testing.T) (string, *x509.Certificate) {
			return "http://" + receiver(t, reads("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")), nil
		}, 200, "half", true},
		{"another protocol is offered, and nothing follows", func(t *testing.T) (string, *x509.Certificate) {
			return "http://" + receiver(t, reads("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhi")), nil
		}, 101, "", false},
		{"hints before the answer", func(t *testing.T) (string, *x509.Certificate) {
			return handler(t, false, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusEarlyHints)
				_, _ = io.WriteString(w, "ok")
			}).URL, nil
		}, 200, "ok", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			target, trust := row.target(t)
			timeout := 10 * time.Second
			if strings.Contains(row.name, "does not come") || strings.Contains(row.name, "nothing follows") {
				timeout = time.Second
			}
			x := post(t, address.NewGuard(address.Private...), trust, target, []byte("{}"), timeout, limit)
			if x.class != "" || x.problem != "" || x.code != row.code || string(x.body) != row.body || x.cut != row.cut {
				t.Errorf("code %d, body %.50q, cut %v, %s %s\nwant %d, %.50q, %v", x.code, x.body, x.cut, x.class, x.problem, row.code, row.body, row.cut)
			}
			if v := decide(rules(nil), 1, false, x, 0); (v.status == delivered) != (row.code/100 == 2) {
				t.Errorf("code %d is %s", row.code, v.status)
			}
		})
	}
}

func TestDo_SendsTheBytesAndMeasuresTheParts(t *testing.T) {
	t.Parallel()
	body := []byte("{ \"total\":549.50,\n\"a\":\"\\/<&>\"}")
	s := handler(t, true, func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(got, body) || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %q %v, %v", r.Method, got, r.Header, err)
		}
		w.Header().Set("Retry-After", "7")
		w.Header().Set("X-Receiver", "here")
	})
	x := post(t, address.NewGuard(address.Private...), s.Certificate(), s.URL+"/hooks?x=1", body, 10*time.Second, 1<<10)
	if x.code != 200 || x.retryAfter != 7*time.Second || x.response.Get("X-Receiver") != "here" || x.url != s.URL+"/hooks?x=1" {
		t.Errorf("code %d, Retry-After %s, headers %v, url %s: %s", x.code, x.retryAfter, x.response, x.url, x.problem)
	}
	if p := x.timings; p.ConnectMs <= 0 || p.TlsMs <= 0 || p.FirstByteMs <= 0 || p.ConnectMs+p.TlsMs+p.FirstByteMs > millis(x.duration) {
		t.Errorf("parts %v of %s", p, x.duration)
	}
}

func TestDo_MeasuresAnAnswerThatComesBeforeTheRequestIsWritten(t *testing.T) {
	t.Parallel()
	target := receiver(t, func(conn net.Conn) {
		head := make([]byte, 1)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		time.Sleep(5 * time.Millisecond) // which is what is to be measured; a body of 32 MiB is not written in between
		_, _ = io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
	})
	x := post(t, address.NewGuard(address.Private...), nil, "http://"+target, make([]byte, 32<<20), 10*time.Second, 1<<10)
	if x.code != 401 || x.timings.FirstByteMs < 5 || x.timings.FirstByteMs > millis(x.duration) {
		t.Errorf("code %d, parts %v of %s: %s", x.code, x.timings, x.duration, x.problem)
	}
}

func TestDo_SaysWhenItWasStopped(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	target := receiver(t, func(conn net.Conn) { reads("")(conn); stop() })
	client := clientWith(t, address.NewGuard(address.Private...), Config{}, nil)
	x := do(ctx, client, "http://"+target, http.Header{}, []byte("{}"), 10*time.Second, 1<<10)
	if x.class != "interrupted" {
		t.Errorf("%s: %s, want interrupted", x.class, x.problem)
	}
}

func TestDo_RefusesWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, target string
		h            http.Header
	}{
		{"a URL that is none", "http://example.com/%zz?token=s3cret", http.Header{}},
		{"a header's value with a line break", "http://127.0.0.1:1/?token=s3cret", http.Header{"X": {"a\r\nb"}}},
		{"a header's name with a blank", "http://127.0.0.1:1/?token=s3cret", http.Header{"X Y": {"a"}}},
	} {
		client := clientWith(t, address.NewGuard(address.Private...), Config{}, nil)
		x := do(t.Context(), client, row.target, row.h, nil, time.Second, 1<<10)
		if x.class != "request" || !strings.HasPrefix(x.problem, "the request cannot be made: ") || strings.Contains(x.problem, "s3cret") {
			t.Errorf("%s: %s: %s, want request, and no token", row.name, x.class, x.problem)
		}
	}
}

func TestDo_SaysTimeoutWhenTheTransportGivesUpFirst(t *testing.T) {
	t.Parallel()
	client := clientWith(t, address.NewGuard(address.Private...), Config{}, nil)
	client.transport.TLSHandshakeTimeout = 50 * time.Millisecond
	x := do(t.Context(), client, "https://"+receiver(t, hangs), http.Header{}, nil, 10*time.Second, 1<<10)
	if x.class != "timeout" || !strings.Contains(x.problem, "the TLS handshake was not finished") {
		t.Errorf("%s: %s, want timeout in the TLS handshake", x.class, x.problem)
	}
}

func TestDo_KeepsConnectionsForTheNext(t *testing.T) {
	t.Parallel()
	var addresses []string
	s := handler(t, false, func(_ http.ResponseWriter, r *http.Request) { addresses = append(addresses, r.RemoteAddr) })
	client := clientWith(t, address.NewGuard(address.Private...), Config{}, nil)
	for i := range 3 {
		if x := do(t.Context(), client, s.URL, http.Header{}, []byte(fmt.Sprint(i)), 10*time.Second, 1<<10); x.code != 200 {
			t.Fatalf("%s: %s", x.class, x.problem)
		}
	}
	if addresses[0] != addresses[1] || addresses[1] != addresses[2] {
		t.Errorf("connections from %q, want one", addresses)
	}
}
