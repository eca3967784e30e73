package subscription

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/key"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func (b *bundle) createKey(t *testing.T, k *shopbellv1.ApiKey) *shopbellv1.ApiKey {
	t.Helper()
	out, err := b.CreateApiKey(t.Context(), &subscriptionv1.CreateApiKeyRequest{ShopId: "demo", ApiKey: k})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bundle) listKeys(t *testing.T, shop string) []*shopbellv1.ApiKey {
	t.Helper()
	out, err := b.ListApiKeys(t.Context(), &subscriptionv1.ListApiKeysRequest{ShopId: shop})
	if err != nil {
		t.Fatal(err)
	}
	return out.ApiKeys
}

func (b *bundle) keySecret(t *testing.T, shop, id string) (string, error) {
	t.Helper()
	out, err := b.GetApiKeySecret(t.Context(), &subscriptionv1.GetApiKeySecretRequest{ShopId: shop, KeyId: id})
	return out.GetKey(), err
}

func TestKeys_ForAccessAreShownOnceAndKeptAsAHash(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.createKey(t, &shopbellv1.ApiKey{Label: "ERP", Scopes: []string{key.EventsWrite, key.LogRead}, RatePerSecond: proto.Float64(50)})
	text := made.GetKey()
	if !strings.HasPrefix(made.Id, "key_") || !key.Looks(text) || made.Purpose != key.Access || made.LastFour != text[len(text)-4:] || made.CreatedAt == nil || made.ShopId != "demo" {
		t.Errorf("made %v", made)
	}
	if found := b.env.Keys.Find(key.HashOf(text)); found == nil || found.Id != made.Id {
		t.Errorf("our own directory finds %v, want the key as soon as it is answered", found)
	}
	list := b.listKeys(t, "demo")
	want := proto.CloneOf(made)
	want.Key = nil
	if len(list) != 2 || list[0].Id != key.Default || !proto.Equal(list[1], want) {
		t.Errorf("listed %v, want the default key and %v", list, want)
	}
	if got, err := b.keySecret(t, "demo", made.Id); !fault.IsKind(err, fault.Precondition) {
		t.Errorf("read again: got %q, %v, want that it is kept nowhere", got, err)
	}
	entry, err := b.keys.Get(t.Context(), contract.KeyPlace("demo", made.Id))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(entry.Value(), []byte(text)) || bytes.Contains(entry.Value(), []byte(text[len(key.Prefix):len(text)-4])) {
		t.Error("the key itself lies in the bucket")
	}
	for _, shop := range []string{"demo", "other"} {
		if _, err := b.DeleteApiKey(t.Context(), &subscriptionv1.DeleteApiKeyRequest{ShopId: shop, KeyId: made.Id}); (shop == "demo") != (err == nil) {
			t.Errorf("delete in shop %s: %v", shop, err)
		}
		if shop == "other" {
			continue
		}
		if b.env.Keys.Find(key.HashOf(text)) != nil {
			t.Error("the key still opens when its deletion is answered")
		}
	}
	if _, err := b.DeleteApiKey(t.Context(), &subscriptionv1.DeleteApiKeyRequest{ShopId: "demo", KeyId: made.Id}); !fault.IsKind(err, fault.NotFound) {
		t.Errorf("deleted again: %v, want NotFound", err)
	}
}

