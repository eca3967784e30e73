package storetest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// Lives are records of many deliveries' lives over three days, of all shapes: answered or not, retried, attempted twice
// under one number, held, decided about twice, sent again by hand, tests. The same seed gives the same ones.
func Lives(seed uint64, deliveries int) []*busv1.Record {
	r := rand.New(rand.NewPCG(seed, 1))
	var records []*busv1.Record
	for n := range deliveries {
		shop, webhook := fmt.Sprintf("shop-%d", r.IntN(3)), fmt.Sprintf("wh_%d", r.IntN(4))
		event, id := fmt.Sprintf("evt_%d", n), deliveryID(n)
		at := time.Duration(r.IntN(60*60*48)) * time.Second
		test := r.IntN(10) == 0
		if !test {
			for range 1 + r.IntN(2) { // the second decision may be of another hour
				records = append(records, decision(shop, event, at+time.Duration(r.IntN(2))*time.Hour, matched(webhook, id)))
			}
		}
		for number := range r.IntN(4) {
			for range 1 + r.IntN(5)/4 {
				at += time.Duration(r.IntN(5000)) * time.Second
				one := made(shop, event, webhook, id, int32(number+1), at, "retrying", 0)
				made := one.GetAttempt()
				made.Test, made.MatchedAt = test, after(at)
				made.Attempt.DurationMs = math.Exp(r.NormFloat64()) * 50
				switch r.IntN(4) {
				case 0:
					made.Attempt.ErrorClass = []string{"timeout", "dns", "connect"}[r.IntN(3)]
				case 1:
					made.Attempt.ErrorClass, made.Attempt.ResponseCode = "http_status", int32(500+r.IntN(4))
					made.Status = "failed"
				default:
					made.Attempt.ErrorClass, made.Attempt.ResponseCode = "", 200
					made.Status = "delivered"
				}
				records = append(records, one)
			}
		}
		for range r.IntN(5) / 3 {
			at += time.Duration(r.IntN(5000)) * time.Second
			records = append(records, changed(shop, event, webhook, id, at, []string{"held", "cancelled", "pending", "failed"}[r.IntN(4)]))
		}
	}
	return records
}

// CheckStats compares the statistics of all of Lives' shops and webhooks with a count of the deliveries and attempts
// that the store holds.
func CheckStats(t testing.TB, s store.Store) {
	t.Helper()
	type who struct{ shop, webhook string }
	type counted struct {
		store.Counts
		took []float64
	}
	want := make(map[who]map[time.Time]*counted)
	in := func(shop, webhook string, at *timestamppb.Timestamp) []*counted {
		var list []*counted
		for _, w := range []who{{shop, webhook}, {shop, ""}} {
			if want[w] == nil {
				want[w] = make(map[time.Time]*counted)
			}
			hour := at.AsTime().Truncate(time.Hour)
			if want[w][hour] == nil {
				want[w][hour] = &counted{Counts: store.Counts{Failures: make(map[store.Failure]int64)}}
			}
			list = append(list, want[w][hour])
		}
		return list
	}
	deliveries := 0
	for n := range 3 {
		shop := fmt.Sprintf("shop-%d", n)
		list, err := s.Deliveries(context.Background(), store.Filter{ShopID: shop, Limit: 1_000_000})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list.Deliveries {
			whole, err := store.Detail(context.Background(), s, shop, d.GetId())
			if err != nil {
				t.Fatal(err)
			}
			if d.GetTest() {
				continue
			}
			deliveries++
			for _, c := range in(shop, d.GetWebhookId(), d.GetCreatedAt()) {
				c.Deliveries++
				switch d.GetStatus() {
				case "delivered":
					c.Delivered++
				case "failed":
					c.Failed++
				case "cancelled":
					c.Cancelled++
				}
				if d.GetAttemptsMade() > 0 {
					c.Attempted++
					c.AttemptsOfDeliveries += int64(d.GetAttemptsMade())
				}
			}
			for _, a := range whole.Delivery.GetAttempts() {
				for _, c := range in(shop, d.GetWebhookId(), a.GetStartedAt()) {
					c.Attempts++
					if a.GetErrorClass() != "" {
						c.Failures[store.Failure{ErrorClass: a.GetErrorClass(), ResponseCode: a.GetResponseCode()}]++
					}
					if a.GetResponseCode() > 0 {
						c.took = append(c.took, a.GetDurationMs())
					}
				}
			}
		}
	}
	if deliveries == 0 {
		t.Error("there is no delivery to count")
	}
	for w, hours := range want {
		got := stats(t, s, store.StatsFilter{ShopID: w.shop, WebhookID: w.webhook, From: noon.Add(-24 * time.Hour), To: noon.Add(30 * 24 * time.Hour)})
		for _, row := range got {
			if row.Day {
				t.Errorf("%v: got the day %v, want hours", w, row.Start)
			}
			c := hours[row.Start]
			if c == nil { // of a delivery that turned out to be older
				c = &counted{}
			}
			delete(hours, row.Start)
			sameCounts(t, fmt.Sprintf("%v at %v", w, row.Start), row.Counts, c.Counts, c.took)
		}
		for hour := range hours {
			t.Errorf("%v: nothing was counted at %v", w, hour)
		}
	}
}

