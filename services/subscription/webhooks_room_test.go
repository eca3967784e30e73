package subscription

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/notice"
	"shopbell.dev/pkg/webhook"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestWebhooks_LiveFromCreationToDeletion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.create(t, &shopbellv1.Webhook{Label: proto.String("Warehouse"), Headers: map[string]string{"X-Env": "prod"}, Secret: proto.String("a-secret-of-my-own")})
	if !strings.HasPrefix(made.Id, "wh_") || made.ShopId != "demo" || made.Status != webhook.Enabled || made.Profile != "standard" || made.Etag == "" ||
		made.CreatedAt == nil || made.Secret != nil || made.GetPolicy().GetTimeout() == nil {
		t.Errorf("made %v", made)
	}
	if got := b.read(t, made.Id); cmp.Diff(made.String(), got.String()) != "" {
		t.Errorf("read %v, want what was made: %v", got, made)
	}
	kept, err := b.GetWebhookSecret(t.Context(), &subscriptionv1.GetWebhookSecretRequest{ShopId: "demo", WebhookId: made.Id})
	if err != nil || kept.Secret != "a-secret-of-my-own" || len(kept.Old) != 0 {
		t.Errorf("secret %v, %v", kept, err)
	}
	generated := b.create(t, &shopbellv1.Webhook{})
	own, err := b.GetWebhookSecret(t.Context(), &subscriptionv1.GetWebhookSecretRequest{ShopId: "demo", WebhookId: generated.Id})
	if err != nil || !strings.HasPrefix(own.Secret, "whsec_") {
		t.Errorf("generated secret %v, %v", own, err)
	}

	changed, err := b.update(t, made.Id, &shopbellv1.Webhook{Url: "https://example.com/other", Etag: made.Etag})
	if err != nil || changed.Url != "https://example.com/other" || changed.GetLabel() != "Warehouse" || changed.Etag == made.Etag || !changed.UpdatedAt.AsTime().After(made.UpdatedAt.AsTime()) {
		t.Errorf("changed %v, %v", changed, err)
	}
	_, err = b.update(t, made.Id, &shopbellv1.Webhook{Url: "https://example.com/third", Etag: made.Etag})
	if !fault.IsKind(err, fault.Conflict) || !strings.Contains(err.Error(), "read it again") {
		t.Errorf("a change with an old etag: %v, want a conflict", err)
	}
	if got := b.read(t, made.Id); got.Url != "https://example.com/other" {
		t.Errorf("a refused change was made: %s", got.Url)
	}
	_, err = b.DeleteWebhook(t.Context(), &subscriptionv1.DeleteWebhookRequest{ShopId: "demo", WebhookId: made.Id, Etag: made.Etag})
	if !fault.IsKind(err, fault.Conflict) {
		t.Errorf("a deletion with an old etag: %v, want a conflict", err)
	}
	if _, err := b.DeleteWebhook(t.Context(), &subscriptionv1.DeleteWebhookRequest{ShopId: "demo", WebhookId: made.Id, Etag: changed.Etag}); err != nil {
		t.Errorf("a deletion with the etag of now: %v", err)
	}
	for name, call := range map[string]func(shop, id string) error{
		"read": func(shop, id string) error {
			_, err := b.GetWebhook(t.Context(), &subscriptionv1.GetWebhookRequest{ShopId: shop, WebhookId: id})
			return err
		},
		"change": func(shop, id string) error {
			_, err := b.UpdateWebhook(t.Context(), &subscriptionv1.UpdateWebhookRequest{ShopId: shop, WebhookId: id, Webhook: &shopbellv1.Webhook{Url: "https://example.com"}})
			return err
		},
		"delete": func(shop, id string) error {
			_, err := b.DeleteWebhook(t.Context(), &subscriptionv1.DeleteWebhookRequest{ShopId: shop, WebhookId: id})
			return err
		},
		"secret": func(shop, id string) error {
			_, err := b.GetWebhookSecret(t.Context(), &subscriptionv1.GetWebhookSecretRequest{ShopId: shop, WebhookId: id})
			return err
		},
		"rotate": func(shop, id string) error {
			_, err := b.RotateSecret(t.Context(), &subscriptionv1.RotateSecretRequest{ShopId: shop, WebhookId: id})
			return err
		},
		"enable": func(shop, id string) error {
			_, err := b.EnableWebhook(t.Context(), &subscriptionv1.EnableWebhookRequest{ShopId: shop, WebhookId: id})
			return err
		},
		"disable": func(shop, id string) error {
			_, err := b.DisableWebhook(t.Context(), &subscriptionv1.DisableWebhookRequest{ShopId: shop, WebhookId: id})
			return err
		},
	} {
		for _, pair := range [][2]string{{"demo", made.Id}, {"other", generated.Id}, {"demo", "*"}, {"demo", "wh ä"}, {"demo", "a.b"}} {
			if err := call(pair[0], pair[1]); !fault.IsKind(err, fault.NotFound) {
				t.Errorf("%s of %q: %v, want not found", name, pair, err)
			}
		}
	}
}

