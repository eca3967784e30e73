package contract_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
)

var at = time.Date(2026, 5, 1, 8, 30, 0, 123456789, time.UTC)

func delivery(change func(*contract.Delivery)) *contract.Delivery {
	d := &contract.Delivery{
		Event: contract.Event{ShopID: "demo", ID: "evt_1", Type: "paid", AcceptedAt: at, Data: []byte(`{"n":1}`)},
		ID:    "dlv_1", WebhookID: "wh_1", MatchedAt: at, Attempt: 1,
	}
	change(d)
	return d
}

func msgID(m *nats.Msg) string { return m.Header[jetstream.MsgIDHeader][0] }

// What the server makes of our headers is part of the way: it parses and prints them.
func TestDelivery_ComesThroughTheBusAsItWas(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	for name, change := range map[string]func(*contract.Delivery){
		"as little as may be": func(d *contract.Delivery) { d.Data = nil },
		"everything": func(d *contract.Delivery) {
			d.Action, d.OccurredAt, d.Environment, d.Key, d.ContentType = "create", "2026-05-01T10:30:00.5+02:00", "test", "order:1042", "application/json; charset=utf-8"
			d.AskedAt, d.WholeBody, d.Attempt = at.Add(time.Hour), true, 51
		},
		"dots in the shop's id":      func(d *contract.Delivery) { d.ShopID, d.Type = "a.b..c.", "order.created.v2" },
		"a key beyond ASCII":         func(d *contract.Delivery) { d.Key = "Bestellung: Größe \"XL\" 数, a:b" },
		"a key like a header":        func(d *contract.Delivery) { d.Key = "Nats-Msg-Id: other" },
		"a body like headers":        func(d *contract.Delivery) { d.Data = []byte("NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n") },
		"every byte there is":        func(d *contract.Delivery) { d.Data = everyByte() },
		"a key of blanks in between": func(d *contract.Delivery) { d.Key = "a   b" },
	} {
		d := delivery(change)
		d.ID = "dlv_" + strings.ReplaceAll(name, " ", "")
		if err := b.Publish(t.Context(), d.Message()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stream, err := b.Stream(t.Context(), contract.Deliveries)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := stream.GetLastMsgForSubject(t.Context(), contract.DeliverySubject("wh_1", contract.Straight))
		if err != nil {
			t.Fatal(err)
		}
		got, err := contract.ParseDelivery(raw.Header, raw.Data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(got.Data) == 0 {
			got.Data = nil
		}
		if diff := cmp.Diff(d, &got); diff != "" {
			t.Errorf("%s (-sent +come):\n%s", name, diff)
		}
	}
}

func everyByte() []byte {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return all
}

func FuzzDelivery_RoundTrip(f *testing.F) {
	f.Add("demo", "evt_1", "paid", "create", "2026-05-01T10:30:00+02:00", "live", "order:1042", "application/json", []byte(`{"n":1}`), int64(1), int64(2), int64(0), 1, false)
	f.Add("a.b", "e", "a.b.c", "", "", "", "ключ", "", []byte{0, 255}, int64(-5), int64(1<<60), int64(7), 51, true)
	f.Fuzz(func(t *testing.T, shop, eventID, eventType, action, occurred, environment, key, contentType string, data []byte, accepted, matched, asked int64, attempt int, whole bool) {
		if contract.CheckShopID(shop) != nil || contract.CheckEventType(eventType) != nil || contract.CheckEventID(eventID) != nil || attempt < 1 {
			t.Skip("no event can have this: it is refused where it comes in")
		}
		want := contract.Delivery{
			Event: contract.Event{
				ShopID: shop, ID: eventID, Type: eventType, Action: action, OccurredAt: occurred, Environment: environment, Key: key,
				ContentType: contentType, AcceptedAt: time.Unix(0, accepted).UTC(), Data: data,
			},
			ID: "dlv_1", WebhookID: "wh_1", MatchedAt: time.Unix(0, matched).UTC(), Attempt: attempt, WholeBody: whole,
		}
		if attempt > 1 {
			want.Uncounted, want.Sequence, want.MatchedThrough, want.OffRevision, want.Due = attempt-1, uint64(attempt), uint64(attempt), uint64(attempt), time.Unix(0, matched).UTC()
			want.Early = attempt%2 == 0
		}
		if asked != 0 {
			want.AskedAt = time.Unix(0, asked).UTC()
		}
		for name, m := range map[string]*nats.Msg{
			"at once": want.Message(), "later": want.Later(at), "held": want.Hold(1),
		} {
			got, err := contract.ParseDelivery(m.Header, m.Data)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-made +read):\n%s", name, diff)
			}
		}
		m := want.Event.Message()
		got, err := contract.ParseEvent(m.Header, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Event, got); diff != "" {
			t.Errorf("event (-made +read):\n%s", diff)
		}
	})
}

