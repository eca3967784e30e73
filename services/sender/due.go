package sender

import (
	"time"

	"shopbell.dev/pkg/bus"
)

// The bus hands out in one lump, four times a second, what has become due. Begun all at once, those attempts would be in front of
// whatever comes at that moment.
const (
	// dueApart is how long after one of them the next is begun, while others are sent that should not wait.
	dueApart = 600 * time.Microsecond
	// dueBehind is from how many on that still lie there they are begun sooner, so that they cannot pile up.
	dueBehind = 2000
)

// apart is how long after the beginning of a delivery that has become due the next one may begin, when so many lie behind it.
func apart(waiting uint64) time.Duration {
	return dueApart * dueBehind / time.Duration(max(waiting, dueBehind))
}

// spread waits until the next delivery that has become due may begin; not at all when nothing is sent to which it could yield.
func (s *Sender) spread(m bus.Message) {
	if s.governor.pace.PerSecond() == 0 {
		return
	}
	if meta, err := m.Metadata(); err == nil {
		time.Sleep(apart(meta.NumPending))
	}
}
