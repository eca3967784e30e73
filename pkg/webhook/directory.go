package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Directory is all webhooks and all shops' settings, in memory, kept by watching their buckets. It may be used at once.
type Directory struct {
	profiles *profile.Set
	log      *slog.Logger
	webhooks jetstream.KeyValue

	mu       sync.RWMutex // guards what follows
	byShop   map[string]*shelf
	settings map[string]*shopbellv1.Shop
}

// shelf is the webhooks of one shop. The sorted views are made when they are next asked for.
type shelf struct {
	byID  map[string]*Webhook
	views *views
}

type views struct {
	all    []*Webhook            // by id, which is by age
	byType map[string][]*Webhook // those that name the type
	any    []*Webhook            // those that want every type
}

// Open makes a directory and fills it; it follows the buckets from then on once Follow is called.
func Open(ctx context.Context, b *bus.Bus, profiles *profile.Set, log *slog.Logger) (*Directory, error) {
	webhooks, err := b.Bucket(ctx, contract.Webhooks)
	if err != nil {
		return nil, err
	}
	return &Directory{
		profiles: profiles, log: log, webhooks: webhooks,
		byShop: map[string]*shelf{}, settings: map[string]*shopbellv1.Shop{},
	}, nil
}

// Follow fills the directory, calls filled when it holds all there is, and follows the buckets until ctx ends.
func (d *Directory) Follow(ctx context.Context, b *bus.Bus, filled func()) error {
	shops, err := b.Bucket(ctx, contract.Shops)
	if err != nil {
		return err
	}
	webhookWatch, err := d.webhooks.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch webhooks: %w", err)
	}
	defer func() { _ = webhookWatch.Stop() }()
	shopWatch, err := shops.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch shops: %w", err)
	}
	defer func() { _ = shopWatch.Stop() }()
	for waiting := 2; ; {
		var entry jetstream.KeyValueEntry
		var ok bool
		put := d.putShop
		select {
		case <-ctx.Done():
			return nil
		case entry, ok = <-webhookWatch.Updates():
			put = d.putWebhook
		case entry, ok = <-shopWatch.Updates():
		}
		switch {
		case !ok:
			return fmt.Errorf("watch of webhooks or shops ended")
		case entry != nil:
			put(ctx, entry)
		default: // all there was at first has come
			if waiting--; waiting == 0 {
				filled()
			}
		}
	}
}

func (d *Directory) putWebhook(ctx context.Context, entry jetstream.KeyValueEntry) {
	shop, id, ok := contract.ParseWebhookKey(entry.Key())
	if !ok {
		d.log.ErrorContext(ctx, "a key in the bucket names no webhook", slog.String("key", entry.Key()))
		return
	}
	var w *Webhook
	if entry.Operation() == jetstream.KeyValuePut {
		var err error
		if w, err = d.parse(entry); err != nil {
			d.log.ErrorContext(ctx, "webhook cannot be read", slog.String("shop_id", shop), slog.String("webhook_id", id), slog.Any("error", err))
			return
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.byShop[shop]
	if s == nil {
		s = &shelf{byID: map[string]*Webhook{}}
		d.byShop[shop] = s
	}
	s.views = nil
	if w == nil {
		if delete(s.byID, id); len(s.byID) == 0 {
			delete(d.byShop, shop)
		}
	} else {
		s.byID[id] = w
	}
}

func (d *Directory) parse(entry jetstream.KeyValueEntry) (*Webhook, error) {
	state := &busv1.WebhookState{}
	if err := proto.Unmarshal(entry.Value(), state); err != nil {
		return nil, fmt.Errorf("parse the webhook %s: %w", entry.Key(), err)
	}
	return New(state, entry.Revision(), d.profiles), nil
}

func (d *Directory) putShop(ctx context.Context, entry jetstream.KeyValueEntry) {
	shop := contract.ParseShopKey(entry.Key())
	state := &busv1.ShopState{}
	if err := proto.Unmarshal(entry.Value(), state); err != nil {
		d.log.ErrorContext(ctx, "shop cannot be read", slog.String("shop_id", shop), slog.Any("error", err))
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settings[shop] = state.Shop
}

// Get gives a webhook, or nil.
func (d *Directory) Get(shop, id string) *Webhook {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if s := d.byShop[shop]; s != nil {
		return s.byID[id]
	}
	return nil
}

// Fetch gives a webhook as it is in the bucket right now, or nil when there is none: for those who meet a webhook that
// Get does not know, which may be deleted or so new that the directory has yet to hear of it.
func (d *Directory) Fetch(ctx context.Context, shop, id string) (*Webhook, error) {
	entry, err := d.webhooks.Get(ctx, contract.WebhookKey(shop, id))
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read webhook %s: %w", id, err)
	}
	return d.parse(entry)
}

// All are the webhooks of a shop, oldest first. The slice must not be changed.
func (d *Directory) All(shop string) []*Webhook {
	v := d.viewsOf(shop)
	if v == nil {
		return nil
	}
	return v.all
}

// Subscribed are the webhooks of a shop that subscribe to an event type, by its name or to all types.
func (d *Directory) Subscribed(shop, eventType string) []*Webhook {
	v := d.viewsOf(shop)
	if v == nil {
		return nil
	}
	named := v.byType[eventType]
	if len(v.any) == 0 {
		return named
	}
	return append(slices.Clip(v.any), named...)
}

// Settings are those of a shop that were set; never nil.
func (d *Directory) Settings(shop string) *shopbellv1.Shop {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if s := d.settings[shop]; s != nil {
		return s
	}
	return &shopbellv1.Shop{Id: shop}
}

// Count is how many webhooks there are.
func (d *Directory) Count() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := 0
	for _, s := range d.byShop {
		n += len(s.byID)
	}
	return n
}

func (d *Directory) viewsOf(shop string) *views {
	d.mu.RLock()
	s := d.byShop[shop]
	if s == nil || s.views != nil {
		defer d.mu.RUnlock()
		if s == nil {
			return nil
		}
		return s.views
	}
	d.mu.RUnlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.views == nil {
		s.views = newViews(s.byID)
	}
	return s.views
}

func newViews(byID map[string]*Webhook) *views {
	v := &views{all: make([]*Webhook, 0, len(byID)), byType: map[string][]*Webhook{}}
	for _, w := range byID {
		v.all = append(v.all, w)
	}
	slices.SortFunc(v.all, func(a, b *Webhook) int { return strings.Compare(a.Webhook.Id, b.Webhook.Id) })
	for _, w := range v.all {
		if slices.Contains(w.Webhook.Events, AnyType) {
			v.any = append(v.any, w)
			continue
		}
		for _, t := range w.Webhook.Events {
			v.byType[t] = append(v.byType[t], w)
		}
	}
	return v
}

func isNotFound(err error) bool {
	return err != nil && (errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrKeyDeleted))
}
