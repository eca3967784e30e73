package address_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/fault"
)

func TestCheckURL_LetsThroughWhatIsPublicAndSaysWhyNot(t *testing.T) {
	const private = "not an address on the public Internet"
	for _, row := range []struct {
		name, url string
		want      string // a part of the reason; empty: it is taken
		asPrivate string // the same where private addresses are allowed
	}{
		{"a name", "https://example.com/hooks", "", ""},
		{"plain HTTP", "http://example.com/hooks", "", ""},
		{"no path", "https://example.com", "", ""},
		{"a port", "https://example.com:8443/hooks", "", ""},
		{"the last port", "https://example.com:65535/", "", ""},
		{"a query", "https://example.com/hooks?token=a%20b&x=1", "", ""},
		{"upper case", "HTTPS://EXAMPLE.COM/Hooks", "", ""},
		{"a name with a dot behind", "https://example.com./hooks", "", ""},
		{"a name beyond ASCII", "https://blomster-århus.dk/", "", ""},
		{"a name that ends in a number's letters", "https://shop24.1a/", "", ""},
		{"a public IPv4 address", "https://93.184.216.34/hooks", "", ""},
		{"a public IPv6 address", "https://[2606:2800:220:1:248:1893:25c8:1946]/hooks", "", ""},
		{"2,000 bytes", "https://example.com/" + strings.Repeat("a", 1980), "", ""},

		{"nothing", "", "it is missing", "it is missing"},
		{"2,001 bytes", "https://example.com/" + strings.Repeat("a", 1981), "at most 2000", "at most 2000"},
		{"a path", "/hooks", "is relative", "is relative"},
		{"a host without a scheme", "example.com/hooks", "is relative", "is relative"},
		{"a host and port without a scheme", "example.com:8080/hooks", "scheme", "scheme"},
		{"a scheme-relative URL", "//example.com/hooks", "is relative", "is relative"},
		{"a scheme without a host", "https:///hooks", "is relative", "is relative"},
		{"an opaque URL", "https:example.com", "is relative", "is relative"},
		{"another scheme", "ftp://example.com/", `scheme is "ftp"`, `scheme is "ftp"`},
		{"a file", "file:///etc/passwd", `scheme is "file"`, `scheme is "file"`},
		{"gopher", "gopher://127.0.0.1:6379/_SET", `scheme is "gopher"`, `scheme is "gopher"`},
		{"a script", "javascript:alert(1)", `scheme is "javascript"`, `scheme is "javascript"`},
		{"a user", "https://user@example.com/", "user name or password", "user name or password"},
		{"a user and password", "https://user:pass@example.com/", "user name or password", "user name or password"},
		{"a host hidden behind a user", "https://example.com@127.0.0.1/", "user name or password", "user name or password"},
		{"a fragment", "https://example.com/hooks#top", "fragment", "fragment"},
		{"a blank", "https://example.com/a b", "is no URL", "is no URL"},
		{"a blank in front", " https://example.com/", "is no URL", "is no URL"},
		{"a line break", "https://example.com/\r\nX: y", "is no URL", "is no URL"},
		{"a broken escape", "https://example.com/%zz", "is no URL", "is no URL"},
		{"an escape in the host", "https://%31%32%37.0.0.1/", "is no URL", "is no URL"},
		{"port 0", "https://example.com:0/", `port "0"`, `port "0"`},
		{"port 65536", "https://example.com:65536/", `port "65536"`, `port "65536"`},
		{"a port that is no number", "https://example.com:http/", "is no URL", "is no URL"},
		{"a host that is a port alone", "https://:8080/", "names no host", "names no host"},

		{"this machine by name", "http://localhost:8080/", "this machine", ""},
		{"this machine by name, upper case and a dot", "http://LocalHost./", "this machine", ""},
		{"a name below localhost", "http://shop.localhost/", "this machine", ""},
		{"loopback", "http://127.0.0.1/", private, ""},
		{"loopback, not the first", "http://127.8.9.10/", private, ""},
		{"loopback, with a dot behind", "http://127.0.0.1./", private, ""},
		{"loopback, IPv6", "http://[::1]:8080/", private, ""},
		{"loopback, IPv4 in IPv6", "http://[::ffff:127.0.0.1]/", private, private},
		{"loopback, IPv4 in IPv6 in hex", "http://[::ffff:7f00:1]/", private, private},
		{"loopback, through NAT64", "http://[64:ff9b::7f00:1]/", private, private},
		{"loopback, through 6to4", "http://[2002:7f00:1::]/", private, private},
		{"loopback as one number", "http://2130706433/", "four numbers", "four numbers"},
		{"loopback in hex", "http://0x7f000001/", "four numbers", "four numbers"},
		{"loopback in parts of hex", "http://0x7f.0.0.0x1/", "four numbers", "four numbers"},
		{"loopback in octal", "http://0177.0.0.1/", "four numbers", "four numbers"},
		{"loopback in few parts", "http://127.1/", "four numbers", "four numbers"},
		{"nobody", "http://0.0.0.0/", private, private},
		{"nobody, IPv6", "http://[::]/", private, private},
		{"nobody as one number", "http://0/", "four numbers", "four numbers"},
		{"private, 10/8", "http://10.1.2.3/", private, ""},
		{"private, 172.16/12", "http://172.31.255.255/", private, ""},
		{"beside private", "http://172.32.0.1/", "", ""},
		{"private, 192.168/16", "https://192.168.1.1:8443/", private, ""},
		{"shared by carriers, 100.64/10", "http://100.64.0.1/", private, ""},
		{"unique local, IPv6", "http://[fd00::1]/", private, ""},
		{"link local", "http://169.254.1.1/", private, private},
		{"the cloud's metadata", "http://169.254.169.254/latest/meta-data/", private, private},
		{"the cloud's metadata, IPv6", "http://[fd00:ec2::254]/", private, private},
		{"link local, IPv6", "http://[fe80::1]/", private, private},
		{"link local, IPv6 with a zone", "http://[fe80::1%25eth0]/", private, private},
		{"multicast", "http://224.0.0.1/", private, private},
		{"broadcast", "http://255.255.255.255/", private, private},
		{"for documents", "http://192.0.2.1/", private, private},
		{"for benchmarks", "http://198.18.0.1/", private, private},
		{"reserved", "http://240.0.0.1/", private, private},
	} {
		t.Run(row.name, func(t *testing.T) {
			check(t, address.NewGuard().CheckURL(row.url), row.want)
			check(t, address.NewGuard(address.Private...).CheckURL(row.url), row.asPrivate)
		})
	}
}

