package eventlog

import (
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/fault"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// queries are the methods of LogService that only read.
type queries struct {
	// Here, and not beside queries in the server, so that its methods do not hide these.
	logv1.UnimplementedLogServiceServer

	store store.Store
}

// The number of deliveries on a page.
const (
	defaultPage = 50
	maxPage     = 500
)

// maxTextSpan is how far apart from and to may be when a text is looked for.
const maxTextSpan = 31 * 24 * time.Hour

// GetEvent reads an event with its story.
func (q queries) GetEvent(ctx context.Context, r *logv1.GetEventRequest) (*shopbellv1.Event, error) {
	e, err := q.store.Event(ctx, r.GetShopId(), r.GetEventId())
	if err == nil && e.Event.GetAcceptedAt() == nil {
		err = store.ErrNotFound // what became of it is here before the event itself: a moment more
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "no event %q in shop %q: check both ids; the log follows the bus within a "+
			"second or so, and forgets what is older than its retention", r.GetEventId(), r.GetShopId())
	} else if err != nil {
		return nil, err
	}
	e.Event.Story = tell(e)
	return e.Event, nil
}

// GetDelivery reads a delivery with its attempts and the body of the last one.
func (q queries) GetDelivery(ctx context.Context, r *logv1.GetDeliveryRequest) (*shopbellv1.Delivery, error) {
	d, err := store.Detail(ctx, q.store, r.GetShopId(), r.GetDeliveryId())
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "no delivery %q in shop %q: check both ids; the log follows the bus within a "+
			"second or so, and forgets what is older than its retention", r.GetDeliveryId(), r.GetShopId())
	} else if err != nil {
		return nil, err
	}
	d.Delivery.BodyPending = len(d.Attempts) > 0 && bodyPending(d, time.Now())
	return d.Delivery, nil
}

// ListDeliveries reads a page of deliveries, newest first. New deliveries do not move what is on the next pages.
func (q queries) ListDeliveries(ctx context.Context, r *logv1.ListDeliveriesRequest) (*logv1.ListDeliveriesResponse, error) {
	filter, err := filterOf(r)
	if err != nil {
		return nil, err
	}
	size := filter.Limit
	filter.Limit++ // one more tells whether there is another page
	page, err := q.store.Deliveries(ctx, filter)
	if err != nil {
		return nil, err
	}
	list := page.Deliveries
	response := &logv1.ListDeliveriesResponse{Deliveries: list}
	switch {
	case len(list) > size:
		response.Deliveries = list[:size]
		response.NextPageToken = pageToken(r, list[size-1].GetId())
	case page.ReadTo != "":
		response.NextPageToken = pageToken(r, page.ReadTo)
		response.SearchedTo = timestamppb.New(store.Born(page.ReadTo))
	}
	return response, nil
}

// filterOf reads a request, and says of all its fields what is wrong with them.
func filterOf(r *logv1.ListDeliveriesRequest) (store.Filter, error) {
	var wrong fault.Collector
	codes, err := parseCodes(r.GetResponseCode())
	wrong.Include("", err)
	before, err := parsePageToken(r, r.GetPageToken())
	wrong.Include("", err)
	f := store.Filter{
		ShopID: r.GetShopId(), WebhookID: r.GetWebhookId(), EventType: r.GetEventType(), EventID: r.GetEventId(),
		DeliveryID: r.GetDeliveryId(), Status: r.GetStatus(), Codes: codes, ErrorClass: r.GetErrorClass(), Text: r.GetText(),
		Before: before, Limit: int(r.GetPageSize()),
		From: timeOf(&wrong, "from", r.GetFrom()), To: timeOf(&wrong, "to", r.GetTo()),
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		wrong.Add("to", "it is not after from, so nothing lies between them; set a later time")
	}
	if f.Text != "" && (f.From.IsZero() || f.To.IsZero() || f.To.Sub(f.From) > maxTextSpan) {
		wrong.Add("text", "it is looked for in the data of every event of a time span: set from and to, at most 31 days apart")
	}
	switch {
	case f.Limit == 0:
		f.Limit = defaultPage
	case f.Limit < 0 || f.Limit > maxPage:
		wrong.Add("page_size", "%d is not between 1 and %d", f.Limit, maxPage)
	}
	return f, wrong.Err()
}

func timeOf(wrong *fault.Collector, field string, ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	if err := ts.CheckValid(); err != nil {
		wrong.Add(field, "it is not a time between the years 1 and 9999")
	}
	return ts.AsTime()
}

// parseCodes reads a response_code filter: "404", "4xx" or "none".
func parseCodes(s string) (store.Codes, error) {
	switch {
	case s == "":
		return store.Codes{}, nil
	case s == "none":
		return store.Codes{None: true}, nil
	case len(s) == 3 && s[0] >= '1' && s[0] <= '5' && s[1:] == "xx":
		low := int(s[0]-'0') * 100
		return store.Codes{Low: low, High: low + 99}, nil
	}
	code, err := strconv.Atoi(s)
	if err != nil || len(s) != 3 || code < 100 || code > 599 {
		return store.Codes{}, fault.Field("response_code", `%q is neither a code such as "404", nor a class such as "4xx", nor "none"`, s)
	}
	return store.Codes{Low: code, High: code}, nil
}
