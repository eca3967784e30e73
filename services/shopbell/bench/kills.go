package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// killed is what happens in the test of kills.
type killed struct {
	hooks, perSecond, senders int
	length, every             time.Duration
}

// kills counts what becomes of events whose receivers are dead or hang for a while, when one of several senders is killed
// again and again until nothing is left to be done. It fails when one is missing, when one came again that was not in
// flight at a kill, or when two senders worked on one lane.
func kills(args []string) (err error) {
	var k killed
	flags := flag.NewFlagSet("kills", flag.ContinueOnError)
	flags.IntVar(&k.hooks, "webhooks", 20_000, "number of webhooks, half of them dead or hanging at first")
	flags.IntVar(&k.perSecond, "rate", 1000, "events per second")
	flags.IntVar(&k.senders, "senders", 3, "number of senders")
	flags.DurationVar(&k.length, "length", time.Minute, "length of the load, after which all receivers are well")
	flags.DurationVar(&k.every, "every", 10*time.Second, "time from one kill to the next")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || k.hooks < 100 || k.perSecond < 10 || k.senders < 2 || k.length < 5*time.Second || k.every < 5*time.Second {
		return fmt.Errorf("%q: nothing but flags is taken, -webhooks from 100, -rate from 10, -senders from 2, -length and -every from 5s", args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "shopbell-kills-")
	if err != nil {
		return fmt.Errorf("make a folder for the data: %w", err)
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\n(data and logs are left in %s)", err, dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	return k.measure(ctx, dir)
}

// policyOf is the policy of a webhook of the test: one in ten is in order, four have a breaker that opens soon, and the
// others, whose breaker seldom does, wait for their times.
func policyOf(number int) string {
	own := ``
	switch kind := number % 10; {
	case kind == 0:
		own = `,"ordered":"webhook"`
	case kind < 5:
		own = `,"breaker":{"failures":3}`
	}
	return `{"timeout":"5s","retry_schedule":["5s","15s","30s","60s","120s"]` + own + `}`
}

func isOrdered(number int) bool { return number%10 == 0 }

func (k killed) measure(ctx context.Context, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t, err := startTeam(ctx, dir, k.senders)
	defer t.kill()
	if err != nil {
		return err
	}
	book := &ledger{deliveries: map[string][]string{}, known: map[string]*door{}, doors: make([]door, k.hooks)}
	where, err := startSite(ctx, k.hooks, false, book.watch)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench: %d webhooks are registered …\n", k.hooks)
	if err := inParallel(ctx, k.hooks, 16, func(ctx context.Context, i int) error {
		id, err := where.register(ctx, t.others.url, shop(false), i, k.mannerOf(i), policyOf(i))
		book.know(id, i)
		return err
	}); err != nil {
		return err
	}
	watching := make(chan error, 1)
	go func() { watching <- t.bus.Watch(ctx, contract.Lanes, book.lane, func() {}) }()
	fmt.Fprintf(os.Stderr, "bench: half of the receivers are away for %s, under %d events/s …\n", k.length, k.perSecond)
	published, took, err := k.run(ctx, t, where, book)
	if err != nil {
		return err
	}
	m := &meter{serve: t.others}
	if _, _, err := m.awaitLog(ctx); err != nil {
		return err
	}
	logged, err := readLogged(ctx, t.others.url)
	if err != nil {
		return err
	}
	left, err := lying(ctx, t.bus)
	if err != nil {
		return err
	}
	cancel()
	if err := <-watching; err != nil {
		return err
	}
	return k.print(book.count(where, published, logged), len(left), took)
}

// mannerOf is how a receiver is until all are well.
func (k killed) mannerOf(number int) manner {
	switch {
	case number < k.hooks/2:
		return well
	case number < k.hooks*3/4:
		return dead
	}
	return hangs
}

// endless is how long after the load there may be work left: longer than the schedules.
const endless = 4 * time.Minute

// run publishes the load, and kills senders until nothing is left to be done.
func (k killed) run(ctx context.Context, t *team, where *site, book *ledger) (published int, took time.Duration, err error) {
	where.die()
	began := time.Now()
	loading := make(chan error, 2)
	go func() {
		var err error
		published, err = pour(ctx, publisher(t.others.url), rate{webhooks: k.hooks, perSecond: k.perSecond}, k.length)
		loading <- err
	}()
	recovery := time.AfterFunc(k.length, func() {
		book.recover()
		for i := range where.manners {
			where.manners[i].Store(well)
		}
		loading <- where.live(ctx)
	})
	defer recovery.Stop()
	kill, look := time.NewTimer(k.every), time.NewTicker(200*time.Millisecond)
	defer kill.Stop()
	defer look.Stop()
	for loaded := 0; ; {
		select {
		case <-ctx.Done():
			return published, 0, ctx.Err()
		case err := <-loading:
			if loaded++; err != nil {
				return published, 0, err
			}
		case <-kill.C:
			// Not at even times: what was handed to a victim as it died comes again after 20s to the millisecond, and would
			// meet the next one.
			kill.Reset(k.every - rand.N(time.Second))
			if err := t.replace(ctx, book); err != nil {
				return published, 0, err
			}
		case <-look.C:
			if loaded < cap(loading) {
				continue
			}
			empty, err := isEmpty(ctx, t.bus)
			if err != nil || empty || time.Since(began) > k.length+endless {
				return published, time.Since(began), err
			}
		}
	}
}

// team is the processes of the test.
type team struct {
	dir     string
	others  *serve
	url     string // of the bus
	bus     *bus.Bus
	senders []*namedSender
	started int
}

type namedSender struct {
	*serve
	name string
}

// startTeam starts the processes. Kill those that it gives, with an error too.
func startTeam(ctx context.Context, dir string, senders int) (t *team, err error) {
	t = &team{dir: dir}
	if t.others, err = startRooms(ctx, dir, "others.log", "others", dir); err != nil {
		return t, err
	}
	if t.url, err = t.others.said("bus"); err != nil {
		return t, err
	}
	to := bus.Defaults()
	to.URL = t.url
	if t.bus, err = bus.Connect(ctx, to, slog.New(slog.DiscardHandler)); err != nil {
		return t, err
	}
	for range senders {
		s, err := t.another(ctx)
		if err != nil {
			return t, err
		}
		t.senders = append(t.senders, s)
	}
	return t, nil
}

// another starts a sender with a name that no other has had.
func (t *team) another(ctx context.Context) (*namedSender, error) {
	t.started++
	name := fmt.Sprintf("sender-%d", t.started)
	s, err := startRooms(ctx, t.dir, name+".log", "sender", name, t.url)
	return &namedSender{s, name}, err
}

// replace kills one sender, books what is on the bus then, and starts another.
func (t *team) replace(ctx context.Context, book *ledger) error {
	victim := t.senders[0]
	if err := victim.ended(); err != nil {
		return fmt.Errorf("%s, before it was killed: %w", victim.name, err)
	}
	victim.kill()
	time.Sleep(300 * time.Millisecond) // the bus takes in what the victim had sent; nothing comes again so soon
	left, err := lying(ctx, t.bus)
	if err != nil {
		return err
	}
	made, err := victim.attempts()
	if err != nil {
		return err
	}
	book.kill(kill{victim.name, left, made})
	fmt.Fprintf(os.Stderr, "bench: %s is killed, %d deliveries are on the bus\n", victim.name, len(left))
	next, err := t.another(ctx)
	t.senders = append(t.senders[1:], next)
	return err
}

// attempts are those that the sender says it has made.
func (s *namedSender) attempts() (map[attempt]bool, error) {
	text, err := os.ReadFile(s.log)
	made := map[attempt]bool{}
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(line, " delivery_id=")
		id, rest, _ := strings.Cut(rest, " attempt=")
		number, _, _ := strings.Cut(rest, " ")
		if n, err := strconv.Atoi(number); err == nil {
			made[attempt{id, n}] = true
		}
	}
	return made, err
}

// attempt is one attempt of a delivery.
type attempt struct {
	id     string
	number int
}

// kill ends all processes.
func (t *team) kill() {
	for _, s := range t.senders {
		s.kill()
	}
	if t.bus != nil {
		t.bus.Close()
	}
	if t.others != nil {
		t.others.kill()
	}
}

// lying are the deliveries that lie on the bus for somebody to send, all but those that only wait for a timer: the numbers of the
// attempts to make, and 0 where it is held, or was put off and waits for that attempt as well. It is twice on the bus when who was killed had it held or
// put off, and not yet said so.
func lying(ctx context.Context, b *bus.Bus) (map[string][]int, error) {
	ids := map[string][]int{}
	places := [][2]string{{contract.Held, contract.HeldSubjects}}
	for _, at := range contract.WaitingPlaces() { // timers are the last
		for _, subjects := range at.Subjects {
			places = append(places, [2]string{at.Stream, subjects})
		}
	}
	for i, at := range places {
		timers := i == len(places)-1
		for next, more := uint64(1), true; more; {
			var batch []bus.Stored
			var err error
			if batch, more, err = b.List(ctx, at[0], at[1], next, 1000, 8<<20); err != nil {
				return nil, err
			}
			for _, raw := range batch {
				next = raw.Sequence + 1
				d, err := contract.ParseDelivery(raw.Header, raw.Data)
				if err != nil {
					return nil, err
				}
				if timers && !slices.Contains(ids[d.ID], d.Attempt) {
					continue // it waits for a later attempt
				}
				if timers || at[0] == contract.Held {
					d.Attempt = 0
				}
				ids[d.ID] = append(ids[d.ID], d.Attempt)
			}
		}
	}
	return ids, nil
}

// isEmpty says whether all events are matched, and nothing is on the bus that anybody would still work on.
func isEmpty(ctx context.Context, b *bus.Bus) (bool, error) {
	for _, consumer := range []string{contract.Matcher, contract.BulkMatcher} {
		waiting, unanswered, err := b.Pending(ctx, consumer)
		if err != nil || waiting > 0 || unanswered > 0 {
			return false, err
		}
	}
	for _, stream := range []string{contract.Deliveries, contract.Later} {
		s, err := b.Stream(ctx, stream)
		if err != nil || s.CachedInfo().State.Msgs > 0 {
			return false, err
		}
	}
	// Who is killed after a held delivery is gone, and before what was noted of its attempts, leaves that note behind.
	held, err := b.Last(ctx, contract.Held, contract.HeldSubjects)
	return held == 0, err
}

// ledger books what is seen at the receivers, and of the lanes. It may be used at once.
type ledger struct {
	mu         sync.Mutex          // guards what follows
	deliveries map[string][]string // the senders that each was taken from (answered 2xx), in turn
	kills      []kill
	doors      []door           // by the webhook's number
	known      map[string]*door // by the webhook's id
	held       int              // lanes that were entered in the register
	over       int              // and those that another sender took over
	recovered  bool
}

// kill is a sender that was killed.
type kill struct {
	sender string
	left   map[string][]int // what was on the bus right after it
	made   map[attempt]bool // what attempts it had made
}

// inFlight says whether a delivery that was taken from these senders was in flight at a kill: the sender had made the
// attempt for which it lies on the bus after that, or had it taken or held, and had not said so.
func (k kill) inFlight(id string, takers []string) bool {
	numbers, left := k.left[id]
	again := func(number int) bool { return number > 0 && k.made[attempt{id, number}] }
	return left && (len(numbers) > 1 || slices.ContainsFunc(numbers, again) || slices.Contains(takers, k.sender))
}

// door is a webhook as its receiver and the register see it.
type door struct {
	now, most int       // requests at once
	owner     string    // of its lane
	unwell    time.Time // since when its lane is entered as one whose receiver is not well
	probes    int       // the most requests at once when that was known to all
}

// know books the id of a webhook.
func (l *ledger) know(webhookID string, number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[webhookID] = &l.doors[number]
}

// lane books an entry of the register of lanes.
func (l *ledger) lane(e bus.Entry) {
	webhookID, _ := contract.ParseLaneKey(e.Key())
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.known[webhookID]
	if p == nil { // it is a sender's
		return
	}
	state := &busv1.LaneState{}
	if e.Operation() != jetstream.KeyValuePut || proto.Unmarshal(e.Value(), state) != nil {
		p.owner, p.unwell = "", time.Time{}
		return
	}
	switch p.owner {
	case state.Owner:
	case "":
		l.held++
	default:
		l.over++
	}
	p.owner = state.Owner
	if state.Unwell && p.unwell.IsZero() {
		p.unwell = time.Now()
	}
}

// recover books that all receivers are about to be well.
func (l *ledger) recover() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recovered = true
}

