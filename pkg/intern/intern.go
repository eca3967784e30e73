// Package intern lets those who need equal things share one.
package intern

import (
	"runtime"
	"sync"
	"weak"
)

// Pool is things by what makes them equal, as long as somebody has them. Its zero value is empty. It may be used at once.
type Pool[K comparable, V any] struct {
	mu    sync.Mutex // guards byKey
	byKey map[K]weak.Pointer[V]
}

// Get gives the thing of a key: the one that somebody has, or else the one that build makes. It must not change any more.
// With an error of build comes what it made all the same, which is not shared.
func (p *Pool[K, V]) Get(key K, build func() (*V, error)) (*V, error) {
	if v := p.known(key, nil); v != nil {
		return v, nil
	}
	v, err := build() // not under the lock: it may take a while
	if err != nil {
		return v, err
	}
	return p.known(key, v), nil
}

// known is the thing of a key that somebody has, or else this one, which is known from now on unless it is nil.
func (p *Pool[K, V]) known(key K, anew *V) *V {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v := p.byKey[key].Value(); v != nil || anew == nil {
		return v
	}
	if p.byKey == nil {
		p.byKey = map[K]weak.Pointer[V]{}
	}
	p.byKey[key] = weak.Make(anew)
	runtime.AddCleanup(anew, p.forget, key)
	return anew
}

// forget is called when nobody has a key's thing any more.
func (p *Pool[K, V]) forget(key K) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byKey[key].Value() == nil { // else it was made again meanwhile
		delete(p.byKey, key)
	}
}
