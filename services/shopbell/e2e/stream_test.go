package e2e

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// told is one of the things that a live tail says.
type told struct {
	id, event string
	data      struct {
		Delivery delivery
		Missed   int
	}
}

// listen opens a live tail; what it says comes through the channel, which is closed when the tail ends.
func (h *house) listen(t *testing.T, ctx context.Context, path string, headers ...string) <-chan told {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.key != "" {
		req.Header.Set("Authorization", "Bearer "+h.key)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: client.Transport}).Do(req) // without the timeout
	if err != nil {
		t.Fatal(err)
	}
	if c := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || c != "text/event-stream" {
		t.Fatalf("tail: got %s with %s, want 200 with text/event-stream", resp.Status, c)
	}
	said := make(chan told, 1000)
	go func() {
		defer close(said)
		defer func() { _ = resp.Body.Close() }()
		var now told
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				now.id = value
			case "event":
				now.event = value
			case "data":
				_ = json.Unmarshal([]byte(value), &now.data)
			case "":
				if now.event != "" {
					said <- now
				}
				now = told{}
			}
		}
	}()
	return said
}

// await waits until a tail has said all of these of deliveries to a webhook ("attempt retrying"), in whichever order, and gives
// what it said. Who decides and who sends do not wait for each other: that a delivery is pending may be said after its first attempt.
func await(t *testing.T, said <-chan told, wants ...string) map[string]told {
	t.Helper()
	got := map[string]told{}
	for late := time.After(patience); ; {
		missing := slices.DeleteFunc(slices.Clone(wants), func(want string) bool { _, is := got[want]; return is })
		if len(missing) == 0 {
			return got
		}
		select {
		case now, ok := <-said:
			if !ok {
				t.Fatalf("the tail ended before it said %q", missing)
			}
			got[now.event+" "+now.data.Delivery.Status] = now
		case <-late:
			t.Fatalf("the tail does not say %q", missing)
		}
	}
}

func TestTail_SaysWhatHappensUntilTheEnd(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/hook", answer{code: 500}, answer{code: 200})
		h.newWebhook(t, "blomster", r.url+"/hook", policy("0.2s"))
		ctx, leave := context.WithCancel(t.Context())
		all := h.listen(t, ctx, "/v1/shops/blomster/deliveries:tail")
		failing := h.listen(t, t.Context(), "/v1/shops/blomster/deliveries:tail?response_code=5xx")
		other := h.listen(t, t.Context(), "/v1/shops/andre/deliveries:tail")
		back := h.listen(t, t.Context(), "/v1/shops/blomster/deliveries:tail", "Last-Event-ID", "3")
		if first := <-back; first.event != "gap" {
			t.Errorf("whoever comes back: got %+v first, want a gap", first)
		}
		id := h.publish(t, "blomster", `{"type":"order.created","data":{"n":1}}`)[0].ID
		said := await(t, all, "status pending", "attempt retrying", "attempt delivered")
		made, again, done := said["status pending"], said["attempt retrying"], said["attempt delivered"]
		if d := done.data.Delivery; d.EventID != id || d.ID != made.data.Delivery.ID || len(d.Attempts) != 1 || d.Attempts[0].Number != 2 {
			t.Errorf("got %+v, want attempt 2 of %s of event %s", d, made.data.Delivery.ID, id)
		}
		if made.id == "" || again.id == "" || done.id <= again.id && len(done.id) <= len(again.id) {
			t.Errorf("got ids %q, %q and then %q, want the attempts' ascending", made.id, again.id, done.id)
		}
		if got := await(t, failing, "attempt retrying")["attempt retrying"]; got.data.Delivery.ResponseCode != 500 {
			t.Errorf("5xx alone: got %+v", got)
		}
		leave()
		for range all {
		}
		for path, want := range map[string]string{
			"?from=2026-05-01T10:30:00Z": "from:", "?status=lost": "status:", "?statsu=failed": "did you mean",
		} {
			if a := h.call(t, "GET", "/v1/shops/blomster/deliveries:tail"+path, ""); a.code != http.StatusBadRequest || !strings.Contains(string(a.body), want) {
				t.Errorf("%s: got %d %s, want 400 that says %q", path, a.code, a.body, want)
			}
		}
		// Those who still listen do not keep anybody from stopping, and their answers end in order.
		for _, p := range h.processes {
			if p.name == "shopbell" || p.name == "gateway" {
				begun := time.Now()
				p.stop(t)
				t.Logf("%s stopped after %s", p.name, time.Since(begun).Round(time.Millisecond))
				p.begin(t)
				p.awaitReady(t)
			}
		}
		for now := range failing {
			t.Errorf("5xx alone: got %+v after its one", now)
		}
		for now := range other {
			t.Errorf("another shop was told %+v", now)
		}
	})
}

