package subscription

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/shop"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

// GetShop reads a shop's settings.
func (s *Subscription) GetShop(ctx context.Context, req *subscriptionv1.GetShopRequest) (*shopbellv1.Shop, error) {
	set, _, err := s.loadShop(ctx, req.GetShopId())
	if err != nil {
		return nil, err
	}
	return s.shops.WithDefaults(req.GetShopId(), set), nil
}

func (s *Subscription) loadShop(ctx context.Context, shopID string) (*shopbellv1.Shop, uint64, error) {
	entry, err := s.settings.Get(ctx, contract.ShopKey(shopID))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return &shopbellv1.Shop{Id: shopID}, 0, nil
	}
	if err != nil {
		return nil, 0, busError("read the shop", err)
	}
	state := &busv1.ShopState{}
	if err := proto.Unmarshal(entry.Value(), state); err != nil {
		return nil, 0, fmt.Errorf("parse shop %s: %w", shopID, err)
	}
	return state.Shop, entry.Revision(), nil
}

// UpdateShop changes a shop's settings.
func (s *Subscription) UpdateShop(ctx context.Context, req *subscriptionv1.UpdateShopRequest) (*shopbellv1.Shop, error) {
	for range 10 {
		set, revision, err := s.loadShop(ctx, req.GetShopId())
		if err != nil {
			return nil, err
		}
		if err := s.editShop(set, req); err != nil {
			return nil, err
		}
		value, err := proto.Marshal(&busv1.ShopState{Shop: set})
		if err != nil {
			return nil, fmt.Errorf("write shop %s: %w", set.Id, err)
		}
		revision, err = s.settings.Update(ctx, contract.ShopKey(set.Id), value, revision)
		if err == nil {
			// What comes after the answer is done by the new settings, as far as this process goes.
			bound, cancel := context.WithTimeout(ctx, awaitOwn)
			s.shops.Await(bound, set.Id, revision)
			cancel()
			return s.shops.WithDefaults(set.Id, set), nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return nil, busError("store the shop", err)
		}
	}
	return nil, fault.New(fault.Conflict, "the shop is being changed by others all the time; try again")
}

func (s *Subscription) editShop(set *shopbellv1.Shop, req *subscriptionv1.UpdateShopRequest) error {
	change := req.GetShop()
	paths := req.GetUpdateMask().GetPaths()
	if req.GetUpdateMask() == nil {
		paths = populated(change)
	}
	for _, path := range paths {
		if path == "id" {
			continue
		}
		if err := copyField(set, change, path, ""); err != nil {
			return err
		}
	}
	var bad fault.Collector
	if set.Profile != nil {
		_, err := s.env.Profiles.Get(set.GetProfile())
		bad.Include("", err)
	}
	if e := set.GetEnvironment(); set.Environment != nil && e != shop.Live && e != shop.Test {
		bad.Add("environment", "%q is neither live nor test", e)
	}
	if len(set.GetName()) > maxLabel {
		bad.Add("name", "it has %d bytes; at most %d are taken", len(set.GetName()), maxLabel)
	}
	return bad.Err()
}

// ListProfiles lists the presets.
func (s *Subscription) ListProfiles(context.Context, *subscriptionv1.ListProfilesRequest) (*subscriptionv1.ListProfilesResponse, error) {
	out := &subscriptionv1.ListProfilesResponse{}
	for _, name := range s.env.Profiles.Names() {
		p, err := s.env.Profiles.Get(name)
		if err != nil {
			return nil, err
		}
		out.Profiles = append(out.Profiles, p.Proto())
	}
	return out, nil
}

// GetProfile reads a preset.
func (s *Subscription) GetProfile(_ context.Context, req *subscriptionv1.GetProfileRequest) (*shopbellv1.Profile, error) {
	p, err := s.env.Profiles.Get(req.GetName())
	if err != nil {
		return nil, fault.New(fault.NotFound, "%s", err)
	}
	return p.Proto(), nil
}
