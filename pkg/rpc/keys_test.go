package rpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/key"
	"shopbell.dev/pkg/rpc"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
	_ "shopbell.dev/proto/shopbell/log/v1" // for its methods' scopes
	_ "shopbell.dev/proto/shopbell/sender/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// ring is the shops' keys, on a bus of its own.
type ring struct {
	*key.Directory
	bucket jetstream.KeyValue
}

func newRing(t *testing.T) ring {
	t.Helper()
	b := bustest.New(t)
	bucket, err := b.Bucket(t.Context(), contract.Keys)
	if err != nil {
		t.Fatal(err)
	}
	r := ring{key.NewDirectory(slog.New(slog.DiscardHandler)), bucket}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	filled, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- r.Follow(b)(ctx, func() { close(filled) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	<-filled
	return r
}

// add makes a key and gives its text.
func (r ring) add(t *testing.T, shop, id, label string, scopes ...string) string {
	t.Helper()
	text := key.New()
	hash := key.HashOf(text)
	value, err := proto.Marshal(&busv1.KeyState{
		ApiKey: &shopbellv1.ApiKey{Id: id, ShopId: shop, Label: label, Purpose: key.Access, Scopes: scopes}, Hash: hash[:],
	})
	if err != nil {
		t.Fatal(err)
	}
	revision, err := r.bucket.Put(t.Context(), contract.KeyPlace(shop, id), value)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r.Await(ctx, shop, id, revision)
	return text
}

func (r ring) remove(t *testing.T, shop, id string) {
	t.Helper()
	if err := r.bucket.Purge(t.Context(), contract.KeyPlace(shop, id)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r.Await(ctx, shop, id, 0)
}

// bearing is a context whose calls carry a key.
func bearing(t *testing.T, text string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+text)
}

func TestKeys_OpenTheDoorOrDoNot(t *testing.T) {
	t.Parallel()
	b := setup(t, rpc.NewKeys(operatorKey, nil))
	page := rpc.RequireKey(rpc.NewKeys(operatorKey, nil), slog.New(slog.DiscardHandler), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, row := range []struct {
		name, authorization string
		good                bool
	}{
		{"the key", "Bearer " + operatorKey, true},
		{"the scheme in lower case", "bearer " + operatorKey, true},
		{"blanks around the key", "Bearer   " + operatorKey + " ", true},
		{"nothing", "", false},
		{"another key", "Bearer the-operators-own-kez", false},
		{"the key's beginning", "Bearer the-operators", false},
		{"more than the key", "Bearer " + operatorKey + "x", false},
		{"another scheme", "Basic " + operatorKey, false},
		{"the key alone", operatorKey, false},
		{"two keys", "Bearer " + operatorKey + " " + operatorKey, false},
		{"a comma behind the key", "Bearer " + operatorKey + ",", false},
		{"the key in upper case", "Bearer " + strings.ToUpper(operatorKey), false},
		{"a key of no shop", "Bearer " + key.New(), false},
		{"the hash of nothing", "Bearer  ", false},
		{"the scheme alone", "Bearer", false},
		{"no key", "Bearer ", false},
	} {
		ctx := t.Context()
		r := httptest.NewRequest(http.MethodGet, "/v1/shops/demo", nil)
		if row.authorization != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", row.authorization)
			r.Header.Set("Authorization", row.authorization)
		}
		want, wantHTTP := codes.Unauthenticated, http.StatusUnauthorized
		if row.good {
			want, wantHTTP = codes.OK, http.StatusNoContent
		}
		if got := status.Code(b.get(ctx)); got != want {
			t.Errorf("%s: gRPC %v, want %v", row.name, got, want)
		}
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		if w.Code != wantHTTP {
			t.Errorf("%s: HTTP %d, want %d", row.name, w.Code, wantHTTP)
		}
		if !row.good && (w.Header().Get("WWW-Authenticate") != "Bearer" || !strings.Contains(w.Body.String(), "Authorization: Bearer <key>") || strings.Contains(w.Body.String(), "operators")) {
			t.Errorf("%s: answer %v %s, want one that says which header to send, and no key", row.name, w.Header(), w.Body)
		}
	}
	if log := b.log.String(); strings.Contains(log, "operators-own") {
		t.Errorf("a key is logged:\n%s", log)
	}
}

func TestKeys_GuardStreamsAndLeaveHealthOpen(t *testing.T) {
	t.Parallel()
	b := setup(t, rpc.NewKeys(operatorKey, nil))
	if _, err := b.health.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Errorf("health without a key: %v", err)
	}
	stream, err := b.events.PublishStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("stream without a key: %v, want Unauthenticated", err)
	}
}

