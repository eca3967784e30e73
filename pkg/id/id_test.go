package id_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/id"
)

var begin = time.Date(2026, 5, 1, 8, 30, 0, 0, time.UTC)

func TestNew_SortsByTime(t *testing.T) {
	var ids []string
	for i := range 1000 {
		ids = append(ids, id.New(id.Delivery, begin.Add(time.Duration(i*i)*time.Millisecond)))
	}
	if !slices.IsSorted(ids) {
		t.Error("ids are not in the order of their times")
	}
	if a, b := id.Derived(id.Delivery, begin, "z"), id.Derived(id.Delivery, begin.Add(time.Millisecond), "a"); a >= b {
		t.Errorf("derived id %s of an earlier time is not before %s", a, b)
	}
}

func TestNew_IsUnlikeAllOthers(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 { // all of one moment
		got := id.New(id.Event, begin)
		if seen[got] {
			t.Fatalf("%s is given twice", got)
		}
		seen[got] = true
	}
}

// Subjects and bucket keys are made of ids, and addresses.
func TestIDs_CanStandInSubjectsAndAddresses(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]+_[0-9A-Z]{26}$`)
	for _, prefix := range []string{id.Event, id.Webhook, id.Delivery, id.Fault} {
		for _, got := range []string{id.New(prefix, begin), id.Derived(prefix, begin, "*", "a.b >")} {
			if !form.MatchString(got) || !strings.HasPrefix(got, prefix) {
				t.Errorf("%q is not of the form %s", got, form)
			}
			if err := contract.CheckEventID(got); err != nil {
				t.Errorf("%q is refused as an event's id: %v", got, err)
			}
		}
	}
}

// A delivery's id is derived: whoever matches an event again after a crash makes no second delivery, also with another
// version of the program.
func TestDerived_StaysTheSame(t *testing.T) {
	if got, want := id.Derived(id.Delivery, begin, "demo", "evt_1", "wh_1"), "dlv_01KQHAHCT0P0BSNAHCCK7794VG"; got != want {
		t.Errorf("Derived = %s, want %s as ever", got, want)
	}
}

func TestDerived_TellsItsPartsApart(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{
		{"demo", "evt_1", "wh_1"},
		{"demo", "evt_1", "wh_2"},
		{"demo", "evt_2", "wh_1"},
		{"other", "evt_1", "wh_1"},
		{"demoevt_1", "wh_1"},
		{"demo", "evt_1wh_1"},
		{"demo", "", "evt_1", "wh_1"},
		{"wh_1", "evt_1", "demo"},
		{},
		{""},
	} {
		got := id.Derived(id.Delivery, begin, parts...)
		if other, taken := seen[got]; taken {
			t.Errorf("%q and %q have the same id %s", parts, other, got)
		}
		seen[got] = parts
	}
}
