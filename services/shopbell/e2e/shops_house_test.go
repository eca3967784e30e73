package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What the tests of the shop systems' promises (SHOPS.md, S1.1 to S5.6) share. docs/shops.md says which test is which
// line's; a name's number is the line's.

// sharedHouse is Shopbell as one process for all tests of a file, each of which has a shop of its own: the first that
// needs it starts it, and the last stops it. Its zero value is ready.
type sharedHouse struct {
	own settings // what it runs with

	mu      sync.Mutex // guards what follows
	tenants int
	dir     string
	h       *house
}

// enter has the test run beside the others, and gives the house.
func (s *sharedHouse) enter(t *testing.T) *house {
	t.Helper()
	s.mu.Lock()
	s.tenants++ // before t.Parallel: all have come in before the first goes on, so the house is started once
	s.mu.Unlock()
	t.Cleanup(func() { s.leave(t) })
	t.Parallel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h == nil {
		s.open(t)
	}
	return s.h
}

// open starts the process. It is not house.open, whose folders and whose end are those of one test.
func (s *sharedHouse) open(t *testing.T) {
	t.Helper()
	var err error
	if s.dir, err = os.MkdirTemp("", "shopbell-shops-"); err != nil { //nolint:usetesting // it outlives the test that makes it
		t.Fatal(err)
	}
	rest, rpc := freeAddress(t), freeAddress(t)
	h := &house{way: one, url: "http://" + rest, grpc: map[string]string{}, data: filepath.Join(s.dir, "data")}
	for _, room := range rooms {
		h.grpc[room] = rpc
	}
	p := &process{
		name: "shopbell", path: program(t, "shopbell"), args: []string{"serve", "--data", h.data, "--http", rest, "--grpc", rpc},
		env:   h.environment(settings{"SHOPBELL_ALLOW_PRIVATE_ADDRESSES": "true"}, s.own),
		ready: h.url + "/readyz", log: filepath.Join(s.dir, "shopbell.log"), stopWithin: 10 * time.Second,
	}
	h.processes = []*process{p}
	p.begin(t)
	defer func() {
		if s.h == nil { // it has not become ready
			p.kill(t)
		}
	}()
	p.awaitReady(t)
	s.h = h
}

func (s *sharedHouse) leave(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenants--; s.tenants > 0 {
		return
	}
	if s.h != nil {
		s.h.close(t)
		s.h = nil
	}
	_ = os.RemoveAll(s.dir)
}

// premises is a shop of a test's own, and the house it is in.
type premises struct {
	*house
	id string
	at string // the path of the shop's resources
}

var shopCount atomic.Int64

// webshopID is the number that the tests' shops have in their own platform.
const webshopID = 1234

// newShop makes a shop of this profile; more is JSON fields beside it, such as `"environment": "test"`. When the test
// fails, what the process wrote of the shop is shown.
func (h *house) newShop(t *testing.T, preset string, more ...string) *premises {
	t.Helper()
	id := fmt.Sprintf("%s-%d", preset, shopCount.Add(1))
	s := &premises{house: h, id: id, at: "/v1/shops/" + id}
	get[struct{}](t, h, "PATCH", s.at, "{"+strings.Join(append([]string{fmt.Sprintf(`"profile": %q, "webshop_id": %d`, preset, webshopID)}, more...), ",")+"}")
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		text, _ := os.ReadFile(h.processes[0].log)
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, id) {
				t.Logf("shopbell wrote: %s", strings.TrimSpace(line))
			}
		}
	})
	return s
}

// webhook registers a webhook; more is JSON fields beside url, such as `"events": ["paid"]`. Without events it wants all.
func (s *premises) webhook(t *testing.T, url string, more ...string) hook {
	t.Helper()
	return s.read(t, s.newWebhook(t, s.id, url, more...).ID)
}

