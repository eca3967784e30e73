package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// README's first command: a request of each profile whole, and what follows.
func TestDemo_ShowsARequestOfEachProfile(t *testing.T) {
	t.Parallel()
	rest := freeAddress(t)
	p := &process{
		name: "demo", path: program(t, "shopbell"), args: []string{"demo", "--data", t.TempDir(), "--http", rest, "--grpc", freeAddress(t)},
		env: os.Environ(), ready: "http://" + rest + "/readyz", log: filepath.Join(t.TempDir(), "demo.log"), stopWithin: 10 * time.Second,
	}
	p.begin(t)
	t.Cleanup(func() {
		if p.running() {
			p.kill(t)
		}
	})
	p.awaitReady(t)
	var said string
	eventually(t, "the demonstration says what to look at next", func() error {
		text, err := os.ReadFile(p.log)
		if said = string(text); err == nil && !strings.Contains(said, "Look around") {
			err = errors.New("it does not yet")
		}
		return err
	})
	p.stop(t)
	want := []string{
		"503, it will be tried again", `{"text":"Order 5311 over 249 EUR"}`, "its filter says no", "it wants test events only",
		`"status":"pending", "payment_status":"requested"`, `"orders":{`, `"webhook_environment":"live"`, `"specversion":"1.0"`, "X-Webhook-Event: order_created",
	}
	for _, profile := range presets {
		want = append(want, fmt.Sprintf("── profile %s: ", profile))
	}
	for _, part := range want {
		if !strings.Contains(said, part) {
			t.Errorf("%q is not in what it says", part)
		}
	}
	for _, never := range []string{"stopped:", "no signature", "too far from now", "level=ERROR"} {
		if strings.Contains(said, never) {
			t.Errorf("%q is in what it says", never)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
}
