package run

import (
	"context"
	"log/slog"

	"shopbell.dev/pkg/shop"
	"shopbell.dev/pkg/webhook"
)

// directories are those that the rooms of a process share: each is made for the first room that asks for it, and followed
// once. So a process keeps in memory what its rooms need, and nothing twice.
type directories struct {
	log      *slog.Logger // the process's: what they say is of no room
	shops    *shop.Directory
	webhooks *webhook.Directory
	links    []Named
}

// Shops is the process's directory of the shops' settings, the same for every room. A room asks for it when it is made, and
// not later; it is filled before the room runs, and followed until the room is gone.
func (e *Env) Shops() (*shop.Directory, error) {
	all := e.directories()
	if all.shops == nil {
		shops, err := shop.NewDirectory(e.Shop, e.Profiles, all.log)
		if err != nil {
			return nil, err
		}
		all.shops, all.links = shops, append(all.links, Named{"shops", follower(shops.Follow(e.Bus))})
	}
	return all.shops, nil
}

// Webhooks is the process's directory of all webhooks, for which the same holds as for Shops. The context bounds how long
// the bus may take to open their bucket.
func (e *Env) Webhooks(ctx context.Context) (*webhook.Directory, error) {
	all := e.directories()
	if all.webhooks == nil {
		webhooks, err := webhook.Open(ctx, e.Bus, e.Profiles, all.log)
		if err != nil {
			return nil, err
		}
		all.webhooks, all.links = webhooks, append(all.links, Named{"webhooks", follower(webhooks.Follow(e.Bus))})
	}
	return all.webhooks, nil
}

// Directories are those that rooms have asked for, as links of a chain that stand before the rooms.
func (e *Env) Directories() []Named { return e.directories().links }

func (e *Env) directories() *directories {
	if e.shared == nil {
		e.shared = &directories{log: e.Log}
	}
	return e.shared
}
