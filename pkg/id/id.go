// Package id makes the ids that Shopbell gives: a prefix that says what it names, and a ULID that sorts by time.
package id

import (
	"crypto/rand"
	"crypto/sha256"
	"time"

	"github.com/oklog/ulid/v2"
)

// The prefixes, one for each thing that is named.
const (
	Event    = "evt_"
	Webhook  = "wh_"
	Delivery = "dlv_"
	Key      = "key_"
	Job      = "job_"
	Fault    = "err_"
	Sender   = "snd_"
)

// New makes an id that no other process makes either. It may be called at once.
func New(prefix string, at time.Time) string {
	return prefix + ulid.MustNew(ulid.Timestamp(at), rand.Reader).String()
}

// Derived makes the id that these parts have at that time: the same parts always give the same id, so that whoever
// repeats work after a crash makes no second thing. Parts are told apart by their place; none may hold a zero byte.
func Derived(prefix string, at time.Time, parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	var u ulid.ULID
	_ = u.SetTime(ulid.Timestamp(at)) // fails only for times after the year 10889
	_ = u.SetEntropy(h.Sum(nil)[:10])
	return prefix + u.String()
}
