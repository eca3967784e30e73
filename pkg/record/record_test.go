package record_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/testing/protocmp"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/record"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

func changed(shop, event, webhookID string) *busv1.Record {
	return &busv1.Record{ShopId: shop, EventId: event, What: &busv1.Record_Change{Change: &busv1.StatusChange{WebhookId: webhookID}}}
}

func TestMessages_HoldAllAndLieWhereTheirShopsDo(t *testing.T) {
	t.Parallel()
	large := changed("demo", "large", "wh_1")
	large.GetChange().Reason = strings.Repeat("x", 600<<10)
	many := make([]*busv1.Record, 300)
	for i := range many {
		many[i] = changed("demo", fmt.Sprint(i), "wh_1")
	}
	for _, row := range []struct {
		name    string
		records []*busv1.Record
		want    []string // the messages' subjects, and how many records they hold
	}{
		{"none", nil, nil},
		{"one", []*busv1.Record{changed("demo", "1", "wh_1")}, []string{"outcomes.demo.wh_1 1"}},
		{"of one webhook", []*busv1.Record{changed("demo", "1", "wh_1"), changed("demo", "2", "wh_1")}, []string{"outcomes.demo.wh_1 2"}},
		{"of one shop", []*busv1.Record{changed("demo", "1", "wh_1"), changed("demo", "2", "wh_2")}, []string{"outcomes.demo._ 2"}},
		{"of two shops", []*busv1.Record{changed("demo", "1", "wh_1"), changed("other", "2", "wh_2"), changed("other", "3", "wh_2")}, []string{contract.SharedOutcomes + " 3"}},
		{"too many for one", many, []string{"outcomes.demo.wh_1 256", "outcomes.demo.wh_1 44"}},
		{"too large for one", []*busv1.Record{changed("demo", "1", "wh_1"), large, changed("demo", "2", "wh_1")}, []string{"outcomes.demo.wh_1 1", "outcomes.demo.wh_1 1", "outcomes.demo.wh_1 1"}},
	} {
		msgs, err := record.Messages(row.records...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		var all []*busv1.Record
		for _, m := range msgs {
			some, err := record.Read(m.Header, m.Data)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s %d", m.Subject, len(some)))
			all = append(all, some...)
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: messages (-want +got):\n%s", row.name, diff)
		}
		if diff := cmp.Diff(row.records, all, protocmp.Transform()); diff != "" {
			t.Errorf("%s: records (-written +read):\n%s", row.name, diff)
		}
	}
}

func TestRead_SaysWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]nats.Header{"one": {}, "several": {"Shopbell-Records": {"2"}}} {
		if got, err := record.Read(h, []byte("?")); err == nil {
			t.Errorf("%s: read %v, want an error", name, got)
		}
	}
}

func TestTraced_LeadsBackToTheTrace(t *testing.T) {
	t.Parallel()
	for _, flags := range []trace.TraceFlags{0, trace.FlagsSampled} {
		want := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: flags, Remote: true})
		msgs, err := record.Messages(record.Traced(trace.ContextWithSpanContext(t.Context(), want), changed("demo", "1", "wh_1")))
		if err != nil {
			t.Fatal(err)
		}
		read, err := record.Read(msgs[0].Header, msgs[0].Data)
		if err != nil {
			t.Fatal(err)
		}
		if flags == 0 {
			want = trace.SpanContext{} // nobody follows it
		}
		if got := trace.SpanContextFromContext(record.Trace(t.Context(), read[0])); !got.Equal(want) {
			t.Errorf("flags %s: got %v, want %v", flags, got, want)
		}
	}
}

// stored are the records on the bus, by event, and how many messages hold them.
func stored(t *testing.T, b *bus.Bus) (byEvent map[string]int, messages int) {
	t.Helper()
	byEvent = map[string]int{}
	batch, more, err := b.List(t.Context(), contract.Outcomes, contract.OutcomeSubjects, 1, 10_000, 16<<20)
	if err != nil || more {
		t.Fatalf("more %v, %v", more, err)
	}
	for _, m := range batch {
		some, err := record.Read(m.Header, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range some {
			byEvent[r.GetEventId()]++
		}
	}
	return byEvent, len(batch)
}

func TestWriter_WritesEachOnceAndManyTogether(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	w := record.NewWriter(b)
	const writers, each = 50, 20
	want := map[string]int{}
	var all sync.WaitGroup
	for i := range writers {
		for j := range each {
			want[fmt.Sprintf("%d/%d", i, j)] = 1
		}
		all.Go(func() {
			for j := range each {
				if err := w.Write(t.Context(), changed(fmt.Sprintf("shop%d", i%3), fmt.Sprintf("%d/%d", i, j), "wh_1")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got, messages := stored(t, b)
	if !maps.Equal(got, want) {
		t.Errorf("%d of %d records are stored as they should be: %v", len(got), len(want), got)
	}
	if messages >= writers*each {
		t.Errorf("%d messages for %d records: nothing was written together", messages, writers*each)
	}
}

func TestWriter_ReturnsWhenTheBusHoldsTheRecord(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	w := record.NewWriter(b)
	for _, event := range []string{"1", "2"} {
		if err := w.Write(t.Context(), changed("demo", event, "wh_1")); err != nil {
			t.Fatal(err)
		}
		if got, _ := stored(t, b); got[event] != 1 {
			t.Errorf("event %s: stored %v", event, got)
		}
	}
}

// What is written while its writer's own context ends is written all the same: others may wait for the same message.
func TestWriter_DoesNotLeaveOthersBehind(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	w := record.NewWriter(b)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := w.Write(ended, changed("demo", fmt.Sprint(i), "wh_1")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, _ := stored(t, b); len(got) != 20 {
		t.Errorf("%d of 20 records are stored: %v", len(got), got)
	}
}

func TestWriter_SaysOfEachThatTheBusIsAway(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	w := record.NewWriter(b)
	b.Close()
	began := time.Now()
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			if err := w.Write(t.Context(), changed("demo", fmt.Sprint(i), "wh_1")); err == nil {
				t.Error("a record counts as written though the bus is away")
			}
		})
	}
	all.Wait()
	t.Logf("told after %s", time.Since(began))
}