// hook is a webhook as the API shows it.
type hook struct {
	ID             string     `json:"id"`
	Label          string     `json:"label"`
	URL            string     `json:"url"`
	Events         []string   `json:"events"`
	Status         string     `json:"status"`
	DisabledReason string     `json:"disabled_reason"`
	DisabledAt     *time.Time `json:"disabled_at"`
	Profile        string     `json:"profile"`
	Format         string     `json:"format"`
	APIKeyID       string     `json:"api_key_id"`
	Delay          *struct {
		Value int    `json:"value"`
		Unit  string `json:"unit"`
	} `json:"delay"`
	Policy rules `json:"policy"`
}

type rules struct {
	Timeout         string   `json:"timeout"`
	RetrySchedule   []string `json:"retry_schedule"`
	MaxAttempts     int      `json:"max_attempts"`
	Jitter          bool     `json:"jitter"`
	SuccessCodes    []string `json:"success_codes"`
	DisableCodes    []int    `json:"disable_codes"`
	DisableAfter    string   `json:"disable_after"`
	DeletePhrases   []string `json:"delete_phrases"`
	HonorRetryAfter bool     `json:"honor_retry_after"`
}

func (s *premises) read(t *testing.T, id string) hook {
	t.Helper()
	return get[hook](t, s.house, "GET", s.at+"/webhooks/"+id, "")
}

func (s *premises) secret(t *testing.T, id string) string {
	t.Helper()
	return get[secrets](t, s.house, "GET", s.at+"/webhooks/"+id+"/secret", "").Secret
}

// switched does ":enable" or ":disable" to a webhook.
func (s *premises) switched(t *testing.T, id, verb, body string) hook {
	t.Helper()
	return get[hook](t, s.house, "POST", s.at+"/webhooks/"+id+verb, body)
}

// awaitWebhook waits until a webhook has this status, also for what is published next.
func (s *premises) awaitWebhook(t *testing.T, id, status string) hook {
	t.Helper()
	s.awaitMatchedAs(t, s.id, id, status)
	return s.read(t, id)
}

// publishOne publishes an event of this type with this data, and gives its id.
func (s *premises) publishOne(t *testing.T, eventType, data string) string {
	t.Helper()
	return s.publish(t, s.id, fmt.Sprintf(`{"type": %q, "data": %s}`, eventType, data))[0].ID
}

// acceptedAt is when an event of the shop was, which the log has to know: what is due after it is so to the millisecond.
func (s *premises) acceptedAt(t *testing.T, id string) time.Time {
	t.Helper()
	return get[struct {
		AcceptedAt time.Time `json:"accepted_at"`
	}](t, s.house, "GET", s.at+"/events/"+id, "").AcceptedAt
}

// refused makes a request that has to be answered with this code, and gives what it says.
func (s *premises) refused(t *testing.T, code int, method, path, body string) refusal {
	t.Helper()
	r := s.call(t, method, path, body)
	if r.code != code {
		t.Fatalf("%s %s %s: got %d %s, want %d", method, path, body, r.code, r.body, code)
	}
	var out refusal
	r.read(t, &out)
	return out
}

// logEntry is a delivery as the log shows it.
type logEntry struct {
	ID            string       `json:"id"`
	EventID       string       `json:"event_id"`
	EventType     string       `json:"event_type"`
	WebhookID     string       `json:"webhook_id"`
	Status        string       `json:"status"`
	Reason        string       `json:"reason"`
	AttemptsMade  int          `json:"attempts_made"`
	CreatedAt     time.Time    `json:"created_at"`
	NextAttemptAt *time.Time   `json:"next_attempt_at"`
	ResponseCode  int          `json:"response_code"`
	ErrorClass    string       `json:"error_class"`
	Test          bool         `json:"test"`
	Body          string       `json:"body"`
	Attempts      []logAttempt `json:"attempts"`
}

type logAttempt struct {
	Number          int         `json:"number"`
	StartedAt       time.Time   `json:"started_at"`
	DurationMS      float64     `json:"duration_ms"`
	ResponseCode    int         `json:"response_code"`
	ErrorClass      string      `json:"error_class"`
	Error           string      `json:"error"`
	Verdict         string      `json:"verdict"`
	URL             string      `json:"url"`
	RequestHeaders  []logHeader `json:"request_headers"`
	ResponseBody    string      `json:"response_body"`
	ResponseBodyCut bool        `json:"response_body_cut"`
	ByHand          bool        `json:"by_hand"`
	NextAttemptAt   *time.Time  `json:"next_attempt_at"`
}

