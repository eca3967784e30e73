package subscription

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// CreateWebhook registers a webhook.
func (s *Subscription) CreateWebhook(ctx context.Context, req *subscriptionv1.CreateWebhookRequest) (*shopbellv1.Webhook, error) {
	own := proto.CloneOf(req.GetWebhook())
	if own.Id != "" {
		return nil, fault.Field("id", "it is given by Shopbell; leave it out")
	}
	now := time.Now()
	own.DisabledReason, own.DisabledAt, own.Warnings = nil, nil, nil
	switch own.Status {
	case "":
		own.Status = webhook.Enabled
	case webhook.Enabled:
	case webhook.Disabled:
		own.DisabledReason, own.DisabledAt = proto.String("switched off by its owner"), timestamppb.New(now)
	default:
		return nil, fault.Field("status", "%q is neither %s nor %s", own.Status, webhook.Enabled, webhook.Disabled)
	}
	secret := own.GetSecret()
	if secret == "" {
		secret = signature.NewSecret()
	}
	own.Id, own.ShopId = id.New(id.Webhook, now), req.GetShopId()
	own.CreatedAt, own.UpdatedAt, own.Etag, own.Secret = timestamppb.New(now), timestamppb.New(now), "", nil
	if own.Profile == "" {
		// From the bucket and not from our directory, which may be a moment behind: the webhook keeps it.
		set, _, err := s.loadShop(ctx, own.ShopId)
		if err != nil {
			return nil, err
		}
		own.Profile = s.shops.WithDefaults(own.ShopId, set).GetProfile()
	}
	state := &busv1.WebhookState{Webhook: own, Secrets: []*busv1.Secret{{Value: secret, PrivateKey: signature.NewPrivateKey()}}}
	if err := s.giveKey(ctx, state); err != nil {
		return nil, err
	}
	if err := s.check(state); err != nil {
		return nil, err
	}
	value, err := proto.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("write webhook %s: %w", own.Id, err)
	}
	revision, err := s.bucket.Create(ctx, contract.WebhookKey(own.ShopId, own.Id), value)
	if err != nil {
		return nil, busError("store the webhook", err)
	}
	return s.answer(ctx, state, revision), nil
}

// awaitOwn bounds how long an answer waits for our own directories to know what it tells of.
const awaitOwn = 2 * time.Second

// answer is a webhook as the API shows it, once our own directory knows it: an event that is published after the answer
// is matched to it.
func (s *Subscription) answer(ctx context.Context, state *busv1.WebhookState, revision uint64) *shopbellv1.Webhook {
	s.await(ctx, state.Webhook.ShopId, state.Webhook.Id, revision)
	return webhook.New(state, revision, s.env.Profiles).Proto()
}

// await waits for our own directory to know a webhook at a revision, or for 0 that it is gone, but not for ever.
func (s *Subscription) await(ctx context.Context, shop, webhookID string, revision uint64) {
	bound, cancel := context.WithTimeout(ctx, awaitOwn)
	defer cancel()
	s.webhooks.Await(bound, shop, webhookID, revision)
}

// busError is what a caller is told when a bucket does not answer.
func busError(doing string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fault.Away(2*time.Second, "%s: the bus does not answer; try again: %w", doing, err)
}

func noWebhook(shop, webhookID string) error {
	return fault.New(fault.NotFound, "there is no webhook %s in shop %s; list them with GET /v1/shops/%s/webhooks", webhookID, shop, shop)
}

// isID says whether a text may be a webhook's id: one part of a subject.
func isID(text string) bool { return text != "" && !strings.ContainsAny(text, ".*> \t\r\n") }

// load reads a webhook from the bucket.
func (s *Subscription) load(ctx context.Context, shop, webhookID string) (*webhook.Webhook, error) {
	if !isID(webhookID) {
		return nil, noWebhook(shop, webhookID)
	}
	w, err := s.webhooks.Fetch(ctx, shop, webhookID)
	if err != nil {
		return nil, busError("read the webhook", err)
	}
	if w == nil {
		return nil, noWebhook(shop, webhookID)
	}
	return w, nil
}

// change loads a webhook, has edit change a copy of its state, and stores that, unless somebody was faster: then it
// begins again, or fails when an etag was given. edit returns false when there is nothing to change.
func (s *Subscription) change(ctx context.Context, shop, webhookID, etag string, edit func(*busv1.WebhookState) (bool, error)) (*shopbellv1.Webhook, error) {
	return s.replace(ctx, shop, webhookID, etag, func(state *busv1.WebhookState, _ uint64) (bool, error) { return edit(state) })
}

