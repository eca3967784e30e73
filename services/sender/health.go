package sender

import (
	"fmt"
	"math/bits"
	"time"

	"shopbell.dev/pkg/profile"
)

// health is what a webhook's latest attempts say of its receiver. Its zero value is well.
type health struct {
	failures int    // in a row
	hung     uint32 // of the latest attempts, one bit each, the latest lowest
	seen     int    // of those bits
	success  time.Time
	back     time.Time // the success that came when it had been away
}

// latest is of how many attempts the share that hangs is taken, and fewest from how many on.
const (
	latest = 20
	fewest = 6
)

// note takes in an attempt and says why the receiver is not well, or nothing.
func (h *health) note(rules profile.Policy, v verdict, x *exchange, now time.Time) string {
	h.hung, h.seen = h.hung<<1&(1<<latest-1), min(h.seen+1, latest)
	if v.status == delivered {
		h.failures, h.success = 0, now
		return ""
	}
	h.failures++
	if x.class == "timeout" {
		h.hung |= 1
	}
	if !rules.Breaks() {
		return ""
	}
	b := rules.Breaker
	if rules.Ordered == profile.ByWebhook {
		b.Failures, h.success = 1, time.Time{} // everything waits behind the one that failed
	}
	asked := rules.HonorRetryAfter && x.retryAfter > 0
	switch hanging := bits.OnesCount32(h.hung); {
	case asked && (x.code == 429 || x.code == 503):
		return fmt.Sprintf("its receiver answered %d and asks for %s of rest", x.code, x.retryAfter.Round(time.Second))
	case b.Failures > 0 && h.failures >= b.Failures && now.Sub(h.success) > lately:
		return fmt.Sprintf("its receiver is not well: the latest %d attempts failed, the last with %q", h.failures, x.problem)
	case b.HangShare > 0 && h.seen >= fewest && float64(hanging) >= b.HangShare*float64(h.seen):
		return fmt.Sprintf("its receiver hangs: %d of the latest %d attempts had no answer in time", hanging, h.seen)
	}
	return ""
}

// away says that the latest attempts failed, and not for what was sent: a success now says that the receiver is back.
func (h *health) away(now time.Time) bool { return h.failures > 1 && now.Sub(h.success) > lately }

// lately is how long after a success failures in a row may be those of a few deliveries that the receiver does not like.
const lately = time.Second

// firstProbe is how long after a receiver was found not to be well it is probed.
const firstProbe = time.Second

// nextProbe is how long after a failed probe the next one follows, when the receiver has been away for so long: a
// thirtieth of that, from a second to what the rules allow. So a receiver that was away for half a minute is found to be
// back within a second, and one that is dead costs little. Others is how many receivers are probed by the same
// sender: together they are not probed more often than probesPerSecond.
func nextProbe(rules profile.Policy, away time.Duration, others int) time.Duration {
	wait := min(max(away/30, firstProbe), rules.ProbeAtMost())
	return max(wait, time.Duration(others)*time.Second/probesPerSecond)
}

const probesPerSecond = 200
