package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/sqlite"
	"shopbell.dev/services/log/store"
)

// acceptedAt is an event that was accepted then and matched to one webhook.
func acceptedAt(at time.Time, eventID string) (b store.Batch, deliveryID string) {
	deliveryID = id.Derived(id.Delivery, at, eventID)
	return store.Batch{
		Events: []*shopbellv1.Event{{ShopId: "shop", Id: eventID, Type: "paid", AcceptedAt: timestamppb.New(at), Content: &shopbellv1.Event_Data{Data: []byte("1")}}},
		Records: []*busv1.Record{{
			At: timestamppb.New(at), ShopId: "shop", EventId: eventID, EventType: "paid",
			What: &busv1.Record_Decision{Decision: &busv1.Decision{Considered: []*shopbellv1.Considered{{WebhookId: "wh_1", Matched: true, DeliveryId: deliveryID}}}},
		}},
	}, deliveryID
}

func TestShoporama_S1_29_OldEntriesAreForgotten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.db")
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	old, oldID := acceptedAt(time.Now().Add(-31*day), "evt_old")
	young, youngID := acceptedAt(time.Now().Add(-29*day), "evt_young")
	if err := errors.Join(s.Write(context.Background(), old), s.Write(context.Background(), young), s.Close()); err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Store = config.Secret("sqlite:" + path)
	r := startRoomOn(t, bustest.New(t), cfg, slog.DiscardHandler, func(string) {})
	gone := func(deliveryID string) bool {
		_, err := store.Detail(context.Background(), r.store, "shop", deliveryID)
		return errors.Is(err, store.ErrNotFound)
	}
	testwait.Until(t, "what is 31 days old is forgotten", func() bool { return gone(oldID) })
	if gone(youngID) {
		t.Error("what is 29 days old was forgotten")
	}
}

func TestConfig_SaysWhatCannotBeKept(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"keep":      func(c *Config) { c.Keep = time.Hour },
		"max_bytes": func(c *Config) { c.MaxBytes = 1 << 20 },
	} {
		c := Defaults()
		if err := c.Validate(); err != nil {
			t.Fatalf("the defaults: %v", err)
		}
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want an error that names it", name, err)
		}
		c.Keep, c.MaxBytes = 0, 0
		if err := c.Validate(); err != nil {
			t.Errorf("without end: %v", err)
		}
	}
}