func TestCreateWebhook_NamesEveryFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	many := make([]string, 501)
	for i := range many {
		many[i] = fmt.Sprintf("type_%d", i)
	}
	headers := func(n int, value string) map[string]string {
		out := map[string]string{}
		for i := range n {
			out[fmt.Sprintf("X-%d", i)] = value
		}
		return out
	}
	for _, row := range []struct {
		name   string
		change func(*shopbellv1.Webhook)
		fields []string // that are named; none: it is taken
		text   string
	}{
		{"as it must be", func(*shopbellv1.Webhook) {}, nil, ""},
		{"every type", func(w *shopbellv1.Webhook) { w.Events = []string{"*"} }, nil, ""},
		{"a type that an open catalog does not name", func(w *shopbellv1.Webhook) { w.Events = []string{"my.own-type_1"} }, nil, ""},
		{"our own notices", func(w *shopbellv1.Webhook) { w.Profile, w.Events = "closed", []string{notice.WebhookDisabled, "paid"} }, nil, ""},
		{"off from the beginning", func(w *shopbellv1.Webhook) { w.Status = webhook.Disabled }, nil, ""},
		{"500 types", func(w *shopbellv1.Webhook) { w.Events = many[:500] }, nil, ""},
		{"50 headers", func(w *shopbellv1.Webhook) { w.Headers = headers(50, "x") }, nil, ""},
		{"no url", func(w *shopbellv1.Webhook) { w.Url = "" }, []string{"url"}, "missing"},
		{"a relative url", func(w *shopbellv1.Webhook) { w.Url = "/hooks" }, []string{"url"}, "relative"},
		{"another scheme", func(w *shopbellv1.Webhook) { w.Url = "ftp://example.com" }, []string{"url"}, "http are taken"},
		{"a private address", func(w *shopbellv1.Webhook) { w.Url = "http://10.0.0.1/" }, []string{"url"}, "--allow-private-addresses"},
		{"no events", func(w *shopbellv1.Webhook) { w.Events = nil }, []string{"events"}, `"*" for all`},
		{"501 types", func(w *shopbellv1.Webhook) { w.Events = many }, []string{"events"}, "at most 500"},
		{"a type with a wildcard", func(w *shopbellv1.Webhook) { w.Events = []string{"order.*"} }, []string{"events[0]"}, "alone is every type"},
		{"a type twice", func(w *shopbellv1.Webhook) { w.Events = []string{"paid", "paid"} }, []string{"events[1]"}, "twice"},
		{"a type outside a closed catalog", func(w *shopbellv1.Webhook) { w.Profile, w.Events = "closed", []string{"paid", "order.created"} }, []string{"events[1]"}, `did you mean "order_created"?`},
		{"a profile that is not there", func(w *shopbellv1.Webhook) { w.Profile = "standart" }, []string{"profile"}, `did you mean "standard"?`},
		{"a label that is too long", func(w *shopbellv1.Webhook) { w.Label = proto.String(strings.Repeat("x", 201)) }, []string{"label"}, "at most 200"},
		{"another environment", func(w *shopbellv1.Webhook) { w.Environment = proto.String("prod") }, []string{"environment"}, "live nor test"},
		{"a delay in weeks", func(w *shopbellv1.Webhook) { w.Delay = &shopbellv1.Delay{Value: 1, Unit: "week"} }, []string{"delay.unit"}, "there are second"},
		{"a delay of nothing", func(w *shopbellv1.Webhook) { w.Delay = &shopbellv1.Delay{Value: 0, Unit: "day"} }, []string{"delay.value"}, "leave delay out"},
		{"a timeout that is too long", func(w *shopbellv1.Webhook) { w.Policy = &shopbellv1.Policy{Timeout: durationpb.New(time.Hour)} }, []string{"policy.timeout"}, "1m0s"},
		{"more attempts than the schedule has", func(w *shopbellv1.Webhook) { w.Policy = &shopbellv1.Policy{MaxAttempts: proto.Int32(99)} }, []string{"policy.max_attempts"}, "one more than"},
		{"a filter with a mistake", func(w *shopbellv1.Webhook) { w.Filter = proto.String("data.total >") }, []string{"filter"}, "filter: "},
		{"a filter that is no truth", func(w *shopbellv1.Webhook) { w.Filter = proto.String("1 + 1") }, []string{"filter"}, "filter: "},
		{"a transform with a mistake", func(w *shopbellv1.Webhook) { w.Transform = proto.String("{'a': dta}") }, []string{"transform"}, "transform: "},
		{"a format that is none", func(w *shopbellv1.Webhook) { w.Format = proto.String("yaml") }, []string{"format"}, "json nor xml"},
		{"51 headers", func(w *shopbellv1.Webhook) { w.Headers = headers(51, "x") }, []string{"headers"}, "at most 50"},
		{"headers that are too long", func(w *shopbellv1.Webhook) { w.Headers = headers(9, strings.Repeat("x", 1000)) }, []string{"headers"}, "at most 8192"},
		{"a header's name with a blank", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"X Env": "a"} }, []string{"headers"}, "no header name"},
		{"a header that we set", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"webhook-ID": "a"} }, []string{"headers.webhook-ID"}, "choose another"},
		{"a header that HTTP sets", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"content-length": "7"} }, []string{"headers.content-length"}, "choose another"},
		{"a header's value with a line break", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"X-Env": "a\r\nHost: b"} }, []string{"headers.X-Env"}, "line break"},
		{"a header's value with NUL", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"X-Env": "a\x00b"} }, []string{"headers.X-Env"}, "control character"},
		{"a header's value with a bare line feed", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"X-Env": "a\nb"} }, []string{"headers.X-Env"}, "line break"},
		{"a header's value with a bare carriage return", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"X-Env": "a\rb"} }, []string{"headers.X-Env"}, "line break"},
		{"a header's name with a line break", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"X-Env\r\nHost": "b"} }, []string{"headers"}, "no header name"},
		{"a header's name with a colon", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"X-Env: a": "b"} }, []string{"headers"}, "no header name"},
		{"a header without a name", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"": "b"} }, []string{"headers"}, "no header name"},
		{"a header that its profile sets", func(w *shopbellv1.Webhook) {
			w.Profile, w.Headers = "closed", map[string]string{"x-closed-EVENT": "b"}
		}, []string{"headers.x-closed-EVENT"}, "choose another"},
		{"a header that one of its signatures sets", func(w *shopbellv1.Webhook) {
			w.Signatures, w.Headers = []string{"hmac-sha256-hex"}, map[string]string{"x-webhook-signature": "b"}
		}, []string{"headers.x-webhook-signature"}, "choose another"},
		{"a header that no rule of its own sets", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"X-Webhook-Signature": "b"} }, nil, ""},
		{"signatures of its own", func(w *shopbellv1.Webhook) {
			w.Signatures = []string{"standard-webhooks-ed25519", "standard-webhooks", "hmac-sha256-hex"}
		}, nil, ""},
		{"a signature that is none", func(w *shopbellv1.Webhook) { w.Signatures = []string{"standard-webhooks", "ed25519"} }, []string{"signatures[1]"}, "there are standard-webhooks"},
		{"a signature twice", func(w *shopbellv1.Webhook) { w.Signatures = []string{"standard-webhooks", "standard-webhooks"} }, []string{"signatures[1]"}, "twice"},
		{"an option of its profile", func(w *shopbellv1.Webhook) { w.Profile, w.Options = "cloudevents", []string{"binary"} }, nil, ""},
		{"an option that its profile does not have", func(w *shopbellv1.Webhook) { w.Options = []string{"binary"} }, []string{"options[0]"}, "profile standard has no option"},
		{"a private key as the secret", func(w *shopbellv1.Webhook) {
			w.Secret = proto.String("whsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
		}, []string{"secret"}, "which Shopbell makes itself"},
		{"a header in two cases", func(w *shopbellv1.Webhook) { w.Headers = map[string]string{"X-Env": "a", "x-env": "b"} }, []string{"headers"}, "twice"},
		{"a secret that is too short", func(w *shopbellv1.Webhook) { w.Secret = proto.String("short") }, []string{"secret"}, "16 to 128"},
		{"a secret that is no base64", func(w *shopbellv1.Webhook) { w.Secret = proto.String("whsec_not base64 at all") }, []string{"secret"}, "not base64"},
		{"an id of one's own", func(w *shopbellv1.Webhook) { w.Id = "wh_1" }, []string{"id"}, "leave it out"},
		{"a status that is none", func(w *shopbellv1.Webhook) { w.Status = "paused" }, []string{"status"}, "enabled nor disabled"},
		{"several at once", func(w *shopbellv1.Webhook) {
			w.Url, w.Events, w.Label = "x", nil, proto.String(strings.Repeat("x", 201))
		}, []string{"events", "label", "url"}, "; "},
	} {
		w := &shopbellv1.Webhook{Url: "https://example.com/hooks", Events: []string{"paid"}}
		row.change(w)
		_, err := b.CreateWebhook(t.Context(), &subscriptionv1.CreateWebhookRequest{ShopId: "demo", Webhook: w})
		if row.fields == nil {
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			continue
		}
		if diff := cmp.Diff(row.fields, fieldsOf(t, err)); diff != "" || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: %v, want %q\n%s", row.name, err, row.text, diff)
		}
		if w.Secret != nil && strings.Contains(err.Error(), w.GetSecret()) {
			t.Errorf("%s: the secret is in %v", row.name, err)
		}
	}
}

