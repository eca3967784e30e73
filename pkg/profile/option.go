package profile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"shopbell.dev/pkg/fault"
)

// Option is a variant of what a profile sends that a webhook can ask for by its name. What it does not name stays as the
// profile has it.
type Option struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	// Envelope in place of the profile's, and EnvelopeOther in place of its. An envelope of an event type stays.
	Envelope      *Envelope `yaml:"envelope"`
	EnvelopeOther *Envelope `yaml:"envelope_other"`
	// Headers beside the profile's, or in their place.
	Headers map[string]HeaderValue `yaml:"headers"`
	// Rename gives members of the body other names.
	Rename *Rename `yaml:"rename"`
}

// Rename gives members of a body other names. Their values stay byte for byte.
type Rename struct {
	// At is the way to the objects whose members are renamed, such as orders.order; empty is the body itself. Lists on
	// the way stand for each of their entries.
	At []string `yaml:"at"`
	// Names are the new names by the old.
	Names map[string]string `yaml:"names"`
}

// With gives the profile with the options that a webhook asks for, or an Invalid fault on the field "options".
func (p *Profile) With(options []string) (*Profile, error) {
	if len(options) == 0 {
		return p, nil
	}
	out := *p
	for i, name := range options {
		field := fmt.Sprintf("options[%d]", i)
		if slices.Contains(options[:i], name) {
			return nil, fault.Field(field, "%q stands twice", name)
		}
		at := slices.IndexFunc(p.Options, func(o Option) bool { return o.Name == name })
		if at < 0 {
			return nil, fault.Field(field, "profile %s has no option %q%s", p.Name, name, p.otherOptions(name))
		}
		o := &p.Options[at]
		if o.Envelope != nil {
			out.Envelope = *o.Envelope
		}
		if o.EnvelopeOther != nil {
			out.EnvelopeOther = *o.EnvelopeOther
		}
		if len(o.Headers) > 0 {
			out.Headers = maps.Clone(out.Headers)
			if out.Headers == nil {
				out.Headers = map[string]HeaderValue{}
			}
			maps.Copy(out.Headers, o.Headers)
		}
		if o.Rename != nil {
			out.Renames = append(slices.Clip(out.Renames), *o.Rename)
		}
	}
	return &out, nil
}

func (p *Profile) otherOptions(name string) string {
	if len(p.Options) == 0 {
		return ": it has none"
	}
	names := make([]string, len(p.Options))
	for i, o := range p.Options {
		names[i] = o.Name
	}
	return fault.DidYouMean(name, names) + "; it has " + strings.Join(names, ", ")
}

func (p *Profile) checkOptions(bad *fault.Collector) {
	for i, o := range p.Options {
		at := fmt.Sprintf("options[%d].", i)
		switch {
		case o.Name == "":
			bad.Add(at+"name", "it is missing")
		case slices.ContainsFunc(p.Options[:i], func(other Option) bool { return other.Name == o.Name }):
			bad.Add(at+"name", "%q stands twice", o.Name)
		}
		checkHeaders(at, o.Headers, bad)
		if o.Rename != nil && len(o.Rename.Names) == 0 {
			bad.Add(at+"rename.names", "it is missing: nothing would be renamed")
		}
	}
}
