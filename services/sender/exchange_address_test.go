package sender

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"shopbell.dev/pkg/address"
)

// reply is what a nameserver says of a name.
type reply struct {
	alias     string // a CNAME
	addresses string // with blanks between
	silent    bool
	broken    bool
}

// nameserver answers over UDP. Each name has its replies, one after the other, of which the last one stays.
func nameserver(t testing.TB, names map[string][]reply) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	asked := map[string]int{}
	go func() {
		defer close(done)
		packet := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(packet[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
			replies := names[name]
			at := min(asked[name+q.Type.String()], len(replies)-1)
			asked[name+q.Type.String()]++
			m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}
			m.Additionals = nil
			if at < 0 {
				m.RCode = dnsmessage.RCodeNameError
			} else if r := replies[at]; r.silent {
				continue
			} else if r.broken {
				m.RCode = dnsmessage.RCodeServerFailure
			} else {
				m.Answers = answers(q, r, names)
			}
			if packed, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func answers(q dnsmessage.Question, r reply, names map[string][]reply) (out []dnsmessage.Resource) {
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 0}
	if r.alias != "" {
		to := dnsmessage.MustNewName(r.alias + ".")
		out = append(out, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: to}})
		q.Name = to
		return append(out, answers(q, names[r.alias][0], names)...)
	}
	for _, text := range strings.Fields(r.addresses) {
		ip := netip.MustParseAddr(text)
		switch {
		case ip.Is4() && q.Type == dnsmessage.TypeA:
			out = append(out, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: ip.As4()}})
		case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
			out = append(out, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	return out
}

// trap listens on every address of this machine, and must not be reached.
func trap(t *testing.T) (port string, reached *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	reached = &atomic.Int32{}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, reached
}