func stats(t testing.TB, s store.Store, f store.StatsFilter) []store.StatsRow {
	t.Helper()
	rows, err := s.Stats(context.Background(), f)
	if err != nil {
		t.Fatalf("read statistics: %v", err)
	}
	return rows
}

// text is all that can be asked of counts.
func text(c store.Counts) string {
	return fmt.Sprint(numbers(c), c.Latency(0, 0.1, 0.5, 0.9, 0.99, 1))
}

func numbers(c store.Counts) string {
	if c.Failures == nil {
		c.Failures = map[store.Failure]int64{}
	}
	return fmt.Sprint(c.Deliveries, c.Delivered, c.Failed, c.Cancelled, c.Attempted, c.AttemptsOfDeliveries, c.Attempts, c.Failures)
}

// sameCounts compares numbers exactly, and quantiles of the latency within the 2 % that they are right.
func sameCounts(t testing.TB, what string, got *store.Counts, want store.Counts, took []float64) {
	t.Helper()
	if got, want := numbers(*got), numbers(want); got != want {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
	quantiles := []float64{0, 0.5, 0.9, 0.99, 1}
	latency := got.Latency(quantiles...)
	if len(took) == 0 {
		if latency != nil {
			t.Errorf("%s: got latency %v, want none", what, latency)
		}
		return
	}
	slices.Sort(took)
	for i, q := range quantiles {
		want := took[int(q*float64(len(took)-1))]
		if latency == nil || math.Abs(latency[i]-want) > 0.021*want {
			t.Errorf("%s: got latency %v, want %.2f at %v within 2 %%", what, latency, want, q)
		}
	}
}

// countsOnce writes lives in random batches of which some come again, in any order, and some are broken off.
func countsOnce(t *testing.T, s bundle) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	records := Lives(seed, 300)
	if r.IntN(2) == 0 {
		r.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	}
	var batches []store.Batch
	for rest := records; len(rest) > 0; {
		n := min(1+r.IntN(60), len(rest))
		batch := store.Batch{Records: slices.Clone(rest[:n])}
		if rest = rest[n:]; r.IntN(2) == 0 { // what comes again within a batch
			batch.Records = append(batch.Records, batch.Records[r.IntN(n)], records[r.IntN(len(records))])
		}
		batches = append(batches, batch)
	}
	for i, batch := range batches {
		if r.IntN(3) == 0 {
			brief, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(3000))*time.Microsecond)
			_ = s.Write(brief, batch) // may succeed or not; then it comes again in any case
			cancel()
		}
		s.write(batch)
		if r.IntN(3) == 0 {
			s.write(batches[r.IntN(i+1)])
		}
	}
	CheckStats(t, s)
}

// countsOnceForMany has replicas write the same at once.
func countsOnceForMany(t *testing.T, s bundle) {
	records := Lives(rand.Uint64(), 300)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for first := range 10 {
				batch := store.Batch{}
				for i := (first + w) % 10; i < len(records); i += 10 {
					batch.Records = append(batch.Records, records[i])
				}
				if err := s.Write(context.Background(), batch); err != nil {
					t.Errorf("write: %v", err)
				}
			}
		})
	}
	wg.Wait()
	CheckStats(t, s)
}

