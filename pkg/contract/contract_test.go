package contract_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/contract"
)

var update = flag.Bool("update", false, "write the golden file anew")

// Programs of two versions meet on one bus while a deployment is rolled out, and what was stored stays. Whoever changes
// a line of the golden file answers for both.
func TestContract_IsWhatTheGoldenFileSays(t *testing.T) {
	const path = "testdata/contract.golden"
	got := contractText(t)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the contract has changed (-golden +now); if that is meant, run: go test ./contract -update\n%s", diff)
	}
}

func contractText(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	options := contract.DefaultOptions()
	for _, s := range contract.Streams(options) {
		fmt.Fprintf(&out, "stream %s\n%s", s.Name, settings(t, s))
	}
	for _, b := range contract.Buckets(options) {
		fmt.Fprintf(&out, "bucket %s\n%s", b.Bucket, settings(t, b))
	}
	for _, c := range contract.Consumers() {
		fmt.Fprintf(&out, "consumer %s on %s\n%s", c.Config.Durable, c.Stream, settings(t, c.Config))
	}
	out.WriteString("keys\n")
	fmt.Fprintf(&out, "  webhook: %s\n", contract.WebhookKey("tulip.shop", "wh_1"))
	fmt.Fprintf(&out, "  webhooks of a shop: %s\n", contract.ShopWebhookKeys("tulip.shop"))
	fmt.Fprintf(&out, "  shop: %s\n", contract.ShopKey("tulip.shop"))
	fmt.Fprintf(&out, "  replay: %s\n", contract.ReplayKey("tulip.shop", "job_1"))
	fmt.Fprintf(&out, "  replays of a shop: %s\n", contract.ShopReplayKeys("tulip.shop"))
	fmt.Fprintf(&out, "events of a shop\n  %s\n", contract.ShopEventSubjects("tulip.shop"))
	fmt.Fprintf(&out, "  key of a shop: %s\n", contract.KeyPlace("tulip.shop", "key_1"))

	for _, row := range messages() {
		fmt.Fprintf(&out, "message: %s\n  subject: %s\n", row.name, row.m.Subject)
		for _, name := range slices.Sorted(maps.Keys(row.m.Header)) {
			fmt.Fprintf(&out, "  %s: %s\n", name, strings.Join(row.m.Header[name], " | "))
		}
		fmt.Fprintf(&out, "  body: %s\n", row.m.Data)
	}
	return out.Bytes()
}

// named is a message, and what it is.
type named struct {
	name string
	m    *nats.Msg
}

// messages are one of each kind.
func messages() []named {
	e := contract.Event{
		ShopID: "tulip.shop", ID: "evt_1", Type: "order.created", Action: "create", OccurredAt: "2026-05-01T10:30:00+02:00",
		Environment: "live", Key: "order:1042", ContentType: "application/json", AcceptedAt: at, AcceptedBy: "key_1 (ERP)", Data: []byte(`{"total":549.50}`),
	}
	d := contract.Delivery{Event: e, ID: "dlv_1", WebhookID: "wh_1", MatchedAt: at.Add(time.Millisecond), Attempt: 2}
	byHand := d
	byHand.AskedAt, byHand.AskedBy, byHand.WholeBody = at.Add(time.Hour), "Back office", true
	replayed := byHand
	replayed.Replay = "job_1"
	cancelled := d
	cancelled.Cancel = "cancelled by hand"
	inOrder := d
	inOrder.Sequence, inOrder.MatchedThrough, inOrder.Uncounted, inOrder.Due = 17, 15, 1, at.Add(time.Minute)
	early := d
	early.Due, early.Early = at.Add(time.Hour), true
	off := d
	off.Revision, off.OffRevision = 3, 4
	send := contract.Release{ShopID: "tulip.shop", WebhookID: "wh_1", Through: 7}
	discard := contract.Release{ShopID: "tulip.shop", WebhookID: "wh_1", Through: 7, Discard: true}
	return []named{
		{"an event", e.Message()},
		{"a delivery", d.Message()},
		{"a delivery by hand with its whole body", byHand.Message()},
		{"a delivery that waits for its time", d.Later(at.Add(time.Minute))},
		{"a delivery that a job sends again", replayed.Message()},
		{"a timer in the place of another: the delivery is cancelled", cancelled.InsteadOf(42, at.Add(time.Minute))},
		{"a timer in the place of another: the receiver is back", early.InsteadOf(42, at.Add(time.Minute))},
		{"a delivery that is held", d.Hold(42)},
		{"a delivery in order", inOrder.Hold(0)},
		{"a delivery that is held because its webhook is off", off.Hold(42)},
		{"a held delivery that is cancelled", cancelled.CancelHeld()},
		{"what was tried with a held delivery", contract.TriesMessage("wh_1", "dlv_1", []byte("tries"))},
		{"what is held is sent", send.Message()},
		{"what is held is discarded", discard.Message()},
		{"a record of a webhook", contract.RecordMessage("tulip.shop", "wh_1", []byte("record"))},
		{"a record of no webhook alone", contract.RecordMessage("tulip.shop", "", []byte("record"))},
		{"a wish to switch off", contract.SwitchMessage("tulip.shop", "wh_1", []byte("wish"), "dlv_1/2/1/off")},
	}
}

