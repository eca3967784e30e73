// Package signature signs what is sent to receivers, and verifies it for those who receive.
package signature

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

const secretPrefix = "whsec_"

// NewSecret makes a secret: 32 random bytes as Standard Webhooks writes them.
func NewSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// Key gives the bytes that a secret signs with: what stands in base64 behind "whsec_", or, for a secret of another
// form, its own bytes. It fails for a secret of fewer than 16 or more than 128 bytes.
func Key(secret string) ([]byte, error) {
	key := []byte(secret)
	if text, ok := strings.CutPrefix(secret, secretPrefix); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, fmt.Errorf("what follows %s is not base64", secretPrefix)
		}
	}
	if len(key) < 16 || len(key) > 128 {
		return nil, fmt.Errorf("it has %d bytes; 16 to 128 are taken, 32 are good", len(key))
	}
	return key, nil
}

// Standard gives the value of webhook-signature: one "v1," signature for each key, with a blank between them, so that
// a receiver may know any of the keys (Standard Webhooks, symmetric signatures).
func Standard(keys [][]byte, id string, at time.Time, body []byte) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	var out []byte
	for i, key := range keys {
		if i > 0 {
			out = append(out, ' ')
		}
		out = append(out, "v1,"...)
		out = base64.StdEncoding.AppendEncode(out, standard(key, id, stamp, body))
	}
	return string(out)
}

func standard(key []byte, id, stamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id))
	mac.Write([]byte{'.'})
	mac.Write([]byte(stamp))
	mac.Write([]byte{'.'})
	mac.Write(body)
	return mac.Sum(nil)
}

// Errors of VerifyStandard.
var (
	ErrTimestamp = errors.New("webhook-timestamp is missing, no number, or too far from now")
	ErrSignature = errors.New("no signature in webhook-signature is one of this body")
)

// VerifyStandard checks a request as its receiver: the values of the three headers and the body as it came. A request
// whose timestamp is further from now than the tolerance is refused, for it may be an old one sent again; five minutes
// are usual.
func VerifyStandard(secret, id, timestamp, signatures string, body []byte, now time.Time, tolerance time.Duration) error {
	key, err := Key(secret)
	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return ErrTimestamp
	}
	want := standard(key, id, timestamp, body)
	for text := range strings.FieldsSeq(signatures) {
		if text, ok := strings.CutPrefix(text, "v1,"); ok {
			if got, err := base64.StdEncoding.DecodeString(text); err == nil && hmac.Equal(got, want) {
				return nil
			}
		}
	}
	return ErrSignature
}