// replace is change for an edit that must know the revision that it replaces.
func (s *Subscription) replace(ctx context.Context, shop, webhookID, etag string, edit func(*busv1.WebhookState, uint64) (bool, error)) (*shopbellv1.Webhook, error) {
	for range 10 {
		w, err := s.load(ctx, shop, webhookID)
		if err != nil {
			return nil, err
		}
		if etag != "" && etag != webhook.Etag(w.Revision) {
			return nil, fault.New(fault.Conflict, "the webhook was changed since etag %q: read it again, then change it", etag)
		}
		state := w.State()
		changed, err := edit(state, w.Revision)
		if err != nil {
			return nil, err
		}
		if !changed {
			return w.Proto(), nil
		}
		state.Webhook.UpdatedAt = timestamppb.Now()
		value, err := proto.Marshal(state)
		if err != nil {
			return nil, fmt.Errorf("write webhook %s: %w", webhookID, err)
		}
		revision, err := s.bucket.Update(ctx, contract.WebhookKey(shop, webhookID), value, w.Revision)
		if err == nil {
			return s.answer(ctx, state, revision), nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return nil, busError("store the webhook", err)
		}
	}
	return nil, fault.New(fault.Conflict, "the webhook is being changed by others all the time; try again")
}

// GetWebhook reads a webhook.
func (s *Subscription) GetWebhook(ctx context.Context, req *subscriptionv1.GetWebhookRequest) (*shopbellv1.Webhook, error) {
	w, err := s.load(ctx, req.GetShopId(), req.GetWebhookId())
	if err != nil {
		return nil, err
	}
	return w.Proto(), nil
}

const defaultPage = 100

// ListWebhooks lists a shop's webhooks, oldest first.
func (s *Subscription) ListWebhooks(_ context.Context, req *subscriptionv1.ListWebhooksRequest) (*subscriptionv1.ListWebhooksResponse, error) {
	after, err := parsePageToken(req.GetPageToken(), req.GetShopId())
	if err != nil {
		return nil, err
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	out := &subscriptionv1.ListWebhooksResponse{}
	for _, w := range s.webhooks.All(req.GetShopId()) {
		if w.ID <= after {
			continue
		}
		if len(out.Webhooks) == size {
			out.NextPageToken = pageToken(req.GetShopId(), out.Webhooks[size-1].Id)
			break
		}
		out.Webhooks = append(out.Webhooks, w.Proto())
	}
	return out, nil
}

func pageToken(shop, last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte("webhooks/" + shop + "/" + last))
}

func parsePageToken(token, shop string) (after string, err error) {
	if token == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	after, ok := strings.CutPrefix(string(text), "webhooks/"+shop+"/")
	if err != nil || !ok {
		return "", fault.Field("page_token", "it is not one of this list; leave it out to begin with the first page")
	}
	return after, nil
}

// UpdateWebhook changes the fields that are given.
func (s *Subscription) UpdateWebhook(ctx context.Context, req *subscriptionv1.UpdateWebhookRequest) (*shopbellv1.Webhook, error) {
	return s.change(ctx, req.GetShopId(), req.GetWebhookId(), req.GetWebhook().GetEtag(), func(state *busv1.WebhookState) (bool, error) {
		if err := apply(state.Webhook, req.GetWebhook(), req.GetUpdateMask()); err != nil {
			return false, err
		}
		if newest := state.Secrets[0]; newest.PrivateKey == nil { // made before there were any
			newest.PrivateKey = signature.NewPrivateKey()
		}
		if err := s.giveKey(ctx, state); err != nil {
			return false, err
		}
		return true, s.check(state)
	})
}

