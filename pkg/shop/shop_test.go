package shop_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/bus/bustest"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/shop"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

var quiet = slog.New(slog.DiscardHandler)

var defaults = shop.Defaults{Profile: "standard", Environment: shop.Live}

func profiles(t *testing.T) *profile.Set {
	t.Helper()
	set, err := profile.Load(fstest.MapFS{"own.yaml": {Data: []byte("name: own\nopen_catalog: true\npolicy: {timeout: 5s, success_codes: [2xx]}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func put(t *testing.T, bucket jetstream.KeyValue, s *shopbellv1.Shop) {
	t.Helper()
	value, err := proto.Marshal(&busv1.ShopState{Shop: s})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), contract.ShopKey(s.Id), value); err != nil {
		t.Fatal(err)
	}
}

// setup gives a directory that follows the bucket of a bus of its own, once it is filled.
func setup(t *testing.T, before func(jetstream.KeyValue)) (*shop.Directory, jetstream.KeyValue) {
	t.Helper()
	b := bustest.New(t)
	bucket, err := b.Bucket(t.Context(), contract.Shops)
	if err != nil {
		t.Fatal(err)
	}
	before(bucket)
	d, err := shop.NewDirectory(defaults, profiles(t), quiet)
	if err != nil {
		t.Fatal(err)
	}
	follow(t, d, b)
	return d, bucket
}

func follow(t *testing.T, d *shop.Directory, b *bus.Bus) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	filled, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- d.Follow(b)(ctx, func() { close(filled) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	<-filled
}

func TestDirectory_FollowsItsBucketAndFillsInDefaults(t *testing.T) {
	t.Parallel()
	full := &shopbellv1.Shop{Id: "tulip.shop", Profile: proto.String("own"), Environment: proto.String(shop.Test), WebshopId: proto.Uint32(42), Name: proto.String("Tulips"), CheckSchemas: proto.Bool(true)}
	d, bucket := setup(t, func(bucket jetstream.KeyValue) {
		put(t, bucket, full)
		put(t, bucket, &shopbellv1.Shop{Id: "demo", Name: proto.String("Demo")})
	})
	for _, row := range []struct {
		name string
		want *shopbellv1.Shop
	}{
		{"all is set", full},
		{"a part is set", &shopbellv1.Shop{Id: "demo", Name: proto.String("Demo"), Profile: proto.String("standard"), Environment: proto.String(shop.Live), CheckSchemas: proto.Bool(false)}},
		{"nobody has set anything", &shopbellv1.Shop{Id: "new", Profile: proto.String("standard"), Environment: proto.String(shop.Live), CheckSchemas: proto.Bool(false)}},
	} {
		if diff := cmp.Diff(row.want, d.Get(row.want.Id), protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
	put(t, bucket, &shopbellv1.Shop{Id: "demo", Environment: proto.String(shop.Test)})
	testwait.Until(t, "the change is known", func() bool { return d.Get("demo").GetEnvironment() == shop.Test })
	if name := d.Get("demo").GetName(); name != "" {
		t.Errorf("the name that was taken away is %q", name)
	}
	if err := bucket.Delete(t.Context(), contract.ShopKey("tulip.shop")); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the removal is known", func() bool { return d.Get("tulip.shop").GetProfile() == "standard" })
	if _, err := bucket.Put(t.Context(), "demo", []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	put(t, bucket, &shopbellv1.Shop{Id: "last", Name: proto.String("Last")})
	testwait.Until(t, "it goes on after what it cannot read", func() bool { return d.Get("last").GetName() == "Last" })
	if got := d.Get("demo").GetEnvironment(); got != shop.Test {
		t.Errorf("what cannot be read has changed the environment to %q", got)
	}
}

func TestDirectory_ChecksDataWhereTheShopWantsIt(t *testing.T) {
	t.Parallel()
	const checked = "name: checked\npolicy: {timeout: 5s, success_codes: [2xx]}\nevents:\n  - {name: paid, sample: '{\"status\":\"paid\"}', schema: {properties: {status: {enum: [paid, void]}}}}\n  - {name: other, sample: '1'}\n"
	set, err := profile.Load(fstest.MapFS{"checked.yaml": {Data: []byte(checked)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, byDefault := range []bool{false, true} {
		d, err := shop.NewDirectory(shop.Defaults{Profile: "checked", CheckSchemas: byDefault}, set, quiet)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			name                         string
			own                          *bool
			eventType, contentType, data string
			want                         string // where it is checked
		}{
			{"data that fits", nil, "paid", "application/json", `{"status":"void"}`, ""},
			{"data that does not", nil, "paid", "application/json", `{"status":"unpaid"}`, `data.status: "unpaid" is not allowed; there are "paid", "void"`},
			{"JSON of a kind of its own", nil, "paid", "application/vnd.shop+json", `{"status":1}`, `data.status: 1 is not allowed; there are "paid", "void"`},
			{"data that is no JSON", nil, "paid", "text/xml", `<a/>`, `data: its content type is text/xml; the shop's check_schemas is set, and what profile checked has of paid is JSON`},
			{"a type without a schema", nil, "other", "text/xml", `<a/>`, ""},
			{"the shop itself wants it", proto.Bool(true), "paid", "application/json", `{"status":2}`, `data.status: 2 is not allowed; there are "paid", "void"`},
			{"the shop itself does not", proto.Bool(false), "paid", "application/json", `{"status":2}`, ""},
		} {
			want := row.want
			if row.own == nil && !byDefault {
				want = ""
			}
			s := d.WithDefaults("demo", &shopbellv1.Shop{CheckSchemas: row.own})
			err := d.Check(s, &contract.Event{Type: row.eventType, ContentType: row.contentType, Data: []byte(row.data)})
			if err == nil && want != "" || err != nil && err.Error() != want {
				t.Errorf("by default %v, %s: %v, want %q", byDefault, row.name, err, want)
			}
		}
		if err := d.Check(d.Get("demo"), &contract.Event{Type: "piad"}); err == nil || !strings.HasPrefix(err.Error(), "type: ") {
			t.Errorf("by default %v, an unknown type: %v, want it refused", byDefault, err)
		}
	}
}

func TestDirectory_FallsBackToTheDefaultsProfile(t *testing.T) {
	t.Parallel()
	d, err := shop.NewDirectory(defaults, profiles(t), quiet)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"own": "own", "gone": "standard", "": "standard"} {
		if got := d.Profile(&shopbellv1.Shop{Profile: &name}).Name; got != want {
			t.Errorf("profile %q is %s, want %s", name, got, want)
		}
	}
	if _, err := shop.NewDirectory(shop.Defaults{Profile: "standrd"}, profiles(t), quiet); err == nil || !strings.Contains(err.Error(), `did you mean "standard"?`) {
		t.Errorf("defaults with a profile that is not there: %v, want the nearest name", err)
	}
}