// What was stored before each field was part of one header stays, and is still read.
func TestParse_ReadsTheFormerForm(t *testing.T) {
	text, err := os.ReadFile("testdata/former.golden")
	if err != nil {
		t.Fatal(err)
	}
	now := map[string]*nats.Msg{}
	for _, row := range messages() {
		now[row.name] = row.m
	}
	all := strings.Split(string(text), "message: ")[1:]
	if len(all) != 8 {
		t.Errorf("got %d former messages, want 8", len(all))
	}
	for _, one := range all {
		lines := strings.Split(strings.TrimSpace(one), "\n")
		name, m := lines[0], &nats.Msg{Header: nats.Header{}}
		for _, line := range lines[1:] {
			switch header, value, _ := strings.Cut(strings.TrimSpace(line), ": "); header {
			case "subject":
				m.Subject = value
			case "body":
				m.Data = []byte(value)
			default:
				m.Header[header] = []string{value}
			}
		}
		want := now[name]
		if want == nil {
			t.Errorf("%s: there is no such message now", name)
			continue
		}
		if m.Subject != want.Subject || m.Header.Get("Nats-Msg-Id") != want.Header.Get("Nats-Msg-Id") {
			t.Errorf("%s: it lay at %s as %s, and lies at %s as %s", name, m.Subject, m.Header.Get("Nats-Msg-Id"), want.Subject, want.Header.Get("Nats-Msg-Id"))
		}
		if contract.ShopOf(m.Header) != "tulip.shop" || contract.ShopOf(want.Header) != "tulip.shop" {
			t.Errorf("%s: of shop %q, now %q; want tulip.shop", name, contract.ShopOf(m.Header), contract.ShopOf(want.Header))
		}
		formerly, err := contract.ParseDelivery(m.Header, m.Data)
		is, nowErr := contract.ParseDelivery(want.Header, want.Data)
		if name == "an event" {
			formerly.Event, err = contract.ParseEvent(m.Header, m.Data)
			is.Event, nowErr = contract.ParseEvent(want.Header, want.Data)
		}
		if err != nil || nowErr != nil {
			t.Errorf("%s: %v, now %v", name, err, nowErr)
		}
		is.MatchedThrough = 0 // which is younger than that form
		if diff := cmp.Diff(formerly, is); diff != "" {
			t.Errorf("%s (-former +now):\n%s", name, diff)
		}
	}
}

// settings are all settings that say something, so that none is forgotten here when it is added there.
func settings(t *testing.T, config any) string {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&all); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		value := fmt.Sprint(all[name])
		switch value {
		case "", "0", "false", "<nil>", "map[]", "[]":
			continue
		}
		if n, ok := all[name].(json.Number); ok && slices.Contains([]string{"max_age", "duplicate_window", "ack_wait"}, name) {
			nanos, err := n.Int64()
			if err != nil {
				t.Fatal(err)
			}
			value = time.Duration(nanos).String()
		}
		fmt.Fprintf(&out, "  %s: %s\n", name, value)
	}
	return out.String()
}
