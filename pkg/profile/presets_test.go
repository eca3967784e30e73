package profile_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/profile"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// What each shop system's documents promise and a preset holds. A name's number is a line of SHOPS.md.

// S1: Shoporama.

func TestShoporama_S1_01_OrderEvents(t *testing.T) {
	t.Parallel()
	wantTypes(t, preset(t, "shoporama"), "order_created", "paid", "new_status", "new_return")
}

func TestShoporama_S1_02_ProductAndCategoryEvents(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoporama")
	wantTypes(t, p, "product", "stock", "category")
	// Created or updated, and for categories deleted as well (A3), are one name each: the event's own action goes first.
	for _, row := range []struct{ eventType, own, want string }{
		{"product", "create", "create"},
		{"product", "", "update"},
		{"stock", "", "update"},
		{"category", "delete", "delete"},
	} {
		if got := p.Action(row.eventType, row.own); got != row.want {
			t.Errorf("Action(%q, %q) = %q, want %q", row.eventType, row.own, got, row.want)
		}
	}
}

func TestShoporama_S1_03_CustomerAndNewsletterEvents(t *testing.T) {
	t.Parallel()
	wantTypes(t, preset(t, "shoporama"), "customer_created", "newsletter_subscribe")
}

func TestShoporama_S1_04_CheckoutEvents(t *testing.T) {
	t.Parallel()
	wantTypes(t, preset(t, "shoporama"), "add_to_basket", "update_basket", "view_basket", "view_address", "view_shipping",
		"view_approve", "view_thanks", "approved")
}

func TestShoporama_S1_05_SeventeenNamesWithUnderscores(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoporama")
	n := 0
	for _, e := range p.Events {
		if p.CheckType(e.Name) != nil {
			continue
		}
		if n++; !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(e.Name) {
			t.Errorf("%q is neither one word nor words with underscores", e.Name)
		}
	}
	if n != 17 {
		t.Errorf("%d names can be subscribed to, want 17", n)
	}
	err := p.CheckType("order.created")
	if err == nil || !strings.Contains(err.Error(), `did you mean "order_created"?`) {
		t.Errorf("CheckType(order.created) = %v, want it refused with the right spelling", err)
	}
}

func TestShoporama_S1_06_PingIsForTestsAlone(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoporama")
	for _, e := range p.Events {
		if got, want := strings.Contains(e.Name, "."), e.Name == "test.ping"; got != want {
			t.Errorf("%q has a full stop: %v, want %v", e.Name, got, want)
		}
	}
	err := p.CheckType("test.ping")
	if err == nil || !strings.Contains(err.Error(), "test sends alone") {
		t.Errorf("CheckType(test.ping) = %v, want it refused", err)
	}
	// A1: the same envelope, with an action of its own.
	body := members(t, sent(t, p, "test.ping"))
	if got := string(body["event"]) + string(body["action"]) + kind(body["data"]); got != `"test.ping""test"object` {
		t.Errorf("event, action and kind of data = %s", got)
	}
}

func TestShoporama_S1_07_MarkingAsSentIsANewStatus(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoporama")
	if p.Event("order_sent") != nil || p.CheckType("order_sent") == nil {
		t.Error("order_sent is an event, want none")
	}
	data := members(t, members(t, sent(t, p, "new_status"))["data"])
	if got := kind(data["status"]); got != "string" {
		t.Errorf("data.status of new_status is %s, want a string", got)
	}
}

func TestShoporama_S1_14_FiveTopLevelKeys(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoporama")
	for _, e := range p.Events {
		text := sent(t, p, e.Name)
		wantKeys(t, e.Name, text, []string{"event", "action", "timestamp", "webshop_id", "data"})
		body := members(t, text)
		if got := string(body["event"]); got != `"`+e.Name+`"` {
			t.Errorf("event = %s, want %q", got, e.Name)
		}
		if got := string(body["action"]); !slices.Contains([]string{`"create"`, `"update"`, `"delete"`, `"test"`}, got) {
			t.Errorf("%s: action = %s, which is none of A4", e.Name, got)
		}
		if got := string(body["timestamp"]); got != `"2026-05-01T10:30:00+02:00"` {
			t.Errorf("%s: timestamp = %s, want the event's, with its offset", e.Name, got)
		}
		if got := string(body["webshop_id"]); got != "1234" {
			t.Errorf("%s: webshop_id = %s, want the number 1234", e.Name, got)
		}
		if got := kind(body["data"]); got != "object" {
			t.Errorf("%s: data is %s, want an object", e.Name, got)
		}
	}
	if got := string(members(t, sent(t, p, "order_created"))["action"]); got != `"create"` {
		t.Errorf("action of order_created = %s, want \"create\"", got)
	}
}

func TestShoporama_S1_15_OrderFields(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoporama")
	for _, eventType := range []string{"order_created", "paid", "new_status"} {
		order := members(t, members(t, sent(t, p, eventType))["data"])
		wantKinds(t, eventType, order, map[string]string{"order_id": "number", "order_no": "number", "email": "string", "total": "number"})
		if got := string(order["total"]); !regexp.MustCompile(`^\d+\.\d\d$`).MatchString(got) {
			t.Errorf("%s: total = %s, want two decimals", eventType, got)
		}
	}
	wantKeys(t, "order_created", members(t, sent(t, p, "order_created"))["data"], []string{"order_id", "order_no", "email", "total"})
}

func TestShoporama_S1_16_NumbersKeepTheirBytes(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoporama")
	data := `{"order_id": 56789, "total": 549.50, "weight": 1.0e2, "id": 12345678901234567890}`
	want := `{"event":"paid","action":"update","timestamp":"2026-05-01T10:30:00+02:00","webshop_id":1234,"data":` + data + `}`
	if got := string(around(t, p, "paid", data)); got != want {
		t.Errorf("body = %s\nwant   %s", got, want)
	}
}

