package sender

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"shopbell.dev/pkg/address"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// exchange is one request to a receiver and what came of it.
type exchange struct {
	url        string
	began      time.Time
	duration   time.Duration
	timings    *shopbellv1.Timings
	reached    bool // there was a connection to the receiver
	request    http.Header
	code       int // 0: no answer
	response   http.Header
	kept       []*shopbellv1.Header // of response, as much as the log keeps
	body       []byte
	cut        bool
	retryAfter time.Duration
	class      string // why it failed, in one word; empty when there was an answer
	problem    string // why it failed, in a sentence
}

// do makes one exchange: it ends when the answer's body has been read up to its limit, or when timeout has passed,
// whichever is first. It never fails: what went wrong is in the exchange. ctx ends it early.
func do(ctx context.Context, c *client, target string, h http.Header, body []byte, timeout time.Duration, limit int64) *exchange {
	x := &exchange{url: target, began: time.Now(), request: h}
	v := &visit{client: c, deadline: x.began.Add(timeout), limit: limit}
	defer v.end()
	ctx, cancel := context.WithDeadline(ctx, v.deadline)
	defer cancel()
	resp, err := v.send(ctx, target, h, body)
	x.reached = v.reached
	if err == nil && time.Now().After(v.deadline) { // the answer won a race against the clock that it had lost
		_ = resp.Body.Close()
		err = context.DeadlineExceeded
	}
	if err != nil {
		x.duration = time.Since(x.began)
		x.timings = v.clock.seen().timings()
		x.class, x.problem = classify(err, timeout, &v.clock)
		x.problem = readable(x.problem)
		return x
	}
	x.code, x.response = resp.StatusCode, resp.Header
	x.retryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	if x.code != http.StatusSwitchingProtocols { // its body is the connection, which our deadline does not end
		x.body, err = readAll(io.LimitReader(resp.Body, limit+1))
	}
	_ = resp.Body.Close()
	if int64(len(x.body)) > limit {
		x.body, x.cut = x.body[:limit], true
	}
	x.cut = x.cut || err != nil // the answer's status came in time, so it counts (SHOPS.md C5)
	x.duration = time.Since(x.began)
	x.timings = v.clock.seen().timings()
	return x
}

// keep drops what the log does not keep: of the answer's body, and of its headers, what is beyond so many bytes.
func (x *exchange) keep(most int) {
	if len(x.body) > most {
		x.body, x.cut = bytes.Clone(x.body[:most]), true
	}
	x.kept = shown(x.response, false)
	size := 0
	for i, h := range x.kept {
		size += len(h.Name) + len(h.Value)
		if size > most {
			left := len(x.kept) - i
			x.kept = append(x.kept[:i], &shopbellv1.Header{Name: "…", Value: fmt.Sprintf("%d more, beyond the %d bytes that are kept", left, most)})
			break
		}
	}
}

// bodies are buffers to read answers into: a large one is not to grow anew for each exchange.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// readAll reads to the end or to an error, and gives what came in any case.
func readAll(r io.Reader) ([]byte, error) {
	b := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(b)
	b.Reset()
	_, err := b.ReadFrom(r)
	return bytes.Clone(b.Bytes()), err
}

// visit is what an exchange and the client's connections know of each other.
type visit struct {
	client   *client
	deadline time.Time
	limit    int64 // of the answer's body
	clock    stopwatch
	dials    atomic.Int32
	on       *connection
	reached  bool // it was given one
	late     bool // on had been closed to make room when the exchange was given it
}

type visitKey struct{}

// send POSTs a body.
func (v *visit) send(ctx context.Context, target string, h http.Header, body []byte) (*http.Response, error) {
	ctx = context.WithValue(httptrace.WithClientTrace(ctx, v.trace()), visitKey{}, v)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, requestError{inner(err)}
	}
	// The URL was checked when it was saved. What would lead elsewhere than it seems is looked at again.
	if u := req.URL; u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, requestError{errors.New("the URL is not http:// or https:// and a host")}
	}
	req.Header = h
	// Not client.Do, which would look where a redirect leads, and fail if that is nowhere.
	resp, err := v.client.transport.RoundTrip(req)
	if err != nil && v.late { // nothing was sent
		req.Body = io.NopCloser(bytes.NewReader(body))
		resp, err = v.client.transport.RoundTrip(req)
	}
	return resp, err
}

// requestError is why a request cannot be made.
type requestError struct{ error }

// given is told which connection the exchange has. It is told again when the transport tries another one.
func (v *visit) given(info httptrace.GotConnInfo) {
	v.end()
	v.reached = true
	v.clock.mark(&v.clock.given)
	if c := beneath(info.Conn); c != nil {
		if v.late = !v.client.connections.begin(c, v.limit); !v.late {
			v.on = c
		}
	}
}

func (v *visit) end() {
	if v.on != nil {
		v.client.connections.end(v.on)
		v.on = nil
	}
}

func (v *visit) trace() *httptrace.ClientTrace {
	t := v.clock.trace()
	t.GotConn = v.given
	return t
}

// stopwatch measures the parts of an exchange. Its hooks may be called at once, and after the exchange is over, when a
// second address is tried beside the first.
type stopwatch struct {
	mu sync.Mutex // guards parts
	parts
}

type parts struct{ dnsStart, dnsEnd, connectStart, connectEnd, tlsStart, tlsEnd, given, wrote, first time.Time }

func (s *stopwatch) mark(at *time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*at = time.Now()
}

func (s *stopwatch) seen() parts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts
}

