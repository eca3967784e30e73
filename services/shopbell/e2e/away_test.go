package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"shopbell.dev/pkg/rpc"
	ingestv1 "shopbell.dev/proto/shopbell/ingest/v1"
)

// In one process the bus is part of it and cannot be away.
func inManyProcesses(t *testing.T, own settings, test func(t *testing.T, h *house)) {
	t.Helper()
	t.Parallel()
	t.Run(many, func(t *testing.T) { test(t, open(t, many, own)) })
}

func TestBusAway_PublishingSaysComeAgainAndAcceptsNothing(t *testing.T) {
	const bound = 3 * time.Second
	inManyProcesses(t, settings{"SHOPBELL_INGEST_TIMEOUT": bound.String()}, func(t *testing.T, h *house) {
		r := newReceiver(t)
		r.answer("/hook", answer{code: 500}, answer{})
		h.newWebhook(t, "blomster", r.url+"/hook", policy("2s", "2s", "2s"))
		h.publishAgain(t, "blomster", numbered("waiting", 1))
		r.await(t, "/hook", 1)
		h.kill(t, busServer)

		for name, body := range map[string]string{
			"one": numbered("one", 2), "a batch": "[" + numbered("two", 3) + "," + numbered("three", 4) + "]",
		} {
			begun := time.Now()
			a := h.call(t, "POST", "/v1/shops/blomster/events", body)
			if took := time.Since(begun); took > bound+slack {
				t.Errorf("%s: answered after %s, want within the bound of %s", name, took, bound)
			}
			seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
			if a.code != http.StatusServiceUnavailable || err != nil || seconds < 1 {
				t.Errorf("%s: got %d with Retry-After %q, want 503 with seconds", name, a.code, a.header.Get("Retry-After"))
			}
			var why refusal
			if a.read(t, &why); why.Code != int(codes.Unavailable) || !strings.Contains(why.Message, "same ids") {
				t.Errorf("%s: got %s, want UNAVAILABLE that says what to do", name, a.body)
			}
		}
		ctx, conn := h.dial(t, "ingest")
		ingest := ingestv1.NewIngestServiceClient(conn)
		_, err := ingest.Publish(ctx, &ingestv1.PublishRequest{ShopId: "blomster", Event: inProto("four", "order.created", `{"n":5}`)})
		if st := status.Convert(err); st.Code() != codes.Unavailable || rpc.RetryAfter(st) <= 0 {
			t.Errorf("gRPC Publish: got %v, want UNAVAILABLE with RetryInfo", err)
		}
		if a := h.call(t, "POST", "/v1/shops/blomster/webhooks", `{"url":"`+r.url+`/hook","events":["*"]}`); a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("create a webhook: got %d %s, want 503 with Retry-After", a.code, a.body)
		}
		for _, room := range rooms {
			eventually(t, room+" is not ready", func() error { return notReady(h.process(room)) })
		}

		h.start(t, busServer)
		for _, room := range rooms {
			h.process(room).awaitReady(t)
		}
		h.awaitEvent(t, "blomster", "waiting", allAre("delivered", 1))
		refused := []string{"one", "two", "three", "four"}
		for _, id := range refused {
			if a := h.call(t, "GET", "/v1/shops/blomster/events/"+id, ""); a.code != http.StatusNotFound {
				t.Errorf("%s, which was answered 503: got %d %s, want 404", id, a.code, a.body)
			}
		}
		for i, id := range refused {
			if got, repeated := h.publishAgain(t, "blomster", numbered(id, i+2)); got[0].Status != "accepted" && !repeated {
				t.Errorf("%s again: got %v, want accepted", id, got)
			}
			h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		}
		var got []string
		for _, in := range r.at("/hook") {
			got = append(got, in.order())
		}
		slices.Sort(got)
		want := []string{"1", "1", "2", "3", "4", "5"}
		// The bus was killed the moment that the first attempt was made: it may not know of it, and then it is made again.
		if again := slices.Insert(slices.Clone(want), 0, "1"); !slices.Equal(got, want) && !slices.Equal(got, again) {
			t.Errorf("the receiver got %v, want the waiting one twice, or once more, and each other once: %v", got, want)
		}
	})
}

