package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func contains(text []byte, part string) bool { return bytes.Contains(text, []byte(part)) }

// numbered is an event in our own form with this id, whose data has this number.
func numbered(id string, n int) string {
	return fmt.Sprintf(`{"id":%q,"type":"order.created","data":{"n":%d,"total": 549.50}}`, id, n)
}

// barrier publishes an event and waits until it has come in at the path, and gives all else that has come in there, which
// must be n: what should not come would have come by then.
func (h *house) barrier(t *testing.T, r *receiver, path, shop string, n int) []*received {
	t.Helper()
	id := h.publish(t, shop, `{"type":"order.created","data":{"barrier":true}}`)[0].ID
	h.awaitEvent(t, shop, id, allAre("delivered", 1))
	got := slices.DeleteFunc(r.at(path), func(in *received) bool { return contains(in.body, `{"barrier":true}`) })
	if len(got) != n {
		t.Errorf("%s was sent %d, want %d", path, len(got), n)
	}
	return got
}

func TestPublish_TheSameIDTwiceIsOneDelivery(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook")
		want := func(doing string, got []accepted, want ...accepted) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", doing, got, want)
			}
		}
		want("the first time", h.publish(t, "blomster", numbered("a", 1)), accepted{"a", "accepted"})
		want("again", h.publish(t, "blomster", numbered("a", 1)), accepted{"a", "duplicate"})
		want("again with other data", h.publish(t, "blomster", numbered("a", 2)), accepted{"a", "duplicate"})
		want("in a batch with new ones", h.publish(t, "blomster", "["+numbered("b", 3)+","+numbered("a", 4)+","+numbered("c", 5)+"]"),
			accepted{"b", "accepted"}, accepted{"a", "duplicate"}, accepted{"c", "accepted"})
		want("a whole batch again", h.publish(t, "blomster", numbered("c", 5)+"\n"+numbered("b", 3)+"\n", "Content-Type", "application/x-ndjson"),
			accepted{"c", "duplicate"}, accepted{"b", "duplicate"})
		want("twice in one batch", h.publish(t, "blomster", "["+numbered("d", 6)+","+numbered("d", 7)+","+numbered("e", 8)+"]"),
			accepted{"d", "accepted"}, accepted{"d", "duplicate"}, accepted{"e", "accepted"})
		want("in another shop", h.publish(t, "andre", numbered("a", 9)), accepted{"a", "accepted"})

		ctx, conn := h.dial(t, "ingest")
		ingest := ingestv1.NewIngestServiceClient(conn)
		one, err := ingest.Publish(ctx, &ingestv1.PublishRequest{ShopId: "blomster", Event: inProto("a", "order.created", "{}")})
		if got := one.GetEvent().GetStatus(); err != nil || got != "duplicate" {
			t.Errorf("gRPC Publish again: got %q, %v, want duplicate", got, err)
		}
		batch, err := ingest.PublishBatch(ctx, &ingestv1.PublishBatchRequest{ShopId: "blomster", Events: []*shopbellv1.Event{
			inProto("e", "order.created", "{}"), inProto("f", "order.created", `{"n":10}`),
		}})
		if got := fmt.Sprint(batch.GetEvents()); err != nil || !strings.Contains(got, "duplicate") || !strings.Contains(got, "accepted") {
			t.Errorf("gRPC PublishBatch with a repeat: got %s, %v, want a duplicate and an accepted one", got, err)
		}

		r.await(t, "/hook", 6)
		var got []string
		for _, in := range h.barrier(t, r, "/hook", "blomster", 6) {
			got = append(got, in.order())
		}
		slices.Sort(got)
		if want := []string{"1", "10", "3", "5", "6", "8"}; !slices.Equal(got, want) {
			t.Errorf("the receiver got %v, want each event once, with what was published first: %v", got, want)
		}
	})
}

