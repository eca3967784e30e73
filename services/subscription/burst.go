package subscription

import (
	"context"
	"time"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
)

// What comes in bursts yields to what is published one by one: it is matched no faster than that stays as early as it is by itself.
const (
	// leastOfBursts is how many events a second are matched however late the others are. What is taken from the bus in advance,
	// three batches, is matched so before the bus takes it for lost.
	leastOfBursts = 200
	// togetherOfBursts is how many events are matched together while there is a bound: the others wait for no more.
	togetherOfBursts = 8
)

// decideBursts matches events that came in bursts until stop ends, and publishes by this way. An event waits for its turn
// before it is decided on, and is acked as soon as that is recorded: whoever is killed leaves nothing decided to be decided again but
// what was under way.
func (s *Subscription) decideBursts(stop context.Context, by way, how bus.Batching) error {
	how.Now = func() int {
		if s.bursts.PerSecond() > 0 {
			return togetherOfBursts
		}
		return how.Size
	}
	return by.bus.BatchesThen(stop, contract.BulkMatcher, how, func(ctx context.Context, batch []bus.Message) (func() error, error) {
		select {
		case <-time.After(s.bursts.Turn(len(batch))): // each worker its own
		case <-stop.Done(): // what was pulled is matched without waiting
		}
		made, then, err := s.decide(ctx, by, batch)
		if err == nil {
			s.bursts.Turn(costOfBurst(len(batch), made, s.bursts.PerSecond()) - len(batch))
		}
		return then, err
	})
}

// costOfBurst is for how many deliveries count those that were made of some events: each event is one at least, and none is more
// than may be sent by when the least of events are matched.
func costOfBurst(events, made int, perSecond float64) int {
	cost := max(events, made)
	if perSecond > 0 {
		cost = min(cost, int(float64(events)*max(1, perSecond/leastOfBursts)))
	}
	return cost
}