// kill books that a sender has just been killed.
func (l *ledger) kill(k kill) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills = append(l.kills, k)
}

// knownAfter is how long after its entry every sender knows of a lane whose receiver is not well, and has ended what it had
// begun before: longer than an exchange may take.
const knownAfter = 7 * time.Second

// watch books a request, and gives what books its end.
func (l *ledger) watch(number int, r *http.Request) (answered func(taken bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.doors[number]
	p.now++
	p.most = max(p.most, p.now)
	if !l.recovered && !p.unwell.IsZero() && time.Since(p.unwell) > knownAfter {
		p.probes = max(p.probes, p.now)
	}
	return func(taken bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		p.now--
		if id := r.Header.Get("webhook-id"); taken {
			l.deliveries[id] = append(l.deliveries[id], strings.TrimPrefix(r.UserAgent(), "Shopbell/"))
		}
	}
}

// result is what was counted in the end.
type result struct {
	accepted, arrived, ended, missing int
	again, inFlight, unexplained      int // came again; were in flight at kills; came again more often than that
	kills, held, over                 int
	most, probes, disorder            int
	logged, wrong                     int // deliveries in the log; events of which it does not say what the receivers do
}

// count counts what was booked, beside the statuses of the deliveries of each event in the log.
func (l *ledger) count(where *site, published int, logged map[int][]string) result {
	r := result{accepted: published}
	arrived := make([]bool, published)
	l.mu.Lock()
	defer l.mu.Unlock()
	r.kills, r.held, r.over = len(l.kills), l.held, l.over
	for number := range l.doors {
		at := where.spot(place, number)
		at.mu.Lock()
		for i, a := range at.order {
			arrived[a.number] = true
			if isOrdered(number) && i > 0 && a.number < at.order[i-1].number {
				r.disorder++
			}
		}
		at.mu.Unlock()
		if isOrdered(number) {
			r.most = max(r.most, l.doors[number].most)
		}
		r.probes = max(r.probes, l.doors[number].probes)
	}
	for number, there := range arrived {
		statuses := logged[number]
		r.logged += len(statuses)
		ended := slices.ContainsFunc(statuses, func(status string) bool { return status == "failed" || status == "cancelled" })
		switch {
		case there:
			r.arrived++
		case ended:
			r.ended++
		default:
			r.missing++
		}
		if len(statuses) != 1 || there != (statuses[0] == "delivered") {
			r.wrong++
		}
	}
	for id, takers := range l.deliveries {
		inFlight, again := 0, len(takers)-1
		for _, k := range l.kills {
			if k.inFlight(id, takers) {
				inFlight++
			}
		}
		r.inFlight += inFlight
		r.again += max(0, again)
		r.unexplained += max(0, again-inFlight)
	}
	return r
}

// readLogged reads the statuses of all deliveries in the log, by their events' numbers.
func readLogged(ctx context.Context, edge string) (map[int][]string, error) {
	out := map[int][]string{}
	next := ""
	for more := true; more; more = next != "" {
		var page struct {
			Deliveries []struct {
				EventID string `json:"event_id"`
				Status  string
			}
			Next string `json:"next_page_token"`
		}
		if err := getJSON(ctx, edge+"/v1/shops/"+shop(false)+"/deliveries?page_size=500&page_token="+url.QueryEscape(next), &page); err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		for _, d := range page.Deliveries {
			_, text, _ := strings.Cut(d.EventID, "-")
			number, err := strconv.Atoi(text)
			if err != nil {
				return nil, fmt.Errorf("read the log: event %s: %w", d.EventID, err)
			}
			out[number] = append(out[number], d.Status)
		}
		next = page.Next
	}
	return out, nil
}

// print prints what was counted beside what was promised, and fails when it is not the same.
func (k killed) print(r result, left int, took time.Duration) error {
	fmt.Printf("\n%s webhooks, half of them dead or hanging for %s, %s events/s meanwhile; one of %d senders killed every %s, %d kills\n\n",
		thousands(k.hooks), k.length, thousands(k.perSecond), k.senders, k.every, r.kills)
	fmt.Printf("%-70s %10s %10s %5s\n", "", "promised", "counted", "met")
	broken := 0
	line := func(what, promised string, counted int, met bool) {
		if !met {
			broken++
		}
		fmt.Printf("%-70s %10s %10s %5s\n", what, promised, thousands(counted), yes(met))
	}
	told := func(what string, counted int) { fmt.Printf("%-70s %10s %10s\n", what, "", thousands(counted)) }
	told("events accepted, one delivery each", r.accepted)
	told("arrived", r.arrived)
	told("given up by their rules", r.ended)
	line("missing", "0", r.missing, r.missing == 0)
	line("left on the bus when nothing was left to be done", "0", left, left == 0)
	told("in flight at a kill: tried or held by who was killed, who had not said so", r.inFlight)
	line("came again", "≤ "+thousands(r.inFlight), r.again, r.again <= r.inFlight)
	line("of these more often than in flight at a kill", "0", r.unexplained, r.unexplained == 0)
	told("lanes that held, each time that one did", r.held)
	told("lanes that were taken over", r.over)
	line("at once at a webhook in order, at most", "1", r.most, r.most <= 1)
	line("probes at once of a receiver known not to be well, at most", "1", r.probes, r.probes <= 1)
	line("out of order at webhooks in order", "0", r.disorder, r.disorder == 0)
	line("deliveries in the log", thousands(r.accepted), r.logged, r.logged == r.accepted)
	line("of which the log says other than the receivers", "0", r.wrong, r.wrong == 0)
	fmt.Printf("\nAfter %s nothing was left to be done.\n", took.Round(time.Second))
	if broken > 0 {
		return fmt.Errorf("%d promises are broken", broken)
	}
	return nil
}
