package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// A customer asks a shop to forget him.
func TestExpunge_APersonIsGoneAndNobodyElse(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook")
		key := get[apiKey](t, h, "POST", "/v1/shops/blomster/api_keys", `{"label": "ERP", "scopes": ["admin"]}`)
		id := map[string]string{}
		for name, email := range map[string]string{"he": "Kunde@example.com", "she": "kundin@example.com"} {
			id[name] = h.publish(t, "blomster", fmt.Sprintf(`{"type": "order.created", "data": {"email": %q}}`, email))[0].ID
			h.awaitEvent(t, "blomster", id[name], allAre("delivered", 1))
		}
		const ask = `{"text": "kunde@example.com"}`
		eventually(t, "a shop's key may not expunge, not even one with the scope admin", func() error {
			if a := h.call(t, "POST", "/v1/shops/blomster:expunge", ask, "Authorization", "Bearer "+key.Key); a.code != http.StatusForbidden {
				return fmt.Errorf("got %d %s, want 403", a.code, a.body)
			}
			return nil
		})
		done := get[struct {
			EventIDs []string `json:"event_ids"`
			Removed  map[string]string
		}](t, h, "POST", "/v1/shops/blomster:expunge", ask)
		if len(done.EventIDs) != 1 || done.EventIDs[0] != id["he"] || done.Removed["EVENTS"] != "1" || done.Removed["OUTCOMES"] != "2" || done.Removed["log/attempts"] != "1" {
			t.Errorf("got %+v, want his event, its two records, and its attempt", done)
		}
		if a := h.call(t, "GET", "/v1/shops/blomster/events/"+id["he"], ""); a.code != http.StatusNotFound {
			t.Errorf("his event: got %d %s, want 404", a.code, a.body)
		}
		h.awaitEvent(t, "blomster", id["she"], allAre("delivered", 1))
	})
}
