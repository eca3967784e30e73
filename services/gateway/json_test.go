package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/proto"

	logv1 "shopbell.dev/proto/shopbell/log/v1"
	senderv1 "shopbell.dev/proto/shopbell/sender/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

const awkward = "{ \"total\":549.50,\n\"a\":\"\\/<&>\",\"a\":12345678901234567890,\"å\":\"\\u00e5\"}"

func TestPrinter_PrintsBytesAsWhatTheyAre(t *testing.T) {
	event := func(contentType, data string) *shopbellv1.Event {
		return &shopbellv1.Event{Id: "e1", ContentType: contentType, Content: &shopbellv1.Event_Data{Data: []byte(data)}}
	}
	for _, row := range []struct {
		name string
		m    proto.Message
		want string // that the text holds
	}{
		{"JSON data, byte for byte", event("application/json", awkward), `"data": ` + awkward + `,`},
		{"JSON data of a kind of its own", event("application/vnd.shop+json; charset=utf-8", "549.50"), `"data": 549.50`},
		{"JSON data that is null", event("application/json", "null"), `"data": null`},
		{"what is said to be JSON and is not", event("application/json", `{"a":`), `"data": "{\"a\":"`},
		{"text", event("text/plain", "a \"b\"\n<&>"), `"data": "a \"b\"\n<&>"`},
		{"JSON that is said to be text", event("text/plain", `{"a":1}`), `"data": "{\"a\":1}"`},
		{"what is no text", event("image/png", "\x89PNG\x00"), `"data": "data:application/octet-stream;base64,` + base64.StdEncoding.EncodeToString([]byte("\x89PNG\x00")) + `"`},
		{"no data", event("text/plain", ""), `"data": ""`},
		{"a profile's sample", &shopbellv1.Profile{Events: []*shopbellv1.ProfileEvent{{Name: "a", Sample: []byte(awkward)}, {Name: "b", Sample: []byte("1.0")}}}, `"sample": ` + awkward},
		{"an answer's body", &shopbellv1.Delivery{Attempts: []*shopbellv1.Attempt{{ResponseBody: []byte(`{"ok":true}`)}, {ResponseBody: []byte("<b>")}}}, `"response_body": "{\"ok\":true}"`},
		{"a body that was sent", &shopbellv1.Delivery{Body: []byte(awkward)}, `"body": ` + quote(awkward)},
		{"no body", &shopbellv1.Delivery{}, ""},
		{"what a test sent", &senderv1.TestWebhookResponse{RequestBody: []byte("é"), Attempt: &shopbellv1.Attempt{ResponseBody: []byte("\xff")}}, `"request_body": "é"`},
		{"events in a list", &shopbellv1.Event{Story: &shopbellv1.Story{Deliveries: []*shopbellv1.Delivery{{Body: []byte("1")}, {Body: []byte("2")}}}}, `"body": "2"`},
	} {
		before := proto.Clone(row.m)
		text, err := printer{}.Marshal(row.m)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if !json.Valid(text) || !strings.Contains(string(text), row.want) || !strings.HasSuffix(string(text), "}\n") {
			t.Errorf("%s: %s\nwant %s in it", row.name, text, row.want)
		}
		if !proto.Equal(before, row.m) {
			t.Errorf("%s: printing changed the message", row.name)
		}
	}
	text, err := printer{}.Marshal(&shopbellv1.Delivery{})
	if err != nil || strings.Contains(string(text), `"body"`) {
		t.Errorf("a body that is not given is printed: %s, %v", text, err)
	}
}

func quote(s string) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s)
	return strings.TrimRight(out.String(), "\n")
}