func TestKeys_EveryShopHasOneForWebhooks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// Many ask for it at once, and there is one.
	var all sync.Map
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			text, err := b.keySecret(t, "demo", key.Default)
			if err != nil {
				t.Error(err)
			}
			all.Store(text, true)
		})
	}
	asking.Wait()
	n := 0
	all.Range(func(any, any) bool { n++; return true })
	text, err := b.keySecret(t, "demo", key.Default)
	if other, oerr := b.keySecret(t, "other", key.Default); n != 1 || err != nil || oerr != nil || !key.Looks(text) || other == text {
		t.Errorf("%d keys, the last %q, another shop's %q (%v, %v); want one for each shop", n, text, other, err, oerr)
	}
	if b.env.Keys.Find(key.HashOf(text)) != nil {
		t.Error("a key for webhooks opens calls")
	}
	list := b.listKeys(t, "demo")
	if len(list) != 1 || list[0].Id != key.Default || list[0].Label != "Default" || list[0].Purpose != key.Webhooks || list[0].Key != nil {
		t.Errorf("listed %v, want the one", list)
	}
	made := b.createKey(t, &shopbellv1.ApiKey{Label: "Zapier", Purpose: key.Webhooks})
	if got, err := b.keySecret(t, "demo", made.Id); err != nil || got != made.GetKey() {
		t.Errorf("read: got %q, %v, want what was made", got, err)
	}
	if _, err := b.keySecret(t, "other", made.Id); !fault.IsKind(err, fault.NotFound) {
		t.Errorf("read in another shop: %v, want NotFound", err)
	}
	// Who deletes it gets another one, when it is next asked for.
	if _, err := b.DeleteApiKey(t.Context(), &subscriptionv1.DeleteApiKeyRequest{ShopId: "demo", KeyId: key.Default}); err != nil {
		t.Fatal(err)
	}
	if again, err := b.keySecret(t, "demo", key.Default); err != nil || again == text {
		t.Errorf("after it was deleted: %q, %v, want another one", again, err)
	}
}

func TestKeys_AreRefusedWithTheField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	access := []string{key.EventsWrite}
	for _, row := range []struct {
		name   string
		k      *shopbellv1.ApiKey
		fields []string
		says   string
	}{
		{"no scope", &shopbellv1.ApiKey{}, []string{"scopes"}, "events:write, webhooks:read"},
		{"an unknown scope", &shopbellv1.ApiKey{Scopes: []string{"log:read", "event:write"}}, []string{"scopes[1]"}, `did you mean "events:write"?`},
		{"a scope twice", &shopbellv1.ApiKey{Scopes: []string{"log:read", "log:read"}}, []string{"scopes[1]"}, "twice"},
		{"an unknown purpose", &shopbellv1.ApiKey{Purpose: "webhook", Scopes: access}, []string{"purpose"}, "neither access nor webhooks"},
		{"a key for webhooks that would open something", &shopbellv1.ApiKey{Purpose: key.Webhooks, Scopes: access}, []string{"purpose"}, "opens nothing"},
		{"no rate at all", &shopbellv1.ApiKey{Scopes: access, RatePerSecond: proto.Float64(0)}, []string{"rate_per_second"}, "above 0"},
		{"a rate beyond bounds", &shopbellv1.ApiKey{Scopes: access, RatePerSecond: proto.Float64(1e7)}, []string{"rate_per_second"}, "1000000"},
		{"a rate that is none", &shopbellv1.ApiKey{Scopes: access, RatePerSecond: proto.Float64(math.NaN())}, []string{"rate_per_second"}, "NaN"},
		{"a label with a line break", &shopbellv1.ApiKey{Scopes: access, Label: "a\nb"}, []string{"label"}, "cannot be shown"},
		{"a label that is too long", &shopbellv1.ApiKey{Scopes: access, Label: strings.Repeat("x", 201)}, []string{"label"}, "200 bytes"},
		{"a key of its own", &shopbellv1.ApiKey{Scopes: access, Key: proto.String("sbk_mine")}, []string{"key"}, "leave it out"},
		{"an id of its own", &shopbellv1.ApiKey{Scopes: access, Id: "key_mine"}, []string{"id"}, "leave it out"},
	} {
		_, err := b.CreateApiKey(t.Context(), &subscriptionv1.CreateApiKeyRequest{ShopId: "demo", ApiKey: row.k})
		if !slices.Equal(fieldsOf(t, err), row.fields) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: got %v, want one on %v that says %q", row.name, err, row.fields, row.says)
		}
	}
	for _, id := range []string{"", "key_none", "a.b", "*", "key 1"} {
		if _, err := b.keySecret(t, "demo", id); !fault.IsKind(err, fault.NotFound) {
			t.Errorf("the key %q: %v, want NotFound", id, err)
		}
		if _, err := b.DeleteApiKey(t.Context(), &subscriptionv1.DeleteApiKeyRequest{ShopId: "demo", KeyId: id}); !fault.IsKind(err, fault.NotFound) {
			t.Errorf("delete the key %q: %v, want NotFound", id, err)
		}
	}
}

