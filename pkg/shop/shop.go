// Package shop is the shops' settings, in memory, kept by following the bucket they lie in.
package shop

import (
	"context"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/event"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/profile"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// Defaults are the settings of a shop that has set none.
type Defaults struct {
	// Profile of its webhooks.
	Profile string `yaml:"profile"`
	// Environment of its events: "live" or "test".
	Environment string `yaml:"environment"`
	// CheckSchemas refuses events whose data does not fit the schema that their type has in the shop's profile.
	CheckSchemas bool `yaml:"check_schemas"`
}

// The environments.
const (
	Live = "live"
	Test = "test"
)

// Directory is the settings of all shops. It may be used at once.
type Directory struct {
	defaults Defaults
	profiles *profile.Set
	mirror   *bus.Mirror[*shopbellv1.Shop, struct{}]
}

// NewDirectory makes a directory that knows no shop yet. The defaults' profile must be there.
func NewDirectory(defaults Defaults, profiles *profile.Set, log *slog.Logger) (*Directory, error) {
	if _, err := profiles.Get(defaults.Profile); err != nil {
		return nil, err
	}
	return &Directory{defaults, profiles, bus.NewMirror(bus.Kind[*shopbellv1.Shop, struct{}]{
		Bucket: contract.Shops,
		Place:  func(key string) (shop, id string, ok bool) { return contract.ParseShopKey(key), "", true },
		Parse:  parse,
	}, log)}, nil
}

// Follow is a watch (see bus.Together) that keeps the directory until ctx ends; filled is called when it knows every
// shop.
func (d *Directory) Follow(b *bus.Bus) func(ctx context.Context, filled func()) error {
	return d.mirror.Follow(b)
}

func parse(entry bus.Entry) (*shopbellv1.Shop, error) {
	state := &busv1.ShopState{}
	err := proto.Unmarshal(entry.Value(), state)
	return state.GetShop(), err
}

// Await returns when the directory knows a shop's settings at this revision or a later one, or when ctx ends.
func (d *Directory) Await(ctx context.Context, id string, revision uint64) {
	d.mirror.Await(ctx, id, "", revision)
}

// Get gives a shop's settings, with the defaults for those that it has not set. It must not be changed.
func (d *Directory) Get(id string) *shopbellv1.Shop {
	set, _ := d.mirror.Get(id, "")
	return d.WithDefaults(id, set)
}

// WithDefaults gives settings, which may be nil, with the defaults for those that are not set.
func (d *Directory) WithDefaults(id string, set *shopbellv1.Shop) *shopbellv1.Shop {
	out := &shopbellv1.Shop{Id: id, Profile: &d.defaults.Profile, Environment: &d.defaults.Environment, CheckSchemas: &d.defaults.CheckSchemas}
	if set != nil {
		if set.Profile != nil {
			out.Profile = set.Profile
		}
		if set.Environment != nil {
			out.Environment = set.Environment
		}
		if set.CheckSchemas != nil {
			out.CheckSchemas = set.CheckSchemas
		}
		out.WebshopId, out.Name = set.WebshopId, set.Name
	}
	return out
}

// Profile gives the profile of a shop. One that is no longer there gives way to the defaults'.
func (d *Directory) Profile(s *shopbellv1.Shop) *profile.Profile {
	if p, err := d.profiles.Get(s.GetProfile()); err == nil {
		return p
	}
	p, _ := d.profiles.Get(d.defaults.Profile) // NewDirectory has seen it
	return p
}

// Check says what does not fit a shop in an event whose fields are checked: a type that its profile does not know, or, if
// the shop wants it, data that is not as the profile's schema has it. The data is read for that, and never changed.
func (d *Directory) Check(s *shopbellv1.Shop, e *contract.Event) error {
	rules := d.Profile(s)
	if err := rules.CheckType(e.Type); err != nil {
		return err
	}
	known := rules.Event(e.Type)
	if !s.GetCheckSchemas() || known == nil || known.Schema == nil {
		return nil
	}
	if !event.IsJSON(e) {
		return fault.Field("data", "its content type is %s; the shop's check_schemas is set, and what profile %s has of %s is JSON", e.ContentType, rules.Name, e.Type)
	}
	return known.Schema.Check(e.Data)
}
