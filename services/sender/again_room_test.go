package sender

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
)

// taken is the next delivery, in the hands of a sender that does nothing with it.
func (b *bundle) taken(t *testing.T) jetstream.Msg {
	t.Helper()
	consumer, err := b.js.Consumer(t.Context(), contract.Deliveries, contract.Sender)
	if err != nil {
		t.Fatal(err)
	}
	m, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What was in flight when a sender was killed comes again. Where the bus has the attempt after it, it was made: made again, it
// would be followed by one more of each attempt to come. Where it is held, it is sent from there.
func TestSender_AttemptThatWasMadeIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	next := func(d contract.Delivery) *contract.Delivery {
		d.Attempt++
		return &d
	}
	for _, row := range []struct {
		name   string
		change func(*contract.Delivery)
		follow func(d *contract.Delivery) []*nats.Msg // what the killed sender had published
		want   []int                                  // the numbers of the attempts that are made
		left   int                                    // timers
	}{
		{"the next attempt waits for its time", nil, func(d *contract.Delivery) []*nats.Msg {
			return []*nats.Msg{next(*d).Later(time.Now().Add(time.Hour))}
		}, nil, 1},
		{"the next attempt's time has come", nil, func(d *contract.Delivery) []*nats.Msg {
			m := next(*d).Message()
			m.Subject = contract.DeliverySubject(d.WebhookID, contract.Due) // as its timer fires
			return []*nats.Msg{m}
		}, []int{2}, 0},
		{"the one after the next waits", nil, func(d *contract.Delivery) []*nats.Msg {
			return []*nats.Msg{next(*next(*d)).Later(time.Now().Add(time.Hour))}
		}, nil, 1},
		{"the next attempt is held", nil, func(d *contract.Delivery) []*nats.Msg {
			return []*nats.Msg{next(*d).Hold(0)}
		}, nil, 0},
		{"it was put off", nil, func(d *contract.Delivery) []*nats.Msg {
			off := *d
			off.Deferred++
			return []*nats.Msg{off.Later(time.Now().Add(time.Hour))}
		}, nil, 1},
		{"it is held itself", nil, func(d *contract.Delivery) []*nats.Msg { return []*nats.Msg{d.Hold(0)} }, nil, 0},
		{"another delivery is held", nil, func(d *contract.Delivery) []*nats.Msg {
			other := next(*d)
			other.ID = "dlv_other"
			return []*nats.Msg{other.Hold(0)}
		}, []int{1}, 0},
		{"it was not made", nil, func(*contract.Delivery) []*nats.Msg { return nil }, []int{1}, 0},
		{"a later attempt of another delivery waits", nil, func(d *contract.Delivery) []*nats.Msg {
			other := next(*d)
			other.ID = "dlv_other"
			return []*nats.Msg{other.Later(time.Now().Add(time.Hour))}
		}, []int{1}, 1},
		{"somebody asked for it, while a later one waits", func(d *contract.Delivery) { d.AskedAt = time.Now() }, func(d *contract.Delivery) []*nats.Msg {
			later := next(*d)
			later.AskedAt = time.Time{}
			return []*nats.Msg{later.Later(time.Now().Add(time.Hour))}
		}, []int{1}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			answer := make(chan struct{})
			in := count(t, func(http.ResponseWriter, int, int) int { <-answer; return 0 })
			free := sync.OnceFunc(func() { close(answer) })
			t.Cleanup(free) // before its server is closed, which waits for it
			b.put(t, state(in.url, "slow"))
			d := delivery("1", "application/json")
			if row.change != nil {
				row.change(d)
			}
			b.publish(t, d.Message())
			taken := b.taken(t)
			b.publish(t, row.follow(d)...)
			if err := taken.Nak(); err != nil { // stands for the end of its AckWait
				t.Fatal(err)
			}
			b.start(t, few())
			testwait.Until(t, "what is to be made is under way, and nothing else is left but timers", func() bool {
				open := 0
				for _, consumer := range contract.Senders() {
					waiting, unanswered, err := b.bus.Pending(t.Context(), consumer)
					if err != nil || waiting > 0 {
						return false
					}
					open += unanswered
				}
				return open == len(row.want) && int(in.requests.Load()) == len(row.want) &&
					len(b.onTheWay(t)) == row.left+len(row.want)
			})
			free()
			testwait.Until(t, "timers alone are left", func() bool { return len(b.onTheWay(t)) == row.left })
			var got []int
			for _, r := range b.records(t, len(row.want)) {
				got = append(got, int(r.GetAttempt().GetAttempt().GetNumber()))
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("attempts %v were made, want %v", got, row.want)
			}
		})
	}
}

