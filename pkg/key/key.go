// Package key is the shops' keys: what they open, how often, and a directory of all of them that follows the bucket
// they are kept in.
package key

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"time"

	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Prefix is what every key begins with, so that people and programs that look for secrets know one.
const Prefix = "sbk_"

// The purposes of a key.
const (
	Access   = "access"   // opens calls to us
	Webhooks = "webhooks" // is sent to receivers, and opens nothing
)

// The scopes of a key for access.
const (
	EventsWrite   = "events:write"
	WebhooksRead  = "webhooks:read"
	WebhooksWrite = "webhooks:write"
	LogRead       = "log:read"
	LogWrite      = "log:write"
	Admin         = "admin" // all of them, the shop's settings, and its keys
)

// Scopes are all scopes.
var Scopes = []string{EventsWrite, WebhooksRead, WebhooksWrite, LogRead, LogWrite, Admin}

// Default is the id of the key for webhooks that every shop has.
const Default = "key_default"

// New makes a key: 256 random bits.
func New() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	return Prefix + base64.RawURLEncoding.EncodeToString(random)
}

// Looks says whether a text looks like a key of ours.
func Looks(text string) bool { return strings.HasPrefix(text, Prefix) }

// LastFour are the characters by which people know a key.
func LastFour(text string) string { return text[len(text)-4:] }

// Hash is what is kept of a key for access. It is a plain one: the key is 256 random bits, and nobody finds it by trying,
// however fast that is. Slow hashes protect passwords, and would have every request pay for it.
type Hash [sha256.Size]byte

// HashOf gives a key's hash.
func HashOf(text string) Hash { return sha256.Sum256([]byte(text)) }

// Key is a shop's key. It may be used at once.
type Key struct {
	*shopbellv1.ApiKey

	hash      Hash // of a key for access
	allowance allowance
}

// String names the key as stories do: its id, and its label in brackets.
func (k *Key) String() string {
	if k.Label == "" {
		return k.Id
	}
	return k.Id + " (" + k.Label + ")"
}

// May says whether the key has a scope.
func (k *Key) May(scope string) bool {
	return slices.Contains(k.Scopes, scope) || slices.Contains(k.Scopes, Admin)
}

// Take notes that so many events are published with the key, or gives how long to wait until they may be. Without a key,
// or without a rate, they always may.
func (k *Key) Take(events int, now time.Time) (wait time.Duration) {
	if k == nil || k.RatePerSecond == nil {
		return 0
	}
	return k.allowance.take(k.GetRatePerSecond(), events, now)
}

// allowance is how many events may be published now: as many as one second brings, at least one. Whoever may publish at
// all may publish a whole batch, which is then paid off: so a batch of any size gets through at any rate, and the rate
// holds over time.
type allowance struct {
	mu    sync.Mutex // guards what follows
	left  float64    // below 1: wait
	since time.Time  // when left was so; zero: nothing was published yet
}

func (a *allowance) take(perSecond float64, events int, now time.Time) (wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	most := max(1, perSecond)
	if a.since.IsZero() {
		a.left = most
	} else {
		a.left = min(most, a.left+perSecond*max(0, now.Sub(a.since).Seconds()))
	}
	a.since = now
	if a.left < 1 {
		// A millisecond more than it takes: what waits so long is not refused for a rounding error.
		return time.Duration((1-a.left)/perSecond*float64(time.Second)) + time.Millisecond
	}
	a.left -= float64(events)
	return 0
}
