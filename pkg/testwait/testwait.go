// Package testwait is for tests of what becomes so a moment later.
package testwait

import (
	"testing"
	"time"
)

const (
	// atMost is for what never is so. Nothing takes that long: it is a machine on which others are at work that may, and a test that
	// gives up before it says nothing of the code.
	atMost  = 2 * time.Minute
	between = 2 * time.Millisecond // two looks
)

// Until returns when something is so, looking again and again. What never is ends the test after two minutes. Like Fatal, it is called by the
// test's own goroutine; what passes between two looks is not seen.
func Until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(atMost); !is(); time.Sleep(between) {
		if time.Now().After(deadline) {
			t.Fatalf("it is never so: %s", what)
		}
	}
}
