package eventlog

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// A secret may have been rotated right before: whoever sends must know that he has to have heard of it.
func TestAgain_NamesTheWebhookAsItIsNow(t *testing.T) {
	t.Parallel()
	r := startRoom(t, "")
	r.putWebhook(t, "tulip", "wh_1")
	r.putWebhook(t, "tulip", "wh_1") // another revision
	w, err := r.reachable(t.Context(), "tulip", "wh_1", false)
	if err != nil {
		t.Fatal(err)
	}
	if w.Revision < 2 {
		t.Fatalf("the webhook has revision %d, want a later one than its first", w.Revision)
	}
	for _, id := range []string{"dlv_00001", "dlv_00002"} {
		known := &store.Delivery{
			Event:    &shopbellv1.Event{ShopId: "tulip", Id: "evt_1", Type: "paid", ContentType: "application/json", AcceptedAt: timestamppb.New(noon)},
			Delivery: &shopbellv1.Delivery{Id: id, ShopId: "tulip", EventId: "evt_1", EventType: "paid", WebhookId: "wh_1", CreatedAt: timestamppb.New(noon), AttemptsMade: 1},
		}
		what := "one that is over"
		if id == "dlv_00002" {
			what = "one that waits"
			waits := contract.Delivery{Event: eventOf(known.Event), ID: id, WebhookID: "wh_1", Revision: 1, MatchedAt: noon, Attempt: 2}
			if err := r.bus.Publish(t.Context(), waits.Later(time.Now().Add(time.Hour))); err != nil {
				t.Fatal(err)
			}
		}
		m, err := r.again(t.Context(), known, w, asking{by: "root", at: noon})
		if err != nil {
			t.Fatal(err)
		}
		d, err := contract.ParseDelivery(m.Header, m.Data)
		if err != nil || d.ID != id || d.AskedBy != "root" || d.Revision != w.Revision {
			t.Errorf("%s: got %+v, %v; want revision %d of its webhook", what, d, err, w.Revision)
		}
	}
}
