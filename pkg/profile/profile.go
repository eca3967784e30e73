// Package profile is the rules of a webhook as data: what is written around the payload, how it is signed, and how
// deliveries are attempted. No code asks for a profile by name.
package profile

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/signature"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

//go:embed presets/*.yaml
var presets embed.FS

// Profile is a named preset.
type Profile struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	// OpenCatalog lets events be published and subscribed to that Events does not name.
	OpenCatalog bool `yaml:"open_catalog"`
	// Envelope is what is written around data that is JSON.
	Envelope Envelope `yaml:"envelope"`
	// EnvelopeOther is what is written around data that is not JSON: it stands there in base64, as a string. Without one
	// such data goes out as it is.
	EnvelopeOther Envelope `yaml:"envelope_other"`
	// ContentType of an enveloped body. Empty: application/json.
	ContentType string `yaml:"content_type"`
	// APIKeyHeader is where the shop's key stands, if a webhook names one. Empty: X-Api-Key.
	APIKeyHeader string `yaml:"api_key_header"`
	// Headers are sent with every request, by name.
	Headers    map[string]HeaderValue `yaml:"headers"`
	Signatures []Signature            `yaml:"signatures"`
	// Options are variants that a webhook can ask for.
	Options []Option `yaml:"options"`
	Policy  Policy   `yaml:"policy"`
	Events  []Event  `yaml:"events"`
	// Renames are those of the options that a webhook has asked for (see With).
	Renames []Rename `yaml:"-"`
}

// Event is an event type that a profile knows.
type Event struct {
	Name        string `yaml:"name"`
	Group       string `yaml:"group"`
	DisplayName string `yaml:"display_name"`
	Description string `yaml:"description"`
	// Action stands for the action of an event that names none.
	Action string `yaml:"action"`
	// Envelope of this type in place of the profile's.
	Envelope *Envelope `yaml:"envelope"`
	// EnvelopedBy names the member by which data is known that is in its envelope already: it goes out as it is.
	EnvelopedBy string `yaml:"enveloped_by"`
	// TestOnly types are sent by test sends alone: nobody publishes or subscribes to them.
	TestOnly bool `yaml:"test_only"`
	// Optional types are not the platform's own, but offered beside them.
	Optional bool `yaml:"optional"`
	// Sample is JSON, in which {environment} stands for the shop's.
	Sample string `yaml:"sample"`
	// Schema of the data, for shops that have it checked; nil is any data.
	Schema *Schema `yaml:"schema"`
}

// Set is the profiles of a deployment, by name. It does not change and may be used at once.
type Set struct{ byName map[string]*Profile }

// Load reads the presets, and the *.yaml files of more, which may replace presets by their name; nil is none. A file
// that says something unknown, or nothing useful, is an error that names the file and the line.
func Load(more fs.FS) (*Set, error) {
	set := &Set{byName: map[string]*Profile{}}
	sub, err := fs.Sub(presets, "presets")
	if err != nil {
		return nil, err
	}
	for _, from := range []fs.FS{sub, more} {
		if from == nil {
			continue
		}
		files, err := fs.Glob(from, "*.yaml")
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := fs.ReadFile(from, file)
			if err != nil {
				return nil, fmt.Errorf("read profile: %w", err)
			}
			p, err := parse(text)
			if err != nil {
				return nil, fmt.Errorf("profile %s: %w", file, err)
			}
			set.byName[p.Name] = p
		}
	}
	return set, nil
}

