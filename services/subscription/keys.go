package subscription

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/key"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// The bounds of a shop's keys.
const (
	maxRate = 1_000_000
	maxKeys = 1000
)

// CreateApiKey makes a key of a shop.
func (s *Subscription) CreateApiKey(ctx context.Context, req *subscriptionv1.CreateApiKeyRequest) (*shopbellv1.ApiKey, error) {
	own := proto.CloneOf(req.GetApiKey())
	if own.Purpose == "" {
		own.Purpose = key.Access
	}
	if err := checkKey(own); err != nil {
		return nil, err
	}
	if len(s.env.Keys.All(req.GetShopId())) >= maxKeys {
		return nil, fault.New(fault.Precondition, "the shop has %d keys; delete those that nobody uses", maxKeys)
	}
	own.Id, own.ShopId = id.New(id.Key, time.Now()), req.GetShopId()
	return s.makeKey(ctx, own)
}

// checkKey says what is wrong with a key before it is made.
func checkKey(k *shopbellv1.ApiKey) error {
	var bad fault.Collector
	for field, set := range map[string]bool{
		"id": k.Id != "", "shop_id": k.ShopId != "", "created_at": k.CreatedAt != nil, "last_four": k.LastFour != "", "key": k.Key != nil,
	} {
		if set {
			bad.Add(field, "it is given by Shopbell; leave it out")
		}
	}
	if len(k.Label) > maxLabel || !utf8.ValidString(k.Label) || strings.ContainsFunc(k.Label, unicode.IsControl) {
		bad.Add("label", "it has more than %d bytes, or a character that cannot be shown", maxLabel)
	}
	rate := k.RatePerSecond
	switch k.Purpose {
	case key.Access:
		if len(k.Scopes) == 0 {
			bad.Add("scopes", "it is empty; name what the key may do: %s", strings.Join(key.Scopes, ", "))
		}
		if rate != nil && (!(*rate > 0) || *rate > maxRate) {
			bad.Add("rate_per_second", "%g is not above 0 and at most %d; leave it out for as many as one likes", *rate, maxRate)
		}
	case key.Webhooks:
		if len(k.Scopes) > 0 || rate != nil {
			bad.Add("purpose", "a key for webhooks opens nothing, so that it has neither scopes nor a rate; make another one for access")
		}
	default:
		bad.Add("purpose", "%q is neither %s nor %s", k.Purpose, key.Access, key.Webhooks)
	}
	for i, scope := range k.Scopes {
		at := fmt.Sprintf("scopes[%d]", i)
		switch {
		case !slices.Contains(key.Scopes, scope):
			bad.Add(at, "%q is not known%s; there are %s", scope, fault.DidYouMean(scope, key.Scopes), strings.Join(key.Scopes, ", "))
		case slices.Contains(k.Scopes[:i], scope):
			bad.Add(at, "%q stands twice", scope)
		}
	}
	return bad.Err()
}

// makeKey stores a key that has everything but the key itself, and gives it with that, once our own directory knows it.
// When there is one at its place already, the error is jetstream.ErrKeyExists.
func (s *Subscription) makeKey(ctx context.Context, own *shopbellv1.ApiKey) (*shopbellv1.ApiKey, error) {
	text := key.New()
	own.CreatedAt, own.LastFour = timestamppb.Now(), key.LastFour(text)
	state := &busv1.KeyState{ApiKey: own}
	if own.Purpose == key.Access {
		hash := key.HashOf(text)
		state.Hash = hash[:]
	} else {
		state.Value = text
	}
	value, err := proto.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("write key %s: %w", own.Id, err)
	}
	revision, err := s.keys.Create(ctx, contract.KeyPlace(own.ShopId, own.Id), value)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return nil, err
	}
	if err != nil {
		return nil, busError("store the key", err)
	}
	bound, cancel := context.WithTimeout(ctx, awaitOwn)
	defer cancel()
	s.env.Keys.Await(bound, own.ShopId, own.Id, revision)
	out := proto.CloneOf(own)
	out.Key = &text
	return out, nil
}

// loadKey reads a key from the bucket. The one that every shop has is made when it is first asked for.
func (s *Subscription) loadKey(ctx context.Context, shop, keyID string) (*busv1.KeyState, uint64, error) {
	if !isID(keyID) {
		return nil, 0, noKey(shop, keyID)
	}
	entry, err := s.keys.Get(ctx, contract.KeyPlace(shop, keyID))
	if errors.Is(err, jetstream.ErrKeyNotFound) && keyID == key.Default {
		if err := s.makeDefault(ctx, shop); err != nil {
			return nil, 0, err
		}
		entry, err = s.keys.Get(ctx, contract.KeyPlace(shop, keyID))
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrInvalidKey) {
		return nil, 0, noKey(shop, keyID)
	}
	if err != nil {
		return nil, 0, busError("read the key", err)
	}
	state := &busv1.KeyState{}
	if err := proto.Unmarshal(entry.Value(), state); err != nil {
		return nil, 0, fmt.Errorf("parse key %s: %w", keyID, err)
	}
	return state, entry.Revision(), nil
}

