// Package profile is the rules of a webhook as data: what is written around the payload, how it is signed, and how
// deliveries are attempted. No code asks for a profile by name.
package profile

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"shopbell.dev/pkg/fault"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

//go:embed presets/*.yaml
var presets embed.FS

// Profile is a named preset.
type Profile struct {
	Name        string   `yaml:"name"`
	Description string   `yaml:"description"`
	OpenCatalog bool     `yaml:"open_catalog"`
	Envelope    Envelope `yaml:"envelope"`
	Signatures  []Scheme `yaml:"signatures"`
	Policy      Policy   `yaml:"policy"`
	Events      []Event  `yaml:"events"`
}

// Event is an event type that a profile knows.
type Event struct {
	Name        string `yaml:"name"`
	Group       string `yaml:"group"`
	DisplayName string `yaml:"display_name"`
	Description string `yaml:"description"`
	Sample      string `yaml:"sample"` // JSON
}

// Scheme is a way to sign.
type Scheme string

// StandardWebhooks signs with HMAC-SHA256 over id, timestamp and body, in three headers.
const StandardWebhooks Scheme = "standard-webhooks"

var schemes = []string{string(StandardWebhooks)}

// UnmarshalText reads a scheme's name.
func (s *Scheme) UnmarshalText(text []byte) error {
	if !slices.Contains(schemes, string(text)) {
		return fmt.Errorf("signature scheme %q is not known%s", text, fault.DidYouMean(string(text), schemes))
	}
	*s = Scheme(text)
	return nil
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
		return nil, err
	}
	var bad fault.Collector
	if p.Name == "" {
		bad.Add("name", "it is missing")
	}
	for i, e := range p.Events {
		if e.Name == "" {
			bad.Add(fmt.Sprintf("events[%d].name", i), "it is missing")
		}
		if !json.Valid([]byte(e.Sample)) {
			bad.Add(fmt.Sprintf("events[%d].sample", i), "the sample of %q is not JSON", e.Name)
		}
	}
	bad.Include("policy.", p.Policy.validate())
	return p, bad.Err()
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
	if p.OpenCatalog || p.Event(eventType) != nil {
		return nil
	}
	var known []string
	for _, e := range p.Events {
		known = append(known, e.Name)
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

// Sample is realistic data of an event type, JSON. Of a type that the profile does not know it is a small object.
func (p *Profile) Sample(eventType string) []byte {
	if e := p.Event(eventType); e != nil {
		return []byte(e.Sample)
	}
	return []byte(`{"example":true}`)
}

// Proto is the profile as the API shows it.
func (p *Profile) Proto() *shopbellv1.Profile {
	out := &shopbellv1.Profile{
		Name: p.Name, Description: p.Description, OpenCatalog: p.OpenCatalog, Envelope: p.Envelope.String(),
		Policy: p.Policy.Proto(),
	}
	for _, s := range p.Signatures {
		out.Signatures = append(out.Signatures, string(s))
	}
	for _, e := range p.Events {
		out.Events = append(out.Events, &shopbellv1.ProfileEvent{
			Name: e.Name, Group: e.Group, DisplayName: e.DisplayName, Description: e.Description, Sample: []byte(e.Sample),
		})
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
