package bus_test

import (
	"testing"

	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
)

func TestNext_IsTheFirstFromASequenceOn(t *testing.T) {
	t.Parallel()
	b, _ := bustest.Server(t)
	held := func(webhookID string) string { return contract.HeldSubject(webhookID) }
	for _, webhookID := range []string{"wh_1", "wh_2", "wh_1"} {
		if err := b.Publish(t.Context(), &nats.Msg{Subject: held(webhookID), Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		webhookID  string
		from, want uint64
	}{{"wh_1", 0, 1}, {"wh_1", 1, 1}, {"wh_1", 2, 3}, {"wh_1", 4, 0}, {"wh_2", 1, 2}, {"wh_3", 1, 0}} {
		if got, err := b.Next(t.Context(), contract.Held, held(row.webhookID), row.from); err != nil || got != row.want {
			t.Errorf("the next of %s from %d on is %d, %v; want %d", row.webhookID, row.from, got, err, row.want)
		}
	}
}