func (s *stopwatch) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { s.mark(&s.dnsStart) },
		DNSDone: func(info httptrace.DNSDoneInfo) {
			if !cutShort(info.Err) {
				s.mark(&s.dnsEnd)
			}
		},
		ConnectStart: func(string, string) { s.mark(&s.connectStart) },
		ConnectDone: func(_, _ string, err error) {
			if !cutShort(err) {
				s.mark(&s.connectEnd)
			}
		},
		TLSHandshakeStart: func() { s.mark(&s.tlsStart) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				s.mark(&s.tlsEnd)
			}
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				s.mark(&s.wrote)
			}
		},
		GotFirstResponseByte: func() { s.mark(&s.first) },
	}
}

// cutShort is whether a part of an exchange ended only because its time was up: then it is what did not end.
func cutShort(err error) bool {
	var late net.Error
	return errors.Is(err, context.Canceled) || errors.As(err, &late) && late.Timeout()
}

func (p parts) timings() *shopbellv1.Timings {
	sent := p.wrote
	if sent.IsZero() || p.first.Before(sent) { // it was answered before we knew that it was written, or before it was
		sent = p.given
	}
	return &shopbellv1.Timings{
		DnsMs: span(p.dnsStart, p.dnsEnd), ConnectMs: span(p.connectStart, p.connectEnd),
		TlsMs: span(p.tlsStart, p.tlsEnd), FirstByteMs: span(sent, p.first),
	}
}

func span(from, to time.Time) float64 {
	if from.IsZero() || to.Before(from) {
		return 0
	}
	return millis(to.Sub(from))
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// classify says why there was no answer: in one word, and in a sentence without anything secret.
func classify(err error, timeout time.Duration, clock *stopwatch) (class, problem string) {
	cause := inner(err)
	var unmade requestError
	var byProxy proxyError
	var dns *net.DNSError
	var late net.Error
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var host x509.HostnameError
	switch {
	case errors.Is(err, address.ErrRefused):
		return "blocked_address", "the host leads to an address that is not on the public Internet; " + address.HowToAllow
	case errors.As(err, &unmade):
		return "request", "the request cannot be made: " + unmade.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout", fmt.Sprintf("no answer within %s: %s", timeout, clock.seen().stuck())
	case errors.Is(err, context.Canceled):
		return "interrupted", "the sender was stopped before the answer came"
	case errors.As(err, &byProxy):
		return "connect", "the operator's proxy made no connection: " + byProxy.Error()
	case errors.Is(err, errHangsUp):
		return "connect", errHangsUp.Error()
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return "dns", fmt.Sprintf("there is no host %s", dns.Name)
		}
		return "dns", fmt.Sprintf("the name %s could not be resolved: %s", dns.Name, dns.Err)
	case errors.As(err, &late) && late.Timeout(): // a limit of the transport's own
		return "timeout", "no answer in time: " + clock.seen().stuck()
	case errors.As(err, &host):
		return "tls", "the receiver's certificate is not for this host: " + host.Error()
	case errors.As(err, &cert):
		return "tls", "the receiver's certificate is not trusted: " + cert.Err.Error()
	case strings.Contains(cause.Error(), "protocol version"):
		return "tls", "the receiver speaks no TLS 1.2 or later; older versions are refused"
	case strings.Contains(cause.Error(), "tls: certificate required"):
		return "tls", "the receiver asks for a client's certificate, and does not take ours or there is none (sender.client_certificate)"
	case errors.As(err, &record), errors.As(err, &alert), strings.Contains(cause.Error(), "tls: "), strings.Contains(cause.Error(), "HTTP response to HTTPS client"):
		return "tls", "no TLS connection could be made: " + cause.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect", "the receiver refuses the connection: nothing listens there"
	case errors.As(err, &op) && op.Op == "dial":
		return "connect", "no connection to the receiver: " + op.Err.Error()
	case errors.Is(err, errFlood):
		return "body_too_large", errFlood.Error() + ", and no answer is in it"
	case strings.Contains(cause.Error(), "response headers exceeded"), strings.Contains(cause.Error(), "header list"):
		return "body_too_large", fmt.Sprintf("the answer's headers are larger than %d bytes", maxResponseHeaders)
	case strings.Contains(cause.Error(), "received from peer"), strings.Contains(cause.Error(), "GOAWAY"):
		return "connect", "the receiver broke off the exchange: " + cause.Error()
	case strings.Contains(cause.Error(), "client connection lost"):
		return "connect", "the receiver went silent on its connection"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		// So net/http has it when the connection goes while the request is still being written.
		errors.Is(err, net.ErrClosed), strings.Contains(cause.Error(), "server closed idle connection"),
		strings.Contains(cause.Error(), "client conn could not be established"):
		return "connect", "the receiver closed the connection without an answer"
	}
	if strings.HasPrefix(cause.Error(), "net/http: invalid header field") {
		return "request", "the request cannot be made: " + cause.Error()
	}
	return "protocol", "what the receiver answered is not HTTP: " + cause.Error()
}

// inner takes the request's URL off an error: it may hold what nobody else may see.
func inner(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// stuck says what an exchange was doing when its time was up.
func (p parts) stuck() string {
	switch {
	case p.connectStart.IsZero() && !p.dnsStart.IsZero() && p.dnsEnd.IsZero():
		return "the host's name was still being resolved"
	case !p.connectStart.IsZero() && p.connectEnd.IsZero():
		return "the connection was still being made"
	case !p.tlsStart.IsZero() && p.tlsEnd.IsZero():
		return "the TLS handshake was not finished"
	case p.wrote.IsZero():
		return "the request was not sent to its end"
	}
	return "the request was sent, but the receiver did not answer"
}

// parseRetryAfter reads what a receiver asks for: seconds or a time (RFC 9110, 10.2.3). Anything else is 0.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(max(0, min(seconds, 1<<30))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
