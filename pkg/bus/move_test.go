package bus_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
)

func TestConnect_MovesWhatAnEarlierBuildLeft(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	server, err := bus.Embed(bus.EmbedConfig{Dir: t.TempDir(), Sync: time.Second}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	conn, err := nats.Connect("", server.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	const timers = 600 // more than are moved at once
	delivery := func(i int) *contract.Delivery {
		return &contract.Delivery{
			Event: contract.Event{ShopID: "demo", ID: fmt.Sprint("e", i), Type: "paid", AcceptedAt: time.Now(), Data: []byte("549.50")},
			ID:    fmt.Sprint("dlv_", i), WebhookID: fmt.Sprint("wh_", i%7), MatchedAt: time.Now(), Attempt: 3,
		}
	}
	fromThen := jetstream.StreamConfig{
		Name: contract.Deliveries, Subjects: []string{"deliveries.*.*", "bulk.*.*", "due.*.*", "later.*.*", "filler.deliveries"},
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, AllowMsgSchedules: true, AllowRollup: true, AllowDirect: true,
	}
	stream, err := js.CreateStream(t.Context(), fromThen)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: contract.DueSender, FilterSubject: "due.*.*", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Hour)
	fired := delivery(timers)
	msgs := []*nats.Msg{fired.Later(time.Now()), delivery(timers + 1).Message()}
	for i := range timers {
		msgs = append(msgs, delivery(i).Later(at))
	}
	for _, m := range msgs {
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	testwait.Until(t, "one has fired", func() bool {
		_, err := stream.GetLastMsgForSubject(t.Context(), contract.DeliverySubject(fired.WebhookID, contract.Due))
		return err == nil
	})

	for range 2 { // the second finds nothing to do
		b, err := bus.Connect(t.Context(), bus.Defaults(), log, server.Option())
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if here, there := messages(t, b, contract.Deliveries), messages(t, b, contract.Later); here != 1 || there != timers+1 {
			t.Fatalf("%d messages in DELIVERIES, %d in LATER; want 1 and %d", here, there, timers+1)
		}
		for i := range timers {
			want := delivery(i)
			m, err := b.LastMessage(t.Context(), contract.Later, contract.LaterSubject(want.WebhookID, want.ID))
			if err != nil || m == nil {
				t.Fatalf("timer %d: %v, %v", i, m, err)
			}
			got, due, err := contract.ParseLater(m.Header, m.Data)
			if err != nil || got.ID != want.ID || got.Attempt != 3 || string(got.Data) != "549.50" || !due.Equal(at) {
				t.Errorf("timer %d is %+v, due %s, %v", i, got, due, err)
			}
		}
		if _, err := js.Consumer(t.Context(), contract.Deliveries, contract.DueSender); err == nil {
			t.Error("the consumer of what was due is still there")
		}
	}
	due, err := js.Consumer(t.Context(), contract.Later, contract.DueSender)
	if err != nil {
		t.Fatal(err)
	}
	m, err := due.Next(jetstream.FetchMaxWait(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := contract.ParseDelivery(m.Headers(), m.Data()); err != nil || got.ID != fired.ID {
		t.Errorf("what is due is %s, %v; want %s", got.ID, err, fired.ID)
	}
}
