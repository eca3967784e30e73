package key_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/key"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestNew_IsLongAndNeverTheSame(t *testing.T) {
	t.Parallel()
	a, b := key.New(), key.New()
	if a == b || len(a) != len(key.Prefix)+43 || !key.Looks(a) || !strings.HasSuffix(a, key.LastFour(a)) {
		t.Errorf("got %q and %q, want two keys of 256 bits", a, b)
	}
	if key.Looks("the-operators-own-key") {
		t.Error("a text of another's looks like a key of ours")
	}
}

func TestKey_MayDoWhatItsScopesSay(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		scopes []string
		scope  string
		want   bool
	}{
		{"its scope", []string{key.LogRead, key.EventsWrite}, key.EventsWrite, true},
		{"another", []string{key.LogRead}, key.EventsWrite, false},
		{"to write is not to read", []string{key.WebhooksWrite}, key.WebhooksRead, false},
		{"an admin may everything", []string{key.Admin}, key.LogWrite, true},
		{"nobody is admin by another scope", []string{key.WebhooksWrite, key.LogWrite}, key.Admin, false},
		{"no scope at all", nil, key.EventsWrite, false},
	} {
		k := &key.Key{ApiKey: &shopbellv1.ApiKey{Scopes: row.scopes}}
		if got := k.May(row.scope); got != row.want {
			t.Errorf("%s: got %v, want %v", row.name, got, row.want)
		}
	}
}

func TestKey_TakesWhatItsRateAllows(t *testing.T) {
	t.Parallel()
	type step struct {
		after  time.Duration // the step before
		events int
		wait   time.Duration // with the millisecond for rounding; 0: they may be published
	}
	for _, row := range []struct {
		name  string
		rate  *float64
		steps []step
	}{
		{"without a rate everything", nil, []step{{0, 1000, 0}, {0, 1000, 0}}},
		{"a second's events at once, then as they come", proto.Float64(2), []step{{0, 1, 0}, {0, 1, 0}, {0, 1, 501 * time.Millisecond}, {501 * time.Millisecond, 1, 0}, {0, 1, 500 * time.Millisecond}}},
		{"a long rest gives no more than a second's", proto.Float64(2), []step{{0, 1, 0}, {time.Hour, 1, 0}, {0, 1, 0}, {0, 1, 501 * time.Millisecond}}},
		{"a batch is taken whole and paid off", proto.Float64(10), []step{{0, 110, 0}, {0, 1, 10101 * time.Millisecond}, {10 * time.Second, 1, 101 * time.Millisecond}, {101 * time.Millisecond, 1, 0}}},
		{"less than one a second", proto.Float64(0.1), []step{{0, 1, 0}, {0, 1, 10001 * time.Millisecond}, {10001 * time.Millisecond, 1, 0}}},
		{"a refusal costs nothing", proto.Float64(1), []step{{0, 1, 0}, {0, 5, 1001 * time.Millisecond}, {0, 5, 1001 * time.Millisecond}, {1001 * time.Millisecond, 1, 0}}},
		{"a clock that goes back", proto.Float64(1), []step{{0, 1, 0}, {-time.Hour, 1, 1001 * time.Millisecond}, {1001 * time.Millisecond, 1, 0}}},
	} {
		k := &key.Key{ApiKey: &shopbellv1.ApiKey{RatePerSecond: row.rate}}
		now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
		for i, s := range row.steps {
			now = now.Add(s.after)
			if got := k.Take(s.events, now); (got-s.wait).Abs() > 2*time.Millisecond || (got == 0) != (s.wait == 0) {
				t.Errorf("%s: step %d: got %s, want %s", row.name, i+1, got, s.wait)
			}
		}
	}
	if got := (*key.Key)(nil).Take(1, time.Now()); got != 0 {
		t.Errorf("without a key: got %s, want 0", got)
	}
}

func TestDirectory_FindsKeysForAccessAlone(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	bucket, err := b.Bucket(t.Context(), contract.Keys)
	if err != nil {
		t.Fatal(err)
	}
	put := func(place string, state *busv1.KeyState) uint64 {
		value, err := proto.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		revision, err := bucket.Put(t.Context(), place, value)
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	state := func(shop, id, purpose, text string) *busv1.KeyState {
		hash := key.HashOf(text)
		return &busv1.KeyState{ApiKey: &shopbellv1.ApiKey{Id: id, ShopId: shop, Purpose: purpose}, Hash: hash[:]}
	}
	put("a=b.key_1", state("a.b", "key_1", key.Access, "one"))
	put("a=b.key_2", state("a.b", "key_2", key.Webhooks, "two"))
	put("a=b.key_3", state("other", "key_3", key.Access, "three")) // says that it is another shop's
	put("a=b.key_4", state("a.b", "key_1", key.Access, "four"))    // says that it is another key
	short := state("a.b", "key_5", key.Access, "five")
	short.Hash = short.Hash[:16]
	put("a=b.key_5", short)
	if _, err := bucket.Put(t.Context(), "a=b.key_6", []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	d := key.NewDirectory(slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	filled, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- d.Follow(b)(ctx, func() { close(filled) }) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	<-filled
	if k := d.Find(key.HashOf("one")); k == nil || k.ShopId != "a.b" || k.Id != "key_1" {
		t.Errorf("got %v, want key_1 of a.b", k)
	}
	for _, text := range []string{"two", "three", "four", "five", "six", "", "One"} {
		if k := d.Find(key.HashOf(text)); k != nil {
			t.Errorf("%q is found as %v", text, k)
		}
	}
	if k := d.Find(key.Hash{}); k != nil {
		t.Errorf("no hash at all is found as %v", k)
	}
	if all := d.All("a.b"); len(all) != 2 || all[0].Id != "key_1" || all[1].Id != "key_2" || len(d.All("other")) != 0 {
		t.Errorf("got %v and %v, want key_1 and key_2 of a.b, and none of other", all, d.All("other"))
	}
	bound, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// Another key at the same place: the one before opens nothing any more.
	d.Await(bound, "a.b", "key_1", put("a=b.key_1", state("a.b", "key_1", key.Access, "new")))
	if d.Find(key.HashOf("one")) != nil || d.Find(key.HashOf("new")) == nil {
		t.Error("the key that was replaced still opens, or the one in its place does not")
	}
	if err := bucket.Purge(t.Context(), "a=b.key_1"); err != nil {
		t.Fatal(err)
	}
	d.Await(bound, "a.b", "key_1", 0)
	if d.Find(key.HashOf("new")) != nil || len(d.All("a.b")) != 1 {
		t.Error("the key that was deleted is still there")
	}
}
