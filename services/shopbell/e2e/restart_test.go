package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// restart stops all processes in order, has something done meanwhile, and starts them again.
func (h *house) restart(t *testing.T, meanwhile func()) {
	t.Helper()
	for _, p := range slices.Backward(h.processes) {
		p.stop(t)
	}
	meanwhile()
	for _, p := range h.processes {
		p.begin(t)
	}
	for _, p := range h.processes {
		p.awaitReady(t)
	}
}

func TestRestart_PendingDeliveriesGoOn(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		up := false // whether Shopbell is about to be up again; read and written with the receiver's lock
		r.answerBy("/soon", func(*received) answer {
			if up {
				return answer{}
			}
			return answer{code: 500}
		})
		r.answer("/late", answer{code: 500}, answer{})
		soon := h.newWebhook(t, "blomster", r.url+"/soon", policy("4s", "4s", "4s", "4s", "4s"))
		h.newWebhook(t, "blomster", r.url+"/late", policy("8s"))
		h.newWebhook(t, "blomster", r.url+"/delayed", `"delay": {"value": 8, "unit": "second"}`)
		id := h.publish(t, "blomster", `{"type":"order.created","data":`+payload+`}`)[0].ID
		r.await(t, "/soon", 1)
		r.await(t, "/late", 1)
		var before int // attempts at /soon: one, unless stopping takes long
		h.restart(t, func() {
			// It is down until one of the timers has passed.
			made := r.at("/soon")
			before = len(made)
			time.Sleep(time.Until(made[before-1].at.Add(4500 * time.Millisecond)))
			if got := len(r.at("/soon")); got != before {
				t.Errorf("/soon was sent %d while nothing runs, want none", got-before)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			up = true
		})
		for path, n := range map[string]int{"/soon": before + 1, "/late": 2, "/delayed": 1} {
			got := r.await(t, path, n)
			for _, in := range got {
				if in.id() != got[0].id() || sum(in.data()) != sum([]byte(payload)) {
					t.Errorf("%s: got %s with %q, want %s with the event's bytes", path, in.id(), in.data(), got[0].id())
				}
			}
		}
		if late := r.at("/late"); late[1].at.Sub(late[0].at) < 8*time.Second {
			t.Errorf("/late was tried again after %s, want the schedule's 8s", late[1].at.Sub(late[0].at))
		}
		e := h.awaitEvent(t, "blomster", id, allAre("delivered", 3))
		for _, d := range e.Story.Deliveries {
			if d.WebhookID == soon.ID && len(d.Attempts) != before+1 {
				t.Errorf("got %d attempts, want the %d before the restart and the one after it", len(d.Attempts), before)
			}
		}
		if got := h.publish(t, "blomster", `{"id":"`+id+`","type":"order.created","data":{}}`); got[0].Status != "duplicate" {
			t.Errorf("the same id after a restart: got %v, want duplicate", got)
		}
		next := h.publish(t, "blomster", numbered("next", 1))[0].ID
		h.awaitEvent(t, "blomster", next, allAre("delivered", 3))
		for path, n := range map[string]int{"/soon": before + 2, "/late": 3, "/delayed": 2} {
			if got := len(r.at(path)); got != n {
				t.Errorf("%s was sent %d in all, want %d", path, got, n)
			}
		}
	})
}

// Whoever stops in order finishes what is under way: the receiver is not sent it again.
func TestStop_FinishesWhatIsUnderWay(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		release := make(chan struct{})
		r.answer("/hook", answer{until: release}, answer{})
		h.newWebhook(t, "blomster", r.url+"/hook")
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		r.await(t, "/hook", 1)
		p := h.process("sender")
		stopped := make(chan struct{})
		go func() { defer close(stopped); p.stop(t) }()
		eventually(t, "it is no longer ready", func() error {
			resp, err := quick.Get(p.ready)
			if err != nil {
				return nil // the door is closed
			}
			defer func() { _ = resp.Body.Close() }()
			if resp.StatusCode == http.StatusOK {
				return fmt.Errorf("it says it is ready")
			}
			return nil
		})
		close(release)
		<-stopped
		h.start(t, "sender")
		e := h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		if got := len(e.Story.Deliveries[0].Attempts); got != 1 || len(r.at("/hook")) != 1 {
			t.Errorf("got %d attempts in the log and %d at the receiver, want the one that was under way", got, len(r.at("/hook")))
		}
	})
}

// An attempt that is cut off because the grace is over is none: it is made again, with the same number.
func TestStop_WhatIsInterruptedIsNotAnAttempt(t *testing.T) {
	inBothWays(t, settings{"SHOPBELL_SENDER_GRACE": "500ms"}, func(t *testing.T, h *house) {
		r := newReceiver(t)
		never := make(chan struct{})
		t.Cleanup(func() { close(never) })
		r.answer("/hook", answer{until: never}, answer{})
		h.newWebhook(t, "blomster", r.url+"/hook")
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		r.await(t, "/hook", 1)
		h.stop(t, "sender")
		h.start(t, "sender")
		begun := time.Now()
		e := h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		t.Logf("made again %s after the start", time.Since(begun).Round(time.Millisecond))
		if a := e.Story.Deliveries[0].Attempts; len(a) != 1 || a[0].Number != 1 {
			t.Errorf("got attempts %+v, want one, with number 1", a)
		}
	})
}

func TestProcess_SaysHowItIs(t *testing.T) {
	inBothWays(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook")
		id := h.publish(t, "blomster", numbered("a", 1))[0].ID
		h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		said := func(path, want string) string {
			t.Helper()
			var all strings.Builder
			for _, p := range h.processes {
				if p.name == busServer {
					continue
				}
				resp, err := quick.Get(strings.TrimSuffix(p.ready, "/readyz") + path) // without a key
				if err != nil {
					t.Fatalf("%s %s: %v", p.name, path, err)
				}
				text, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK || !contains(text, want) {
					t.Errorf("%s %s: got %d %.200s, want 200 and %q", p.name, path, resp.StatusCode, text, want)
				}
				all.Write(text)
			}
			return all.String()
		}
		said("/healthz", "ok")
		said("/readyz", "ready")
		for _, want := range []string{
			`shopbell_events_total{status="accepted"} 1`, "shopbell_events_matched_total 1", "shopbell_deliveries_created_total 1",
			`shopbell_attempts_total{error_class="",verdict="delivered"} 1`, "shopbell_delivery_latency_seconds_count 1",
			`shopbell_log_written_total{stream="EVENTS"} 1`, `shopbell_log_written_total{stream="OUTCOMES"} 2`, "shopbell_webhooks 1",
		} {
			eventually(t, "the metrics say "+want, func() error { // what is written is counted a moment later
				if text := said("/metrics", "# HELP "); !strings.Contains(text, want+"\n") {
					return errors.New("they do not")
				}
				return nil
			})
		}
		if a := h.call(t, "GET", "/v1/openapi.json", ""); a.code != http.StatusOK || !contains(a.body, `"/v1/shops/{shop_id}/webhooks"`) {
			t.Errorf("/v1/openapi.json: got %d %.100s, want the API", a.code, a.body)
		}
	})
}
