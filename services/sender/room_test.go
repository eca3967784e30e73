package sender

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/signature"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestSender_PostsSignedBytesAndTellsTheWholeStory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	s := state(in.URL+"/hooks?x=1", "enveloped")
	s.Webhook.Headers = map[string]string{"X-Env": "prod"}
	b.put(t, s)
	const data = "{ \"total\":549.50,\n\"a\":\"\\/<&>\",\"a\":12345678901234567890}"
	m := delivery(data, "application/json").Message()
	ctx, parent := b.env.Tracer.Start(t.Context(), "publish")
	bus.Inject(ctx, m)
	parent.End()
	b.publish(t, m)
	records := b.records(t, 1)
	b.empty(t)

	got := in.all()
	if len(got) != 1 {
		t.Fatalf("%d requests, want 1", len(got))
	}
	want := `{"id":"evt_1","type":"order.created","webshop":0,"data":` + data + `}`
	if string(got[0].body) != want {
		t.Errorf("body %s, want %s", got[0].body, want)
	}
	h := got[0].header
	if err := signature.VerifyStandard(secret, h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"), h.Get("Webhook-Signature"), got[0].body, time.Now(), time.Minute); err != nil {
		t.Errorf("signature: %v in %v", err, h)
	}
	if h.Get("Webhook-Id") != "dlv_1" || h.Get("User-Agent") != "Shopbell/test" || h.Get("X-Env") != "prod" || h.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", h)
	}
	traceID := parent.SpanContext().TraceID().String()
	if !strings.Contains(h.Get("Traceparent"), traceID) {
		t.Errorf("traceparent %q, want the trace %s of the publisher", h.Get("Traceparent"), traceID)
	}

	r := records[0]
	made := r.GetAttempt()
	a := made.GetAttempt()
	if r.ShopId != "demo" || r.EventId != "evt_1" || r.EventType != "order.created" || made.GetDeliveryId() != "dlv_1" || made.GetWebhookId() != "wh_1" || made.GetStatus() != delivered || made.GetReason() != "" {
		t.Errorf("record %v", r)
	}
	if a.Number != 1 || a.ResponseCode != 200 || a.ErrorClass != "" || a.Error != "" || a.Verdict != delivered || string(a.ResponseBody) != "answer 1" || a.ResponseBodyCut ||
		a.TraceId != traceID || a.ByHand || a.NextAttemptAt != nil || a.DurationMs <= 0 || a.StartedAt.AsTime().IsZero() {
		t.Errorf("attempt %v", a)
	}
	if body := string(made.BodyPrefix) + data + string(made.BodySuffix); body != want || made.WholeBody {
		t.Errorf("the record's body is %s", body)
	}
	if len(in.all()) != 1 || len(b.stored(t, contract.Held)) != 0 {
		t.Error("something follows a success")
	}
	testwait.Until(t, "the log tells of the attempt", func() bool { return strings.Contains(b.log.String(), "msg=attempt") })
	for _, want := range []string{"shop_id=demo", "event_id=evt_1", "webhook_id=wh_1", "delivery_id=dlv_1", "attempt=1", "verdict=delivered", "response_code=200"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("log without %s:\n%s", want, b.log)
		}
	}
}

