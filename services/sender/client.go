package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/fault"
)

// client is the one that all exchanges share: no redirects, every address guarded when it is dialled, every answer
// bounded, and nothing of the environment's (HTTP_PROXY and the like).
type client struct {
	transport   *http.Transport
	connections *connections
	dialer      net.Dialer // to receivers
	proxy       *proxy     // nil: there is none
}

const (
	// maxResponseHeaders bounds an answer's headers.
	maxResponseHeaders = 64 << 10
	// idleTimeout is below the minute after which common load balancers hang up: a request that crosses with their
	// hanging up would be lost.
	idleTimeout = 55 * time.Second
	// maxDials is how many connections are made for one exchange, the later ones with growing waits between them. The
	// transport makes another one whenever a receiver with HTTP/2 goes away, or when others were faster to use up the
	// requests that the receiver takes on it; on its own it would do so until the exchange's time is over.
	maxDials, dialsAtOnce = 10, 3
)

// newClient makes a client. Names are resolved by the resolver, nil being the machine's own.
func newClient(guard *address.Guard, cfg Config, resolver *net.Resolver) (*client, error) {
	if resolver == nil {
		// Go's own: C's holds a thread for every name that is not answered.
		resolver = &net.Resolver{PreferGo: true}
	}
	roots, err := cfg.roots()
	if err != nil {
		return nil, err
	}
	certificates, err := cfg.certificates()
	if err != nil {
		return nil, err
	}
	c := &client{
		connections: &connections{keep: cfg.MaxIdleConnections},
		dialer:      net.Dialer{KeepAlive: 30 * time.Second, Control: guard.Control, Resolver: resolver},
	}
	if cfg.ProxyURL != "" {
		if c.proxy, err = newProxy(string(cfg.ProxyURL), guard, roots, resolver); err != nil {
			return nil, err
		}
	}
	c.transport = &http.Transport{
		DialContext:       c.dial,
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: certificates},
		// How many are kept is bounded by connections. One host may have all that may be in flight: with fewer, a burst
		// to it would dial anew for most of them.
		MaxIdleConnsPerHost:    cfg.MaxInFlight,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeaders,
		HTTP2: &http.HTTP2Config{
			// A connection that many exchanges share, and on which nothing comes any more, is noticed by this.
			SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second, WriteByteTimeout: 15 * time.Second,
			// What a receiver may send before it is read: the defaults would let each request hold 4 MiB.
			MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 1 << 20,
		},
	}
	return c, nil
}

// CloseIdleConnections closes those that nobody uses.
func (c *client) CloseIdleConnections() { c.transport.CloseIdleConnections() }

var errHangsUp = errors.New("the receiver takes no request on any of its connections")

// dial makes a connection within the time of the exchange that it is for. The transport does not end dialling with the
// exchange, in the hope that another one can use the connection; a receiver that hangs would collect them.
func (c *client) dial(ctx context.Context, network, to string) (net.Conn, error) {
	v := ctx.Value(visitKey{}).(*visit)
	ctx, cancel := context.WithDeadline(ctx, v.deadline)
	defer cancel()
	if n := v.dials.Add(1); n > maxDials {
		return nil, errHangsUp
	} else if n > dialsAtOnce {
		select {
		case <-time.After(min(time.Second, 10*time.Millisecond<<(n-dialsAtOnce))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var conn net.Conn
	var err error
	if c.proxy != nil {
		conn, err = c.proxy.dial(ctx, to)
	} else {
		conn, err = c.dialer.DialContext(ctx, network, to)
	}
	if err != nil {
		return nil, err
	}
	return c.connections.open(conn, v.deadline), nil
}

// checkExchange says what is wrong with the settings of exchanges.
func (c Config) checkExchange(bad *fault.Collector) {
	if c.MaxIdleConnections < 0 || c.MaxIdleConnections > 100_000 {
		bad.Add("max_idle_connections", "%d is not between 0 and 100000", c.MaxIdleConnections)
	}
	if (c.ClientCertificate == "") != (c.ClientKey == "") {
		bad.Add("client_certificate", "it needs client_key, and client_key needs it: set both, or neither")
	}
	if c.ProxyURL != "" {
		if _, err := parseProxy(string(c.ProxyURL)); err != nil {
			bad.Add("proxy_url", "%v", err)
		}
	}
}

// roots are whom we trust to sign receivers' certificates: nil is whom the machine trusts.
func (c Config) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("sender.ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read whom the machine trusts: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("sender.ca_file: there is no certificate in %s; it holds PEM blocks (-----BEGIN CERTIFICATE-----)", c.CAFile)
	}
	return pool, nil
}

// certificates are what we show to receivers that ask who we are.
func (c Config) certificates() ([]tls.Certificate, error) {
	if c.ClientCertificate == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.ClientCertificate, c.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("sender.client_certificate, sender.client_key: %w", err)
	}
	return []tls.Certificate{pair}, nil
}

// parseProxy reads a proxy's URL. It stands in no error: it may hold a password.
func parseProxy(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("it is no URL; write it as http://proxy.example.com:3128")
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5":
		return nil, fmt.Errorf("its scheme is %q; there are http, https and socks5", u.Scheme)
	case u.Port() == "":
		return nil, errors.New("it has no port; write it as http://proxy.example.com:3128")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("it has a path; a proxy is a host and a port alone")
	}
	return u, nil
}
