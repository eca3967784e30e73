// Package signature signs what is sent to receivers, and verifies it for those who receive.
package signature

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
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

// Secret is a signing secret, read.
type Secret struct {
	text string
	key  []byte
}

// ParseSecret reads a secret. Standard Webhooks signs with what stands in base64 behind "whsec_", or, for a secret of
// another form, with its own bytes; other schemes sign with the secret's text as its owner sees it. It fails for a secret
// whose key has fewer than 16 or more than 128 bytes.
func ParseSecret(text string) (Secret, error) {
	key := []byte(text)
	if encoded, ok := strings.CutPrefix(text, secretPrefix); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return Secret{}, fmt.Errorf("what follows %s is not base64", secretPrefix)
		}
	}
	if len(key) < 16 || len(key) > 128 {
		return Secret{}, fmt.Errorf("it has %d bytes; 16 to 128 are taken, 32 are good", len(key))
	}
	return Secret{text, key}, nil
}

// Standard gives the value of webhook-signature: one "v1," signature for each secret, with a blank between them, so that
// a receiver may know any of them (Standard Webhooks, symmetric signatures).
func Standard(secrets []Secret, id string, at time.Time, body []byte) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	var out []byte
	for i, secret := range secrets {
		if i > 0 {
			out = append(out, ' ')
		}
		out = append(out, "v1,"...)
		out = base64.StdEncoding.AppendEncode(out, standard(secret.key, id, stamp, body))
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

// Hex gives HMAC-SHA256 over the body alone, keyed with the secret's text, in lower-case hex (SHOPS.md S1.19).
func Hex(secret Secret, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret.text))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
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
	parsed, err := ParseSecret(secret)
	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return ErrTimestamp
	}
	want := standard(parsed.key, id, timestamp, body)
	for text := range strings.FieldsSeq(signatures) {
		if text, ok := strings.CutPrefix(text, "v1,"); ok {
			if got, err := base64.StdEncoding.DecodeString(text); err == nil && hmac.Equal(got, want) {
				return nil
			}
		}
	}
	return ErrSignature
}
