package sender

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/config"
)

// connector is a proxy that takes CONNECT, and remembers what it was asked for.
type connector struct {
	answer string // in place of a connection

	mu    sync.Mutex // guards asked
	asked []string   // addresses, with the caller's credentials in front
}

func (p *connector) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, strings.TrimSpace(req.Header.Get("Proxy-Authorization")+" "+req.Method+" "+req.RequestURI))
	p.mu.Unlock()
	if p.answer != "" {
		_, _ = io.WriteString(conn, p.answer)
		return
	}
	var d net.Dialer
	out, err := d.DialContext(context.Background(), "tcp", req.RequestURI)
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer func() { _ = out.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
	_, _ = io.Copy(conn, out)
}

func (p *connector) was() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.asked, ", ")
}

// socks is a proxy that takes SOCKS 5, without and with a password, and addresses alone.
func socks(p *connector) func(net.Conn) {
	return func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		head := make([]byte, 2)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		methods := make([]byte, head[1])
		_, _ = io.ReadFull(conn, methods)
		_, _ = conn.Write([]byte{5, 0})
		ask := make([]byte, 10)
		if _, err := io.ReadFull(conn, ask); err != nil || ask[3] != 1 { // a name
			return
		}
		to := (&net.TCPAddr{IP: ask[4:8], Port: int(ask[8])<<8 | int(ask[9])}).String()
		p.mu.Lock()
		p.asked = append(p.asked, "SOCKS "+to)
		p.mu.Unlock()
		var d net.Dialer
		out, err := d.DialContext(context.Background(), "tcp", to)
		if err != nil {
			return
		}
		defer func() { _ = out.Close() }()
		_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		go func() { _, _ = io.Copy(out, conn); _ = out.Close() }()
		_, _ = io.Copy(conn, out)
	}
}

// The operator's proxy is told addresses that were looked at, and no name, whatever it speaks and whatever is sent.
func TestDo_GoesThroughTheOperatorsProxy(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	resolver := nameserver(t, map[string][]reply{
		"shop.example.com":   {{addresses: "127.0.0.1"}},
		"inside.example.com": {{addresses: "127.0.0.7"}},
		"both.example.com":   {{addresses: "127.0.0.7 127.0.0.1"}},
	})
	answer := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto+" "+r.Host) }
	plain := handler(t, false, answer).Listener.Addr().(*net.TCPAddr)
	over := secureAt(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "*.example.com")}}, answer)
	_, plainPort, _ := net.SplitHostPort(plain.String())
	for _, kind := range []struct {
		name, scheme, user, as string
		serve                  func(*connector) func(net.Conn)
	}{
		{"HTTP", "http://", "", "CONNECT ", func(p *connector) func(net.Conn) { return p.serve }},
		{"HTTP with a password", "http://", "me:s3cret@", "Basic " + base64.StdEncoding.EncodeToString([]byte("me:s3cret")) + " CONNECT ", func(p *connector) func(net.Conn) { return p.serve }},
		{"HTTPS", "https://", "", "CONNECT ", func(p *connector) func(net.Conn) {
			return func(conn net.Conn) {
				p.serve(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1")}}))
			}
		}},
		{"SOCKS 5", "socks5://", "", "SOCKS ", socks},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			p := &connector{}
			cfg := Config{CAFile: ca.file(t), ProxyURL: config.Secret(kind.scheme + kind.user + receiver(t, kind.serve(p)))}
			c := clientWith(t, address.NewGuard(opened(t, "127.0.0.1")), cfg, resolver)
			for _, row := range []struct{ url, class, body string }{
				{"http://shop.example.com:" + plainPort, "", "HTTP/1.1 shop.example.com:" + plainPort},
				{"https://shop.example.com:" + over, "", "HTTP/2.0 shop.example.com:" + over},
				{"http://both.example.com:" + plainPort, "", "HTTP/1.1 both.example.com:" + plainPort},
				{"http://inside.example.com:" + plainPort, "blocked_address", ""},
				{"http://127.0.0.7:" + plainPort, "blocked_address", ""},
				{"http://[::ffff:127.0.0.7]:" + plainPort, "blocked_address", ""},
				{"http://169.254.169.254/", "blocked_address", ""},
				{"http://nobody.example.com/", "dns", ""},
			} {
				x := do(t.Context(), c, row.url, http.Header{}, []byte("{}"), 10*time.Second, 1<<10)
				if x.class != row.class || string(x.body) != row.body {
					t.Errorf("%s: %d %q, %s: %s; want %q, %q", row.url, x.code, x.body, x.class, x.problem, row.body, row.class)
				}
			}
			want := strings.Join([]string{kind.as + "127.0.0.1:" + plainPort, kind.as + "127.0.0.1:" + over, kind.as + "127.0.0.1:" + plainPort}, ", ")
			if got := p.was(); got != want {
				t.Errorf("the proxy was asked for %s, want %s", got, want)
			}
		})
	}
}