func TestKeys_WithoutAKeyLetEverybodyIn(t *testing.T) {
	t.Parallel()
	if err := setup(t, rpc.NewKeys("", nil)).get(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestKeys_OfAShopOpenItsOwnShopForTheirScopes(t *testing.T) {
	t.Parallel()
	r := newRing(t)
	keys := map[string]string{
		"reads":  r.add(t, "demo", "key_1", "Reader", key.WebhooksRead, key.LogRead),
		"writes": r.add(t, "demo", "key_2", "", key.WebhooksWrite),
		"admin":  r.add(t, "demo", "key_3", "Owner", key.Admin),
	}
	for _, way := range []struct{ name, operator string }{{"with an operator's key", operatorKey}, {"without", ""}} {
		b := setup(t, rpc.NewKeys(way.operator, r.Directory))
		for _, row := range []struct {
			key, shop string
			call      string
			want      codes.Code
			says      string
		}{
			{"reads", "demo", "get", codes.OK, ""},
			{"reads", "demo", "list", codes.OK, ""},
			{"reads", "demo", "create", codes.PermissionDenied, "needs the scope webhooks:write"},
			{"reads", "other", "get", codes.NotFound, `there is no shop "other"`},
			{"reads", "other", "create", codes.NotFound, `there is no shop "other"`},
			{"reads", "", "get", codes.NotFound, `there is no shop ""`},
			{"reads", "DEMO", "get", codes.NotFound, `there is no shop "DEMO"`},
			{"writes", "demo", "get", codes.PermissionDenied, "needs the scope webhooks:read"},
			{"writes", "demo", "create", codes.OK, ""},
			{"writes", "demo", "keys", codes.PermissionDenied, "needs the scope admin"},
			{"admin", "demo", "create", codes.OK, ""},
			{"admin", "demo", "get", codes.OK, ""},
			{"admin", "demo", "keys", codes.Unimplemented, ""}, // it was let in
			{"admin", "other", "get", codes.NotFound, `there is no shop "other"`},
			{"reads", "", "profiles", codes.Unimplemented, ""},
		} {
			ctx := bearing(t, keys[row.key])
			var err error
			switch row.call {
			case "get":
				_, err = b.webhooks.GetWebhook(ctx, &subscriptionv1.GetWebhookRequest{ShopId: row.shop, WebhookId: "wh_1"})
			case "list":
				_, err = b.webhooks.ListWebhooks(ctx, &subscriptionv1.ListWebhooksRequest{ShopId: row.shop})
			case "create":
				_, err = b.webhooks.CreateWebhook(ctx, &subscriptionv1.CreateWebhookRequest{ShopId: row.shop, Webhook: &shopbellv1.Webhook{}})
			case "keys":
				_, err = b.webhooks.ListApiKeys(ctx, &subscriptionv1.ListApiKeysRequest{ShopId: row.shop})
			case "profiles":
				_, err = b.webhooks.ListProfiles(ctx, &subscriptionv1.ListProfilesRequest{})
			}
			if st := status.Convert(err); st.Code() != row.want || !strings.Contains(st.Message(), row.says) {
				t.Errorf("%s: %s in shop %q with the key that %s: got %v, want %v and %q", way.name, row.call, row.shop, row.key, err, row.want, row.says)
			}
		}
		err := b.conn.Invoke(bearing(t, keys["admin"]), listShops, &emptypb.Empty{}, &emptypb.Empty{})
		if st := status.Convert(err); st.Code() != codes.PermissionDenied || !strings.Contains(st.Message(), "operator's key") {
			t.Errorf("%s: what is about no shop, with a shop's key: got %v, want PermissionDenied", way.name, err)
		}
		if err := b.conn.Invoke(bearing(t, operatorKey), listShops, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
			t.Errorf("%s: the same with the operator's: %v", way.name, err)
		}
		unknown := codes.Unauthenticated
		if _, err := b.webhooks.ListProfiles(bearing(t, key.New()), &subscriptionv1.ListProfilesRequest{}); status.Code(err) != unknown {
			t.Errorf("%s: a key that there is not: got %v, want %v", way.name, err, unknown)
		}
		if log := b.log.String(); strings.Contains(log, key.Prefix) {
			t.Errorf("%s: a key is logged:\n%s", way.name, log)
		}
	}
}

func TestKeys_StopWhenTheyAreDeletedAlsoInAStream(t *testing.T) {
	t.Parallel()
	r := newRing(t)
	b := setup(t, rpc.NewKeys(operatorKey, r.Directory))
	b.desk.echo = true
	begin := func(text string) ingestv1.IngestService_PublishStreamClient {
		stream, err := b.events.PublishStream(bearing(t, text))
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	ask := func(stream ingestv1.IngestService_PublishStreamClient, shop string) error {
		if err := stream.Send(&ingestv1.PublishStreamRequest{ShopId: shop}); err != nil && !errors.Is(err, io.EOF) { // EOF: it is answered already
			t.Fatal(err)
		}
		_, err := stream.Recv()
		return err
	}
	text := r.add(t, "demo", "key_1", "ERP", key.EventsWrite)
	stream := begin(text)
	if err := ask(stream, "demo"); err != nil {
		t.Fatalf("its own shop: %v", err)
	}
	if err := ask(stream, "other"); status.Code(err) != codes.NotFound {
		t.Errorf("another shop in the same stream: %v, want NotFound", err)
	}
	if err := ask(begin(r.add(t, "demo", "key_2", "", key.LogRead)), "demo"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a key for something else: %v, want PermissionDenied", err)
	}
	stream = begin(text)
	if err := ask(stream, "demo"); err != nil {
		t.Fatalf("its own shop: %v", err)
	}
	r.remove(t, "demo", "key_1")
	if err := ask(stream, "demo"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a stream whose key is deleted: %v, want Unauthenticated", err)
	}
	if err := ask(begin(text), "demo"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a deleted key: %v, want Unauthenticated", err)
	}
}

func TestCaller_IsKnownToWhoServesTheCall(t *testing.T) {
	t.Parallel()
	r := newRing(t)
	labelled, bare := r.add(t, "demo", "key_1", "ERP (Graz)", key.Admin), r.add(t, "demo", "key_2", "", key.Admin)
	for _, row := range []struct{ name, operator, text, want string }{
		{"the operator", operatorKey, operatorKey, "operator"},
		{"a shop's key", operatorKey, labelled, "key_1 (ERP (Graz))"},
		{"a shop's key without a label", operatorKey, bare, "key_2"},
		{"a shop's key where none is asked for", "", labelled, "key_1 (ERP (Graz))"},
		{"nobody where no key is asked for", "", "whatever", ""},
	} {
		keys := rpc.NewKeys(row.operator, r.Directory)
		b := setup(t, keys)
		if err := b.get(bearing(t, row.text)); err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		if got := b.desk.caller; got != row.want {
			t.Errorf("%s: gRPC: got %q, want %q", row.name, got, row.want)
		}
		var got string
		var own, other error
		page := rpc.RequireKey(keys, slog.New(slog.DiscardHandler), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = rpc.Caller(r.Context())
			own, other = rpc.Authorize(r.Context(), "demo", key.EventsWrite), rpc.Authorize(r.Context(), "other", key.EventsWrite)
		}))
		req := httptest.NewRequest(http.MethodPost, "/v1/shops/demo/events", nil)
		req.Header.Set("Authorization", "Bearer "+row.text)
		page.ServeHTTP(httptest.NewRecorder(), req)
		if got != row.want || own != nil {
			t.Errorf("%s: HTTP: got %q, %v, want %q", row.name, got, own, row.want)
		}
		if ofShop := strings.HasPrefix(row.want, "key_"); (other != nil) != ofShop {
			t.Errorf("%s: another shop: got %v, want it refused: %v", row.name, other, ofShop)
		}
	}
}

// A page that somebody mounts beside RequireKey is closed, not open.
func TestAuthorize_RefusesWhereNobodyAskedWhoCalls(t *testing.T) {
	t.Parallel()
	if err := rpc.Authorize(t.Context(), "demo", key.EventsWrite); err == nil {
		t.Error("it is open")
	}
}

// Whoever adds a method says in its proto which scope it needs: option (shopbell.v1.scope) = "…".
func TestScopes_AreNamedByEveryMethod(t *testing.T) {
	t.Parallel()
	methods := 0
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			if !strings.HasPrefix(string(service.FullName()), "shopbell.") {
				continue
			}
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				methods++
				scope, _ := proto.GetExtension(m.Options(), shopbellv1.E_Scope).(string)
				ofShop := m.Input().Fields().ByName("shop_id") != nil
				switch {
				case ofShop && !slices.Contains(key.Scopes, scope):
					t.Errorf("%s: its scope is %q, want one of %s: add option (shopbell.v1.scope) to the method", m.FullName(), scope, strings.Join(key.Scopes, ", "))
				case !ofShop && scope != "any" && scope != "":
					t.Errorf("%s: it needs the scope %q, and its request has no shop_id in which that could hold", m.FullName(), scope)
				}
			}
		}
		return true
	})
	if methods < 20 {
		t.Errorf("only %d methods were looked at", methods)
	}
}

func FuzzKeys_OpenForTheKeyAlone(f *testing.F) {
	keys := rpc.NewKeys(operatorKey, key.NewDirectory(slog.New(slog.DiscardHandler)))
	for _, seed := range []string{"", "Bearer", "Bearer ", "bearer " + operatorKey, "Bearer  " + operatorKey + "\t", "Basic x", "Bearer sbk_", "\xff \x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, authorization string) {
		in := false
		page := rpc.RequireKey(keys, slog.New(slog.DiscardHandler), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { in = true }))
		r := httptest.NewRequest(http.MethodGet, "/v1/profiles", nil)
		r.Header["Authorization"] = []string{authorization}
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		scheme, rest, _ := strings.Cut(authorization, " ")
		if want := strings.EqualFold(scheme, "bearer") && strings.TrimSpace(rest) == operatorKey; in != want {
			t.Errorf("%q: let in: %v, want %v", authorization, in, want)
		}
		if !in && w.Code != http.StatusUnauthorized {
			t.Errorf("%q: got %d, want 401", authorization, w.Code)
		}
	})
}