func TestSender_TellsTheLogAPartOfALongAnswer(t *testing.T) {
	t.Parallel()
	const kept, page = 8 << 10, 60 << 10
	for _, row := range []struct {
		name    string
		answer  http.HandlerFunc
		body    int
		cut     bool
		headers string
	}{
		{"a body as long as what is kept", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", kept)) }, kept, false, ""},
		{"a page for each attempt", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", page)) }, kept, true, ""},
		{"headers without end", func(w http.ResponseWriter, _ *http.Request) {
			for i := range 40 {
				w.Header().Set(fmt.Sprintf("X-%02d", i), strings.Repeat("y", 1020))
			}
		}, 0, false, "33 more, beyond the 8192 bytes that are kept"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.start(t, few())
			b.put(t, state(handler(t, false, row.answer).URL, "enveloped"))
			b.publish(t, delivery("1", "application/json").Message())
			a := b.records(t, 1)[0].GetAttempt().GetAttempt()
			if a.Verdict != delivered || len(a.ResponseBody) != row.body || a.ResponseBodyCut != row.cut {
				t.Errorf("%s with %d bytes, cut %t; want %d, %t", a.Verdict, len(a.ResponseBody), a.ResponseBodyCut, row.body, row.cut)
			}
			size, last := 0, a.ResponseHeaders[len(a.ResponseHeaders)-1]
			for _, h := range a.ResponseHeaders {
				size += len(h.Name) + len(h.Value)
			}
			if size > kept+100 || row.headers != "" && last.Value != row.headers {
				t.Errorf("%d bytes of headers, the last is %s: %s", size, last.Name, last.Value)
			}
		})
	}
}

func TestSender_RetryIsAScheduledMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500)
	b.start(t, few())
	b.put(t, state(in.URL, "slow"))
	b.publish(t, delivery("1", "application/json").Message())
	a := b.records(t, 1)[0].GetAttempt().GetAttempt()
	testwait.Until(t, "the attempt is acked, and the timer alone is left", func() bool {
		waiting, unanswered, err := b.bus.Pending(t.Context(), contract.Sender)
		return err == nil && waiting == 0 && unanswered == 0 && len(b.onTheWay(t)) == 1
	})
	timer := b.onTheWay(t)[0]
	if timer.Subject != contract.LaterSubject("wh_1", "dlv_1") {
		t.Errorf("what is left lies at %s, want %s", timer.Subject, contract.LaterSubject("wh_1", "dlv_1"))
	}
	d, err := contract.ParseDelivery(timer.Header, timer.Data)
	if err != nil || d.Attempt != 2 || string(d.Data) != "1" {
		t.Errorf("the timer is of %+v, %v, want attempt 2", d, err)
	}
	due := a.NextAttemptAt.AsTime()
	if got := timer.Header.Get("Nats-Schedule"); got != "@at "+due.Format(time.RFC3339Nano) {
		t.Errorf("the timer fires %s, the record says %s", got, due)
	}
	if wait := due.Sub(a.StartedAt.AsTime()); wait < time.Hour || wait > time.Hour+time.Minute {
		t.Errorf("the next attempt follows after %s, want the profile's hour", wait)
	}
	if a.Verdict != retrying || a.ErrorClass != "http_status" || a.Error != "answered 500 Internal Server Error" || string(a.ResponseBody) != "answer 1" {
		t.Errorf("attempt %v", a)
	}
}

func TestSender_GivesUpAfterLastDelay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500, 302, 503)
	b.start(t, few())
	b.put(t, state(in.URL, "enveloped"))
	b.publish(t, delivery("1", "application/json").Message())
	records := b.records(t, 3)
	b.empty(t)
	for i, want := range []string{retrying, retrying, failed} {
		made := records[i].GetAttempt()
		if made.GetStatus() != want || made.GetAttempt().Number != int32(i+1) {
			t.Errorf("attempt %d is %d and leaves the delivery %s, want %s", i+1, made.GetAttempt().Number, made.GetStatus(), want)
		}
		if i > 0 {
			before := records[i-1].GetAttempt().GetAttempt()
			if early := before.NextAttemptAt.AsTime().Sub(made.GetAttempt().StartedAt.AsTime()); early > time.Millisecond {
				t.Errorf("attempt %d is made %s too early", i+1, early)
			}
		}
	}
	if got := records[1].GetAttempt().GetAttempt().Error; !strings.Contains(got, "redirects are not followed") {
		t.Errorf("a redirect is told as %q", got)
	}
	if got := records[2].GetAttempt().GetReason(); !strings.Contains(got, "given up after 3 attempts") {
		t.Errorf("reason %q", got)
	}
	requests := in.all()
	if len(requests) != 3 {
		t.Fatalf("%d requests, want 3", len(requests))
	}
	for i, r := range requests {
		if string(r.body) != string(requests[0].body) || r.header.Get("Webhook-Id") != "dlv_1" {
			t.Errorf("attempt %d sends %s as %s", i+1, r.body, r.header.Get("Webhook-Id"))
		}
	}
	told := b.stored(t, contract.Events)
	if len(told) != 1 {
		t.Fatalf("%d events, want the notice alone", len(told))
	}
	if e, err := contract.ParseEvent(told[0].Header, told[0].Data); err != nil || e.Type != notice.DeliveryFailed || !strings.Contains(string(e.Data), "dlv_1") {
		t.Errorf("notice %+v %s, %v", e, e.Data, err)
	}
}

