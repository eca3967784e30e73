package eventlog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

func TestStats_SpanEndsWithTheDayOrHourOfNow(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 23, 30, 0, 0, time.FixedZone("", -2*60*60)) // 01:30 on the 2nd in UTC
	for _, test := range []struct {
		name        string
		days, hours int
		from, to    string
		parts       int
		wrong       string
	}{
		{name: "nothing is 30 days", from: "2026-04-03T00", to: "2026-05-03T00", parts: 30},
		{name: "one day is today, in UTC", days: 1, from: "2026-05-02T00", to: "2026-05-03T00", parts: 1},
		{name: "one hour is this one", hours: 1, from: "2026-05-02T01", to: "2026-05-02T02", parts: 1},
		{name: "hours over midnight", hours: 3, from: "2026-05-01T23", to: "2026-05-02T02", parts: 3},
		{name: "the most days", days: 400, from: "2025-03-29T00", to: "2026-05-03T00", parts: 400},
		{name: "the most hours", hours: 840, from: "2026-03-28T02", to: "2026-05-02T02", parts: 840},
		{name: "more days", days: 401, wrong: "400 days"},
		{name: "more hours", hours: 841, wrong: "840 hours"},
		{name: "both", days: 1, hours: 1, wrong: "one of the two"},
	} {
		s, err := Defaults().span(test.days, test.hours, now)
		if test.wrong != "" {
			if !fault.IsKind(err, fault.Invalid) || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%s: got error %v, want one of the caller that says %q", test.name, err, test.wrong)
			}
			continue
		}
		const layout = "2006-01-02T15"
		if err != nil || s.from.Format(layout) != test.from || s.to().Format(layout) != test.to || s.parts != test.parts {
			t.Errorf("%s: got %s to %s in %d parts, error %v; want %s to %s in %d", test.name, s.from.Format(layout), s.to().Format(layout), s.parts, err, test.from, test.to, test.parts)
		}
	}
}

