package pace

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace_SendsAsMuchAsDelaysNobody(t *testing.T) {
	t.Parallel()
	late := func(n int, each time.Duration) []time.Duration { return slices.Repeat([]time.Duration{each}, n) }
	const usual = 4 * time.Millisecond
	for _, row := range []struct {
		name  string
		from  setting
		sight sight
		took  time.Duration
		want  float64
	}{
		{"nothing else is sent", setting{200, usual, false}, sight{sent: 200}, time.Second, 0},
		{"others begin while much is sent, and nobody knows how late they are by themselves", setting{0, 0, false}, sight{late: late(20, usual), sent: 2000}, time.Second, 50},
		{"others begin while nothing is sent", setting{0, 0, false}, sight{late: late(20, usual)}, time.Second, 100},
		{"nobody has been late since then", setting{100, usual, true}, sight{late: late(50, usual), sent: 25}, 250 * time.Millisecond, 200},
		{"others are no later than usual", setting{400, usual, false}, sight{late: late(50, usual), sent: 100}, 250 * time.Millisecond, 450},
		{"a little later", setting{400, usual, false}, sight{late: late(50, usual+usual/5), sent: 100}, 250 * time.Millisecond, 450},
		{"much later", setting{400, usual, false}, sight{late: late(50, 2*usual), sent: 100}, 250 * time.Millisecond, 200},
		{"one in twenty is much later", setting{400, usual, false}, sight{late: append(late(57, usual), late(3, time.Second)...), sent: 100}, 250 * time.Millisecond, 450},
		{"one in five is", setting{400, usual, false}, sight{late: append(late(40, usual), late(10, time.Second)...), sent: 100}, 250 * time.Millisecond, 200},
		{"later, and less is sent than may be", setting{4000, usual, false}, sight{late: late(50, 2*usual), sent: 100}, 250 * time.Millisecond, 200},
		{"less is sent than may be", setting{400, usual, false}, sight{late: late(50, usual), sent: 50}, 250 * time.Millisecond, 400},
		{"what can wait keeps its share", setting{50, usual, false}, sight{late: late(50, time.Second), sent: 12}, 250 * time.Millisecond, 50},
		{"which is a quarter of the others", setting{400, usual, false}, sight{late: late(1000, time.Second), sent: 100}, 250 * time.Millisecond, 1000},
		{"by a tenth of a millisecond nobody is later", setting{400, 100 * time.Microsecond, false}, sight{late: late(50, 190*time.Microsecond), sent: 100}, 250 * time.Millisecond, 450},
		{"the other clock is ahead", setting{400, -time.Second, false}, sight{late: late(50, -time.Second), sent: 100}, 250 * time.Millisecond, 450},
		{"there is no end of more", setting{20_000, usual, false}, sight{late: late(50, usual), sent: 5000}, 250 * time.Millisecond, 20_000},
	} {
		if got := row.from.next(row.sight, row.took, least).rate; got != row.want {
			t.Errorf("%s: %v a second, want %v", row.name, got, row.want)
		}
	}
}

func TestPace_IsEagerUntilSomebodyIsLate(t *testing.T) {
	t.Parallel()
	const usual = time.Millisecond
	p := setting{}
	for _, row := range []struct {
		sent int
		late time.Duration
		want float64
	}{{0, usual, 100}, {25, usual, 200}, {50, usual, 400}, {100, 2 * usual, 200}, {50, usual, 225}} {
		p = p.next(sight{late: slices.Repeat([]time.Duration{row.late}, 50), sent: row.sent}, 250*time.Millisecond, least)
		if p.rate != row.want {
			t.Fatalf("after %d that were sent while others came %s late, %v a second are; want %v", row.sent, row.late, p.rate, row.want)
		}
	}
}

func TestPace_LearnsWhatIsUsualWhileLittleIsSent(t *testing.T) {
	t.Parallel()
	p := setting{rate: 50, usual: time.Millisecond}
	for range 100 { // the machine is busier than it was
		p = p.next(sight{late: slices.Repeat([]time.Duration{10 * time.Millisecond}, 50), sent: 12}, 250*time.Millisecond, least)
	}
	if p.usual < 9*time.Millisecond || p.rate <= 50 {
		t.Errorf("%s is usual, and %v a second are sent; want 10ms, and more than at first", p.usual, p.rate)
	}
	for range 10 { // and then is not, whatever is sent
		p = p.next(sight{late: slices.Repeat([]time.Duration{2 * time.Millisecond}, 50), sent: 1000}, 250*time.Millisecond, least)
	}
	if p.usual > 3*time.Millisecond {
		t.Errorf("%s is usual, want 2ms", p.usual)
	}
	before := p.usual
	p = p.next(sight{late: slices.Repeat([]time.Duration{time.Second}, 50), sent: 1000}, 250*time.Millisecond, least)
	if p.usual != before {
		t.Errorf("what it makes of them is taken for usual: %s", p.usual)
	}
}

func TestPace_GivesTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // its time goes on only while all wait
		var p Pace
		if got := p.Turn(1_000_000); got != 0 {
			t.Errorf("with nobody to yield to, who sends waits for %s", got)
		}
		p.set, p.now = setting{rate: 100, usual: time.Millisecond}, sight{began: time.Now()}
		for want := 10 * time.Millisecond; want <= 50*time.Millisecond; want += 10 * time.Millisecond { // whoever asks
			if got := p.Turn(1); got != want {
				t.Errorf("at 100 a second the next turn is after %s, want %s", got, want)
			}
		}
		time.Sleep(time.Second) // of that time: nobody has a turn in it
		if got := p.Turn(1); got != 10*time.Millisecond {
			t.Errorf("who comes after his time waits for %s, want that none is saved up", got)
		}
	})
}
