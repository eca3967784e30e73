package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/pkg/id"
	"shopbell.dev/services/log/store"
)

const day = 24 * time.Hour

func (b bundle) forget(now time.Time, keep store.Keep) store.Forgotten {
	b.t.Helper()
	done, err := b.Forget(context.Background(), now, keep)
	if err != nil {
		b.t.Fatalf("forget at %s: %v", now, err)
	}
	return done
}

func (b bundle) size() int64 {
	b.t.Helper()
	size, err := b.Size(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return size
}

// knows says whether an event or what became of it is there.
func (b bundle) knows(shopID, eventID, deliveryID string) (event, delivery bool) {
	b.t.Helper()
	_, errEvent := b.Event(context.Background(), shopID, eventID)
	_, errDelivery := store.Detail(context.Background(), b, shopID, deliveryID)
	for _, err := range []error{errEvent, errDelivery} {
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			b.t.Fatal(err)
		}
	}
	return errEvent == nil, errDelivery == nil
}

// told is an eventful life of one delivery of an event that was accepted then.
func told(shopID, eventID, deliveryID string, at time.Duration, data []byte) store.Batch {
	event := newEvent(shopID, eventID, data)
	event.AcceptedAt = after(at)
	records := []*busv1.Record{
		decision(shopID, eventID, at+time.Second, matched("wh_1", deliveryID)),
		made(shopID, eventID, "wh_1", deliveryID, 1, at+2*time.Second, "retrying", 500),
		changed(shopID, eventID, "wh_1", deliveryID, at+3*time.Second, "held"),
		made(shopID, eventID, "wh_1", deliveryID, 2, at+4*time.Second, "delivered", 200),
	}
	records[1].GetAttempt().MatchedAt, records[3].GetAttempt().MatchedAt = records[0].GetAt(), records[0].GetAt()
	records[2].GetChange().MatchedAt = records[0].GetAt()
	return store.Batch{Events: []*shopbellv1.Event{event}, Records: records}
}

func forgetsByAge(t *testing.T, s bundle) {
	at := func(days int) time.Duration { return time.Duration(days) * day }
	dlv := func(days int) string { return deliveryID(days * 86400) }
	for n := range 14 {
		s.write(told("shop", fmt.Sprintf("evt_%02d", n), dlv(n), at(n), []byte("1")))
	}
	// An event for nobody, a decision whose event never came, and a row whose id holds no time.
	s.write(store.Batch{Records: []*busv1.Record{
		decision("shop", "evt_lost", time.Second), made("shop", "evt", "wh_1", "dlv_odd", 1, 0, "delivered", 200),
	}})
	counted, err := s.Stats(context.Background(), store.StatsFilter{ShopID: "shop", From: noon, To: noon.Add(50 * day)})
	if err != nil {
		t.Fatal(err)
	}
	now := noon.Add(14*day + time.Hour)
	keep := store.Keep{Age: 10 * day}
	for range 2 {
		s.forget(now, keep)
	}
	for n := range 14 {
		event, delivery := s.knows("shop", fmt.Sprintf("evt_%02d", n), dlv(n))
		// Where whole days go, one goes when all of it is too old: some hours later.
		if n > 4 && (!event || !delivery) || n < 4 && (event || delivery) {
			t.Errorf("%d days old: event there %v, delivery there %v; want what is younger than 10 days", 14-n, event, delivery)
		}
	}
	if event, _ := s.knows("shop", "evt_lost", ""); event {
		t.Error("a decision without an event is there for ever")
	}
	if _, delivery := s.knows("shop", "", "dlv_odd"); !delivery {
		t.Error("a row whose id holds no time was forgotten by its time")
	}
	again, err := s.Stats(context.Background(), store.StatsFilter{ShopID: "shop", From: noon, To: noon.Add(50 * day)})
	if err != nil || len(counted) == 0 {
		t.Fatalf("statistics: got %v, %v", again, err)
	}
	if len(again) != len(counted) {
		t.Errorf("rows of statistics: got %d, want %d as before", len(again), len(counted))
	}
	// What comes late goes with the next call, and keeps nobody waiting.
	s.write(told("shop", "evt_00", dlv(0), at(0), []byte("1")))
	s.forget(now, keep)
	if event, delivery := s.knows("shop", "evt_00", dlv(0)); event || delivery {
		t.Error("what was written again after it had been forgotten is there")
	}
	if done := s.forget(now, keep); !done.Until.IsZero() {
		t.Errorf("when there is nothing to forget: got %+v, want nothing done", done)
	}
	if done := s.forget(now.Add(1000*day), store.Keep{}); !done.Until.IsZero() {
		t.Errorf("when everything is kept: got %+v, want nothing done", done)
	}
	same(t, "list", s.list(store.Filter{ShopID: "shop", From: noon.Add(12 * day), To: noon.Add(12*day + time.Hour)}), []string{dlv(12)})
}