func parse(text []byte) (*Profile, error) {
	p := &Profile{}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(p); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty")
		}
		return nil, plain(err)
	}
	var bad fault.Collector
	if p.Name == "" {
		bad.Add("name", "it is missing")
	}
	if len(p.Events) == 0 && !p.OpenCatalog {
		bad.Add("events", "there are none, and open_catalog is not set: no event could ever be published")
	}
	for i, e := range p.Events {
		if err := contract.CheckEventType(e.Name); err != nil {
			bad.Add(fmt.Sprintf("events[%d].name", i), "%s", strings.TrimPrefix(err.Error(), "type: "))
		}
		if p.Event(e.Name) != &p.Events[i] {
			bad.Add(fmt.Sprintf("events[%d].name", i), "%q stands twice", e.Name)
		}
		if !json.Valid([]byte(e.Sample)) {
			bad.Add(fmt.Sprintf("events[%d].sample", i), "the sample of %q is not JSON", e.Name)
		} else if e.Schema != nil {
			bad.Include(fmt.Sprintf("events[%d].sample.", i), e.Schema.Check(e.sample("live")))
		}
	}
	for i, sig := range p.Signatures {
		switch {
		case sig.Scheme == "":
			bad.Add(fmt.Sprintf("signatures[%d].scheme", i), "it is missing; there are %s", strings.Join(schemes, ", "))
		case sig.Scheme.HasHeader() && sig.Header == "":
			bad.Add(fmt.Sprintf("signatures[%d].header", i), "it is missing; %s does not say which header holds the signature", sig.Scheme)
		}
	}
	checkHeaders("", p.Headers, &bad)
	p.APIKeyHeader = cmp.Or(p.APIKeyHeader, "X-Api-Key")
	if !httpguts.ValidHeaderFieldName(p.APIKeyHeader) {
		bad.Add("api_key_header", "%q is no header name; use letters, digits and '-'", p.APIKeyHeader)
	}
	p.checkOptions(&bad)
	bad.Include("policy.", p.Policy.validate())
	return p, bad.Err()
}

var unknownKey = regexp.MustCompile(`^line (\d+): field (.*) not found in type profile\.(\w+)$`)

// plain says what is wrong with a file in our words: the line, and for a key that nobody knows the nearest.
func plain(err error) error {
	var wrong *yaml.TypeError
	if !errors.As(err, &wrong) {
		return err
	}
	words := make([]string, len(wrong.Errors))
	for i, text := range wrong.Errors {
		words[i] = text
		if m := unknownKey.FindStringSubmatch(text); m != nil {
			words[i] = fmt.Sprintf("line %s: key %q is not known%s", m[1], m[2], fault.DidYouMean(m[2], keys(m[3])))
		}
	}
	return errors.New(strings.Join(words, "; "))
}

// keys are the keys that a file may have where a type of ours stands.
func keys(typeName string) (names []string) {
	for _, t := range []reflect.Type{reflect.TypeFor[Profile](), reflect.TypeFor[Policy](), reflect.TypeFor[Event](), reflect.TypeFor[Signature](), reflect.TypeFor[Option](), reflect.TypeFor[Rename](), reflect.TypeFor[Breaker]()} {
		for i := 0; t.Name() == typeName && i < t.NumField(); i++ {
			if key := t.Field(i).Tag.Get("yaml"); key != "-" {
				names = append(names, key)
			}
		}
	}
	return names
}

// Get gives a profile by its name; for an unknown name an Invalid fault on the field "profile".
func (s *Set) Get(name string) (*Profile, error) {
	if p := s.byName[name]; p != nil {
		return p, nil
	}
	names := s.Names()
	return nil, fault.Field("profile", "there is no profile %q%s; there are %s", name, fault.DidYouMean(name, names), strings.Join(names, ", "))
}

// Names are the profiles' names, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.byName)) }

// CheckType says what is wrong with an event type in a shop of this profile.
func (p *Profile) CheckType(eventType string) error {
	e := p.Event(eventType)
	if e != nil && e.TestOnly {
		return fault.Field("type", "%q is for test sends alone (POST …/webhooks/{webhook_id}:test)", eventType)
	}
	if p.OpenCatalog || e != nil {
		return nil
	}
	var known []string
	for _, e := range p.Events {
		if !e.TestOnly {
			known = append(known, e.Name)
		}
	}
	return fault.Field("type", "profile %s does not know %q%s", p.Name, eventType, fault.DidYouMean(eventType, known))
}

