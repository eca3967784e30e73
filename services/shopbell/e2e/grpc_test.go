package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	senderv1 "shopbell.dev/proto/shopbell/sender/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestGRPC_DoesTheWholeJourney(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/hook", answer{code: 500}, answer{})
		ctx, subscriptionConn := h.dial(t, "subscription")
		_, ingestConn := h.dial(t, "ingest")
		_, senderConn := h.dial(t, "sender")
		_, logConn := h.dial(t, "log")
		subscriptions, log := subscriptionv1.NewSubscriptionServiceClient(subscriptionConn), logv1.NewLogServiceClient(logConn)

		label := "Warehouse"
		w, err := subscriptions.CreateWebhook(ctx, &subscriptionv1.CreateWebhookRequest{ShopId: "blomster", Webhook: &shopbellv1.Webhook{
			Label: &label, Url: r.url + "/hook", Events: []string{"order.created"},
			Policy: &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(200e6)}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		published, err := ingestv1.NewIngestServiceClient(ingestConn).Publish(ctx, &ingestv1.PublishRequest{
			ShopId: "blomster", Event: &shopbellv1.Event{Id: "order-1042-created", Type: "order.created", Content: &shopbellv1.Event_Json{Json: payload}},
		})
		if err != nil || published.GetEvent().GetId() != "order-1042-created" || published.GetEvent().GetStatus() != "accepted" {
			t.Fatalf("publish: got %v, %v, want order-1042-created accepted", published, err)
		}
		var e *shopbellv1.Event
		eventually(t, "the story is in the log", func() error {
			e, err = log.GetEvent(ctx, &logv1.GetEventRequest{ShopId: "blomster", EventId: "order-1042-created"})
			if err != nil {
				return err
			}
			if d := e.GetStory().GetDeliveries(); len(d) != 1 || d[0].GetStatus() != "delivered" {
				return fmt.Errorf("got %v", d)
			}
			return nil
		})
		d := e.GetStory().GetDeliveries()[0]
		if len(d.GetAttempts()) != 2 || d.GetWebhookId() != w.GetId() || string(e.GetData()) != payload {
			t.Errorf("got %v, want two attempts to %s with the event's data", e, w.GetId())
		}
		full, err := log.GetDelivery(ctx, &logv1.GetDeliveryRequest{ShopId: "blomster", DeliveryId: d.GetId()})
		if err != nil || string(full.GetBody()) != string(r.at("/hook")[0].body) {
			t.Errorf("delivery: got body %q, %v, want %q", full.GetBody(), err, r.at("/hook")[0].body)
		}
		tested, err := senderv1.NewSenderServiceClient(senderConn).TestWebhook(ctx, &senderv1.TestWebhookRequest{ShopId: "blomster", WebhookId: w.GetId()})
		if err != nil || !tested.GetSuccess() {
			t.Errorf("test: got %v, %v, want a success", tested, err)
		}
		_, err = subscriptions.GetWebhook(ctx, &subscriptionv1.GetWebhookRequest{ShopId: "andre", WebhookId: w.GetId()})
		if status.Code(err) != codes.NotFound {
			t.Errorf("another shop's webhook: got %v, want NOT_FOUND", err)
		}
		_, err = subscriptions.CreateWebhook(ctx, &subscriptionv1.CreateWebhookRequest{ShopId: "blom ster", Webhook: &shopbellv1.Webhook{}})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "shop_id") {
			t.Errorf("a shop that cannot be: got %v, want INVALID_ARGUMENT that names shop_id", err)
		}
	})
}

// servers are the gRPC services that must be found at each room's server.
var servers = map[string]string{
	"ingest": "shopbell.ingest.v1.IngestService", "subscription": "shopbell.subscription.v1.SubscriptionService",
	"sender": "shopbell.sender.v1.SenderService", "log": "shopbell.log.v1.LogService", "gateway": "grpc.health.v1.Health",
}