func TestShoporama_S1_17_ContentTypeIsJSON(t *testing.T) {
	t.Parallel()
	if got := preset(t, "shoporama").ContentType; got != "" && got != "application/json" {
		t.Errorf("content_type = %q, want application/json, which is what nothing stands for", got)
	}
}

func TestShoporama_S1_18_EventHeader(t *testing.T) {
	t.Parallel()
	got := map[string]string{}
	for name, value := range preset(t, "shoporama").Headers {
		got[name] = value.For(func(string) string { return "order_created" })
	}
	if diff := cmp.Diff(map[string]string{"X-Webhook-Event": "order_created"}, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestShoporama_S1_19_SignatureHeader(t *testing.T) {
	t.Parallel()
	want := []profile.Signature{{Scheme: profile.HMACSHA256Hex, Header: "X-Webhook-Signature", Prefix: "sha256="}}
	if diff := cmp.Diff(want, preset(t, "shoporama").Signatures); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
}

func TestShoporama_S1_22_FourGroups(t *testing.T) {
	t.Parallel()
	// The second document's names and places, new_return's too (A5, A6).
	want := map[string][]string{
		"Orders":   {"order_created: Order created", "paid: Paid", "new_status: New status"},
		"Products": {"product: Product changed", "stock: Inventory changed", "category: Category changed"},
		"Checkout flow": {
			"add_to_basket: Added to cart", "update_basket: Cart updated", "view_basket: Checkout steps: cart page",
			"view_address: Checkout steps: address page", "view_shipping: Checkout steps: shipping page",
			"view_approve: Checkout steps: approval page", "view_thanks: Checkout steps: thank you page", "approved: Order approved",
		},
		"Customers and other": {
			"customer_created: Customer created", "newsletter_subscribe: Newsletter signup", "new_return: New return",
		},
	}
	got := map[string][]string{}
	for _, e := range preset(t, "shoporama").Events {
		if !e.TestOnly {
			got[e.Group] = append(got[e.Group], e.Name+": "+e.DisplayName)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
}

func TestShoporama_S1_23_Any2xxIsSuccess(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoporama").Policy
	for code := range 600 {
		if got, want := p.Succeeds(code), code >= 200 && code <= 299; got != want {
			t.Errorf("Succeeds(%d) = %v, want %v", code, got, want)
		}
		if p.Disables(code, true) {
			t.Errorf("Disables(%d) = true, want nothing to disable", code)
		}
	}
}

func TestShoporama_S1_24_OneAttempt(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoporama").Policy
	if got := p.Attempts(); got != 1 {
		t.Errorf("Attempts = %d, want 1", got)
	}
	if wait, again := p.Wait(1, time.Hour, 0); again {
		t.Errorf("after the first attempt there is another in %s, want none", wait)
	}
	if got := p.Timeout; got != 10*time.Second { // A8
		t.Errorf("Timeout = %s, want 10s", got)
	}
}

// S2: Shoprocket.

func TestShoprocket_S2_01_SixEvents(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoprocket")
	var own, optional []string
	for _, e := range p.Events {
		if e.Optional {
			optional = append(optional, e.Name)
		} else {
			own = append(own, e.Name)
		}
	}
	want := []string{"order.created", "order.updated", "order.deleted", "customer.created", "customer.updated", "customer.deleted"}
	if diff := cmp.Diff(want, own); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// B4
	want = []string{"product.created", "product.updated", "subscriber.created", "subscriber.deleted"}
	if diff := cmp.Diff(want, optional); diff != "" {
		t.Errorf("optional events (-want +got):\n%s", diff)
	}
}

func TestShoprocket_S2_05_Signatures(t *testing.T) {
	t.Parallel()
	// B1
	want := []profile.Signature{
		{Scheme: profile.StandardWebhooks},
		{Scheme: profile.HMACSHA256Hex, Header: "X-Webhook-Signature", Prefix: "sha256="},
	}
	if diff := cmp.Diff(want, preset(t, "shoprocket").Signatures); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
}

func TestShoprocket_S2_08_ThreeTopLevelKeys(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoprocket")
	for _, e := range p.Events {
		text := sent(t, p, e.Name)
		wantKeys(t, e.Name, text, []string{"data", "type", "webhook_environment"})
		body := members(t, text)
		if got := string(body["type"]); got != `"`+e.Name+`"` {
			t.Errorf("type = %s, want %q", got, e.Name)
		}
		if got := string(body["webhook_environment"]); got != `"test"` {
			t.Errorf("%s: webhook_environment = %s, want that of a test shop's event", e.Name, got)
		}
		// B3: what a test shop sends says so all through.
		if got := string(members(t, body["data"])["store_environment"]); got != `"test"` {
			t.Errorf("%s: store_environment = %s, want \"test\"", e.Name, got)
		}
	}
}

var shoprocketOrder = []string{
	"id", "order_id", "raw_order_id", "is_unread", "store_id", "customer_id", "user_name", "email", "user_contact_number",
	"automatic_discount", "subtotal", "shipping_name", "shipping_amount", "tax_amount", "discount_name", "discount_amount",
	"total_amount", "currency_paid_in", "currency_paid_in_symbol", "payment_transaction_id", "payment_method_id",
	"payment_method_name", "raw_payment_method_name", "billing_address", "shipping_address", "order_notes",
	"store_environment", "payment_payload", "fulfillment_status", "fulfillment_status_raw", "is_draft", "invoice_number",
	"invoice_link", "source_url", "customer_tax_id", "status", "status_raw", "v1_ref", "review_email_at", "cart_session",
	"deleted_at", "created_at", "updated_at", "order_items",
}

var shoprocketOrders = []string{"order.created", "order.updated", "order.deleted"}

func TestShoprocket_S2_09_OrderHas44Keys(t *testing.T) {
	t.Parallel()
	if len(shoprocketOrder) != 44 {
		t.Fatalf("the test knows %d keys", len(shoprocketOrder))
	}
	p := preset(t, "shoprocket")
	for _, eventType := range shoprocketOrders {
		wantKeys(t, eventType, members(t, sent(t, p, eventType))["data"], shoprocketOrder)
	}
}

func TestShoprocket_S2_10_TypesAsInTheSample(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoprocket")
	// Everything else is a string.
	want := map[string]string{
		"raw_order_id": "number", "fulfillment_status": "number", "payment_payload": "object", "order_items": "list",
		"automatic_discount": "null", "discount_name": "null", "order_notes": "null", "customer_tax_id": "null",
		"v1_ref": "null", "review_email_at": "null", "deleted_at": "null", "updated_at": "null",
	}
	wantItem := map[string]string{
		"item_sku": "null", "item_sku_id": "null", "item_sku_attachment": "null", "item_options": "null",
		"discount_name": "null", "discount_amount": "null", "item_license_key": "null", "reviewed_at": "null",
		"deleted_at": "null", "updated_at": "null",
	}
	for _, eventType := range shoprocketOrders {
		order := members(t, members(t, sent(t, p, eventType))["data"])
		wantKindsOr(t, eventType, order, want, "string")
		for _, item := range list(t, order["order_items"]) {
			wantKindsOr(t, eventType+" item", members(t, item), wantItem, "string")
		}
	}
	// What is null in the document's order is null in ours; only what happened to it later may have a value.
	order := members(t, members(t, sent(t, p, "order.created"))["data"])
	wantKinds(t, "order.created", order, want)
	for _, money := range []string{"subtotal", "shipping_amount", "tax_amount", "discount_amount", "total_amount"} {
		if got := string(order[money]); !regexp.MustCompile(`^"\d+\.\d\d"$`).MatchString(got) {
			t.Errorf("%s = %s, want a string with two decimals", money, got)
		}
	}
}

func TestShoprocket_S2_11_StatusesHaveCodeAndName(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoprocket")
	for _, eventType := range shoprocketOrders {
		order := members(t, members(t, sent(t, p, eventType))["data"])
		wantValues(t, eventType, order, map[string]string{
			"status": `"1"`, "status_raw": `"payment_pending"`, "fulfillment_status": `1`, "fulfillment_status_raw": `"awaiting_processing"`,
		})
		for _, item := range list(t, order["order_items"]) {
			wantValues(t, eventType+" item", members(t, item), map[string]string{"status": `"1"`, "status_raw": `"active"`})
		}
	}
}

func TestShoprocket_S2_12_PaymentPayload(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoprocket")
	for _, eventType := range shoprocketOrders {
		text := members(t, members(t, sent(t, p, eventType))["data"])["payment_payload"]
		wantKeys(t, eventType, text, []string{"amount", "currency", "customerId", "livemode", "receipt_url", "billing", "shipping", "payment_method"})
		payload := members(t, text)
		wantValues(t, eventType, payload, map[string]string{"livemode": `"test"`, "customerId": "null", "receipt_url": "null"})
		for _, name := range []string{"billing", "shipping"} {
			wantKeys(t, name, payload[name], []string{"address", "email", "name", "phone"})
			wantKeys(t, name+".address", members(t, payload[name])["address"], []string{"city", "country", "line1", "postal_code", "state"})
		}
		wantKeys(t, "payment_method", payload["payment_method"], []string{"type"})
	}
}

func TestShoprocket_S2_13_OrderItemHas22Keys(t *testing.T) {
	t.Parallel()
	want := []string{
		"id", "order_id", "item_id", "item_name", "item_sku", "item_sku_id", "item_sku_attachment", "item_options", "item_image",
		"unit_price", "quantity", "weight", "discount_name", "discount_amount", "item_license_key", "item_source_url", "status",
		"reviewed_at", "deleted_at", "created_at", "updated_at", "status_raw",
	}
	if len(want) != 22 {
		t.Fatalf("the test knows %d keys", len(want))
	}
	p := preset(t, "shoprocket")
	for _, eventType := range shoprocketOrders {
		items := list(t, members(t, members(t, sent(t, p, eventType))["data"])["order_items"])
		if len(items) == 0 {
			t.Errorf("%s has no items", eventType)
		}
		for _, item := range items {
			wantKeys(t, eventType, item, want)
		}
	}
}

var zoneless = regexp.MustCompile(`^"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"$`)

func TestShoprocket_S2_14_TimesHaveNoZone(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoprocket")
	for _, e := range p.Events {
		data := members(t, members(t, sent(t, p, e.Name))["data"])
		objects := []map[string]json.RawMessage{data}
		for _, item := range list(t, data["order_items"]) {
			objects = append(objects, members(t, item))
		}
		for _, object := range objects {
			if kind(object["created_at"]) != "string" {
				t.Errorf("%s: created_at is missing", e.Name)
			}
			for name, value := range object {
				if strings.HasSuffix(name, "_at") && kind(value) != "null" && !zoneless.Match(value) {
					t.Errorf("%s: %s = %s, want YYYY-MM-DD HH:MM:SS", e.Name, name, value)
				}
			}
		}
	}
	data := `{"created_at":"2022-05-23 14:37:24"}`
	want := `{"data":{"created_at":"2022-05-23 14:37:24"},"type":"order.created","webhook_environment":"test"}`
	if got := string(around(t, p, "order.created", data)); got != want {
		t.Errorf("body = %s, want %s", got, want)
	}
}

func TestShoprocket_S2_B7_RulesOfStandard(t *testing.T) {
	t.Parallel()
	wantStandardRules(t, preset(t, "shoprocket").Policy)
}

// S3: CloudCart.

var (
	cloudcartStatuses         = []string{"pending", "voided", "timeouted", "cancelled", "failed", "refunded", "paid", "complete"}
	cloudcartPaymentStatuses  = []string{"requested", "pending", "held", "completed", "failed", "refunded", "cancelled", "timeouted"}
	cloudcartDisableCodes     = []int{400, 401, 403, 404, 405, 406, 410, 411}
	cloudcartFulfilmentStates = []string{"not_fulfilled", "fulfilled"}
)

func TestCloudCart_S3_05_OrderStatuses(t *testing.T) {
	t.Parallel()
	wantStatuses(t, "order.status_changed", "status", cloudcartStatuses)
}

func TestCloudCart_S3_06_PaymentStatuses(t *testing.T) {
	t.Parallel()
	wantStatuses(t, "order.payment_status_changed", "payment_status", cloudcartPaymentStatuses)
}

func TestCloudCart_S3_07_FulfilmentStatuses(t *testing.T) {
	t.Parallel()
	wantStatuses(t, "order.fulfilment_status_changed", "fulfilment_status", cloudcartFulfilmentStates)
}

// wantStatuses checks that the event that tells of a status lists its values, and that no sample has another.
func wantStatuses(t *testing.T, eventType, key string, want []string) {
	t.Helper()
	p := preset(t, "cloudcart")
	e := p.Event(eventType)
	if e == nil {
		t.Fatalf("there is no event %s", eventType)
	}
	_, text, _ := strings.Cut(e.Description, "one of: ")
	if diff := cmp.Diff(want, strings.Split(strings.TrimSuffix(text, "."), ", ")); diff != "" {
		t.Errorf("values of %s that %s lists (-want +got):\n%s", key, eventType, diff)
	}
	for _, e := range p.Events {
		var status string
		if err := json.Unmarshal(members(t, sent(t, p, e.Name))[key], &status); err != nil || !slices.Contains(want, status) {
			t.Errorf("%s: %s = %q (%v), which is none of them", e.Name, key, status, err)
		}
	}
}

func TestCloudCart_S3_08_Only200IsSuccess(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart").Policy
	if !p.Succeeds(200) {
		t.Error("Succeeds(200) = false, want true")
	}
	for _, code := range []int{201, 202, 204, 206} {
		if p.Succeeds(code) {
			t.Errorf("Succeeds(%d) = true, want false", code)
		}
	}
}

func TestCloudCart_S3_09_FiveSeconds(t *testing.T) {
	t.Parallel()
	if got := preset(t, "cloudcart").Policy.Timeout; got != 5*time.Second {
		t.Errorf("Timeout = %s, want 5s", got)
	}
}

func TestCloudCart_S3_10_AnyOtherCodeIsAFailure(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart").Policy
	for code := 100; code < 600; code++ {
		if code != 200 && p.Succeeds(code) {
			t.Errorf("Succeeds(%d) = true, want false", code)
		}
	}
}

func TestCloudCart_S3_11_NoAnswerIsAFailureLikeAnyOther(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart").Policy
	const none = 0 // the code of an attempt that was not answered
	if p.Succeeds(none) || p.Disables(none, true) {
		t.Error("an attempt without an answer succeeds or disables, want neither")
	}
	if _, again := p.Wait(1, 0, 0); !again {
		t.Error("no attempt follows an unanswered one, want another")
	}
}

func TestCloudCart_S3_12_FirstAttemptDoesNotWait(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart").Policy
	if got := p.Attempts() - len(p.RetrySchedule); got != 1 {
		t.Errorf("%d attempts are made without a wait, want 1: the first", got)
	}
}

func TestCloudCart_S3_13_Schedule(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart").Policy
	var got, sinceFirst []time.Duration
	var sum time.Duration
	for attempt := 1; ; attempt++ {
		wait, again := p.Wait(attempt, time.Hour, 1) // neither the receiver nor chance moves it
		if !again {
			break
		}
		sum += wait
		got, sinceFirst = append(got, wait), append(sinceFirst, sum)
	}
	if diff := cmp.Diff(seconds(60, 120, 180, 240, 300), got); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(seconds(60, 180, 360, 600, 900), sinceFirst); diff != "" {
		t.Errorf("since the first attempt (-want +got):\n%s", diff)
	}
}

func TestCloudCart_S3_14_SixAttempts(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart").Policy
	if got := p.Attempts(); got != 6 {
		t.Errorf("Attempts = %d, want 6", got)
	}
	if _, again := p.Wait(5, 0, 0); !again {
		t.Error("after the fifth attempt there is none, want a sixth")
	}
}

func TestCloudCart_S3_16_NothingAfterTheSixth(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart").Policy
	for attempt := 6; attempt < 20; attempt++ {
		if wait, again := p.Wait(attempt, time.Hour, 0); again {
			t.Errorf("after attempt %d there is another in %s, want none", attempt, wait)
		}
	}
}

func TestCloudCart_S3_17_CodesThatDeactivate(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart").Policy
	for _, code := range cloudcartDisableCodes {
		if !p.Disables(code, false) { // C4: at the first answer
			t.Errorf("Disables(%d) = false, want true", code)
		}
	}
}

func TestCloudCart_S3_18_CodesThatDoNotDeactivate(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart").Policy
	for code := range 600 {
		if !slices.Contains(cloudcartDisableCodes, code) && p.Disables(code, true) {
			t.Errorf("Disables(%d) = true, want false", code)
		}
	}
}

func TestCloudCart_S3_20_PhraseDeletes(t *testing.T) {
	t.Parallel()
	const phrase = "please unsubscribe me"
	for _, body := range []string{phrase, "Please Unsubscribe ME", "<p>please unsubscribe me</p>", strings.Repeat(" ", 64<<10-len(phrase)) + phrase} {
		if got := preset(t, "cloudcart").Policy.Deletes([]byte(body)); got != phrase {
			t.Errorf("Deletes(%.40q) = %q, want %q", body, got, phrase)
		}
		for _, name := range []string{"shoporama", "shoprocket", "shoprenter", "standard", "cloudevents"} { // C3: off elsewhere
			if got := preset(t, name).Policy.Deletes([]byte(body)); got != "" {
				t.Errorf("%s: Deletes(%.40q) = %q, want nothing", name, body, got)
			}
		}
	}
	for _, body := range []string{"", "ok", "please unsubscribe", strings.Repeat(" ", 64<<10) + phrase} {
		if got := preset(t, "cloudcart").Policy.Deletes([]byte(body)); got != "" {
			t.Errorf("Deletes(%.40q) = %q, want nothing", body, got)
		}
	}
}

func TestCloudCart_S3_C7_NothingIsAdded(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudcart")
	if len(p.Signatures) != 0 || len(p.Headers) != 0 {
		t.Errorf("signatures %v and headers %v are sent, want none", p.Signatures, p.Headers)
	}
}

func TestCloudCart_S3_C8_Catalog(t *testing.T) {
	t.Parallel()
	wantCatalog(t, preset(t, "cloudcart"), "order.created", "order.updated", "order.status_changed",
		"order.payment_status_changed", "order.fulfilment_status_changed")
}

// S4: Shoprenter.

var (
	shoprenterOrders      = []string{"order_confirm", "order_status_change"}
	shoprenterNewsletters = []string{"newsletter_subscribe", "newsletter_unsubscribe", "newsletter_update_subscriber"}
)

func TestShoprenter_S4_03_FiveEvents(t *testing.T) {
	t.Parallel()
	wantCatalog(t, preset(t, "shoprenter"), "order_confirm", "order_status_change", "newsletter_subscribe",
		"newsletter_unsubscribe", "newsletter_update_subscriber")
}

func TestShoprenter_S4_11_OrderHas47Keys(t *testing.T) {
	t.Parallel()
	want := []string{
		"storeName", "innerId", "innerResourceId", "outerResourceId", "firstname", "lastname", "phone", "fax", "email", "cart_token",
		"shippingFirstname", "shippingLastname", "shippingCompany", "shippingAddress1", "shippingAddress2", "shippingCity",
		"shippingCountryName", "shippingZoneName", "shippingPostcode", "paymentFirstname", "paymentLastname", "paymentCompany",
		"paymentAddress1", "paymentAddress2", "paymentCity", "paymentCountryName", "paymentZoneName", "shippingMethodName",
		"shippingNetPrice", "shippingGrossPrice", "shippingInnerResourceId", "paymentMethodName", "paymentNetPrice",
		"paymentGrossPrice", "couponCode", "couponGrossPrice", "languageId", "languageCode", "comment", "total", "totalGross",
		"taxPrice", "currency", "paymentPostcode", "paymentTaxnumber", "orderHistory", "orderProducts",
	}
	if len(want) != 47 {
		t.Fatalf("the test knows %d keys", len(want))
	}
	for _, eventType := range shoprenterOrders {
		wantKeys(t, eventType, shoprenterObject(t, eventType, "orders", "order"), want)
	}
}

func TestShoprenter_S4_12_TypesAsInTheSample(t *testing.T) {
	t.Parallel()
	// Everything else is a string: totals, ids and shippingGrossPrice too.
	want := map[string]string{
		"shippingNetPrice": "number", "paymentNetPrice": "number", "paymentGrossPrice": "number", "couponGrossPrice": "null",
		"orderHistory": "object", "orderProducts": "object",
	}
	for _, eventType := range shoprenterOrders {
		order := members(t, shoprenterObject(t, eventType, "orders", "order"))
		wantKinds(t, eventType, order, want)
		wantKindsOr(t, eventType, order, want, "string")
		if got := string(order["shippingNetPrice"]); !regexp.MustCompile(`^\d+\.\d{4}$`).Match(order["shippingNetPrice"]) {
			t.Errorf("%s: shippingNetPrice = %s, want four decimals", eventType, got)
		}
	}
}

func TestShoprenter_S4_13_OrderHistory(t *testing.T) {
	t.Parallel()
	for _, eventType := range shoprenterOrders {
		history := members(t, shoprenterObject(t, eventType, "orders", "order"))["orderHistory"]
		wantKeys(t, eventType, history, []string{"status", "statusText", "comment"})
		wantKindsOr(t, eventType, members(t, history), nil, "string")
	}
}

func TestShoprenter_S4_14_OrderProductHas13Keys(t *testing.T) {
	t.Parallel()
	for _, eventType := range shoprenterOrders {
		for _, product := range shoprenterProducts(t, eventType) {
			wantKeys(t, eventType, product, []string{
				"innerId", "innerResourceId", "outerResourceId", "name", "sku", "price", "currency", "taxRate", "quantity", "image",
				"category", "volume", "weight",
			})
			wantKindsOr(t, eventType, members(t, product), map[string]string{"volume": "object", "weight": "object"}, "string")
		}
	}
	if got := len(shoprenterProducts(t, "order_confirm")); got != 2 {
		t.Errorf("the order has %d products, want two, so that the list is seen to be one", got)
	}
}

func TestShoprenter_S4_15_VolumeAndWeight(t *testing.T) {
	t.Parallel()
	for _, eventType := range shoprenterOrders {
		for _, product := range shoprenterProducts(t, eventType) {
			volume, weight := members(t, product)["volume"], members(t, product)["weight"]
			wantKeys(t, eventType, volume, []string{"height", "width", "length", "volumeUnit"})
			wantKeys(t, eventType, weight, []string{"weight", "weightUnit"})
			for unit, text := range map[string]json.RawMessage{"cm": members(t, volume)["volumeUnit"], "kg": members(t, weight)["weightUnit"]} {
				want := fmt.Sprintf(`[{"unit":%q,"language":"hu"},{"unit":%[1]q,"language":"en"}]`, unit)
				if got := compact(t, text); got != want {
					t.Errorf("%s: units = %s, want %s", eventType, got, want)
				}
			}
		}
	}
}

func TestShoprenter_S4_16_EmptyStringsStay(t *testing.T) {
	t.Parallel()
	order := members(t, shoprenterObject(t, "order_confirm", "orders", "order"))
	for _, name := range []string{
		"outerResourceId", "fax", "shippingCompany", "shippingAddress2", "paymentCompany", "paymentAddress2", "couponCode", "comment",
		"paymentTaxnumber",
	} {
		if got := string(order[name]); got != `""` {
			t.Errorf("%s = %s, want an empty string", name, got)
		}
	}
	data := `{"fax":"","comment":"","couponGrossPrice":null}`
	want := `{"orders":{"order":[` + data + `]}}`
	if got := string(around(t, preset(t, "shoprenter"), "order_confirm", data)); got != want {
		t.Errorf("body = %s, want %s", got, want)
	}
}

func TestShoprenter_S4_17_NonASCIIAndEscapedSlashesSurvive(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoprenter")
	text := sent(t, p, "order_confirm")
	for _, want := range []string{
		`"shippingZoneName":"Hajdú-Bihar"`, `"innerResourceId":"orders\/b3Jk`, `"shippingInnerResourceId":"shippingModeExtend\/c2hp`,
		`"innerResourceId":"orderProducts\/b3Jk`, `"image":"https:\/\/`,
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the body does not hold %s", want)
		}
	}
	if bytes.Count(text, []byte("/")) != bytes.Count(text, []byte(`\/`)) {
		t.Error("the body has a slash that is not escaped; the platform escapes them all")
	}
	for _, data := range []string{
		`{"shippingZoneName":"Hajdú-Bihar","innerResourceId":"orders\/b3JkZXI=","other":"Hajd\u00fa","slash":"/"}`,
		`{ "orders":{"order":[{"shippingZoneName":"Hajdú-Bihar","innerResourceId":"orders\/b3JkZXI="}]}}`,
	} {
		if got := around(t, p, "order_confirm", data); !bytes.Contains(got, []byte(data)) {
			t.Errorf("body = %s, want %s within it, byte for byte", got, data)
		}
	}
}

func TestShoprenter_S4_19_Subscriber(t *testing.T) {
	t.Parallel()
	text := shoprenterObject(t, "newsletter_subscribe", "newsletter", "subscriber")
	wantKeys(t, "subscriber", text, []string{"id", "firstname", "lastname", "email", "phone", "status", "language", "hash", "subscribe_date"})
	subscriber := members(t, text)
	wantKindsOr(t, "subscriber", subscriber, map[string]string{"status": "number"}, "string")
	wantKinds(t, "subscriber", subscriber, map[string]string{"status": "number"})
	if got := subscriber["subscribe_date"]; !zoneless.Match(got) {
		t.Errorf("subscribe_date = %s, want YYYY-MM-DD HH:MM:SS", got)
	}
	if got := subscriber["hash"]; !regexp.MustCompile(`^"[0-9a-f]{32}"$`).Match(got) {
		t.Errorf("hash = %s, want 32 hex digits", got)
	}
}

// The nine names of the document's table, in the place of those of its sample (D1).
func TestShoprenter_S4_19_PrefixedNames(t *testing.T) {
	t.Parallel()
	p, err := preset(t, "shoprenter").With([]string{"prefixed_names"})
	if err != nil || len(p.Renames) != 1 {
		t.Fatal(p, err)
	}
	want := map[string]string{
		"id": "subscriber_id", "firstname": "subscriber_firstname", "lastname": "subscriber_lastname", "email": "subscriber_email",
		"phone": "subscriber_phone", "status": "subscriber_status", "language": "subscriber_language", "hash": "subscriber_hash",
		"subscribe_date": "subscriber_subscribe_date",
	}
	if diff := cmp.Diff(profile.Rename{At: []string{"newsletter", "subscriber"}, Names: want}, p.Renames[0]); diff != "" {
		t.Errorf("renames (-want +got):\n%s", diff)
	}
}

func TestShoprenter_S4_20_NewsletterEventsShareABody(t *testing.T) {
	t.Parallel()
	for _, eventType := range shoprenterNewsletters {
		text := shoprenterObject(t, eventType, "newsletter", "subscriber")
		wantKeys(t, eventType, text, []string{"id", "firstname", "lastname", "email", "phone", "status", "language", "hash", "subscribe_date"})
		wantKinds(t, eventType, members(t, text), map[string]string{"status": "number"})
		wantKindsOr(t, eventType, members(t, text), map[string]string{"status": "number"}, "string")
	}
}

func TestShoprenter_S4_D10_RulesOfStandard(t *testing.T) {
	t.Parallel()
	p := preset(t, "shoprenter")
	wantStandardRules(t, p.Policy)
	if diff := cmp.Diff([]profile.Signature{{Scheme: profile.StandardWebhooks}}, p.Signatures); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
}

// shoprenterObject gives the one object in a body, below its two roots.
func shoprenterObject(t *testing.T, eventType, root, below string) json.RawMessage {
	t.Helper()
	text := sent(t, preset(t, "shoprenter"), eventType)
	wantKeys(t, eventType, text, []string{root})
	wantKeys(t, eventType, members(t, text)[root], []string{below})
	objects := list(t, members(t, members(t, text)[root])[below])
	if len(objects) != 1 {
		t.Fatalf("%s: %s.%s has %d entries, want 1", eventType, root, below, len(objects))
	}
	return objects[0]
}

func shoprenterProducts(t *testing.T, eventType string) []json.RawMessage {
	t.Helper()
	text := members(t, shoprenterObject(t, eventType, "orders", "order"))["orderProducts"]
	wantKeys(t, eventType, text, []string{"orderProduct"})
	products := list(t, members(t, text)["orderProduct"])
	if len(products) == 0 {
		t.Fatalf("%s has no products", eventType)
	}
	return products
}

// S5: across the shop systems.

var (
	closedPresets = []string{"shoporama", "shoprocket", "cloudcart", "shoprenter"}
	openPresets   = []string{"standard", "cloudevents"}
)

func TestPresets_S5_01_NamesAreOpaque(t *testing.T) {
	t.Parallel()
	allowed := regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	for _, name := range slices.Concat(closedPresets, openPresets) {
		for _, e := range preset(t, name).Events {
			if !allowed.MatchString(e.Name) {
				t.Errorf("%s: %q has a character that names may not have", name, e.Name)
			}
		}
	}
	// One shop's spelling is not another's, and neither dots nor case are put right for it.
	for _, row := range []struct{ preset, wrong, nearest string }{
		{"shoporama", "order.created", "order_created"},
		{"shoporama", "Order_Created", "order_created"},
		{"shoporama", "piad", "paid"},
		{"shoprocket", "order_created", "order.created"},
		{"shoprocket", "customer.create", "customer.created"},
		{"cloudcart", "order_created", "order.created"},
		{"shoprenter", "order.confirm", "order_confirm"},
	} {
		err := preset(t, row.preset).CheckType(row.wrong)
		if err == nil || !strings.Contains(err.Error(), `did you mean "`+row.nearest+`"?`) {
			t.Errorf("%s: CheckType(%q) = %v, want it refused with %q", row.preset, row.wrong, err, row.nearest)
		}
	}
	for _, name := range closedPresets {
		if preset(t, name).CheckType("shop.moved") == nil {
			t.Errorf("%s takes a name that is not in its catalog", name)
		}
	}
	for _, name := range openPresets {
		if err := preset(t, name).CheckType("shop.moved"); err != nil {
			t.Errorf("%s refuses a name: %v; its catalog is open", name, err)
		}
	}
}

func TestPresets_S5_03_JitterCanBeOff(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		preset string
		own    *shopbellv1.Policy
		want   time.Duration
	}{
		{preset: "cloudcart", want: 60 * time.Second},
		{preset: "cloudcart", own: &shopbellv1.Policy{Jitter: proto.Bool(true)}, want: 66 * time.Second},
		{preset: "standard", want: 5500 * time.Millisecond},
		{preset: "standard", own: &shopbellv1.Policy{Jitter: proto.Bool(false)}, want: 5 * time.Second},
	} {
		rules, err := preset(t, row.preset).Policy.With(row.own)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := rules.Wait(1, 0, 1); got != row.want {
			t.Errorf("%s with %v: the most that is waited first is %s, want %s", row.preset, row.own, got, row.want)
		}
	}
}

func TestPresets_S5_04_Envelopes(t *testing.T) {
	t.Parallel()
	const at = "2026-05-01T10:30:00+02:00"
	for _, row := range []struct{ preset, eventType, data, want string }{
		{"shoporama", "order_created", `{"n":1.50}`, `{"event":"order_created","action":"create","timestamp":"` + at + `","webshop_id":1234,"data":{"n":1.50}}`},
		{"shoprocket", "order.created", `{"n":"1.50"}`, `{"data":{"n":"1.50"},"type":"order.created","webhook_environment":"test"}`},
		{"cloudcart", "order.created", ` {"n": 1.50} `, ` {"n": 1.50} `},
		{"shoprenter", "order_confirm", `{"n":1}`, `{"orders":{"order":[{"n":1}]}}`},
		{"shoprenter", "order_status_change", `{"n":1}`, `{"orders":{"order":[{"n":1}]}}`},
		{"shoprenter", "newsletter_subscribe", `{"n":1}`, `{"newsletter":{"subscriber":[{"n":1}]}}`},
		{"shoprenter", "newsletter_unsubscribe", `{"n":1}`, `{"newsletter":{"subscriber":[{"n":1}]}}`},
		{"shoprenter", "newsletter_update_subscriber", `{"n":1}`, `{"newsletter":{"subscriber":[{"n":1}]}}`},
		// Data that has its root goes out as it is; the other's root is none.
		{"shoprenter", "order_confirm", ` {"orders": {"order":[]}}`, ` {"orders": {"order":[]}}`},
		{"shoprenter", "order_status_change", `{"orders":{}}`, `{"orders":{}}`},
		{"shoprenter", "order_confirm", `{"newsletter":{}}`, `{"orders":{"order":[{"newsletter":{}}]}}`},
		{"shoprenter", "newsletter_subscribe", `{"newsletter":{}}`, `{"newsletter":{}}`},
		{"shoprenter", "newsletter_unsubscribe", `{"newsletter":{}}`, `{"newsletter":{}}`},
		{"shoprenter", "newsletter_update_subscriber", `{"newsletter":{}}`, `{"newsletter":{}}`},
		{"shoprenter", "newsletter_subscribe", `{"orders":{}}`, `{"newsletter":{"subscriber":[{"orders":{}}]}}`},
		{"standard", "order.created", `{"n":1.50}`, `{"type":"order.created","timestamp":"` + at + `","data":{"n":1.50}}`},
	} {
		if got := string(around(t, preset(t, row.preset), row.eventType, row.data)); got != row.want {
			t.Errorf("%s: body = %s\nwant %s", row.preset, got, row.want)
		}
	}
}

func TestCloudEvents_StructuredJSON(t *testing.T) {
	t.Parallel()
	p := preset(t, "cloudevents")
	want := `{"specversion":"1.0","id":"evt_7","source":"cup-house","type":"order.created","time":"2026-05-01T10:30:00+02:00",` +
		`"datacontenttype":"application/json","data":{"n":1.50}}`
	if got := string(around(t, p, "order.created", `{"n":1.50}`)); got != want {
		t.Errorf("body = %s\nwant   %s", got, want)
	}
	if got := p.ContentType; got != "application/cloudevents+json" {
		t.Errorf("content_type = %q, want application/cloudevents+json", got)
	}
	wantStandardRules(t, p.Policy)
	if diff := cmp.Diff([]profile.Signature{{Scheme: profile.StandardWebhooks}}, p.Signatures); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
}

func TestCloudEvents_Binary(t *testing.T) {
	t.Parallel()
	p, err := preset(t, "cloudevents").With([]string{"binary"})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(around(t, p, "order.created", `{"n":1.50}`)); got != `{"n":1.50}` {
		t.Errorf("body = %s, want the data alone", got)
	}
	got := map[string]string{}
	for name, value := range p.Headers {
		got[name] = value.For(func(place string) string { return "<" + place + ">" })
	}
	want := map[string]string{
		"ce-specversion": "1.0", "ce-id": "<id>", "ce-source": "<shop_id>", "ce-type": "<type>", "ce-time": "<occurred_at>", "ce-subject": "<key>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestPresets_EveryEventIsDescribed(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Concat(closedPresets, openPresets) {
		p := preset(t, name)
		if len(p.Events) == 0 || p.Description == "" {
			t.Errorf("%s has no events or no description", name)
		}
		names, titles := map[string]bool{}, map[string]bool{}
		for _, e := range p.Events {
			if names[e.Name] || titles[e.Group+e.DisplayName] {
				t.Errorf("%s: %s or its name for people stands twice", name, e.Name)
			}
			names[e.Name], titles[e.Group+e.DisplayName] = true, true
			if e.DisplayName == "" || !strings.HasSuffix(e.Description, ".") || e.Group == "" && !e.TestOnly {
				t.Errorf("%s: %s has no group, no name for people or no description: %+v", name, e.Name, e)
			}
			if kind([]byte(e.Sample)) != "object" || len(keys(t, []byte(e.Sample))) == 0 {
				t.Errorf("%s: the sample of %s says nothing: %s", name, e.Name, e.Sample)
			}
		}
	}
}

// Helpers.

func preset(t *testing.T, name string) *profile.Profile {
	t.Helper()
	set, err := profile.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := set.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// around is the body that an event of this type with this data has.
func around(t *testing.T, p *profile.Profile, eventType, data string) []byte {
	t.Helper()
	before, after, _ := p.Around(eventType, []byte(data), func(place string) string {
		value, ok := map[string]string{
			"id": `"evt_7"`, "type": `"` + eventType + `"`, "action": `"` + p.Action(eventType, "") + `"`,
			"occurred_at": `"2026-05-01T10:30:00+02:00"`, "shop_id": `"cup-house"`, "content_type": `"application/json"`, "webshop_id": "1234", "environment": `"test"`,
		}[place]
		if !ok {
			t.Errorf("an envelope of %s asks for %q", p.Name, place)
		}
		return value
	})
	return slices.Concat(before, []byte(data), after)
}

// sent is the body that a test of this type has: its sample in its envelope.
func sent(t *testing.T, p *profile.Profile, eventType string) []byte {
	t.Helper()
	if p.Event(eventType) == nil {
		t.Fatalf("%s does not know %q", p.Name, eventType)
	}
	return around(t, p, eventType, string(p.Sample(eventType, "test")))
}

// wantTypes checks that each of these can be published and subscribed to, and that the profile says what it is.
func wantTypes(t *testing.T, p *profile.Profile, want ...string) {
	t.Helper()
	for _, name := range want {
		if err := p.CheckType(name); err != nil || p.Event(name) == nil {
			t.Errorf("%s does not know %q (%v)", p.Name, name, err)
		}
	}
}

// wantCatalog checks that these are all that there are.
func wantCatalog(t *testing.T, p *profile.Profile, want ...string) {
	t.Helper()
	var got []string
	for _, e := range p.Events {
		got = append(got, e.Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events of %s (-want +got):\n%s", p.Name, diff)
	}
}

func wantStandardRules(t *testing.T, got profile.Policy) {
	t.Helper()
	want := profile.Policy{
		Timeout: 15 * time.Second,
		RetrySchedule: []time.Duration{
			5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour,
			20 * time.Hour, 24 * time.Hour,
		},
		Jitter: true, SuccessCodes: []string{"2xx"}, DisableCodes: []int32{410}, HonorRetryAfter: true,
		Breaker: profile.Breaker{Failures: 10, HangShare: 0.5},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
}

func wantKeys(t *testing.T, what string, object []byte, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, keys(t, object)); diff != "" {
		t.Errorf("%s: keys (-want +got):\n%s", what, diff)
	}
}

func wantKinds(t *testing.T, what string, object map[string]json.RawMessage, want map[string]string) {
	t.Helper()
	for name, kindWanted := range want {
		if got := kind(object[name]); got != kindWanted {
			t.Errorf("%s: %s is %s, want %s", what, name, got, kindWanted)
		}
	}
}

// wantKindsOr checks that every member is of the other kind, but for those that want names: they are of the kind that
// stands there, or, where that is null, of the other.
func wantKindsOr(t *testing.T, what string, object map[string]json.RawMessage, want map[string]string, other string) {
	t.Helper()
	for name, value := range object {
		allowed := []string{other}
		switch want[name] {
		case "":
		case "null":
			allowed = append(allowed, "null")
		default:
			allowed = []string{want[name]}
		}
		if got := kind(value); !slices.Contains(allowed, got) {
			t.Errorf("%s: %s is %s, want %s", what, name, got, strings.Join(allowed, " or "))
		}
	}
}

func wantValues(t *testing.T, what string, object map[string]json.RawMessage, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got := string(object[name]); got != value {
			t.Errorf("%s: %s = %s, want %s", what, name, got, value)
		}
	}
}

// keys are the names of an object's members as they stand, a name that stands twice included.
func keys(t *testing.T, object []byte) []string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(object))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		t.Fatalf("%.60s is no object (%v)", object, err)
	}
	var out []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name.(string))
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func members(t *testing.T, object []byte) map[string]json.RawMessage {
	t.Helper()
	var out map[string]json.RawMessage
	if err := json.Unmarshal(object, &out); err != nil {
		t.Fatalf("%.60s: %v", object, err)
	}
	return out
}

// list gives the items of a list; of nothing it gives none.
func list(t *testing.T, text []byte) []json.RawMessage {
	t.Helper()
	var out []json.RawMessage
	if text == nil {
		return nil
	}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%.60s: %v", text, err)
	}
	return out
}

func kind(value []byte) string {
	if len(value) == 0 {
		return "missing"
	}
	switch value[0] {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "list"
	case 'n':
		return "null"
	case 't', 'f':
		return "true or false"
	}
	return "number"
}

func compact(t *testing.T, text []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func seconds(in ...int) []time.Duration {
	out := make([]time.Duration, len(in))
	for i, n := range in {
		out[i] = time.Duration(n) * time.Second
	}
	return out
}
