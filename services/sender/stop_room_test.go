package sender

import (
	"io"
	"net/http"
	"testing"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
)

func TestSender_PublishesTheOutcomeBeforeItAcks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	b.put(t, state(in.URL, "enveloped"))
	giveBack := b.takeAway(t, contract.Outcomes)
	b.publish(t, delivery("1", "application/json").Message())
	testwait.Until(t, "the receiver has the delivery", func() bool { return len(in.all()) == 1 })
	for range 20 { // looks, each a round trip to the server: an ack would have come by now
		if _, unanswered, err := b.bus.Pending(t.Context(), contract.Sender); err != nil || unanswered != 1 {
			t.Fatalf("%d deliveries are unanswered, %v, want 1: nobody has the outcome yet", unanswered, err)
		}
	}
	giveBack()
	b.records(t, 1)
	b.empty(t)
	if got := len(in.all()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

func TestSender_PublishesTheOutcomeBeforeTheTimer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500)
	b.start(t, few())
	b.put(t, state(in.URL, "slow"))
	giveBack := b.takeAway(t, contract.Outcomes)
	b.publish(t, delivery("1", "application/json").Message())
	testwait.Until(t, "the receiver has the delivery", func() bool { return len(in.all()) == 1 })
	for range 20 { // looks, each some round trips to the server: a timer would have come by now
		if got := b.onTheWay(t); len(got) != 1 {
			t.Fatalf("%d messages on DELIVERIES, want the delivery alone: nobody has the outcome yet", len(got))
		}
	}
	giveBack()
	b.records(t, 1)
	testwait.Until(t, "its timer is left", func() bool {
		left := b.onTheWay(t)
		return len(left) == 1 && left[0].Subject == contract.LaterSubject("wh_1", "dlv_1")
	})
}

func TestSender_FinishesWhatIsInFlightWhenItStops(t *testing.T) {
	t.Parallel()
	b := setup(t)
	begun, release := make(chan struct{}), make(chan struct{})
	s := handler(t, false, func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-release
		w.WriteHeader(http.StatusAccepted)
	})
	stop := b.start(t, few())
	b.put(t, state(s.URL, "enveloped"))
	b.publish(t, delivery("1", "application/json").Message())
	<-begun
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	consumer, err := b.js.Consumer(t.Context(), contract.Deliveries, contract.Sender)
	if err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the sender asks for no more", func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.NumWaiting == 0
	})
	select {
	case <-stopped:
		t.Error("the sender is gone while a POST is in flight")
	default:
	}
	close(release)
	<-stopped
	if a := b.records(t, 1)[0].GetAttempt(); a.GetStatus() != delivered || a.GetAttempt().ResponseCode != 202 {
		t.Errorf("outcome %v, want delivered with 202", a)
	}
	b.empty(t)
}

func TestSender_InterruptedPostIsNotAnAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	begun := make(chan struct{}, 8)
	hanging := handler(t, false, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else nobody sees that the sender hangs up
		begun <- struct{}{}
		<-r.Context().Done()
	})
	cfg := few()
	cfg.Grace = 20 * time.Millisecond
	stop := b.start(t, cfg)
	b.put(t, state(hanging.URL, "slow"))
	b.publish(t, delivery("1", "application/json").Message())
	<-begun
	stop()
	if got := b.records(t, 0); len(got) != 0 {
		t.Errorf("an interrupted POST left the record %v", got)
	}
	left := b.onTheWay(t)
	if len(left) != 1 {
		t.Fatalf("%d deliveries are left, want 1", len(left))
	}
	if d, err := contract.ParseDelivery(left[0].Header, left[0].Data); err != nil || d.Attempt != 1 {
		t.Errorf("what is left is attempt %d, %v, want 1", d.Attempt, err)
	}
	in := receive(t, 200)
	b.sender = nil
	b.put(t, state(in.URL, "slow"))
	b.start(t, few()) // at once, and not when the AckWait is over
	if made := b.records(t, 1)[0].GetAttempt(); made.GetAttempt().Number != 1 || made.GetStatus() != delivered {
		t.Errorf("after the next start: %v, want attempt 1 delivered", made)
	}
}
