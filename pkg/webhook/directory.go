package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/profile"
)

// Directory is all webhooks, in memory, kept by following their bucket. It may be used at once.
type Directory struct {
	profiles *profile.Set
	bucket   jetstream.KeyValue
	mirror   *bus.Mirror[*Webhook, *views]
}

// views are a shop's webhooks in the orders in which they are asked for.
type views struct {
	all    []*Webhook      // by id, which is by age
	any    []*Webhook      // those that want every type
	named  []*Webhook      // those that name types, by type: one that names several is there several times
	byType map[string]part // of named; a list for each type would be many objects
}

type part struct{ from, to int32 }

// Open makes a directory that knows no webhook yet; Follow fills it.
func Open(ctx context.Context, b *bus.Bus, profiles *profile.Set, log *slog.Logger) (*Directory, error) {
	bucket, err := b.Bucket(ctx, contract.Webhooks)
	if err != nil {
		return nil, err
	}
	d := &Directory{profiles: profiles, bucket: bucket}
	d.mirror = bus.NewMirror(bus.Kind[*Webhook, *views]{
		Bucket: contract.Webhooks, Place: contract.ParseWebhookKey, Parse: d.parse, View: newViews,
	}, log)
	return d, nil
}

// Follow is a watch (see bus.Together) that keeps the directory until ctx ends; filled is called when it knows every
// webhook.
func (d *Directory) Follow(b *bus.Bus) func(ctx context.Context, filled func()) error {
	return d.mirror.Follow(b)
}

func (d *Directory) parse(entry bus.Entry) (*Webhook, error) {
	w, err := read(entry.Value(), entry.Revision(), d.profiles)
	if err != nil {
		return nil, fmt.Errorf("parse the webhook %s: %w", entry.Key(), err)
	}
	return w, nil
}

// Get gives a webhook, or nil.
func (d *Directory) Get(shop, id string) *Webhook {
	w, _ := d.mirror.Get(shop, id)
	return w
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

// Await returns when the directory knows a webhook at this revision or a later one, or, for revision 0, when it does not
// know it; or when ctx ends.
func (d *Directory) Await(ctx context.Context, shop, id string, revision uint64) {
	d.mirror.Await(ctx, shop, id, revision)
}

// All are the webhooks of a shop, oldest first. The slice must not be changed.
func (d *Directory) All(shop string) []*Webhook {
	v := d.mirror.Of(shop)
	if v == nil {
		return nil
	}
	return v.all
}

// Subscribed are the webhooks of a shop that subscribe to an event type, by its name or, unless it is a notice, to all
// types.
func (d *Directory) Subscribed(shop, eventType string) []*Webhook {
	v := d.mirror.Of(shop)
	if v == nil {
		return nil
	}
	at := v.byType[eventType]
	named := v.named[at.from:at.to:at.to]
	if len(v.any) == 0 || notice.Is(eventType) {
		return named
	}
	return slices.Concat(v.any, named)
}

// With are all webhooks of all shops that have a status.
func (d *Directory) With(status string) (out []*Webhook) {
	d.mirror.Each(func(w *Webhook) {
		if w.Status == status {
			out = append(out, w)
		}
	})
	return out
}

// Count is how many webhooks there are.
func (d *Directory) Count() int { return d.mirror.Len() }

func newViews(all []*Webhook) *views {
	slices.SortFunc(all, func(a, b *Webhook) int { return strings.Compare(a.ID, b.ID) })
	type naming struct {
		name string
		at   int // in all
	}
	v := &views{all: all, byType: map[string]part{}}
	var list []naming
	for at, w := range all {
		if slices.Contains(w.Events, AnyType) {
			v.any = append(v.any, w)
			continue
		}
		for _, t := range w.Events {
			list = append(list, naming{t, at})
		}
	}
	slices.SortFunc(list, func(a, b naming) int { return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.at, b.at)) })
	v.named = make([]*Webhook, len(list))
	from := 0
	for i, n := range list {
		v.named[i] = all[n.at]
		if i+1 == len(list) || list[i+1].name != n.name {
			v.byType[n.name] = part{int32(from), int32(i + 1)}
			from = i + 1
		}
	}
	return v
}

// isNotFound also holds for an id that no webhook can have, such as one with a blank.
func isNotFound(err error) bool {
	return err != nil && (errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrKeyDeleted) || errors.Is(err, jetstream.ErrInvalidKey))
}
