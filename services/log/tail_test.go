package eventlog

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/run"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// attempted is a record of an attempt at wh_1.
func attempted(shop, deliveryID, status string, code int32) *busv1.Record {
	return &busv1.Record{
		At: timestamppb.New(noon), ShopId: shop, EventId: "evt_1", EventType: "order_created",
		What: &busv1.Record_Attempt{Attempt: &busv1.AttemptMade{
			DeliveryId: deliveryID, WebhookId: "wh_1", MatchedAt: timestamppb.New(noon), Status: status,
			Attempt: &shopbellv1.Attempt{Number: 1, StartedAt: timestamppb.New(noon), ResponseCode: code, ResponseBody: []byte("a page"), Verdict: status},
		}},
	}
}

func publishRecord(t *testing.T, b *bus.Bus, r *busv1.Record) {
	t.Helper()
	value, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), contract.RecordMessage(r.GetShopId(), "wh_1", value)); err != nil {
		t.Fatal(err)
	}
}

// next waits for what comes next.
func (l *listener) next(t *testing.T) *logv1.TailDeliveriesResponse {
	t.Helper()
	for {
		if what := l.take(); what != nil {
			return what
		}
		select {
		case <-l.wake:
		case <-time.After(time.Minute):
			t.Fatal("nothing came")
		}
	}
}

func TestTails_TellEachWhatHeAskedForFromNowOn(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	hub := newTails(&run.Env{Bus: b, Log: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() { defer close(gone); _ = hub.run(ctx) }()
	t.Cleanup(func() { stop(); <-gone })
	publishRecord(t, b, attempted("tulip.shop", "dlv_before", "failed", 500))
	for range 3 { // whoever was the last to leave, and whoever comes after him
		all := hub.join(store.Filter{ShopID: "tulip.shop"})
		failed := hub.join(store.Filter{ShopID: "tulip.shop", Status: "failed", Codes: store.Codes{Low: 500, High: 599}})
		other := hub.join(store.Filter{ShopID: "other"})
		for _, l := range []*listener{all, failed, other} {
			<-l.open
		}
		for _, r := range []*busv1.Record{
			attempted("tulip.shop", "dlv_a", "delivered", 200), attempted("tulip.shop", "dlv_b", "failed", 404),
			attempted("tulip.shop", "dlv_c", "failed", 503), attempted("other", "dlv_d", "failed", 500),
		} {
			publishRecord(t, b, r)
		}
		for _, want := range []string{"dlv_a", "dlv_b", "dlv_c"} {
			if got := all.next(t); got.GetDelivery().GetId() != want || got.GetWhat() != "attempt" {
				t.Errorf("all: got %v, want an attempt of %s", got, want)
			}
		}
		got := failed.next(t)
		if d := got.GetDelivery(); d.GetId() != "dlv_c" || d.GetResponseCode() != 503 || d.GetAttempts()[0].GetResponseBody() != nil {
			t.Errorf("failed with 5xx: got %v, want dlv_c without its answer's body", got)
		}
		if got := other.next(t); got.GetDelivery().GetId() != "dlv_d" {
			t.Errorf("another shop: got %v, want its own dlv_d", got)
		}
		for _, l := range []*listener{all, failed, other} {
			if left := l.take(); left != nil {
				t.Errorf("got %v beside what was asked for", left)
			}
			hub.leave(l)
		}
	}
}

func TestListener_IsToldHowMuchItMissedAndGoesOn(t *testing.T) {
	t.Parallel()
	l := &listener{wake: make(chan struct{}, 1)}
	put := func(n int) {
		for i := range n {
			l.put(&logv1.TailDeliveriesResponse{Id: fmt.Sprint(i), What: happenedStatus})
		}
	}
	put(maxQueue + 5)
	for i := range maxQueue {
		if got := l.take(); got.GetId() != fmt.Sprint(i) {
			t.Fatalf("got %v, want number %d", got, i)
		}
		put(1) // while something is left out, what comes is left out as well: the gap is one
	}
	if got := l.take(); got.GetWhat() != happenedGap || got.GetMissed() != maxQueue+5 {
		t.Errorf("got %v, want a gap of %d", got, maxQueue+5)
	}
	put(1)
	if got := l.take(); got.GetWhat() != happenedStatus {
		t.Errorf("got %v, want what came after the gap", got)
	}
	if got := l.take(); got != nil {
		t.Errorf("got %v, want nothing more", got)
	}
}

func TestHappened_IsTheStatusThatADeliveryTakes(t *testing.T) {
	t.Parallel()
	due := timestamppb.New(noon.Add(time.Hour))
	for _, row := range []struct {
		name string
		r    *busv1.Record
		want []string
	}{
		{"a decision makes deliveries", &busv1.Record{What: &busv1.Record_Decision{Decision: &busv1.Decision{
			Considered: []*shopbellv1.Considered{
				{WebhookId: "wh_1", Matched: true, DeliveryId: "dlv_1"}, {WebhookId: "wh_2", Reason: "no"}, {WebhookId: "wh_3", Matched: true, DeliveryId: "dlv_3"},
			}, Due: map[string]*timestamppb.Timestamp{"wh_3": due},
		}}}, []string{"status dlv_1 pending", "status dlv_3 delayed"}},
		{"an attempt", attempted("s", "dlv_1", "retrying", 500), []string{"attempt dlv_1 retrying"}},
		{"a change", &busv1.Record{What: &busv1.Record_Change{Change: &busv1.StatusChange{DeliveryId: "dlv_1", Status: "held"}}}, []string{"status dlv_1 held"}},
		{"a change of a webhook", &busv1.Record{What: &busv1.Record_Change{Change: &busv1.StatusChange{Status: "disabled"}}}, nil},
		{"something of a newer release", &busv1.Record{}, nil},
	} {
		var got []string
		for _, what := range happened(row.r) {
			got = append(got, fmt.Sprintf("%s %s %s", what.GetWhat(), what.GetDelivery().GetId(), what.GetDelivery().GetStatus()))
		}
		if fmt.Sprint(got) != fmt.Sprint(row.want) {
			t.Errorf("%s: got %v, want %v", row.name, got, row.want)
		}
	}
}

func TestTail_RefusesFiltersOfThePast(t *testing.T) {
	t.Parallel()
	if _, err := tailFilter(&logv1.ListDeliveriesRequest{ShopId: "s", From: timestamppb.New(noon)}); err == nil {
		t.Error("from: got no error, want one that says what is wrong")
	}
	if _, err := tailFilter(&logv1.ListDeliveriesRequest{ShopId: "s", Status: "failed", ResponseCode: "5xx"}); err != nil {
		t.Errorf("status and response_code: got %v, want none", err)
	}
}
