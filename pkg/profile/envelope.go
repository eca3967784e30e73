package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

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
var places = []string{"id", "type", "action", "occurred_at", "shop_id", "webshop_id", "environment", "data"}

// UnmarshalYAML reads an envelope.
func (e *Envelope) UnmarshalYAML(node *yaml.Node) error {
	if err := e.read(node.Value); err != nil {
		return fmt.Errorf("line %d: envelope: %w", node.Line, err)
	}
	return nil
}

func (e *Envelope) read(text string) error {
	*e = Envelope{text: text}
	seenData := false
	rest := e.text
	literal := ""
	add := func(p part) {
		if p == (part{}) {
			return
		}
		if seenData {
			e.after = append(e.after, p)
		} else {
			e.before = append(e.before, p)
		}
	}
	for rest != "" {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			literal += rest
			break
		}
		word := rest[open+1:]
		end := strings.IndexFunc(word, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' })
		if end <= 0 || word[end] != '}' { // a brace of the JSON around
			literal += rest[:open+1]
			rest = word
			continue
		}
		place := word[:end]
		if !slices.Contains(places, place) {
			return fmt.Errorf("{%s} is not known%s", place, fault.DidYouMean(place, places))
		}
		literal += rest[:open]
		add(part{literal: literal})
		literal, rest = "", word[end+1:]
		if place == "data" {
			if seenData {
				return errors.New("{data} stands twice")
			}
			seenData = true
			continue
		}
		add(part{place: place})
	}
	add(part{literal: literal})
	switch {
	case e.text == "":
		return nil
	case !seenData:
		return errors.New("{data} is missing")
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

// HeaderValue is a header's value: text, in which {type} stands for the event's type.
type HeaderValue string

// For gives the value for an event type.
func (v HeaderValue) For(eventType string) string {
	return strings.ReplaceAll(string(v), "{type}", eventType)
}
