package profile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"shopbell.dev/pkg/fault"
)

func schema(t *testing.T, text string) *Schema {
	t.Helper()
	set, err := Load(fstest.MapFS{"own.yaml": {Data: []byte("name: own\npolicy: {timeout: 5s, success_codes: [2xx]}\nevents: [{name: good, sample: '" + goodOrder + "', schema: " + text + "}]\n")}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := set.Get("own")
	if err != nil {
		t.Fatal(err)
	}
	return p.Events[0].Schema
}

const goodOrder = `{"id":1,"status":"paid","email":"a@example.com","lines":[{"price":"1.00"}]}`

const orderSchema = `{type: object, required: [id, status], additionalProperties: false, properties: {id: {type: [integer, string]}, status: {enum: [paid, void, 3, null]}, n: {minimum: 0, multipleOf: 0.5}, set: {uniqueItems: true},
  email: {format: email}, env: {const: live}, lines: {type: array, minItems: 1, items: {properties: {price: {type: string, pattern: "^[0-9.]+$"}}, required: [price]}},
  way: {anyOf: [{type: string}, {type: object, required: [name]}]}}}`

func TestSchema_NamesTheFieldAndWhatIsAllowed(t *testing.T) {
	s := schema(t, orderSchema)
	for _, row := range []struct{ name, data, want string }{
		{"as it must be", goodOrder, ""},
		{"an enum", `{"id":1,"status":"shipped"}`, `data.status: "shipped" is not allowed; there are "paid", "void", 3, null`},
		{"an enum of other kinds", `{"id":1,"status":null}`, ""},
		{"a large number for an enum", `{"id":1,"status":123456789012345678901234567890}`, `data.status: 123456789012345678901234567890 is not allowed; there are "paid", "void", 3, null`},
		{"missing", `{}`, `data.id: it is missing; data.status: it is missing`},
		{"unknown", `{"id":1,"status":"paid","stauts":1}`, `data.stauts: the field is not known`},
		{"another type", `{"id":true,"status":"paid"}`, `data.id: it is of type boolean, and has to be of type integer or string`},
		{"no object", `[1]`, `data: it is of type array, and has to be of type object`},
		{"a place in a list", `{"id":1,"status":"paid","lines":[{"price":"1"},{"price":2},{}]}`, `data.lines[1].price: it is of type number, and has to be of type string; data.lines[2].price: it is missing`},
		{"an empty list", `{"id":1,"status":"paid","lines":[]}`, `data.lines: minItems: got 0, want 1`},
		{"a format", `{"id":1,"status":"paid","email":"nobody"}`, `data.email: 'nobody' is not valid email: missing @`},
		{"a constant", `{"id":1,"status":"paid","env":"test"}`, `data.env: "test" is not allowed; it has to be "live"`},
		{"alternatives", `{"id":1,"status":"paid","way":{}}`, `data.way: it fits none of the schema's alternatives: it is of type object, and has to be of type string; or missing property 'name'`},
		{"a long value", `{"id":1,"status":"` + strings.Repeat("é", 100) + `"}`, `data.status: "` + strings.Repeat("é", 29) + `… is not allowed; there are "paid", "void", 3, null`},
		{"numbers that nobody can compare", `{"id":1e401,"status":3,"lines":[{"price":"1"},-1E-999999999999]}`, `data.id: the number 1e401 is too far out to be checked; data.lines[1]: the number -1E-999999999999 is too far out to be checked`},
		{"no JSON", `{"id":`, `data: it is not JSON: unexpected EOF`},
	} {
		err := s.Check([]byte(row.data))
		if err == nil && row.want != "" || err != nil && err.Error() != row.want {
			t.Errorf("%s: %v\nwant %s", row.name, err, row.want)
		}
	}
}

func TestSchema_TellsOfTenFindings(t *testing.T) {
	s := schema(t, `{properties: {n: {items: {type: string}}}}`)
	err := s.Check([]byte(`{"n":[` + strings.TrimSuffix(strings.Repeat("1,", 1000), ",") + `]}`))
	var f *fault.Fault
	if !errors.As(err, &f) || len(f.Fields) != 11 || !strings.Contains(f.Fields[10].Description, "not all") {
		t.Errorf("%v, want ten findings, and that there are more", err)
	}
}

func TestSchema_IsShownAsJSON(t *testing.T) {
	if diff := cmp.Diff(`{"items":{"type":"string"},"title":"x"}`, string(schema(t, `{title: x, items: &s {type: string}}`).JSON())); diff != "" {
		t.Error(diff)
	}
}

// Data that nests as deep as a request may is checked, or refused, and nothing worse.
func TestSchema_BearsDepth(t *testing.T) {
	s := schema(t, `{$defs: {n: {anyOf: [{type: object}, {items: {$ref: "#/$defs/n"}}]}}, $ref: "#/$defs/n"}`)
	for _, depth := range []int{100, 2_000, 1_000_000} {
		err := s.Check([]byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)))
		if depth > 10_000 && err == nil {
			t.Errorf("a depth of %d is taken", depth)
		}
	}
}

func FuzzSchema_CheckSaysYesOrNo(f *testing.F) {
	for _, data := range []string{goodOrder, `{"lines":[{}]}`, `{"way":1}`, `[`, `{"a":1}{`, `1e999999999`, `{"id":1e400}`, `{"id":1e9999999}`, `{"id":-1e-99999999}`, `{"status":1e9999999}`, `{"status":{"a":1e9999999}}`, `{"n":1e9999999}`, `{"set":[1e9999999,2]}`} {
		f.Add([]byte(data))
	}
	set, err := Load(fstest.MapFS{"own.yaml": {Data: []byte("name: own\npolicy: {timeout: 5s, success_codes: [2xx]}\nevents: [{name: good, sample: '" + goodOrder + "', schema: " + orderSchema + "}]\n")}})
	if err != nil {
		f.Fatal(err)
	}
	p, err := set.Get("own")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := p.Events[0].Schema.Check(data); err != nil && !fault.IsKind(err, fault.Invalid) {
			t.Error(fmt.Errorf("%q: %w", data, err))
		}
	})
}
