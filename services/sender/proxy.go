package sender

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	xproxy "golang.org/x/net/proxy"

	"shopbell.dev/pkg/address"
)

// proxy is the operator's, through which all connections go. It is told addresses and never names: a name is resolved
// and guarded here, as without a proxy, for what the proxy would make of the name is out of our sight.
type proxy struct {
	url      *url.URL
	guard    *address.Guard
	roots    *x509.CertPool
	resolver *net.Resolver
	dialer   net.Dialer // to the proxy itself, which the operator has chosen
}

func newProxy(text string, guard *address.Guard, roots *x509.CertPool, resolver *net.Resolver) (*proxy, error) {
	u, err := parseProxy(text)
	if err != nil {
		return nil, fmt.Errorf("sender.proxy_url: %w", err)
	}
	return &proxy{url: u, guard: guard, roots: roots, resolver: resolver, dialer: net.Dialer{KeepAlive: 30 * time.Second, Resolver: resolver}}, nil
}

// proxyError is what the proxy, and not the receiver, is to blame for.
type proxyError struct{ error }

func (e proxyError) Unwrap() error { return e.error }

// dial connects to the first of a host's addresses that the proxy reaches.
func (p *proxy) dial(ctx context.Context, to string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	port, err := p.resolver.LookupPort(ctx, "tcp", portText)
	if err != nil {
		return nil, err
	}
	ips, err := p.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var first error
	for _, ip := range ips {
		var conn net.Conn
		if err = p.guard.Check(ip.Unmap()); err == nil {
			if conn, err = p.tunnel(ctx, netip.AddrPortFrom(ip.Unmap(), uint16(port)).String()); err == nil {
				return conn, nil
			}
			err = proxyError{err}
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// tunnel asks the proxy for a connection to an address.
func (p *proxy) tunnel(ctx context.Context, to string) (net.Conn, error) {
	if p.url.Scheme == "socks5" {
		d, err := xproxy.FromURL(p.url, &p.dialer)
		if err != nil {
			return nil, err
		}
		return d.(xproxy.ContextDialer).DialContext(ctx, "tcp", to)
	}
	conn, err := p.dialer.DialContext(ctx, "tcp", p.url.Host)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err = conn.SetDeadline(deadline); err == nil && p.url.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.roots, ServerName: p.url.Hostname()})
	}
	if err == nil {
		err = p.connect(conn, to)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

func (p *proxy) connect(conn net.Conn, to string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to}, Host: to, Header: http.Header{}}
	if u := p.url.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(conn, maxResponseHeaders))
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // there is none behind an answer to CONNECT
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("it answered %s", resp.Status)
	case in.Buffered() > 0:
		return errors.New("it sent something of its own behind its answer")
	}
	return nil
}
