package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	senderv1 "shopbell.dev/proto/shopbell/sender/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestKeys_LiveFromCreationToDeletion(t *testing.T) {
	t.Parallel()
	for _, way := range []string{one, many} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			c := newCollector(t)
			checkKeys(t, open(t, way, settings{
				"SHOPBELL_OPERATOR_KEY": "the-operators-own-key", "SHOPBELL_LOG_LEVEL": "debug",
				"OTEL_EXPORTER_OTLP_ENDPOINT": c.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50",
			}), c)
		})
	}
}

func checkKeys(t *testing.T, h *house, c *collected) {
	r := newReceiver(t)
	make := func(fields string) apiKey {
		return get[apiKey](t, h, "POST", "/v1/shops/blomster/api_keys", "{"+fields+"}")
	}
	erp := make(`"label": "ERP", "scopes": ["events:write", "webhooks:write", "log:read"]`)
	slow := make(`"label": "Importer", "scopes": ["events:write"], "rate_per_second": 0.5`)
	doors := h.doors(t)
	for room, knock := range doors {
		eventually(t, "the new key opens "+room, func() error { return want(knock(erp.Key, "blomster"), codes.OK) })
	}
	eventually(t, "the other one does so too", func() error { return want(doors["ingest"](slow.Key, "blomster"), codes.OK) })
	with := func(k apiKey) []string { return []string{"Authorization", "Bearer " + k.Key} }
	for _, k := range []apiKey{erp, slow} {
		eventually(t, "the key "+k.ID+" opens REST", func() error {
			if a := h.call(t, "GET", "/v1/profiles", "", with(k)...); a.code != http.StatusOK {
				return fmt.Errorf("got %d %s, want 200", a.code, a.body)
			}
			return nil
		})
	}

	// Everything that it may do, and nothing else.
	hook := fmt.Sprintf(`{"url": %q, "events": ["order.created"], "api_key_id": "key_default"}`, r.url+"/hook")
	w := get[webhook](t, h, "POST", "/v1/shops/blomster/webhooks", hook, with(erp)...)
	id := h.publish(t, "blomster", `{"type": "order.created", "data": {"order_no": 1042}}`, with(erp)...)[0].ID
	sent := r.await(t, "/hook", 1)[0].header.Get("X-Api-Key")
	h.awaitEvent(t, "blomster", id, allAre("delivered", 1)).Story.says(t, "accepted by "+erp.ID+" (ERP)", "delivered")
	off := get[webhook](t, h, "POST", "/v1/shops/blomster/webhooks/"+w.ID+":disable", `{"reason": "moving"}`, with(erp)...)
	if reason := off.DisabledReason; reason == nil || *reason != "switched off by its owner ("+erp.ID+" (ERP)): moving" {
		t.Errorf("switched off: got %+v, want the reason with the key", off)
	}
	for _, row := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/v1/shops/blomster/webhooks/" + w.ID, "", 403, "webhooks:read"},
		{"POST", "/v1/shops/blomster/api_keys", `{"scopes": ["admin"]}`, 403, "admin"},
		{"PATCH", "/v1/shops/blomster", `{"name": "Mine"}`, 403, "admin"},
		{"GET", "/v1/profiles", "", 200, "cloudcart"},
		{"GET", "/v1/openapi.json", "", 200, "api_keys"},
	} {
		if a := h.call(t, row.method, row.path, row.body, with(erp)...); a.code != row.code || !contains(a.body, row.says) {
			t.Errorf("%s %s: got %d %.200s, want %d with %q", row.method, row.path, a.code, a.body, row.code, row.says)
		}
	}
	for _, path := range []string{"", "/webhooks", "/webhooks/" + w.ID, "/events/" + id, "/deliveries", "/api_keys"} {
		if a := h.call(t, "GET", "/v1/shops/andre"+path, "", with(erp)...); a.code != http.StatusNotFound || !contains(a.body, "there is no shop") {
			t.Errorf("GET %s of another shop: got %d %s, want 404", path, a.code, a.body)
		}
	}
	for _, path := range []string{"/events", "/events:explain", "/webhooks", "/webHooks"} {
		body := map[string]string{"/webhooks": hook, "/webHooks": `{"event": "order.created", "webHookParameters": [{"type": "json", "url": "https://example.com/"}]}`}[path]
		if body == "" {
			body = `{"type": "order.created", "data": 1}`
		}
		if a := h.call(t, "POST", "/v1/shops/andre"+path, body, with(erp)...); a.code != http.StatusNotFound || !contains(a.body, "there is no shop") {
			t.Errorf("POST %s of another shop: got %d %s, want 404", path, a.code, a.body)
		}
	}
	for room, knock := range doors {
		if err := want(knock(erp.Key, "andre"), codes.NotFound); err != nil {
			t.Errorf("another shop at %s: %v", room, err)
		}
		if err := want(knock("sbk_nobodys", "blomster"), codes.Unauthenticated); err != nil {
			t.Errorf("a key that there is not, at %s: %v", room, err)
		}
	}

	// Its rate, by the time that it is told.
	event := `{"type": "order.created", "data": 1}`
	eventually(t, "it is too fast", func() error {
		a := h.call(t, "POST", "/v1/shops/blomster/events", event, with(slow)...)
		if a.code == http.StatusAccepted {
			return fmt.Errorf("it is taken")
		}
		wait, err := strconv.Atoi(a.header.Get("Retry-After"))
		if a.code != http.StatusTooManyRequests || err != nil || wait < 1 || wait > 2 {
			return fatal{fmt.Errorf("got %d, Retry-After %q, %s, want 429 and at most 2 seconds", a.code, a.header.Get("Retry-After"), a.body)}
		}
		time.Sleep(time.Duration(wait) * time.Second)
		if a := h.call(t, "POST", "/v1/shops/blomster/events", event, with(slow)...); a.code != http.StatusAccepted {
			return fatal{fmt.Errorf("after the time it was told: got %d %s, want 202", a.code, a.body)}
		}
		return nil
	})

	// Deleted, it opens nothing any more, in any room.
	get[struct{}](t, h, "DELETE", "/v1/shops/blomster/api_keys/"+erp.ID, "")
	for room, knock := range doors {
		eventually(t, "the deleted key no longer opens "+room, func() error { return want(knock(erp.Key, "blomster"), codes.Unauthenticated) })
	}
	eventually(t, "it no longer opens REST", func() error {
		for _, path := range []string{"/events", "/webhooks"} {
			if a := h.call(t, "POST", "/v1/shops/blomster"+path, hook, with(erp)...); a.code != http.StatusUnauthorized {
				return fmt.Errorf("POST %s: got %d %s, want 401", path, a.code, a.body)
			}
		}
		return nil
	})
	h.keepsSecret(t, c, []string{erp.Key, slow.Key}, sent)
}

