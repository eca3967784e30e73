// Package config reads settings: defaults, then a YAML file, then the environment, each over the one before. A key that
// nobody knows is an error that names the nearest.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"shopbell.dev/pkg/fault"
)

// Section is a part of the settings: a pointer to a struct whose fields have yaml tags, and the key it stands under.
// An empty name is the top level.
type Section struct {
	Name string
	Into any
}

// validator is a section that can say what is wrong with itself.
type validator interface{ Validate() error }

// Load fills the sections, which hold their defaults, from the file at path (none when empty) and from the environment,
// where a setting's name is SHOPBELL_, its section and its key: SHOPBELL_SENDER_WORKERS. A variable of that name with
// _FILE behind it names a file that holds the value: for secrets. Errors name the file and line, or the variable.
func Load(path string, environment []string, sections ...Section) error {
	settings := fields(sections)
	if path != "" {
		if err := loadFile(path, settings, sections); err != nil {
			return err
		}
	}
	if err := loadEnvironment(environment, settings); err != nil {
		return err
	}
	for _, s := range sections {
		if v, ok := s.Into.(validator); ok {
			if err := v.Validate(); err != nil {
				return inSection(s.Name, err)
			}
		}
	}
	return nil
}

func inSection(name string, err error) error {
	if name == "" {
		return fmt.Errorf("settings: %w", err)
	}
	return fmt.Errorf("settings of %s: %w", name, err)
}

// setting is one value that can be set.
type setting struct {
	path  string // "sender.workers"
	value reflect.Value
}

func (s setting) variable() string {
	return "SHOPBELL_" + strings.ToUpper(strings.ReplaceAll(s.path, ".", "_"))
}

// fields are all settings of the sections, in their order.
func fields(sections []Section) []setting {
	var out []setting
	for _, s := range sections {
		out = walk(out, s.Name, reflect.ValueOf(s.Into).Elem())
	}
	return out
}

func walk(out []setting, prefix string, v reflect.Value) []setting {
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		path := name
		if prefix != "" {
			path = prefix + "." + name
		}
		field := v.Field(i)
		if field.Kind() == reflect.Struct && !reflect.PointerTo(field.Type()).Implements(reflect.TypeFor[yaml.Unmarshaler]()) {
			out = walk(out, path, field)
			continue
		}
		out = append(out, setting{path, field})
	}
	return out
}

func loadFile(path string, settings []setting, sections []Section) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the config file: %w", err)
	}
	defer func() { _ = f.Close() }()
	var doc yaml.Node
	if err := yaml.NewDecoder(f).Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	var names []string
	for _, s := range sections {
		names = append(names, s.Name)
	}
	return loadNode(path, "", doc.Content[0], settings, names)
}

func loadNode(file, prefix string, node *yaml.Node, settings []setting, sections []string) error {
	if node.Tag == "!!null" { // a file, or a section, without anything in it
		return nil
	}
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: %q must hold keys and values", file, node.Line, prefix)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if seen[key.Value] {
			return fmt.Errorf("%s:%d: key %q stands twice", file, key.Line, key.Value)
		}
		seen[key.Value] = true
		path := key.Value
		if prefix != "" {
			path = prefix + "." + key.Value
		}
		at := slices.IndexFunc(settings, func(s setting) bool { return s.path == path })
		switch {
		case at >= 0:
			if err := value.Decode(settings[at].value.Addr().Interface()); err != nil {
				return fmt.Errorf("%s:%d: %s: %s", file, value.Line, path, plain(err, settings[at].value))
			}
		case isPrefix(path, settings):
			if err := loadNode(file, path, value, settings, sections); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s:%d: key %q is not known%s", file, key.Line, path, fault.DidYouMean(path, known(settings)))
		}
	}
	return nil
}

func isPrefix(path string, settings []setting) bool {
	return slices.ContainsFunc(settings, func(s setting) bool { return strings.HasPrefix(s.path, path+".") })
}

func known(settings []setting) []string {
	var paths []string
	for _, s := range settings {
		paths = append(paths, s.path)
		for at, c := range s.path {
			if c == '.' && !slices.Contains(paths, s.path[:at]) {
				paths = append(paths, s.path[:at])
			}
		}
	}
	return paths
}

func loadEnvironment(environment []string, settings []setting) error {
	for _, entry := range environment {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "SHOPBELL_") {
			continue
		}
		of := func(name string) int {
			return slices.IndexFunc(settings, func(s setting) bool { return s.variable() == name })
		}
		at := of(name)
		if fileName, ok := strings.CutSuffix(name, "_FILE"); ok && at < 0 {
			if at = of(fileName); at >= 0 {
				content, err := os.ReadFile(text)
				if err != nil {
					return fmt.Errorf("environment %s: %w", name, err)
				}
				text = strings.TrimRight(string(content), "\r\n")
			}
		}
		if at < 0 {
			// Not an error: orchestrators put variables of their own beside ours (SHOPBELL_SENDER_PORT for a service
			// of that name).
			continue
		}
		if err := set(settings[at].value, text); err != nil {
			return fmt.Errorf("environment %s: %s", name, plain(err, settings[at].value))
		}
	}
	return nil
}

// set gives a setting the value that a text stands for.
func set(v reflect.Value, text string) error {
	node := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	if v.Kind() == reflect.String {
		node.Tag = "!!str"
	}
	if v.Kind() == reflect.Slice {
		node = &yaml.Node{Kind: yaml.SequenceNode}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: item})
			}
		}
	}
	return node.Decode(v.Addr().Interface())
}

// plain says what a value must look like, in place of what the YAML library says.
func plain(err error, v reflect.Value) string {
	switch v.Interface().(type) {
	case time.Duration:
		return `it must be a time with a unit, such as "250ms", "5s" or "24h"`
	case bool:
		return "it must be true or false"
	case int, int32, int64, float64:
		return "it must be a number"
	}
	return err.Error()
}

// Write prints the settings in force as YAML, secrets as dots.
func Write(w io.Writer, sections ...Section) error {
	for _, s := range fields(sections) {
		if _, err := fmt.Fprintf(w, "%s: %s\n", s.path, show(s.value)); err != nil {
			return err
		}
	}
	return nil
}

func show(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = show(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	switch x := v.Interface().(type) {
	case fmt.Stringer:
		return x.String()
	case string:
		return strconv.Quote(x)
	default:
		return fmt.Sprint(x)
	}
}

// Size is a number of bytes; it is written with a unit: 512KiB, 1MiB, 10GiB.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalYAML reads a size.
func (s *Size) UnmarshalYAML(node *yaml.Node) error {
	for _, u := range sizeUnits {
		if text, ok := strings.CutSuffix(node.Value, u.name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			if err != nil || n < 0 || n > (1<<62)/u.bytes {
				break
			}
			*s = Size(n * u.bytes)
			return nil
		}
	}
	return fmt.Errorf("%q is no size; write a number and B, KiB, MiB or GiB, such as 1MiB", node.Value)
}

// String writes a size with the largest unit that fits.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if int64(s)%u.bytes == 0 && int64(s) >= u.bytes {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// Secret is a value that is never printed.
type Secret string

// String is dots.
func (s Secret) String() string {
	if s == "" {
		return `""`
	}
	return "••••••"
}

// GoString is dots.
func (s Secret) GoString() string { return s.String() }

// MarshalText is dots.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
