package sender

import (
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// overheard counts what is published to a subject from now on.
func (b *bundle) overheard(t *testing.T, subject string) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	listening := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- b.bus.Overhear(t.Context(), subject, func() { close(listening) }, func(*nats.Msg) { n.Add(1) })
	}()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-listening
	return &n
}

func TestSender_ReadsABacklogByHundreds(t *testing.T) {
	t.Parallel()
	for _, ordered := range []string{profile.Unordered, profile.ByKey, profile.ByWebhook} {
		t.Run(ordered, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			const held = 3 * aheadInLines
			in := count(t, func(http.ResponseWriter, int, int) int { return 0 })
			b.put(t, governed("wh_1", in.url, &shopbellv1.Policy{Ordered: &ordered}))
			b.matchedUpTo(t, held)
			for i, d := range numbered("wh_1", held) {
				if ordered != profile.Unordered {
					d.Sequence, d.MatchedThrough = uint64(i+1), uint64(i)
				}
				b.publish(t, d.Hold(0))
			}
			reads := b.overheard(t, "$JS.API.DIRECT.GET."+contract.Held)
			asked := b.overheard(t, "$JS.API.CONSUMER.INFO."+contract.Events+"."+contract.Matcher)
			b.start(t, few())
			b.sender.keep(t.Context(), hold{why: "a test", shop: "demo", webhookID: "wh_1"})
			testwait.Until(t, "what was held has arrived", func() bool { return len(in.delivered()) >= held })
			got := wantAll(t, in, held)
			if ordered == profile.ByWebhook && !slices.IsSorted(got) {
				t.Errorf("they arrived in the order %v", got)
			}
			// Each takes in half of what may be in line, or 256; and there are some of what is noted, of the first and of the end.
			if n := reads.Load(); n < 2 || n > 40 {
				t.Errorf("%d deliveries were read in %d readings, want some, and few", held, n)
			}
			// What is held tells how far events were matched, but for the last of them.
			if n := asked.Load(); n > 20 {
				t.Errorf("the bus was asked %d times how far events were matched, want few", n)
			}
		})
	}
}

func TestBacklog_ReadsOnForAsLongAsNothingElseCanBeSent(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, ordered string
		lines, each   int
		floor         uint64
		want          int
	}{
		{"nothing is in line", profile.ByKey, 0, 0, 0, aheadInLines},
		{"each key has one", profile.ByKey, 300, 1, 300, 0},
		{"some keys have very many", profile.ByKey, 10, 1000, 10_000, aheadInLines - 10},
		{"they are all that may be known", profile.ByKey, 10, maxInLines / 10, maxInLines, 0},
		{"they are, and events before all of them may not be matched yet", profile.ByKey, 10, maxInLines / 10, 0, aheadInLines},
		{"one after the other", profile.ByWebhook, 1, 300, 300, 0},
		{"one after the other, and an event before the first may not be matched yet", profile.ByWebhook, 1, 300, 0, aheadInLines},
	} {
		w := &webhook.Webhook{Rules: &webhook.Rules{Policy: profile.Policy{Ordered: row.ordered}}}
		b := newBacklog(nil, "demo", "wh_1")
		b.floor = row.floor
		order := uint64(0)
		for range row.lines {
			l := &line{key: string(rune(order))}
			for range row.each {
				order++
				l.list = append(l.list, &waiting{order: order})
				b.sum++
			}
			b.lines[l.key] = l
			b.advance(l)
		}
		if got := b.room(w); got != row.want {
			t.Errorf("%s: there is room for %d more, want %d", row.name, got, row.want)
		}
	}
}
