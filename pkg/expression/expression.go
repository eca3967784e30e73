// Package expression is the CEL that webhooks filter and transform events with. Expressions are compiled when a webhook
// is saved, cost-limited, and can reach nothing but the event.
package expression

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"

	"shopbell.dev/pkg/intern"
)

// The bounds of an expression.
const (
	maxLength = 8 << 10
	// maxCost bounds what one evaluation may do, in CEL's own units: a comparison is one, each step over a list is a
	// few. It is reached within milliseconds.
	maxCost = 200_000
)

var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("type", cel.StringType), cel.Variable("action", cel.StringType), cel.Variable("shop_id", cel.StringType),
		cel.Variable("environment", cel.StringType), cel.Variable("data", cel.DynType),
		cel.OptionalTypes(), ext.Strings(), ext.TwoVarComprehensions(),
	)
})

// Event is what an expression sees. Its data is decoded when the first expression asks for it, and then shared by all.
// It must not be used at once.
type Event struct {
	Type, Action, ShopID, Environment string
	Data                              []byte

	values  map[string]any
	decoded error
	answers map[*program]answer // of the filters that were asked
}

type answer struct {
	wants bool
	err   error
}

func (e *Event) activation() (map[string]any, error) {
	if e.values == nil && e.decoded == nil {
		var data any
		if e.decoded = json.Unmarshal(e.Data, &data); e.decoded != nil {
			e.decoded = fmt.Errorf("the event's data is not JSON")
			return nil, e.decoded
		}
		e.values = map[string]any{"type": e.Type, "action": e.Action, "shop_id": e.ShopID, "environment": e.Environment, "data": data}
	}
	return e.values, e.decoded
}

// Filter is an expression that says whether a webhook wants an event. It may be used at once.
type Filter struct{ program *program }

// ParseFilter compiles a filter. What is wrong with it is said with the place in the text.
func ParseFilter(text string) (*Filter, error) {
	p, err := compile(text)
	if err != nil {
		return nil, err
	}
	if !p.gives.IsExactType(cel.BoolType) && !p.gives.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("it gives a %s, but a filter must give true or false", p.gives)
	}
	return &Filter{p}, nil
}

// String is the filter's text.
func (f *Filter) String() string { return f.program.text }

// Wants evaluates the filter, unless one with the same text was asked of this event before. An error says why it could not
// be evaluated, as when the event has no such field.
func (f *Filter) Wants(e *Event) (bool, error) {
	a, asked := e.answers[f.program]
	if !asked {
		a.wants, a.err = f.evaluate(e)
		if e.answers == nil {
			e.answers = map[*program]answer{}
		}
		e.answers[f.program] = a
	}
	return a.wants, a.err
}

func (f *Filter) evaluate(e *Event) (bool, error) {
	value, err := evaluate(f.program, e)
	if err != nil {
		return false, err
	}
	wants, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("it gave a %s, not true or false", value.Type().TypeName())
	}
	return bool(wants), nil
}

// Transform is an expression that makes the whole body of a request. It may be used at once.
type Transform struct{ program *program }

// ParseTransform compiles a transform. What is wrong with it is said with the place in the text.
func ParseTransform(text string) (*Transform, error) {
	p, err := compile(text)
	if err != nil {
		return nil, err
	}
	return &Transform{p}, nil
}

// Body evaluates the transform and gives its value as JSON.
func (t *Transform) Body(e *Event) ([]byte, error) {
	value, err := evaluate(t.program, e)
	if err != nil {
		return nil, err
	}
	native, err := plain(value)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(native); err != nil {
		return nil, fmt.Errorf("what it gave cannot be written as JSON: %w", err)
	}
	return []byte(strings.TrimSuffix(out.String(), "\n")), nil
}

// program is a compiled text. It may be used at once.
type program struct {
	cel.Program
	text  string
	gives *cel.Type
}

// programs are those that somebody has, by their texts: very many webhooks tend to have few different ones.
var programs intern.Pool[string, program]

// compile gives the program of a text: the same to all who have it at a time.
func compile(text string) (*program, error) {
	return programs.Get(text, func() (*program, error) { return compileAnew(text) })
}

func compileAnew(text string) (*program, error) {
	if len(text) > maxLength {
		return nil, fmt.Errorf("it has %d bytes; at most %d are taken", len(text), maxLength)
	}
	env, err := environment()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(text)
	if issues != nil && len(issues.Errors()) > 0 {
		first := issues.Errors()[0]
		return nil, fmt.Errorf("line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, first.Message)
	}
	p, err := env.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, err
	}
	return &program{p, text, ast.OutputType()}, nil
}

func evaluate(p *program, e *Event) (ref.Val, error) {
	values, err := e.activation()
	if err != nil {
		return nil, err
	}
	out, _, err := p.Eval(values)
	if err != nil {
		return nil, fmt.Errorf("it failed: %w", err)
	}
	return out, nil
}

// plain gives a CEL value as encoding/json writes it.
func plain(v ref.Val) (any, error) {
	switch x := v.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(x), nil
	case types.Int:
		return int64(x), nil
	case types.Uint:
		return uint64(x), nil
	case types.Double:
		return float64(x), nil
	case types.String:
		return string(x), nil
	case traits.Mapper:
		out := map[string]any{}
		for it := x.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			name, ok := key.(types.String)
			if !ok {
				return nil, fmt.Errorf("a key is a %s, but JSON has only text for keys", key.Type().TypeName())
			}
			value, err := plain(x.Get(key))
			if err != nil {
				return nil, err
			}
			out[string(name)] = value
		}
		return out, nil
	case traits.Lister:
		out := []any{}
		for it := x.Iterator(); it.HasNext() == types.True; {
			value, err := plain(it.Next())
			if err != nil {
				return nil, err
			}
			out = append(out, value)
		}
		return out, nil
	}
	return nil, fmt.Errorf("it gave a %s, which JSON has no form for", v.Type().TypeName())
}
