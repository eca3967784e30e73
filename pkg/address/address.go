// Package address says which addresses a webhook may have: those on the public Internet, and those that the operator
// opens.
package address

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
	"golang.org/x/net/idna"

	"shopbell.dev/pkg/fault"
)

// ErrRefused is why an address is not dialled.
var ErrRefused = errors.New("the address is refused")

// HowToAllow tells an operator how an address is opened.
const HowToAllow = "the operator can open a network with allow_addresses, and all private ones with --allow-private-addresses"

// Guard refuses addresses. It may be used at once.
type Guard struct {
	public *ssrf.Guardian
	single map[netip.Addr]bool // what is opened by an address of its own
}

// NewGuard makes a guard that lets through what can be reached on the public Internet, and what is opened.
func NewGuard(opened ...Range) *Guard {
	g := &Guard{single: map[netip.Addr]bool{}}
	var v4, v6 []netip.Prefix
	for _, r := range opened {
		if r.IsSingleIP() {
			g.single[r.Addr()] = true
		}
		if r.Addr().Is4() {
			v4 = append(v4, r.Prefix)
		} else {
			v6 = append(v6, r.Prefix)
		}
	}
	g.public = ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	return g
}

// Control is for net.Dialer: it is asked for every address that is dialled, after the name was resolved, so that no
// name, redirect or change in the DNS leads past it.
func (g *Guard) Control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("%w: %s is no TCP", ErrRefused, network)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return g.Check(to.Addr())
}

// metadata are the addresses at which clouds hand out credentials to whoever asks from inside. They stay closed when
// the network around them is opened: they must be opened one by one. (The last one is a public address.)
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // nearly all
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("169.254.170.2"),   // AWS, containers
	netip.MustParseAddr("169.254.170.23"),  // AWS, Kubernetes
	netip.MustParseAddr("fd00:ec2::23"),    // AWS, Kubernetes
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("192.0.0.192"),     // Oracle
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("168.63.129.16"),   // Azure
}

// translated is where a NAT64 gateway reaches the IPv4 address in the last four bytes (RFC 6052).
var translated = netip.MustParsePrefix("64:ff9b::/96")

// Check says whether an address is refused: ErrRefused, or nothing.
func (g *Guard) Check(ip netip.Addr) error {
	ip = ip.WithZone("") // which of our networks it is on does not make it public
	if slices.Contains(metadata, ip) && !g.single[ip] {
		return fmt.Errorf("%w: %s hands out a cloud's credentials", ErrRefused, ip)
	}
	if err := g.public.SafeAddr(ip); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if translated.Contains(ip) { // it is opened; what it leads to may not be
		all := ip.As16()
		return g.Check(netip.AddrFrom4([4]byte(all[12:])))
	}
	return nil
}

const maxURL = 2000

// CheckURL says what is wrong with a webhook's URL. A name is not resolved here: that is done, and guarded, for every
// connection.
func (g *Guard) CheckURL(text string) error {
	refuse := func(format string, args ...any) error { return fault.Field("url", format, args...) }
	if text == "" {
		return refuse("it is missing; name where deliveries are to be POSTed, such as https://example.com/hooks")
	}
	if len(text) > maxURL {
		return refuse("it has %d bytes; at most %d are taken", len(text), maxURL)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return refuse("%q is no URL", text)
	case u.Scheme == "" || u.Host == "" && (u.Scheme == "http" || u.Scheme == "https"):
		return refuse("%q is relative; write it in full, such as https://example.com/hooks", text)
	case u.Scheme != "http" && u.Scheme != "https":
		return refuse("its scheme is %q; only https and http are taken", u.Scheme)
	case u.User != nil:
		return refuse("it holds a user name or password; put them into the webhook's headers (Authorization)")
	case u.Fragment != "":
		return refuse("it has a fragment (#%s), which is never sent; leave it out", u.Fragment)
	case u.Hostname() == "":
		return refuse("it names no host")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return refuse("port %q is none", port)
		}
	}
	host, err := dialled(u.Hostname())
	if err != nil {
		return refuse("%q is no name of a host: %v", u.Hostname(), err)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil && endsInNumber(host) {
		return refuse("%s is neither a name nor an address; write an address as four numbers, such as 93.184.216.34", host)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		if g.Check(netip.AddrFrom4([4]byte{127, 0, 0, 1})) != nil && g.Check(netip.IPv6Loopback()) != nil {
			return refuse("%s is this machine; %s", host, HowToAllow)
		}
	}
	if err == nil && g.Check(ip) != nil {
		return refuse("%s is not an address on the public Internet; %s", host, HowToAllow)
	}
	return nil
}

// dialled is the host that net/http dials for a URL's: letters and digits beyond ASCII become those that they stand
// for, so that ①②⑦。⓪。⓪。① is 127.0.0.1.
func dialled(host string) (string, error) {
	if strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }) {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", err
		}
	}
	return strings.TrimSuffix(strings.ToLower(host), "."), nil
}

// endsInNumber says whether a host's last part is a number. There is no such name, but some resolvers take it for an
// address in another form: 2130706433, 0x7f.1 and 0177.0.0.1 are all 127.0.0.1 to them.
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x")
}
