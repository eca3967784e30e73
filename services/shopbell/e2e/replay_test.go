package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

type replay struct {
	ID            string `json:"id"`
	Status        string `json:"status"`
	Reason        string `json:"reason"`
	Total         int    `json:"total"`
	Done          int    `json:"done"`
	Skipped       int    `json:"skipped"`
	SkippedReason string `json:"skipped_reason"`
	Sample        []delivery
}

// publishMany publishes events 0 to n-1.
func (h *house) publishMany(t *testing.T, shop string, n int) {
	t.Helper()
	for first := 0; first < n; first += 500 {
		var lines []string
		for i := first; i < min(first+500, n); i++ {
			lines = append(lines, fmt.Sprintf(`{"type":"order.created","id":"order-%d","data":{"n":%d,"total": 549.50}}`, i, i))
		}
		h.publish(t, shop, strings.Join(lines, "\n"), "Content-Type", "application/x-ndjson")
	}
}

// awaitCount waits until the log holds n deliveries that a filter chooses.
func (h *house) awaitCount(t *testing.T, shop, filter string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the log has %d with %s", n, filter), func() error {
		a, err := h.try(t.Context(), "GET", "/v1/shops/"+shop+"/deliveries:export?"+filter, nil)
		if err != nil {
			return err
		}
		if got := strings.Count(string(a.body), "\n"); got != n {
			return fmt.Errorf("got %d", got)
		}
		return nil
	})
}

// awaitReplay waits until a job has a status, and gives it.
func (h *house) awaitReplay(t *testing.T, shop, id, status string) (now replay) {
	t.Helper()
	eventually(t, "the replay is "+status, func() error {
		a, err := h.try(t.Context(), "GET", "/v1/shops/"+shop+"/replays/"+id, nil)
		if err != nil {
			return err
		}
		if a.code != http.StatusOK {
			return fmt.Errorf("it answers %d %s", a.code, a.body)
		}
		now = replay{}
		if err := json.Unmarshal(a.body, &now); err != nil {
			return err
		}
		if now.Status != status {
			return fmt.Errorf("it is %+v", now)
		}
		return nil
	})
	return now
}

func TestReplay_SkipsNothingOverAKill(t *testing.T) {
	const n = 2000
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/hook", answer{code: 500})
		h.newWebhook(t, "blomster", r.url+"/hook", `"policy": {"max_attempts": 1}`)
		h.publishMany(t, "blomster", n)
		h.awaitCount(t, "blomster", "status=failed", n)
		r.answer("/hook", answer{})

		dry := get[replay](t, h, "POST", "/v1/shops/blomster/replays", `{"status": "failed", "response_code": "5xx", "dry_run": true}`)
		if dry.Total != n || dry.Status != "dry_run" || len(dry.Sample) == 0 || dry.Sample[0].Status != "failed" || len(r.at("/hook")) != n {
			t.Fatalf("dry run: got %+v, want %d and a sample, and nothing sent", dry, n)
		}
		job := get[replay](t, h, "POST", "/v1/shops/blomster/replays", `{"status": "failed", "rate_per_second": 300}`)
		if job.Total != n || !strings.HasPrefix(job.ID, "job_") {
			t.Fatalf("got %+v, want a job for %d", job, n)
		}
		at := "/v1/shops/blomster/replays/" + job.ID
		r.await(t, "/hook", n+n/10) // the others take six seconds, in which it is paused
		get[replay](t, h, "POST", at+":pause", `{}`)
		if now := h.awaitReplay(t, "blomster", job.ID, "paused"); now.Done == n || !strings.HasPrefix(now.Reason, "paused") {
			t.Errorf("paused: got %+v, want it in the midst", now)
		}
		get[replay](t, h, "POST", at+":resume", `{}`)
		r.await(t, "/hook", n+n/4)
		victim := "all"
		if h.way == many {
			victim = "log"
		}
		h.kill(t, victim)
		h.start(t, victim)
		now := h.awaitReplay(t, "blomster", job.ID, "done")
		// Of the chunk that was under way at the kill some may have been delivered by the time it is taken up again.
		if now.Done > n || now.Done < n-100 || now.Skipped != 0 {
			t.Errorf("done: got %+v, want %d", now, n)
		}
		h.awaitCount(t, "blomster", "status=delivered", n)
		sent := map[string]int{}
		for _, in := range r.at("/hook") {
			if in.code == http.StatusOK {
				sent[in.order()]++
			}
		}
		twice := 0
		for i := range n {
			switch got := sent[fmt.Sprint(i)]; {
			case got == 0:
				t.Fatalf("order %d was skipped", i)
			case got > 1:
				twice++
			}
		}
		t.Logf("%d of %d were sent more than once", twice, n)
		if twice > 1000 { // of the kill: a chunk, and what the senders had at hand
			t.Errorf("%d of %d were sent more than once", twice, n)
		}
		var told refusal
		a := h.call(t, "POST", at+":cancel", `{}`)
		if a.read(t, &told); told.Code != 9 || !strings.Contains(told.Message, "is done") {
			t.Errorf("cancel of what is done: got %d %s, want FAILED_PRECONDITION", a.code, a.body)
		}
		e := h.awaitEvent(t, "blomster", "order-7", allAre("delivered", 1))
		e.Story.says(t, "attempt 1", "answered 500", "attempt 2, by replay "+job.ID, "answered 200", "delivered")
		if list := get[struct{ Replays []replay }](t, h, "GET", "/v1/shops/blomster/replays", ""); len(list.Replays) != 1 || list.Replays[0].ID != job.ID {
			t.Errorf("list: got %+v, want the job alone, and no dry run", list)
		}
		if list := get[struct{ Replays []replay }](t, h, "GET", "/v1/shops/andre/replays", ""); len(list.Replays) != 0 {
			t.Errorf("another shop's list: got %+v, want none", list)
		}
		if a := h.call(t, "GET", "/v1/shops/andre/replays/"+job.ID, ""); a.code != http.StatusNotFound {
			t.Errorf("another shop's job: got %d, want 404", a.code)
		}
	})
}