func TestPublish_ABatchIsTakenWholeOrNotAtAll(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook")
		good := numbered("good", 1)
		for _, test := range []struct {
			name, contentType, body string
			fields                  []string
			says                    string
		}{
			{"an array", "application/json", "[" + good + `,{"type":"order created","data":{}}]`, []string{"events[1].type"}, "character"},
			{"two mistakes in two places", "application/json", `[{"data":{}},` + good + `,{"type":"a"}]`, []string{"events[0].type", "events[2].data"}, ""},
			{"NDJSON", "application/x-ndjson", good + "\n" + `{"type":"a","data":{},"dat":1}` + "\n", []string{"events[1].dat"}, `did you mean "data"`},
			{"NDJSON that breaks off", "application/x-ndjson", good + "\n" + `{"type":"a","data":{`, []string{"events[1]"}, "line 2"},
			{"CloudEvents", "application/cloudevents-batch+json", `[{"specversion":"1.0","id":"x","source":"/s","type":"a","data":{}},{"specversion":"1.0","id":"good","type":"a","data":{}}]`, []string{"events[1].source"}, ""},
		} {
			a := h.call(t, "POST", "/v1/shops/blomster/events", test.body, "Content-Type", test.contentType)
			if a.code != http.StatusBadRequest {
				t.Errorf("%s: got %d %s, want 400", test.name, a.code, a.body)
				continue
			}
			var why refusal
			a.read(t, &why)
			if got := why.fields(); !slices.Equal(got, test.fields) {
				t.Errorf("%s: got fields %q, want %q", test.name, got, test.fields)
			}
			if !contains(a.body, test.says) && !strings.Contains(why.Message, test.says) {
				t.Errorf("%s: got %q, want it to say %q", test.name, why.Message, test.says)
			}
		}
		ctx, conn := h.dial(t, "ingest")
		_, err := ingestv1.NewIngestServiceClient(conn).PublishBatch(ctx, &ingestv1.PublishBatchRequest{ShopId: "blomster", Events: []*shopbellv1.Event{
			inProto("good", "order.created", "{}"), inProto("bad", "order.>", "{}"),
		}})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "events[1].type") {
			t.Errorf("gRPC: got %v, want INVALID_ARGUMENT that names events[1].type", err)
		}
		h.barrier(t, r, "/hook", "blomster", 0)
		if a := h.call(t, "GET", "/v1/shops/blomster/events/good", ""); a.code != http.StatusNotFound {
			t.Errorf("an event of a refused batch: got %d %s, want 404", a.code, a.body)
		}
		if got := h.publish(t, "blomster", good); got[0].Status != "accepted" {
			t.Errorf("the good one alone: got %v, want accepted", got)
		}
	})
}

// A stream goes on after an event that is refused.
func TestPublishStream_AnswersEachInItsTurn(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		ctx, conn := h.dial(t, "ingest")
		s, err := ingestv1.NewIngestServiceClient(conn).PublishStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		const n = 600
		go func() {
			for i := range n {
				e := inProto(fmt.Sprintf("s-%d", i), "order.created", "{}")
				if i%50 == 7 {
					e.Type = "order created"
				}
				if i%50 == 9 {
					e.Id = fmt.Sprintf("s-%d", i-1)
				}
				_ = s.Send(&ingestv1.PublishStreamRequest{ShopId: "blomster", Event: e}) // an error is seen by Recv
			}
			_ = s.CloseSend()
		}()
		for i := range n {
			a, err := s.Recv()
			if err != nil {
				t.Fatalf("answer %d: %v", i, err)
			}
			switch {
			case i%50 == 7:
				if a.GetErrorCode() != int32(codes.InvalidArgument) || !strings.Contains(a.GetError(), "event.type") {
					t.Errorf("answer %d: got %v, want INVALID_ARGUMENT for event.type", i, a)
				}
			case i%50 == 9:
				if a.GetEvent().GetStatus() != "duplicate" || a.GetEvent().GetId() != fmt.Sprintf("s-%d", i-1) {
					t.Errorf("answer %d: got %v, want a duplicate", i, a)
				}
			case a.GetEvent().GetStatus() != "accepted" || a.GetEvent().GetId() != fmt.Sprintf("s-%d", i):
				t.Errorf("answer %d: got %v, want it accepted", i, a)
			}
		}
	})
}
