package signature_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"shopbell.dev/pkg/signature"
)

func TestStandard_IsAcceptedByTheStandardWebhooksLibrary(t *testing.T) {
	for _, body := range []string{`{"total":549.50}`, "", "Hajdú-Bihar \\/ <&>", "\x00\xff binary"} {
		first, second := signature.NewSecret(), signature.NewSecret()
		keys := []signature.Secret{parse(t, first), parse(t, second)}
		now := time.Now()
		value := signature.Standard(keys, "dlv_1", now, []byte(body))
		for _, secret := range []string{first, second} {
			library, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			h := http.Header{}
			h.Set(signature.HeaderID, "dlv_1")
			h.Set(signature.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
			h.Set(signature.HeaderSignature, value)
			if err := library.Verify([]byte(body), h); err != nil {
				t.Errorf("library refuses the signature of %q: %v", body, err)
			}
		}
	}
}

// What the specification says of v1a, by the standard library alone: Ed25519 over id, timestamp and body with full stops
// between them, in base64; the public key is 32 bytes in base64 behind whpk_.
func TestStandardEd25519_IsWhatTheSpecificationSays(t *testing.T) {
	first, second := privateKey(t), privateKey(t)
	if first.Public() == second.Public() {
		t.Fatal("two private keys are the same")
	}
	now := time.Now()
	for _, body := range []string{`{"total":549.50}`, "", "Hajdú-Bihar \\/ <&>", "\x00\xff binary"} {
		value := signature.StandardEd25519([]signature.PrivateKey{first, second}, "dlv_1", now, []byte(body))
		both := strings.Split(value, " ")
		if len(both) != 2 {
			t.Fatalf("%q, want two signatures", value)
		}
		for i, key := range []signature.PrivateKey{first, second} {
			public, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key.Public(), "whpk_"))
			if err != nil || len(public) != 32 || !strings.HasPrefix(key.Public(), "whpk_") {
				t.Fatalf("public key %q: %v", key.Public(), err)
			}
			got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(both[i], "v1a,"))
			if err != nil || !strings.HasPrefix(both[i], "v1a,") {
				t.Fatalf("signature %q: %v", both[i], err)
			}
			if !ed25519.Verify(public, []byte(fmt.Sprintf("dlv_1.%d.%s", now.Unix(), body)), got) {
				t.Errorf("%q is no signature of %q", both[i], body)
			}
		}
	}
}

// What a receiver in PHP does, by libsodium.
func TestStandardEd25519_IsTakenByPHP(t *testing.T) {
	php, err := exec.LookPath("php")
	if err != nil {
		const missing = "php is missing (apt-get install php-cli): libsodium is not asked about signatures"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	const script = `[, $public, $signature, $id, $stamp, $body] = array_map('base64_decode', $argv);
		echo sodium_crypto_sign_verify_detached(base64_decode(substr($signature, 4)), "$id.$stamp.$body", base64_decode(substr($public, 5))) ? 'yes' : 'no';`
	key := privateKey(t)
	now := time.Now()
	body := "{\"name\":\"Søren Ærø – 日本 😀\",\"url\":\"https:\\/\\/x\"}\x00\xff"
	value := signature.StandardEd25519([]signature.PrivateKey{key}, "dlv_1", now, []byte(body))
	for want, public := range map[string]string{"yes": key.Public(), "no": privateKey(t).Public()} {
		args := []string{"-n", "-r", script, "--"}
		for _, arg := range []string{public, value, "dlv_1", strconv.FormatInt(now.Unix(), 10), body} {
			args = append(args, base64.StdEncoding.EncodeToString([]byte(arg)))
		}
		out, err := exec.CommandContext(t.Context(), php, args...).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("with the public key %s: %s, %v, want %s", public, out, err, want)
		}
	}
}