func TestStats_TellWhatBecameOfDeliveries(t *testing.T) {
	t.Parallel()
	now, yesterday := noon, noon.Add(-day)
	var b store.Batch
	made := func(id, webhookID string, number int32, at time.Time, status, class string, code int32, ms float64) {
		b.Records = append(b.Records, &busv1.Record{
			At: timestamppb.New(at), ShopId: "shop", EventId: "evt", EventType: "paid",
			What: &busv1.Record_Attempt{Attempt: &busv1.AttemptMade{
				DeliveryId: id, WebhookId: webhookID, MatchedAt: timestamppb.New(yesterday), Status: status, Test: strings.Contains(id, "test"),
				Attempt: &shopbellv1.Attempt{Number: number, StartedAt: timestamppb.New(at), DurationMs: ms, ErrorClass: class, ResponseCode: code},
			}},
		})
	}
	for i := range 8 {
		made(fmt.Sprintf("dlv_%d", i), "wh_1", 1, yesterday, "delivered", "", 200, 100)
	}
	made("dlv_8", "wh_1", 1, yesterday, "retrying", "timeout", 0, 10_000)
	made("dlv_8", "wh_1", 2, now, "failed", "http_status", 500, 200) // today, of yesterday's delivery
	made("dlv_9", "wh_1", 1, yesterday, "retrying", "http_status", 503, 100)
	made("dlv_a", "wh_2", 1, yesterday, "delivered", "", 204, 40)
	made("dlv_test", "wh_1", 1, yesterday, "failed", "dns", 0, 40)
	l := &Log{queries: setupQueries(t, b), cfg: Defaults()}

	got, err := l.stats(context.Background(), "shop", "wh_1", &logv1.GetWebhookStatsRequest{Days: 3}, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.GetDays()) != 3 || len(got.GetHours()) != 0 {
		t.Fatalf("got %d days and %d hours, want 3 days", len(got.GetDays()), len(got.GetHours()))
	}
	today := timestamppb.New(now.Truncate(day))
	rate, each := 8.0/9, 11.0/10
	period := func(days float64) *logv1.Period {
		from := today.AsTime().Add(time.Duration(days * float64(day)))
		return &logv1.Period{From: timestamppb.New(from), To: timestamppb.New(from.Add(day)), ErrorsByClass: map[string]float64{}, ErrorsByResponseCode: map[string]float64{}}
	}
	first, second, third := period(-2), period(-1), period(0)
	second.Deliveries, second.Delivered, second.Failed, second.Waiting = 10, 8, 1, 1
	second.SuccessRate, second.AttemptsPerDelivery = &rate, &each
	second.Attempts = 10
	second.ErrorsByClass = map[string]float64{"timeout": 1, "http_status": 1}
	second.ErrorsByResponseCode = map[string]float64{"none": 1, "503": 1}
	second.Latency = &logv1.Latency{P50Ms: 100, P90Ms: 100, P99Ms: 100}
	third.Attempts, third.ErrorsByClass, third.ErrorsByResponseCode = 1, map[string]float64{"http_status": 1}, map[string]float64{"500": 1}
	third.Latency = &logv1.Latency{P50Ms: 200, P90Ms: 200, P99Ms: 200}
	same := cmp.Options{protocmp.Transform(), cmpopts.EquateApprox(0.02, 0)}
	if diff := cmp.Diff([]*logv1.Period{first, second, third}, got.GetDays(), same); diff != "" {
		t.Errorf("days: got + and want -:\n%s", diff)
	}
	total := got.GetTotal()
	if total.GetDeliveries() != 10 || total.GetAttempts() != 11 || total.GetErrorsByClass()["http_status"] != 2 || !total.GetFrom().AsTime().Equal(first.GetFrom().AsTime()) || !total.GetTo().AsTime().Equal(third.GetTo().AsTime()) {
		t.Errorf("total: got %v, want the sum of the days", total)
	}

	shop, err := l.stats(context.Background(), "shop", "", &logv1.GetShopStatsRequest{Hours: 72}, now)
	if err != nil {
		t.Fatal(err)
	}
	if shop.GetTotal().GetDeliveries() != 11 || shop.GetTotal().GetAttempts() != 12 || len(shop.GetHours()) != 72 || len(shop.GetDays()) != 0 {
		t.Errorf("the shop: got %v in %d hours, want 11 deliveries in 72", shop.GetTotal(), len(shop.GetHours()))
	}
	if hours := slices.DeleteFunc(shop.GetHours(), func(p *logv1.Period) bool { return p.GetDeliveries() == 0 }); len(hours) != 1 || !hours[0].GetFrom().AsTime().Equal(yesterday) {
		t.Errorf("the shop's hours: got %v, want all at %v", hours, yesterday)
	}
	none, err := l.stats(context.Background(), "another", "", &logv1.GetShopStatsRequest{}, now)
	if err != nil || none.GetTotal().GetDeliveries() != 0 || none.GetTotal().SuccessRate != nil || none.GetTotal().Latency != nil {
		t.Errorf("another shop: got %v, error %v; want zeros, and no rate of nothing", none.GetTotal(), err)
	}
}

func TestStats_OfAWebhookThatNeverWasAreNotFound(t *testing.T) {
	t.Parallel()
	r := startRoom(t, "")
	r.putWebhook(t, "tulip", "wh_new")
	attempt := &busv1.Record{
		At: timestamppb.Now(), ShopId: "tulip", EventId: "evt_1", EventType: "paid",
		What: &busv1.Record_Attempt{Attempt: &busv1.AttemptMade{
			DeliveryId: "dlv_1", WebhookId: "wh_deleted", MatchedAt: timestamppb.New(time.Now().Add(-100 * day)), Status: "delivered",
			Attempt: &shopbellv1.Attempt{Number: 1, StartedAt: timestamppb.New(time.Now().Add(-100 * day)), ResponseCode: 200},
		}},
	}
	publishRecord(t, r.bus, attempt)
	stats := func(webhookID string, days int32) error {
		_, err := r.GetWebhookStats(t.Context(), &logv1.GetWebhookStatsRequest{ShopId: "tulip", WebhookId: webhookID, Days: days})
		return err
	}
	testwait.Until(t, "what was deleted long ago has statistics", func() bool { return stats("wh_deleted", 1) == nil })
	if err := stats("wh_new", 30); err != nil {
		t.Errorf("one without deliveries: %v", err)
	}
	for _, id := range []string{"wh_never", "wh *", "wh_new.x"} {
		if err := stats(id, 30); !fault.IsKind(err, fault.NotFound) || !strings.Contains(err.Error(), "/v1/shops/tulip/webhooks") {
			t.Errorf("%q: got %v, want not found, and where webhooks are listed", id, err)
		}
	}
	if _, err := r.GetWebhookStats(t.Context(), &logv1.GetWebhookStatsRequest{ShopId: "other", WebhookId: "wh_new"}); !fault.IsKind(err, fault.NotFound) {
		t.Errorf("another shop's webhook: got %v, want not found", err)
	}
}
