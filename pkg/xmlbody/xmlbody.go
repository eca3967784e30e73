// Package xmlbody writes JSON as XML, for receivers that want XML (SHOPS.md D2): a key becomes an element, a list
// becomes repeated elements of the key's name, null an empty element, and numbers stay as they were written.
package xmlbody

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"unicode/utf8"
)

// ContentType of what FromJSON makes.
const ContentType = "application/xml"

// The names of elements that JSON has none for: the root, when the JSON is not an object with one member that is not a
// list, and the items of a list that stands in a list.
const (
	rootName = "data"
	itemName = "item"
)

// maxDepth bounds how deep JSON may be nested. encoding/json has a like bound.
const maxDepth = 1000

// FromJSON writes a JSON text as an XML document in UTF-8. It is well-formed whatever the JSON holds: a key that is no
// XML name has its characters replaced by '_' and stands in the attribute "key" as it was; characters that XML cannot
// hold become U+FFFD. It fails for what is not JSON, or is nested more than 1,000 deep.
func FromJSON(text []byte) ([]byte, error) {
	if !json.Valid(text) {
		return nil, fmt.Errorf("write JSON as XML: it is not JSON")
	}
	w := writer{dec: json.NewDecoder(bytes.NewReader(text))}
	w.dec.UseNumber()
	w.out.Grow(len(text) + len(text)/2 + 64)
	w.out.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n")
	if err := w.root(text); err != nil {
		return nil, fmt.Errorf("write JSON as XML: %w", err)
	}
	return w.out.Bytes(), nil
}

type writer struct {
	dec   *json.Decoder
	out   bytes.Buffer
	depth int

	inList bool // the next value is an item of a list
}

// root writes the document's one element.
func (w *writer) root(text []byte) error {
	var object map[string]json.RawMessage
	if json.Unmarshal(text, &object) == nil && len(object) == 1 && !repeatsKey(text) {
		for _, value := range object {
			if value[0] == '[' {
				return w.value(rootName)
			}
		}
		if _, err := w.dec.Token(); err != nil { // the brace
			return err
		}
		key, err := w.dec.Token()
		if err != nil {
			return err
		}
		return w.value(key.(string))
	}
	return w.value(rootName)
}

// repeatsKey says whether an object's one key stands in it more than once.
func repeatsKey(object []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(object))
	_, _ = dec.Token()
	members := 0
	for dec.More() {
		var value json.RawMessage
		_, _ = dec.Token()
		_ = dec.Decode(&value)
		members++
	}
	return members > 1
}

// value writes the next value as an element of this name, or as none or several when it is a list.
func (w *writer) value(name string) error {
	token, err := w.dec.Token()
	if err != nil {
		return err
	}
	if w.depth++; w.depth > maxDepth {
		return fmt.Errorf("it is nested more than %d deep", maxDepth)
	}
	defer func() { w.depth-- }()
	wrap := w.inList || w.depth == 1 // a list at the top, or in a list, needs an element around its items
	w.inList = false
	switch token {
	case json.Delim('['):
		return w.list(name, wrap)
	case json.Delim('{'):
		return w.object(name)
	}
	w.open(name)
	switch v := token.(type) {
	case string:
		w.text(v)
	case json.Number:
		w.out.WriteString(v.String())
	case bool:
		fmt.Fprintf(&w.out, "%t", v)
	}
	w.close(name)
	return nil
}

func (w *writer) object(name string) error {
	w.open(name)
	for w.dec.More() {
		key, err := w.dec.Token()
		if err != nil {
			return err
		}
		if err := w.value(key.(string)); err != nil {
			return err
		}
	}
	if _, err := w.dec.Token(); err != nil {
		return err
	}
	w.close(name)
	return nil
}

// list writes each item as an element of the list's name, or, when the list has an element of its own, of itemName.
func (w *writer) list(name string, wrap bool) error {
	items := name
	if wrap {
		items = itemName
		w.open(name)
	}
	for w.dec.More() {
		w.inList = true
		if err := w.value(items); err != nil {
			return err
		}
	}
	if _, err := w.dec.Token(); err != nil {
		return err
	}
	if wrap {
		w.close(name)
	}
	return nil
}

func (w *writer) open(key string) {
	name, same := elementName(key)
	w.out.WriteByte('<')
	w.out.WriteString(name)
	if !same {
		w.out.WriteString(` key="`)
		w.text(key)
		w.out.WriteByte('"')
	}
	w.out.WriteByte('>')
}

func (w *writer) close(key string) {
	name, _ := elementName(key)
	w.out.WriteString("</")
	w.out.WriteString(name)
	w.out.WriteByte('>')
}

// text writes text or an attribute's value; what XML cannot hold becomes U+FFFD.
func (w *writer) text(s string) { _ = xml.EscapeText(&w.out, []byte(s)) }

// elementName gives the XML name for a key, and whether that is the key itself. Names that begin with "xml" are
// reserved, and a colon would be a name space.
func elementName(key string) (name string, same bool) {
	out := make([]byte, 0, len(key)+1)
	same = key != ""
	for i, r := range key {
		switch {
		case r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || isNameStart(r):
			out = utf8.AppendRune(out, r)
		case i > 0 && (r == '-' || r == '.' || r >= '0' && r <= '9'):
			out = utf8.AppendRune(out, r)
		case i == 0 && (r >= '0' && r <= '9'):
			out = append(out, '_', byte(r))
			same = false
		default:
			out = append(out, '_')
			same = false
		}
	}
	if len(out) == 0 || len(out) >= 3 && (out[0]|0x20) == 'x' && (out[1]|0x20) == 'm' && (out[2]|0x20) == 'l' {
		return "_" + string(out), false
	}
	return string(out), same
}

// isNameStart says whether a letter beyond ASCII may begin a name (XML 1.0, production 4).
func isNameStart(r rune) bool {
	return r >= 0xC0 && r <= 0x2FF && r != 0xD7 && r != 0xF7 || r >= 0x370 && r <= 0x1FFF && r != 0x37E ||
		r >= 0x2C00 && r <= 0x2FEF || r >= 0x3001 && r <= 0xD7FF || r >= 0xF900 && r <= 0xFDCF || r >= 0xFDF0 && r < 0xFFFD
}
