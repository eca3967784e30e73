package sender

import (
	"slices"
	"testing"
	"time"
)

func TestGovernor_DrainsAsMuchAsDelaysNobody(t *testing.T) {
	t.Parallel()
	late := func(n int, each time.Duration) []time.Duration { return slices.Repeat([]time.Duration{each}, n) }
	const usual = 4 * time.Millisecond
	for _, row := range []struct {
		name  string
		pace  pace
		sight sight
		took  time.Duration
		want  float64
	}{
		{"nothing else is sent", pace{200, usual}, sight{drained: 200}, time.Second, 0},
		{"others begin while much is drained, and nobody knows how late they are by themselves", pace{0, 0}, sight{late: late(20, usual), drained: 2000}, time.Second, 50},
		{"others begin while nothing is drained", pace{0, 0}, sight{late: late(20, usual)}, time.Second, 1000},
		{"others are no later than usual", pace{400, usual}, sight{late: late(50, usual), drained: 100}, 250 * time.Millisecond, 500},
		{"a little later", pace{400, usual}, sight{late: late(50, usual+usual/5), drained: 100}, 250 * time.Millisecond, 500},
		{"much later", pace{400, usual}, sight{late: late(50, 2*usual), drained: 100}, 250 * time.Millisecond, 200},
		{"one in twenty is much later", pace{400, usual}, sight{late: append(late(57, usual), late(3, time.Second)...), drained: 100}, 250 * time.Millisecond, 500},
		{"one in five is", pace{400, usual}, sight{late: append(late(40, usual), late(10, time.Second)...), drained: 100}, 250 * time.Millisecond, 200},
		{"later, and less is drained than may be", pace{4000, usual}, sight{late: late(50, 2*usual), drained: 100}, 250 * time.Millisecond, 200},
		{"less is drained than may be", pace{400, usual}, sight{late: late(50, usual), drained: 50}, 250 * time.Millisecond, 400},
		{"what is held keeps its share", pace{50, usual}, sight{late: late(50, time.Second), drained: 12}, 250 * time.Millisecond, 50},
		{"which is a quarter of the others", pace{400, usual}, sight{late: late(1000, time.Second), drained: 100}, 250 * time.Millisecond, 1000},
		{"by milliseconds nobody is later", pace{400, 100 * time.Microsecond}, sight{late: late(50, time.Millisecond), drained: 100}, 250 * time.Millisecond, 500},
		{"the other clock is ahead", pace{400, -time.Second}, sight{late: late(50, -time.Second), drained: 100}, 250 * time.Millisecond, 500},
		{"there is no end of more", pace{20_000, usual}, sight{late: late(50, usual), drained: 5000}, 250 * time.Millisecond, 20_000},
	} {
		if got := row.pace.next(row.sight, row.took).rate; got != row.want {
			t.Errorf("%s: %v a second, want %v", row.name, got, row.want)
		}
	}
}

func TestGovernor_LearnsWhatIsUsualWhileLittleIsDrained(t *testing.T) {
	t.Parallel()
	p := pace{rate: 50, usual: time.Millisecond}
	for range 100 { // the machine is busier than it was
		p = p.next(sight{late: slices.Repeat([]time.Duration{10 * time.Millisecond}, 50), drained: 12}, 250*time.Millisecond)
	}
	if p.usual < 9*time.Millisecond || p.rate <= 50 {
		t.Errorf("%s is usual, and %v a second are drained; want 10ms, and more than at first", p.usual, p.rate)
	}
	for range 10 { // and then is not, whatever is drained
		p = p.next(sight{late: slices.Repeat([]time.Duration{2 * time.Millisecond}, 50), drained: 1000}, 250*time.Millisecond)
	}
	if p.usual > 3*time.Millisecond {
		t.Errorf("%s is usual, want 2ms", p.usual)
	}
	before := p.usual
	p = p.next(sight{late: slices.Repeat([]time.Duration{time.Second}, 50), drained: 1000}, 250*time.Millisecond)
	if p.usual != before {
		t.Errorf("what drains make of it is taken for usual: %s", p.usual)
	}
}

func TestGovernor_LanesHaveTurns(t *testing.T) {
	t.Parallel()
	// What others see while much is drained, so that from now on there is a bound.
	g := &governor{pace: pace{rate: leastDrained, usual: time.Millisecond}, now: sight{began: time.Now()}, since: time.Now().Add(time.Minute)} // nothing is left for a while
	one, other := newBacklog(nil, "", "wh_1"), newBacklog(nil, "", "wh_2")
	g.saw(time.Second)
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
