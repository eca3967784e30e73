package bus_test

import (
	"context"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
)

func TestKeepFilled_FillsABusyStreamAndLeavesAQuietOneEmpty(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := b.Publish(ctx, contract.Filler(contract.Held)); err != nil { // somebody was killed
		t.Fatal(err)
	}
	var atWork sync.WaitGroup
	for range 2 { // two processes
		atWork.Go(func() { b.KeepFilled(ctx, contract.Held) })
	}
	testwait.Until(t, "what somebody left is gone", func() bool { return messages(t, b, contract.Held) == 0 })
	// pass has so many pass through the stream together that a single time makes it busy; it is empty then but for its filler.
	pass := func() {
		t.Helper()
		msgs := make([]*nats.Msg, 200)
		for i := range msgs {
			msgs[i] = nats.NewMsg(contract.HeldSubject("wh_1"))
		}
		if err := b.Publish(ctx, msgs...); err != nil {
			t.Fatal(err)
		}
		if _, err := b.RemoveAll(ctx, contract.Held, contract.HeldSubject("wh_1")); err != nil {
			t.Fatal(err)
		}
	}
	var filler uint64
	testwait.Until(t, "a busy stream is filled", func() bool {
		pass()
		var err error
		if filler, err = b.Last(ctx, contract.Held, contract.FillerSubject(contract.Held)); err != nil {
			t.Fatal(err)
		}
		return filler > 0 && messages(t, b, contract.Held) == 1
	})
	testwait.Until(t, "what fills it moves on", func() bool {
		pass()
		now, err := b.Last(ctx, contract.Held, contract.FillerSubject(contract.Held))
		return err == nil && now > filler && messages(t, b, contract.Held) == 1
	})
	testwait.Until(t, "a quiet stream is empty", func() bool { return messages(t, b, contract.Held) == 0 })
	testwait.Until(t, "it is filled again", func() bool {
		pass()
		return messages(t, b, contract.Held) == 1
	})
	stop()
	atWork.Wait()
	if left := messages(t, b, contract.Held); left != 0 {
		t.Errorf("%d messages are left when all have stopped", left)
	}
}
