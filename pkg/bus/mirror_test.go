package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
)

// newMirror gives a mirror of texts, whose view of a shop is all of them in one line, and the bucket that it follows.
func newMirror(t *testing.T, note func(was, is string)) (*bus.Mirror[string, string], jetstream.KeyValue) {
	t.Helper()
	return newMirrorWith(t, note, func(all []string) string {
		slices.Sort(all)
		return strings.Join(all, " ")
	})
}

func newMirrorWith(t *testing.T, note func(was, is string), view func([]string) string) (*bus.Mirror[string, string], jetstream.KeyValue) {
	t.Helper()
	b := bustest.New(t)
	bucket, err := b.Bucket(t.Context(), contract.Keys)
	if err != nil {
		t.Fatal(err)
	}
	m := bus.NewMirror(bus.Kind[string, string]{
		Bucket: contract.Keys,
		Place: func(key string) (shop, id string, ok bool) {
			shop, id, ok = strings.Cut(key, ".")
			return shop, id, ok
		},
		Parse: func(entry bus.Entry) (string, error) {
			if text := string(entry.Value()); text != "bad" {
				return text, nil
			}
			return "", errors.New("it is bad")
		},
		View: view, Note: note,
	}, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	filled, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- m.Follow(b)(ctx, func() { close(filled) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	<-filled
	return m, bucket
}

func TestMirror_ShowsWhatIsThereAndTellsOfEachChange(t *testing.T) {
	t.Parallel()
	var told []string // only from the mirror's goroutine, and read after Await
	m, bucket := newMirror(t, func(was, is string) { told = append(told, was+">"+is) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	put := func(key, value string) uint64 {
		revision, err := bucket.PutString(ctx, key, value)
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	check := func(when, demo string, count int, noted ...string) {
		t.Helper()
		if got := m.Of("demo"); got != demo {
			t.Errorf("%s: got %q of demo, want %q", when, got, demo)
		}
		sum := 0
		m.Each(func(string) { sum++ })
		if m.Len() != count || sum != count {
			t.Errorf("%s: got %d and %d in all, want %d", when, m.Len(), sum, count)
		}
		if !slices.Equal(told, noted) {
			t.Errorf("%s: told %q, want %q", when, told, noted)
		}
		told = nil
	}
	m.Await(ctx, "demo", "none", 0) // what is not there need not be waited for
	check("at first", "", 0)
	put("demo.1", "a")
	put("noplace", "x")
	put("demo.2", "bad")
	m.Await(ctx, "other", "1", put("other.1", "b"))
	check("two", "a", 2, ">a", ">b")
	put("demo.1", "bad")
	m.Await(ctx, "demo", "2", put("demo.2", "c"))
	check("a third", "a c", 3, ">c")
	if value, revision := m.Get("demo", "1"); value != "a" || revision == 0 {
		t.Errorf("what became bad: got %q at %d, want what was there before", value, revision)
	}
	m.Await(ctx, "demo", "1", put("demo.1", "d"))
	check("another value", "c d", 3, "a>d")
	if err := bucket.Delete(ctx, "demo.1"); err != nil {
		t.Fatal(err)
	}
	m.Await(ctx, "demo", "1", 0)
	check("deleted", "c", 2, "d>")
	if err := bucket.Purge(ctx, "demo.2"); err != nil {
		t.Fatal(err)
	}
	m.Await(ctx, "demo", "2", 0)
	check("purged", "", 1, "c>")
	if ctx.Err() != nil {
		t.Error("it was waited for in vain")
	}
}

// A view that is asked for while values change is never one of before.
func TestMirror_KeepsNoOldView(t *testing.T) {
	t.Parallel()
	m, bucket := newMirror(t, nil)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			m.Of("demo")
		}
	}()
	for i := range 200 {
		value := fmt.Sprint(i)
		revision, err := bucket.PutString(t.Context(), "demo.1", value)
		if err != nil {
			t.Fatal(err)
		}
		m.Await(ctx, "demo", "1", revision)
		if got := m.Of("demo"); got != value {
			t.Fatalf("got %q, want %q", got, value)
		}
	}
	stop()
	<-done
}

// The view of a shop with very many values takes a while to make, for which nobody else waits.
func TestMirror_GoesOnWhileAViewIsMade(t *testing.T) {
	t.Parallel()
	begun, goOn := make(chan struct{}), make(chan struct{})
	m, bucket := newMirrorWith(t, nil, func(all []string) string {
		if all[0] == "slow" {
			close(begun)
			<-goOn
		}
		return all[0]
	})
	put := func(key, value string) uint64 {
		revision, err := bucket.PutString(t.Context(), key, value)
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	put("demo.1", "slow")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m.Await(ctx, "other", "1", put("other.1", "a"))
	made := make(chan string, 1)
	go func() { made <- m.Of("demo") }()
	<-begun
	revision := put("demo.1", "changed")
	others := make(chan string, 1)
	go func() {
		m.Await(ctx, "demo", "1", revision)
		value, _ := m.Get("demo", "1")
		others <- value + " " + m.Of("other")
	}()
	select {
	case got := <-others:
		if got != "changed a" {
			t.Errorf("got %q meanwhile, want what is there", got)
		}
	case <-ctx.Done():
		t.Error("others wait for the view")
	}
	close(goOn)
	if got := <-made; got != "slow" {
		t.Errorf("got the view %q, want that of when it was asked for", got)
	}
	if got := m.Of("demo"); got != "changed" {
		t.Errorf("then got the view %q, want that of what changed while it was made", got)
	}
}
