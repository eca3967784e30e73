package eventlog

import (
	"context"

	"google.golang.org/grpc"

	"shopbell.dev/pkg/fault"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// An export reads page by page, so that it needs the same memory however long it is; an attempt has its answer's body.
const (
	exportedAtOnce = 500 // deliveries
	attemptsOf     = 50  // deliveries
)

// ExportDeliveries gives all deliveries that a filter chooses, newest first.
func (l *Log) ExportDeliveries(r *logv1.ListDeliveriesRequest, stream grpc.ServerStreamingServer[logv1.ExportDeliveriesResponse]) error {
	filter, err := exportFilter(r)
	if err != nil {
		return err
	}
	filter.Limit = exportedAtOnce
	return l.each(stream.Context(), filter, func(page []*shopbellv1.Delivery) error {
		return stream.Send(&logv1.ExportDeliveriesResponse{Deliveries: page})
	})
}

// ExportAttempts gives all attempts of the deliveries that a filter chooses.
func (l *Log) ExportAttempts(r *logv1.ListDeliveriesRequest, stream grpc.ServerStreamingServer[logv1.ExportAttemptsResponse]) error {
	filter, err := exportFilter(r)
	if err != nil {
		return err
	}
	filter.Limit = attemptsOf
	return l.each(stream.Context(), filter, func(page []*shopbellv1.Delivery) error {
		ids := make([]string, len(page))
		for i, d := range page {
			ids[i] = d.GetId()
		}
		attempts, err := l.store.Attempts(stream.Context(), r.GetShopId(), ids)
		if err != nil {
			return err
		}
		out := &logv1.ExportAttemptsResponse{}
		for _, d := range page {
			for _, a := range attempts[d.GetId()] {
				out.Attempts = append(out.Attempts, &logv1.ExportedAttempt{
					DeliveryId: d.GetId(), EventId: d.GetEventId(), EventType: d.GetEventType(), WebhookId: d.GetWebhookId(), Attempt: a,
				})
			}
		}
		return stream.Send(out)
	})
}

func exportFilter(r *logv1.ListDeliveriesRequest) (store.Filter, error) {
	var wrong fault.Collector
	for field, set := range map[string]bool{"page_size": r.GetPageSize() != 0, "page_token": r.GetPageToken() != ""} {
		if set {
			wrong.Add(field, "an export has no pages; leave it out")
		}
	}
	if err := wrong.Err(); err != nil {
		return store.Filter{}, err
	}
	return filterOf(r)
}

// each gives all deliveries that a filter chooses, in pages of its limit, until there are no more, page fails or ctx ends.
func (l *Log) each(ctx context.Context, filter store.Filter, page func([]*shopbellv1.Delivery) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		list, err := l.store.Deliveries(ctx, filter)
		if err != nil {
			return err
		}
		if err := page(list.Deliveries); err != nil {
			return err
		}
		switch n := len(list.Deliveries); {
		case list.ReadTo != "":
			filter.Before = list.ReadTo
		case n < filter.Limit:
			return nil
		default:
			filter.Before = list.Deliveries[n-1].GetId()
		}
	}
}
