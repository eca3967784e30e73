package run

import "testing"

func TestCollector_LeavesLessUncollectedInALargeHeap(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		live     uint64
		want     int
		mostHeap uint64
	}{
		{"nothing is known yet", 0, 300, 0},
		{"a small heap grows to four times what lives", 20 << 20, 300, 80 << 20},
		{"a large one by half a gigabyte", 1 << 30, 50, 3 << 29},
		{"one between by half a gigabyte too", 512 << 20, 100, 1 << 30},
		{"a very large one by half", 8 << 30, 50, 12 << 30},
	} {
		got := gcPercent(row.live)
		if got != row.want {
			t.Errorf("%s: %d %%, want %d", row.name, got, row.want)
		}
		if heap := row.live + row.live*uint64(got)/100; heap > row.mostHeap {
			t.Errorf("%s: the heap grows to %d, want %d at most", row.name, heap, row.mostHeap)
		}
	}
}
