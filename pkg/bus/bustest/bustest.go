// Package bustest gives tests a real bus in the process.
package bustest

import (
	"log/slog"
	"testing"
	"time"

	"shopbell.dev/pkg/bus"
)

// New starts a server of its own for the test, with its streams in a folder of the test's, and connects to it.
func New(t testing.TB) *bus.Bus {
	t.Helper()
	b, _ := Server(t)
	return b
}

// Server is New that also gives the server, for tests that stop it.
func Server(t testing.TB) (*bus.Bus, *bus.Embedded) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	server, err := bus.Embed(bus.EmbedConfig{Dir: t.TempDir(), Sync: time.Second}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	b, err := bus.Connect(t.Context(), bus.Defaults(), log, server.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b, server
}
