package event

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMembersAndItems_AreThePiecesAsTheyStand(t *testing.T) {
	got, ok := members([]byte(` { "a" : 1.50 ,"b":{ "x":[1, 2] } , "a":"\"}" ,"":null}`))
	want := []member{{"a", []byte("1.50")}, {"b", []byte(`{ "x":[1, 2] }`)}, {"a", []byte(`"\"}"`)}, {"", []byte("null")}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(member{})); diff != "" || !ok {
		t.Errorf("members (-want +got), ok %v:\n%s", ok, diff)
	}
	list, ok := items([]byte("[ 1 ,\"],\",\n{ } ,[[]],true ]"))
	if diff := cmp.Diff([][]byte{[]byte("1"), []byte(`"],"`), []byte("{ }"), []byte("[[]]"), []byte("true")}, list); diff != "" || !ok {
		t.Errorf("items (-want +got), ok %v:\n%s", ok, diff)
	}
	for _, text := range []string{"1", `"{"`, "null", "true", " ", ""} {
		if _, ok := members([]byte(text)); ok {
			t.Errorf("%q is taken for an object", text)
		}
		if _, ok := items([]byte(text)); ok {
			t.Errorf("%q is taken for an array", text)
		}
	}
}

func FuzzPieces_AreThoseOfEncodingJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `{"a":1,"b":[{"c":"\\\""}]}`, "[1 ,2\n,\t{\"x\":-1.5e+9}]", `{"a":{"b":{}},"a":[]}`, `["\u005d"]`, `"x"`, ` [ null , true,false ] `, `{"\ud800":"\ud800"}`, "{\"\xff\":1}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			t.Skip("nothing is promised of what is not JSON")
		}
		first := bytes.TrimLeft(text, " \t\r\n")[0]
		list, isObject := members(text)
		if isObject != (first == '{') {
			t.Fatalf("object %v of %q", isObject, text)
		}
		if isObject {
			var want map[string]json.RawMessage
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			got := map[string]json.RawMessage{}
			for _, m := range list { // of a name that stands twice, encoding/json keeps the last value, too
				got[m.name] = m.value
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("members of %q (-encoding/json +ours):\n%s", text, diff)
			}
		}
		pieces, isArray := items(text)
		if isArray != (first == '[') {
			t.Fatalf("array %v of %q", isArray, text)
		}
		if isArray {
			var want []json.RawMessage
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			if len(want) != len(pieces) {
				t.Fatalf("%d items of %q, want %d", len(pieces), text, len(want))
			}
			for i := range want {
				if !bytes.Equal(want[i], pieces[i]) {
					t.Errorf("item %d of %q is %q, want %q", i, text, pieces[i], want[i])
				}
			}
		}
	})
}

// What is JSON is what encoding/json says.
func TestValid_SaysWhatEncodingJSONSays(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	objects := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for _, text := range []string{
		"", " ", "{}", "[]", " {\t} ", "[\r\n]", "{", "[", "}", "]", "{]", "[}", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1,,2]", "[]]", "{} {}", "1 1",
		`{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":1 "b":2}`, `{"a" :1 , "b": [ ] }`, `{a:1}`, `{1:1}`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,"b`,
		"0", "-0", "00", "01", "-", "-1", "+1", "1.", ".1", "1.0", "1.5e", "1e5", "1E+5", "1e-", "1e-5", "1e+", "1.e5", "-.5", "1e5.5", "0x1", "Infinity", "NaN", "1a",
		"true", "false", "null", "tru", "truex", "True", "nul", "fals", "t", "n",
		`"`, `""`, `"a`, `"\`, `"\"`, `"\""`, `"\q"`, `"\u"`, `"\u12"`, `"\u12g4"`, `"\uD800"`, `"\u00e9\/\b\f\n\r\t\\"`, "\"\t\"", "\"\x00\"", "\"\x7f\"", "\"\xff\"", "\"\u2028\"",
		"\ufeff{}", "'a'", "// 1\n1", "\v1", "\u00a01",
		nested(9_999), nested(10_000), nested(10_001), objects(10_000), objects(10_001), strings.Repeat("[", 1<<20),
	} {
		if got, want := valid([]byte(text)), json.Valid([]byte(text)); got != want {
			t.Errorf("%.60q: got %v, want %v", text, got, want)
		}
	}
}

// What it costs to read an event of 1 KB.
func BenchmarkParse(b *testing.B) {
	data := strings.Repeat(`{"sku":"A-1042","name":"Trail shoe, blue","quantity":2,"price":{"amount":"89.90","currency":"EUR"}},`, 10)
	text := []byte(`{"id":"evt_1","type":"order.created","data":{"id":1042,"total":549.50,"lines":[` + data + `null]}}`)
	header := http.Header{"Content-Type": {"application/json"}}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(header, nil, text); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzCheckJSON_GivesAPlaceInTheText(f *testing.F) {
	f.Add([]byte(`{"a":[1.5e-7,"\u00e9",true,null]} `))
	f.Add([]byte("{\n\"a\" 1}"))
	f.Add([]byte(""))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := CheckJSON(text); (err == nil) != json.Valid(text) {
			t.Errorf("CheckJSON(%q) = %v, valid %v", text, err, json.Valid(text))
		}
	})
}