// secureAt gives the port of a receiver with TLS.
func secureAt(t *testing.T, config *tls.Config, answer http.HandlerFunc) (port string) {
	t.Helper()
	return secure(t, config, answer)[len("https://127.0.0.1:"):]
}

func TestDo_SaysWhenItIsTheProxy(t *testing.T) {
	t.Parallel()
	refuses := &connector{answer: "HTTP/1.1 403 Forbidden\r\n\r\n"}
	talks := &connector{answer: "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}
	for _, row := range []struct {
		name, proxy, class, problem string
	}{
		{"nothing listens", "http://me:s3cret@" + closedPort(t), "connect", "proxy"},
		{"it has no name", "http://me:s3cret@no-such-proxy.invalid:3128", "connect", "proxy"},
		{"it refuses", "http://me:s3cret@" + receiver(t, refuses.serve), "connect", "it answered 403 Forbidden"},
		{"it answers for the receiver", "http://me:s3cret@" + receiver(t, talks.serve), "connect", "something of its own"},
		{"it speaks no HTTP", "http://me:s3cret@" + receiver(t, closes("SSH-2.0\r\n")), "connect", "proxy"},
		{"it hangs up", "socks5://me:s3cret@" + receiver(t, closes("")), "connect", "proxy"},
		{"it hangs", "http://me:s3cret@" + receiver(t, hangs), "timeout", "no answer within 300ms"},
		{"it hangs over TLS", "https://me:s3cret@" + receiver(t, hangs), "timeout", "no answer within 300ms"},
		{"it hangs over SOCKS", "socks5://me:s3cret@" + receiver(t, hangs), "timeout", "no answer within 300ms"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			resolver := nameserver(t, map[string][]reply{"shop.example.com": {{addresses: "127.0.0.1"}}})
			c := clientWith(t, address.NewGuard(address.Private...), Config{ProxyURL: config.Secret(row.proxy)}, resolver)
			timeout := 10 * time.Second
			if row.class == "timeout" {
				timeout = 300 * time.Millisecond
			}
			x := do(t.Context(), c, "http://shop.example.com/", http.Header{}, nil, timeout, 1<<10)
			if x.class != row.class || !strings.Contains(x.problem, row.problem) || strings.Contains(x.problem, "s3cret") {
				t.Errorf("%s: %s, want %s: %s", x.class, x.problem, row.class, row.problem)
			}
		})
	}
}

// What the environment says of proxies is for other programs.
func TestDo_KnowsNoProxyOfTheEnvironment(t *testing.T) {
	port, reached := trap(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, "http://127.0.0.1:"+port)
	}
	resolver := nameserver(t, map[string][]reply{"shop.example.com": {{addresses: "127.0.0.1"}}})
	s := handler(t, false, func(http.ResponseWriter, *http.Request) {})
	c := clientWith(t, address.NewGuard(address.Private...), Config{}, resolver)
	target := strings.Replace(s.URL, "127.0.0.1", "shop.example.com", 1)
	if x := do(t.Context(), c, target, http.Header{}, nil, 10*time.Second, 1<<10); x.code != 200 || reached.Load() > 0 {
		t.Errorf("%d %s: %s; the proxy was reached %d times", x.code, x.class, x.problem, reached.Load())
	}
}
