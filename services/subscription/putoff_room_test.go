package subscription

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/testwait"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

const dead = "https://dead.example"

func says(sender string, hosts ...*busv1.ShutHost) *busv1.ShutHosts {
	return &busv1.ShutHosts{Sender: sender, Hosts: hosts}
}

func isShut(host, shop string) *busv1.ShutHost {
	return &busv1.ShutHost{Host: host, ShopId: shop, Since: timestamppb.New(time.Unix(1_780_000_000, 0))}
}

func TestShutHosts_AreWhatAllSendersSay(t *testing.T) {
	t.Parallel()
	began := time.Now()
	type said struct {
		at   time.Duration
		what *busv1.ShutHosts
	}
	for _, row := range []struct {
		name   string
		said   []said
		at     time.Duration
		change func(w *webhook.Webhook)
		want   bool
	}{
		{name: "nobody says anything"},
		{name: "one says so", said: []said{{0, says("a", isShut(dead, ""))}}, want: true},
		{name: "it is shut to its shop", said: []said{{0, says("a", isShut(dead, "demo"))}}, want: true},
		{name: "it is shut to another shop", said: []said{{0, says("a", isShut(dead, "other"))}}},
		{name: "it is another host", said: []said{{0, says("a", isShut("http://dead.example", ""))}}},
		{name: "he said so a while ago", said: []said{{0, says("a", isShut(dead, ""))}}, at: contract.ShutHolds + time.Second},
		{name: "he said so again", said: []said{{0, says("a", isShut(dead, ""))}, {contract.ShutHolds, says("a", isShut(dead, ""))}}, at: contract.ShutHolds + time.Second, want: true},
		{name: "he says so no longer", said: []said{{0, says("a", isShut(dead, ""))}, {1, says("a")}}},
		{name: "another does not say so", said: []said{{0, says("b")}, {1, says("a", isShut(dead, ""))}}},
		{name: "another says no more", said: []said{{0, says("a", isShut(dead, ""))}, {1, says("b")}}},
		{name: "another is not heard of any longer", said: []said{{0, says("b")}, {contract.ShutHolds + 1, says("a", isShut(dead, ""))}}, at: contract.ShutHolds + 2, want: true},
		{name: "both say so", said: []said{{0, says("a", isShut(dead, ""))}, {1, says("b", isShut(dead, ""))}}, want: true},
		{name: "to its shop, says one, and to all the other", said: []said{{0, says("a", isShut(dead, ""))}, {1, says("b", isShut(dead, "demo"))}}, want: true},
		{name: "to all, says one, and to its shop the other", said: []said{{0, says("a", isShut(dead, "demo"))}, {1, says("b", isShut(dead, ""))}}, want: true},
		{name: "an exact number of requests is promised", said: []said{{0, says("a", isShut(dead, ""))}}, change: func(w *webhook.Webhook) { w.Rules.Policy.Breaker = profile.Breaker{} }},
		{name: "it is off", said: []said{{0, says("a", isShut(dead, ""))}}, change: func(w *webhook.Webhook) { w.Status, w.DisabledReason = webhook.Disabled, "by its owner" }},
	} {
		w := &webhook.Webhook{ID: "wh_1", ShopID: "demo", URL: dead + "/in", Status: webhook.Enabled, Rules: &webhook.Rules{
			Policy: profile.Policy{RetrySchedule: []time.Duration{time.Minute}, Breaker: profile.Breaker{Failures: 10}},
		}}
		if row.change != nil {
			row.change(w)
		}
		var s shutHosts
		for _, said := range row.said {
			s.heard(said.what, began.Add(said.at))
		}
		now := began.Add(row.at)
		if _, yes := s.putsOff(w, now); yes {
			t.Errorf("%s: the first is put off, want it to go to the senders, who see by it", row.name)
		}
		if since, yes := s.putsOff(w, now); yes != row.want || yes && since.Unix() != 1_780_000_000 {
			t.Errorf("%s: put off %t, since %s, want %t", row.name, yes, since, row.want)
		}
	}
}

func TestShutHosts_LetSomeThrough(t *testing.T) {
	t.Parallel()
	began := time.Now()
	var s shutHosts
	putOff := func(webhookID string, at time.Duration) bool {
		_, yes := s.putsOff(&webhook.Webhook{ID: webhookID, ShopID: "demo", URL: dead, Status: webhook.Enabled, Rules: &webhook.Rules{
			Policy: profile.Policy{RetrySchedule: []time.Duration{time.Minute}, Breaker: profile.Breaker{Failures: 10}},
		}}, began.Add(at))
		return yes
	}
	s.heard(says("a", isShut(dead, "")), began)
	got := []bool{putOff("wh_1", 0), putOff("wh_1", triedEvery/2), putOff("wh_2", triedEvery/2), putOff("wh_1", triedEvery), putOff("wh_1", triedEvery+1)}
	if want := []bool{false, true, true, false, true}; !slices.Equal(got, want) {
		t.Errorf("put off are %t, want %t: one a second goes to the senders, whosever it is", got, want)
	}
	for range contract.MaxPutOff - 2 {
		if !putOff("wh_1", triedEvery+1) {
			t.Error("one of few goes to the senders")
		}
	}
	if putOff("wh_1", triedEvery+1) || !putOff("wh_2", triedEvery+1) {
		t.Errorf("more than %d of a webhook are put off, or another's is not", contract.MaxPutOff)
	}
	s.heard(says("a"), began)
	s.heard(says("a", isShut(dead, "")), began)
	if putOff("wh_1", 0) || !putOff("wh_1", 0) {
		t.Error("what waited when the host came back still counts")
	}
}