// doors are a call to each room over gRPC that a key with events:write, webhooks:write and log:read opens.
func (h *house) doors(t *testing.T) map[string]func(key, shop string) error {
	t.Helper()
	_, in := h.dial(t, "ingest")
	_, sub := h.dial(t, "subscription")
	_, send := h.dial(t, "sender")
	_, log := h.dial(t, "log")
	bearing := func(key string) context.Context {
		return metadata.NewOutgoingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+key))
	}
	// What is not there is answered only to those who are let in: by another sentence than a shop that is not theirs.
	found := func(err error) error {
		if status.Code(err) == codes.NotFound && !strings.Contains(err.Error(), "there is no shop") {
			return nil
		}
		return err
	}
	return map[string]func(key, shop string) error{
		"ingest": func(key, shop string) error {
			_, err := ingestv1.NewIngestServiceClient(in).Publish(bearing(key), &ingestv1.PublishRequest{ShopId: shop, Event: &shopbellv1.Event{
				Type: "knock", Content: &shopbellv1.Event_Json{Json: "1"},
			}})
			return err
		},
		"ingest's streams": func(key, shop string) error {
			stream, err := ingestv1.NewIngestServiceClient(in).PublishStream(bearing(key))
			if err != nil {
				return err
			}
			_ = stream.Send(&ingestv1.PublishStreamRequest{ShopId: shop, Event: &shopbellv1.Event{Type: "knock", Content: &shopbellv1.Event_Json{Json: "1"}}})
			_, err = stream.Recv()
			_ = stream.CloseSend()
			return err
		},
		"subscription": func(key, shop string) error {
			_, err := subscriptionv1.NewSubscriptionServiceClient(sub).GetWebhookSecret(bearing(key), &subscriptionv1.GetWebhookSecretRequest{ShopId: shop, WebhookId: "wh_none"})
			return found(err)
		},
		"sender": func(key, shop string) error {
			_, err := senderv1.NewSenderServiceClient(send).TestWebhook(bearing(key), &senderv1.TestWebhookRequest{ShopId: shop, WebhookId: "wh_none"})
			return found(err)
		},
		"log": func(key, shop string) error {
			_, err := logv1.NewLogServiceClient(log).GetEvent(bearing(key), &logv1.GetEventRequest{ShopId: shop, EventId: "none"})
			return found(err)
		},
	}
}

func want(err error, code codes.Code) error {
	if status.Code(err) != code {
		return fmt.Errorf("got %w, want %s", err, code)
	}
	return nil
}

// keepsSecret fails the test when a key stands anywhere in what the processes show: log lines, spans, metrics. Keys for
// access do not stand on the bus's disk either; it stops the house to look.
func (h *house) keepsSecret(t *testing.T, c *collected, access []string, sent string) {
	t.Helper()
	if sent == "" {
		t.Error("no key was sent to the receiver")
	}
	metrics := map[string][]byte{}
	for _, p := range h.processes {
		if at, ok := strings.CutSuffix(p.ready, "/readyz"); ok {
			r, err := (&house{url: at}).try(t.Context(), "GET", "/metrics", nil)
			if err != nil || r.code != http.StatusOK {
				t.Errorf("metrics of %s: got %d, %v", p.name, r.code, err)
			}
			metrics[p.name] = r.body
		}
	}
	disk := h.data
	for i := len(h.processes) - 1; i >= 0; i-- {
		p := h.processes[i]
		if p.name == busServer {
			disk = filepath.Join(filepath.Dir(p.args[1]), "nats")
		}
		p.stop(t)
	}
	c.mu.Lock()
	spans := []byte(fmt.Sprint(c.spans))
	c.mu.Unlock()
	if len(spans) < 1000 {
		t.Errorf("only %d bytes of spans were collected", len(spans))
	}
	for _, text := range append(access, sent, h.key) {
		inner := []byte(text[len(text)/3:]) // in parts it would be as bad
		for _, p := range h.processes {
			written, err := os.ReadFile(p.log)
			if err != nil || bytes.Contains(written, inner) {
				t.Errorf("a key is in what %s wrote, or that cannot be read: %v", p.name, err)
			}
			if bytes.Contains(metrics[p.name], inner) {
				t.Errorf("a key is in the metrics of %s", p.name)
			}
		}
		if bytes.Contains(spans, inner) {
			t.Error("a key is in spans")
		}
	}
	files := 0
	err := filepath.WalkDir(disk, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files++
		for _, text := range access {
			if bytes.Contains(content, []byte(text[len(text)/3:])) {
				t.Errorf("a key for access is in %s", path)
			}
		}
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("%d files were looked at: %v", files, err)
	}
}
