package bustest

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus"
)

// Nodes are the three NATS servers of a cluster. The last one's replicas are behind the others'.
type Nodes []*server.Server

// Behind is the node whose replicas are behind.
const Behind = 2

// Cluster starts a cluster in the process that keeps three replicas of each stream, and connects to the node whose replicas are
// behind by so long: what others tell it of streams takes that time, and what it is asked does not.
func Cluster(t testing.TB, behind time.Duration) (*bus.Bus, Nodes) {
	t.Helper()
	const size = Behind + 1
	var nodes Nodes
	var known []*url.URL // whom a node connects to
	for i := range size {
		routes := append([]*url.URL{}, known...)
		if i == Behind {
			for j, to := range routes {
				routes[j] = delayed(t, func() string { return to.Host }, behind)
			}
		}
		var s *server.Server
		listens := make(chan struct{})
		// It must have an address to be told of before it starts, and has its own only then: a port that was free before may be taken.
		itself := delayed(t, func() string { <-listens; return s.ClusterAddr().String() }, 0)
		known = append(known, itself)
		var err error
		s, err = server.NewServer(&server.Options{
			ServerName: fmt.Sprint("node-", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), SyncInterval: time.Second, MaxPayload: bus.MaxPayload,
			Cluster: server.ClusterOpts{Name: "three", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoAdvertise: true}, Routes: append(routes, itself),
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, s)
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("a node of the cluster takes no connections")
		}
		close(listens)
	}
	cfg := bus.Defaults()
	cfg.URL, cfg.Replicas = nodes[Behind].ClientURL(), size
	b, err := bus.Connect(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b, nodes
}

// Lead has the node that is behind lead a consumer, and another one its stream.
func (n Nodes) Lead(t testing.TB, stream, consumer string) {
	t.Helper()
	conn, err := nats.Connect(n[0].ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const account = server.DEFAULT_GLOBAL_ACCOUNT
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Second) { // a leader is elected meanwhile
		settled := true
		for _, of := range []struct {
			name  string
			leads bool
			who   *server.Server
		}{
			{"STREAM.LEADER.STEPDOWN." + stream, n[0].JetStreamIsStreamLeader(account, stream), n[0]},
			{"CONSUMER.LEADER.STEPDOWN." + stream + "." + consumer, n[Behind].JetStreamIsConsumerLeader(account, stream, consumer), n[Behind]},
		} {
			if !of.leads { // if it is not heard, it is asked again
				settled = false
				_, _ = conn.Request("$JS.API."+of.name, fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, of.who.Name()), time.Second)
			}
		}
		if settled {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the nodes do not come to lead stream %s and its consumer %s as they should", stream, consumer)
		}
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// delayed gives an address that leads to another one, and delays what comes back on connections on which replicas are kept.
func delayed(t testing.TB, to func() (address string), by time.Duration) *url.URL {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			var d net.Dialer
			there, err := d.DialContext(t.Context(), "tcp", to())
			if err != nil {
				_ = here.Close()
				continue
			}
			go func() { _, _ = io.Copy(there, here); _ = there.Close() }()
			go late(here, there, by)
		}
	}()
	return &url.URL{Scheme: "nats-route", Host: l.Addr().String()}
}

// late copies, and from the first thing on that replicas are told of each piece by so much later.
func late(to, from net.Conn, by time.Duration) {
	type piece struct {
		due  time.Time
		text []byte
	}
	pieces := make(chan piece, 1<<16)
	go func() {
		defer func() { _ = to.Close() }()
		for p := range pieces {
			time.Sleep(time.Until(p.due)) // which is what this is for
			if _, err := to.Write(p.text); err != nil {
				return
			}
		}
	}()
	defer close(pieces)
	replicas := false
	for {
		text := make([]byte, 64<<10)
		n, err := from.Read(text)
		if err != nil {
			return
		}
		p := piece{text: text[:n]}
		if replicas = replicas || bytes.Contains(p.text, []byte("$NRG.")); replicas {
			p.due = time.Now().Add(by)
		}
		pieces <- p
	}
}
