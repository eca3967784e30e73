package eventlog

import (
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/fault"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
)

func TestPageToken_BelongsToItsFilters(t *testing.T) {
	t.Parallel()
	list := func(change func(r *logv1.ListDeliveriesRequest)) *logv1.ListDeliveriesRequest {
		r := &logv1.ListDeliveriesRequest{
			ShopId: "shop", WebhookId: "wh_1", Status: "failed", From: &timestamppb.Timestamp{Seconds: 1}, PageSize: 50,
		}
		change(r)
		return r
	}
	token := pageToken(list(func(*logv1.ListDeliveriesRequest) {}), "dlv_1")
	for _, test := range []struct {
		name   string
		change func(r *logv1.ListDeliveriesRequest)
		taken  bool
	}{
		{"the same filters", func(*logv1.ListDeliveriesRequest) {}, true},
		{"another page size", func(r *logv1.ListDeliveriesRequest) { r.PageSize = 7 }, true},
		{"as it is used", func(r *logv1.ListDeliveriesRequest) { r.PageToken = token }, true},
		{"another shop", func(r *logv1.ListDeliveriesRequest) { r.ShopId = "shop2" }, false},
		{"another webhook", func(r *logv1.ListDeliveriesRequest) { r.WebhookId = "" }, false},
		{"another type", func(r *logv1.ListDeliveriesRequest) { r.EventType = "paid" }, false},
		{"another event", func(r *logv1.ListDeliveriesRequest) { r.EventId = "evt" }, false},
		{"another status", func(r *logv1.ListDeliveriesRequest) { r.Status = "held" }, false},
		{"another code", func(r *logv1.ListDeliveriesRequest) { r.ResponseCode = "4xx" }, false},
		{"another start", func(r *logv1.ListDeliveriesRequest) { r.From.Nanos = 1 }, false},
		{"another end", func(r *logv1.ListDeliveriesRequest) { r.To = &timestamppb.Timestamp{Seconds: 2} }, false},
		{"a value that moved to another field", func(r *logv1.ListDeliveriesRequest) { r.WebhookId, r.EventType = "", "wh_1" }, false},
	} {
		got, err := parsePageToken(list(test.change), token)
		if test.taken && (got != "dlv_1" || err != nil) {
			t.Errorf("%s: got %q, %v; want dlv_1", test.name, got, err)
		}
		if !test.taken && !fault.IsKind(err, fault.Invalid) {
			t.Errorf("%s: got %q, %v; want an Invalid fault", test.name, got, err)
		}
	}
}

func FuzzPageToken(f *testing.F) {
	r := &logv1.ListDeliveriesRequest{ShopId: "shop"}
	for _, seed := range []string{
		"", "x", "====", "AAAA", "dlv_01KQH4V5T2Z9QW3N8XJ6M7R4B1", pageToken(r, ""), pageToken(r, "dlv_1"),
		pageToken(r, "dlv_1") + "=", pageToken(r, "dlv_1")[:8], pageToken(&logv1.ListDeliveriesRequest{}, "dlv_1"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		lastID, err := parsePageToken(r, token)
		switch {
		case err != nil && !fault.IsKind(err, fault.Invalid):
			t.Errorf("%q: got error %v, want an Invalid fault", token, err)
		case err != nil && lastID != "":
			t.Errorf("%q: got both %q and an error", token, lastID)
		case err == nil && token != "" && pageToken(r, lastID) != token:
			t.Errorf("%q is another spelling of %q", token, pageToken(r, lastID))
		}
		if token == "" {
			return
		}
		if got, err := parsePageToken(r, pageToken(r, token)); got != token || err != nil {
			t.Errorf("the token of %q gives %q, %v", token, got, err)
		}
	})
}