// An operator opens a network, and nothing beside it.
func TestRange_OpensJustItself(t *testing.T) {
	for _, row := range []struct {
		name         string
		opened       []string
		open, closed string // URLs, with blanks between
	}{
		{"a network", []string{"10.1.0.0/16"}, "http://10.1.0.0/ http://10.1.255.255:8080/ https://example.com/", "http://10.0.255.255/ http://10.2.0.0/ http://127.0.0.1/ http://192.168.1.1/ http://localhost/ http://[::1]/"},
		{"it is not opened in another form", []string{"10.1.0.0/16"}, "", "http://[::ffff:10.1.2.3]/ http://[64:ff9b::a01:203]/ http://[2002:a01:203::]/ http://[::10.1.2.3]/ http://167838211/ http://012.1.2.3/ http://10.66051/"},
		{"one address", []string{"192.168.7.20"}, "http://192.168.7.20/ http://192.168.7.20./", "http://192.168.7.19/ http://192.168.7.21/"},
		{"several", []string{"192.168.7.0/24", "fd12:3456::/32"}, "http://192.168.7.1/ http://[fd12:3456::1]/", "http://192.168.8.1/ http://[fd12:3457::1]/"},
		{"this machine", []string{"127.0.0.0/8"}, "http://127.0.0.1/ http://localhost:8080/ http://shop.localhost/", "http://[::1]/ http://0.0.0.0/ http://10.0.0.1/"},
		{"this machine, IPv6", []string{"::1"}, "http://[::1]/ http://localhost/", "http://127.0.0.1/ http://[::]/"},
		{"another address of this machine", []string{"127.0.0.2"}, "http://127.0.0.2/", "http://127.0.0.1/ http://localhost/"},
		{"a network that holds the clouds' metadata", []string{"169.254.0.0/16", "100.64.0.0/10", "fd00::/8"}, "http://169.254.1.1/ http://100.64.0.1/ http://[fd00::1]/", "http://169.254.169.254/ http://169.254.170.2/ http://100.100.100.200/ http://[fd00:ec2::254]/"},
		{"the metadata by itself", []string{"169.254.169.254"}, "http://169.254.169.254/", "http://169.254.169.253/ http://169.254.170.2/"},
		{"link-local addresses, whatever their zone", []string{"fe80::/10"}, "http://[fe80::1]/ http://[fe80::1%25eth0]/", "http://[fec0::1]/"},
		{"a NAT64 gateway, to what is public", []string{"64:ff9b::/96"}, "http://[64:ff9b::5db8:d822]/", "http://[64:ff9b::7f00:1]/ http://[64:ff9b::a9fe:a9fe]/ http://[64:ff9b:1::5db8:d822]/"},
		{"a NAT64 gateway, to what is opened", []string{"64:ff9b::/96", "10.1.0.0/16"}, "http://[64:ff9b::a01:203]/", "http://[64:ff9b::a02:203]/"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var opened []address.Range
			for _, text := range row.opened {
				opened = append(opened, parse(t, text))
			}
			guard := address.NewGuard(opened...)
			for _, url := range strings.Fields(row.open) {
				if err := guard.CheckURL(url); err != nil {
					t.Errorf("%s is refused: %v", url, err)
				}
			}
			for _, url := range strings.Fields(row.closed) {
				if guard.CheckURL(url) == nil {
					t.Errorf("%s is taken", url)
				}
			}
		})
	}
}

