package intern

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"shopbell.dev/pkg/testwait"
)

type thing struct{ name *string }

func TestPool_GivesOneToAllOfAKey(t *testing.T) {
	t.Parallel()
	var p Pool[string, thing]
	made := func() (*thing, error) { return &thing{new(string)}, nil }
	one, _ := p.Get("a", made)
	two, _ := p.Get("a", func() (*thing, error) { t.Error("it is built although somebody has it"); return nil, nil })
	other, _ := p.Get("b", made)
	if one != two || one == other {
		t.Errorf("got %p, %p for one key and %p for another, want the first two to be the same", one, two, other)
	}
	all := make([]*thing, 50)
	var askers sync.WaitGroup
	for i := range all {
		askers.Go(func() { all[i], _ = p.Get("c", made) })
	}
	askers.Wait()
	for _, got := range all {
		if got != all[0] {
			t.Fatal("two who asked at the same time have different ones")
		}
	}
	runtime.KeepAlive(one)
	runtime.KeepAlive(all)
}

func TestPool_KeepsNoErrors(t *testing.T) {
	t.Parallel()
	var p Pool[string, thing]
	wrong, half := errors.New("wrong"), &thing{}
	if got, err := p.Get("a", func() (*thing, error) { return half, wrong }); got != half || !errors.Is(err, wrong) {
		t.Errorf("got %v, %v, want what was made and its error", got, err)
	}
	if got, err := p.Get("a", func() (*thing, error) { return &thing{}, nil }); got == half || err != nil {
		t.Errorf("got %v, %v after an error, want another without one", got, err)
	}
}

func TestPool_ForgetsWhatNobodyHas(t *testing.T) {
	t.Parallel()
	var p Pool[string, thing]
	if _, err := p.Get("a", func() (*thing, error) { return &thing{new(string)}, nil }); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "what nobody has any more is forgotten", func() bool { // its cleanup runs after the collector
		runtime.GC()
		p.mu.Lock()
		defer p.mu.Unlock()
		_, there := p.byKey["a"]
		return !there
	})
}
