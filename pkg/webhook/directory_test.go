package webhook_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/telemetry/telemetrytest"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func profiles(t testing.TB) *profile.Set {
	t.Helper()
	set, err := profile.Load(fstest.MapFS{"own.yaml": {Data: []byte("name: own\nopen_catalog: true\npolicy: {timeout: 5s, retry_schedule: [1s, 2s], success_codes: [2xx]}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// bundle is a directory that follows the bucket of a bus of its own.
type bundle struct {
	bus       *bus.Bus
	bucket    jetstream.KeyValue
	directory *webhook.Directory
	log       *telemetrytest.Lines
}

// setup gives a directory that is filled; before puts what is there before it begins to follow.
func setup(t *testing.T, before func(b *bundle)) *bundle {
	t.Helper()
	b := &bundle{bus: bustest.New(t), log: &telemetrytest.Lines{}}
	var err error
	if b.bucket, err = b.bus.Bucket(t.Context(), contract.Webhooks); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(b)
	}
	if b.directory, err = webhook.Open(t.Context(), b.bus, profiles(t), slog.New(slog.NewTextHandler(b.log, nil))); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	filled, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- b.directory.Follow(b.bus)(ctx, func() { close(filled) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	select {
	case <-filled:
	case err := <-done:
		done <- nil
		t.Fatalf("follow ended: %v", err)
	}
	return b
}

func (b *bundle) put(t *testing.T, shop, id string, events ...string) (revision uint64) {
	t.Helper()
	return b.putState(t, state(shop, id, events...))
}

func state(shop, id string, events ...string) *busv1.WebhookState {
	return &busv1.WebhookState{
		Webhook: &shopbellv1.Webhook{Id: id, ShopId: shop, Url: "https://example.com/hooks", Events: events, Profile: "standard", Status: webhook.Enabled},
		Secrets: []*busv1.Secret{{Value: signature.NewSecret()}},
	}
}

func (b *bundle) putState(t *testing.T, s *busv1.WebhookState) (revision uint64) {
	t.Helper()
	value, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	revision, err = b.bucket.Put(t.Context(), contract.WebhookKey(s.Webhook.ShopId, s.Webhook.Id), value)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func ids(list []*webhook.Webhook) (out []string) {
	for _, w := range list {
		out = append(out, w.ID)
	}
	return out
}

func TestDirectory_FollowsItsBucket(t *testing.T) {
	t.Parallel()
	var first uint64
	b := setup(t, func(b *bundle) {
		first = b.put(t, "demo", "wh_1", "paid")
		b.put(t, "tulip.shop", "wh_2", "paid")
		b.put(t, "demo", "wh_gone", "paid")
		if err := b.bucket.Delete(t.Context(), contract.WebhookKey("demo", "wh_gone")); err != nil {
			t.Fatal(err)
		}
	})
	d := b.directory
	if got := ids(d.All("demo")); !slices.Equal(got, []string{"wh_1"}) {
		t.Fatalf("once filled it knows %q of demo, want what is there and not what was deleted", got)
	}
	if w := d.Get("tulip.shop", "wh_2"); w == nil || w.ShopID != "tulip.shop" {
		t.Errorf("webhook of a shop with a dot: %v", w)
	}
	if w := d.Get("demo", "wh_1"); w.Revision != first {
		t.Errorf("revision %d, want %d", w.Revision, first)
	}
	for _, pair := range [][2]string{{"demo", "wh_2"}, {"tulip", "wh_2"}, {"", ""}, {"demo", "wh_gone"}} {
		if w := d.Get(pair[0], pair[1]); w != nil {
			t.Errorf("Get%q = %v, want nothing", pair, w)
		}
	}

	before := d.All("demo")
	b.put(t, "demo", "wh_0", "paid") // older by its id
	testwait.Until(t, "the new webhook is known", func() bool { return d.Get("demo", "wh_0") != nil })
	if got := ids(d.All("demo")); !slices.Equal(got, []string{"wh_0", "wh_1"}) {
		t.Errorf("All = %q, want them by id", got)
	}
	if !slices.Equal(ids(before), []string{"wh_1"}) {
		t.Errorf("a list that was given out has changed to %q", ids(before))
	}

	changed := b.put(t, "demo", "wh_1", "order_created")
	testwait.Until(t, "the change is known", func() bool { return d.Get("demo", "wh_1").Revision == changed })
	if got := d.Subscribed("demo", "order_created"); !slices.Equal(ids(got), []string{"wh_1"}) {
		t.Errorf("after the change order_created goes to %q, want wh_1", ids(got))
	}
	if got := d.Subscribed("demo", "paid"); !slices.Equal(ids(got), []string{"wh_0"}) {
		t.Errorf("after the change paid goes to %q, want wh_0 alone", ids(got))
	}

	for _, id := range []string{"wh_0", "wh_1"} {
		if err := b.bucket.Delete(t.Context(), contract.WebhookKey("demo", id)); err != nil {
			t.Fatal(err)
		}
	}
	testwait.Until(t, "the deletions are known", func() bool { return d.Get("demo", "wh_1") == nil })
	if got := d.All("demo"); got != nil {
		t.Errorf("after the deletions there are %q", ids(got))
	}
	if got := d.Count(); got != 1 {
		t.Errorf("Count = %d, want 1", got)
	}
}

func TestDirectory_SubscribedByTypeAndByStar(t *testing.T) {
	t.Parallel()
	b := setup(t, func(b *bundle) {
		b.put(t, "demo", "wh_1", "order.created", "order.paid")
		b.put(t, "demo", "wh_2", "*")
		b.put(t, "demo", "wh_3", "order.paid")
		b.put(t, "demo", "wh_4", "order.created", "*")
		b.put(t, "demo", "wh_5", "order")
		b.put(t, "other", "wh_6", "*")
		b.put(t, "demo", "wh_7", "webhook.disabled")
	})
	for _, row := range []struct {
		shop, eventType string
		want            []string
	}{
		{"demo", "order.created", []string{"wh_1", "wh_2", "wh_4"}},
		{"demo", "order.paid", []string{"wh_1", "wh_2", "wh_3", "wh_4"}},
		{"demo", "order", []string{"wh_2", "wh_4", "wh_5"}},
		{"demo", "Order.Paid", []string{"wh_2", "wh_4"}},
		{"demo", "*", []string{"wh_2", "wh_4"}},
		{"demo", "webhook.disabled", []string{"wh_7"}}, // our own notices go to those that name them
		{"other", "order.paid", []string{"wh_6"}},
		{"nobody", "order.paid", nil},
	} {
		got := ids(b.directory.Subscribed(row.shop, row.eventType))
		slices.Sort(got)
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s of %s (-want +got):\n%s", row.eventType, row.shop, diff)
		}
	}
}

// What one caller appends must not be seen by another.
func TestDirectory_SubscribedGivesEachCallerItsOwnList(t *testing.T) {
	t.Parallel()
	b := setup(t, func(b *bundle) {
		for _, id := range []string{"wh_1", "wh_2", "wh_3"} {
			b.put(t, "demo", id, "*")
		}
		b.put(t, "demo", "wh_4", "a")
		b.put(t, "demo", "wh_5", "b")
	})
	a, other := b.directory.Subscribed("demo", "a"), b.directory.Subscribed("demo", "b")
	if a[3].ID != "wh_4" || other[3].ID != "wh_5" {
		t.Errorf("lists %q and %q share their end", ids(a), ids(other))
	}
}

func TestDirectory_AwaitReturnsWhenTheRevisionIsKnown(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	for range 20 {
		revision := b.put(t, "demo", "wh_1", "paid")
		b.directory.Await(t.Context(), "demo", "wh_1", revision)
		if w := b.directory.Get("demo", "wh_1"); w == nil || w.Revision < revision {
			t.Fatalf("after Await of revision %d: %v", revision, w)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	b.directory.Await(ctx, "demo", "wh_nowhere", 1)
	if ctx.Err() == nil {
		t.Error("Await of a webhook that never comes returned before its context ended")
	}
}

func TestDirectory_FetchReadsTheBucket(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	revision := b.put(t, "demo", "wh_1", "paid")
	w, err := b.directory.Fetch(t.Context(), "demo", "wh_1")
	if err != nil || w == nil || w.Revision != revision {
		t.Errorf("Fetch = %v, %v, want revision %d", w, err, revision)
	}
	if err := b.bucket.Delete(t.Context(), contract.WebhookKey("demo", "wh_1")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"wh_1", "wh_2", "", "*", ">", "a b", "wh_ä", "wh.1", "../x", "wh_1\n"} {
		if w, err := b.directory.Fetch(t.Context(), "demo", id); w != nil || err != nil {
			t.Errorf("Fetch of %q = %v, %v, want neither", id, w, err)
		}
	}
}

// A profile may go, or become stricter, while webhooks name it. Their deliveries are held, not lost.
func TestDirectory_KeepsWhatIsBroken(t *testing.T) {
	t.Parallel()
	b := setup(t, func(b *bundle) {
		gone := state("demo", "wh_1", "paid")
		gone.Webhook.Profile = "standart"
		b.putState(t, gone)
		stricter := state("demo", "wh_2", "paid")
		stricter.Webhook.Policy = &shopbellv1.Policy{MaxAttempts: proto.Int32(99)}
		b.putState(t, stricter)
		unsigned := state("demo", "wh_3", "paid")
		unsigned.Secrets[0].Value = "whsec_!"
		b.putState(t, unsigned)
	})
	for id, want := range map[string]string{"wh_1": `did you mean "standard"?`, "wh_2": "max_attempts", "wh_3": "base64"} {
		w := b.directory.Get("demo", id)
		if w == nil {
			t.Errorf("%s is lost", id)
			continue
		}
		if !strings.Contains(w.Broken, want) || !strings.Contains(w.Off(), want) {
			t.Errorf("%s: broken %q, off %q, want %q in both", id, w.Broken, w.Off(), want)
		}
		if strings.Contains(w.Broken, "whsec_!") {
			t.Errorf("%s: its secret is in %q", id, w.Broken)
		}
		if p := w.Proto(); p.GetId() != id {
			t.Errorf("%s is shown as %v", id, p)
		}
	}
	if got := ids(b.directory.Subscribed("demo", "paid")); !slices.Equal(got, []string{"wh_1", "wh_2", "wh_3"}) {
		t.Errorf("paid goes to %q, want all three", got)
	}
}

func TestDirectory_GivesThoseWithAStatus(t *testing.T) {
	t.Parallel()
	b := setup(t, func(b *bundle) {
		for id, status := range map[string]string{"wh_1": webhook.Enabled, "wh_2": webhook.Disabled, "wh_3": webhook.Deleted, "wh_4": webhook.Disabled} {
			s := state("shop-of-"+id, id, "paid")
			s.Webhook.Status = status
			b.putState(t, s)
		}
	})
	for status, want := range map[string][]string{webhook.Disabled: {"wh_2", "wh_4"}, webhook.Deleted: {"wh_3"}, "unheard of": nil} {
		got := ids(b.directory.With(status))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("With(%q) = %q, want %q", status, got, want)
		}
	}
}

func TestDirectory_GoesOnAfterWhatItCannotRead(t *testing.T) {
	t.Parallel()
	b := setup(t, func(b *bundle) {
		b.put(t, "demo", "wh_1", "paid")
		for key, value := range map[string][]byte{"demo": []byte("x"), "demo.wh_2": {0xff}, "demo.wh_3.more": {}, "demo.wh_4": {}} {
			if _, err := b.bucket.Put(t.Context(), key, value); err != nil {
				t.Fatal(err)
			}
		}
	})
	if _, err := b.bucket.Put(t.Context(), "demo.wh_1", []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	revision := b.put(t, "demo", "wh_9", "paid")
	b.directory.Await(t.Context(), "demo", "wh_9", revision)
	if got := ids(b.directory.All("demo")); !slices.Equal(got, []string{"wh_1", "wh_9"}) {
		t.Errorf("All = %q, want wh_1 as it was before, and wh_9", got)
	}
	for _, want := range []string{"names no place in a shop", "cannot be read", "wh_2", "wh_4"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("log without %q:\n%s", want, b.log)
		}
	}
}

func TestDirectory_MayBeReadWhileItFollows(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				for _, w := range b.directory.Subscribed("demo", "paid") {
					_ = w.Off()
				}
				b.directory.All("demo")
				b.directory.Get("demo", "wh_1")
				b.directory.Count()
			}
		})
	}
	var last uint64
	for i := range 100 {
		last = b.put(t, "demo", "wh_1", []string{"paid", "*"}[i%2])
		if i%10 == 0 {
			if err := b.bucket.Delete(t.Context(), contract.WebhookKey("demo", "wh_1")); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.directory.Await(t.Context(), "demo", "wh_1", last)
	stop()
	readers.Wait()
}

func TestFollow_FailsWhenItCannot(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	d, err := webhook.Open(t.Context(), b, profiles(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := d.Follow(b)(t.Context(), func() { t.Error("it is filled without a bus") }); err == nil {
		t.Error("Follow without a bus: no error")
	}
}
