package e2e

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
)

// What the shop systems promise of time, over kill -9. Each test has a process of its own, which it kills.

// awaitAttempts waits until the log has n attempts of an event's one delivery: what follows from the last of them is on
// the bus by then.
func (s *premises) awaitAttempts(t *testing.T, id string, n int, most time.Duration) {
	t.Helper()
	within(t, most, fmt.Sprintf("the log has attempt %d", n), func() error {
		var e event
		r := s.call(t, "GET", s.at+"/events/"+id, "")
		if r.code != http.StatusOK {
			return fmt.Errorf("it answers %d %s", r.code, r.body)
		}
		if r.read(t, &e); len(e.Story.Deliveries) != 1 || e.Story.Deliveries[0].AttemptsMade < n {
			return fmt.Errorf("the story so far:\n%s", e.Story)
		}
		return nil
	})
}

// sixAttempts has an order delivered to a receiver that fails, kills the process between attempts 3 and 4 and once more
// after the sixth, and checks that there were six, when they are due. Schedule is what the webhook's policy says.
func sixAttempts(t *testing.T, policy string, schedule []time.Duration) {
	h := open(t, one, nil)
	s, r := h.newShop(t, "cloudcart"), newReceiver(t)
	r.answer("/hook", answer{code: 500})
	w := s.webhook(t, r.url+"/hook", policy)
	id := s.publishOne(t, "order.created", `{"id":10457}`)
	all := patience
	for _, wait := range schedule {
		all += wait
	}
	s.awaitAttempts(t, id, 3, all)
	h.kill(t, "all")
	if got := len(r.at("/hook")); got != 3 {
		t.Fatalf("got %d requests at the kill, want 3: it is to come between the third and the fourth", got)
	}
	h.start(t, "all")
	ready := time.Now()
	s.awaitAttempts(t, id, 6, all)
	got := r.at("/hook")
	if len(got) != 6 {
		t.Fatalf("got %d requests, want 6", len(got))
	}
	for i, want := range schedule {
		due := got[i].at.Add(want)
		at := got[i+1].at
		t.Logf("attempt %d followed after %s, want %s", i+2, at.Sub(got[i].at).Round(time.Millisecond), want)
		if i == 2 && due.Before(ready) { // it was due while nothing ran
			due = ready
		}
		if at.Before(got[i].at.Add(want-20*time.Millisecond)) || at.After(due.Add(slack)) {
			t.Errorf("attempt %d came at %s, want it at %s", i+2, at, due)
		}
	}
	// A seventh never comes, not after another kill either: what is published next is all that does.
	s.awaitOne(t, id, "failed")
	h.kill(t, "all")
	h.start(t, "all")
	r.answer("/hook", answer{})
	next := s.publishOne(t, "order.created", `{"id":10458}`)
	s.awaitOne(t, next, "delivered")
	if got := r.at("/hook"); len(got) != 7 || string(got[6].body) != `{"id":10458}` {
		t.Errorf("got %d requests, want the six and the next event's one", len(got))
	}
	d, told := s.awaitOne(t, id, "failed")
	if d.AttemptsMade != 6 || len(d.Attempts) != 6 {
		t.Errorf("the log has %d attempts, want 6", len(d.Attempts))
	}
	told.says(t, "attempt 3", "attempt 4", "attempt 5", "attempt 6", "given up after 6 attempts")
	if now := s.read(t, w.ID); now.Status != "enabled" {
		t.Errorf("the webhook is %s, want it enabled", now.Status)
	}
}

func TestCloudCart_S3_14_SixAttemptsOverAKill(t *testing.T) {
	t.Parallel()
	schedule := slices.Clone(scaled)
	schedule[2] = 8 * time.Second // long enough for the kill to come before the fourth
	sixAttempts(t, waits(schedule...), schedule)
}

// The same with the clocks of the document, for which the whole of it takes 15 minutes.
func TestCloudCart_S3_14_RealClocks(t *testing.T) {
	if os.Getenv("SHOPBELL_SLOW_TESTS") == "" {
		t.Skip("takes 15 minutes: set SHOPBELL_SLOW_TESTS=1, and -timeout 20m")
	}
	t.Parallel()
	var real []time.Duration
	for _, wait := range scaled {
		real = append(real, 100*wait)
	}
	sixAttempts(t, `"label": "with the profile's own rules"`, real)
}

