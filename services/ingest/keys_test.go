package ingest_test

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/key"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// addKey makes a key of the shop demo and gives its text.
func (b *bundle) addKey(t *testing.T, k *shopbellv1.ApiKey) string {
	t.Helper()
	bucket, err := b.bus.Bucket(t.Context(), contract.Keys)
	if err != nil {
		t.Fatal(err)
	}
	text := key.New()
	hash := key.HashOf(text)
	k.ShopId, k.Purpose = "demo", key.Access
	value, err := proto.Marshal(&busv1.KeyState{ApiKey: k, Hash: hash[:]})
	if err != nil {
		t.Fatal(err)
	}
	revision, err := bucket.Put(t.Context(), contract.KeyPlace("demo", k.Id), value)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b.keys.Await(ctx, "demo", k.Id, revision)
	return text
}

func (b *bundle) postWith(t *testing.T, text, shop, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.http.URL+"/v1/shops/"+shop+"/events", io.NopCloser(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+text)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, resp)
}

func TestPublish_WithAKeyOpensItsShopForItsScope(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	good := b.addKey(t, &shopbellv1.ApiKey{Id: "key_1", Label: "ERP", Scopes: []string{key.EventsWrite}})
	reader := b.addKey(t, &shopbellv1.ApiKey{Id: "key_2", Scopes: []string{key.LogRead}})
	for _, row := range []struct {
		name, text, shop string
		code             int
		grpc             codes.Code
		says             string
	}{
		{"its shop", good, "demo", 202, codes.OK, ""},
		{"another shop", good, "tulip.shop", 404, codes.NotFound, `there is no shop "tulip.shop"`},
		{"a key for something else", reader, "demo", 403, codes.PermissionDenied, "events:write"},
		{"that key in another shop", reader, "tulip.shop", 404, codes.NotFound, "there is no shop"},
		{"a key that there is not", key.New(), "demo", 401, codes.Unauthenticated, "Authorization: Bearer"},
	} {
		if a := b.postWith(t, row.text, row.shop, `{"type":"paid","data":1}`); a.code != row.code || !strings.Contains(a.Message, row.says) {
			t.Errorf("%s: %d %s, want %d with %q", row.name, a.code, a.Message, row.code, row.says)
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+row.text)
		_, err := b.grpc.Publish(ctx, &ingestv1.PublishRequest{ShopId: row.shop, Event: grpcEvent("", "paid")})
		if st := status.Convert(err); st.Code() != row.grpc || !strings.Contains(st.Message(), row.says) {
			t.Errorf("%s: gRPC: %v, want %v with %q", row.name, err, row.grpc, row.says)
		}
	}
	stored := b.stored(t)
	if len(stored) != 2 || stored[0].AcceptedBy != "key_1 (ERP)" || stored[1].AcceptedBy != "key_1 (ERP)" {
		t.Errorf("stored %+v, want the two that were taken, and by which key", stored)
	}
}

func TestPublish_FasterThanItsKeyAllowsIsToldWhenToComeAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	text := b.addKey(t, &shopbellv1.ApiKey{Id: "key_1", Label: "ERP", Scopes: []string{key.EventsWrite}, RatePerSecond: proto.Float64(2)})
	if a := b.postWith(t, text, "demo", "["+strings.Repeat(`{"type":"paid","data":1},`, 12)+`{"type":"paid","data":2}]`); a.code != http.StatusAccepted {
		t.Fatalf("a batch at first: %d %s, want 202: it is taken whole, and paid off for six seconds", a.code, a.Message)
	}
	a := b.postWith(t, text, "demo", `{"type":"paid","data":4}`)
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.code != http.StatusTooManyRequests || err != nil || seconds < 1 || seconds > 7 || !strings.Contains(a.Message, "key_1 (ERP) may publish 2 events a second") {
		t.Fatalf("too fast: %d, Retry-After %q, %s, want 429 with the rate, and up to 7 seconds", a.code, a.header.Get("Retry-After"), a.Message)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+text)
	_, err = b.grpc.Publish(ctx, &ingestv1.PublishRequest{ShopId: "demo", Event: grpcEvent("", "paid")})
	if st := status.Convert(err); st.Code() != codes.ResourceExhausted || len(st.Details()) != 1 {
		t.Errorf("too fast over gRPC: %v, want ResourceExhausted with a RetryInfo", err)
	}
	// What others publish is not held back by it.
	if a := b.post(t, "demo", "", "", `{"type":"paid","data":5}`); a.code != http.StatusAccepted {
		t.Errorf("without that key: %d %s, want 202", a.code, a.Message)
	}
	time.Sleep(time.Duration(seconds) * time.Second) // what Retry-After promises is the fact at hand
	if a := b.postWith(t, text, "demo", `{"type":"paid","data":6}`); a.code != http.StatusAccepted {
		t.Errorf("after the time that it was told: %d %s, want 202", a.code, a.Message)
	}
	if got := len(b.stored(t)); got != 15 {
		t.Errorf("%d are stored, want 15: what was refused is not", got)
	}
}
