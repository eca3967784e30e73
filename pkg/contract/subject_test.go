package contract_test

import (
	"errors"
	"strings"
	"testing"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
)

func TestCheckShopID_TakesNamesAndRefusesWhatWouldChangeASubject(t *testing.T) {
	for _, row := range []struct {
		name, shop string
		good       bool
	}{
		{"letters", "demo", true},
		{"digits", "10042", true},
		{"every sign that is allowed", "a.B_c-9", true},
		{"a sign in front", "_demo", true},
		{"a dot behind", "demo.", true},
		{"64 bytes", strings.Repeat("a", 64), true},
		{"65 bytes", strings.Repeat("a", 65), false},
		{"nothing", "", false},
		{"a dot in front", ".demo", false},
		{"a wildcard", "*", false},
		{"a tail wildcard", "demo>", false},
		{"a blank", "de mo", false},
		{"a line break", "demo\r\n", false},
		{"what stands for a dot in a subject", "a=b", false},
		{"another script", "dеmo", false}, // a Cyrillic е
		{"a slash", "a/b", false},
		{"bytes that are no text", "a\xff", false},
		{"a zero byte", "a\x00", false},
	} {
		t.Run(row.name, func(t *testing.T) { checkField(t, contract.CheckShopID(row.shop), row.good, "shop_id") })
	}
}

func TestCheckEventType_TakesNamesAndRefusesWhatWouldChangeASubject(t *testing.T) {
	for _, row := range []struct {
		name, eventType string
		good            bool
	}{
		{"as Shoporama writes it", "order_created", true},
		{"as Shoprocket writes it", "order.created", true},
		{"as CloudEvents has it", "com.example.order-created.v2", true},
		{"upper case stays", "Order_Created", true},
		{"128 bytes", strings.Repeat("a", 128), true},
		{"129 bytes", strings.Repeat("a", 129), false},
		{"nothing", "", false},
		{"a dot alone", ".", false},
		{"a dot in front", ".created", false},
		{"a dot behind", "order.", false},
		{"an empty part", "order..created", false},
		{"a wildcard", "order.*", false},
		{"a tail wildcard", ">", false},
		{"a blank", "order created", false},
		{"a tab", "order\tcreated", false},
		{"a slash", "order/created", false},
		{"a letter beyond ASCII", "größe", false},
		{"a zero byte", "a\x00", false},
	} {
		t.Run(row.name, func(t *testing.T) { checkField(t, contract.CheckEventType(row.eventType), row.good, "type") })
	}
}

func TestCheckEventID_TakesWhatCanStandInAnAddress(t *testing.T) {
	for _, row := range []struct {
		name, id string
		good     bool
	}{
		{"a name", "order-1042-created", true},
		{"a UUID", "6f1c2d3e-4b5a-6978-8796-a5b4c3d2e1f0", true},
		{"signs", "a:b,c;d=e&f@g!$'()*+~", true},
		{"200 bytes", strings.Repeat("a", 200), true},
		{"201 bytes", strings.Repeat("a", 201), false},
		{"nothing", "", false},
		{"a blank", "a b", false},
		{"a slash", "a/b", false},
		{"a backslash", `a\b`, false},
		{"a question mark", "a?b", false},
		{"a hash", "a#b", false},
		{"a percent sign", "a%2fb", false},
		{"a letter beyond ASCII", "ä", false},
		{"a line break", "a\nb", false},
		{"a delete", "a\x7f", false},
	} {
		t.Run(row.name, func(t *testing.T) { checkField(t, contract.CheckEventID(row.id), row.good, "id") })
	}
}

func checkField(t *testing.T, err error, good bool, field string) {
	t.Helper()
	var f *fault.Fault
	switch {
	case good && err != nil:
		t.Errorf("refused: %v", err)
	case !good && (!errors.As(err, &f) || len(f.Fields) != 1 || f.Fields[0].Field != field):
		t.Errorf("error %v, want one on the field %s", err, field)
	}
}