// DeleteWebhook removes a webhook and has what is held for it discarded. It answers once our own directory knows.
func (s *Subscription) DeleteWebhook(ctx context.Context, req *subscriptionv1.DeleteWebhookRequest) (*subscriptionv1.DeleteWebhookResponse, error) {
	w, err := s.load(ctx, req.GetShopId(), req.GetWebhookId())
	if fault.IsKind(err, fault.NotFound) && isID(req.GetWebhookId()) {
		// Whoever deleted it may have died before he had what is held discarded.
		if rerr := s.release(ctx, req.GetShopId(), req.GetWebhookId(), true); rerr != nil {
			return nil, rerr
		}
	}
	if err != nil {
		return nil, err
	}
	if req.GetEtag() != "" && req.GetEtag() != webhook.Etag(w.Revision) {
		return nil, fault.New(fault.Conflict, "the webhook was changed since etag %q: read it again, then delete it", req.GetEtag())
	}
	if err := s.bucket.Delete(ctx, contract.WebhookKey(req.GetShopId(), req.GetWebhookId()), jetstream.LastRevision(w.Revision)); err != nil {
		if errors.Is(err, jetstream.ErrKeyExists) || isWrongRevision(err) {
			return nil, fault.New(fault.Conflict, "the webhook was changed this moment: read it again, then delete it")
		}
		return nil, busError("delete the webhook", err)
	}
	s.await(ctx, req.GetShopId(), req.GetWebhookId(), 0) // an event that is published after the answer is not matched to it
	if err := s.release(ctx, req.GetShopId(), req.GetWebhookId(), true); err != nil {
		return nil, err
	}
	return &subscriptionv1.DeleteWebhookResponse{}, nil
}

func isWrongRevision(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// GetWebhookSecret reads a webhook's secrets.
func (s *Subscription) GetWebhookSecret(ctx context.Context, req *subscriptionv1.GetWebhookSecretRequest) (*subscriptionv1.WebhookSecret, error) {
	w, err := s.load(ctx, req.GetShopId(), req.GetWebhookId())
	if err != nil {
		return nil, err
	}
	return secretsOf(w.State()), nil
}

func secretsOf(state *busv1.WebhookState) *subscriptionv1.WebhookSecret {
	out := &subscriptionv1.WebhookSecret{}
	for i, secret := range state.Secrets {
		public := ""
		if key, err := signature.ParsePrivateKey(secret.PrivateKey); err == nil {
			public = key.Public()
		}
		if i == 0 {
			out.Secret, out.PublicKey = secret.Value, public
		} else if secret.ExpiresAt.AsTime().After(time.Now()) {
			out.Old = append(out.Old, &subscriptionv1.OldSecret{Secret: secret.Value, PublicKey: public, ExpiresAt: secret.ExpiresAt})
		}
	}
	return out
}

const (
	defaultOverlap = 24 * time.Hour
	maxOverlap     = 30 * 24 * time.Hour
	maxSecrets     = 5 // that sign at once; a header has its bounds
)

// RotateSecret gives a webhook a new secret, and a new private key with it; the old ones sign too until their overlap
// ends. A secret that it had already keeps its private key.
func (s *Subscription) RotateSecret(ctx context.Context, req *subscriptionv1.RotateSecretRequest) (*subscriptionv1.WebhookSecret, error) {
	overlap := defaultOverlap
	if req.GetOverlap() != nil {
		overlap = req.GetOverlap().AsDuration()
	}
	if overlap < 0 || overlap > maxOverlap {
		return nil, fault.Field("overlap", "%s is not between 0s and 30 days", overlap)
	}
	fresh := req.GetSecret()
	if fresh == "" {
		fresh = signature.NewSecret()
	} else if _, err := signature.ParseSecret(fresh); err != nil {
		return nil, fault.Field("secret", "%v", err)
	}
	var out *subscriptionv1.WebhookSecret
	_, err := s.change(ctx, req.GetShopId(), req.GetWebhookId(), "", func(state *busv1.WebhookState) (bool, error) {
		now := time.Now()
		newest := &busv1.Secret{Value: fresh, PrivateKey: signature.NewPrivateKey()}
		secrets := []*busv1.Secret{newest}
		for _, old := range state.Secrets {
			if old.Value == fresh && old.PrivateKey != nil {
				newest.PrivateKey = old.PrivateKey
			}
			until := now.Add(overlap)
			if old.ExpiresAt != nil && old.ExpiresAt.AsTime().Before(until) {
				until = old.ExpiresAt.AsTime()
			}
			if until.After(now) && old.Value != fresh {
				secrets = append(secrets, &busv1.Secret{Value: old.Value, PrivateKey: old.PrivateKey, ExpiresAt: timestamppb.New(until)})
			}
		}
		if len(secrets) > maxSecrets {
			return false, fault.New(fault.Precondition, "%d older secrets still sign; rotate with \"overlap\": \"0s\", or wait until one of them has ended", len(secrets)-1)
		}
		state.Secrets = secrets
		out = secretsOf(state)
		return true, nil
	})
	return out, err
}