// A failed notice is not told of: two webhooks that are broken would tell each other for ever.
func TestSender_TellsNobodyOfANoticeThatFailed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500)
	b.start(t, few())
	b.put(t, state(in.URL, "bare"))
	d := delivery("{}", "application/json")
	d.Type = notice.DeliveryFailed
	b.publish(t, d.Message())
	if got := b.records(t, 1)[0].GetAttempt().GetStatus(); got != failed {
		t.Errorf("status %s, want failed", got)
	}
	b.empty(t)
	if told := b.stored(t, contract.Events); len(told) != 0 {
		t.Errorf("%d notices of a notice", len(told))
	}
}

// Whoever is killed between the two makes the attempt again; the other way round it would be lost.
// What waits for a later attempt tells whoever has this one again that it was made, and is not made again: so it must be known by
// then.
func TestSender_HoldsForAWebhookThatItsReceiverSwitchedOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 410, 200)
	b.start(t, few())
	on := state(in.URL, "enveloped")
	revisions := []uint64{b.put(t, on)}
	first := delivery("1", "application/json")
	b.publish(t, first.Message())
	made := b.records(t, 1)[0].GetAttempt()
	if made.GetStatus() != held || !strings.Contains(made.GetReason(), "answered 410") {
		t.Errorf("status %s because %q, want held because of 410", made.GetStatus(), made.GetReason())
	}
	b.empty(t)
	var wish busv1.SwitchOff
	for _, m := range b.stored(t, contract.Outcomes) {
		if m.Subject == contract.SwitchSubject("demo", "wh_1") {
			if err := proto.Unmarshal(m.Data, &wish); err != nil {
				t.Fatal(err)
			}
		}
	}
	if wish.WebhookId != "wh_1" || wish.Url != in.URL || wish.DeliveryId != "dlv_1" || !strings.Contains(wish.Reason, "410 Gone") {
		t.Errorf("wish %v, want one to switch wh_1 off", &wish)
	}

	off := proto.CloneOf(on)
	off.OffByReceiver, off.Webhook.Status, off.Webhook.DisabledReason = true, webhook.Disabled, &wish.Reason
	revisions = append(revisions, b.put(t, off))
	second := delivery("2", "application/json")
	second.ID = "dlv_2"
	b.publish(t, second.Message())
	change := b.records(t, 2)[1].GetChange()
	if change.GetStatus() != held || change.GetReason() != wish.Reason || change.GetDeliveryId() != "dlv_2" {
		t.Errorf("the second is %v, want held because the webhook is off", change)
	}
	b.empty(t)
	if got := len(b.stored(t, contract.Held)); got != 2 || len(in.all()) != 1 {
		t.Errorf("%d are held and %d were sent, want 2 and 1", got, len(in.all()))
	}
	for i, m := range b.stored(t, contract.Held) {
		if d, err := contract.ParseDelivery(m.Header, m.Data); err != nil || d.OffRevision != revisions[i] {
			t.Errorf("%s is held by revision %d (%v), want %d", d.ID, d.OffRevision, err, revisions[i])
		}
	}

	b.put(t, on)
	r := contract.Release{ShopID: "demo", WebhookID: "wh_1", Through: 1 << 62}
	b.publish(t, r.Message())
	records := b.records(t, 4)
	for i, want := range []string{"dlv_1", "dlv_2"} {
		got := records[2+i].GetAttempt()
		if got.GetStatus() != delivered {
			t.Errorf("after the release %s is %s", want, got.GetStatus())
		}
	}
	b.nothingHeld(t)
}

