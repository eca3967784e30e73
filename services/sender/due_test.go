package sender

import (
	"testing"
	"time"
)

func TestApart_IsLessWhenMoreLieBehind(t *testing.T) {
	t.Parallel()
	for waiting, want := range map[uint64]time.Duration{0: dueApart, dueBehind: dueApart, 10 * dueBehind: dueApart / 10} {
		if got := apart(waiting); got != want {
			t.Errorf("%d lie behind: %s apart, want %s", waiting, got, want)
		}
	}
}
