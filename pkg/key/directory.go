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
	mirror *bus.Mirror[*Key, []*Key]

	mu     sync.RWMutex // guards byHash
	byHash map[Hash]*Key
}

// NewDirectory makes a directory that knows no key yet; Follow fills it.
func NewDirectory(log *slog.Logger) *Directory {
	d := &Directory{byHash: map[Hash]*Key{}}
	d.mirror = bus.NewMirror(bus.Kind[*Key, []*Key]{
		Bucket: contract.Keys, Place: contract.ParseKeyPlace, Parse: parse, View: sorted, Note: d.note,
	}, log)
	return d
}

// Follow is a watch (see bus.Together) that keeps the directory until ctx ends; filled is called when it knows every key.
func (d *Directory) Follow(b *bus.Bus) func(ctx context.Context, filled func()) error {
	return d.mirror.Follow(b)
}

func parse(at bus.Entry) (*Key, error) {
	shop, id, _ := contract.ParseKeyPlace(at.Key())
	state := &busv1.KeyState{}
	if err := proto.Unmarshal(at.Value(), state); err != nil {
		return nil, err
	}
	k := &Key{ApiKey: state.GetApiKey()}
	// A key is found by its hash alone: what it says of itself must be what its place says.
	if k.GetShopId() != shop || k.GetId() != id {
		return nil, fmt.Errorf("it says that it is %s of shop %s", k.GetId(), k.GetShopId())
	}
	if n := copy(k.hash[:], state.GetHash()); k.Purpose == Access && n != len(k.hash) {
		return nil, fmt.Errorf("its hash has %d bytes", n)
	}
	return k, nil
}

func sorted(keys []*Key) []*Key {
	slices.SortFunc(keys, func(a, b *Key) int { return strings.Compare(a.Id, b.Id) })
	return keys
}

func (d *Directory) note(was, is *Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if was != nil {
		delete(d.byHash, was.hash)
	}
	if is != nil && is.Purpose == Access {
		d.byHash[is.hash] = is
	}
}

// Find gives the key for access with this hash, or nil. How long it takes may tell something of hashes, of which no key
// can be made.
func (d *Directory) Find(h Hash) *Key {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.byHash[h]
}

// All are the keys of a shop, oldest first. The slice must not be changed.
func (d *Directory) All(shop string) []*Key { return d.mirror.Of(shop) }

// Await returns when the directory knows a key at this revision or a later one, or, for revision 0, when it no longer
// knows it; or when ctx ends.
func (d *Directory) Await(ctx context.Context, shop, id string, revision uint64) {
	d.mirror.Await(ctx, shop, id, revision)
}
