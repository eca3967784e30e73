package subscription

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestSwitchOff_HearsTheReceiverAndTellsTheOwner(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.create(t, &shopbellv1.Webhook{})
	b.wish(t, w, func(*busv1.SwitchOff) {})
	got := b.read(t, w.Id)
	if got.Status != webhook.Disabled || !strings.Contains(got.GetDisabledReason(), "410 Gone") || got.DisabledAt == nil {
		t.Errorf("after the wish: %v", got)
	}
	if !b.webhooks.Get("demo", w.Id).OffByReceiver {
		t.Error("it counts as switched off by its owner")
	}
	if got := b.notices(t); !slices.Equal(got, []string{notice.WebhookDisabled}) {
		t.Errorf("notices %q, want one", got)
	}
	// What arrives now is made and held, not passed over.
	if yes, why := b.webhooks.Get("demo", w.Id).Wants(happened("evt_1", "paid"), webhook.View(happened("evt_1", "paid"))); !yes {
		t.Errorf("an event is passed over because %s", why)
	}
	// Held in the meantime, sent when it is on again.
	held := contract.Delivery{Event: *happened("evt_1", "paid"), ID: "dlv_2", WebhookID: w.Id, MatchedAt: time.Now(), Attempt: 1}
	if err := b.bus.Publish(t.Context(), held.Hold(1)); err != nil {
		t.Fatal(err)
	}
	on, err := b.EnableWebhook(t.Context(), &subscriptionv1.EnableWebhookRequest{ShopId: "demo", WebhookId: w.Id, Held: "send"})
	if err != nil || on.Status != webhook.Enabled || on.DisabledReason != nil || on.DisabledAt != nil {
		t.Errorf("switched on: %v, %v", on, err)
	}
	if got := b.notices(t); !slices.Equal(got, []string{notice.WebhookDisabled, notice.WebhookRecovered}) {
		t.Errorf("notices %q, want that it is on again as well", got)
	}
	left := b.stored(t, contract.Deliveries)
	if len(left) != 1 {
		t.Fatalf("%d messages on DELIVERIES, want the release", len(left))
	}
	if r, ok, err := contract.ParseRelease(left[0].Header); !ok || err != nil || r.WebhookID != w.Id || r.Discard || r.Through != 1 {
		t.Errorf("release %+v, %v, %v", r, ok, err)
	}
}