// The bus may hand us anything: what an older or a newer program wrote, or somebody by hand.
func FuzzParse_NeverPanics(f *testing.F) {
	f.Add("Shopbell-Release", "send 7", "Shopbell-Attempt", "1")
	f.Add("Shopbell", "shop=a event=b type=c accepted-at=1 delivery=d webhook=e matched-at=2 attempt=1", "Shopbell-By-Hand", "never")
	f.Add("Shopbell", "", "Shopbell-Accepted-At", "now")
	f.Add("Shopbell", "= %2 %zz key=%41% %", "", "")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		h := delivery(func(*contract.Delivery) {}).Message().Header
		h[name1], h[name2] = []string{value1}, []string{value2}
		if d, err := contract.ParseDelivery(h, nil); err == nil && (d.ShopID == "" || d.ID == "" || d.WebhookID == "" || d.Event.ID == "" || d.Type == "" || d.Attempt < 1) {
			t.Errorf("ParseDelivery takes %+v, which names too little", d)
		}
		if r, ok, err := contract.ParseRelease(h); ok && err == nil && r.WebhookID == "" {
			t.Errorf("ParseRelease takes %+v, which names no webhook", r)
		}
		contract.ParseWebhookKey(value1)
	})
}

func TestRelease_RoundTrip(t *testing.T) {
	for _, want := range []contract.Release{
		{ShopID: "demo", WebhookID: "wh_1", Through: 0},
		{ShopID: "a.b", WebhookID: "wh_1", Through: 1<<64 - 1, Discard: true},
	} {
		got, ok, err := contract.ParseRelease(want.Message().Header)
		if err != nil || !ok || got != want {
			t.Errorf("release %+v came back as %+v, %v, %v", want, got, ok, err)
		}
	}
	if _, ok, err := contract.ParseRelease(delivery(func(*contract.Delivery) {}).Message().Header); ok || err != nil {
		t.Errorf("a delivery is read as a release: %v, %v", ok, err)
	}
	for _, text := range []string{"send", "send x", "keep 7", "send -1", " 7"} {
		h := nats.Header{"Shopbell-Release": {text}, "Shopbell-Webhook": {"wh_1"}}
		if _, ok, err := contract.ParseRelease(h); !ok || err == nil {
			t.Errorf("release %q: ok %v, error %v, want true and an error", text, ok, err)
		}
	}
}

func TestParseDelivery_SaysWhatIsWrong(t *testing.T) {
	for _, row := range []struct{ name, field, is, want string }{
		{"no shop", "shop=demo", "", `shop ""`},
		{"no event", "event=evt_1", "", `id ""`},
		{"no type", "type=paid", "", `type ""`},
		{"no time of acceptance", "accepted-at=1777624200123456789", "", "time of acceptance"},
		{"a wrong time of acceptance", "accepted-at=1777624200123456789", "accepted-at=now", "time of acceptance"},
		{"no delivery", "delivery=dlv_1", "", `delivery ""`},
		{"no webhook", "webhook=wh_1", "", `webhook ""`},
		{"no time of matching", "matched-at=1777624200123456789", "", "time of matching"},
		{"a wrong time of matching", "matched-at=1777624200123456789", "matched-at=yesterday", "time of matching"},
		{"a wrong time of asking", "attempt=1", "attempt=1 by-hand=soon", "time of asking"},
		{"a wrong revision", "attempt=1", "attempt=1 webhook-revision=-1", "revision of the webhook"},
		{"no attempt", "attempt=1", "", `attempt 0`},
		{"attempt -1", "attempt=1", "attempt=-1", `attempt -1`},
		{"attempt one", "attempt=1", "attempt=one", `attempt "one"`},
		{"more are not counted than there were", "attempt=1", "attempt=1 uncounted=1", "1 of 0 attempts are not counted"},
		{"no fields", "", "", `shop ""`},
	} {
		h := delivery(func(*contract.Delivery) {}).Message().Header
		fields := h["Shopbell"][0]
		if !strings.Contains(fields, row.field) {
			t.Errorf("%s: there is no %s in %s", row.name, row.field, fields)
		}
		if h["Shopbell"][0] = strings.Replace(fields, row.field, row.is, 1); row.field == "" {
			h["Shopbell"][0] = ""
		}
		if _, err := contract.ParseDelivery(h, nil); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want an error with %q", row.name, err, row.want)
		}
	}
}

