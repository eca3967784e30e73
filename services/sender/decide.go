package sender

import (
	"fmt"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
)

// The statuses that a sender gives a delivery.
const (
	delivered = "delivered"
	retrying  = "retrying"
	delayed   = contract.Delayed
	failed    = "failed"
	held      = "held"
	cancelled = "cancelled"
)

// verdict is what follows from an attempt.
type verdict struct {
	status string
	reason string        // a sentence; empty where the status says it all
	wait   time.Duration // until the next attempt, when retrying
	off    bool          // the webhook is to be switched off
	phrase string        // with which the receiver asks for the webhook to be deleted
}

// decide says what follows from an attempt. Random is a number from 0 to 1, for jitter. An attempt by hand is not
// followed by others; a receiver that asks for its webhook to be switched off is heard all the same.
func decide(rules profile.Policy, attempt int, byHand bool, x *exchange, random float64) verdict {
	phrase := rules.Deletes(x.body)
	if x.class == "" && rules.Succeeds(x.code) {
		v := verdict{status: delivered, phrase: phrase}
		if phrase != "" {
			v.reason = fmt.Sprintf("answered %q, which deletes the webhook", phrase)
		}
		return v
	}
	wait, again := rules.Wait(attempt, x.retryAfter, random)
	off := x.code > 0 && rules.Disables(x.code, byHand || !again)
	switch {
	case phrase != "":
		return verdict{status: failed, phrase: phrase, reason: fmt.Sprintf("answered %q, which deletes the webhook", phrase)}
	case off && byHand:
		return verdict{status: failed, off: true, reason: fmt.Sprintf("answered %d, which switches the webhook off", x.code)}
	case off:
		return verdict{status: held, off: true, reason: fmt.Sprintf("answered %d, which switches the webhook off; it is kept until the webhook is switched on again", x.code)}
	case byHand:
		return verdict{status: failed, reason: "the attempt by hand failed"}
	}
	if !again {
		wait, again = rules.Blocks()
	}
	if again {
		return verdict{status: retrying, wait: wait}
	}
	if attempt == 1 {
		return verdict{status: failed, reason: "given up after the only attempt that the webhook's rules allow; it can be sent again by hand"}
	}
	return verdict{status: failed, reason: fmt.Sprintf("given up after %d attempts; it can be sent again by hand", attempt)}
}

// probed is the verdict on an attempt that the schedule does not count: where it says no more than that the receiver is
// not well, the delivery stays held.
func (v verdict) probed(x *exchange) verdict {
	if v.status == delivered || v.off || v.phrase != "" {
		return v
	}
	return verdict{status: held, reason: "its receiver is still not well: " + x.problem}
}

// early is the verdict on an attempt that was made before it was due, for which there is so long to wait still: the schedule does not
// count it.
func (v verdict) early(wait time.Duration) verdict {
	const why = "sent before it was due, to see whether its receiver is back"
	switch {
	case v.off || v.phrase != "":
		return v
	case v.status == delivered:
		v.reason = why
		return v
	}
	return verdict{status: retrying, wait: wait, reason: why + "; it is not counted"}
}
