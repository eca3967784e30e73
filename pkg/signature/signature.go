// Package signature signs what is sent to receivers, and verifies it for those who receive.
package signature

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
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

// What stands before the base64 of keys, as Standard Webhooks has it.
const (
	secretPrefix  = "whsec_"
	privatePrefix = "whsk_"
	publicPrefix  = "whpk_"
)

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
	if strings.HasPrefix(text, privatePrefix) || strings.HasPrefix(text, publicPrefix) {
		return Secret{}, fmt.Errorf("%s and %s begin the keys of asymmetric signatures, which Shopbell makes itself; leave the secret out, or give one that begins with %s", privatePrefix, publicPrefix, secretPrefix)
	}
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

// PrivateKey signs so that receivers need not be able to sign themselves: they verify with its public key.
type PrivateKey struct {
	key    ed25519.PrivateKey
	public string
}

// NewPrivateKey makes the 32 bytes that a private key is kept as.
func NewPrivateKey() []byte {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails (crypto/rand)
	return seed
}

// ParsePrivateKey reads what NewPrivateKey has made.
func ParsePrivateKey(seed []byte) (PrivateKey, error) {
	if len(seed) != ed25519.SeedSize {
		return PrivateKey{}, fmt.Errorf("it has %d bytes, and not %d", len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)
	return PrivateKey{key, publicPrefix + base64.StdEncoding.EncodeToString(key[ed25519.SeedSize:])}, nil
}

// Public is the public key as Standard Webhooks writes it.
func (k PrivateKey) Public() string { return k.public }

// StandardEd25519 gives what Standard does with asymmetric signatures, which begin with "v1a,". Both may stand in one
// webhook-signature, with a blank between them.
func StandardEd25519(keys []PrivateKey, id string, at time.Time, body []byte) string {
	signed := content(id, strconv.FormatInt(at.Unix(), 10), body)
	var out []byte
	for i, k := range keys {
		if i > 0 {
			out = append(out, ' ')
		}
		out = append(out, "v1a,"...)
		out = base64.StdEncoding.AppendEncode(out, ed25519.Sign(k.key, signed))
	}
	return string(out)
}

// content is what Standard Webhooks signs.
func content(id, stamp string, body []byte) []byte {
	return slices.Concat([]byte(id), []byte{'.'}, []byte(stamp), []byte{'.'}, body)
}

// Hex gives HMAC-SHA256 over the body alone, keyed with the secret's text, in lower-case hex (SHOPS.md S1.19).
func Hex(secret Secret, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret.text))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// Errors of VerifyStandard and VerifyHex.
var (
	ErrTimestamp = errors.New("webhook-timestamp is missing, no number, or too far from now")
	ErrSignature = errors.New("no signature of the request is one of this body")
)

// VerifyStandard checks a request as its receiver: the values of the three headers and the body as it came. The key is
// the secret, or for asymmetric signatures the public key, which begins with "whpk_"; of the request's signatures those
// of the other sort do not count. A request whose timestamp is further from now than the tolerance is refused, for it may
// be an old one sent again; five minutes are usual.
func VerifyStandard(key, id, timestamp, signatures string, body []byte, now time.Time, tolerance time.Duration) error {
	version, isGood, err := verifier(key, id, timestamp, body)
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return ErrTimestamp
	}
	for text := range strings.FieldsSeq(signatures) {
		if text, ok := strings.CutPrefix(text, version); ok {
			if got, err := base64.StdEncoding.DecodeString(text); err == nil && isGood(got) {
				return nil
			}
		}
	}
	return ErrSignature
}

// VerifyHex checks what Hex has made as its receiver: the signature, without what stands before it in its header, and the
// body as it came.
func VerifyHex(secret, signature string, body []byte) error {
	parsed, err := ParseSecret(secret)
	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}
	if !hmac.Equal([]byte(signature), []byte(Hex(parsed, body))) {
		return ErrSignature
	}
	return nil
}

// verifier gives what stands before the signatures that a key verifies, and what says whether one of them is good.
func verifier(key, id, stamp string, body []byte) (version string, isGood func(got []byte) bool, err error) {
	encoded, ok := strings.CutPrefix(key, publicPrefix)
	if !ok {
		secret, err := ParseSecret(key)
		if err != nil {
			return "", nil, fmt.Errorf("secret: %w", err)
		}
		want := standard(secret.key, id, stamp, body)
		return "v1,", func(got []byte) bool { return hmac.Equal(got, want) }, nil
	}
	public, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return "", nil, fmt.Errorf("public key: what follows %s is not the base64 of %d bytes", publicPrefix, ed25519.PublicKeySize)
	}
	signed := content(id, stamp, body)
	return "v1a,", func(got []byte) bool { return ed25519.Verify(public, signed, got) }, nil
}
