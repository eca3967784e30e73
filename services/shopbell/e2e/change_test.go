package e2e

import (
	"fmt"
	"testing"
)

// Whoever has been answered that a webhook is changed publishes to the changed one.
func TestWebhook_AChangeHoldsForWhatIsPublishedAfterIt(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		w := h.newWebhook(t, "blomster", r.url+"/0")
		at := "/v1/shops/blomster/webhooks/" + w.ID
		const rounds = 200
		keys := make([]string, rounds)
		for i := range rounds {
			get[webhook](t, h, "PATCH", at, fmt.Sprintf(`{"url":"%s/%d"}`, r.url, i))
			keys[i] = get[secrets](t, h, "POST", at+":rotate_secret", `{"overlap": "0s"}`).Secret
			h.publish(t, "blomster", numbered(fmt.Sprintf("e-%d", i), i))
		}
		wrongKey, wrongPlace := 0, 0
		for i := range rounds {
			h.awaitEvent(t, "blomster", fmt.Sprintf("e-%d", i), allAre("delivered", 1))
			for _, in := range r.at(fmt.Sprintf("/%d", i)) {
				var n int
				if _, err := fmt.Sscan(in.order(), &n); err != nil {
					t.Fatal(err)
				}
				// By then the webhook may have been changed again, but never back.
				if n > i {
					wrongPlace++
				}
				if n == i && verified(t, in, keys[i]) != nil {
					wrongKey++
				}
			}
		}
		if wrongPlace > 0 || wrongKey > 0 {
			t.Errorf("of %d events, %d went to the address before the change and %d were signed with the secret before it, want none", rounds, wrongPlace, wrongKey)
		}
	})
}
