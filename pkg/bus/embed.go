package bus

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// EmbedConfig is a NATS server in this process.
type EmbedConfig struct {
	// Dir is where its streams lie.
	Dir string
	// Sync is how often it has the disk write what it was given. Nothing is lost when a process dies, however it
	// dies; when the machine loses power, at most what came within this time. 0 has every write wait for the disk.
	Sync time.Duration
	// Listen lets others connect at this address (host and port). Empty: nobody but this process.
	Host string
	Port int
}

// Embedded is a running server.
type Embedded struct{ server *server.Server }

// MaxPayload is the largest message, with its headers, that the bus takes: 8 MiB.
const MaxPayload = 8 << 20

// Embed starts a server and returns once it takes connections. Stop it when all connections are closed.
func Embed(cfg EmbedConfig, log *slog.Logger) (*Embedded, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the bus's folder: %w", err)
	}
	opts := &server.Options{
		ServerName:    "shopbell",
		DontListen:    cfg.Port == 0 && cfg.Host == "",
		Host:          cfg.Host,
		Port:          cfg.Port,
		JetStream:     true,
		StoreDir:      cfg.Dir,
		SyncInterval:  cfg.Sync,
		SyncAlways:    cfg.Sync == 0,
		NoSigs:        true,
		MaxPayload:    MaxPayload,
		MaxPending:    256 << 20,
		WriteDeadline: 10 * time.Second,
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("start the embedded bus: %w", err)
	}
	s.SetLoggerV2(serverLog{log}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		return nil, fmt.Errorf("start the embedded bus in %s: not ready within 30s: look above for what it says", cfg.Dir)
	}
	return &Embedded{s}, nil
}

// Option makes a connection go to this server without a socket.
func (e *Embedded) Option() nats.Option { return nats.InProcessServer(e.server) }

// URL is where others connect; empty when it listens nowhere.
func (e *Embedded) URL() string {
	if e.server.Addr() == nil {
		return ""
	}
	return e.server.ClientURL()
}

// Stop closes the server in order and waits for it.
func (e *Embedded) Stop() {
	e.server.Shutdown()
	e.server.WaitForShutdown()
}

// serverLog passes on what the server has to say that somebody should know.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(string, ...any) {}
func (l serverLog) Debugf(string, ...any)  {}
func (l serverLog) Tracef(string, ...any)  {}
func (l serverLog) Warnf(format string, args ...any) {
	l.log.Warn("bus server warns", slog.String("text", fmt.Sprintf(format, args...)))
}

func (l serverLog) Errorf(format string, args ...any) {
	l.log.Error("bus server error", slog.String("text", fmt.Sprintf(format, args...)))
}

func (l serverLog) Fatalf(format string, args ...any) {
	l.log.Error("bus server gave up", slog.String("text", fmt.Sprintf(format, args...)))
}