func TestShoprenter_S4_10_DelaySurvivesAKill(t *testing.T) {
	t.Parallel()
	h := open(t, one, nil)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	s.webhook(t, r.url+"/meanwhile", `"delay": {"value": 8, "unit": "second"}`) // long enough for the kill to come before it
	s.webhook(t, r.url+"/later", `"delay": {"value": 12, "unit": "second"}`)
	id := s.publishOne(t, "order_confirm", `{"n":1}`)
	s.awaitStory(t, id, 2, func(logEntry) error { return nil })
	accepted := s.acceptedAt(t, id)
	h.kill(t, "all")
	time.Sleep(time.Until(accepted.Add(8200 * time.Millisecond))) // the first is due while nothing runs
	if n := len(r.at("/meanwhile")) + len(r.at("/later")); n != 0 {
		t.Fatalf("%d were sent before the kill, want none", n)
	}
	h.start(t, "all")
	ready := time.Now()
	for path, want := range map[string]time.Duration{"/meanwhile": 8 * time.Second, "/later": 12 * time.Second} {
		due := accepted.Add(want)
		if due.Before(ready) {
			due = ready
		}
		in := r.await(t, path, 1)
		t.Logf("%s was sent %s after the event", path, in[0].at.Sub(accepted).Round(time.Millisecond))
		if at := in[0].at; at.Before(accepted.Add(want)) || at.After(due.Add(slack)) {
			t.Errorf("%s was sent at %s, want it at %s", path, at, due)
		}
	}
	s.awaitStory(t, id, 2, is("delivered"))
	if a, b := len(r.at("/meanwhile")), len(r.at("/later")); a != 1 || b != 1 {
		t.Errorf("they were sent %d and %d times, want once each", a, b)
	}
}

func TestShops_S5_06_TimersHoldMonthsOverAKill(t *testing.T) {
	t.Parallel()
	h := open(t, one, nil)
	s, r := h.newShop(t, "shoprenter"), newReceiver(t)
	const day = 24 * time.Hour
	days := map[string]time.Duration{} // by webhook
	for _, n := range []int{31, 90, 366} {
		res := s.webHooks(t, resource("order_confirm", "json", r.url+"/hook", fmt.Sprintf(`, "webHookDelay": [{"delay": %d, "delayUnit": "day"}]`, n)))
		days[res.IDs[0]] = time.Duration(n) * day
	}
	refused := s.refused(t, http.StatusBadRequest, "POST", s.at+"/webHooks", resource("order_confirm", "json", r.url+"/hook", `, "webHookDelay": [{"delay": 367, "delayUnit": "day"}]`))
	if !strings.Contains(refused.Message, "366 days") {
		t.Errorf("367 days: got %q, want the bound to be named", refused.Message)
	}
	id := s.publishOne(t, "order_confirm", `{"n": 1.50}`)
	for round := range 3 {
		byWebhook, _ := s.awaitStory(t, id, len(days), is("delayed"))
		accepted := s.acceptedAt(t, id)
		h.kill(t, "all")
		timers := readTimers(t, h.data, byWebhook)
		for webhook, want := range days {
			if due := timers[webhook].due; (due.Sub(accepted) - want).Abs() > time.Millisecond {
				t.Errorf("round %d: on the bus it is due %s after the event, want %s", round+1, due.Sub(accepted), want)
			}
			if got := timers[webhook].data; got != `{"n": 1.50}` { // D6: as it was at the event
				t.Errorf("round %d: on the bus it has the data %q", round+1, got)
			}
		}
		h.start(t, "all")
	}
	// Whoever starts again goes on with what is due, and with nothing else.
	soon := s.webhook(t, r.url+"/soon", `"delay": {"value": 1, "unit": "second"}`)
	next := s.publishOne(t, "order_confirm", `{"n": 2}`)
	s.awaitStory(t, next, len(days)+1, func(d logEntry) error {
		if d.WebhookID == soon.ID && d.Status != "delivered" {
			return errors.New("it waits")
		}
		return nil
	})
	if n := len(r.at("/hook")); n != 0 {
		t.Errorf("%d were sent months too early", n)
	}
}

type timer struct {
	due  time.Time
	data string
}

// readTimers opens the bus in the data folder of a process that is gone, and reads the timers of deliveries.
func readTimers(t *testing.T, folder string, byWebhook map[string]logEntry) map[string]timer {
	t.Helper()
	server, err := bus.Embed(bus.EmbedConfig{Dir: filepath.Join(folder, "bus"), Sync: time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	conn, err := nats.Connect("", server.Option())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), contract.Later)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]timer{}
	for webhook, d := range byWebhook {
		m, err := stream.GetLastMsgForSubject(t.Context(), contract.LaterSubject(webhook, d.ID))
		if err != nil {
			t.Fatalf("the timer of %s: %v", d.ID, err)
		}
		text, ok := strings.CutPrefix(m.Header.Get("Nats-Schedule"), "@at ")
		due, err := time.Parse(time.RFC3339Nano, text)
		if !ok || err != nil {
			t.Fatalf("the timer of %s has the headers %v", d.ID, m.Header)
		}
		out[webhook] = timer{due, string(m.Data)}
	}
	return out
}
