package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"go.opentelemetry.io/otel/propagation"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/key"
	"shopbell.dev/pkg/rpc"
	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
)

// publishHTTP is POST /v1/shops/{shop_id}/events. It is written by hand, and not made from the proto, so that payloads
// stay the bytes that they are.
func (in *Ingest) publishHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	if err := rpc.Authorize(ctx, r.PathValue("shop_id"), key.EventsWrite); err != nil {
		in.env.Fail(w, r, err)
		return
	}
	body, err := in.readBody(w, r)
	if err != nil {
		in.env.Fail(w, r, err)
		return
	}
	events, err := event.Parse(r.Header, r.URL.Query(), body)
	if err != nil {
		in.taken.WithLabelValues("refused").Inc()
		in.env.Fail(w, r, err)
		return
	}
	p, err := in.pack(ctx, r.PathValue("shop_id"), events, func(i int) string {
		if len(events) == 1 {
			return ""
		}
		return fmt.Sprintf("events[%d].", i)
	})
	if err != nil {
		in.env.Fail(w, r, err)
		return
	}
	taken, err := in.publish(ctx, p, (*bus.Bus).PublishBatch)
	if err != nil {
		in.env.Fail(w, r, err)
		return
	}
	// All that is in it is text, of which encoding/json makes what protojson would, at a tenth of the cost.
	text, err := json.Marshal(&ingestv1.PublishBatchResponse{Events: taken})
	if err != nil {
		in.env.Fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(append(text, '\n'))
}

func (in *Ingest) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limited := http.MaxBytesReader(w, r.Body, int64(in.cfg.MaxRequestBytes))
	if r.ContentLength > int64(in.cfg.MaxRequestBytes) {
		return nil, in.tooLarge()
	}
	var body []byte
	var err error
	if r.ContentLength > 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(limited, body)
	} else {
		body, err = io.ReadAll(limited)
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, in.tooLarge()
	case err != nil:
		return nil, fault.New(fault.Invalid, "the body did not arrive whole: %v", err)
	}
	return body, nil
}

func (in *Ingest) tooLarge() error {
	return fault.New(fault.TooLarge, "the request is larger than %s (ingest.max_request_bytes); send it in parts", in.cfg.MaxRequestBytes)
}
