package record

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// Who comes alone waits for nobody, and who is not alone for more, until somebody is in a hurry or a message is full.
func TestWriter_WaitsForMoreOnlyWhenRecordsComeTogether(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	w := NewWriter(b)
	w.patience = time.Hour // longer than the test
	number := 0
	next := func() *busv1.Record {
		number++
		return &busv1.Record{ShopId: "demo", EventId: fmt.Sprint(number)}
	}
	var waiting sync.WaitGroup
	calmly := func(n int) {
		t.Helper()
		for range n {
			r := next()
			waiting.Go(func() {
				if err := w.WriteCalmly(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
	}
	open := func(want int) {
		t.Helper()
		testwait.Until(t, fmt.Sprintf("the message that is being filled has %d records", want), func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.open == nil && want == 0 || w.open != nil && len(w.open.records) == want
		})
	}
	stored := func(want ...int) {
		t.Helper()
		all, _, err := b.List(t.Context(), contract.Outcomes, contract.OutcomeSubjects, 1, 100, 16<<20)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, m := range all {
			some, err := Read(m.Header, m.Data)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, len(some))
		}
		slices.Sort(got) // whoever began a message publishes it: which of two is first is the scheduler's
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("messages with %v records are stored, want %v", got, want)
		}
	}

	if err := w.WriteCalmly(t.Context(), next()); err != nil {
		t.Fatal(err)
	}
	stored(1)
	calmly(3)
	open(3)
	stored(1)
	if err := w.Write(t.Context(), next()); err != nil { // in a hurry
		t.Fatal(err)
	}
	waiting.Wait()
	stored(1, 4)
	calmly(maxRecords)
	open(maxRecords)
	calmly(2) // what is full goes, two stay
	open(2)
	if err := w.Write(t.Context(), next(), next()); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	stored(1, 4, 4, maxRecords)
	if err := w.Write(t.Context()); err != nil { // nothing
		t.Error(err)
	}
	stored(1, 4, 4, maxRecords)
}