func TestSender_CancelsWhatNobodyWants(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*busv1.WebhookState) *busv1.WebhookState
		reason string
	}{
		{"the webhook is gone", func(*busv1.WebhookState) *busv1.WebhookState { return nil }, "the webhook was deleted"},
		{"its receiver has deleted it", func(s *busv1.WebhookState) *busv1.WebhookState {
			s.Webhook.Status, s.OffByReceiver = webhook.Deleted, true
			return s
		}, "the webhook was deleted"},
		{"its owner has switched it off", func(s *busv1.WebhookState) *busv1.WebhookState {
			s.Webhook.Status = webhook.Disabled
			return s
		}, "switched off by its owner"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := receive(t, 200)
			b.start(t, few())
			if s := row.change(state(in.URL, "enveloped")); s != nil {
				b.put(t, s)
			}
			b.publish(t, delivery("1", "application/json").Message())
			change := b.records(t, 1)[0].GetChange()
			if change.GetStatus() != cancelled || !strings.Contains(change.GetReason(), row.reason) {
				t.Errorf("%v, want cancelled because %q", change, row.reason)
			}
			b.empty(t)
			if len(in.all()) != 0 || len(b.stored(t, contract.Held)) != 0 {
				t.Error("it is sent or held all the same")
			}
		})
	}
}

func TestSender_DiscardsWhatIsHeldWhenItIsToldTo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	off, why := state(in.URL, "enveloped"), "gone"
	off.OffByReceiver, off.Webhook.Status, off.Webhook.DisabledReason = true, webhook.Disabled, &why
	b.put(t, off)
	for i := range 3 {
		d := delivery("1", "application/json")
		d.ID = fmt.Sprintf("dlv_%d", i)
		b.publish(t, d.Hold(uint64(i)))
	}
	r := contract.Release{ShopID: "demo", WebhookID: "wh_1", Discard: true, Through: 2} // the third came later
	b.publish(t, r.Message())
	for i, rec := range b.records(t, 2) {
		if c := rec.GetChange(); c.GetStatus() != cancelled || c.GetDeliveryId() != fmt.Sprintf("dlv_%d", i) || !strings.Contains(c.GetReason(), "discarded") {
			t.Errorf("record %d is %v, want dlv_%d cancelled", i, c, i)
		}
	}
	b.empty(t)
	left := b.stored(t, contract.Held)
	if len(left) != 1 || len(in.all()) != 0 {
		t.Fatalf("%d are held and %d sent, want 1 and 0", len(left), len(in.all()))
	}
	if d, err := contract.ParseDelivery(left[0].Header, left[0].Data); err != nil || d.ID != "dlv_2" {
		t.Errorf("held is %s, %v, want dlv_2", d.ID, err)
	}
}

// What a job of the log yields to is how late those are that have waited for nothing but those before them.
func TestSender_TellsHowLateWhatGoesStraightThroughIs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*contract.Delivery, *shopbellv1.Webhook)
		tells  bool
	}{
		{"straight through", func(*contract.Delivery, *shopbellv1.Webhook) {}, true},
		{"a later attempt", func(d *contract.Delivery, _ *shopbellv1.Webhook) { d.Attempt = 2 }, false},
		{"by hand", func(d *contract.Delivery, _ *shopbellv1.Webhook) { d.AskedAt = time.Now() }, false},
		{"in bulk", func(d *contract.Delivery, _ *shopbellv1.Webhook) { d.Bulk = true }, false},
		{"after a delay", func(_ *contract.Delivery, w *shopbellv1.Webhook) {
			w.Delay = &shopbellv1.Delay{Value: 1, Unit: "minute"}
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := receive(t, 200)
			b.start(t, few())
			d, w := delivery("1", "application/json"), state(in.URL, "slow")
			d.AcceptedAt = d.AcceptedAt.Add(-time.Minute)
			row.change(d, w.Webhook)
			b.put(t, w)
			b.publish(t, d.Message())
			late := b.records(t, 1)[0].GetAttempt().GetLateMs()
			if tells := late > 0; tells != row.tells || tells && (late < 60_000 || late > 120_000) {
				t.Errorf("%v ms late, want it told: %v, and the minute and a little that it was", late, row.tells)
			}
		})
	}
}

