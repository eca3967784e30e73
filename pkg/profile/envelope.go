package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"shopbell.dev/pkg/fault"
)

// Envelope is what is written around an event's data: text with places to fill, such as
// {"type":{type},"data":{data}}. Every place but {data} is filled with a JSON value; {data} with the data as it came.
// An empty envelope is the data alone.
type Envelope struct {
	text   string
	before []part // what stands before the data
	after  []part // what stands after it
}

type part struct{ literal, place string }

// places are what an envelope may be filled with.
var places = []string{"id", "type", "action", "occurred_at", "shop_id", "webshop_id", "environment", "key", "content_type", "data"}

// split takes a text with places apart. A brace that is no place's is one of the text.
func split(text string, known []string) (parts []part, err error) {
	literal := ""
	for rest := text; rest != ""; {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			literal += rest
			break
		}
		word := rest[open+1:]
		end := strings.IndexFunc(word, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' })
		if end <= 0 || word[end] != '}' {
			literal += rest[:open+1]
			rest = word
			continue
		}
		place := word[:end]
		if !slices.Contains(known, place) {
			return nil, fmt.Errorf("{%s} is not known%s", place, fault.DidYouMean(place, known))
		}
		if literal += rest[:open]; literal != "" {
			parts = append(parts, part{literal: literal})
		}
		parts = append(parts, part{place: place})
		literal, rest = "", word[end+1:]
	}
	if literal != "" {
		parts = append(parts, part{literal: literal})
	}
	return parts, nil
}

// UnmarshalYAML reads an envelope.
func (e *Envelope) UnmarshalYAML(node *yaml.Node) error {
	if err := e.read(node.Value); err != nil {
		return fmt.Errorf("line %d: envelope: %w", node.Line, err)
	}
	return nil
}

func (e *Envelope) read(text string) error {
	*e = Envelope{text: text}
	if text == "" {
		return nil
	}
	parts, err := split(text, places)
	if err != nil {
		return err
	}
	isData := func(p part) bool { return p.place == "data" }
	at := slices.IndexFunc(parts, isData)
	if at < 0 {
		return errors.New("{data} is missing")
	}
	if e.before, e.after = parts[:at], parts[at+1:]; slices.ContainsFunc(e.after, isData) {
		return errors.New("{data} stands twice")
	}
	// An object is data that can stand only where every value can.
	before, after := e.around(func(string) string { return `""` })
	if !json.Valid(slices.Concat(before, []byte(`{"":""}`), after)) {
		return errors.New("what it makes is not JSON; note that places stand without quotes: {\"type\":{type},\"data\":{data}}")
	}
	return nil
}

// String is the envelope as it was written.
func (e Envelope) String() string { return e.text }

// around gives what the body has before and after the data, each place filled with the JSON that value gives for it.
func (e Envelope) around(value func(place string) string) (before, after []byte) {
	fill := func(parts []part) []byte {
		var out []byte
		for _, p := range parts {
			if p.place == "" {
				out = append(out, p.literal...)
				continue
			}
			out = append(out, value(p.place)...)
		}
		return out
	}
	return fill(e.before), fill(e.after)
}

// Quote gives a string as JSON. Most are plain and need no escaping.
func Quote(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil {
				return `""` // a string is never refused
			}
			return string(quoted)
		}
	}
	return `"` + s + `"`
}

// HeaderValue is a header's value: text with places to fill, such as {type}.
type HeaderValue struct {
	text  string
	parts []part
}

// UnmarshalYAML reads a header's value.
func (v *HeaderValue) UnmarshalYAML(node *yaml.Node) error {
	var err error
	v.text = node.Value
	if v.parts, err = split(v.text, places[:len(places)-1]); err != nil { // data has no place in a header
		return fmt.Errorf("line %d: header: %w", node.Line, err)
	}
	return nil
}

// For gives the value, each place filled with what value gives for it. What a header cannot hold is percent-encoded, as
// CloudEvents has it (HTTP binding, 3.1.3.2).
func (v HeaderValue) For(value func(place string) string) string {
	var out strings.Builder
	for _, p := range v.parts {
		if p.place == "" {
			out.WriteString(p.literal)
			continue
		}
		text := value(p.place)
		for i := range len(text) {
			if c := text[i]; c <= ' ' || c == '"' || c == '%' || c >= 0x7f {
				fmt.Fprintf(&out, "%%%02X", c)
				continue
			}
			out.WriteByte(text[i])
		}
	}
	return out.String()
}

// checkHeaders says what is wrong with a profile's headers.
func checkHeaders(at string, headers map[string]HeaderValue, bad *fault.Collector) {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if !httpguts.ValidHeaderFieldName(name) {
			bad.Add(at+"headers", "%q is no header name; use letters, digits and '-'", name)
		}
		if text := headers[name].text; !httpguts.ValidHeaderFieldValue(text) || strings.TrimSpace(text) != text {
			bad.Add(at+"headers."+name, "its value has a line break, another control character, or a blank at an end")
		}
	}
}
