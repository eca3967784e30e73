package event_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// awkward is data that most programs change when they parse and print it.
const awkward = `{ "total":549.50,"b":1,"a":1E+2,	"url":"https:\/\/example.com\/?a=1&b=<&>","id":12345678901234567890,
  "id":-0.0,"name":"K\u00f8benhavn Ærø 数 😀 \ud83d\ude00", "":[ ],"deep":[[{}],{"x":null}] }`

func parse(t *testing.T, header map[string]string, query, body string) ([]contract.Event, error) {
	t.Helper()
	h := http.Header{}
	for name, value := range header {
		h.Set(name, value)
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return event.Parse(h, q, []byte(body))
}

func contentType(value string) map[string]string { return map[string]string{"Content-Type": value} }

func TestParse_TakesEveryFormAndKeepsTheBytes(t *testing.T) {
	full := contract.Event{
		ID: "order-1042-created", Type: "order_created", Action: "create", OccurredAt: "2026-05-01T10:30:00+02:00",
		Environment: "live", Key: "order:1042", ContentType: "application/json", Data: []byte(awkward),
	}
	object := `{"id":"order-1042-created","type":"order_created","action":"create","occurred_at":"2026-05-01T10:30:00+02:00",
		"environment":"live","key":"order:1042","data":` + awkward + `}`
	small := func(data, contentType string) contract.Event {
		return contract.Event{Type: "paid", ContentType: contentType, Data: []byte(data)}
	}
	cloud := contract.Event{ID: "c1", Type: "com.example.paid", OccurredAt: "2026-05-01T10:30:00Z", Key: "order/7", ContentType: "application/json", Data: []byte(awkward)}
	cloudText := func(rest string) string {
		return `{"specversion":"1.0","id":"c1","source":"/shop","type":"com.example.paid","time":"2026-05-01T10:30:00Z","subject":"order/7",` + rest + `}`
	}
	binary := map[string]string{
		"Ce-Specversion": "1.0", "Ce-Id": "c1", "Ce-Source": "/shop", "Ce-Type": "com.example.paid", "Ce-Time": "2026-05-01T10:30:00Z",
		"Ce-Subject": "order%2F7", "Content-Type": "application/json",
	}
	for _, row := range []struct {
		name   string
		header map[string]string
		query  string
		body   string
		want   []contract.Event
	}{
		{"an object", nil, "", object, []contract.Event{full}},
		{"an object as curl sends it", contentType("application/x-www-form-urlencoded"), "", object, []contract.Event{full}},
		{"an object with blanks around", contentType("application/json"), "", "\r\n\t " + object + " \n", []contract.Event{full}},
		{"as little as may be", nil, "", `{"type":"paid","data":1}`, []contract.Event{small("1", "application/json")}},
		{"data that is null", nil, "", `{"type":"paid","data":null}`, []contract.Event{small("null", "application/json")}},
		{"data that is a string", nil, "", `{"data":"\/","type":"paid"}`, []contract.Event{small(`"\/"`, "application/json")}},
		{"a field whose name is written with an escape", nil, "", `{"t\u0079pe":"paid","data":[]}`, []contract.Event{small("[]", "application/json")}},
		{
			"an array", contentType("application/json"), "", "[" + object + "\n,\n" + `{"type":"paid","data":{}}` + "]",
			[]contract.Event{full, small("{}", "application/json")},
		},
		{"an array of one", nil, "", `[{"type":"paid","data":2.50}]`, []contract.Event{small("2.50", "application/json")}},
		{
			"NDJSON", contentType("application/x-ndjson"), "", `{"type":"paid","data":1}` + "\n\n" + `  {"type":"paid","data":{"b":1 ,"a":2}}  ` + "\r\n" + `{"type":"paid","data":3}`,
			[]contract.Event{small("1", "application/json"), small(`{"b":1 ,"a":2}`, "application/json"), small("3", "application/json")},
		},
		{"NDJSON with a charset", contentType("application/x-ndjson; charset=utf-8"), "", `{"type":"paid","data":1}`, []contract.Event{small("1", "application/json")}},
		{"JSON Lines", contentType("application/jsonl"), "", `{"type":"paid","data":1}` + "\n", []contract.Event{small("1", "application/json")}},
		{"?type= with JSON", contentType("application/json"), "type=paid", awkward, []contract.Event{small(awkward, "application/json")}},
		{
			"?type= with every field", contentType("application/json"), "type=order_created&id=order-1042-created&action=create&environment=live&key=order:1042&occurred_at=2026-05-01T10:30:00%2B02:00", awkward,
			[]contract.Event{full},
		},
		{"?type= with XML", contentType("application/xml; charset=iso-8859-1"), "type=paid", "<paid amount=\"\xe9\"/>", []contract.Event{small("<paid amount=\"\xe9\"/>", "application/xml; charset=iso-8859-1")}},
		{"?type= with a form", contentType("application/x-www-form-urlencoded"), "type=paid", "a=1&a=%32", []contract.Event{small("a=1&a=%32", "application/x-www-form-urlencoded")}},
		{"?type= with no content type", nil, "type=paid", "\x00\x01", []contract.Event{small("\x00\x01", "application/octet-stream")}},
		{"?type= with nothing", contentType("text/plain"), "type=paid", "", []contract.Event{small("", "text/plain")}},
		{"?type= with NDJSON is one event", contentType("application/x-ndjson"), "type=paid", "{}\n{}", []contract.Event{small("{}\n{}", "application/x-ndjson")}},
		{"a CloudEvent, structured", contentType("application/cloudevents+json; charset=utf-8"), "", cloudText(`"data":` + awkward), []contract.Event{cloud}},
		{
			"a CloudEvent with our extensions", contentType("application/cloudevents+json"), "", cloudText(`"key":"order:7","action":"pay","environment":"test","count":3,"truth":true,"data":1`),
			[]contract.Event{{ID: "c1", Type: "com.example.paid", Action: "pay", Environment: "test", OccurredAt: "2026-05-01T10:30:00Z", Key: "order:7", ContentType: "application/json", Data: []byte("1")}},
		},
		{
			"a CloudEvent with base64", contentType("application/cloudevents+json"), "", cloudText(`"datacontenttype":"image/png","data_base64":"` + base64.StdEncoding.EncodeToString([]byte("\x89PNG\x00")) + `"`),
			[]contract.Event{with(cloud, "image/png", "\x89PNG\x00")},
		},
		{
			"a CloudEvent with base64 before its content type", contentType("application/cloudevents+json"), "", cloudText(`"data_base64":"AAE=","datacontenttype":"image/png"`),
			[]contract.Event{with(cloud, "image/png", "\x00\x01")},
		},
		{
			"a CloudEvent with base64 and no content type", contentType("application/cloudevents+json"), "", cloudText(`"data_base64":"AAE="`),
			[]contract.Event{with(cloud, "application/octet-stream", "\x00\x01")},
		},
		{
			"a CloudEvent with base64 of nothing", contentType("application/cloudevents+json"), "", cloudText(`"datacontenttype":"image/png","data_base64":""`),
			[]contract.Event{with(cloud, "image/png", "")},
		},
		{
			"a CloudEvent with base64 of what looks like a JSON string", contentType("application/cloudevents+json"), "", cloudText(`"datacontenttype":"text/plain","data_base64":"` + base64.StdEncoding.EncodeToString([]byte(`"a\n"`)) + `"`),
			[]contract.Event{with(cloud, "text/plain", `"a\n"`)},
		},
		{
			"a CloudEvent with text", contentType("application/cloudevents+json"), "", cloudText(`"datacontenttype":"text/xml","data":"<a b=\"1\"\/>"`),
			[]contract.Event{with(cloud, "text/xml", `<a b="1"/>`)},
		},
		{
			"a CloudEvent with a JSON string", contentType("application/cloudevents+json"), "", cloudText(`"datacontenttype":"application/vnd.shop+json","data":"\/"`),
			[]contract.Event{with(cloud, "application/vnd.shop+json", `"\/"`)},
		},
		{
			"CloudEvents, batched", contentType("application/cloudevents-batch+json"), "", "[" + cloudText(`"data":1.0`) + "," + cloudText(`"data":2`) + "]",
			[]contract.Event{with(cloud, "application/json", "1.0"), with(cloud, "application/json", "2")},
		},
		{"a CloudEvent, binary", binary, "", awkward, []contract.Event{cloud}},
		{"a CloudEvent, binary, with an image", mapWith(binary, "Content-Type", "image/png"), "", "\x89PNG\x00", []contract.Event{with(cloud, "image/png", "\x89PNG\x00")}},
		{"a CloudEvent, binary, with a percent sign that escapes nothing", mapWith(binary, "Ce-Subject", "100%"), "", "1", []contract.Event{func() contract.Event {
			e := with(cloud, "application/json", "1")
			e.Key = "100%"
			return e
		}()}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := parse(t, row.header, row.query, row.body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func with(e contract.Event, contentType, data string) contract.Event {
	e.ContentType, e.Data = contentType, []byte(data)
	return e
}

func mapWith(m map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range m {
		if k != key {
			out[k] = v
		}
	}
	return out
}

func TestParse_NamesThePlaceTheFieldAndTheRemedy(t *testing.T) {
	cloud := contentType("application/cloudevents+json")
	const cloudHead = `{"specversion":"1.0","id":"c1","source":"/","type":"t",`
	many := "[" + strings.TrimSuffix(strings.Repeat(`{"type":"t","data":1},`, event.MaxBatch+1), ",") + "]"
	for _, row := range []struct {
		name   string
		header map[string]string
		query  string
		body   string
		fields []string // that are named, sorted
		text   string
	}{
		{"nothing", nil, "", "", nil, "the body is empty"},
		{"blanks", nil, "", " \n ", nil, "the body is empty"},
		{"broken JSON, first line", nil, "", `{"type":}`, nil, "line 1, column 9: "},
		{"broken JSON, third line", nil, "", "{\"type\":\"t\",\n\"data\":{\n  \"a\" 1}}", nil, "line 3, column 7: "},
		{"JSON that ends too early", nil, "", "{\"type\":\"t\",\n\"data\":[1,", nil, "line 2, column 10: unexpected end"},
		{"two objects", nil, "", "{}\n{}", nil, "line 2, column 1: "},
		{"a comma too many", nil, "", `[{"type":"t","data":1},]`, nil, "line 1, column 24: "},
		{"neither object nor array", nil, "", `"paid"`, []string{"event"}, `not "paid"`},
		{"an array of numbers", nil, "", `[1]`, []string{"events[0].event"}, "not 1"},
		{"an empty array", nil, "", `[ ]`, []string{"events"}, "send at least one"},
		{"an empty NDJSON", contentType("application/x-ndjson"), "", "\n\n", []string{"events"}, "send at least one"},
		{"too many", nil, "", many, []string{"events"}, "at most 1000"},
		{"a line of NDJSON that is broken", contentType("application/x-ndjson"), "", "{\"type\":\"t\",\"data\":1}\n\n{\"type\":t}", []string{"events[1]"}, "the body is not JSON: line 3, column 10: "},
		{"no type and no data", nil, "", `{}`, []string{"data", "type"}, "it is what receivers get"},
		{"an unknown field", nil, "", `{"typ":"t","data":1,"type":"t"}`, []string{"typ"}, `did you mean "type"?`},
		{"data's own fields beside it", nil, "", `{"type":"t","data":1,"order_id":7}`, []string{"order_id"}, "belongs into data"},
		{"a field of another case", nil, "", `{"Type":"t","data":1}`, []string{"Type", "type"}, `did you mean "type"?`},
		{"a field twice", nil, "", `{"type":"t","type":"u","data":1}`, []string{"type"}, "stands twice"},
		{"data twice", nil, "", `{"type":"t","data":1,"data":1}`, []string{"data"}, "stands twice"},
		{"a type that is a number", nil, "", `{"type":7,"data":1}`, []string{"type", "type"}, "it must be a string, not 7"},
		{"an id that is null", nil, "", `{"type":"t","id":null,"data":1}`, []string{"id"}, "it must be a string, not null"},
		{"an id that is empty", nil, "", `{"type":"t","id":"","data":1}`, []string{"id"}, "leave the field out"},
		{"an id with a blank", nil, "", `{"type":"t","id":"a b","data":1}`, []string{"id"}, "blank"},
		{"a type with a wildcard", nil, "", `{"type":"order.*","data":1}`, []string{"type"}, "wildcard"},
		{"a type with a blank", nil, "", `{"type":"order created","data":1}`, []string{"type"}, "character"},
		{"a time without a zone", nil, "", `{"type":"t","occurred_at":"2026-05-01T10:30:00","data":1}`, []string{"occurred_at"}, "RFC 3339"},
		{"a time in seconds", nil, "", `{"type":"t","occurred_at":1777624200,"data":1}`, []string{"occurred_at"}, "must be a string"},
		{"an environment that is none", nil, "", `{"type":"t","environment":"prod","data":1}`, []string{"environment"}, "neither live nor test"},
		{"a key with a line break", nil, "", `{"type":"t","key":"a\r\nNats-Msg-Id: b","data":1}`, []string{"key"}, "line break"},
		{"a key with a blank at its end", nil, "", `{"type":"t","key":"a ","data":1}`, []string{"key"}, "blank at an end"},
		{"a key that is too long", nil, "", `{"type":"t","key":"` + strings.Repeat("a", 201) + `","data":1}`, []string{"key"}, "at most 200"},
		{"an action that is too long", nil, "", `{"type":"t","action":"` + strings.Repeat("a", 65) + `","data":1}`, []string{"action"}, "at most 64"},
		{"everything at once", nil, "", `[{"type":"t","data":1},{"type":"","environment":"x","data":1},{"data":1}]`, []string{"events[1].environment", "events[1].type", "events[2].type"}, "events[1].environment: "},
		{"a parameter without ?type=", nil, "typ=paid", `{"type":"t","data":1}`, []string{"typ"}, "?type="},
		{"an unknown parameter", contentType("text/plain"), "type=t&actoin=x", "1", []string{"actoin"}, `did you mean "action"?`},
		{"data as a parameter", contentType("text/plain"), "type=t&data=1", "1", []string{"data"}, "not known"},
		{"a parameter twice", contentType("text/plain"), "type=t&id=a&id=b", "1", []string{"id"}, "twice"},
		{"an empty type parameter", contentType("text/plain"), "type=", "1", []string{"type"}, "it is empty"},
		{"a parameter that is no text", contentType("text/plain"), "type=t&key=%ff", "1", []string{"key"}, "UTF-8"},
		{"a content type that is no text", contentType("text/plain; name=\"\xff\""), "type=t", "1", []string{"content_type"}, "UTF-8"},
		{"?type= with JSON that is broken", contentType("application/json"), "type=t", "{\n\"a\" 1}", []string{"data"}, "line 2, column 5"},
		{"?type= with no JSON at all", contentType("application/json"), "type=t", "", []string{"data"}, "empty"},
		{"a CloudEvent of another version", cloud, "", `{"specversion":"0.3","id":"c1","source":"/","type":"t","data":1}`, []string{"specversion"}, "CloudEvents 1.0"},
		{"a CloudEvent without id and source", cloud, "", `{"specversion":"1.0","type":"t","data":1}`, []string{"id", "source"}, "requires it"},
		{"a CloudEvent without data", cloud, "", strings.TrimSuffix(cloudHead, ",") + "}", []string{"data"}, "missing"},
		{"a CloudEvent with a string for base64 that is none", cloud, "", cloudHead + `"data_base64":"!!"}`, []string{"data_base64"}, "not base64"},
		{"a CloudEvent whose base64 is not the JSON that it is said to be", cloud, "", cloudHead + `"datacontenttype":"application/json","data_base64":"AAE="}`, []string{"data"}, "not JSON"},
		{"a CloudEvent with data twice", cloud, "", cloudHead + `"data":1,"data":2}`, []string{"data"}, "twice"},
		{"a CloudEvent with both forms of data", cloud, "", cloudHead + `"data":1,"data_base64":"AAE="}`, []string{"data_base64"}, "one of"},
		{"a batch with one bad CloudEvent", contentType("application/cloudevents-batch+json"), "", "[" + cloudHead + `"data":1},{"specversion":"1.0","id":"c2","source":"/","type":"a b","data":1}]`, []string{"events[1].type"}, "character"},
		{"a CloudEvent, binary, with broken JSON", map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "c1", "Ce-Source": "/", "Ce-Type": "t", "Content-Type": "application/json"}, "", "{", []string{"data"}, "line 1, column 1"},
		{"a CloudEvent, binary, without an id", map[string]string{"Ce-Specversion": "1.0", "Ce-Source": "/", "Ce-Type": "t"}, "", "{}", []string{"id"}, "requires it"},
		{"a CloudEvent, binary, with a line break in its subject", map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "c1", "Ce-Source": "/", "Ce-Type": "t", "Ce-Subject": "a%0d%0ab"}, "", "{}", []string{"key"}, "line break"},
	} {
		t.Run(row.name, func(t *testing.T) {
			checkFault(t, second(parse(t, row.header, row.query, row.body)), row.fields, row.text)
		})
	}
}

func second[T any](_ T, err error) error { return err }

func checkFault(t *testing.T, err error, fields []string, text string) {
	t.Helper()
	var f *fault.Fault
	if !errors.As(err, &f) || f.Kind != fault.Invalid {
		t.Fatalf("error %v, want an Invalid fault", err)
	}
	var got []string
	for _, v := range f.Fields {
		got = append(got, v.Field)
	}
	slices.Sort(got)
	if diff := cmp.Diff(fields, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s%v", diff, err)
	}
	if !strings.Contains(f.Message, text) {
		t.Errorf("message %q, want %q in it", f.Message, text)
	}
}

func TestFromProto_TakesBothContents(t *testing.T) {
	for _, row := range []struct {
		name string
		in   *shopbellv1.Event
		want contract.Event
	}{
		{"JSON text", &shopbellv1.Event{Type: "paid", Content: &shopbellv1.Event_Json{Json: awkward}}, contract.Event{Type: "paid", ContentType: "application/json", Data: []byte(awkward)}},
		{"bytes are JSON where nothing is said", &shopbellv1.Event{Type: "paid", Content: &shopbellv1.Event_Data{Data: []byte(awkward)}}, contract.Event{Type: "paid", ContentType: "application/json", Data: []byte(awkward)}},
		{"bytes of another kind", &shopbellv1.Event{Type: "paid", ContentType: "image/png", Content: &shopbellv1.Event_Data{Data: []byte{0, 255}}}, contract.Event{Type: "paid", ContentType: "image/png", Data: []byte{0, 255}}},
		{"no bytes of another kind", &shopbellv1.Event{Type: "paid", ContentType: "text/plain", Content: &shopbellv1.Event_Data{}}, contract.Event{Type: "paid", ContentType: "text/plain"}},
		{
			"every field, and what only Shopbell sets is left aside",
			&shopbellv1.Event{Id: "e1", Type: "paid", Action: "pay", OccurredAt: "2026-05-01T10:30:00Z", Environment: "test", Key: "k", ShopId: "other", TraceId: "x", Content: &shopbellv1.Event_Json{Json: "1"}},
			contract.Event{ID: "e1", Type: "paid", Action: "pay", OccurredAt: "2026-05-01T10:30:00Z", Environment: "test", Key: "k", ContentType: "application/json", Data: []byte("1")},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := event.FromProto(row.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFromProto_NamesTheField(t *testing.T) {
	for _, row := range []struct {
		name   string
		in     *shopbellv1.Event
		fields []string
		text   string
	}{
		{"no event", nil, []string{"data", "type"}, "missing"},
		{"no content", &shopbellv1.Event{Type: "t"}, []string{"data"}, "missing"},
		{"JSON that is none", &shopbellv1.Event{Type: "t", Content: &shopbellv1.Event_Json{Json: "{\n]"}}, []string{"json"}, "line 2, column 1"},
		{"bytes that are no JSON", &shopbellv1.Event{Type: "t", Content: &shopbellv1.Event_Data{Data: []byte("{]")}}, []string{"data"}, "line 1, column 2"},
		{"bytes that are no JSON of a kind of its own", &shopbellv1.Event{Type: "t", ContentType: "application/x+json", Content: &shopbellv1.Event_Data{Data: []byte("{]")}}, []string{"data"}, "application/x+json"},
		{"several at once", &shopbellv1.Event{Type: "a b", Id: "a b", Environment: "x", Content: &shopbellv1.Event_Json{Json: "1"}}, []string{"environment", "id", "type"}, "neither live nor test"},
	} {
		t.Run(row.name, func(t *testing.T) { checkFault(t, second(event.FromProto(row.in)), row.fields, row.text) })
	}
}

func TestIsJSON_GoesByTheContentType(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "Application/JSON": true, "application/cloudevents+json": true,
		"text/json": false, "text/plain": false, "": false, "application/jsonp": false, "application/x-ndjson": false, "a/b/c": false,
	} {
		if got := event.IsJSON(&contract.Event{ContentType: contentType}); got != want {
			t.Errorf("IsJSON(%q) = %v, want %v", contentType, got, want)
		}
	}
}

// Whatever comes in, what is taken can be put onto the bus and is what came.
func FuzzParse(f *testing.F) {
	f.Add("application/json", "", []byte(`{"type":"t","data":`+awkward+`}`))
	f.Add("application/json", "", []byte(`[{"type":"t","data":1},{"type":"t","data":{}}]`))
	f.Add("application/x-ndjson", "", []byte("{\"type\":\"t\",\"data\":1}\n{\"type\":\"t\",\"data\":2}"))
	f.Add("application/cloudevents+json", "", []byte(`{"specversion":"1.0","id":"c","source":"/","type":"t","datacontenttype":"text/plain","data":"x"}`))
	f.Add("application/cloudevents+json", "", []byte(`{"specversion":"1.0","id":"c","source":"/","type":"t","datacontenttype":"text/plain","data_base64":""}`))
	f.Add("text/plain", "type=t&key=a", []byte("x"))
	f.Fuzz(func(t *testing.T, contentType, query string, body []byte) {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Skip()
		}
		events, err := event.Parse(http.Header{"Content-Type": {contentType}}, q, body)
		if err != nil {
			return
		}
		for i, e := range events {
			e.ShopID = "demo"
			if e.ID == "" {
				e.ID = fmt.Sprint(i)
			}
			m := e.Message()
			got, err := contract.ParseEvent(m.Header, m.Data)
			if err != nil {
				t.Fatalf("what was taken cannot be read from the bus: %v", err)
			}
			got.AcceptedAt = e.AcceptedAt
			if diff := cmp.Diff(e, got); diff != "" {
				t.Errorf("(-taken +from the bus):\n%s", diff)
			}
			for name, values := range m.Header {
				if strings.ContainsAny(values[0], "\r\n\x00") {
					t.Errorf("header %s of the bus is %q", name, values[0])
				}
			}
		}
	})
}