func TestUpdateWebhook_ChangesWhatIsNamedAndNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	full := func() *shopbellv1.Webhook {
		return &shopbellv1.Webhook{
			Url: "https://example.com/hooks", Events: []string{"paid"}, Label: proto.String("Warehouse"), Environment: proto.String("live"),
			Headers: map[string]string{"X-Env": "prod", "X-More": "1"}, Delay: &shopbellv1.Delay{Value: 2, Unit: "day"},
			Policy: &shopbellv1.Policy{Timeout: durationpb.New(7 * time.Second), Jitter: proto.Bool(false), MaxAttempts: proto.Int32(2)},
		}
	}
	for _, row := range []struct {
		name   string
		change *shopbellv1.Webhook
		mask   []string
		want   func(w *shopbellv1.Webhook) bool // of the answer
	}{
		{"without a mask, what has a value", &shopbellv1.Webhook{Url: "https://example.com/other"}, nil, func(w *shopbellv1.Webhook) bool {
			return w.Url == "https://example.com/other" && w.GetLabel() == "Warehouse" && w.Delay.GetValue() == 2 && len(w.Headers) == 2
		}},
		{"what the mask names, and not what else is given", &shopbellv1.Webhook{Url: "https://example.com/other", Label: proto.String("Other")}, []string{"label"}, func(w *shopbellv1.Webhook) bool {
			return w.Url == "https://example.com/hooks" && w.GetLabel() == "Other"
		}},
		{"named and without a value is taken away", &shopbellv1.Webhook{}, []string{"label", "delay", "environment", "headers"}, func(w *shopbellv1.Webhook) bool {
			return w.Label == nil && w.Delay == nil && w.Environment == nil && len(w.Headers) == 0 && w.Url == "https://example.com/hooks"
		}},
		{"one rule alone", &shopbellv1.Webhook{Policy: &shopbellv1.Policy{Timeout: durationpb.New(9 * time.Second)}}, []string{"policy.timeout"}, func(w *shopbellv1.Webhook) bool {
			return w.Policy.Timeout.AsDuration() == 9*time.Second && !w.Policy.GetJitter() && w.Policy.GetMaxAttempts() == 2
		}},
		{"one rule back to the profile's", &shopbellv1.Webhook{}, []string{"policy.timeout"}, func(w *shopbellv1.Webhook) bool {
			return w.Policy.Timeout.AsDuration() == 15*time.Second && !w.Policy.GetJitter() && w.Policy.GetMaxAttempts() == 2
		}},
		{"all rules back to the profile's", &shopbellv1.Webhook{}, []string{"policy"}, func(w *shopbellv1.Webhook) bool {
			return w.Policy.Timeout.AsDuration() == 15*time.Second && w.Policy.GetJitter() && w.Policy.GetMaxAttempts() == 10
		}},
		{"all rules anew", &shopbellv1.Webhook{Policy: &shopbellv1.Policy{Jitter: proto.Bool(true)}}, []string{"policy"}, func(w *shopbellv1.Webhook) bool {
			return w.Policy.Timeout.AsDuration() == 15*time.Second && w.Policy.GetJitter() && w.Policy.GetMaxAttempts() == 10
		}},
		{"a part of the headers stands for all", &shopbellv1.Webhook{Headers: map[string]string{"X-New": "1"}}, []string{"headers.X-New"}, func(w *shopbellv1.Webhook) bool {
			return len(w.Headers) == 1 && w.Headers["X-New"] == "1"
		}},
		{"a part of the delay stands for all", &shopbellv1.Webhook{Delay: &shopbellv1.Delay{Value: 3, Unit: "hour"}}, []string{"delay.value", "delay.unit"}, func(w *shopbellv1.Webhook) bool {
			return w.Delay.GetValue() == 3 && w.Delay.GetUnit() == "hour"
		}},
		{
			"what only Shopbell sets is left aside", &shopbellv1.Webhook{Id: "wh_9", ShopId: "x", Etag: "", CreatedAt: timestamppb.New(time.Unix(1, 0)), Status: webhook.Enabled, Label: proto.String("Other")},
			[]string{"id", "shop_id", "created_at", "updated_at", "etag", "disabled_reason", "disabled_at", "status", "label"},
			func(w *shopbellv1.Webhook) bool {
				return w.Id != "wh_9" && w.ShopId == "demo" && w.CreatedAt.AsTime().Year() > 2000 && w.GetLabel() == "Other"
			},
		},
		{"an empty mask changes nothing", &shopbellv1.Webhook{Url: "https://example.com/other"}, []string{}, func(w *shopbellv1.Webhook) bool { return w.Url == "https://example.com/hooks" }},
	} {
		made := b.create(t, full())
		got, err := b.update(t, made.Id, row.change, row.mask...)
		if row.mask != nil && len(row.mask) == 0 {
			got, err = b.UpdateWebhook(t.Context(), &subscriptionv1.UpdateWebhookRequest{ShopId: "demo", WebhookId: made.Id, Webhook: row.change, UpdateMask: &fieldmaskpb.FieldMask{}})
		}
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if !row.want(got) {
			t.Errorf("%s: %v", row.name, got)
		}
		if again := b.read(t, made.Id); cmp.Diff(got.String(), again.String()) != "" {
			t.Errorf("%s: answered %v, but it is %v", row.name, got, again)
		}
	}
	for _, row := range []struct {
		name   string
		change *shopbellv1.Webhook
		mask   []string
		field  string
		text   string
	}{
		{"a field that is not there", &shopbellv1.Webhook{}, []string{"lable"}, "update_mask", `did you mean "label"?`},
		{"a rule that is not there", &shopbellv1.Webhook{}, []string{"policy.time_out"}, "update_mask", `did you mean "timeout"?`},
		{"the status", &shopbellv1.Webhook{Status: webhook.Disabled}, nil, "status", ":disable"},
		{"the secret", &shopbellv1.Webhook{Secret: proto.String("whsec_x")}, nil, "secret", ":rotate_secret"},
		{"the secret taken away", &shopbellv1.Webhook{}, []string{"secret"}, "secret", ":rotate_secret"},
		{"the url taken away", &shopbellv1.Webhook{}, []string{"url"}, "url", "missing"},
		{"the events taken away", &shopbellv1.Webhook{}, []string{"events"}, "events", "empty"},
		{"a url that is refused", &shopbellv1.Webhook{Url: "http://127.0.0.1/"}, nil, "url", "private"},
		{"a rule that cannot be", &shopbellv1.Webhook{Policy: &shopbellv1.Policy{Timeout: durationpb.New(0)}}, []string{"policy.timeout"}, "policy.timeout", "between"},
	} {
		made := b.create(t, full())
		_, err := b.update(t, made.Id, row.change, row.mask...)
		if err == nil || !slices.Contains(fieldsOf(t, err), row.field) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: %v, want an error on %s with %q", row.name, err, row.field, row.text)
		}
		if again := b.read(t, made.Id); again.Etag != made.Etag {
			t.Errorf("%s: a refused change was made", row.name)
		}
	}
}

