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
		{"a large one to twice what lives, as Go has it", 1 << 30, 100, 2 << 30},
		{"one between by half a gigabyte", 256 << 20, 200, 768 << 20},
		{"a very large one to twice what lives, too", 8 << 30, 100, 16 << 30},
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