// What is put off has its timer, its place in the story, and is told to the senders; what is not goes to them. Matched again, it is not sent
// beside its timer.
func TestEvents_ForAHostThatIsShutWaitForIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	policy := &shopbellv1.Policy{RetrySchedule: []*durationpb.Duration{durationpb.New(time.Minute)}, Breaker: &shopbellv1.Breaker{Failures: proto.Int32(10)}}
	gone := b.create(t, &shopbellv1.Webhook{Url: dead + "/in", Policy: policy})
	well := b.create(t, &shopbellv1.Webhook{Policy: policy})
	waits := b.create(t, &shopbellv1.Webhook{Url: dead + "/late", Policy: policy, Delay: &shopbellv1.Delay{Value: 1, Unit: "hour"}})
	ordered := b.create(t, &shopbellv1.Webhook{Url: dead + "/ordered", Policy: &shopbellv1.Policy{
		RetrySchedule: policy.RetrySchedule, Breaker: policy.Breaker, Ordered: proto.String(profile.ByKey),
	}})
	told, listening := make(chan *busv1.PutOff, 10), make(chan struct{})
	go func() {
		_ = b.bus.Overhear(t.Context(), contract.PutOffsSubject, func() { close(listening) }, func(m *nats.Msg) {
			all := &busv1.PutOffs{}
			if err := proto.Unmarshal(m.Data, all); err != nil {
				t.Error(err)
			}
			for _, p := range all.GetDeliveries() {
				told <- p
			}
		})
	}()
	<-listening
	word, err := proto.Marshal(says("a", isShut(dead, "")))
	if err != nil {
		t.Fatal(err)
	}
	// Its word holds for seconds; the first delivery there shows that it is heard, and goes to the senders.
	testwait.Until(t, "what senders say is heard", func() bool {
		if err := b.bus.Tell(contract.ShutHostsSubject, word); err != nil {
			t.Fatal(err)
		}
		b.shut.mu.Lock()
		defer b.shut.mu.Unlock()
		return len(b.shut.hosts) == 1
	})
	b.shut.mu.Lock()
	b.shut.until = b.shut.until.Add(time.Hour)
	b.shut.hosts[dead].tried = time.Now().Add(time.Hour)
	b.shut.mu.Unlock()
	e := happened("evt_1", "paid")
	if err := b.bus.Publish(t.Context(), e.Message()); err != nil {
		t.Fatal(err)
	}
	places := func() map[string]string {
		out := map[string]string{}
		for _, stream := range []string{contract.Deliveries, contract.Later, contract.Held} {
			for _, m := range b.stored(t, stream) {
				d, err := contract.ParseDelivery(m.Header, m.Data)
				if err != nil {
					t.Fatal(err)
				}
				if out[d.WebhookID] += stream; d.WebhookID == gone.Id && (d.Deferred != 1 || d.Attempt != 1) {
					t.Errorf("it is put off as %+v, want its first attempt, deferred once", d)
				}
			}
		}
		return out
	}
	wantPlaces := func() {
		t.Helper()
		want := map[string]string{gone.Id: contract.Later, well.Id: contract.Deliveries, waits.Id: contract.Later, ordered.Id: contract.Held}
		if got := places(); len(got) != len(want) || got[gone.Id] != want[gone.Id] || got[well.Id] != want[well.Id] || got[waits.Id] != want[waits.Id] || got[ordered.Id] != want[ordered.Id] {
			t.Errorf("the deliveries lie in %v, want %v", got, want)
		}
	}
	p := <-told // once all that was decided is stored
	wantPlaces()
	if p.GetWebhookId() != gone.Id || p.GetHost() != dead || p.GetDue().AsTime().Sub(p.GetDecidedAt().AsTime()) != contract.LeastPutOff {
		t.Errorf("the senders are told of %v, want %s", p, gone.Id)
	}
	var why []string
	for _, r := range b.recorded(t) {
		if c := r.GetChange(); c != nil {
			why = append(why, c.GetWebhookId()+" is "+c.GetStatus()+": "+c.GetReason())
			if c.GetDeliveryId() != p.GetDeliveryId() || r.GetEventId() != "evt_1" {
				t.Errorf("recorded is %v of %s, want the delivery that the senders are told of, %s", c, r.GetEventId(), p.GetDeliveryId())
			}
		}
	}
	if len(why) != 1 || !strings.HasPrefix(why[0], gone.Id+" is delayed: nobody behind "+dead+" has answered since 2026-05-28T") {
		t.Errorf("recorded is %q, want why the one waits", why)
	}

	var again decided
	if err := b.decideOne(t.Context(), &jetstream.MsgMetadata{NumDelivered: 2, Sequence: jetstream.SequencePair{Stream: 1}}, e, b.webhooks.Subscribed("demo", "paid"), &again); err != nil {
		t.Fatal(err)
	}
	if err := b.bus.Publish(t.Context(), again.deliveries...); err != nil {
		t.Fatal(err)
	}
	wantPlaces()
	if len(told) != 0 || len(again.putOffs) != 0 {
		t.Errorf("what is matched again is told of again: %d, %v", len(told), again.putOffs)
	}
}