// Event gives the event type of this name, or nil.
func (p *Profile) Event(name string) *Event {
	for i := range p.Events {
		if p.Events[i].Name == name {
			return &p.Events[i]
		}
	}
	return nil
}

// Around gives what a body has before and after the data of an event, and whether it is in an envelope at all. Data
// must be JSON; value gives what stands for a place of the envelope, as JSON.
func (p *Profile) Around(eventType string, data []byte, value func(place string) string) (before, after []byte, enveloped bool) {
	envelope := &p.Envelope
	if e := p.Event(eventType); e != nil {
		if e.Envelope != nil {
			envelope = e.Envelope
		}
		if e.EnvelopedBy != "" && hasOnly(data, e.EnvelopedBy) {
			return nil, nil, true
		}
	}
	if envelope.text == "" {
		return nil, nil, false
	}
	before, after = envelope.around(value)
	return before, after, true
}

// Whole gives the body of an event whose data is not JSON, in its envelope, if the profile has one for it.
func (p *Profile) Whole(data []byte, value func(place string) string) (body []byte, enveloped bool) {
	if p.EnvelopeOther.text == "" {
		return nil, false
	}
	before, after := p.EnvelopeOther.around(value)
	return slices.Concat(before, []byte{'"'}, base64.StdEncoding.AppendEncode(nil, data), []byte{'"'}, after), true
}

// hasOnly says whether data is a JSON object whose one member has this name.
func hasOnly(data []byte, name string) bool {
	var object map[string]json.RawMessage
	return json.Unmarshal(data, &object) == nil && len(object) == 1 && object[name] != nil
}

// Action is the action of an event: its own, or its type's.
func (p *Profile) Action(eventType, own string) string {
	if e := p.Event(eventType); own == "" && e != nil {
		return e.Action
	}
	return own
}

// Sample is realistic data of an event type in a shop of this environment, JSON. Of a type that the profile does not know
// it is a small object.
func (p *Profile) Sample(eventType, environment string) []byte {
	if e := p.Event(eventType); e != nil {
		return e.sample(environment)
	}
	return []byte(`{"example":true}`)
}

func (e *Event) sample(environment string) []byte {
	return []byte(strings.ReplaceAll(e.Sample, "{environment}", environment))
}

// Proto is the profile as the API shows it.
func (p *Profile) Proto() *shopbellv1.Profile {
	out := &shopbellv1.Profile{
		Name: p.Name, Description: p.Description, OpenCatalog: p.OpenCatalog, Envelope: p.Envelope.String(),
		EnvelopeOther: p.EnvelopeOther.String(), Policy: p.Policy.Proto(), ApiKeyHeader: p.APIKeyHeader, SignatureHeaders: map[string]string{},
	}
	for _, s := range p.Signatures {
		out.Signatures = append(out.Signatures, string(s.Scheme))
		out.SignatureHeaders[string(s.Scheme)] = cmp.Or(s.Header, signature.HeaderSignature)
	}
	for _, o := range p.Options {
		out.Options = append(out.Options, &shopbellv1.ProfileOption{Name: o.Name, Description: o.Description})
	}
	for _, e := range p.Events {
		shown := &shopbellv1.ProfileEvent{
			Name: e.Name, Group: e.Group, DisplayName: e.DisplayName, Description: e.Description, Sample: e.sample("live"),
			Action: e.Action, TestOnly: e.TestOnly, Optional: e.Optional,
		}
		if e.Schema != nil {
			shown.Schema = e.Schema.JSON()
		}
		out.Events = append(out.Events, shown)
	}
	return out
}

func durations(in []time.Duration) []*durationpb.Duration {
	out := make([]*durationpb.Duration, len(in))
	for i, d := range in {
		out[i] = durationpb.New(d)
	}
	return out
}
