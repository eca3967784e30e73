package bus_test

import (
	"context"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
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
	eventually(t, "what somebody left is gone", func() bool { return messages(t, b, contract.Held) == 0 })
	// one passes through the stream, which is empty but for its filler.
	one := func() {
		t.Helper()
		acks, err := b.PublishAcks(ctx, nats.NewMsg(contract.HeldSubject("wh_1")))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Remove(ctx, contract.Held, acks[0].Sequence); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a busy stream is filled", func() bool {
		for range 10 {
			one()
		}
		return messages(t, b, contract.Held) == 1
	})
	filler, err := b.Last(ctx, contract.Held, contract.FillerSubject(contract.Held))
	if err != nil || filler == 0 {
		t.Fatalf("what fills it is at %d, %v", filler, err)
	}
	eventually(t, "what fills it moves on", func() bool {
		for range 10 {
			one()
		}
		now, err := b.Last(ctx, contract.Held, contract.FillerSubject(contract.Held))
		return err == nil && now > filler && messages(t, b, contract.Held) == 1
	})
	eventually(t, "a quiet stream is empty", func() bool { return messages(t, b, contract.Held) == 0 })
	eventually(t, "it is filled again", func() bool {
		for range 10 {
			one()
		}
		return messages(t, b, contract.Held) == 1
	})
	stop()
	atWork.Wait()
	if left := messages(t, b, contract.Held); left != 0 {
		t.Errorf("%d messages are left when all have stopped", left)
	}
}
