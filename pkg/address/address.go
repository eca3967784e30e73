// Package address says which addresses a webhook may have: not our own networks, unless the operator says so.
package address

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"

	"shopbell.dev/pkg/fault"
)

// Guard refuses addresses. It may be used at once.
type Guard struct {
	allowPrivate bool
	control      func(network, address string, c syscall.RawConn) error
}

// NewGuard makes a guard that lets through what can be reached on the public Internet, and with allowPrivate everything.
func NewGuard(allowPrivate bool) *Guard {
	g := &Guard{allowPrivate: allowPrivate}
	if !allowPrivate {
		g.control = ssrf.New(ssrf.WithAnyPort()).Safe
	}
	return g
}

// Control is for net.Dialer: it is asked for every address that is dialled, after the name was resolved, so that no
// name, redirect or change in the DNS leads past it. It is nil when everything is let through.
func (g *Guard) Control() func(network, address string, c syscall.RawConn) error { return g.control }

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
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	ip, err := netip.ParseAddr(host)
	if err != nil && endsInNumber(host) {
		return refuse("%s is neither a name nor an address; write an address as four numbers, such as 93.184.216.34", host)
	}
	if g.allowPrivate {
		return nil
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return refuse("%s is this machine; private addresses are refused unless the operator allows them (--allow-private-addresses)", host)
	}
	if err == nil {
		network := "tcp4"
		if ip.Is6() {
			network = "tcp6"
		}
		if err := g.control(network, netip.AddrPortFrom(ip, 443).String(), nil); err != nil {
			return refuse("%s is not an address on the public Internet; private addresses are refused unless the operator allows them (--allow-private-addresses)", host)
		}
	}
	return nil
}

// endsInNumber says whether a host's last part is a number. There is no such name, but some resolvers take it for an
// address in another form: 2130706433, 0x7f.1 and 0177.0.0.1 are all 127.0.0.1 to them.
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x")
}