// Whatever stands in a message, each field of it is printed in its place.
func FuzzPrinter_PutsEachFieldInItsPlace(f *testing.F) {
	f.Add("application/json", []byte(awkward), "label", []byte("\x00\xff"), []byte("body"))
	f.Add("text/plain", []byte(`"`), `"AAAAAAAAAAAAAAAAAAAAAAAA"`, []byte{}, []byte(`"},{"`))
	f.Fuzz(func(t *testing.T, contentType string, data []byte, text string, answer, body []byte) {
		if !utf8.ValidString(contentType) || !utf8.ValidString(text) || !utf8.Valid(data) {
			t.Skip() // protobuf holds no such strings; bytes that are no text are answer's
		}
		out, err := printer{}.Marshal(&shopbellv1.Event{
			Id: text, ContentType: contentType, Content: &shopbellv1.Event_Data{Data: data},
			Story: &shopbellv1.Story{Deliveries: []*shopbellv1.Delivery{{Id: text, Body: body, Attempts: []*shopbellv1.Attempt{{Error: text, ResponseBody: answer}}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			ID    string
			Data  json.RawMessage
			Story struct {
				Deliveries []struct {
					ID, Body string
					Attempts []struct {
						Error        string
						ResponseBody string `json:"response_body"`
					}
				}
			}
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		d := got.Story.Deliveries[0]
		if got.ID != text || d.ID != text || d.Attempts[0].Error != text {
			t.Errorf("%q is printed as %q, %q, %q", text, got.ID, d.ID, d.Attempts[0].Error)
		}
		for was, is := range map[string]string{string(answer): d.Attempts[0].ResponseBody, string(body): d.Body} {
			want := was
			if !utf8.ValidString(was) {
				want = "data:application/octet-stream;base64," + base64.StdEncoding.EncodeToString([]byte(was))
			}
			if is != want {
				t.Errorf("%q is printed as %q", was, is)
			}
		}
		var asText string
		if isText := json.Unmarshal(got.Data, &asText) == nil && asText == string(data); !isText && !bytes.Equal(got.Data, bytes.TrimSpace(data)) {
			t.Errorf("data %q is printed as %q", data, got.Data)
		}
	})
}

// What was put in is not looked at again: data that holds the token of another field takes nobody's place.
func TestPlaces_AreFilledOnce(t *testing.T) {
	p := places{salt: [14]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}}
	token := func(n int) string { return quote(base64.StdEncoding.EncodeToString(p.token(n))) }
	p.texts = [][]byte{[]byte(`[` + token(1) + `,` + token(0) + `]`), []byte(`"second"`)}
	got := string(p.fill([]byte(`{"b":` + token(1) + `,"a":` + token(0) + `}`)))
	if want := `{"b":"second","a":[` + token(1) + `,` + token(0) + `]}`; got != want {
		t.Errorf("fill = %s, want %s", got, want)
	}
}

func TestDecoder_SaysWhatIsWrongAndWhatInstead(t *testing.T) {
	for _, row := range []struct {
		name string
		into any
		body string
		want []string
	}{
		{"an unknown field", &shopbellv1.Webhook{}, "{\n  \"lable\": \"x\"}", []string{"lable: the field is not known", `did you mean "label"?`, "line 2, column 3"}},
		{"an unknown field further down", &shopbellv1.Webhook{}, `{"policy": {"timeOut": "5s", "retries": 3}}`, []string{"timeOut: ", `did you mean "timeout"?`}},
		{"an unknown field of a part", new(*shopbellv1.Webhook), `{"url": "x", "event": ["a"]}`, []string{"event: the field is not known", `did you mean "events"?`}},
		{"a text where a list is wanted", &shopbellv1.Webhook{}, `{"events": "paid"}`, []string{`"paid"`, "line 1, column 12"}},
		{"a number where a text is wanted", &shopbellv1.Webhook{}, `{"url": 5}`, []string{"url: 5 cannot stand here (line 1, column 9)"}},
		{"a time without a unit", &shopbellv1.Policy{}, `{"timeout": "5"}`, []string{`"5" is not a time in seconds with its unit`}},
		{"a number for a time", &shopbellv1.Policy{}, `{"timeout": 5}`, []string{"5"}},
		{"broken JSON", &shopbellv1.Webhook{}, "{\n\"url\": }", []string{"line 2, column 8"}},
		{"a list for an object", &shopbellv1.Webhook{}, `[]`, []string{"["}},
		{"too much", &shopbellv1.Webhook{}, `{"url": "` + strings.Repeat("x", 1<<20) + `"}`, []string{"larger than 1048576 bytes"}},
	} {
		err := printer{}.NewDecoder(strings.NewReader(row.body)).Decode(row.into)
		if err == nil {
			t.Errorf("%s: no error", row.name)
			continue
		}
		for _, want := range row.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q, want %q in it", row.name, err, want)
			}
		}
		if strings.Contains(err.Error(), "proto:") || strings.Contains(err.Error(), "\u00a0") {
			t.Errorf("%s: %q speaks of our library", row.name, err)
		}
	}
	for _, body := range []string{"", " \n"} {
		if err := (printer{}).NewDecoder(strings.NewReader(body)).Decode(&shopbellv1.Webhook{}); !errors.Is(err, io.EOF) {
			t.Errorf("nothing: %v, want EOF, which a request without a body is", err)
		}
	}
}

func TestStrictQuery_RefusesWhatNobodyKnows(t *testing.T) {
	filter := utilities.NewDoubleArray([][]string{{"shop_id"}})
	for _, row := range []struct {
		name, query string
		m           proto.Message
		want        string // a part of the error; empty: it is taken
	}{
		{"nothing", "", &subscriptionv1.ListWebhooksRequest{}, ""},
		{"what is known", "page_size=5&page_token=x", &subscriptionv1.ListWebhooksRequest{}, ""},
		{"filters", "status=failed&response_code=4xx&from=2026-05-01T10:30:00Z", &logv1.ListDeliveriesRequest{}, ""},
		{"an unknown one", "pagesize=5", &subscriptionv1.ListWebhooksRequest{}, `pagesize: the parameter is not known (did you mean "page_size"?)`},
		{"camel case", "pageSize=5", &subscriptionv1.ListWebhooksRequest{}, `did you mean "page_size"?`},
		{"one like none", "colour=red", &subscriptionv1.ListWebhooksRequest{}, "colour: the parameter is not known"},
		{"a part of one", "page_size.value=5", &subscriptionv1.ListWebhooksRequest{}, "page_size.value"},
		{"no number", "page_size=many", &subscriptionv1.ListWebhooksRequest{}, `page_size: "many" is not a number`},
		{"a number twice", "page_size=1&page_size=2", &subscriptionv1.ListWebhooksRequest{}, "page_size"},
		{"no time", "from=yesterday", &logv1.ListDeliveriesRequest{}, `from: "yesterday" is not a time such as`},
		{"what stands in the path", "shop_id=other", &subscriptionv1.ListWebhooksRequest{}, "shop_id: "},
	} {
		values, err := url.ParseQuery(row.query)
		if err != nil {
			t.Fatal(err)
		}
		err = strictQuery{}.Parse(row.m, values, filter)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	m := &subscriptionv1.ListWebhooksRequest{ShopId: "demo"}
	if err := (strictQuery{}).Parse(m, url.Values{"page_size": {"5"}}, filter); err != nil || m.PageSize != 5 || m.ShopId != "demo" {
		t.Errorf("%v, %v", m, err)
	}
}

func TestFieldNames_AreThoseOfAllThatMayStandThere(t *testing.T) {
	names := fieldNames(&shopbellv1.Webhook{})
	for _, want := range []string{"url", "policy", "timeout", "unit"} {
		if !slices.Contains(names, want) {
			t.Errorf("%q without %s", names, want)
		}
	}
	if slices.Contains(names, "seconds") {
		t.Errorf("%q hold the fields of a duration, which stands as a text", names)
	}
}
