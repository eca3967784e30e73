package key

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// Directory is all keys, in memory, kept by following their bucket. It holds no key for webhooks itself, but only what is
// known of it. It may be used at once.
type Directory struct {
	mirror *bus.Mirror[*entry]

	mu     sync.RWMutex // guards what follows
	byHash map[Hash]*Key
	byShop map[string]map[string]*entry // and by id
}

type entry struct {
	*Key
	hash Hash // of a key for access
}

// NewDirectory makes a directory that knows no key yet; Follow fills it.
func NewDirectory(log *slog.Logger) *Directory {
	d := &Directory{byHash: map[Hash]*Key{}, byShop: map[string]map[string]*entry{}}
	d.mirror = bus.NewMirror(contract.Keys, log, parse, d.note)
	return d
}

// Follow is a watch (see bus.Together) that keeps the directory until ctx ends; filled is called when it knows every key.
func (d *Directory) Follow(b *bus.Bus) func(ctx context.Context, filled func()) error {
	return d.mirror.Follow(b)
}

func parse(at bus.Entry) (*entry, error) {
	shop, id, ok := contract.ParseKeyPlace(at.Key())
	state := &busv1.KeyState{}
	if err := proto.Unmarshal(at.Value(), state); err != nil {
		return nil, fmt.Errorf("parse the key at %s: %w", at.Key(), err)
	}
	k := state.GetApiKey()
	// A key is found by its hash alone: what it says of itself must be what its place says.
	if !ok || k.GetShopId() != shop || k.GetId() != id {
		return nil, fmt.Errorf("the key at %s says that it is %s of shop %s", at.Key(), k.GetId(), k.GetShopId())
	}
	out := &entry{Key: &Key{ApiKey: k}}
	if n := copy(out.hash[:], state.GetHash()); k.GetPurpose() == Access && n != len(out.hash) {
		return nil, fmt.Errorf("the key at %s has a hash of %d bytes", at.Key(), len(state.GetHash()))
	}
	return out, nil
}

func (d *Directory) note(place string, e *entry, there bool) {
	shop, id, _ := contract.ParseKeyPlace(place)
	d.mu.Lock()
	defer d.mu.Unlock()
	if was := d.byShop[shop][id]; was != nil {
		delete(d.byHash, was.hash)
		if delete(d.byShop[shop], id); len(d.byShop[shop]) == 0 {
			delete(d.byShop, shop)
		}
	}
	if !there {
		return
	}
	if d.byShop[shop] == nil {
		d.byShop[shop] = map[string]*entry{}
	}
	d.byShop[shop][id] = e
	if e.Purpose == Access {
		d.byHash[e.hash] = e.Key
	}
}

// Find gives the key for access with this hash, or nil. How long it takes may tell something of hashes, of which no key
// can be made.
func (d *Directory) Find(h Hash) *Key {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.byHash[h]
}

// All are the keys of a shop, oldest first.
func (d *Directory) All(shop string) []*Key {
	d.mu.RLock()
	defer d.mu.RUnlock()
	out := make([]*Key, 0, len(d.byShop[shop]))
	for _, e := range d.byShop[shop] {
		out = append(out, e.Key)
	}
	slices.SortFunc(out, func(a, b *Key) int { return strings.Compare(a.Id, b.Id) })
	return out
}

// Await returns when the directory knows a key at this revision or a later one, or, for revision 0, when it no longer
// knows it; or when ctx ends.
func (d *Directory) Await(ctx context.Context, shop, id string, revision uint64) {
	d.mirror.Await(ctx, contract.KeyPlace(shop, id), revision)
}