// A bus that is there and does not answer is worse than one that is away: what was written to it may be stored later.
func TestBusHangs_ARepeatIsStillOneDelivery(t *testing.T) {
	const bound = 3 * time.Second
	inManyProcesses(t, settings{"SHOPBELL_INGEST_TIMEOUT": bound.String()}, func(t *testing.T, h *house) {
		r := newReceiver(t)
		h.newWebhook(t, "blomster", r.url+"/hook")
		bus := h.process(busServer)
		bus.pause()
		t.Cleanup(bus.resume)
		batch := "[" + numbered("a", 1) + "," + numbered("b", 2) + "," + numbered("c", 3) + "]"
		for _, body := range []string{batch, numbered("d", 4)} {
			begun := time.Now()
			a := h.call(t, "POST", "/v1/shops/blomster/events", body)
			if took := time.Since(begun); a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || took > bound+slack {
				t.Errorf("got %d %s after %s, want 503 with Retry-After within the bound of %s", a.code, a.body, took, bound)
			}
		}
		bus.resume()
		for _, body := range []string{batch, numbered("d", 4)} {
			statuses := map[string]int{}
			taken, _ := h.publishAgain(t, "blomster", body)
			for _, a := range taken {
				statuses[a.Status]++
			}
			if len(statuses) != 1 {
				t.Errorf("the batch again: got %v, want all of it new or all of it there", statuses)
			}
		}
		for _, id := range []string{"a", "b", "c", "d"} {
			h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		}
		h.barrier(t, r, "/hook", "blomster", 4)
	})
}

// Ingest away is as the bus away; subscription, sender or log away is not the publisher's concern.
func TestRoomAway_PublishingGoesOn(t *testing.T) {
	inManyProcesses(t, nil, func(t *testing.T, h *house) {
		r := newReceiver(t)
		w := h.newWebhook(t, "blomster", r.url+"/hook")
		for i, room := range []string{"subscription", "sender", "log"} {
			h.kill(t, room)
			id := h.publish(t, "blomster", numbered(room, i))[0].ID
			if room == "log" {
				r.await(t, "/hook", i+1) // it is delivered without the log
			}
			path := map[string]string{
				"subscription": "/v1/shops/blomster/webhooks/" + w.ID, "log": "/v1/shops/blomster/events/" + id, "sender": "/v1/shops/blomster/webhooks/" + w.ID + ":test",
			}[room]
			method := "GET"
			if room == "sender" {
				method = "POST"
			}
			if a := h.call(t, method, path, ""); a.code != http.StatusServiceUnavailable || contains(a.body, "dial tcp") {
				t.Errorf("%s %s without %s: got %d %s, want 503 that does not show how rooms talk", method, path, room, a.code, a.body)
			}
			h.start(t, room)
			h.awaitEvent(t, "blomster", id, allAre("delivered", 1))
		}
		h.kill(t, "ingest")
		if a := h.call(t, "POST", "/v1/shops/blomster/events", numbered("x", 9)); a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || contains(a.body, "dial tcp") {
			t.Errorf("publish without ingest: got %d %s, want 503 with Retry-After that does not show how rooms talk", a.code, a.body)
		}
		h.start(t, "ingest")
		h.awaitEvent(t, "blomster", h.publish(t, "blomster", numbered("x", 9))[0].ID, allAre("delivered", 1))
	})
}

// publishAgain publishes events that have ids until they are accepted, as publishers do who are told to come again: a bus that just came
// back may be late. It says whether they were published more than once, so that they may be there already.
func (h *house) publishAgain(t *testing.T, shop, body string) (out []accepted, repeated bool) {
	t.Helper()
	eventually(t, "events are accepted", func() error {
		r := h.call(t, "POST", "/v1/shops/"+shop+"/events", body)
		if r.code == http.StatusServiceUnavailable {
			repeated = true
			return fmt.Errorf("got %s", r.body)
		}
		out = r.accepted(t)
		return nil
	})
	return out, repeated
}

func notReady(p *process) error {
	resp, err := quick.Get(p.ready)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable || !contains(text, "bus") {
		return fmt.Errorf("/readyz: got %d %s, want 503 that names the bus", resp.StatusCode, text)
	}
	healthy, err := quick.Get(strings.Replace(p.ready, "readyz", "healthz", 1))
	if err != nil {
		return err
	}
	defer func() { _ = healthy.Body.Close() }()
	if healthy.StatusCode != http.StatusOK {
		return fatal{errors.New("/healthz fails because the bus is away: restarting it would not help")}
	}
	return nil
}
