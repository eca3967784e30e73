package run

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// healthcheckTimeout bounds the whole look, and is less than what container engines give it.
const healthcheckTimeout = 2 * time.Second

// Healthcheck asks the process that listens on this HTTP address of this machine whether it is ready, and returns an
// error that says what it lacks when it is not. It is for containers, in whose images there is nothing else that could
// ask: the room's own binary does, with the room's own settings.
func Healthcheck(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is no address: %w", address, err)
	}
	// An address that means all interfaces is one to listen on, not one to call.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	// A transport of its own, without the proxy that HTTP_PROXY may name for the room.
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask %s whether it is ready: %w", address, err)
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", address, res.StatusCode, strings.TrimSpace(string(said)))
	}
	return nil
}