func TestGRPC_EveryServerSaysWhatItHasAndHowItIs(t *testing.T) {
	inBothWays(t, settings{"SHOPBELL_OPERATOR_KEY": "the operator's, and of nobody else"}, func(t *testing.T, h *house) {
		for room, service := range servers {
			ctx, conn := h.dial(t, room)
			ctx = metadata.NewOutgoingContext(ctx, metadata.MD{}) // neither needs a key
			for _, name := range []string{"", service} {
				if name == "grpc.health.v1.Health" {
					continue
				}
				got, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: name})
				if err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
					t.Errorf("health of %q at %s: got %v, %v, want SERVING", name, room, got.GetStatus(), err)
				}
			}
			stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
			if err != nil {
				t.Fatal(err)
			}
			ask := func(req *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
				if err := stream.Send(req); err != nil {
					t.Fatal(err)
				}
				got, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			list := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
			if !slices.ContainsFunc(list.GetListServicesResponse().GetService(), func(s *reflectionv1.ServiceResponse) bool { return s.GetName() == service }) {
				t.Errorf("services at %s: got %v, want %s among them", room, list, service)
			}
			file := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}})
			if len(file.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
				t.Errorf("the proto of %s at %s: got %v, want it", service, room, file)
			}
			_ = stream.CloseSend()
		}
	})
}

func TestKey_OpensEveryDoorAndNothingElseDoes(t *testing.T) {
	const key = "the operator's, and of nobody else"
	inBothWays(t, settings{"SHOPBELL_OPERATOR_KEY": key}, func(t *testing.T, h *house) {
		for name, authorization := range map[string]string{"none": "", "a wrong one": "Bearer " + key + "!", "one without its scheme": key, "half": "Bearer " + key[:10]} {
			for _, call := range []struct{ method, path, body string }{
				{"POST", "/v1/shops/blomster/events", `{"type":"a","data":{}}`},
				{"POST", "/v1/shops/blomster/webhooks", `{"url":"https://example.com","events":["*"]}`},
				{"GET", "/v1/shops/blomster/webhooks", ""},
				{"GET", "/v1/shops/blomster/deliveries", ""},
				{"GET", "/v1/profiles", ""},
				{"POST", "/v1/shops/blomster/events:explain", `{"type":"a","data":{}}`},
				{"GET", "/v1/nothing", ""},
			} {
				a := h.call(t, call.method, call.path, call.body, "Authorization", authorization)
				var why refusal
				a.read(t, &why)
				if a.code != http.StatusUnauthorized || why.Code != int(codes.Unauthenticated) || a.header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("%s %s with %s: got %d %s, want 401 UNAUTHENTICATED", call.method, call.path, name, a.code, a.body)
				}
			}
			// Rooms in processes of their own guard their own doors.
			for _, room := range []string{"ingest", "subscription", "sender", "log"} {
				ctx, conn := h.dial(t, room)
				ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", authorization))
				err := map[string]func() error{
					"ingest": func() error {
						_, err := ingestv1.NewIngestServiceClient(conn).Publish(ctx, &ingestv1.PublishRequest{ShopId: "blomster", Event: inProto("", "a", "{}")})
						return err
					},
					"subscription": func() error {
						_, err := subscriptionv1.NewSubscriptionServiceClient(conn).ListProfiles(ctx, &subscriptionv1.ListProfilesRequest{})
						return err
					},
					"sender": func() error {
						_, err := senderv1.NewSenderServiceClient(conn).TestWebhook(ctx, &senderv1.TestWebhookRequest{})
						return err
					},
					"log": func() error {
						_, err := logv1.NewLogServiceClient(conn).ListDeliveries(ctx, &logv1.ListDeliveriesRequest{})
						return err
					},
				}[room]()
				if status.Code(err) != codes.Unauthenticated {
					t.Errorf("gRPC at %s with %s: got %v, want UNAUTHENTICATED", room, name, err)
				}
				stream, err := ingestv1.NewIngestServiceClient(conn).PublishStream(ctx)
				if err == nil {
					_, err = stream.Recv()
				}
				if room == "ingest" && status.Code(err) != codes.Unauthenticated {
					t.Errorf("gRPC stream with %s: got %v, want UNAUTHENTICATED", name, err)
				}
			}
		}
		if h.way == many { // ingest's own HTTP door
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.TrimSuffix(h.process("ingest").ready, "/readyz")+"/v1/shops/blomster/events", strings.NewReader(`{"type":"a","data":{}}`))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("ingest's own door without a key: got %d, want 401", resp.StatusCode)
			}
		}
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook")
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		if in := r.at("/hook")[0]; in.header.Get("Authorization") != "" {
			t.Errorf("the receiver was sent Authorization %q, want none", in.header.Get("Authorization"))
		}
		for _, p := range h.processes {
			if p.name != busServer && contains([]byte(p.tail(100_000)), key) {
				t.Errorf("%s writes the operator's key into its log", p.name)
			}
		}
	})
}