// makeDefault makes the key for webhooks that every shop has. Two who do so at once make one.
func (s *Subscription) makeDefault(ctx context.Context, shop string) error {
	_, err := s.makeKey(ctx, &shopbellv1.ApiKey{Id: key.Default, ShopId: shop, Label: "Default", Purpose: key.Webhooks})
	if errors.Is(err, jetstream.ErrKeyExists) {
		return nil
	}
	return err
}

func noKey(shop, keyID string) error {
	return fault.New(fault.NotFound, "there is no key %s in shop %s; list them with GET /v1/shops/%s/api_keys", keyID, shop, shop)
}

// ListApiKeys lists a shop's keys.
func (s *Subscription) ListApiKeys(ctx context.Context, req *subscriptionv1.ListApiKeysRequest) (*subscriptionv1.ListApiKeysResponse, error) {
	first, _, err := s.loadKey(ctx, req.GetShopId(), key.Default)
	if err != nil {
		return nil, err
	}
	out := &subscriptionv1.ListApiKeysResponse{ApiKeys: []*shopbellv1.ApiKey{first.ApiKey}}
	for _, k := range s.env.Keys.All(req.GetShopId()) {
		if k.Id != key.Default {
			out.ApiKeys = append(out.ApiKeys, k.ApiKey)
		}
	}
	return out, nil
}

// GetApiKeySecret reads a key for webhooks.
func (s *Subscription) GetApiKeySecret(ctx context.Context, req *subscriptionv1.GetApiKeySecretRequest) (*subscriptionv1.ApiKeySecret, error) {
	state, _, err := s.loadKey(ctx, req.GetShopId(), req.GetKeyId())
	if err != nil {
		return nil, err
	}
	if state.Value == "" {
		return nil, fault.New(fault.Precondition, "the key %s is for access: it was shown when it was made, and Shopbell keeps only a hash; make another one if it is lost", req.GetKeyId())
	}
	return &subscriptionv1.ApiKeySecret{Key: state.Value}, nil
}

// giveKey gives a webhook the key that it names, so that whoever sends has it at hand.
func (s *Subscription) giveKey(ctx context.Context, state *busv1.WebhookState) error {
	w := state.Webhook
	if w.GetApiKeyId() == "" {
		w.ApiKeyId, state.ApiKey = nil, ""
		return nil
	}
	k, _, err := s.loadKey(ctx, w.ShopId, w.GetApiKeyId())
	if fault.IsKind(err, fault.NotFound) {
		return fault.On("api_key_id", err)
	}
	if err != nil {
		return err
	}
	if k.Value == "" {
		return fault.Field("api_key_id", "the key %s is for access, and is sent to nobody; take %s, or make one: POST /v1/shops/%s/api_keys {\"purpose\": \"%s\"}",
			w.GetApiKeyId(), key.Default, w.ShopId, key.Webhooks)
	}
	state.ApiKey = k.Value
	return nil
}

// DeleteApiKey ends a key.
func (s *Subscription) DeleteApiKey(ctx context.Context, req *subscriptionv1.DeleteApiKeyRequest) (*subscriptionv1.DeleteApiKeyResponse, error) {
	shop, keyID := req.GetShopId(), req.GetKeyId()
	if _, _, err := s.loadKey(ctx, shop, keyID); err != nil {
		return nil, err
	}
	// A webhook has the key that it names, and would send on what its owner thinks is gone.
	var users []string
	for _, w := range s.webhooks.All(shop) {
		if w.APIKeyID == keyID {
			users = append(users, w.ID)
		}
	}
	if len(users) > 0 {
		return nil, fault.New(fault.Precondition, "the key %s is sent by %s; give them another api_key_id first", keyID, strings.Join(users, ", "))
	}
	// Purged and not only marked as deleted: nothing of it stays.
	if err := s.keys.Purge(ctx, contract.KeyPlace(shop, keyID)); err != nil {
		return nil, busError("delete the key", err)
	}
	bound, cancel := context.WithTimeout(ctx, awaitOwn)
	defer cancel()
	s.env.Keys.Await(bound, shop, keyID, 0)
	return &subscriptionv1.DeleteApiKeyResponse{}, nil
}
