package sender

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// What it costs to make a request of 1 KB of data, signed in one way, in two or with a private key; while a rotation's
// overlap lasts, each twice over. A delivery costs some 150 µs in all (docs/speed.md).
func BenchmarkRenderAndSign(b *testing.B) {
	profiles, err := profile.Load(nil)
	if err != nil {
		b.Fatal(err)
	}
	data := []byte(`{"order_id":56789,"note":"` + strings.Repeat("x", 1000) + `"}`)
	for _, row := range []struct {
		name, rules string
		signatures  []string
		secrets     int
	}{
		{"unsigned", "cloudcart", nil, 1},
		{"one", "standard", nil, 1},
		{"one, rotating", "standard", nil, 2},
		{"two", "shoprocket", nil, 1},
		{"two, rotating", "shoprocket", nil, 2},
		{"ed25519", "standard", []string{"standard-webhooks-ed25519"}, 1},
		{"all three, rotating", "standard", []string{"standard-webhooks", "standard-webhooks-ed25519", "hmac-sha256-hex"}, 2},
	} {
		b.Run(row.name, func(b *testing.B) {
			s := state("https://example.com", row.rules)
			s.Webhook.Signatures, s.Secrets = row.signatures, nil
			for range row.secrets {
				s.Secrets = append(s.Secrets, &busv1.Secret{Value: signature.NewSecret(), PrivateKey: signature.NewPrivateKey()})
			}
			w := webhook.New(s, 1, profiles)
			if w.Broken != "" {
				b.Fatal(w.Broken)
			}
			d, shop := delivery(string(data), "application/json"), &shopbellv1.Shop{}
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				made, err := render(d, w, shop)
				if err != nil {
					b.Fatal(err)
				}
				headers(d, w, made, made.bytes(), "Shopbell/test", now)
			}
		})
	}
}

// What it costs to write an exchange as the log shows it.
func BenchmarkExchange_AsTheLogShowsIt(b *testing.B) {
	x := &exchange{
		url: "https://example.com/hooks", began: time.Now(), duration: time.Millisecond, timings: &shopbellv1.Timings{}, code: 200, body: []byte("ok"),
		request: http.Header{
			"User-Agent": {"Shopbell/bench"}, "Content-Type": {"application/json"}, "webhook-id": {"dlv_1"}, "webhook-timestamp": {"1"},
			"webhook-signature": {"v1,abc"}, "traceparent": {"00-ccb605bcfe54e2ecada8db7414d52133-a96b57112b378257-00"},
		},
		response: http.Header{"Content-Length": {"2"}, "Content-Type": {"text/plain"}, "Date": {"Fri, 20 Nov 2026 12:00:00 GMT"}},
	}
	d := delivery("{}", "application/json")
	b.ReportAllocs()
	for b.Loop() {
		x.proto(d, verdict{status: delivered}, "ccb605bcfe54e2ecada8db7414d52133")
	}
}
