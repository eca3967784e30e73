package expression

import (
	"errors"
	"runtime"
	"testing"
)

func TestParse_SameTextsShareOneProgram(t *testing.T) {
	t.Parallel()
	const text = `data.total > 47.11`
	one, err := ParseFilter(text)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := ParseFilter(text); err != nil || two.program != one.program {
		t.Errorf("a second filter with the same text has another program (%v)", err)
	}
	if other, err := ParseFilter(text + " "); err != nil || other.program == one.program {
		t.Errorf("a filter with another text has the same program (%v)", err)
	}
	runtime.KeepAlive(one)
}

func TestFilter_SameTextIsAskedOnceOfAnEvent(t *testing.T) { // by itself, for it counts allocations
	e := &Event{Data: []byte(`{"total": 50}`)}
	for _, text := range []string{`data.total > 47.11`, `data.total > 50.0`, `data.nothing`} {
		one, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		two, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		wants, first := one.Wants(e)
		if again, err := two.Wants(e); again != wants || !errors.Is(err, first) {
			t.Errorf("%s: the first says %v (%v), the second %v (%v)", text, wants, first, again, err)
		}
		if n := testing.AllocsPerRun(10, func() { _, _ = two.Wants(e) }); n > 0 {
			t.Errorf("%s: asked again it is evaluated again", text)
		}
	}
	f, err := ParseFilter(`data.total > 47.11`)
	if err != nil {
		t.Fatal(err)
	}
	if wants, err := f.Wants(&Event{Data: []byte(`{"total": 1}`)}); wants || err != nil {
		t.Errorf("another event has the same answer (%v)", err)
	}
}