func TestReplay_SendsATimeSpansEventsToANewWebhook(t *testing.T) {
	const n = 300
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		before := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
		h.publishMany(t, "blomster", n) // nobody wants them yet
		h.publish(t, "blomster", `{"type":"stock.changed","id":"stock-1","data":{"n":1000}}`)
		for i := range n { // or one might be matched only when there is somebody who wants it
			h.awaitEvent(t, "blomster", fmt.Sprintf("order-%d", i), allAre("", 0))
		}
		w := h.newWebhook(t, "blomster", r.url+"/new", `"events": ["order.created"]`, `"filter": "int(data.n) % 3 == 0"`, `"transform": "{'order': data.n}"`)
		body := fmt.Sprintf(`{"to_webhook_id": %q, "from": %q, "rate_per_second": 1000`, w.ID, before)
		if dry := get[replay](t, h, "POST", "/v1/shops/blomster/replays", body+`, "dry_run": true}`); dry.Total != n/3 || len(dry.Sample) != 10 {
			t.Fatalf("dry run: got %+v, want %d", dry, n/3)
		}
		job := get[replay](t, h, "POST", "/v1/shops/blomster/replays", body+`}`)
		if now := h.awaitReplay(t, "blomster", job.ID, "done"); now.Done != n/3 || now.Total != n/3 {
			t.Errorf("got %+v, want %d", now, n/3)
		}
		h.awaitCount(t, "blomster", "status=delivered&webhook_id="+w.ID, n/3)
		got := r.at("/new")
		for _, in := range got {
			var body struct{ Order int }
			if err := json.Unmarshal(in.body, &body); err != nil || len(got) != n/3 || body.Order%3 != 0 {
				t.Fatalf("got %d requests, such as %s; want every third event, transformed", len(got), in.body)
			}
		}
		e := h.awaitEvent(t, "blomster", "order-3", allAre("delivered", 1))
		e.Story.says(t, "accepted", "attempt 1, by replay "+job.ID, "delivered to "+w.ID)

		// Again: the same deliveries, whose attempts count on.
		again := get[replay](t, h, "POST", "/v1/shops/blomster/replays", body+`}`)
		h.awaitReplay(t, "blomster", again.ID, "done")
		r.await(t, "/new", 2*n/3)
		e = h.awaitEvent(t, "blomster", "order-3", func(e event) error {
			if d := e.Story.Deliveries; len(d) != 1 || d[0].AttemptsMade != 2 {
				return fmt.Errorf("got %+v, want one delivery with two attempts", d)
			}
			return nil
		})
		e.Story.says(t, "attempt 2, by replay "+again.ID)

		for name, bad := range map[string]struct{ body, says string }{
			"nothing chosen":           {`{}`, "name at least one filter"},
			"everything that ever was": {`{"to": "2026-05-01T10:30:00Z"}`, "name at least one filter"},
			"events without from":      {fmt.Sprintf(`{"to_webhook_id": %q}`, w.ID), "from: it is missing"},
			"events of long ago":       {fmt.Sprintf(`{"to_webhook_id": %q, "from": "2020-05-01T10:30:00Z"}`, w.ID), "from: events are kept for 720h"},
			"events and deliveries":    {fmt.Sprintf(`{"to_webhook_id": %q, "from": %q, "status": "failed"}`, w.ID, before), "status:"},
			"too fast":                 {`{"status": "failed", "rate_per_second": 100000}`, "rate_per_second:"},
			"an unknown field":         {`{"stauts": "failed"}`, "did you mean"},
			"no such webhook":          {fmt.Sprintf(`{"to_webhook_id": "wh_none", "from": %q}`, before), "was deleted"},
		} {
			if a := h.call(t, "POST", "/v1/shops/blomster/replays", bad.body); a.code != http.StatusBadRequest || !strings.Contains(string(a.body), bad.says) {
				t.Errorf("%s: got %d %s, want 400 that says %q", name, a.code, a.body, bad.says)
			}
		}
		get[webhook](t, h, "POST", "/v1/shops/blomster/webhooks/"+w.ID+":disable", `{}`)
		job = get[replay](t, h, "POST", "/v1/shops/blomster/replays", fmt.Sprintf(`{"webhook_id": %q}`, w.ID))
		if now := h.awaitReplay(t, "blomster", job.ID, "done"); now.Skipped != n/3 || !strings.Contains(now.SkippedReason, "is off") {
			t.Errorf("to a webhook that is off: got %+v, want all skipped, and why", now)
		}
	})
}