// A sender that is killed between putting a delivery off and saying so has it put off again, when it may have been sent.
func TestSender_WhatWasPutOffAndSentMeanwhileIsNotToldAsDelayed(t *testing.T) {
	t.Parallel()
	for name, wasPutOff := range map[string]bool{"it was put off": true, "it was not put off yet": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.put(t, state("http://127.0.0.1:9", "slow"))
			d := delivery("1", "application/json")
			b.publish(t, d.Message())
			if err := b.taken(t).Nak(); err != nil { // stands for the end of its AckWait
				t.Fatal(err)
			}
			again := b.taken(t)
			b.start(t, few())
			until := time.Now().Add(time.Hour)
			if wasPutOff {
				off := *d
				off.Deferred++
				timer := off.Later(until)
				b.publish(t, timer)
				stream, err := b.js.Stream(t.Context(), contract.Later)
				if err != nil {
					t.Fatal(err)
				}
				if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(timer.Subject)); err != nil { // it was sent
					t.Fatal(err)
				}
			}
			j := &job{d: *d, m: again, w: b.sender.webhooks.Get("demo", "wh_1")}
			if err := b.sender.putOff(t.Context(), j, &putOff{host: "127.0.0.1:9", until: until, decided: time.Now()}); err != nil {
				t.Fatal(err)
			}
			told := 0
			for _, r := range b.records(t, 0) {
				if r.GetChange().GetStatus() == delayed {
					told++
				}
			}
			if left := len(b.stored(t, contract.Later)); (told == 0) != wasPutOff || (left == 0) != wasPutOff {
				t.Errorf("it is told as delayed %d times, and %d timers are set", told, left)
			}
		})
	}
}

// A sender that is killed between holding what was called back and saying so leaves it in two places.
func TestSender_WhatWasHeldAndSentMeanwhileIsNotHeldAgain(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		due  time.Duration // of the delivery, when its message comes again
		held bool          // by the killed sender
	}{
		{"its time has not come", time.Hour, true},
		{"its time has come", -time.Minute, true},
		{"it was not held yet", -time.Minute, false},
		{"it was not held yet, and its time has not come", time.Hour, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := count(t, func(http.ResponseWriter, int, int) int { return 0 })
			b.put(t, governed("wh_1", in.url, nil))
			d := delivery("1", "application/json")
			d.Attempt, d.Due = 2, time.Now().Add(row.due)
			b.publish(t, d.Message())
			taken := b.taken(t)
			handedOut := time.Now()
			b.start(t, few())
			if row.held {
				b.publish(t, d.Hold(sequence(taken)))
				b.sender.keep(t.Context(), hold{why: "a test", shop: "demo", webhookID: "wh_1"})
				testwait.Until(t, "what was held is sent", func() bool { return len(b.stored(t, contract.Held)) == 0 && in.requests.Load() == 1 })
			}
			if err := taken.Nak(); err != nil { // stands for the end of its AckWait
				t.Fatal(err)
			}
			b.nothingHeld(t)
			wantAll(t, in, 1)
			last := ""
			for _, r := range b.records(t, 1) {
				last = r.GetChange().GetStatus() + r.GetAttempt().GetStatus()
				if last == held && r.GetAt().AsTime().After(handedOut) {
					t.Errorf("it is told to be held since %s, when it lay on the bus at %s: what came of it between the two would count for nothing", r.GetAt().AsTime(), handedOut)
				}
			}
			if last != delivered {
				t.Errorf("the last that is told of it is %q", last)
			}
		})
	}
}
