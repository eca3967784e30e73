package eventlog

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func texts(s *shopbellv1.Story) []string {
	var all []string
	for _, line := range s.GetLines() {
		all = append(all, line.GetText())
	}
	return all
}

func considered(webhookID, label string, matched bool, reason string) *shopbellv1.Considered {
	c := &shopbellv1.Considered{WebhookId: webhookID, Label: label, Matched: matched, Reason: reason}
	if matched {
		c.DeliveryId = "dlv_of_" + webhookID
	}
	return c
}

// eventWith is an event that was accepted at noon and decided a millisecond later.
func eventWith(decision *busv1.Decision, deliveries ...*store.Delivery) *store.Event {
	return &store.Event{
		Event:    &shopbellv1.Event{Id: "evt", Type: "order_created", AcceptedAt: timestamppb.New(noon)},
		Decision: decision, DecidedAt: noon.Add(time.Millisecond), Deliveries: deliveries,
	}
}

// deliveryWith is wh_1's delivery, the attempts a second apart from the first second on.
func deliveryWith(changes []store.Change, attempts ...*busv1.AttemptMade) *store.Delivery {
	d := &store.Delivery{
		Delivery: &shopbellv1.Delivery{Id: "dlv_of_wh_1", WebhookId: "wh_1"}, Attempts: attempts, Changes: changes,
	}
	for i, a := range attempts {
		a.GetAttempt().Number = int32(i + 1)
		a.GetAttempt().StartedAt = timestamppb.New(noon.Add(time.Duration(i+1) * time.Second))
		d.Delivery.Attempts = append(d.Delivery.Attempts, a.GetAttempt())
	}
	return d
}

func answered(code int32, ms float64, status, reason string) *busv1.AttemptMade {
	return &busv1.AttemptMade{Status: status, Reason: reason, Attempt: &shopbellv1.Attempt{
		Url: "https://u:p@example.com/hooks/a%20b?token=secret#x", ResponseCode: code, DurationMs: ms,
	}}
}

func TestTell(t *testing.T) {
	t.Parallel()
	warehouse := &busv1.Decision{Considered: []*shopbellv1.Considered{considered("wh_1", "Warehouse", true, "it wants order_created")}}
	retried := answered(500, 12.4, "retrying", "")
	retried.Attempt.ErrorClass, retried.Attempt.Error = "http_status", "the receiver answered 500"
	retried.Attempt.NextAttemptAt = timestamppb.New(noon.Add(2*time.Second + 5*time.Millisecond))
	refused := answered(0, 0.2, "retrying", "")
	refused.Attempt.ErrorClass = "connect"
	refused.Attempt.Error = `Post "https://u:p@example.com/hooks/a%20b?token=secret#x": connection refused`
	tooLarge := answered(200, 8, "failed", "the answer to https://u:p@example.com/hooks/a%20b?token=secret#x is too large")
	tooLarge.Attempt.ErrorClass, tooLarge.Attempt.Error = "body_too_large", "more than 64 KiB"
	byHand := answered(204, 9, "delivered", "")
	byHand.Attempt.ByHand = true

	for _, test := range []struct {
		name  string
		event *store.Event
		want  []string
	}{
		{
			"an event that is not matched yet says no more than that it was accepted",
			eventWith(nil),
			[]string{"accepted"},
		},
		{
			"one that came with a key says with which",
			&store.Event{Event: &shopbellv1.Event{Type: "paid", AcceptedAt: timestamppb.New(noon), AcceptedBy: "key_1 (ERP)"}},
			[]string{"accepted by key_1 (ERP)"},
		},
		{
			"an event that has not come itself begins with its decision",
			&store.Event{Event: &shopbellv1.Event{Type: "paid"}, Decision: &busv1.Decision{}, DecidedAt: noon},
			[]string{"matched to no webhook: none subscribes to paid"},
		},
		{
			"each webhook that was passed over has its reason, each that is delayed its time",
			eventWith(&busv1.Decision{
				Considered: []*shopbellv1.Considered{
					considered("wh_1", "Warehouse", false, "switched off by its owner"),
					considered("wh_2", "", false, "its filter is false"),
					considered("wh_3", "Mail", true, "it wants every type"),
				},
				Due: map[string]*timestamppb.Timestamp{"wh_3": timestamppb.New(noon.Add(240 * time.Hour))},
			}),
			[]string{
				"accepted",
				"matched to 1 of 3 webhooks",
				"passed over wh_1 (Warehouse): switched off by its owner",
				"passed over wh_2: its filter is false",
				"delayed for wh_3 (Mail) until 2026-05-11T12:00:00.000Z",
			},
		},
		{
			"a retry says when, and an address stands without user, query and fragment",
			eventWith(warehouse, deliveryWith(nil, retried, answered(204, 9, "delivered", ""))),
			[]string{
				"accepted",
				"matched to 1 of 1 webhook",
				"attempt 1 to https://example.com/hooks/a%20b answered 500 after 12 ms: the next attempt is due at 2026-05-01T12:00:02.005Z",
				"attempt 2 to https://example.com/hooks/a%20b answered 204 after 9 ms",
				"delivered to wh_1 (Warehouse)",
			},
		},
		{
			"what comes before its time says why",
			eventWith(warehouse, deliveryWith(nil, answered(500, 12, "retrying", "sent before it was due, as it happened; it is not counted"),
				answered(204, 9, "delivered", "sent before it was due, as it happened"))),
			[]string{
				"accepted",
				"matched to 1 of 1 webhook",
				"attempt 1 to https://example.com/hooks/a%20b answered 500 after 12 ms: the next attempt is due; this one was sent before it was due, as it happened; it is not counted",
				"attempt 2 to https://example.com/hooks/a%20b answered 204 after 9 ms",
				"delivered to wh_1 (Warehouse): sent before it was due, as it happened",
			},
		},
		{
			"what was not answered says why, and why it ended",
			eventWith(warehouse, deliveryWith(nil, refused, tooLarge)),
			[]string{
				"accepted",
				"matched to 1 of 1 webhook",
				`attempt 1 to https://example.com/hooks/a%20b got no answer in less than 1 ms (connect: Post "https://example.com/hooks/a%20b": connection refused): the next attempt is due`,
				"attempt 2 to https://example.com/hooks/a%20b answered 200 after 8 ms (body_too_large: more than 64 KiB)",
				"given up after 2 attempts: the answer to https://example.com/hooks/a%20b is too large",
			},
		},
		{
			"changes stand between the attempts, by time",
			eventWith(warehouse, deliveryWith(
				[]store.Change{
					{At: noon.Add(1500 * time.Millisecond), Status: "pending", Reason: "its webhook was enabled"},
					{At: noon.Add(10 * time.Millisecond), Status: "held", Reason: "its receiver answers too slowly"},
					{At: noon.Add(time.Hour), Status: "cancelled", Reason: "its webhook was deleted"},
					{At: noon.Add(2 * time.Hour), Status: "failed"},
					{At: noon.Add(3 * time.Hour), Status: "invented", Reason: "later"},
				},
				answered(503, 3, "held", "the receiver asked for an hour"), byHand,
			)),
			[]string{
				"accepted",
				"matched to 1 of 1 webhook",
				"held for wh_1 (Warehouse) because its receiver answers too slowly",
				"attempt 1 to https://example.com/hooks/a%20b answered 503 after 3 ms",
				"held for wh_1 (Warehouse) because the receiver asked for an hour",
				"on its way to wh_1 (Warehouse): its webhook was enabled",
				"attempt 2, by hand, to https://example.com/hooks/a%20b answered 204 after 9 ms",
				"delivered to wh_1 (Warehouse)",
				"cancelled for wh_1 (Warehouse): its webhook was deleted",
				"given up for wh_1 (Warehouse)",
				"invented for wh_1 (Warehouse): later",
			},
		},
	} {
		got := tell(test.event)
		if diff := cmp.Diff(test.want, texts(got)); diff != "" {
			t.Errorf("%s: got + and want -:\n%s", test.name, diff)
		}
		if want := test.event.Decision != nil; got.GetDecided() != want {
			t.Errorf("%s: decided: got %v, want %v", test.name, got.GetDecided(), want)
		}
	}
}

