package sender

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/webhook"
	senderv1 "shopbell.dev/proto/shopbell/sender/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestSender_AttemptByHandIsNotFollowedByOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 500)
	b.start(t, few())
	off := state(in.URL, "slow")
	off.Webhook.Status = webhook.Disabled // sent by hand all the same
	b.put(t, off)
	d := delivery(`{"made":"before"}`, "application/json")
	d.AskedAt, d.WholeBody, d.Attempt = time.Now(), true, 4
	b.publish(t, d.Message())
	made := b.records(t, 1)[0].GetAttempt()
	if made.GetStatus() != failed || !made.GetAttempt().ByHand || made.GetAttempt().Number != 4 || !made.WholeBody || string(made.BodyPrefix) != `{"made":"before"}` {
		t.Errorf("%v, want attempt 4 by hand, failed, with its whole body", made)
	}
	b.empty(t)
	if len(in.all()) != 1 || string(in.all()[0].body) != `{"made":"before"}` {
		t.Errorf("sent %v", in.all())
	}
	if told := b.stored(t, contract.Events); len(told) != 0 {
		t.Error("an attempt by hand that failed is told of as given up")
	}
}

func TestSender_ReplayedAttemptIsFollowedByTheScheduleFromItsBeginning(t *testing.T) {
	t.Parallel()
	ordered := profile.ByKey
	for _, row := range []struct {
		name   string
		policy *shopbellv1.Policy
		want   []string
	}{
		{"one of two delays", &shopbellv1.Policy{}, []string{retrying, retrying, delivered}},
		{"where order matters it is not", &shopbellv1.Policy{Ordered: &ordered}, []string{failed}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			in := receive(t, 500, 500, 200)
			b.start(t, few())
			short := durationpb.New(100 * time.Millisecond)
			row.policy.RetrySchedule = []*durationpb.Duration{short, short}
			b.put(t, governed("wh_1", in.URL, row.policy))
			d := delivery(`{"made":"before"}`, "application/json")
			d.AskedAt, d.AskedBy, d.Replay, d.WholeBody, d.Attempt, d.Uncounted = time.Now(), "key_1", "job_1", true, 4, 3
			b.publish(t, d.Message())
			b.records(t, len(row.want))
			b.empty(t)
			for i, r := range b.records(t, len(row.want)) {
				made := r.GetAttempt()
				a, first := made.GetAttempt(), i == 0
				if made.GetStatus() != row.want[i] || int(a.GetNumber()) != 4+i || a.GetByHand() != first || (a.GetReplayId() == "job_1") != first || (a.GetAskedBy() == "key_1") != first {
					t.Errorf("record %d is %v, want %s", i, r, row.want[i])
				}
			}
			if got := in.all(); len(got) != len(row.want) || string(got[len(got)-1].body) != `{"made":"before"}` {
				t.Errorf("%d were sent, want %d of the same bytes", len(got), len(row.want))
			}
		})
	}
}

func TestTestWebhook_SendsSampleDataAndSaysWhatCameOfIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := receive(t, 200, 404, 410)
	b.start(t, few())
	b.put(t, state(in.URL, "enveloped"))
	ask := func() (*senderv1.TestWebhookResponse, error) {
		return b.sender.TestWebhook(t.Context(), &senderv1.TestWebhookRequest{ShopId: "demo", WebhookId: "wh_1", EventType: "order.created"})
	}
	for i, want := range []struct {
		success   bool
		diagnosis string
	}{{true, "answered 200"}, {false, "nothing at this path"}, {false, "answered 410 Gone"}} {
		got, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		if got.Success != want.success || !strings.Contains(got.Diagnosis, want.diagnosis) || string(got.RequestBody) != string(in.all()[i].body) {
			t.Errorf("test %d: %v, want success %v and %q", i, got, want.success, want.diagnosis)
		}
		made := b.records(t, i+1)[i].GetAttempt()
		if !made.Test || !made.WholeBody || made.GetDeliveryId() != got.DeliveryId || string(made.BodyPrefix) != string(got.RequestBody) {
			t.Errorf("test %d: record %v", i, made)
		}
	}
	if left := len(b.onTheWay(t)) + len(b.stored(t, contract.Held)); left != 0 {
		t.Errorf("%d messages follow a test", left)
	}
	for _, m := range b.stored(t, contract.Outcomes) {
		if strings.HasSuffix(m.Subject, ".switch") {
			t.Error("a test switches the webhook off")
		}
	}
	for name, req := range map[string]*senderv1.TestWebhookRequest{
		"no such webhook":         {ShopId: "demo", WebhookId: "wh_9"},
		"no webhook can be so":    {ShopId: "demo", WebhookId: "wh ä"},
		"a webhook of another":    {ShopId: "other", WebhookId: "wh_1"},
		"a type with a wildcard ": {ShopId: "demo", WebhookId: "wh_1", EventType: "order.*"},
	} {
		_, err := b.sender.TestWebhook(t.Context(), req)
		want := fault.NotFound
		if req.EventType != "" {
			want = fault.Invalid
		}
		if !fault.IsKind(err, want) {
			t.Errorf("%s: %v, want kind %v", name, err, want)
		}
	}
}