func TestEnableWebhook_CalledAgainTellsWhatNobodyWasTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.create(t, &shopbellv1.Webhook{})
	b.wish(t, w, func(*busv1.SwitchOff) {})
	wantNotices := func(when string, want ...string) {
		t.Helper()
		if got := b.notices(t); !slices.Equal(got, want) {
			t.Errorf("%s: notices %q, want %q", when, got, want)
		}
	}
	on, untold, err := b.enable(t.Context(), "demo", w.Id, false) // and then it was killed
	if err != nil || on.Status != webhook.Enabled || untold == nil {
		t.Fatalf("switched on: %v, %v, %v", on, untold, err)
	}
	wantNotices("killed before it told", notice.WebhookDisabled)
	again := func() {
		t.Helper()
		on, err := b.EnableWebhook(t.Context(), &subscriptionv1.EnableWebhookRequest{ShopId: "demo", WebhookId: w.Id, Held: "send"})
		if err != nil || on.Status != webhook.Enabled {
			t.Fatalf("called again: %v, %v", on, err)
		}
	}
	again()
	wantNotices("called again", notice.WebhookDisabled, notice.WebhookRecovered)
	if left := b.webhooks.Get("demo", w.Id).State().Recovered; left != nil {
		t.Errorf("it is still to be told: %v", left)
	}
	again()
	wantNotices("and again", notice.WebhookDisabled, notice.WebhookRecovered)

	b.wish(t, w, func(s *busv1.SwitchOff) { s.DeliveryId = "dlv_2" })
	if on, untold, err = b.enable(t.Context(), "demo", w.Id, false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.tellRecovered(t.Context(), on, untold); err != nil {
		t.Fatal(err)
	}
	if _, err := b.change(t.Context(), "demo", w.Id, "", func(s *busv1.WebhookState) (bool, error) { // killed before it was noted
		s.Recovered = untold
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	again()
	if got := b.notices(t); len(got) != 4 {
		t.Errorf("off and on a second time: notices %q, want two more", got)
	}
}

// Senders who saw the webhook off may hold something after its owner has looked for what is held, and whoever looked may be
// killed before he tells anybody: what is discarded stands in the webhook from the moment in which it is on.
func TestEnableWebhook_NotesWhatIsDiscarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.create(t, &shopbellv1.Webhook{})
	n := 0
	hold := func() {
		t.Helper()
		n++
		id := fmt.Sprintf("%d", n)
		d := contract.Delivery{Event: *happened("evt_"+id, "paid"), ID: "dlv_" + id, WebhookID: w.Id, MatchedAt: time.Now(), Attempt: 1}
		if err := b.bus.Publish(t.Context(), d.Hold(0)); err != nil {
			t.Fatal(err)
		}
	}
	off := func() uint64 {
		t.Helper()
		b.wish(t, w, func(s *busv1.SwitchOff) { s.DeliveryId = fmt.Sprintf("dlv_off_%d", n) })
		return b.webhooks.Get("demo", w.Id).Revision
	}
	on := func(discard bool) {
		t.Helper()
		if _, _, err := b.enable(t.Context(), "demo", w.Id, discard); err != nil { // and then it is killed
			t.Fatal(err)
		}
	}
	want := func(when string, revision, sequence uint64) {
		t.Helper()
		now, err := b.webhooks.Fetch(t.Context(), "demo", w.Id)
		if err != nil {
			t.Fatal(err)
		}
		if got := now.Discarded; now.Off() != "" || got.Revision != revision || got.Sequence != sequence {
			t.Errorf("%s: discarded is %v (off: %q), want revision %d and sequence %d", when, got, now.Off(), revision, sequence)
		}
	}
	hold()
	off()
	on(false)
	want("sent", 0, 0)
	hold()
	first := off()
	on(true)
	want("discarded", first, 2)
	hold()
	off()
	on(false)
	want("what is held later is sent", first, 2)
	if _, err := b.bus.RemoveAll(t.Context(), contract.Held, contract.HeldSubject(w.Id)); err != nil {
		t.Fatal(err)
	}
	third := off()
	on(true)
	want("nothing was held", third, 2)
	hold()
	before := b.webhooks.Get("demo", w.Id).Revision
	on(true)
	want("discarded while it is on", before, 4)
}

func TestSwitchOff_IsIgnoredWhenThingsHaveChanged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, row := range []struct {
		name   string
		before func(w *shopbellv1.Webhook)
		wish   func(*busv1.SwitchOff)
		status string
		off    bool // by its receiver
	}{
		{"it has another address by now", nil, func(wish *busv1.SwitchOff) { wish.Url = "https://example.com/before" }, webhook.Enabled, false},
		{"its owner has switched it off", func(w *shopbellv1.Webhook) {
			if _, err := b.DisableWebhook(t.Context(), &subscriptionv1.DisableWebhookRequest{ShopId: "demo", WebhookId: w.Id, Reason: "moving"}); err != nil {
				t.Fatal(err)
			}
		}, func(*busv1.SwitchOff) {}, webhook.Disabled, false},
		{"a phrase deletes it, so that it can be undone", nil, func(wish *busv1.SwitchOff) { wish.Delete = true }, webhook.Deleted, true},
	} {
		w := b.create(t, &shopbellv1.Webhook{Label: &row.name})
		if row.before != nil {
			row.before(w)
		}
		b.wish(t, w, row.wish)
		got := b.read(t, w.Id)
		if got.Status != row.status || b.webhooks.Get("demo", w.Id).OffByReceiver != row.off {
			t.Errorf("%s: %s (by its receiver: %v), want %s (%v)", row.name, got.Status, !row.off, row.status, row.off)
		}
	}
	gone := b.create(t, &shopbellv1.Webhook{})
	if _, err := b.DeleteWebhook(t.Context(), &subscriptionv1.DeleteWebhookRequest{ShopId: "demo", WebhookId: gone.Id}); err != nil {
		t.Fatal(err)
	}
	b.wish(t, gone, func(*busv1.SwitchOff) {})
	if err := b.bus.Publish(t.Context(), contract.SwitchMessage("demo", gone.Id, []byte{0xff}, "broken")); err != nil {
		t.Fatal(err)
	}
	after := b.create(t, &shopbellv1.Webhook{})
	b.wish(t, after, func(*busv1.SwitchOff) {}) // it goes on after what it cannot read
	if got := b.read(t, after.Id); got.Status != webhook.Disabled {
		t.Errorf("after a broken wish the next is not heard: %v", got)
	}
}

func TestDisableWebhook_KeepsTheOwnersReason(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.create(t, &shopbellv1.Webhook{})
	off, err := b.DisableWebhook(t.Context(), &subscriptionv1.DisableWebhookRequest{ShopId: "demo", WebhookId: w.Id, Reason: "moving house"})
	if err != nil || off.Status != webhook.Disabled || off.GetDisabledReason() != "switched off by its owner: moving house" {
		t.Fatalf("%v, %v", off, err)
	}
	again, err := b.DisableWebhook(t.Context(), &subscriptionv1.DisableWebhookRequest{ShopId: "demo", WebhookId: w.Id, Reason: "moving house"})
	if err != nil || again.Etag != off.Etag {
		t.Errorf("the same again: %v, %v, want no change", again, err)
	}
	on, err := b.EnableWebhook(t.Context(), &subscriptionv1.EnableWebhookRequest{ShopId: "demo", WebhookId: w.Id})
	if err != nil || on.Status != webhook.Enabled {
		t.Errorf("switched on: %v, %v", on, err)
	}
	if got := b.notices(t); len(got) != 0 {
		t.Errorf("notices %q of what the owner did himself", got)
	}
}
