package store

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/id"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// facts are states of one delivery with one fact each, of all kinds and in every relation to each other.
func facts() map[string]State {
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	attempt := func(number int32, startedAt, over int, status string) State {
		return State{EventID: "evt", CreatedAt: at(3), Attempt: AttemptState{
			Number: number, StartedAt: at(startedAt), At: at(over), Status: status,
		}}
	}
	change := func(s int, status string) State {
		return State{EventID: "evt", CreatedAt: at(2), Change: Change{At: at(s), Status: status}}
	}
	return map[string]State{
		"decision":                          {EventID: "evt", EventType: "paid", CreatedAt: at(1), Due: at(60)},
		"first":                             attempt(1, 10, 11, "retrying"),
		"second, by a clock that is behind": attempt(2, 5, 6, "delivered"),
		"second, made twice":                attempt(2, 7, 8, "failed"),
		"a change before":                   change(4, "held"),
		"a change between":                  change(7, "pending"),
		"a change in an attempt's instant":  change(8, "cancelled"),
	}
}

func TestState_MergeKnowsNoOrderAndNoRepeats(t *testing.T) {
	t.Parallel()
	all := facts()
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	var want State
	for _, name := range names {
		want = want.Merge(all[name])
	}
	if got := want.Status(); got != "cancelled" {
		t.Errorf("status: got %q, want cancelled", got)
	}
	// All orders: each name is inserted at each place of each order of the names before it.
	orders := [][]string{{}}
	for _, name := range names {
		var more [][]string
		for _, order := range orders {
			for i := range len(order) + 1 {
				longer := append(append(append([]string{}, order[:i]...), name), order[i:]...)
				more = append(more, longer)
			}
		}
		orders = more
	}
	for _, order := range orders {
		got := all[order[0]]
		for _, name := range order {
			got = got.Merge(all[name]).Merge(all[order[0]])
		}
		if got != want {
			t.Fatalf("order %q: got + and want -:\n%s", order, cmp.Diff(want, got))
		}
		half := len(order) / 2
		left, right := all[order[0]], all[order[half]]
		for i, name := range order {
			if i < half {
				left = left.Merge(all[name])
			} else {
				right = right.Merge(all[name])
			}
		}
		if got := left.Merge(right); got != want {
			t.Fatalf("halves of %q: got + and want -:\n%s", order, cmp.Diff(want, got))
		}
	}
}

func TestState_Status(t *testing.T) {
	t.Parallel()
	f := facts()
	for _, test := range []struct {
		name  string
		facts []string
		want  string
	}{
		{"a decision with a delay", []string{"decision"}, "delayed"},
		{"an attempt ends the delay", []string{"decision", "first"}, "retrying"},
		{"so does a change", []string{"decision", "a change before"}, "held"},
		{"the greater number counts, whatever the clocks say", []string{"first", "second, by a clock that is behind"}, "delivered"},
		{"of one number, the later start", []string{"second, made twice", "second, by a clock that is behind"}, "failed"},
		{"a change that is older than the attempt does not count", []string{"first", "a change between"}, "retrying"},
		{"a change that is younger does", []string{"second, by a clock that is behind", "a change between"}, "pending"},
		{"a change in the attempt's instant follows from it", []string{"second, made twice", "a change in an attempt's instant"}, "cancelled"},
	} {
		var got State
		for _, name := range test.facts {
			got = got.Merge(f[name])
		}
		if got.Status() != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got.Status(), test.want)
		}
	}
	if got := (State{}).Status(); got != "pending" {
		t.Errorf("a decision without a delay: got %q, want pending", got)
	}
}

func TestText_KeepsWhatIsFine(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":                 "",
		"Größe \U0001F600": "Größe \U0001F600",
		"\uFFFD":           "\uFFFD", // valid: somebody wrote it
		"a\x00b":           `a\x00b`,
		"\xff\xc3":         `\xff\xc3`,
		"\xed\xa0\x80":     `\xed\xa0\x80`, // a surrogate
		"tab\tand\x01":     "tab\tand\x01", // odd, but every database takes it
	} {
		if got := Text(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, seed := range []string{"", "evt_1", "a\x00", "\xff", strings.Repeat("ü", 300), strings.Repeat("\x00", 400)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key := Key(s)
		if len(key) > maxKey || !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0 {
			t.Errorf("the key of %q is %q, which not every index takes", s, key)
		}
		if Key(key) != key {
			t.Errorf("the key of %q changes when it is made again", s)
		}
	})
}

func TestKey_TellsLongOnesApart(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	if Key(long+"a") == Key(long+"b") {
		t.Error("two long ids have the same key")
	}
}

func TestTime_HasWholeMicroseconds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		ts   *timestamppb.Timestamp
		want time.Time
	}{
		{"absent", nil, time.Time{}},
		{"too late", &timestamppb.Timestamp{Seconds: 1 << 60}, time.Time{}},
		{"too many nanoseconds", &timestamppb.Timestamp{Nanos: -1}, time.Time{}},
		{"cut, not rounded", &timestamppb.Timestamp{Seconds: 1, Nanos: 1999}, time.Unix(1, 1000).UTC()},
		{"before 1970", &timestamppb.Timestamp{Seconds: -1, Nanos: 1999}, time.Unix(-1, 1000).UTC()},
	} {
		if got := Time(test.ts); !got.Equal(test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestFilter_Span(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) string { return id.New(id.Delivery, noon.Add(d)) }
	f := Filter{From: noon, To: noon.Add(time.Hour)}
	low, high := f.Span(0)
	for _, test := range []struct {
		name   string
		id     string
		within bool
	}{
		{"in the middle", at(time.Minute), true},
		{"matched half a minute after its event", at(-30 * time.Second), true},
		{"made by a clock that is ahead", at(time.Hour + 9*time.Minute), true},
		{"long before", at(-2 * time.Minute), false},
		{"after", at(2 * time.Hour), false},
	} {
		if got := low <= test.id && test.id < high; got != test.within {
			t.Errorf("%s: %s between %s and %s: got %v, want %v", test.name, test.id, low, high, got, test.within)
		}
	}
	if low, _ := f.Span(7 * 24 * time.Hour); low > at(-7*24*time.Hour) {
		t.Errorf("low on a day on which some were matched a week late: got %s, want less than %s", low, at(-7*24*time.Hour))
	}
	f.Before = at(time.Minute)
	if _, high := f.Span(0); high != f.Before {
		t.Errorf("high with a page before: got %s, want %s", high, f.Before)
	}
	if low, high := (Filter{}).Span(time.Hour); low != "" || high != "" {
		t.Errorf("span without times: got %q to %q, want none", low, high)
	}
}

func TestBlob_RepairsEveryText(t *testing.T) {
	t.Parallel()
	bad := "a\xff"
	m := &busv1.Decision{
		Considered: []*shopbellv1.Considered{{WebhookId: bad, Label: "fine", Matched: true}, {Reason: bad}},
		Due:        map[string]*timestamppb.Timestamp{bad: {Seconds: 1}, "fine": {Seconds: 2}},
	}
	want := &busv1.Decision{
		Considered: []*shopbellv1.Considered{{WebhookId: `a\xff`, Label: "fine", Matched: true}, {Reason: `a\xff`}},
		Due:        map[string]*timestamppb.Timestamp{`a\xff`: {Seconds: 1}, "fine": {Seconds: 2}},
	}
	got := &busv1.Decision{}
	if err := proto.Unmarshal(blob(m), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("got + and want -:\n%s", diff)
	}
	if m.GetConsidered()[0].GetWebhookId() != bad {
		t.Error("the caller's message was changed")
	}
}