// thinsHours asks for the same sums before and after hours became days, also of what comes late.
func thinsHours(t *testing.T, s bundle) {
	records := Lives(7, 400)
	midnight := noon.Truncate(24 * time.Hour).Add(24 * time.Hour)
	thin := func(hoursUntil, daysUntil time.Time) {
		t.Helper()
		for more := true; more; {
			var err error
			if more, err = s.ThinStats(context.Background(), hoursUntil, daysUntil); err != nil {
				t.Fatal(err)
			}
		}
	}
	f := store.StatsFilter{ShopID: "shop-1", WebhookID: "wh_1", From: midnight.Add(-24 * time.Hour), To: midnight.Add(9 * 24 * time.Hour)}
	read := func() (hoursBefore, days int, sums map[time.Time]*store.Counts) {
		t.Helper()
		sums = make(map[time.Time]*store.Counts)
		for _, row := range stats(t, s, f) {
			if row.Day {
				days++
			} else if row.Start.Before(midnight) {
				hoursBefore++
			}
			day := row.Start.Truncate(24 * time.Hour)
			if sums[day] == nil {
				sums[day] = &store.Counts{}
			}
			sums[day].Add(row.Counts)
		}
		return hoursBefore, days, sums
	}
	for i, part := range [][]*busv1.Record{records[:len(records)/2], records[len(records)/2:]} {
		s.write(store.Batch{Records: part}) // the second one is late: its hours have become days
		hours, _, before := read()
		if hours == 0 {
			t.Fatalf("part %d: no hours to become a day", i)
		}
		thin(midnight, time.Time{})
		hours, days, after := read()
		if hours != 0 || days != 1 {
			t.Errorf("part %d: got %d hours and %d days, want one day in place of its hours", i, hours, days)
		}
		if len(after) != len(before) {
			t.Errorf("part %d: got %d days, want %d", i, len(after), len(before))
		}
		for day, want := range before {
			if got := after[day]; got == nil || text(*got) != text(*want) {
				t.Errorf("part %d: %v: got %+v, want %+v", i, day, got, want)
			}
		}
	}
	_, _, sums := read()
	var counted int64
	for _, day := range sums {
		counted += day.Deliveries
	}
	list, err := s.Deliveries(context.Background(), store.Filter{ShopID: f.ShopID, WebhookID: f.WebhookID, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	real := slices.DeleteFunc(list.Deliveries, (*shopbellv1.Delivery).GetTest)
	if counted != int64(len(real)) {
		t.Errorf("got %d deliveries, want %d", counted, len(real))
	}
	thin(midnight, midnight)
	if _, days, _ := read(); days != 0 {
		t.Errorf("got %d days that should be forgotten", days)
	}
}

// outlivesItsDetail forgets a delivery again and again while it is still under way.
func outlivesItsDetail(t *testing.T, s bundle) {
	const day = 24 * time.Hour
	write := func(at time.Duration, records ...*busv1.Record) {
		t.Helper()
		s.write(store.Batch{Records: records})
		if _, err := s.Forget(context.Background(), noon.Add(at), store.Keep{Age: 7 * day}); err != nil {
			t.Fatal(err)
		}
		if at > 0 {
			same(t, "what is left of it", s.list(store.Filter{ShopID: "shop"}), []string{})
		}
	}
	attempt := func(number int32, at time.Duration, status string, code int32) *busv1.Record {
		return made("shop", "evt", "wh_1", deliveryID(1), number, at, status, code)
	}
	write(0, decision("shop", "evt", time.Second, matched("wh_1", deliveryID(1)), matched("wh_1", deliveryID(2))), attempt(1, time.Minute, "retrying", 500))
	write(20 * day)
	write(21*day, attempt(2, 21*day, "retrying", 500))
	write(22*day, attempt(3, 22*day, "delivered", 200))
	write(23*day, made("shop", "evt", "wh_1", deliveryID(2), 1, 23*day, "failed", 404)) // was delayed for so long
	var got store.Counts
	for _, row := range stats(t, s, store.StatsFilter{ShopID: "shop", WebhookID: "wh_1", From: noon.Add(-day), To: noon.Add(30 * day)}) {
		got.Add(row.Counts)
	}
	if got, want := numbers(got), numbers(store.Counts{
		Deliveries: 2, Delivered: 1, Failed: 1, Attempted: 2, AttemptsOfDeliveries: 4, Attempts: 4,
		Failures: map[store.Failure]int64{{ErrorClass: "http_status", ResponseCode: 500}: 2, {ErrorClass: "http_status", ResponseCode: 404}: 1},
	}); got != want {
		t.Errorf("statistics: got %s, want %s", got, want)
	}
}
