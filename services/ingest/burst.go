package ingest

import (
	"sync"
	"time"
)

// bursts tells which shops publish more at once than their share. It may be used at once.
type bursts struct {
	perSecond int // 0: none is told apart

	mu    sync.Mutex // guards shops
	shops map[string]*tank
}

// tank is what a shop has published of late. It empties by the shop's share, and holds twice that.
type tank struct {
	level float64
	at    time.Time
}

// maxShops is how many shops are remembered before those that have been quiet are forgotten.
const maxShops = 10_000

// take counts n events of a shop, and says whether they are a burst: they or those before them are more than a second's share.
// Of a shop that goes on so everything is, until it has published less for a second or two.
func (b *bursts) take(shop string, n int, now time.Time) bool {
	if b.perSecond == 0 {
		return false
	}
	share := float64(b.perSecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.shops[shop]
	if t == nil {
		if len(b.shops) >= maxShops {
			b.forget(now)
		}
		t = &tank{at: now}
		if b.shops == nil {
			b.shops = map[string]*tank{}
		}
		b.shops[shop] = t
	}
	t.level = min(t.now(share, now)+float64(n), 2*share)
	t.at = now
	return t.level > share
}

func (t *tank) now(share float64, now time.Time) float64 {
	return max(0, t.level-share*now.Sub(t.at).Seconds())
}

// forget drops the shops that have their whole share again. It is called with the lock.
func (b *bursts) forget(now time.Time) {
	for shop, t := range b.shops {
		if t.now(float64(b.perSecond), now) == 0 {
			delete(b.shops, shop)
		}
	}
}