// A program of a later version may write fields that we do not know.
func TestParseDelivery_PassesOverFieldsThatItDoesNotKnow(t *testing.T) {
	want := delivery(func(*contract.Delivery) {})
	h := want.Message().Header
	h["Shopbell"][0] = "colour=red " + h["Shopbell"][0] + " later  x==% bulk"
	got, err := contract.ParseDelivery(h, want.Data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("(-sent +read):\n%s", diff)
	}
}

func TestMessageIDs_AreTheSameForARepeatAndDifferForWhatFollows(t *testing.T) {
	first := delivery(func(*contract.Delivery) {})
	byHand := delivery(func(d *contract.Delivery) { d.AskedAt = at })
	ids := map[string]string{}
	for _, row := range []struct {
		name string
		make func() *nats.Msg
	}{
		{"event", first.Event.Message},
		{"event of another shop", (&contract.Event{ShopID: "other", ID: "evt_1", Type: "paid"}).Message},
		{"another event", (&contract.Event{ShopID: "demo", ID: "evt_2", Type: "paid"}).Message},
		{"attempt 1", first.Message},
		{"attempt 2", delivery(func(d *contract.Delivery) { d.Attempt = 2 }).Message},
		{"attempt 2 later", func() *nats.Msg { return delivery(func(d *contract.Delivery) { d.Attempt = 2 }).Later(at) }},
		{"attempt 3 later", func() *nats.Msg { return delivery(func(d *contract.Delivery) { d.Attempt = 3 }).Later(at) }},
		{"by hand", byHand.Message},
		{"by hand, asked again", delivery(func(d *contract.Delivery) { d.AskedAt = at.Add(1) }).Message},
		{"another delivery", delivery(func(d *contract.Delivery) { d.ID = "dlv_2" }).Message},
		{"held from 1", func() *nats.Msg { return first.Hold(1) }},
		{"held from 2", func() *nats.Msg { return first.Hold(2) }},
		{"held again after an attempt", func() *nats.Msg { return delivery(func(d *contract.Delivery) { d.Attempt = 2 }).Hold(1) }},
		{"send what is held up to 7", (&contract.Release{WebhookID: "wh_1", Through: 7}).Message},
		{"discard what is held up to 7", (&contract.Release{WebhookID: "wh_1", Through: 7, Discard: true}).Message},
		{"send what is held up to 8", (&contract.Release{WebhookID: "wh_1", Through: 8}).Message},
	} {
		once, again := msgID(row.make()), msgID(row.make())
		if once != again {
			t.Errorf("%s: a repeat has the id %q, the first %q", row.name, again, once)
		}
		if other, taken := ids[once]; taken {
			t.Errorf("%s has the id %q of %s: the stream would take it for a repeat", row.name, once, other)
		}
		ids[once] = row.name
	}
}

// A repeat may have another time of acceptance and other data: it is the id that counts.
func TestEvent_RepeatIsTakenForOneByTheStream(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	first := contract.Event{ShopID: "demo", ID: "evt_1", Type: "paid", AcceptedAt: at, Data: []byte("1")}
	again := first
	again.AcceptedAt, again.Type, again.Data = at.Add(time.Minute), "order_created", []byte("2")
	other := first
	other.ShopID = "other"
	acks, err := b.PublishAcks(t.Context(), first.Message())
	if err != nil {
		t.Fatal(err)
	}
	more, err := b.PublishAcks(t.Context(), again.Message(), other.Message())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, false} {
		if got := append(acks, more...)[i]; got.Duplicate != want {
			t.Errorf("event %d: duplicate %v, want %v", i, got.Duplicate, want)
		}
	}
}

