package profile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"shopbell.dev/pkg/fault"
)

// Schema is a JSON Schema (2020-12 unless it says otherwise) that data has to fit. It stands in a file as YAML.
type Schema struct {
	text     []byte
	compiled *jsonschema.Schema
}

// UnmarshalYAML reads and compiles a schema.
func (s *Schema) UnmarshalYAML(node *yaml.Node) error {
	if err := s.read(node); err != nil {
		return fmt.Errorf("line %d: %w", node.Line, err)
	}
	return nil
}

func (s *Schema) read(node *yaml.Node) error {
	var value any
	err := node.Decode(&value)
	if err != nil {
		return err
	}
	if s.text, err = json.Marshal(value); err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(s.text))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.UseLoader(noLoader{})
	const here = "schema:"
	if err := c.AddResource(here, doc); err != nil {
		return err
	}
	s.compiled, err = c.Compile(here)
	var noSchema *jsonschema.SchemaValidationError
	var wrong *jsonschema.ValidationError
	if errors.As(err, &noSchema) && errors.As(noSchema.Err, &wrong) {
		bad := &findings{value: doc}
		bad.take(wrong, "schema")
		return bad.Err()
	}
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	return nil
}

// noLoader keeps schemas to what stands in their file.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s is not read: a schema refers to what stands in itself alone", url)
}

// JSON is the schema as JSON.
func (s *Schema) JSON() []byte { return s.text }

// Check says what in data, which must be JSON, does not fit: an Invalid fault with fields such as data.status.
func (s *Schema) Check(data []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fault.Field("data", "it is not JSON: %v", err)
	}
	bad := &findings{value: value}
	if bad.numbers("data", value, nil); bad.count > 0 {
		return bad.Err()
	}
	var wrong *jsonschema.ValidationError
	if errors.As(s.compiled.Validate(value), &wrong) {
		bad.take(wrong, "data")
	}
	return bad.Err()
}

// maxExponent bounds numbers that are compared: exactly, digit by digit, for which 1e999999 would take a million.
const maxExponent = 400

// numbers notes the numbers that are too far out to be compared; way leads to the value.
func (f *findings) numbers(name string, value any, way []string) {
	switch v := value.(type) {
	case json.Number:
		_, exponent, _ := strings.Cut(strings.ToLower(string(v)), "e")
		if n, err := strconv.Atoi(cmp.Or(exponent, "0")); err != nil || n > maxExponent || n < -maxExponent {
			f.add(f.field(name, way), fmt.Sprintf("the number %s is too far out to be checked", printed(v)))
		}
	case []any:
		for i, item := range v {
			f.numbers(name, item, append(way, strconv.Itoa(i)))
		}
	case map[string]any:
		for _, member := range slices.Sorted(maps.Keys(v)) {
			f.numbers(name, v[member], append(way, member))
		}
	}
}

// findings are what in a value does not fit a schema, by field.
type findings struct {
	fault.Collector
	value any
	count int
}

// maxFindings is how many are told of one value; more help nobody.
const maxFindings = 10

// take notes what a validation has found, below the name that the value has.
func (f *findings) take(e *jsonschema.ValidationError, name string) {
	if len(e.Causes) > 0 && !isChoice(e.ErrorKind) {
		for _, cause := range e.Causes {
			f.take(cause, name)
		}
		return
	}
	at := f.field(name, e.InstanceLocation)
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, missing := range k.Missing {
			f.add(at+"."+missing, "it is missing")
		}
	case *kind.AdditionalProperties:
		for _, unknown := range k.Properties {
			f.add(at+"."+unknown, "the field is not known")
		}
	default:
		f.add(at, describe(e))
	}
}

func (f *findings) add(field, text string) {
	switch f.count++; {
	case f.count <= maxFindings:
		f.Add(field, "%s", text)
	case f.count == maxFindings+1:
		f.Add(field, "and this is not all that does not fit the schema")
	}
}

// field writes the way to a place in the value: data.products[2].price.
func (f *findings) field(name string, way []string) string {
	at, value := name, f.value
	for _, step := range way {
		switch v := value.(type) {
		case []any:
			at += "[" + step + "]"
			if i, err := strconv.Atoi(step); err == nil && i < len(v) {
				value = v[i]
			}
		case map[string]any:
			at += "." + step
			value = v[step]
		}
	}
	return at
}

// isChoice says whether an error has as its causes why each of several alternatives does not fit.
func isChoice(k jsonschema.ErrorKind) bool {
	switch k.(type) {
	case *kind.AnyOf, *kind.OneOf:
		return true
	}
	return false
}

var english = message.NewPrinter(language.English)

// describe says what does not fit, in a sentence.
func describe(e *jsonschema.ValidationError) string {
	switch k := e.ErrorKind.(type) {
	case *kind.Enum:
		return fmt.Sprintf("%s is not allowed; there are %s", printed(k.Got), list(k.Want))
	case *kind.Const:
		return fmt.Sprintf("%s is not allowed; it has to be %s", printed(k.Got), printed(k.Want))
	case *kind.Type:
		return fmt.Sprintf("it is of type %s, and has to be of type %s", k.Got, strings.Join(k.Want, " or "))
	case *kind.AnyOf, *kind.OneOf:
		texts := make([]string, len(e.Causes))
		for i, cause := range e.Causes {
			texts[i] = describe(cause)
		}
		return "it fits none of the schema's alternatives: " + strings.Join(texts, "; or ")
	}
	if len(e.Causes) > 0 {
		return describe(e.Causes[0])
	}
	return e.ErrorKind.LocalizedString(english)
}

func list(values []any) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = printed(v)
	}
	return strings.Join(texts, ", ")
}

// printed is a value as JSON, cut where it is long.
func printed(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	const most = 60
	if len(text) > most {
		return strings.ToValidUTF8(string(text[:most]), "") + "…"
	}
	return string(text)
}
