package subscription

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/testwait"
	subscriptionv1 "shopbell.dev/proto/shopbell/subscription/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

func TestShops_HaveDefaultsUntilTheyAreSet(t *testing.T) {
	t.Parallel()
	b := setup(t)
	get := func(id string) *shopbellv1.Shop {
		t.Helper()
		s, err := b.GetShop(t.Context(), &subscriptionv1.GetShopRequest{ShopId: id})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	update := func(change *shopbellv1.Shop, mask ...string) (*shopbellv1.Shop, error) {
		req := &subscriptionv1.UpdateShopRequest{ShopId: "tulip.shop", Shop: change}
		if mask != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: mask}
		}
		return b.UpdateShop(t.Context(), req)
	}
	if s := get("tulip.shop"); s.Id != "tulip.shop" || s.GetProfile() != "standard" || s.GetEnvironment() != "live" || s.WebshopId != nil || s.Name != nil {
		t.Errorf("an unknown shop: %v", s)
	}
	s, err := update(&shopbellv1.Shop{Profile: proto.String("closed"), Name: proto.String("Tulips"), WebshopId: proto.Uint32(42)})
	if err != nil || s.GetProfile() != "closed" || s.GetEnvironment() != "live" {
		t.Errorf("changed: %v, %v", s, err)
	}
	s, err = update(&shopbellv1.Shop{}, "name")
	if err != nil || s.Name != nil || s.GetProfile() != "closed" || s.GetWebshopId() != 42 {
		t.Errorf("the name taken away: %v, %v", s, err)
	}
	s, err = update(&shopbellv1.Shop{}, "profile")
	if err != nil || s.GetProfile() != "standard" {
		t.Errorf("the profile taken away: %v, %v, want the deployment's", s, err)
	}
	if again := get("tulip.shop"); cmp.Diff(s.String(), again.String()) != "" {
		t.Errorf("read %v, want %v", again, s)
	}
	for _, row := range []struct {
		change *shopbellv1.Shop
		mask   []string
		field  string
	}{
		{&shopbellv1.Shop{Profile: proto.String("shoporma")}, nil, "profile"},
		{&shopbellv1.Shop{Environment: proto.String("prod")}, nil, "environment"},
		{&shopbellv1.Shop{Environment: proto.String("")}, []string{"environment"}, "environment"},
		{&shopbellv1.Shop{Name: proto.String(strings.Repeat("x", 201))}, nil, "name"},
		{&shopbellv1.Shop{}, []string{"nmae"}, "update_mask"},
	} {
		if _, err := update(row.change, row.mask...); !slices.Equal(fieldsOf(t, err), []string{row.field}) {
			t.Errorf("%v %q: %v, want an error on %s", row.change, row.mask, err, row.field)
		}
	}
	// A webhook that names no profile has the shop's.
	if _, err := update(&shopbellv1.Shop{Profile: proto.String("closed")}); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the change is known", func() bool { return b.shops.Get("tulip.shop").GetProfile() == "closed" })
	w, err := b.CreateWebhook(t.Context(), &subscriptionv1.CreateWebhookRequest{ShopId: "tulip.shop", Webhook: &shopbellv1.Webhook{Url: "https://example.com", Events: []string{"paid"}}})
	if err != nil || w.Profile != "closed" {
		t.Errorf("webhook of the shop: %v, %v", w, err)
	}
}

func TestProfiles_AreListedByName(t *testing.T) {
	t.Parallel()
	b := setup(t)
	list, err := b.ListProfiles(t.Context(), &subscriptionv1.ListProfilesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range list.Profiles {
		names = append(names, p.Name)
		one, err := b.GetProfile(t.Context(), &subscriptionv1.GetProfileRequest{Name: p.Name})
		if err != nil || one.String() != p.String() {
			t.Errorf("%s alone is %v, %v", p.Name, one, err)
		}
	}
	events, err := b.GetProfile(t.Context(), &subscriptionv1.GetProfileRequest{Name: "cloudevents"})
	if err != nil || !strings.Contains(events.EnvelopeOther, `"data_base64":{data}`) {
		t.Errorf("cloudevents: %v, %v, want what is written around data that is not JSON", events, err)
	}
	signed, err := b.GetProfile(t.Context(), &subscriptionv1.GetProfileRequest{Name: "shoporama"})
	if err != nil || signed.SignatureHeaders["hmac-sha256-hex"] != "X-Webhook-Signature" {
		t.Errorf("shoporama: headers of signatures %v, %v, want X-Webhook-Signature", signed.GetSignatureHeaders(), err)
	}
	if !slices.IsSorted(names) || !slices.Contains(names, "standard") || !slices.Contains(names, "closed") {
		t.Errorf("profiles %q", names)
	}
	if _, err := b.GetProfile(t.Context(), &subscriptionv1.GetProfileRequest{Name: "standart"}); !fault.IsKind(err, fault.NotFound) || !strings.Contains(err.Error(), `"standard"`) {
		t.Errorf("a profile that is not there: %v, want the nearest", err)
	}
}