// Buckets take fewer characters in a key than streams in a subject.
func TestKeys_AreTakenByTheBucketsForEveryShopID(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	for bucket, key := range map[string]func(string) string{
		contract.Webhooks: func(shop string) string { return contract.WebhookKey(shop, "wh_01ARZ3NDEKTSV4RRFFQ69G5FAV") },
		contract.Shops:    contract.ShopKey,
	} {
		kv, err := b.Bucket(t.Context(), bucket)
		if err != nil {
			t.Fatal(err)
		}
		for _, shop := range []string{"demo", "tulip.shop", "-", "_a", "a..b", "9", "Z.", strings.Repeat("x.", 32)} {
			if err := contract.CheckShopID(shop); err != nil {
				t.Fatal(err)
			}
			if _, err := kv.Put(t.Context(), key(shop), []byte("1")); err != nil {
				t.Errorf("bucket %s refuses the key %q of shop %q: %v", bucket, key(shop), shop, err)
			}
		}
	}
	if waiting, _, err := b.Pending(t.Context(), contract.Matcher); err != nil || waiting != 0 {
		t.Errorf("a key is taken for an event: %d waiting, %v", waiting, err)
	}
}

func TestLater_IsReadBackAndReplacedOnce(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 1, 8, 30, 0, 0, time.UTC)
	d := contract.Delivery{
		Event: contract.Event{ShopID: "tulip.shop", ID: "evt_1", Type: "paid", AcceptedAt: at, Data: []byte("{}")},
		ID:    "dlv_1", WebhookID: "wh_1", MatchedAt: at, Attempt: 2, AskedBy: "operator", Replay: "job_1", Cancel: "cancelled by hand",
	}
	m := d.Later(at.Add(time.Hour))
	got, due, err := contract.ParseLater(m.Header, m.Data)
	if err != nil || !due.Equal(at.Add(time.Hour)) {
		t.Fatalf("got due %s, %v; want an hour later", due, err)
	}
	if got.AskedBy != d.AskedBy || got.Replay != d.Replay || got.Cancel != d.Cancel || got.ID != d.ID {
		t.Errorf("got %+v, want %+v", got, d)
	}
	if now := d.InsteadOf(42, at); now.Subject != m.Subject || now.Header.Get("Nats-Msg-Id") == m.Header.Get("Nats-Msg-Id") {
		t.Errorf("got %s with id %s, want it in the same place under an id of its own", now.Subject, now.Header.Get("Nats-Msg-Id"))
	}
	if _, _, err := contract.ParseLater(d.Message().Header, nil); err == nil {
		t.Error("a delivery that is no timer: got no error")
	}
}

// What a delivery's message costs on its way: made, published, stored, read and parsed. An event of a shop with
// everything that the benchmark's events have.
func BenchmarkDelivery_ThroughTheBus(b *testing.B) {
	way := bustest.New(b)
	body := []byte(strings.Repeat(`{"total":549.50}`, 64))
	b.ReportAllocs()
	for made := 0; made < b.N; {
		from, msgs := made, make([]*nats.Msg, 0, 256)
		for ; made < b.N && len(msgs) < cap(msgs); made++ {
			d := contract.Delivery{
				Event: contract.Event{
					ShopID: "demo", ID: fmt.Sprintf("evt_01ARZ3NDEKTSV4RRFF%09d", made), Type: "order.created", OccurredAt: "2026-05-01T10:30:00.123Z", Environment: "live",
					ContentType: "application/json", AcceptedAt: at, Data: body, Bulk: true,
				},
				ID: fmt.Sprintf("dlv_01ARZ3NDEKTSV4RRFF%09d", made), WebhookID: "wh_01ARZ3NDEKTSV4RRFFQ69G5FAV", Revision: 17, MatchedAt: at.Add(time.Millisecond), Attempt: 1,
			}
			m := d.Hold(0)
			m.Header["traceparent"] = []string{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
			msgs = append(msgs, m)
		}
		if err := way.Publish(b.Context(), msgs...); err != nil {
			b.Fatal(err)
		}
		if err := way.Read(b.Context(), contract.Held, contract.HeldSubjects, bus.From{Sequence: uint64(from) + 1}, func(m bus.Message) bool {
			d, err := contract.ParseDelivery(m.Headers(), m.Data())
			if err != nil {
				b.Fatal(err)
			}
			return d.WebhookID != ""
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// The same without the bus.
func BenchmarkDelivery_MadeAndParsed(b *testing.B) {
	d := delivery(func(d *contract.Delivery) {
		d.OccurredAt, d.Environment, d.ContentType, d.Bulk, d.Revision = "2026-05-01T10:30:00.123Z", "live", "application/json", true, 17
	})
	b.ReportAllocs()
	for b.Loop() {
		m := d.Message()
		if _, err := contract.ParseDelivery(m.Header, m.Data); err != nil {
			b.Fatal(err)
		}
	}
}
