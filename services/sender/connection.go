package sender

import (
	"container/list"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// connections are all that are open to receivers. The transport keeps those that nobody uses, but bounds them only for
// HTTP/1.1, and reads as much as a receiver sends; what it leaves open is bounded here.
type connections struct {
	keep int // how many that nobody uses are kept open

	mu   sync.Mutex // guards what follows, and what the connections say is guarded by it
	idle list.List  // of *connection, the one that was used last at the end
}

// connection is one to a receiver, below TLS. It is read up to an allowance: each exchange adds its own, so that a
// receiver which sends without end (hints, frames of HTTP/2 for no request, a compressed nothing) loses the connection
// soon.
type connection struct {
	net.Conn
	all  *connections
	left atomic.Int64 // how much may still be read

	// all.mu guards these.
	users  int  // exchanges that are under way on it
	used   bool // there was one at all
	closed bool
	place  *list.Element // in all.idle
}

// What is read from a connection at most: for its handshake, and for each exchange beside its body (its headers, hints
// before them, trailers, and what had been sent already when the body was cut).
const (
	handshakeAllowance = 512 << 10
	exchangeAllowance  = 256 << 10
)

var errFlood = errors.New("the receiver sends more than is read")

// open takes over a new connection. Until an exchange uses it, it ends at the deadline of the one that it was dialled
// for: so do its handshakes, and so does one that was dialled in vain.
func (a *connections) open(conn net.Conn, deadline time.Time) *connection {
	c := &connection{Conn: conn, all: a}
	c.left.Store(handshakeAllowance)
	_ = c.SetDeadline(deadline) // fails if it is closed, which the handshake will see
	return c
}

// begin has an exchange with a body up to limit use a connection. It is false when the connection has been closed to
// make room: then the exchange did not begin.
func (a *connections) begin(c *connection, limit int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.closed {
		return false
	}
	if !c.used {
		c.used = true
		_ = c.SetDeadline(time.Time{})
	}
	a.forget(c)
	c.users++
	allowance := exchangeAllowance + limit
	c.left.Store(min(c.left.Load()+allowance, handshakeAllowance+int64(c.users)*allowance))
	return true
}

// end is the end of an exchange that begin began.
func (a *connections) end(c *connection) {
	a.mu.Lock()
	var oldest *connection
	if c.users--; c.users == 0 && !c.closed {
		c.place = a.idle.PushBack(c)
		if a.idle.Len() > a.keep {
			oldest = a.idle.Front().Value.(*connection)
			oldest.closed = true // before anybody else can begin on it
			a.forget(oldest)
		}
	}
	a.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
}

func (a *connections) forget(c *connection) {
	if c.place != nil {
		a.idle.Remove(c.place)
		c.place = nil
	}
}

// Read gives what the receiver sends, up to the allowance.
func (c *connection) Read(p []byte) (int, error) {
	if c.left.Load() <= 0 {
		return 0, errFlood
	}
	n, err := c.Conn.Read(p)
	c.left.Add(-int64(n))
	return n, err
}

// Close may be called twice.
func (c *connection) Close() error {
	c.all.mu.Lock()
	c.closed = true
	c.all.forget(c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// beneath is our connection below the one that the transport shows.
func beneath(conn net.Conn) *connection {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, _ := conn.(*connection)
	return c
}