func TestSender_LeavesOutWhatIsNoDelivery(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	b.put(t, state(in.URL, "enveloped"))
	b.publish(t, &nats.Msg{Subject: contract.DeliverySubject("wh_1", contract.Straight), Header: nats.Header{}, Data: []byte("x")},
		&nats.Msg{Subject: contract.DeliverySubject("wh_1", contract.Straight), Header: nats.Header{"Shopbell-Release": {"keep 7"}, "Shopbell-Webhook": {"wh_1"}}},
		delivery("1", "application/json").Message())
	b.records(t, 1)
	b.empty(t)
	if !strings.Contains(b.log.String(), "is no delivery") {
		t.Errorf("the log does not tell:\n%s", b.log)
	}
}

func TestSender_FailsADeliveryThatItsTransformDoesNotFit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200)
	b.start(t, few())
	s := state(in.URL, "enveloped")
	s.Webhook.Transform = proto.String("{'text': data.customer.name}")
	b.put(t, s)
	b.publish(t, delivery(`{"total":1}`, "application/json").Message())
	change := b.records(t, 1)[0].GetChange()
	if change.GetStatus() != failed || !strings.Contains(change.GetReason(), "transform does not fit") {
		t.Errorf("%v, want failed because of the transform", change)
	}
	b.empty(t)
	if len(in.all()) != 0 {
		t.Error("it is sent all the same")
	}
}

// Nothing that opens a door may stand where others read: the log, spans, and what an owner is shown of an attempt.
func TestSender_LeaksNoSecret(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const header, query, payload = "Bearer h3ader-s3cret", "qu3ry-s3cret", "payl0ad-s3cret"
	tlsServer := handler(t, true, func(http.ResponseWriter, *http.Request) {})
	failing := receive(t, 500)
	gone := receive(t, 410)
	good := receive(t, 200)
	hanging := receiver(t, hangs)
	b.start(t, few())
	n := 0
	for _, url := range []string{
		good.URL, failing.URL, gone.URL, tlsServer.URL, "http://" + closedPort(t), "http://no-such-host.invalid", "http://" + hanging,
		"http://" + receiver(t, closes("garbage\r\n")), "https://" + strings.TrimPrefix(good.URL, "http://"),
	} {
		n++
		s := state(url+"/hooks?token="+query, "bare")
		s.Webhook.Id = fmt.Sprintf("wh_%d", n)
		s.Webhook.Headers = map[string]string{"Authorization": header, "X-Api-Key": header}
		if strings.Contains(url, hanging) {
			s.Webhook.Policy = &shopbellv1.Policy{Timeout: durationpb.New(time.Second)}
		}
		b.put(t, s)
		d := delivery(`{"x":"`+payload+`"}`, "application/json")
		d.ID, d.WebhookID = fmt.Sprintf("dlv_%d", n), s.Webhook.Id
		b.publish(t, d.Message())
	}
	records := b.records(t, n)
	b.empty(t)
	told := map[string]string{"the log": b.log.String()}
	for _, span := range b.spans.Ended() {
		told["a span"] += fmt.Sprintf("%s %v %v %v\n", span.Name(), span.Attributes(), span.Events(), span.Status())
	}
	for _, r := range records {
		a := r.GetAttempt().GetAttempt()
		told["an attempt's error"] += a.GetError() + "\n" + r.GetAttempt().GetReason() + "\n"
		told["an attempt's headers"] += fmt.Sprint(a.GetRequestHeaders()) + "\n"
		if text := r.String(); strings.Contains(text, secret) || strings.Contains(text, strings.TrimPrefix(secret, "whsec_")) || strings.Contains(text, "h3ader") {
			t.Errorf("a record holds a secret: %s", text)
		}
	}
	for _, m := range b.stored(t, contract.Outcomes) {
		if strings.Contains(string(m.Data), secret) {
			t.Error("a message on OUTCOMES holds the secret")
		}
	}
	for where, text := range told {
		if text == "" {
			t.Errorf("%s is empty: nothing was looked at", where)
		}
		for _, word := range []string{secret, "h3ader", query, payload} {
			if strings.Contains(text, word) {
				t.Errorf("%s holds %q:\n%s", where, word, text)
			}
		}
	}
	if got := strings.Count(b.log.String(), "msg=attempt"); got != n {
		t.Errorf("%d lines tell of %d attempts", got, n)
	}
}