type logHeader struct{ Name, Value string }

// over is when an attempt was over.
func (a logAttempt) over() time.Time {
	return a.StartedAt.Add(time.Duration(a.DurationMS * float64(time.Millisecond)))
}

// delivery reads a delivery of the list with its body and its attempts.
func (s *premises) delivery(t *testing.T, listed logEntry) logEntry {
	t.Helper()
	s.awaitData(t, listed.EventID)
	return get[logEntry](t, s.house, "GET", s.at+"/deliveries/"+listed.ID, "")
}

// deliveries lists the log, newest first, page by page; query is a filter such as "status=failed".
func (s *premises) deliveries(t *testing.T, query string) (all []logEntry) {
	t.Helper()
	for token := ""; ; {
		page := get[struct {
			Deliveries []logEntry
			Next       string `json:"next_page_token"`
		}](t, s.house, "GET", s.at+"/deliveries?page_size=500&"+query+"&page_token="+token, "")
		all = append(all, page.Deliveries...)
		if token = page.Next; token == "" {
			return all
		}
	}
}

// awaitDeliveries waits until the log has n deliveries that pass the filter.
func (s *premises) awaitDeliveries(t *testing.T, query string, n int) (all []logEntry) {
	t.Helper()
	eventually(t, fmt.Sprintf("the log has %d of %s", n, query), func() error {
		if all = s.deliveries(t, query); len(all) != n {
			return fmt.Errorf("it has %d", len(all))
		}
		return nil
	})
	return all
}

// awaitStory waits until the log says of every delivery of an event what enough wants, and gives the deliveries by their
// webhooks, and the story that they are from.
func (s *premises) awaitStory(t *testing.T, id string, deliveries int, enough func(logEntry) error) (map[string]logEntry, story) {
	t.Helper()
	var told event
	byWebhook := map[string]logEntry{}
	eventually(t, "the story of "+id+" is in the log", func() error {
		r := s.call(t, "GET", s.at+"/events/"+id, "")
		if r.code != http.StatusOK {
			return fmt.Errorf("it answers %d %s", r.code, r.body)
		}
		var full struct {
			Story struct {
				Decided    bool
				Deliveries []logEntry
			}
		}
		told = event{}
		r.read(t, &told)
		r.read(t, &full)
		if !full.Story.Decided || len(full.Story.Deliveries) != deliveries {
			return fmt.Errorf("decided: %v, %d deliveries, want %d", full.Story.Decided, len(full.Story.Deliveries), deliveries)
		}
		for _, d := range full.Story.Deliveries {
			if err := enough(d); err != nil {
				return fmt.Errorf("%s: %w; the story so far:\n%s", d.ID, err, told.Story)
			}
			byWebhook[d.WebhookID] = d
		}
		return nil
	})
	return byWebhook, told.Story
}

// is is for awaitStory: the delivery has this status.
func is(status string) func(logEntry) error {
	return func(d logEntry) error {
		if d.Status != status {
			return fmt.Errorf("got status %s, want %s", d.Status, status)
		}
		return nil
	}
}

// attempted is for awaitStory: something was attempted.
func attempted(d logEntry) error {
	if d.AttemptsMade == 0 {
		return errors.New("nothing was attempted yet")
	}
	return nil
}

// awaitOne is awaitStory for an event with one delivery.
func (s *premises) awaitOne(t *testing.T, id, status string) (logEntry, story) {
	t.Helper()
	byWebhook, told := s.awaitStory(t, id, 1, is(status))
	for _, d := range byWebhook {
		return d, told
	}
	panic("one delivery, and none")
}

