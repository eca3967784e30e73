package event_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"shopbell.dev/pkg/event"
)

func TestRename_ChangesNamesAndNothingElse(t *testing.T) {
	names := map[string]string{"id": "subscriber_id", "e\"ö": "<new>"}
	for _, row := range []struct {
		name, text string
		at         []string
		want       string
	}{
		{"the object itself", `{"id":1,"x":2}`, nil, `{"subscriber_id":1,"x":2}`},
		{"values stay as they are written", ` { "id" : 549.50 , "a":"\/<&>é" } `, nil, ` { "subscriber_id" : 549.50 , "a":"\/<&>é" } `},
		{"the way, and a list at its end", `{"n":{"s":[{"id":1},{"id":2,"id":3}]},"id":4}`, []string{"n", "s"}, `{"n":{"s":[{"subscriber_id":1},{"subscriber_id":2,"subscriber_id":3}]},"id":4}`},
		{"a list on the way, in a list", `[[{"n":{"id":1}}],{"n":{"id":[]}}]`, []string{"n"}, `[[{"n":{"subscriber_id":1}}],{"n":{"subscriber_id":[]}}]`},
		{"what is further down stays", `{"id":{"id":1},"y":{"id":2}}`, nil, `{"subscriber_id":{"id":1},"y":{"id":2}}`},
		{"a name that is written otherwise", `{"i\u0064":1}`, nil, `{"subscriber_id":1}`},
		{"the way written otherwise", `{"\u006e":{"id":1}}`, []string{"n"}, `{"\u006e":{"subscriber_id":1}}`},
		{"names that need escaping", `{"e\"ö":1}`, nil, `{"\u003cnew\u003e":1}`},
		{"braces and brackets in strings", `{"a":"{\"id\":[","id":"}]"}`, nil, `{"a":"{\"id\":[","subscriber_id":"}]"}`},
		{"nothing to rename", `{"x":1}`, nil, `{"x":1}`},
		{"another way", `{"m":{"id":1}}`, []string{"n"}, `{"m":{"id":1}}`},
		{"no object", `"id"`, nil, `"id"`},
		{"nothing in it", `{}`, nil, `{}`},
		{"an empty list", `{"n":[]}`, []string{"n"}, `{"n":[]}`},
	} {
		if got := string(event.Rename([]byte(row.text), row.at, names)); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// Whatever valid JSON comes, renaming there and back gives the value that it was, and a name for itself the same bytes.
func FuzzRename_IsUndone(f *testing.F) {
	for _, text := range []string{`{"a":{"b":[1,{"b":2}]}}`, `[{"b":"\/"} , {"b":-0.0e1}]`, `{"b":1,"a":{"b":true}}`, `"b"`, `[[],{}]`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			t.Skip("nothing is promised of what is not JSON")
		}
		for _, at := range [][]string{nil, {"a"}, {"a", "b"}} {
			there := event.Rename(text, at, map[string]string{"b": "new name \"\n"})
			back := event.Rename(there, at, map[string]string{"new name \"\n": "b"})
			var was, is any
			if err := json.Unmarshal(text, &was); err != nil {
				t.Skip("valid, and too large or deep for encoding/json to compare")
			}
			if !json.Valid(there) {
				t.Fatalf("%q becomes %q, which is not JSON", text, there)
			}
			if err := json.Unmarshal(back, &is); err != nil || !reflect.DeepEqual(was, is) {
				t.Fatalf("%q becomes %q and back %q (%v)", text, there, back, err)
			}
			if len(at) == 0 && len(event.Rename(text, at, nil)) != len(text) {
				t.Fatalf("%q is not given back as it is", text)
			}
		}
	})
}