func TestExport_HoldsWhatTheListHolds(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		const n = 700 // more than a page
		r := newReceiver(t)
		r.answerBy("/hook", func(in *received) answer {
			if strings.HasSuffix(in.order(), "7") {
				return answer{code: 500, body: "no"}
			}
			return answer{}
		})
		h.newWebhook(t, "blomster", r.url+"/hook", policy("0.1s"))
		var lines []string
		for i := range n {
			// A customer may write a type as he likes, and a program for tables may take it for a formula.
			lines = append(lines, fmt.Sprintf(`{"type":"%s","id":"=cmd|'A0'-%d","data":{"n":%d}}`, []string{"-a", "order.created"}[i%2], i, i))
		}
		h.publish(t, "blomster", strings.Join(lines, "\n"), "Content-Type", "application/x-ndjson")
		var failed, total int
		eventually(t, "all is over", func() error {
			a := h.call(t, "GET", "/v1/shops/blomster/deliveries:export", "")
			failed, total = strings.Count(string(a.body), `"status":"failed"`), strings.Count(string(a.body), "\n")
			if done := strings.Count(string(a.body), `"status":"delivered"`); done+failed != n || total != n {
				return fmt.Errorf("%d delivered and %d failed in %d lines", done, failed, total)
			}
			return nil
		})
		if failed != n/10 {
			t.Errorf("got %d that failed, want %d", failed, n/10)
		}
		a := h.call(t, "GET", "/v1/shops/blomster/deliveries:export?format=csv&status=failed&what=deliveries", "")
		rows, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
		if err != nil || len(rows) != failed+1 || rows[0][0] != "id" || rows[0][6] != "status" {
			t.Fatalf("CSV: got %d rows, %v, the first %v; want a title and %d", len(rows), err, rows[0], failed)
		}
		for _, row := range rows[1:] {
			if row[6] != "failed" || !strings.HasPrefix(row[3], "'=cmd") {
				t.Fatalf("CSV: got %v, want one that failed, and nothing that is a formula", row)
			}
		}
		a = h.call(t, "GET", "/v1/shops/blomster/deliveries:export?format=csv&what=attempts&response_code=5xx", "")
		if rows, err = csv.NewReader(strings.NewReader(string(a.body))).ReadAll(); err != nil || len(rows) != 2*failed+1 {
			t.Errorf("attempts as CSV: got %d rows, %v; want a title and two each of %d", len(rows), err, failed)
		}
		a = h.call(t, "GET", "/v1/shops/blomster/deliveries:export?what=attempts&status=failed&event_type=order.created", "")
		type exported struct {
			DeliveryID string `json:"delivery_id"`
			Attempt    struct {
				attempt
				ResponseBody string `json:"response_body"`
			}
		}
		seen := 0
		for line := range strings.Lines(string(a.body)) {
			var one exported
			if err := json.Unmarshal([]byte(line), &one); err != nil || one.Attempt.ResponseBody != "no" || one.Attempt.Number != seen%2+1 {
				t.Fatalf("attempts as NDJSON: got %s (%v), want one with its answer, in order", line, err)
			}
			seen++
		}
		if seen != 2*failed {
			t.Errorf("attempts as NDJSON: got %d, want %d", seen, 2*failed)
		}
		for query, want := range map[string]string{"format=xls": "format:", "what=attemps": "did you mean", "page_size=3": "page_size:"} {
			if a := h.call(t, "GET", "/v1/shops/blomster/deliveries:export?"+query, ""); a.code != http.StatusBadRequest || !strings.Contains(string(a.body), want) {
				t.Errorf("%s: got %d %s, want 400 that says %q", query, a.code, a.body, want)
			}
		}
	})
}