func FuzzSubjects_CannotBeSmuggled(f *testing.F) {
	for _, seed := range [][2]string{
		{"demo", "order_created"}, {"a.b", "order.created"}, {"*", ">"}, {"a~b", "x"}, {"a=b", "x"}, {"demo", "a..b"}, {"demo.>", "a b"}, {"\u00a0", "\ufeff"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, shop, eventType string) {
		if contract.CheckShopID(shop) != nil {
			t.Skip("no shop has this id: it is refused where it comes in")
		}
		for subject, want := range map[string]int{
			contract.OutcomeSubject(shop, "wh_1"): 3,
			contract.OutcomeSubject(shop, ""):     3,
			contract.SwitchSubject(shop, "wh_1"):  4,
			contract.WebhookKey(shop, "wh_1"):     2,
			contract.KeyPlace(shop, "key_1"):      2,
			contract.ShopKey(shop):                1,
		} {
			checkTokens(t, subject, want)
		}
		if got, id, ok := contract.ParseWebhookKey(contract.WebhookKey(shop, "wh_1")); got != shop || id != "wh_1" || !ok {
			t.Errorf("the key of shop %q is read as of %q, %q, %v", shop, got, id, ok)
		}
		if got, id, ok := contract.ParseKeyPlace(contract.KeyPlace(shop, "key_1")); got != shop || id != "key_1" || !ok {
			t.Errorf("the place of a key of shop %q is read as of %q, %q, %v", shop, got, id, ok)
		}
		if got := contract.ParseShopKey(contract.ShopKey(shop)); got != shop {
			t.Errorf("the key of shop %q is read as of %q", shop, got)
		}
		if contract.CheckEventType(eventType) != nil {
			t.Skip("no event has this type: it is refused where it comes in")
		}
		subject := contract.EventSubject(shop, eventType, false)
		checkTokens(t, subject, 3+len(strings.Split(eventType, ".")))
		if !strings.HasPrefix(subject, "events.") || !strings.HasSuffix(subject, "."+eventType) {
			t.Errorf("subject %q is not events.<kind>.<shop>.%s", subject, eventType)
		}
	})
}

func checkTokens(t *testing.T, subject string, want int) {
	t.Helper()
	tokens := strings.Split(subject, ".")
	if len(tokens) != want {
		t.Errorf("subject %q has %d parts, want %d", subject, len(tokens), want)
	}
	for _, token := range tokens {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n\x00") {
			t.Errorf("subject %q has the part %q", subject, token)
		}
	}
}

func TestSubjects_OfTwoShopsNeverMeet(t *testing.T) {
	seen := map[string]string{}
	for _, shop := range []string{"a", "a.b", "a.b.c", "a_b", "a-b", "a.", "ab", "A"} {
		for _, subject := range []string{contract.EventSubject(shop, "b.c", true), contract.OutcomeSubject(shop, "b"), contract.ShopKey(shop)} {
			if other, taken := seen[subject]; taken {
				t.Errorf("shops %q and %q share %q", shop, other, subject)
			}
			seen[subject] = shop
		}
	}
}

func TestParseWebhookKey_RefusesWhatIsNone(t *testing.T) {
	for _, key := range []string{"", ".", "demo", "demo.", ".wh_1", "demo.wh_1.more"} {
		if shop, id, ok := contract.ParseWebhookKey(key); ok {
			t.Errorf("key %q is read as webhook %q of shop %q", key, id, shop)
		}
	}
}

func TestDeliverySubject_SpreadsWebhooksOverAllShards(t *testing.T) {
	shards := map[string]bool{}
	for i := range 2000 {
		id := "wh_" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i%11)
		subject := contract.DeliverySubject(id, contract.Straight)
		checkTokens(t, subject, 3)
		if again := contract.DeliverySubject(id, contract.Straight); again != subject {
			t.Fatalf("webhook %s lies at %s and at %s", id, subject, again)
		}
		shards[strings.Split(subject, ".")[1]] = true
	}
	if len(shards) != 16 {
		t.Errorf("%d shards are used, want all 16", len(shards))
	}
}

func TestParseOutcomeSubject_GivesBackWhatItWasMadeOf(t *testing.T) {
	t.Parallel()
	for _, webhookID := range []string{"wh_1", ""} {
		shop, got, ok := contract.ParseOutcomeSubject(contract.OutcomeSubject("tulip.shop", webhookID))
		if !ok || shop != "tulip.shop" || got != webhookID {
			t.Errorf("webhook %q: got shop %q, webhook %q, %v", webhookID, shop, got, ok)
		}
	}
	for _, subject := range []string{contract.SwitchSubject("tulip.shop", "wh_1"), contract.HeldSubject("wh_1"), "outcomes.", "outcomes..wh_1", "outcomes.tulip."} {
		if shop, webhookID, ok := contract.ParseOutcomeSubject(subject); ok {
			t.Errorf("%q: got shop %q, webhook %q; want that it is no record's", subject, shop, webhookID)
		}
	}
}