// staysUnderItsCeiling: the usual load of 30 days would take half of the ceiling, and ten times as much comes for 40 days.
func staysUnderItsCeiling(t *testing.T, s bundle) {
	const (
		ceiling = 24 << 20
		perStep = 10 * ceiling / 2 / 30 / 12
		large   = 16 << 10 // an event's data
	)
	keep := store.Keep{Age: 30 * day, Bytes: ceiling}
	data := make([]byte, large)
	random := rand.NewChaCha8([32]byte{})
	var most int64
	var eventID, dlvID string
	n, forSize := 0, false
	for twoHours := range 40 * 12 {
		at := time.Duration(twoHours) * 2 * time.Hour
		var batch store.Batch
		for range max(perStep/large, 1) {
			n++
			_, _ = random.Read(data) // never fails
			eventID, dlvID = fmt.Sprintf("evt_%06d", n), id.Derived(id.Delivery, noon.Add(at), fmt.Sprint(n))
			batch = joined(batch, told("shop", eventID, dlvID, at, append([]byte{}, data...)))
		}
		s.write(batch)
		most = max(most, s.size())
		forSize = s.forget(noon.Add(at+time.Minute), keep).ForSize || forSize
	}
	t.Logf("%d events; at most %d of %d bytes, at the end %d", n, most, ceiling, s.size())
	if most > ceiling {
		t.Errorf("disk: got up to %d bytes, want at most %d", most, ceiling)
	}
	if !forSize || n*large < 4*ceiling {
		t.Errorf("%d events of %d bytes did not fill the log: the test tests nothing", n, large)
	}
	if event, delivery := s.knows("shop", "evt_000001", id.Derived(id.Delivery, noon, "1")); event || delivery {
		t.Error("the oldest is there")
	}
	if event, delivery := s.knows("shop", eventID, dlvID); !event || !delivery {
		t.Error("the newest is not there")
	}
	if kept := len(s.list(store.Filter{ShopID: "shop", Limit: n})); kept*large < ceiling/4 {
		t.Errorf("kept: %d deliveries of %d bytes, which is less than a quarter of the ceiling", kept, large)
	}
	counted, err := s.Stats(context.Background(), store.StatsFilter{ShopID: "shop", From: noon, To: noon.Add(50 * day)})
	if err != nil {
		t.Fatal(err)
	}
	var deliveries int64
	for _, row := range counted {
		deliveries += row.Counts.Deliveries
	}
	if deliveries != int64(n) {
		t.Errorf("deliveries in the statistics: got %d, want all %d", deliveries, n)
	}
	// A lower ceiling holds, too, and what cannot go for it are statistics.
	s.forget(noon.Add(41*day), store.Keep{Bytes: ceiling / 4})
	if got := s.size(); got > ceiling/4 {
		t.Errorf("disk after the ceiling was lowered: got %d, want at most %d", got, ceiling/4)
	}
}

// holdsALargeDay: one day alone is three times as large as the ceiling.
func holdsALargeDay(t *testing.T, s bundle) {
	const (
		ceiling = 16 << 20
		large   = 16 << 10 // an event's data
		perStep = 3 * ceiling / 48 / large
	)
	data := make([]byte, large)
	random := rand.NewChaCha8([32]byte{})
	begin, n := 12*time.Hour, 0 // midnight
	var ids []string
	for halfHour := range 48 {
		var batch store.Batch
		at := begin + time.Duration(halfHour)*30*time.Minute
		for range perStep {
			n++
			_, _ = random.Read(data) // never fails
			ids = append(ids, id.Derived(id.Delivery, noon.Add(at), fmt.Sprint(n)))
			batch = joined(batch, told("shop", fmt.Sprintf("evt_%06d", n), ids[n-1], at, append([]byte{}, data...)))
		}
		s.write(batch)
		if size := s.size(); size > ceiling {
			t.Fatalf("disk after %d half hours: got %d bytes, want at most %d", halfHour, size, ceiling)
		}
		s.forget(noon.Add(at+time.Minute), store.Keep{Age: 30 * day, Bytes: ceiling})
	}
	for i, deliveryID := range ids {
		event, delivery := s.knows("shop", fmt.Sprintf("evt_%06d", i+1), deliveryID)
		// Of the step that forgets last, some events may be there without their deliveries, and the other way round.
		if young := i > n-n/12; young && (!event || !delivery) || i < n/2 && (event || delivery) {
			t.Errorf("event %d of %d: there %v, delivery there %v; want the newest alone", i, n, event, delivery)
		}
	}
	oldest := ids[0]
	slices.Sort(ids)
	slices.Reverse(ids)
	kept := s.list(store.Filter{ShopID: "shop", Limit: n})
	if len(kept) == 0 || len(kept) == n {
		t.Errorf("list: got %d deliveries of %d, want some", len(kept), n)
	}
	same(t, "the newest page", kept[:50], ids[:50])
	// What comes late for a time that has gone is taken, and goes again.
	s.write(told("shop", "evt_000001", oldest, begin, []byte("1")))
	s.forget(noon.Add(begin+25*time.Hour), store.Keep{Age: 30 * day, Bytes: ceiling / 2})
	if _, delivery := s.knows("shop", "", oldest); delivery {
		t.Error("what came late is there, though newer had to go")
	}
}

func forgetsBesideWriters(t *testing.T, s bundle) {
	keep := store.Keep{Age: 7 * day, Bytes: 1 << 20}
	var wg sync.WaitGroup
	written := make(chan struct{})
	for writer := range 3 {
		wg.Go(func() {
			for n := range 20 {
				at := time.Duration(n) * day / 2
				eventID := fmt.Sprintf("evt_%d_%d", writer, n)
				if err := s.Write(context.Background(), told("shop", eventID, id.Derived(id.Delivery, noon.Add(at), eventID), at, []byte("1"))); err != nil {
					t.Errorf("write beside forgetting: %v", err)
				}
			}
		})
	}
	var forgetting sync.WaitGroup
	for range 2 {
		forgetting.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-written:
					return
				default:
					if _, err := s.Forget(context.Background(), noon.Add(time.Duration(n%15)*day), keep); err != nil && !gaveWay(err) {
						t.Errorf("forget beside writers: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(written)
	forgetting.Wait()
	s.forget(noon.Add(14*day), keep) // beside nobody it finishes whatever it left
}

// gaveWay says that PostgreSQL was to end a part while somebody was writing for long: rather than let others wait for him, that is
// left to a later call.
func gaveWay(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "55P03" // lock_not_available
}