// awaitData waits until the log has an event's data. It reads events and what became of them side by side, so that a
// delivery may be there a moment before that of which its body is made.
func (s *premises) awaitData(t *testing.T, eventID string) {
	t.Helper()
	s.awaitEvent(t, s.id, eventID, func(e event) error {
		if len(e.Data) == 0 || string(e.Data) == `""` {
			return errors.New("the event itself is missing")
		}
		return nil
	})
}

// resend sends a delivery again by hand.
func (s *premises) resend(t *testing.T, d logEntry) {
	t.Helper()
	s.awaitData(t, d.EventID)
	get[struct{}](t, s.house, "POST", s.at+"/deliveries/"+d.ID+":resend", `{}`)
}

// testSend is the answer to ":test".
type testSend struct {
	DeliveryID  string     `json:"delivery_id"`
	Success     bool       `json:"success"`
	Diagnosis   string     `json:"diagnosis"`
	RequestBody string     `json:"request_body"`
	Attempt     logAttempt `json:"attempt"`
}

func (s *premises) test(t *testing.T, id, eventType string) testSend {
	t.Helper()
	return get[testSend](t, s.house, "POST", s.at+"/webhooks/"+id+":test", fmt.Sprintf(`{"event_type": %q}`, eventType))
}

// catalog is a profile as the API shows it.
type catalog struct {
	Name        string
	OpenCatalog bool `json:"open_catalog"`
	Policy      rules
	Events      []struct {
		Name        string
		Group       string
		DisplayName string `json:"display_name"`
		Action      string
		Sample      json.RawMessage
		Schema      json.RawMessage
		TestOnly    bool `json:"test_only"`
		Optional    bool
	}
}

func (h *house) profile(t *testing.T, name string) catalog {
	t.Helper()
	return get[catalog](t, h, "GET", "/v1/profiles/"+name, "")
}

// types are the event types that can be subscribed to.
func (c catalog) types() (names []string) {
	for _, e := range c.Events {
		if !e.TestOnly {
			names = append(names, e.Name)
		}
	}
	return names
}

// newReceiverAt is newReceiver at an address that the test knows before.
func newReceiverAt(t *testing.T, address string) *receiver {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{answers: map[string][]answer{}, decide: map[string]func(*received) answer{}, got: map[string][]*received{}}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(r.serve)}}
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	r.url = server.URL
	return r
}

// after is for answer.until: closed once this time has passed.
func after(d time.Duration) <-chan struct{} {
	done := make(chan struct{})
	time.AfterFunc(d, func() { close(done) })
	return done
}

// wire is a receiver that keeps every byte it is sent. It answers 200, one request to a connection, or what it is told.
type wire struct {
	url string

	mu  sync.Mutex // guards got
	got []wired
}

type wired struct {
	raw    []byte // the whole request as it came
	method string
	path   string
	header http.Header
	body   []byte
}

// newWire starts a wire that ends with the test. It writes answer to every request, and closes the connection after
// that; an empty one closes it without an answer.
func newWire(t *testing.T, answer string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{url: "http://" + listener.Addr().String()}
	var under sync.WaitGroup
	under.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test is over
			}
			under.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				w.serve(conn, answer)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		under.Wait()
	})
	return w
}

const wireOK = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

func (w *wire) serve(conn net.Conn, answer string) {
	var raw bytes.Buffer
	req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &raw)))
	if err != nil {
		return // an attempt at TLS, for one
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	w.mu.Lock()
	w.got = append(w.got, wired{raw: raw.Bytes(), method: req.Method, path: req.URL.Path, header: req.Header, body: body})
	w.mu.Unlock()
	_, _ = io.WriteString(conn, answer)
}

// await waits until n requests have come in, and gives them.
func (w *wire) await(t *testing.T, n int) (got []wired) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is sent %d", w.url, n), func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if got = w.got; len(got) < n {
			return fmt.Errorf("it was sent %d", len(got))
		}
		return nil
	})
	return got
}

// object gives the members of a JSON object, and their names as they stand.
func object(t *testing.T, text []byte) (members map[string]json.RawMessage, names []string) {
	t.Helper()
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatalf("%.80s is no object: %v", text, err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	_, _ = dec.Token()
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
	}
	return members, names
}