// Who was killed had published the delivery, and not yet the record of its decision.
func TestTell_WhatWasDecidedAgainWasMatchedBeforeItWasSent(t *testing.T) {
	t.Parallel()
	d := deliveryWith(nil, answered(200, 4, "delivered", ""))
	d.Delivery.CreatedAt = timestamppb.New(noon.Add(time.Millisecond))
	e := eventWith(&busv1.Decision{Considered: []*shopbellv1.Considered{considered("wh_1", "", true, "")}}, d)
	e.DecidedAt = noon.Add(time.Minute)
	lines := tell(e).GetLines()
	if len(lines) < 3 || lines[1].GetText() != "matched to 1 of 1 webhook" || !lines[1].GetAt().AsTime().Equal(noon.Add(time.Millisecond)) {
		t.Errorf("got %v, want that it was matched after a millisecond, before it was sent", lines)
	}
}

func TestTell_LinesNameWhatTheySpeakOf(t *testing.T) {
	t.Parallel()
	e := eventWith(
		&busv1.Decision{Considered: []*shopbellv1.Considered{
			considered("wh_0", "Mail", false, "its filter is false"), considered("wh_1", "Warehouse", true, ""),
		}},
		deliveryWith(nil, answered(410, 5, "failed", "its code ends the webhook")),
	)
	type line struct {
		text, webhookID, deliveryID string
		attempt                     int32
		at                          time.Time
	}
	var got []line
	story := tell(e)
	for _, l := range story.GetLines() {
		got = append(got, line{l.GetText(), l.GetWebhookId(), l.GetDeliveryId(), l.GetAttempt(), l.GetAt().AsTime()})
	}
	over := noon.Add(1005 * time.Millisecond)
	want := []line{
		{"accepted", "", "", 0, noon},
		{"matched to 1 of 2 webhooks", "", "", 0, noon.Add(time.Millisecond)},
		{"passed over wh_0 (Mail): its filter is false", "wh_0", "", 0, noon.Add(time.Millisecond)},
		{"attempt 1 to https://example.com/hooks/a%20b answered 410 after 5 ms", "wh_1", "dlv_of_wh_1", 1, over},
		{"given up after 1 attempt: its code ends the webhook", "wh_1", "dlv_of_wh_1", 1, over},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(line{})); diff != "" {
		t.Errorf("got + and want -:\n%s", diff)
	}
	if len(story.GetConsidered()) != 2 || len(story.GetDeliveries()) != 1 || len(story.GetDeliveries()[0].GetAttempts()) != 1 {
		t.Errorf("story: got %v, want what was considered and the delivery with its attempt", story)
	}
}

func TestAddress_HidesEvenWhatIsNoURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                             "",
		"https://example.com":          "https://example.com",
		"https://example.com/?":        "https://example.com/",
		"http://127.0.0.1:8080/a?b=c":  "http://127.0.0.1:8080/a",
		"https://u:p@example.com:x/?t": "an address that is not a URL",
	} {
		if got := address(raw); got != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
}