func parse(t *testing.T, text string) (r address.Range) {
	t.Helper()
	if err := r.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRange_SaysWhatIsWrongWithIt(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "is no range of addresses",
		"localhost":          "is no range of addresses",
		"10.0.0.0-10.0.0.9":  "is no range of addresses",
		"10.0.0.0/33":        "is no range of addresses",
		"fe80::1%eth0":       "is no range of addresses",
		"10.1.2.3/16":        "write the network as 10.1.0.0/16",
		"0.0.0.0/0":          "is every address there is",
		"::/0":               "is every address there is",
		"::ffff:10.0.0.1":    "write it as four numbers",
		"::ffff:10.0.0.0/96": "write it as four numbers",
	} {
		var r address.Range
		if err := r.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if got := parse(t, "10.1.2.3").String(); got != "10.1.2.3/32" {
		t.Errorf("one address is written as %s", got)
	}
}

func check(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var f *fault.Fault
	if !errors.As(err, &f) || len(f.Fields) != 1 || f.Fields[0].Field != "url" || !strings.Contains(f.Message, want) {
		t.Errorf("error %v, want one on the field url with %q", err, want)
	}
}

// A name is resolved when it is dialled; what it leads to is looked at then.
func TestControl_RefusesToDialThisMachine(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the receiver was reached") }))
	defer receiver.Close()
	_, port, err := net.SplitHostPort(receiver.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{Control: address.NewGuard().Control}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+":"+port, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		if !errors.Is(err, address.ErrRefused) {
			t.Errorf("dial of %s: %v, want %v", host, err, address.ErrRefused)
		}
	}
}

func TestControl_LooksAtEveryAddress(t *testing.T) {
	control := address.NewGuard().Control
	for _, row := range []struct {
		network, address string
		want             error
	}{
		{"tcp4", "93.184.216.34:443", nil},
		{"tcp4", "93.184.216.34:25", nil},
		{"tcp6", "[2606:2800:220:1:248:1893:25c8:1946]:443", nil},
		{"tcp4", "127.0.0.1:443", address.ErrRefused},
		{"tcp4", "10.0.0.1:443", address.ErrRefused},
		{"tcp4", "169.254.169.254:80", address.ErrRefused},
		{"tcp4", "0.0.0.0:80", address.ErrRefused},
		{"tcp6", "[::1]:443", address.ErrRefused},
		{"tcp6", "[::ffff:10.0.0.1]:443", address.ErrRefused},
		{"tcp6", "[fe80::1%lo]:443", address.ErrRefused},
		{"tcp6", "[fd00::1]:443", address.ErrRefused},
		{"udp4", "93.184.216.34:443", address.ErrRefused},
	} {
		if err := control(row.network, row.address, syscall.RawConn(nil)); !errors.Is(err, row.want) {
			t.Errorf("%s %s: %v, want %v", row.network, row.address, err, row.want)
		}
	}
}

func TestControl_LetsThisMachineThroughWhereTheOperatorAllows(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	dialer := &net.Dialer{Control: address.NewGuard(address.Private...).Control}
	conn, err := dialer.DialContext(context.Background(), "tcp", receiver.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func FuzzCheckURL_TakesNoPrivateAddress(f *testing.F) {
	for _, seed := range []string{"https://example.com", "http://[::1]", "http://a@b", "http://127.0.0.1", "http://\x00", "http://[fe80::1%25lo]:1"} {
		f.Add(seed)
	}
	guard := address.NewGuard()
	f.Fuzz(func(t *testing.T, text string) {
		if guard.CheckURL(text) != nil {
			return
		}
		req, err := http.NewRequest(http.MethodPost, text, nil)
		if err != nil {
			t.Fatalf("%q is taken, but no request can be made to it: %v", text, err)
		}
		if ip := net.ParseIP(req.URL.Hostname()); ip != nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()) {
			t.Errorf("%q is taken, which leads to %s", text, ip)
		}
	})
}
