package signature_test

import (
	"errors"
	"net/http"
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

func TestParseSecret_RefusesWhatCannotSign(t *testing.T) {
	for _, secret := range []string{"", "short", "whsec_", "whsec_AAAA", "whsec_not base64!", strings.Repeat("x", 129)} {
		if _, err := signature.ParseSecret(secret); err == nil {
			t.Errorf("ParseSecret(%q): no error", secret)
		}
	}
}

func FuzzVerifyStandard(f *testing.F) {
	f.Add("dlv_1", "1700000000", "v1,AAAA", []byte("body"))
	f.Fuzz(func(t *testing.T, id, stamp, signatures string, body []byte) {
		if signature.VerifyStandard("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", id, stamp, signatures, body, time.Unix(1700000000, 0), time.Hour) == nil {
			t.Errorf("a made-up signature was accepted: %q %q %q %q", id, stamp, signatures, body)
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
