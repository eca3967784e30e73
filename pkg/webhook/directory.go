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
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/profile"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// Directory is all webhooks, in memory, kept by following their bucket. It may be used at once.
type Directory struct {
	profiles *profile.Set
	log      *slog.Logger
	bucket   jetstream.KeyValue

	mu      sync.RWMutex // guards what follows
	byShop  map[string]*shelf
	changed chan struct{} // closed at the next change; nil while nobody waits
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

// Open makes a directory that knows no webhook yet; Follow fills it.
func Open(ctx context.Context, b *bus.Bus, profiles *profile.Set, log *slog.Logger) (*Directory, error) {
	bucket, err := b.Bucket(ctx, contract.Webhooks)
	if err != nil {
		return nil, err
	}
	return &Directory{profiles: profiles, log: log, bucket: bucket, byShop: map[string]*shelf{}}, nil
}

// Follow is a watch (see bus.Together) that keeps the directory until ctx ends; filled is called when it knows every
// webhook.
func (d *Directory) Follow(b *bus.Bus) func(ctx context.Context, filled func()) error {
	return func(ctx context.Context, filled func()) error {
		return b.Watch(ctx, contract.Webhooks, func(entry bus.Entry) { d.put(ctx, entry) }, filled)
	}
}

func (d *Directory) put(ctx context.Context, entry bus.Entry) {
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
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
	if w == nil {
		if delete(s.byID, id); len(s.byID) == 0 {
			delete(d.byShop, shop)
		}
	} else {
		s.byID[id] = w
	}
}

func (d *Directory) parse(entry bus.Entry) (*Webhook, error) {
	state := &busv1.WebhookState{}
	if err := proto.Unmarshal(entry.Value(), state); err != nil {
		return nil, fmt.Errorf("parse the webhook %s: %w", entry.Key(), err)
	}
	return New(state, entry.Revision(), d.profiles), nil
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
	entry, err := d.bucket.Get(ctx, contract.WebhookKey(shop, id))
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read webhook %s: %w", id, err)
	}
	return d.parse(entry)
}

// Await returns when the directory knows a webhook at this revision or a later one, or when ctx ends.
func (d *Directory) Await(ctx context.Context, shop, id string, revision uint64) {
	for {
		d.mu.Lock()
		if s := d.byShop[shop]; s != nil && s.byID[id] != nil && s.byID[id].Revision >= revision {
			d.mu.Unlock()
			return
		}
		if d.changed == nil {
			d.changed = make(chan struct{})
		}
		changed := d.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// All are the webhooks of a shop, oldest first. The slice must not be changed.
func (d *Directory) All(shop string) []*Webhook {
	v := d.viewsOf(shop)
	if v == nil {
		return nil
	}
	return v.all
}

// Subscribed are the webhooks of a shop that subscribe to an event type, by its name or, unless it is a notice, to all
// types.
func (d *Directory) Subscribed(shop, eventType string) []*Webhook {
	v := d.viewsOf(shop)
	if v == nil {
		return nil
	}
	named := v.byType[eventType]
	if len(v.any) == 0 || notice.Is(eventType) {
		return named
	}
	return append(slices.Clip(v.any), named...)
}

// With are all webhooks of all shops that have a status.
func (d *Directory) With(status string) (out []*Webhook) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, s := range d.byShop {
		for _, w := range s.byID {
			if w.Webhook.Status == status {
				out = append(out, w)
			}
		}
	}
	return out
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

// isNotFound also holds for an id that no webhook can have, such as one with a blank.
func isNotFound(err error) bool {
	return err != nil && (errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrKeyDeleted) || errors.Is(err, jetstream.ErrInvalidKey))
}
