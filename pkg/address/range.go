package address

import (
	"fmt"
	"net/netip"
)

// Range is addresses that are opened to webhooks: a network (10.1.0.0/16) or one address.
type Range struct{ netip.Prefix }

// Private are an operator's own networks: this machine, private networks, and those that carriers share. What is left
// out is for no webhook: link-local addresses, with the clouds' metadata among them, multicast, and what only documents
// and benchmarks use.
var Private = []Range{
	must("127.0.0.0/8"), must("::1"), must("10.0.0.0/8"), must("172.16.0.0/12"), must("192.168.0.0/16"), must("100.64.0.0/10"), must("fc00::/7"),
}

func must(text string) (r Range) {
	if err := r.UnmarshalText([]byte(text)); err != nil {
		panic(err)
	}
	return r
}

// UnmarshalText reads a range.
func (r *Range) UnmarshalText(text []byte) error {
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		ip, err := netip.ParseAddr(string(text))
		if err != nil || ip.Zone() != "" {
			return fmt.Errorf("%q is no range of addresses; write a network, such as 10.1.0.0/16 or fd12::/48, or one address", text)
		}
		p = netip.PrefixFrom(ip, ip.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		return fmt.Errorf("%s is an IPv4 address written as IPv6; write it as four numbers", p)
	case p != p.Masked():
		return fmt.Errorf("%s is an address inside of a network; write the network as %s, or the address alone", p, p.Masked())
	case p.Bits() == 0:
		return fmt.Errorf("%s is every address there is; name the networks that webhooks may reach", p)
	}
	r.Prefix = p
	return nil
}
