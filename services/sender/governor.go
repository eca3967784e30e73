package sender

import (
	"slices"
	"sync"
	"time"

	"shopbell.dev/pkg/pace"
)

// governor bounds what all lanes of this sender together send of what they hold, so that a backlog which its receiver takes
// as fast as it comes does not cost the others their time. The lanes have their turns; when nothing else is sent there is
// nobody to yield to, and no bound.
//
// Its zero value is ready.
type governor struct {
	pace  pace.Pace
	mu    sync.Mutex        // guards what follows
	left  float64           // deliveries that may be sent at once
	since time.Time         // left was counted
	line  []*backlog        // waits for a turn
	turn  map[*backlog]bool // whether it has come, of those that asked for one
	timer *time.Timer       // gives turns; nil: nobody waits
}

const turnEvery = 10 * time.Millisecond

// may says whether a lane may send one of what it holds now. If not, the lane is woken when it has its turn.
func (g *governor) may(b *backlog) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	rate := g.count(time.Now())
	switch come, asked := g.turn[b]; {
	case come:
		delete(g.turn, b)
	case asked:
		return false
	case rate == 0, len(g.line) == 0 && g.left >= 1:
		g.left--
	default:
		if g.turn == nil {
			g.turn = map[*backlog]bool{}
		}
		g.turn[b] = false
		g.line = append(g.line, b)
		if g.timer == nil {
			g.timer = time.AfterFunc(turnEvery, g.giveTurns)
		}
		return false
	}
	g.pace.Sent(1)
	return true
}

// count counts what may be sent by now, and gives the rate; 0: there is no bound. It is called with the lock.
func (g *governor) count(now time.Time) (rate float64) {
	rate = g.pace.PerSecond()
	g.left = min(max(g.left, 0)+rate*now.Sub(g.since).Seconds(), max(1, rate*2*turnEvery.Seconds()))
	g.since = now
	return rate
}

func (g *governor) giveTurns() {
	g.mu.Lock()
	defer g.mu.Unlock()
	rate := g.count(time.Now())
	for ; len(g.line) > 0 && (g.left >= 1 || rate == 0); g.left-- {
		next := shift(&g.line)
		g.turn[next] = true
		next.wake()
	}
	g.timer = nil
	if len(g.line) > 0 {
		g.timer = time.AfterFunc(turnEvery, g.giveTurns)
	}
}

// forget is for a lane that is at its end.
func (g *governor) forget(b *backlog) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.turn, b)
	g.line = slices.DeleteFunc(g.line, func(other *backlog) bool { return other == b })
}
