package sender

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/contract"
)

func TestSender_ReadsABacklogByHundreds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const held = 3 * aheadInLines
	in := count(t, func(http.ResponseWriter, int, int) int { return 0 })
	var reads atomic.Int64
	listening := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- b.bus.Overhear(t.Context(), "$JS.API.DIRECT.GET."+contract.Held, func() { close(listening) }, func(string, nats.Header) { reads.Add(1) })
	}()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-listening
	b.put(t, governed("wh_1", in.url, nil))
	for _, d := range numbered("wh_1", held) {
		b.publish(t, d.Hold(0))
	}
	b.start(t, few())
	b.sender.keep(t.Context(), hold{why: "a test", shop: "demo", webhookID: "wh_1"})
	eventually(t, "what was held has arrived", func() bool { return len(in.delivered()) >= held })
	wantAll(t, in, held)
	// Each takes in half of what may be in line, or 256; and there are some of what is noted, of the first and of the end.
	if n := reads.Load(); n < 2 || n > 40 {
		t.Errorf("%d deliveries were read in %d readings, want some, and few", held, n)
	}
}