func TestWebhooks_AreGivenTheKeyThatTheyName(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.createKey(t, &shopbellv1.ApiKey{Label: "Zapier", Purpose: key.Webhooks})
	access := b.createKey(t, &shopbellv1.ApiKey{Scopes: []string{key.EventsWrite}})
	w := b.create(t, &shopbellv1.Webhook{ApiKeyId: proto.String(key.Default)})
	standing, err := b.keySecret(t, "demo", key.Default)
	if err != nil {
		t.Fatal(err)
	}
	sent := func() (header, text string) {
		now, err := b.webhooks.Fetch(t.Context(), "demo", w.Id)
		if err != nil {
			t.Fatal(err)
		}
		return now.APIKey()
	}
	if header, text := sent(); header != "X-Api-Key" || text != standing {
		t.Errorf("got %q in %q, want the shop's own key", text, header)
	}
	if _, err := b.DeleteApiKey(t.Context(), &subscriptionv1.DeleteApiKeyRequest{ShopId: "demo", KeyId: key.Default}); !fault.IsKind(err, fault.Precondition) || !strings.Contains(err.Error(), w.Id) {
		t.Errorf("delete a key that is sent: %v, want that it is sent by %s", err, w.Id)
	}
	if _, err := b.update(t, w.Id, &shopbellv1.Webhook{ApiKeyId: &made.Id, ApiKeyHeader: proto.String("X-Store")}); err != nil {
		t.Fatal(err)
	}
	if header, text := sent(); header != "X-Store" || text != made.GetKey() {
		t.Errorf("got %q in %q, want the key that was made, in X-Store", text, header)
	}
	// What it sends is in no answer but the one that made it.
	list, err := b.ListWebhooks(t.Context(), &subscriptionv1.ListWebhooksRequest{ShopId: "demo"})
	if err != nil || strings.Contains(list.String()+b.read(t, w.Id).String()+b.log.String(), key.Prefix) {
		t.Errorf("the key is in answers of the webhook, or in the log (%v)", err)
	}
	for _, row := range []struct {
		name  string
		w     *shopbellv1.Webhook
		field string
		says  string
	}{
		{"a key that there is not", &shopbellv1.Webhook{ApiKeyId: proto.String("key_none")}, "api_key_id", "there is no key key_none"},
		{"a key for access", &shopbellv1.Webhook{ApiKeyId: &access.Id}, "api_key_id", "is sent to nobody; take key_default"},
		{"a header that is none", &shopbellv1.Webhook{ApiKeyId: &made.Id, ApiKeyHeader: proto.String("X Store")}, "api_key_header", "no header name"},
		{"a header of HTTP's", &shopbellv1.Webhook{ApiKeyId: &made.Id, ApiKeyHeader: proto.String("content-length")}, "api_key_header", "choose another"},
		{"a header of its signature", &shopbellv1.Webhook{ApiKeyId: &made.Id, ApiKeyHeader: proto.String("x-webhook-signature"), Profile: "shoporama", Events: []string{"paid"}}, "api_key_header", "choose another"},
		{"a header of its own twice", &shopbellv1.Webhook{ApiKeyId: &made.Id, Headers: map[string]string{"x-api-key": "1"}}, "headers.x-api-key", "its API key sets it"},
	} {
		row.w.Url = "https://example.com/hooks"
		if row.w.Events == nil {
			row.w.Events = []string{"paid"}
		}
		_, err := b.CreateWebhook(t.Context(), &subscriptionv1.CreateWebhookRequest{ShopId: "demo", Webhook: row.w})
		if err == nil || !slices.Equal(fieldsOf(t, err), []string{row.field}) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: got %v, want one on %s that says %q", row.name, err, row.field, row.says)
		}
	}
	if _, err := b.update(t, w.Id, &shopbellv1.Webhook{}, "api_key_id"); err != nil {
		t.Fatal(err)
	}
	if header, text := sent(); header != "" || text != "" || b.read(t, w.Id).ApiKeyId != nil {
		t.Errorf("without a key: got %q in %q, want nothing", text, header)
	}
	if _, err := b.DeleteApiKey(t.Context(), &subscriptionv1.DeleteApiKeyRequest{ShopId: "demo", KeyId: made.Id}); err != nil {
		t.Errorf("delete a key that nobody sends: %v", err)
	}
}
