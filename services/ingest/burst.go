package ingest

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// bursts tells which shops publish more at once than their share. It may be used at once.
type bursts struct {
	perSecond int // 0: none is told apart

	mu    sync.Mutex // guards shops
	shops map[string]*rate.Limiter
}

const (
	// burstOf is how many seconds' worth of events a shop may publish at once.
	burstOf = 5
	// maxShops is how many shops are remembered before those that have been quiet are forgotten.
	maxShops = 10_000
)

// take counts n events of a shop, and says whether they are a burst.
func (b *bursts) take(shop string, n int, now time.Time) bool {
	if b.perSecond == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.shops[shop]
	if l == nil {
		if len(b.shops) >= maxShops {
			b.forget(now)
		}
		l = rate.NewLimiter(rate.Limit(b.perSecond), burstOf*b.perSecond)
		if b.shops == nil {
			b.shops = map[string]*rate.Limiter{}
		}
		b.shops[shop] = l
	}
	return !l.AllowN(now, n)
}

// forget drops the shops that have their whole share again. It is called with the lock.
func (b *bursts) forget(now time.Time) {
	for shop, l := range b.shops {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(b.shops, shop)
		}
	}
}
