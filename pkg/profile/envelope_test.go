package profile

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEnvelope_IsReadOrRefused(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{ // want: a part of the error, or what is made of it
		{"none", "", "1"},
		{"the data alone", "{data}", "1"},
		{"a place before and behind", `{"t":{type},"d":{data},"e":{environment}}`, `{"t":<type>,"d":1,"e":<environment>}`},
		{"every place", `[{id},{type},{action},{occurred_at},{shop_id},{webshop_id},{environment},{data}]`, "[<id>,<type>,<action>,<occurred_at>,<shop_id>,<webshop_id>,<environment>,1]"},
		{"braces of the JSON around", `{"a":{"b":{},"c":{data}}}`, `{"a":{"b":{},"c":1}}`},
		{"a place right behind a brace", `{{id}:{data}}`, `{<id>:1}`},
		{"blanks and lines", "{\n  \"d\" : {data}\n}", "{\n  \"d\" : 1\n}"},
		{"words in braces that are no place", `{"text":"{Data} {a b} {9}","d":{data}}`, `{"text":"{Data} {a b} {9}","d":1}`},
		{"an unknown place", `{"d":{data},"t":{tyep}}`, `{tyep} is not known (did you mean "type"?)`},
		{"no data", `{"t":{type}}`, "{data} is missing"},
		{"data twice", `[{data},{data}]`, "{data} stands twice"},
		{"a brace too few", `{"d":{data}`, "not JSON"},
		{"a comma too few", `{"t":{type} "d":{data}}`, "not JSON"},
		{"data in quotes", `{"d":"{data}"}`, "not JSON"},
		{"a place in quotes", `{"t":"{type}","d":{data}}`, "not JSON"},
		{"data as a name", `{{data}:1}`, "not JSON"},
		{"something behind", `{data};`, "not JSON"},
	} {
		var e Envelope
		if err := e.read(row.text); err != nil {
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %v, want %q", row.name, err, row.want)
			}
			continue
		}
		before, after := e.around(func(place string) string { return "<" + place + ">" })
		if got := string(before) + "1" + string(after); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
		if e.String() != row.text {
			t.Errorf("%s: it prints as %q, want it as it was written", row.name, e.String())
		}
	}
}

// Whatever is taken as an envelope makes valid JSON around all valid JSON, which stands in it byte for byte.
func FuzzEnvelope_MakesJSONAroundTheBytes(f *testing.F) {
	for _, envelope := range []string{
		`{"type":{type},"timestamp":{occurred_at},"data":{data}}`, `{data}`, `[{id},{data}]`, `{"a":"{data}"}`, `{ {type} : {data} }`, `{"o":{"order":[{data}]}}`, `1{data}`, `{data}}`,
	} {
		for _, data := range []string{`549.50`, `{"a":"\/<&>"}`, ` [1 , 2] `, `"x"`, `-0.0e+1`} {
			f.Add(envelope, "order \"1\"\n", []byte(data))
		}
	}
	f.Fuzz(func(t *testing.T, envelope, value string, data []byte) {
		var e Envelope
		if e.read(envelope) != nil || envelope == "" || !json.Valid(data) {
			t.Skip()
		}
		before, after := e.around(func(string) string { return Quote(value) })
		got := slices.Concat(before, data, after)
		if !json.Valid(got) {
			t.Errorf("envelope %q makes %q of %q", envelope, got, data)
		}
		if !bytes.Contains(got, data) {
			t.Errorf("%q does not hold the bytes %q", got, data)
		}
	})
}

func FuzzQuote_IsJSON(f *testing.F) {
	for _, s := range []string{"", "plain", `"`, `\`, "\x00", "\x7f", "å", "\xff", "<&>", "\u2028", "😀"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal([]byte(Quote(s)), &got); err != nil {
			t.Fatalf("Quote(%q) = %s: %v", s, Quote(s), err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && got != want {
			t.Errorf("Quote(%q) is read as %q", s, got)
		}
	})
}

func TestAround_GoesByTheTypesOwnRules(t *testing.T) {
	var own, root Envelope
	if err := own.read(`{"data":{data}}`); err != nil {
		t.Fatal(err)
	}
	if err := root.read(`{"orders":{"order":[{data}]}}`); err != nil {
		t.Fatal(err)
	}
	p := &Profile{Envelope: own, Events: []Event{{Name: "plain"}, {Name: "order", Envelope: &root, EnvelopedBy: "orders"}}}
	for _, row := range []struct {
		name, eventType, data, want string
		enveloped                   bool
	}{
		{"the profile's", "plain", "1", `{"data":1}`, true},
		{"the profile's for a type that it does not know", "other", "1", `{"data":1}`, true},
		{"the type's own", "order", `{"id":7}`, `{"orders":{"order":[{"id":7}]}}`, true},
		{"data that has it already", "order", ` {"orders" : 1} `, ` {"orders" : 1} `, true},
		{"data that has it beside another", "order", `{"orders":1,"x":2}`, `{"orders":{"order":[{"orders":1,"x":2}]}}`, true},
		{"data that has it further down", "order", `{"x":{"orders":1}}`, `{"orders":{"order":[{"x":{"orders":1}}]}}`, true},
		{"data that is no object", "order", `[1]`, `{"orders":{"order":[[1]]}}`, true},
	} {
		before, after, enveloped := p.Around(row.eventType, []byte(row.data), func(string) string { return `""` })
		if got := string(before) + row.data + string(after); got != row.want || enveloped != row.enveloped {
			t.Errorf("%s: %s (in an envelope: %v), want %s (%v)", row.name, got, enveloped, row.want, row.enveloped)
		}
	}
	if before, after, enveloped := (&Profile{}).Around("plain", []byte("1"), func(string) string { return `""` }); len(before)+len(after) != 0 || enveloped {
		t.Errorf("without an envelope: %q, %q, %v", before, after, enveloped)
	}
}
