package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	cloudevent "github.com/cloudevents/sdk-go/v2/event"
	cloudhttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// payload is JSON that does not survive being parsed and printed again.
const payload = `{ "total" : 549.50,"rate":1.0E+2 , "zero":-0.0,	"url":"https:\/\/example.com\/a?b=1&c","html":"<&>",
  "n":12345678901234567890,"n":12345678901234567891,"N":1,"long":0.1000000000000000055511151231257827,
	"name":"Søren Ærø – 日本 😀 æ \u00e6 \ud83d\ude00 \u0000","lines":"` + "\u2028\u2029" + `\u2028", "empty":[ ] , "nested":{"b":{ },"a":[1 ,2.0]},"":null  }`

// onOneLine is the same for where a line break would end it.
var onOneLine = strings.ReplaceAll(payload, "\n", " ")

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// waysIn are all ways to publish an event of this id and type. Each gives the data that it sent.
var waysIn = []struct {
	name    string
	publish func(t *testing.T, h *house, id, kind string) (sent string)
}{
	{"json object", func(t *testing.T, h *house, id, kind string) string {
		h.publish(t, "blomster", fmt.Sprintf(" {\"id\":%q,\n\"data\" :\t%s ,\r\n\"type\":%q}\n", id, payload, kind))
		return payload
	}},
	{"json array", func(t *testing.T, h *house, id, kind string) string {
		h.publish(t, "blomster", fmt.Sprintf("\n[ {\"type\":%q,\"id\":%q,\"data\":%s} , {\"type\":\"other\",\"data\":{\"total\": 1.50}}]", kind, id, payload))
		return payload
	}},
	{"ndjson", func(t *testing.T, h *house, id, kind string) string {
		h.publish(t, "blomster", fmt.Sprintf("{\"type\":\"other\",\"data\":{}}\r\n\n{\"type\":%q,\"id\":%q,\"data\": %s}\n", kind, id, onOneLine), "Content-Type", "application/x-ndjson")
		return onOneLine
	}},
	{"bare JSON with ?type=", func(t *testing.T, h *house, id, kind string) string {
		sent := "\n " + payload + " \r\n\t"
		publishAt(t, h, "?type="+kind+"&id="+id, sent, "Content-Type", "application/json; charset=utf-8")
		return sent
	}},
	{"CloudEvents structured, by hand", func(t *testing.T, h *house, id, kind string) string {
		h.publish(t, "blomster", cloud(id, kind), "Content-Type", "application/cloudevents+json; charset=utf-8")
		return payload
	}},
	{"CloudEvents batch, by hand", func(t *testing.T, h *house, id, kind string) string {
		h.publish(t, "blomster", "["+cloud(id, kind)+","+cloud(id+"-2", "other")+"]", "Content-Type", "application/cloudevents-batch+json")
		return payload
	}},
	// Of bytes the SDK writes data_base64; of a value it writes data, printed by its own rules: what counts is what it sent.
	{"CloudEvents structured, bytes by the SDK", func(t *testing.T, h *house, id, kind string) string {
		req, err := cloudhttp.NewHTTPRequestFromEvent(binding.WithForceStructured(t.Context()), h.url, cloudOfSDK(t, id, kind, []byte(payload)))
		publishSDK(t, h, req, err)
		return payload
	}},
	{"CloudEvents structured, a value by the SDK", func(t *testing.T, h *house, id, kind string) string {
		req, err := cloudhttp.NewHTTPRequestFromEvent(binding.WithForceStructured(t.Context()), h.url, cloudOfSDK(t, id, kind, json.RawMessage(payload)))
		return string(dataOf[struct{ Data json.RawMessage }](t, publishSDK(t, h, req, err)).Data)
	}},
	{"CloudEvents binary, by the SDK", func(t *testing.T, h *house, id, kind string) string {
		req, err := cloudhttp.NewHTTPRequestFromEvent(binding.WithForceBinary(t.Context()), h.url, cloudOfSDK(t, id, kind, []byte(payload)))
		publishSDK(t, h, req, err)
		return payload
	}},
	{"CloudEvents batch, by the SDK", func(t *testing.T, h *house, id, kind string) string {
		events := []cloudevent.Event{cloudOfSDK(t, id, kind, json.RawMessage(payload)), cloudOfSDK(t, id+"-2", "other", []byte(payload))}
		req, err := cloudhttp.NewHTTPRequestFromEvents(t.Context(), h.url, events)
		return string(dataOf[[]struct{ Data json.RawMessage }](t, publishSDK(t, h, req, err))[0].Data)
	}},
	{"gRPC Publish", func(t *testing.T, h *house, id, kind string) string {
		ctx, conn := h.dial(t, "ingest")
		sent := " " + payload + "\n"
		_, err := ingestv1.NewIngestServiceClient(conn).Publish(ctx, &ingestv1.PublishRequest{ShopId: "blomster", Event: inProto(id, kind, sent)})
		if err != nil {
			t.Fatal(err)
		}
		return sent
	}},
	{"gRPC Publish of JSON text", func(t *testing.T, h *house, id, kind string) string {
		ctx, conn := h.dial(t, "ingest")
		e := &shopbellv1.Event{Id: id, Type: kind, Content: &shopbellv1.Event_Json{Json: payload}}
		if _, err := ingestv1.NewIngestServiceClient(conn).Publish(ctx, &ingestv1.PublishRequest{ShopId: "blomster", Event: e}); err != nil {
			t.Fatal(err)
		}
		return payload
	}},
	{"gRPC PublishBatch", func(t *testing.T, h *house, id, kind string) string {
		ctx, conn := h.dial(t, "ingest")
		_, err := ingestv1.NewIngestServiceClient(conn).PublishBatch(ctx, &ingestv1.PublishBatchRequest{
			ShopId: "blomster", Events: []*shopbellv1.Event{inProto("", "other", "{}"), inProto(id, kind, payload)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return payload
	}},
	{"gRPC PublishStream", func(t *testing.T, h *house, id, kind string) string {
		ctx, conn := h.dial(t, "ingest")
		s, err := ingestv1.NewIngestServiceClient(conn).PublishStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []*shopbellv1.Event{inProto("", "other", "{}"), inProto(id, kind, payload)} {
			if err := s.Send(&ingestv1.PublishStreamRequest{ShopId: "blomster", Event: e}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		for n := 0; ; n++ {
			got, err := s.Recv()
			if errors.Is(err, io.EOF) && n == 2 {
				return payload
			}
			if err != nil || got.GetError() != "" || got.GetEvent().GetStatus() != "accepted" {
				t.Fatalf("answer %d of the stream: got %v, %v, want accepted", n, got, err)
			}
		}
	}},
}

func inProto(id, kind, data string) *shopbellv1.Event {
	return &shopbellv1.Event{Id: id, Type: kind, Content: &shopbellv1.Event_Data{Data: []byte(data)}}
}

func cloud(id, kind string) string {
	return fmt.Sprintf("{ \"specversion\" :\"1.0\",\"id\":%q,\"source\":\"/shops/blomster\",\"subject\":\"order:1042\",\n\"data\"  : %s,\"type\":%q, \"sequence\": 7}", id, payload, kind)
}

func cloudOfSDK(t *testing.T, id, kind string, data any) cloudevent.Event {
	t.Helper()
	e := cloudevent.New()
	e.SetID(id)
	e.SetType(kind)
	e.SetSource("/shops/blomster")
	e.SetSubject("order:1042")
	e.SetTime(time.Date(2026, 5, 1, 10, 30, 0, 0, time.FixedZone("", 7200)))
	e.SetExtension("action", "create")
	if err := e.SetData(cloudevent.ApplicationJSON, data); err != nil {
		t.Fatal(err)
	}
	return e
}

// publishSDK sends a request that the SDK made, and gives its body.
func publishSDK(t *testing.T, h *house, req *http.Request, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	var headers []string
	for name := range req.Header {
		headers = append(headers, name, req.Header.Get(name))
	}
	h.publish(t, "blomster", string(body), headers...)
	return body
}

func publishAt(t *testing.T, h *house, query, body string, headers ...string) {
	t.Helper()
	if r := h.call(t, "POST", "/v1/shops/blomster/events"+query, body, headers...); r.code != http.StatusAccepted {
		t.Fatalf("publish: got %d %s, want 202", r.code, r.body)
	}
}

func dataOf[T any](t *testing.T, body []byte) (out T) {
	t.Helper()
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatalf("what the SDK made is not JSON: %v: %s", err, body)
	}
	return out
}

func TestData_IsTheSameBytesOnBothSidesWhicheverWayItCame(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		ctx, conn := h.dial(t, "log")
		events := logv1.NewLogServiceClient(conn)
		for i, way := range waysIn {
			t.Run(way.name, func(t *testing.T) {
				kind, path := fmt.Sprintf("way.%d", i), fmt.Sprintf("/way/%d", i)
				h.newWebhook(t, "blomster", r.url+path, fmt.Sprintf(`"events": [%q]`, kind))
				id := fmt.Sprintf("order-1042-%d", i)
				sent := way.publish(t, h, id, kind)
				got := r.await(t, path, 1)[0]
				if len(sent) < len(payload)/2 {
					t.Fatalf("the test sent only %q", sent)
				}
				if a, b := sum(got.data()), sum([]byte(sent)); a != b {
					t.Errorf("the receiver got data with SHA-256 %s, want %s:\ngot  %q\nwant %q", a, b, got.data(), sent)
				}
				if want := fmt.Sprintf(`{"type":%q,"timestamp":`, kind); !bytes.HasPrefix(got.body, []byte(want)) {
					t.Errorf("got body %.80q, want it to begin with %q", got.body, want)
				}
				e := h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
				if a, b := sum(e.Data), sum([]byte(strings.TrimSpace(sent))); a != b {
					t.Errorf("GET event answers data with SHA-256 %s, want %s:\ngot  %q\nwant %q", a, b, e.Data, sent)
				}
				inLog, err := events.GetEvent(ctx, &logv1.GetEventRequest{ShopId: "blomster", EventId: id})
				if err != nil {
					t.Fatal(err)
				}
				if a, b := sum(inLog.GetData()), sum([]byte(sent)); a != b {
					t.Errorf("gRPC GetEvent answers data with SHA-256 %s, want %s:\ngot  %q\nwant %q", a, b, inLog.GetData(), sent)
				}
				d := get[delivery](t, h, "GET", "/v1/shops/blomster/deliveries/"+got.id(), "")
				if d.Body != string(got.body) {
					t.Errorf("GET delivery: got body %q, want what the receiver got, %q", d.Body, got.body)
				}
			})
		}
	})
}

func TestData_ThatIsNoJSONGoesOutAsItCame(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/labels", `"events": ["label.printed"]`)
		png := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff\xfe{\"a\": 1}\x00")
		for i, test := range []struct {
			name, contentType string
			body              []byte
			publish           func(id string, body []byte)
		}{
			{"an image with ?type=", "image/png", png, func(id string, body []byte) {
				publishAt(t, h, "?type=label.printed&id="+id, string(body), "Content-Type", "image/png")
			}},
			{"XML with ?type=", "text/xml; charset=iso-8859-1", []byte("<?xml version=\"1.0\"?>\r\n<a>\xe6</a>\n"), func(id string, body []byte) {
				publishAt(t, h, "?type=label.printed&id="+id, string(body), "Content-Type", "text/xml; charset=iso-8859-1")
			}},
			{"CloudEvents binary", "image/png", png, func(id string, body []byte) {
				h.publish(t, "blomster", string(body), "Content-Type", "image/png", "Ce-Specversion", "1.0", "Ce-Id", id,
					"Ce-Source", "/printer", "Ce-Type", "label.printed")
			}},
			{"CloudEvents structured with data_base64", "image/png", png, func(id string, body []byte) {
				h.publish(t, "blomster", fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/printer","type":"label.printed","datacontenttype":"image/png","data_base64":%q}`,
					id, base64.StdEncoding.EncodeToString(body)), "Content-Type", "application/cloudevents+json")
			}},
		} {
			id := fmt.Sprintf("label-%d", i)
			test.publish(id, test.body)
			got := r.await(t, "/labels", i+1)[i]
			if !bytes.Equal(got.body, test.body) {
				t.Errorf("%s: got body %q, want %q", test.name, got.body, test.body)
			}
			if c := got.header.Get("Content-Type"); c != test.contentType {
				t.Errorf("%s: got Content-Type %q, want %q", test.name, c, test.contentType)
			}
			var uri string
			e := h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
			if err := json.Unmarshal(e.Data, &uri); err != nil || uri != asText(test.body) {
				t.Errorf("%s: GET event answers data %s, want %q", test.name, e.Data, asText(test.body))
			}
			if d := get[delivery](t, h, "GET", "/v1/shops/blomster/deliveries/"+got.id(), ""); d.Body != asText(test.body) {
				t.Errorf("%s: GET delivery answers body %q, want %q", test.name, d.Body, asText(test.body))
			}
		}
	})
}