func TestUpdateWebhook_LosesNoChangeOfTwoAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.create(t, &shopbellv1.Webhook{})
	var both sync.WaitGroup
	for _, change := range []*shopbellv1.Webhook{{Label: proto.String("Warehouse")}, {Url: "https://example.com/other"}, {Environment: proto.String("live")}} {
		both.Go(func() {
			if _, err := b.update(t, made.Id, change); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if got := b.read(t, made.Id); got.GetLabel() != "Warehouse" || got.Url != "https://example.com/other" || got.GetEnvironment() != "live" {
		t.Errorf("after all changes: %v", got)
	}
}

func TestListWebhooks_PagesWithoutHolesOrRepeats(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var want []string
	for i := range 7 {
		want = append(want, b.create(t, &shopbellv1.Webhook{Label: proto.String(fmt.Sprint(i))}).Id)
	}
	slices.Sort(want)
	for _, size := range []int32{0, 1, 2, 3, 6, 7, 8} {
		var got []string
		token := ""
		for range 20 {
			page, err := b.ListWebhooks(t.Context(), &subscriptionv1.ListWebhooksRequest{ShopId: "demo", PageSize: size, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if size > 0 && len(page.Webhooks) > int(size) {
				t.Errorf("a page of %d has %d", size, len(page.Webhooks))
			}
			for _, w := range page.Webhooks {
				got = append(got, w.Id)
				if w.Secret != nil {
					t.Error("a list shows a secret")
				}
			}
			if token = page.NextPageToken; token == "" {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
	page, err := b.ListWebhooks(t.Context(), &subscriptionv1.ListWebhooksRequest{ShopId: "demo", PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	for name, req := range map[string]*subscriptionv1.ListWebhooksRequest{
		"of another shop": {ShopId: "other", PageToken: page.NextPageToken},
		"of another list": {ShopId: "demo", PageToken: "ZGVsaXZlcmllcy9kZW1vL2Rsdl8x"},
		"made up":         {ShopId: "demo", PageToken: "next!"},
		"a bit of one":    {ShopId: "demo", PageToken: page.NextPageToken[:7]},
	} {
		_, err := b.ListWebhooks(t.Context(), req)
		if !slices.Equal(fieldsOf(t, err), []string{"page_token"}) {
			t.Errorf("a token %s: %v, want an error on page_token", name, err)
		}
	}
	empty, err := b.ListWebhooks(t.Context(), &subscriptionv1.ListWebhooksRequest{ShopId: "nobody"})
	if err != nil || len(empty.Webhooks) != 0 || empty.NextPageToken != "" {
		t.Errorf("of a shop without webhooks: %v, %v", empty, err)
	}
}

func TestRotateSecret_LetsTheOldOneSignForAWhile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.create(t, &shopbellv1.Webhook{Secret: proto.String("secret-number-one")})
	rotate := func(req *subscriptionv1.RotateSecretRequest) (*subscriptionv1.WebhookSecret, error) {
		req.ShopId, req.WebhookId = "demo", made.Id
		return b.RotateSecret(t.Context(), req)
	}
	got, err := rotate(&subscriptionv1.RotateSecretRequest{})
	if err != nil || !strings.HasPrefix(got.Secret, "whsec_") || len(got.Old) != 1 || got.Old[0].Secret != "secret-number-one" {
		t.Fatalf("first rotation: %v, %v", got, err)
	}
	if left := time.Until(got.Old[0].ExpiresAt.AsTime()); left < 23*time.Hour || left > 24*time.Hour {
		t.Errorf("the old one signs for %s, want 24h", left)
	}
	got, err = rotate(&subscriptionv1.RotateSecretRequest{Secret: "secret-number-three", Overlap: durationpb.New(time.Hour)})
	if err != nil || got.Secret != "secret-number-three" || len(got.Old) != 2 {
		t.Fatalf("second rotation: %v, %v", got, err)
	}
	for _, old := range got.Old { // a shorter overlap shortens that of all before
		if left := time.Until(old.ExpiresAt.AsTime()); left > time.Hour {
			t.Errorf("%s signs for %s, want an hour at most", old.Secret, left)
		}
	}
	if again := b.webhooks.Get("demo", made.Id); len(again.Signing(time.Now())) != 3 || len(again.Signing(time.Now().Add(2*time.Hour))) != 1 {
		t.Errorf("%d secrets sign now and %d in two hours, want 3 and 1", len(again.Signing(time.Now())), len(again.Signing(time.Now().Add(2*time.Hour))))
	}
	got, err = rotate(&subscriptionv1.RotateSecretRequest{Secret: "secret-number-three"})
	if err != nil || got.Secret != "secret-number-three" || len(got.Old) != 2 {
		t.Errorf("the same again: %v, %v, want it to stay one", got, err)
	}
	for range 2 {
		if _, err = rotate(&subscriptionv1.RotateSecretRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err = rotate(&subscriptionv1.RotateSecretRequest{}); !fault.IsKind(err, fault.Precondition) {
		t.Errorf("a sixth at once: %v, want it refused", err)
	}
	got, err = rotate(&subscriptionv1.RotateSecretRequest{Overlap: durationpb.New(0)})
	if err != nil || len(got.Old) != 0 {
		t.Errorf("without an overlap: %v, %v, want the new one alone", got, err)
	}
	for field, req := range map[string]*subscriptionv1.RotateSecretRequest{
		"secret": {Secret: "short"}, "overlap": {Overlap: durationpb.New(31 * 24 * time.Hour)},
	} {
		if _, err := rotate(req); !slices.Equal(fieldsOf(t, err), []string{field}) {
			t.Errorf("%v: %v, want an error on %s", req, err, field)
		}
	}
	if _, err := rotate(&subscriptionv1.RotateSecretRequest{Overlap: durationpb.New(-time.Second)}); !slices.Equal(fieldsOf(t, err), []string{"overlap"}) {
		t.Errorf("an overlap backwards: %v", err)
	}
}

// SHOPS.md A8: http is taken, and the owner is told what it means.
func TestCreateWebhook_WarnsOfHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.create(t, &shopbellv1.Webhook{Url: "http://example.com/hooks", Warnings: []string{"mine"}})
	if len(made.Warnings) != 1 || !strings.Contains(made.Warnings[0], "use https") {
		t.Errorf("created: warnings %q, want one of http", made.Warnings)
	}
	changed, err := b.update(t, made.Id, &shopbellv1.Webhook{Label: proto.String("Warehouse"), Warnings: made.Warnings})
	if err != nil || len(changed.Warnings) != 1 {
		t.Errorf("changed: %v, %v, want the warning again", changed, err)
	}
	safe, err := b.update(t, made.Id, &shopbellv1.Webhook{Url: "https://example.com/hooks"})
	if err != nil || len(safe.Warnings) != 0 {
		t.Errorf("with https: %v, %v, want no warning", safe, err)
	}
	if stored := b.webhooks.Get("demo", made.Id); len(stored.State().Webhook.Warnings) != 0 {
		t.Errorf("warnings are stored: %q", stored.State().Webhook.Warnings)
	}
}

// Every name that HTTP or Shopbell gives a meaning to, in any case.
func TestCreateWebhook_RefusesReservedHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, name := range []string{
		"Host", "Content-Length", "Content-Type", "Content-Encoding", "User-Agent", "Accept-Encoding", "Expect", // HTTP's own
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Trailer", "Transfer-Encoding", "Upgrade", // hop by hop
		"webhook-id", "webhook-timestamp", "webhook-signature", "traceparent", "tracestate", // ours
	} {
		for _, name := range []string{name, strings.ToUpper(name), strings.ToLower(name)} {
			_, err := b.CreateWebhook(t.Context(), &subscriptionv1.CreateWebhookRequest{ShopId: "demo", Webhook: &shopbellv1.Webhook{
				Url: "https://example.com/hooks", Events: []string{"paid"}, Headers: map[string]string{name: "x"},
			}})
			if diff := cmp.Diff([]string{"headers." + name}, fieldsOf(t, err)); diff != "" {
				t.Errorf("%s: %v, want it refused", name, err)
			}
		}
	}
}

func TestRotateSecret_ReplacesThePrivateKeyToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.create(t, &shopbellv1.Webhook{Secret: proto.String("secret-number-one"), Warnings: []string{"mine"}})
	if len(made.Warnings) > 0 {
		t.Errorf("warnings %q, want none: they are ours to give", made.Warnings)
	}
	read := func() *subscriptionv1.WebhookSecret {
		t.Helper()
		s, err := b.GetWebhookSecret(t.Context(), &subscriptionv1.GetWebhookSecretRequest{ShopId: "demo", WebhookId: made.Id})
		if err != nil || !strings.HasPrefix(s.PublicKey, "whpk_") {
			t.Fatalf("secret: %v, %v, want a public key", s, err)
		}
		return s
	}
	rotate := func(secret string, overlap time.Duration) *subscriptionv1.WebhookSecret {
		t.Helper()
		s, err := b.RotateSecret(t.Context(), &subscriptionv1.RotateSecretRequest{ShopId: "demo", WebhookId: made.Id, Secret: secret, Overlap: durationpb.New(overlap)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := read()
	second := rotate("secret-number-two", time.Hour)
	if second.PublicKey == first.PublicKey || second.Old[0].PublicKey != first.PublicKey {
		t.Errorf("rotated to %v, want another key beside %s", second, first.PublicKey)
	}
	if again := rotate("secret-number-two", time.Hour); again.PublicKey != second.PublicKey {
		t.Errorf("the same secret has the key %s, want it to stay %s", again.PublicKey, second.PublicKey)
	}
	if back := rotate("secret-number-one", time.Hour); back.PublicKey != first.PublicKey {
		t.Errorf("back to the first secret with the key %s, want its own, %s", back.PublicKey, first.PublicKey)
	}
	// A webhook from before there were private keys gets one with its next change, and says meanwhile what is missing.
	w := b.webhooks.Get("demo", made.Id)
	state := w.State()
	state.Secrets, state.Webhook.Signatures = []*busv1.Secret{{Value: "secret-number-one"}}, []string{"standard-webhooks-ed25519"}
	value, err := proto.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.bucket.Put(t.Context(), contract.WebhookKey("demo", made.Id), value); err != nil {
		t.Fatal(err)
	}
	if old := b.read(t, made.Id); len(old.Warnings) != 1 {
		t.Errorf("warnings %q, want one about the key that is missing", old.Warnings)
	}
	changed, err := b.update(t, made.Id, &shopbellv1.Webhook{Label: proto.String("Warehouse"), Warnings: []string{"mine"}})
	if err != nil || len(changed.Warnings) > 0 {
		t.Errorf("after a change: %v, %v, want no warning", changed, err)
	}
	// No answer holds a private key.
	stored, err := b.webhooks.Fetch(t.Context(), "demo", made.Id)
	if err != nil || len(stored.State().Secrets[0].PrivateKey) != 32 {
		t.Fatal(stored, err)
	}
	for _, answer := range []proto.Message{read(), changed, b.read(t, made.Id)} {
		text, err := proto.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, stored.State().Secrets[0].PrivateKey) || strings.Contains(answer.(fmt.Stringer).String(), base64.StdEncoding.EncodeToString(stored.State().Secrets[0].PrivateKey)) {
			t.Errorf("the private key is in %v", answer)
		}
	}
}

// Our own directory has much to read meanwhile.
func TestDeleteWebhook_IsAnsweredWhenNothingIsMatchedToItAnyLonger(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.create(t, &shopbellv1.Webhook{})
	for i := range 3000 {
		id := fmt.Sprintf("wh_%04d", i)
		value, err := proto.Marshal(&busv1.WebhookState{Webhook: &shopbellv1.Webhook{Id: id, ShopId: "demo", Url: "https://example.com/", Status: webhook.Enabled, Profile: "standard"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.js.PublishAsync("$KV."+contract.Webhooks+"."+contract.WebhookKey("demo", id), value); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.DeleteWebhook(t.Context(), &subscriptionv1.DeleteWebhookRequest{ShopId: "demo", WebhookId: made.Id}); err != nil {
		t.Fatal(err)
	}
	if b.webhooks.Get("demo", made.Id) != nil {
		t.Error("its deletion is answered, and our own directory still has it")
	}
}
