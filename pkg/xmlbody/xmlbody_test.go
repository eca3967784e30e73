package xmlbody_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"shopbell.dev/pkg/xmlbody"
)

func TestFromJSON_FollowsTheRules(t *testing.T) {
	for _, row := range []struct{ name, json, want string }{
		{"a list becomes repeated elements", `{"orders":{"order":[{"id":"1"},{"id":"2"}]}}`, `<orders><order><id>1</id></order><order><id>2</id></order></orders>`},
		{"null is an empty element", `{"o":{"coupon":null}}`, `<o><coupon></coupon></o>`},
		{"an empty string is an empty element", `{"o":{"fax":""}}`, `<o><fax></fax></o>`},
		{"numbers stay as written", `{"o":{"a":549.50,"b":12345678901234567890,"c":1e3,"d":-0.0}}`, `<o><a>549.50</a><b>12345678901234567890</b><c>1e3</c><d>-0.0</d></o>`},
		{"truths are words", `{"o":{"a":true,"b":false}}`, `<o><a>true</a><b>false</b></o>`},
		{"special characters are escaped", `{"o":{"a":"<&>\"'"}}`, `<o><a>&lt;&amp;&gt;&#34;&#39;</a></o>`},
		{"escaped slashes and non-ASCII are text", `{"o":{"a":"b\/c Hajdú-Bihar"}}`, `<o><a>b/c Hajdú-Bihar</a></o>`},
		{"several members need a root", `{"a":1,"b":2}`, `<data><a>1</a><b>2</b></data>`},
		{"a doubled key is repeated", `{"a":1,"a":2}`, `<data><a>1</a><a>2</a></data>`},
		{"a list at the top", `[1,[2,3],{"a":4}]`, `<data><item>1</item><item><item>2</item><item>3</item></item><item><a>4</a></item></data>`},
		{"a list as the only member", `{"a":[1,2]}`, `<data><a>1</a><a>2</a></data>`},
		{"lists in lists", `{"o":{"m":[[1,2],[]]}}`, `<o><m><item>1</item><item>2</item></m><m></m></o>`},
		{"an empty list is nothing", `{"o":{"m":[]}}`, `<o></o>`},
		{"a scalar", `"x"`, `<data>x</data>`},
		{"an empty key", `{"o":{"":1}}`, `<o><_ key="">1</_></o>`},
		{"keys that are no names", `{"o":{"a b":1,"1x":2,"xmlns":3,"a:b":4,"é":5}}`, `<o><a_b key="a b">1</a_b><_1x key="1x">2</_1x><_xmlns key="xmlns">3</_xmlns><a_b key="a:b">4</a_b><é>5</é></o>`},
		{"control characters", `{"o":{"a":"\u0000\u0001\n"}}`, "<o><a>\uFFFD\uFFFD&#xA;</a></o>"},
	} {
		got, err := xmlbody.FromJSON([]byte(row.json))
		want := `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + row.want
		if err != nil || string(got) != want {
			t.Errorf("%s: %s: got %s, %v, want %s", row.name, row.json, got, err, want)
		}
	}
}

func TestFromJSON_RefusesWhatItCannotWrite(t *testing.T) {
	for _, text := range []string{``, `{`, `{"a":1}x`, strings.Repeat("[", 1200) + strings.Repeat("]", 1200)} {
		if _, err := xmlbody.FromJSON([]byte(text)); err == nil {
			t.Errorf("FromJSON(%.20q): no error", text)
		}
	}
}

func FuzzFromJSON_IsWellFormedForAnyJSON(f *testing.F) {
	for _, seed := range []string{`{"orders":{"order":[{"a b":"<"}]}}`, `[[[]]]`, `{"":{"\u0000":"\ud800"}}`, `{"a":[1,[2,{"b":[]}]]}`, "\"\xff\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) || strings.Count(string(text), "[")+strings.Count(string(text), "{") > 900 {
			return
		}
		doc, err := xmlbody.FromJSON(text)
		if err != nil {
			t.Fatalf("FromJSON(%q): %v", text, err)
		}
		dec := xml.NewDecoder(strings.NewReader(string(doc)))
		roots, depth := 0, 0
		for {
			token, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("FromJSON(%q) = %s: %v", text, doc, err)
			}
			switch token.(type) {
			case xml.StartElement:
				if depth == 0 {
					roots++
				}
				depth++
			case xml.EndElement:
				depth--
			}
		}
		if roots != 1 {
			t.Errorf("FromJSON(%q) = %s: %d roots, want 1", text, doc, roots)
		}
	})
}