// asText is how the API shows bytes that are no text.
func asText(body []byte) string {
	return "data:application/octet-stream;base64," + base64.StdEncoding.EncodeToString(body)
}

// A receiver that is written with the CloudEvents SDK takes what is sent to it in either mode, and the data's bytes are
// the publisher's.
func TestCloudEvents_AreReadByTheSDK(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		events := map[string]chan cloudevent.Event{"/structured": make(chan cloudevent.Event, 9), "/binary": make(chan cloudevent.Event, 9)}
		modes := map[string]binding.Encoding{"/structured": binding.EncodingStructured, "/binary": binding.EncodingBinary}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			m := cloudhttp.NewMessageFromHttpRequest(req)
			if got := m.ReadEncoding(); got != modes[req.URL.Path] {
				t.Errorf("%s: encoding %s, want %s", req.URL.Path, got, modes[req.URL.Path])
			}
			e, err := binding.ToEvent(req.Context(), m)
			if err != nil || e.Validate() != nil {
				t.Errorf("%s: the SDK refuses it: %v, %v", req.URL.Path, err, e)
				return
			}
			events[req.URL.Path] <- *e
		}))
		t.Cleanup(server.Close)
		h.newWebhook(t, "blomster", server.URL+"/structured", `"profile": "cloudevents"`)
		h.newWebhook(t, "blomster", server.URL+"/binary", `"profile": "cloudevents", "options": ["binary"]`)
		const at = "2026-05-01T10:30:00+02:00"
		happened, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			name, body, contentType string
			query                   string
			subject                 string
			data                    string
			modes                   []string
		}{
			{"JSON", fmt.Sprintf(`{"id":"e1","type":"order.created","occurred_at":%q,"key":"order 10 \"é\" 50%%","data":%s}`, at, payload), "application/json", "", `order 10 "é" 50%`, payload, []string{"/structured", "/binary"}},
			{"JSON without a key", fmt.Sprintf(`{"id":"e2","type":"order.created","occurred_at":%q,"data":7.0}`, at), "application/json", "", "", "7.0", []string{"/structured", "/binary"}},
			{"an image", "\x89PNG\x00\xff", "image/png", "?type=label.printed&id=e3&occurred_at=" + url.QueryEscape(at), "", "\x89PNG\x00\xff", []string{"/structured", "/binary"}},
		} {
			publishAt(t, h, row.query, row.body, "Content-Type", row.contentType)
			for _, mode := range row.modes {
				var e cloudevent.Event
				select {
				case e = <-events[mode]:
				case <-time.After(patience):
					t.Fatalf("%s, %s: nothing came", row.name, mode)
				}
				wantType := "order.created"
				if row.query != "" {
					wantType = "label.printed"
				}
				if e.Type() != wantType || e.Source() != "blomster" || !e.Time().Equal(happened) {
					t.Errorf("%s, %s: got %v", row.name, mode, e)
				}
				if string(e.Data()) != row.data || e.DataContentType() != row.contentType {
					t.Errorf("%s, %s: data %q as %s, want %q as %s", row.name, mode, e.Data(), e.DataContentType(), row.data, row.contentType)
				}
				// The binding has receivers undo the percent-encoding, which this SDK leaves to its user.
				if subject, err := url.PathUnescape(e.Subject()); mode == "/binary" && (err != nil || subject != row.subject) {
					t.Errorf("%s: subject %q, want %q", row.name, e.Subject(), row.subject)
				}
			}
		}
		// Sent again it is the same event once more.
		told := h.awaitEvent(t, "blomster", "e3", allAre("delivered", 2))
		for _, d := range told.Story.Deliveries {
			get[struct{}](t, h, "POST", "/v1/shops/blomster/deliveries/"+d.ID+":resend", "{}")
		}
		for mode, came := range events {
			select {
			case e := <-came:
				if e.ID() != "e3" || e.DataContentType() != "image/png" || string(e.Data()) != "\x89PNG\x00\xff" {
					t.Errorf("%s, sent again: %v", mode, e)
				}
			case <-time.After(patience):
				t.Fatalf("%s: nothing came of a resend", mode)
			}
		}
	})
}
