package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// receiver is a shop's receiver. What it answers is written down for each path; all that it is sent it remembers.
type receiver struct {
	url string

	mu      sync.Mutex // guards what follows
	answers map[string][]answer
	decide  map[string]func(*received) answer
	got     map[string][]*received
}

// answer is what a receiver answers. Its zero value is 200.
type answer struct {
	code   int
	header map[string]string
	body   string
	until  <-chan struct{} // not before this is closed
}

// received is a request that came in.
type received struct {
	at     time.Time // by the clock, as what waits for its time is due: where that is set meanwhile, other clocks say otherwise
	header http.Header
	body   []byte
	code   int // what was answered
}

// newReceiver starts a receiver that ends with the test.
func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{answers: map[string][]answer{}, decide: map[string]func(*received) answer{}, got: map[string][]*received{}}
	server := httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	r.url = server.URL
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	in := &received{at: time.Now().Round(0), header: req.Header}
	in.body, _ = io.ReadAll(req.Body) // what was cut off is seen by its length
	a := r.note(req.URL.Path, in)
	if a.until != nil {
		select {
		case <-a.until:
		case <-req.Context().Done():
		}
	}
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(a.code)
	_, _ = io.WriteString(w, a.body)
}

func (r *receiver) note(path string, in *received) answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	var a answer
	switch list := r.answers[path]; {
	case r.decide[path] != nil:
		a = r.decide[path](in)
	case len(list) > 1:
		a, r.answers[path] = list[0], list[1:]
	case len(list) == 1:
		a = list[0]
	}
	if a.code == 0 {
		a.code = http.StatusOK
	}
	in.code = a.code
	r.got[path] = append(r.got[path], in)
	return a
}

// answer writes down what is answered at a path: one after the other, and the last from then on.
func (r *receiver) answer(path string, list ...answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[path] = list
}

// answerBy has a function say what is answered at a path. It is called by one request at a time.
func (r *receiver) answerBy(path string, decide func(*received) answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.decide[path] = decide
}

// at is what has come in at a path, in the order in which it came.
func (r *receiver) at(path string) []*received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got[path])
}

// await waits until n requests have come in at a path, and gives them.
func (r *receiver) await(t testing.TB, path string, n int) []*received {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is sent %d", path, n), func() error {
		if got := len(r.at(path)); got < n {
			return fmt.Errorf("it was sent %d", got)
		}
		return nil
	})
	return r.at(path)
}

// id is the delivery's id.
func (in *received) id() string { return in.header.Get("webhook-id") }

// data is the event's data in the body, as the standard profile sends it: everything between the name and the brace at
// the end.
func (in *received) data() []byte {
	_, rest, ok := bytes.Cut(in.body, []byte(`,"data":`))
	if !ok {
		return nil
	}
	return rest[:len(rest)-1]
}

// order is a field of the event's data that tests number their events by.
func (in *received) order() string {
	var data struct{ N json.Number }
	_ = json.Unmarshal(in.data(), &data) // none is seen by its absence
	return data.N.String()
}