// A pair that is known, so that nothing about keys can drift.
func TestPrivateKey_HasThePublicKeyOfItsSeed(t *testing.T) {
	// RFC 8032, 7.1, test 1.
	seed, err := hex.DecodeString("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
	if err != nil {
		t.Fatal(err)
	}
	key, err := signature.ParsePrivateKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	public, err := hex.DecodeString("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
	if err != nil {
		t.Fatal(err)
	}
	if want := "whpk_" + base64.StdEncoding.EncodeToString(public); key.Public() != want {
		t.Errorf("public key %s, want %s", key.Public(), want)
	}
	for _, seed := range [][]byte{nil, seed[1:], append(seed, 0)} {
		if _, err := signature.ParsePrivateKey(seed); err == nil {
			t.Errorf("a private key of %d bytes is taken", len(seed))
		}
	}
}

// A receiver knows the secret or the public key, and looks at the signatures of its sort alone.
func TestVerifyStandard_TakesEitherSort(t *testing.T) {
	secret, key, other := signature.NewSecret(), privateKey(t), privateKey(t)
	now := time.Now()
	stamp := strconv.FormatInt(now.Unix(), 10)
	v1 := signature.Standard([]signature.Secret{parse(t, secret)}, "dlv_1", now, []byte("body"))
	v1a := signature.StandardEd25519([]signature.PrivateKey{key}, "dlv_1", now, []byte("body"))
	for _, row := range []struct {
		name, key, signatures, body string
		want                        error
	}{
		{"the secret, both sorts", secret, v1a + " " + v1, "body", nil},
		{"the public key, both sorts", key.Public(), v1 + " " + v1a, "body", nil},
		{"the public key, its sort alone", key.Public(), v1a, "body", nil},
		{"the public key, the other sort alone", key.Public(), v1, "body", signature.ErrSignature},
		{"the secret, the other sort alone", secret, v1a, "body", signature.ErrSignature},
		{"another public key", other.Public(), v1a, "body", signature.ErrSignature},
		{"another body", key.Public(), v1a, "bodY", signature.ErrSignature},
		{"one sort's signature as the other's", key.Public(), "v1a," + strings.TrimPrefix(v1, "v1,"), "body", signature.ErrSignature},
	} {
		if got := signature.VerifyStandard(row.key, "dlv_1", stamp, row.signatures, []byte(row.body), now, 5*time.Minute); !errors.Is(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
	for _, bad := range []string{"whpk_", "whpk_AAAA", "whpk_not base64", "whsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="} {
		if err := signature.VerifyStandard(bad, "dlv_1", stamp, v1a, []byte("body"), now, 5*time.Minute); err == nil || errors.Is(err, signature.ErrSignature) {
			t.Errorf("key %q: %v, want it refused", bad, err)
		}
	}
}

func privateKey(t *testing.T) signature.PrivateKey {
	t.Helper()
	key, err := signature.ParsePrivateKey(signature.NewPrivateKey())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestVerifyStandard_RefusesWhatWasChanged(t *testing.T) {
	secret := signature.NewSecret()
	now := time.Now()
	stamp := strconv.FormatInt(now.Unix(), 10)
	good := signature.Standard([]signature.Secret{parse(t, secret)}, "dlv_1", now, []byte("body"))
	for _, row := range []struct {
		name, id, stamp, signatures, body string
		now                               time.Time
		want                              error
	}{
		{"as it was sent", "dlv_1", stamp, good, "body", now, nil},
		{"one of several", "dlv_1", stamp, "v1a,xx v1,AAAA " + good, "body", now, nil},
		{"another body", "dlv_1", stamp, good, "bodY", now, signature.ErrSignature},
		{"another id", "dlv_2", stamp, good, "body", now, signature.ErrSignature},
		{"another time", "dlv_1", strconv.FormatInt(now.Unix()+1, 10), good, "body", now, signature.ErrSignature},
		{"no signature", "dlv_1", stamp, "", "body", now, signature.ErrSignature},
		{"an old request again", "dlv_1", stamp, good, "body", now.Add(6 * time.Minute), signature.ErrTimestamp},
		{"no number", "dlv_1", "now", good, "body", now, signature.ErrTimestamp},
	} {
		got := signature.VerifyStandard(secret, row.id, row.stamp, row.signatures, []byte(row.body), row.now, 5*time.Minute)
		if !errors.Is(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

func TestVerifyHex_RefusesWhatWasChanged(t *testing.T) {
	secret := signature.NewSecret()
	good := signature.Hex(parse(t, secret), []byte("body"))
	for _, row := range []struct {
		name, secret, signature, body string
		want                          error
	}{
		{"as it was sent", secret, good, "body", nil},
		{"another body", secret, good, "bodY", signature.ErrSignature},
		{"another secret", signature.NewSecret(), good, "body", signature.ErrSignature},
		{"upper case", secret, strings.ToUpper(good), "body", signature.ErrSignature},
		{"with its prefix", secret, "sha256=" + good, "body", signature.ErrSignature},
		{"none", secret, "", "body", signature.ErrSignature},
	} {
		if got := signature.VerifyHex(row.secret, row.signature, []byte(row.body)); !errors.Is(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
	if err := signature.VerifyHex("short", good, []byte("body")); err == nil || errors.Is(err, signature.ErrSignature) {
		t.Errorf("a secret that is none: %v", err)
	}
}

func TestParseSecret_RefusesWhatCannotSign(t *testing.T) {
	for _, secret := range []string{"", "short", "whsec_", "whsec_AAAA", "whsec_not base64!", "whsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "whpk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", strings.Repeat("x", 129)} {
		if _, err := signature.ParseSecret(secret); err == nil {
			t.Errorf("ParseSecret(%q): no error", secret)
		}
	}
}

func FuzzVerifyStandard(f *testing.F) {
	f.Add("dlv_1", "1700000000", "v1,AAAA", []byte("body"))
	f.Add("dlv_1", "1700000000", "v1a,"+strings.Repeat("A", 86)+"==", []byte("body"))
	f.Fuzz(func(t *testing.T, id, stamp, signatures string, body []byte) {
		for _, key := range []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="} {
			if signature.VerifyStandard(key, id, stamp, signatures, body, time.Unix(1700000000, 0), time.Hour) == nil {
				t.Errorf("a made-up signature was accepted: %q %q %q %q", id, stamp, signatures, body)
			}
		}
	})
}

func parse(t *testing.T, text string) signature.Secret {
	t.Helper()
	s, err := signature.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