// Every way known to us in which somebody may lead deliveries to what is not his: each is refused when the webhook is
// saved, where it can be known then, and each when it is dialled.
func TestDo_ReachesNothingThatIsNotPublic(t *testing.T) {
	t.Parallel()
	const private = "not an address on the public Internet"
	port, reached := trap(t)
	resolver := nameserver(t, map[string][]reply{
		"loopback.example.com":           {{addresses: "127.0.0.1"}},
		"loopback6.example.com":          {{addresses: "::1"}},
		"private.example.com":            {{addresses: "10.0.0.1"}},
		"metadata.example.com":           {{addresses: "169.254.169.254"}},
		"both.example.com":               {{addresses: "127.0.0.1 ::1"}},
		"many.example.com":               {{addresses: "10.0.0.1 192.168.0.1 172.16.0.1 127.0.0.1 fd00::1 ::1"}},
		"mapped.example.com":             {{addresses: "::ffff:127.0.0.1"}},
		"translated.example.com":         {{addresses: "64:ff9b::7f00:1"}},
		"nobody.example.com":             {{addresses: "0.0.0.0 ::"}},
		"alias.example.com":              {{alias: "loopback.example.com"}},
		"alias-of-alias.example.com":     {{alias: "alias.example.com"}},
		"alias-to-localhost.example.com": {{alias: "localhost"}},
		"localhost":                      {{addresses: "127.0.0.1"}},
		"xn--rger-koa.example.com":       {{addresses: "127.0.0.1"}},
		"127.0.0.1.example.com":          {{addresses: "127.0.0.1"}},
		// What other resolvers make of these; Go's asks for the name.
		"2130706433": {{addresses: "127.0.0.1"}}, "0x7f000001": {{addresses: "127.0.0.1"}}, "0177.0.0.1": {{addresses: "127.0.0.1"}}, "127.1": {{addresses: "127.0.0.1"}},
		"0x7f.0x0.0x0.0x1": {{addresses: "127.0.0.1"}}, "0": {{addresses: "127.0.0.1"}}, "017700000001": {{addresses: "127.0.0.1"}}, "127.0.1": {{addresses: "127.0.0.1"}},
		"2852039166": {{addresses: "169.254.169.254"}}, "0251.0376.0251.0376": {{addresses: "169.254.169.254"}}, "0xa9fea9fe": {{addresses: "169.254.169.254"}}, "127.0.0.1.1": {{addresses: "127.0.0.1"}},
		"00127.0.0.1": {{addresses: "127.0.0.1"}}, "127.0.0.0x1": {{addresses: "127.0.0.1"}}, "localhost.localdomain": {{addresses: "127.0.0.1"}},
	})
	guard := address.NewGuard()
	c := clientWith(t, guard, Config{}, resolver)
	rows := []struct {
		name, url string // PORT is where the trap listens
		saved     string // what is said when it is saved; empty: it is taken, since nothing can be known
		class     string // what is said when it is dialled; empty: blocked_address
	}{
		// This machine.
		{"loopback", "http://127.0.0.1:PORT/", private, ""},
		{"loopback over TLS", "https://127.0.0.1:PORT/", private, ""},
		{"loopback, the last", "http://127.255.255.254:PORT/", private, ""},
		{"loopback with a dot behind", "http://127.0.0.1.:PORT/", private, "dns"},
		{"loopback with two dots behind", "http://127.0.0.1..:PORT/", "four numbers", "dns"},
		{"loopback, IPv6", "http://[::1]:PORT/", private, ""},
		{"loopback, IPv6 in full", "http://[0000:0000:0000:0000:0000:0000:0000:0001]:PORT/", private, ""},
		{"loopback, IPv6 with a zone", "http://[::1%25lo]:PORT/", private, ""},
		{"nobody", "http://0.0.0.0:PORT/", private, ""},
		{"nobody's network", "http://0.1.2.3:PORT/", private, ""},
		{"nobody, IPv6", "http://[::]:PORT/", private, ""},
		{"localhost", "http://localhost:PORT/", "this machine", ""},
		{"localhost with a dot behind", "http://localhost.:PORT/", "this machine", ""},
		{"localhost in capitals", "http://LOCALHOST:PORT/", "this machine", ""},
		{"a name below localhost", "http://shop.localhost:PORT/", "this machine", "dns"},
		{"localhost's other name", "http://localhost.localdomain:PORT/", "", ""},
		// Another form.
		{"one number", "http://2130706433:PORT/", "four numbers", "dns"},
		{"one number in hex", "http://0x7f000001:PORT/", "four numbers", ""},
		{"one number in octal", "http://017700000001:PORT/", "four numbers", "dns"},
		{"parts in octal", "http://0177.0.0.1:PORT/", "four numbers", "dns"},
		{"parts in hex", "http://0x7f.0x0.0x0.0x1:PORT/", "four numbers", ""},
		{"one part in hex", "http://127.0.0.0x1:PORT/", "four numbers", ""},
		{"two parts", "http://127.1:PORT/", "four numbers", "dns"},
		{"three parts", "http://127.0.1:PORT/", "four numbers", "dns"},
		{"five parts", "http://127.0.0.1.1:PORT/", "four numbers", "dns"},
		{"zeros in front", "http://00127.0.0.1:PORT/", "four numbers", "dns"},
		{"nobody as one number", "http://0:PORT/", "four numbers", "dns"},
		{"the metadata as one number", "http://2852039166/", "four numbers", "dns"},
		{"the metadata in octal", "http://0251.0376.0251.0376/", "four numbers", "dns"},
		{"the metadata in hex", "http://0xa9fea9fe/", "four numbers", ""},
		{"digits in circles", "http://①②⑦.⓪.⓪.①:PORT/", private, ""},
		{"digits of full width", "http://１２７.０.０.１:PORT/", private, ""},
		{"dots of full width", "http://127。0。0。1:PORT/", private, ""},
		{"dots of half width", "http://127｡0｡0｡1:PORT/", private, ""},
		{"the metadata in circles", "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/", private, ""},
		{"letters of full width", "http://ｌｏｃａｌｈｏｓｔ:PORT/", "this machine", ""},
		{"letters in circles", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/", "this machine", ""},
		{"escaped digits", "http://%31%32%37.0.0.1:PORT/", "is no URL", "request"},
		{"an escaped dot", "http://127%2e0.0.1:PORT/", "is no URL", "request"},
		{"escaped digits in circles", "http://%E2%91%A0%E2%91%A1%E2%91%A6.0.0.1:PORT/", private, ""},
		{"IPv4 in brackets", "http://[127.0.0.1]:PORT/", "is no URL", "request"},
		// IPv4 inside of IPv6.
		{"mapped", "http://[::ffff:127.0.0.1]:PORT/", private, ""},
		{"mapped, in hex", "http://[::ffff:7f00:1]:PORT/", private, ""},
		{"mapped, the metadata", "http://[::ffff:a9fe:a9fe]/", private, ""},
		{"mapped, private", "http://[::ffff:10.0.0.1]/", private, ""},
		{"translated by the old rule", "http://[::ffff:0:127.0.0.1]:PORT/", private, ""},
		{"compatible", "http://[::127.0.0.1]:PORT/", private, ""},
		{"NAT64", "http://[64:ff9b::7f00:1]:PORT/", private, ""},
		{"NAT64, the metadata", "http://[64:ff9b::169.254.169.254]/", private, ""},
		{"NAT64 of a network's own", "http://[64:ff9b:1::7f00:1]:PORT/", private, ""},
		{"6to4", "http://[2002:7f00:1::]:PORT/", private, ""},
		{"6to4, private", "http://[2002:a00:1::1]/", private, ""},
		{"Teredo", "http://[2001:0:7f00:1::]:PORT/", private, ""},
		// Networks that are not public.
		{"private, 10/8", "http://10.0.0.1/", private, ""},
		{"private, 172.16/12", "http://172.31.255.254/", private, ""},
		{"private, 192.168/16", "http://192.168.0.1/", private, ""},
		{"shared by carriers", "http://100.64.0.1/", private, ""},
		{"link local", "http://169.254.0.1/", private, ""},
		{"for benchmarks", "http://198.18.0.1/", private, ""},
		{"for documents", "http://192.0.2.1/", private, ""},
		{"for documents, the second", "http://198.51.100.1/", private, ""},
		{"for documents, the third", "http://203.0.113.1/", private, ""},
		{"for protocols", "http://192.0.0.1/", private, ""},
		{"6to4 relays", "http://192.88.99.1/", private, ""},
		{"multicast", "http://224.0.0.1/", private, ""},
		{"multicast, the last", "http://239.255.255.255/", private, ""},
		{"reserved", "http://240.0.0.1/", private, ""},
		{"broadcast", "http://255.255.255.255/", private, ""},
		{"unique local", "http://[fd12:3456:789a::1]/", private, ""},
		{"unique local, the other half", "http://[fc00::1]/", private, ""},
		{"link local, IPv6", "http://[fe80::1]/", private, ""},
		{"link local, IPv6 with a zone", "http://[fe80::1%25eth0]/", private, ""},
		{"site local", "http://[fec0::1]/", private, ""},
		{"multicast, IPv6", "http://[ff02::1]/", private, ""},
		{"for documents, IPv6", "http://[2001:db8::1]/", private, ""},
		{"for documents, IPv6, the second", "http://[3fff::1]/", private, ""},
		{"thrown away", "http://[100::1]/", private, ""},
		{"ORCHID", "http://[2001:20::1]/", private, ""},
		{"segment routing", "http://[5f00::1]/", private, ""},
		// The clouds' metadata.
		{"the metadata", "http://169.254.169.254/latest/meta-data/", private, ""},
		{"the metadata, containers", "http://169.254.170.2/", private, ""},
		{"the metadata, IPv6", "http://[fd00:ec2::254]/", private, ""},
		{"the metadata of Google, IPv6", "http://[fd20:ce::254]/", private, ""},
		{"the metadata of Alibaba", "http://100.100.100.200/", private, ""},
		{"the metadata of Oracle", "http://192.0.0.192/", private, ""},
		{"the metadata of Azure, a public address", "http://168.63.129.16/", private, ""},
		// A host that is not the one it seems to be.
		{"a user in front", "http://example.com@127.0.0.1:PORT/", "user name or password", "request"},
		{"a user and password in front", "http://example.com:80@127.0.0.1:PORT/", "user name or password", "request"},
		{"an escaped user in front", "http://example.com%2f@127.0.0.1:PORT/", "user name or password", "request"},
		{"a backslash", `http://example.com\@127.0.0.1:PORT/`, "is no URL", "request"},
		{"a backslash for a slash", `http:\\127.0.0.1:PORT\`, "is relative", "request"},
		{"a fragment that hides a host", "http://127.0.0.1:PORT#@example.com/", "fragment", ""},
		{"a query that hides a host", "http://127.0.0.1:PORT?@example.com/", private, ""},
		{"a path that hides a host", "http://127.0.0.1:PORT/@example.com/", private, ""},
		{"two ports", "http://127.0.0.1:80:PORT/", "is no URL", "request"},
		{"a zero byte", "http://127.0.0.1\x00.example.com:PORT/", "is no URL", "request"},
		{"an escaped zero byte", "http://127.0.0.1%00.example.com:PORT/", "is no URL", "request"},
		{"a tab", "http://127.0.0.1\t:PORT/", "is no URL", "request"},
		{"a line break", "http://127.0.0.1:PORT/\r\nHost: example.com", "is no URL", "request"},
		{"an escaped line break in the host", "http://127.0.0.1%0d%0aHost:%20example.com:PORT/", "is no URL", "request"},
		{"a blank", "http://127.0.0.1 :PORT/", "is no URL", "request"},
		{"three slashes", "http:///127.0.0.1:PORT/", "is relative", "request"},
		{"one slash", "http:/127.0.0.1:PORT/", "is relative", "request"},
		{"no host", "http://:PORT/", "names no host", ""},
		{"port 0", "http://127.0.0.1:0/", `port "0"`, ""},
		{"port 65536", "http://127.0.0.1:65536/", `port "65536"`, "connect"},
		{"a port below 0", "http://127.0.0.1:-1/", "is no URL", "request"},
		{"another scheme", "gopher://127.0.0.1:PORT/_", "scheme", "request"},
		{"a file", "file:///etc/passwd", "scheme", "request"},
		// A name, of which nothing is known until it is dialled.
		{"a name of this machine", "http://loopback.example.com:PORT/", "", ""},
		{"a name of this machine, IPv6", "http://loopback6.example.com:PORT/", "", ""},
		{"a name of both", "http://both.example.com:PORT/", "", ""},
		{"a name with an address in it", "http://127.0.0.1.example.com:PORT/", "", ""},
		{"a name with a dot behind", "http://loopback.example.com.:PORT/", "", ""},
		{"a name in a private network", "http://private.example.com/", "", ""},
		{"a name of the metadata", "http://metadata.example.com/", "", ""},
		{"a name of many addresses, all private", "http://many.example.com:PORT/", "", ""},
		{"a name of a mapped address", "http://mapped.example.com:PORT/", "", ""},
		{"a name of a translated address", "http://translated.example.com:PORT/", "", ""},
		{"a name of nobody", "http://nobody.example.com:PORT/", "", ""},
		{"an alias", "http://alias.example.com:PORT/", "", ""},
		{"an alias of an alias", "http://alias-of-alias.example.com:PORT/", "", ""},
		{"an alias of localhost", "http://alias-to-localhost.example.com:PORT/", "", ""},
		{"a name beyond ASCII", "http://ärger.example.com:PORT/", "", ""},
	}
	if len(rows) < 60 {
		t.Errorf("%d ways, want at least 60", len(rows))
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			target := strings.ReplaceAll(row.url, "PORT", port)
			switch err := guard.CheckURL(target); {
			case row.saved == "" && err != nil:
				t.Errorf("refused when it is saved: %v", err)
			case row.saved != "" && (err == nil || !strings.Contains(err.Error(), row.saved)):
				t.Errorf("when it is saved: %v, want %q", err, row.saved)
			}
			x := do(t.Context(), c, target, http.Header{}, []byte("{}"), 5*time.Second, 1<<10)
			if row.class == "" {
				row.class = "blocked_address"
			}
			if x.code != 0 || x.class == "" || !strings.Contains(row.class, x.class) {
				t.Errorf("when it is dialled: code %d, %s: %s; want %s", x.code, x.class, x.problem, row.class)
			}
			if x.class == "blocked_address" && !strings.Contains(x.problem, "allow_addresses") {
				t.Errorf("%q does not say how it is allowed", x.problem)
			}
		})
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("the trap was reached %d times", n)
	}
}

// A name's answer is looked at for every connection: what was public a moment ago may lead inside now.
func TestDo_LooksAtTheAddressOfEveryConnection(t *testing.T) {
	t.Parallel()
	const public, inside = "127.0.0.2", "127.0.0.1" // the first stands for the public Internet
	var requests atomic.Int32
	at, port := listenAt(t, public, inside)
	answersAt(t, at[0], func(w http.ResponseWriter, _ *http.Request) { requests.Add(1) })
	trapAt(t, at[1])
	for _, row := range []struct {
		name    string
		replies []reply
		want    []string // the classes of exchanges, each on a new connection
	}{
		{"public, then inside", []reply{{addresses: public}, {addresses: inside}}, []string{"", "blocked_address", "blocked_address"}},
		{"inside, then public", []reply{{addresses: inside}, {addresses: public}}, []string{"blocked_address", ""}},
		{"inside and public at once", []reply{{addresses: inside + " " + public}}, []string{"", ""}},
		{"public and inside at once", []reply{{addresses: public + " " + inside}}, []string{"", ""}},
		{"nobody who answers, and inside", []reply{{addresses: "127.0.0.3 " + inside}}, []string{"connect blocked_address"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			resolver := nameserver(t, map[string][]reply{"shop.example.com": row.replies})
			c := clientWith(t, address.NewGuard(opened(t, public), opened(t, "127.0.0.3")), Config{}, resolver)
			for i, want := range row.want {
				x := do(t.Context(), c, "http://shop.example.com:"+port, http.Header{}, []byte("{}"), 5*time.Second, 1<<10)
				if x.class != want && (x.class == "" || !strings.Contains(want, x.class)) {
					t.Errorf("exchange %d: code %d, %s: %s; want %q", i+1, x.code, x.class, x.problem, want)
				}
				c.CloseIdleConnections()
			}
		})
	}
	if requests.Load() == 0 {
		t.Error("the public one was never reached")
	}
}

// Two names with one certificate and one address do not share a connection of HTTP/2: the second name is looked at too.
func TestDo_SharesNoConnectionBetweenNames(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "*.example.com")}}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resolver := nameserver(t, map[string][]reply{"one.example.com": {{addresses: "127.0.0.1"}}, "other.example.com": {{addresses: "127.0.0.9"}}})
	c := clientWith(t, address.NewGuard(opened(t, "127.0.0.1")), Config{CAFile: ca.file(t)}, resolver)
	for host, want := range map[string]string{"one.example.com": "", "other.example.com": "blocked_address"} {
		for range 2 {
			if x := do(t.Context(), c, "https://"+host+":"+port, http.Header{}, nil, 5*time.Second, 1<<10); x.class != want {
				t.Errorf("%s: %s: %s, want %q", host, x.class, x.problem, want)
			}
		}
	}
}

// An answer that points inside is an answer, and nothing is sent there.
func TestDo_FollowsNoRedirectInside(t *testing.T) {
	t.Parallel()
	port, reached := trap(t)
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, to := range []string{"http://127.0.0.1:" + port + "/", "http://169.254.169.254/latest/meta-data/", "//127.0.0.1:" + port, "file:///etc/passwd"} {
			s := handler(t, false, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", to)
				w.Header().Set("Refresh", "0; url="+to)
				w.WriteHeader(code)
			})
			if x := post(t, address.NewGuard(address.Private...), nil, s.URL, []byte("{}"), 5*time.Second, 1<<10); x.code != code || x.response.Get("Location") != to {
				t.Errorf("%d to %s: code %d, %s: %s", code, to, x.code, x.class, x.problem)
			}
		}
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("the trap was reached %d times", n)
	}
}

// A network that the operator opens is reached, and nothing beside it.
func TestDo_ReachesJustWhatIsOpened(t *testing.T) {
	t.Parallel()
	at, port := listenAt(t, "127.1.0.1")
	answersAt(t, at[0], func(http.ResponseWriter, *http.Request) {})
	c := clientWith(t, address.NewGuard(opened(t, "127.1.0.0/16")), Config{}, nameserver(t, map[string][]reply{
		"in.example.com": {{addresses: "127.1.0.1"}}, "beside.example.com": {{addresses: "127.2.0.1"}}, "mapped.example.com": {{addresses: "::ffff:127.1.0.1"}},
	}))
	for host, want := range map[string]string{
		"127.1.0.1": "", "in.example.com": "", "mapped.example.com": "", "127.1.255.255": "connect",
		"127.0.255.255": "blocked_address", "127.2.0.0": "blocked_address", "beside.example.com": "blocked_address", "[::1]": "blocked_address", "10.0.0.1": "blocked_address", "169.254.169.254": "blocked_address",
	} {
		if x := do(t.Context(), c, "http://"+host+":"+port, http.Header{}, []byte("{}"), 5*time.Second, 1<<10); x.class != want {
			t.Errorf("%s: code %d, %s: %s; want %q", host, x.code, x.class, x.problem, want)
		}
	}
}

func opened(t *testing.T, text string) (r address.Range) {
	t.Helper()
	if err := r.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return r
}

// listenAt listens at a port that is free at all of these addresses.
func listenAt(t *testing.T, hosts ...string) (listeners []net.Listener, port string) {
	t.Helper()
	var err error
	for range 100 { // one that is free at the first address may be somebody's at another
		port = "0"
		for _, host := range hosts {
			var l net.Listener
			if l, err = net.Listen("tcp", net.JoinHostPort(host, port)); err != nil {
				break
			}
			listeners = append(listeners, l)
			if _, port, err = net.SplitHostPort(l.Addr().String()); err != nil {
				t.Fatal(err)
			}
		}
		if err == nil {
			return listeners, port
		}
		for _, l := range listeners {
			_ = l.Close()
		}
		listeners = nil
	}
	t.Fatalf("no port is free at all of %v: %v", hosts, err)
	return nil, ""
}

// answersAt answers what comes there.
func answersAt(t *testing.T, l net.Listener, answer http.HandlerFunc) {
	t.Helper()
	s := httptest.NewUnstartedServer(answer)
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
}

// trapAt fails the test when somebody connects.
func trapAt(t *testing.T, l net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Errorf("%s was reached", l.Addr())
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}
