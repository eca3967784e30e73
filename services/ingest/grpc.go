package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/rpc"
	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Publish takes one event.
func (in *Ingest) Publish(ctx context.Context, req *ingestv1.PublishRequest) (*ingestv1.PublishResponse, error) {
	p, err := in.packProto(ctx, req.GetShopId(), []*shopbellv1.Event{req.GetEvent()}, func(int) string { return "event." })
	if err != nil {
		return nil, err
	}
	taken, err := in.publish(ctx, p, (*bus.Bus).PublishBatch)
	if err != nil {
		return nil, err
	}
	return &ingestv1.PublishResponse{Event: taken[0]}, nil
}

// PublishBatch takes events whole or not at all.
func (in *Ingest) PublishBatch(ctx context.Context, req *ingestv1.PublishBatchRequest) (*ingestv1.PublishBatchResponse, error) {
	p, err := in.packProto(ctx, req.GetShopId(), req.GetEvents(), func(i int) string { return fmt.Sprintf("events[%d].", i) })
	if err != nil {
		return nil, err
	}
	taken, err := in.publish(ctx, p, (*bus.Bus).PublishBatch)
	if err != nil {
		return nil, err
	}
	return &ingestv1.PublishBatchResponse{Events: taken}, nil
}

// packProto reads events of gRPC and packs them; prefix is what stands before a field in an error.
func (in *Ingest) packProto(ctx context.Context, shopID string, list []*shopbellv1.Event, prefix func(int) string) (*parcel, error) {
	events := make([]contract.Event, len(list))
	var bad fault.Collector
	for i, ev := range list {
		var err error
		events[i], err = event.FromProto(ev)
		bad.Include(prefix(i), err)
	}
	if err := bad.Err(); err != nil {
		in.taken.WithLabelValues("refused").Add(float64(len(list)))
		return nil, err
	}
	return in.pack(ctx, shopID, events, prefix)
}

// streamWindow is how many events of one stream are stored side by side.
const streamWindow = 256

type stream = grpc.BidiStreamingServer[ingestv1.PublishStreamRequest, ingestv1.PublishStreamResponse]

// PublishStream takes events one after the other and answers each in its turn. What has come in meanwhile is put onto
// the bus together, in its order.
func (in *Ingest) PublishStream(s stream) error {
	received := make(chan *ingestv1.PublishStreamRequest, streamWindow)
	ended := make(chan error, 1)
	go func() {
		defer close(received)
		ended <- receive(s, received)
	}()
	var err error
	for first := range received {
		if err != nil {
			continue // the publisher no longer listens; let the receiver run dry
		}
		err = in.answer(s, append([]*ingestv1.PublishStreamRequest{first}, waiting(received)...))
	}
	return errors.Join(err, <-ended)
}

func receive(s stream, received chan<- *ingestv1.PublishStreamRequest) error {
	for {
		req, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		received <- req
	}
}

func waiting(received <-chan *ingestv1.PublishStreamRequest) (out []*ingestv1.PublishStreamRequest) {
	for len(out) < streamWindow {
		select {
		case req, ok := <-received:
			if !ok {
				return out
			}
			out = append(out, req)
		default:
			return out
		}
	}
	return out
}

// answer stores events and answers each: those that are refused with their error, the others once all are stored.
func (in *Ingest) answer(s stream, reqs []*ingestv1.PublishStreamRequest) error {
	ctx := s.Context()
	answers := make([]*ingestv1.PublishStreamResponse, len(reqs))
	var all parcel
	var place []int
	for i, req := range reqs {
		p, err := in.packProto(ctx, req.GetShopId(), []*shopbellv1.Event{req.GetEvent()}, func(int) string { return "event." })
		if err != nil {
			answers[i] = in.refusal(ctx, err)
			continue
		}
		all.add(p)
		place = append(place, i)
	}
	taken, err := in.publish(ctx, &all, (*bus.Bus).PublishAcks)
	for n, i := range place {
		if err != nil {
			answers[i] = in.refusal(ctx, err)
			continue
		}
		answers[i] = &ingestv1.PublishStreamResponse{Event: taken[n]}
	}
	for _, a := range answers {
		if err := s.Send(a); err != nil {
			return err
		}
	}
	return nil
}

func (in *Ingest) refusal(ctx context.Context, err error) *ingestv1.PublishStreamResponse {
	st := rpc.Status(ctx, in.env.Log, "PublishStream", err)
	return &ingestv1.PublishStreamResponse{Error: st.Message(), ErrorCode: int32(st.Code())}
}
