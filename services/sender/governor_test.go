package sender

import (
	"testing"
	"time"

	"shopbell.dev/pkg/testwait"
)

func TestGovernor_LanesHaveTurns(t *testing.T) {
	t.Parallel()
	g := &governor{}
	one, other := newBacklog(nil, "", "wh_1"), newBacklog(nil, "", "wh_2")
	testwait.Until(t, "there is a bound", func() bool { g.pace.Saw(time.Second); return g.pace.PerSecond() > 0 })
	g.since = time.Now().Add(time.Minute) // nothing is left for a while
	if g.may(one) {
		t.Fatal("it may send before anything is left to be sent")
	}
	if g.may(other) || g.may(one) {
		t.Fatal("who waits already is passed by")
	}
	<-one.woken
	if !g.may(one) {
		t.Error("its turn has come, and it may not send")
	}
	<-other.woken
	if !g.may(other) {
		t.Error("the other's turn has come, and it may not send")
	}
	g.forget(one)
	g.forget(other)
	if len(g.line) != 0 || len(g.turn) != 0 {
		t.Error("lanes that are at their end wait for their turns")
	}
}
