package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	sketch "github.com/DataDog/sketches-go/ddsketch/store"
	"google.golang.org/protobuf/proto"

	logv1 "shopbell.dev/proto/shopbell/log/v1"
)

// StatsKey says of whom and of when a row of statistics is.
type StatsKey struct {
	// Day is false for an hour, true for a day. Hours that are long past are put together into their day.
	Day bool
	// Start is when the hour or day begins, UTC.
	Start  time.Time
	ShopID string
	// WebhookID is empty for the shop's own row, the sum of its webhooks.
	WebhookID string
}

func (k StatsKey) compare(o StatsKey) int {
	switch {
	case k.Day == o.Day:
		return cmp.Or(k.Start.Compare(o.Start), cmp.Compare(k.ShopID, o.ShopID), cmp.Compare(k.WebhookID, o.WebhookID))
	case o.Day:
		return -1
	default:
		return 1
	}
}

// StatsRow is what was counted of a webhook, or of a shop, in an hour or on a day.
type StatsRow struct {
	StatsKey
	Counts *Counts
}

// StatsFilter chooses statistics.
type StatsFilter struct {
	ShopID    string // required
	WebhookID string // empty: the shop's own
	// What begins at From or later, and before To. Both are required.
	From, To time.Time
}

// Starts are when the hours and the days begin that the filter chooses. The stores' keys begin with them, so that a
// query names each.
func (f StatsFilter) Starts() (hours, days []time.Time) {
	for h := f.From.UTC().Truncate(time.Hour); h.Before(f.To); h = h.Add(time.Hour) {
		if h.Before(f.From) {
			continue
		}
		hours = append(hours, h)
		if h.Equal(dayOf(h)) {
			days = append(days, h)
		}
	}
	return hours, days
}

func dayOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// Counts are what was counted: see logv1.Counts. They add up in any order and in any parts.
type Counts struct {
	Deliveries, Delivered, Failed, Cancelled int64
	Attempted, AttemptsOfDeliveries          int64
	Attempts                                 int64
	Failures                                 map[Failure]int64
	latency                                  *ddsketch.DDSketch // nil: nothing was answered
}

// Failure is a way in which attempts failed.
type Failure struct {
	ErrorClass   string
	ResponseCode int32
}

// latencyMapping makes quantiles right within 2 %: some 5 bytes a row for one answer, 100 for a hundred, 350 for ten
// thousand. Every row is in it, so it never changes.
var latencyMapping, _ = mapping.NewLogarithmicMapping(0.02) // fails for accuracies outside 0 to 1

// longest is the most that is told apart: a day in milliseconds.
const longest = 24 * 60 * 60 * 1000

func newSketch() *ddsketch.DDSketch {
	return ddsketch.NewDDSketch(latencyMapping, sketch.BufferedPaginatedStoreConstructor(), sketch.SparseStoreConstructor())
}

// Add adds what o counted. o stays as it is.
func (c *Counts) Add(o *Counts) {
	c.Deliveries += o.Deliveries
	c.Delivered += o.Delivered
	c.Failed += o.Failed
	c.Cancelled += o.Cancelled
	c.Attempted += o.Attempted
	c.AttemptsOfDeliveries += o.AttemptsOfDeliveries
	c.Attempts += o.Attempts
	for failure, n := range o.Failures {
		c.failed(failure, n)
	}
	if o.latency != nil {
		if c.latency == nil {
			c.latency = newSketch()
		}
		_ = c.latency.MergeWith(o.latency) // fails for another mapping, and there is only one
	}
}

func (c *Counts) failed(f Failure, n int64) {
	if c.Failures == nil {
		c.Failures = make(map[Failure]int64)
	}
	c.Failures[f] += n
}

func (c *Counts) answered(ms float64) {
	if c.latency == nil {
		c.latency = newSketch()
	}
	if !(ms > 0) { // not a number, too
		ms = 0
	}
	_ = c.latency.Add(min(ms, longest)) // fails outside of what the mapping can hold, and this is within
}

// Latency is, for each quantile between 0 and 1, the time in milliseconds within which so many of the answers came. It
// is nil when there was no answer.
func (c *Counts) Latency(quantiles ...float64) []float64 {
	if c.latency == nil || c.latency.IsEmpty() {
		return nil
	}
	values, err := c.latency.GetValuesAtQuantiles(quantiles)
	if err != nil {
		return nil // a quantile outside 0 to 1
	}
	return values
}

// zero says that adding it changes nothing.
func (c *Counts) zero() bool {
	return c.Deliveries == 0 && c.Delivered == 0 && c.Failed == 0 && c.Cancelled == 0 && c.Attempted == 0 &&
		c.AttemptsOfDeliveries == 0 && c.Attempts == 0 && len(c.Failures) == 0 && c.latency == nil
}

// Encode is a row's column.
func (c *Counts) Encode() []byte {
	m := &logv1.Counts{
		Deliveries: c.Deliveries, Delivered: c.Delivered, Failed: c.Failed, Cancelled: c.Cancelled,
		Attempted: c.Attempted, AttemptsOfDeliveries: c.AttemptsOfDeliveries, Attempts: c.Attempts,
	}
	for failure, n := range c.Failures {
		m.Failures = append(m.Failures, &logv1.FailureCount{ErrorClass: failure.ErrorClass, ResponseCode: failure.ResponseCode, Count: n})
	}
	if c.latency != nil {
		c.latency.Encode(&m.Latency, true)
	}
	return blob(m)
}

// DecodeCounts reads what Encode wrote. A row that somebody else damaged says nothing rather than stopping the log.
func DecodeCounts(b []byte) *Counts {
	m := &logv1.Counts{}
	if err := proto.Unmarshal(b, m); err != nil {
		return &Counts{}
	}
	c := &Counts{
		Deliveries: m.GetDeliveries(), Delivered: m.GetDelivered(), Failed: m.GetFailed(), Cancelled: m.GetCancelled(),
		Attempted: m.GetAttempted(), AttemptsOfDeliveries: m.GetAttemptsOfDeliveries(), Attempts: m.GetAttempts(),
	}
	for _, f := range m.GetFailures() {
		c.failed(Failure{f.GetErrorClass(), f.GetResponseCode()}, f.GetCount())
	}
	if len(m.GetLatency()) > 0 {
		c.latency = newSketch()
		if err := c.latency.DecodeAndMergeWith(m.GetLatency()); err != nil {
			c.latency = nil
		}
	}
	return c
}

// Tally gathers what a batch adds to the statistics, so that each row of them is written once. Only what a store
// really made or changed may be given to it, and what it gathers is written in the same transaction: so a record that
// is written again counts once.
type Tally map[StatsKey]*Counts

// Changed counts that a delivery's row was changed. Whatever a row looks like in the end is what the changes to it amount
// to, in whichever order they came.
func (t Tally) Changed(before, after State) {
	t.delivery(before, -1)
	t.delivery(after, +1)
}

// Made counts a delivery whose row was made. Rows of events that were accepted before forgotten were counted when they were
// made for the first time: what such a delivery counted until then follows from what is known of it now.
func (t Tally) Made(d State, forgotten time.Time) {
	before := State{}
	if born := Born(d.ID); born.Before(forgotten) && !born.Equal(unknownTime) {
		before = d
		before.Attempt, before.Change = AttemptState{}, Change{}
		if n := d.Attempt.Number; n > 1 {
			before.Attempt = AttemptState{Number: n - 1, At: d.CreatedAt, Status: "retrying"}
		}
	}
	t.Changed(before, d)
}

// delivery adds n times what a delivery in this state counts.
func (t Tally) delivery(s State, n int64) {
	if s.ID == "" || s.Test {
		return
	}
	for _, c := range t.of(s.CreatedAt, s.ShopID, s.WebhookID) {
		c.Deliveries += n
		switch s.Status() {
		case "delivered":
			c.Delivered += n
		case "failed":
			c.Failed += n
		case "cancelled":
			c.Cancelled += n
		}
		if s.attempted() {
			c.Attempted += n
			c.AttemptsOfDeliveries += n * int64(max(s.Attempt.Number, 1))
		}
	}
}

// Attempt counts an attempt whose row was made.
func (t Tally) Attempt(row AttemptRow) {
	if row.Made.GetTest() {
		return
	}
	made := row.Made.GetAttempt()
	for _, c := range t.of(row.StartedAt, row.ShopID, Key(row.Made.GetWebhookId())) {
		c.Attempts++
		if class := made.GetErrorClass(); class != "" {
			c.failed(Failure{Text(class), made.GetResponseCode()}, 1)
		}
		if made.GetResponseCode() > 0 {
			c.answered(made.GetDurationMs())
		}
	}
}

// of are the rows that something counts in: the shop's and the webhook's. An odd record that names no webhook counts for
// its shop alone.
func (t Tally) of(at time.Time, shopID, webhookID string) []*Counts {
	k := StatsKey{Start: at.UTC().Truncate(time.Hour), ShopID: shopID}
	counts := []*Counts{t.at(k)}
	if webhookID != "" {
		k.WebhookID = webhookID
		counts = append(counts, t.at(k))
	}
	return counts
}

func (t Tally) at(k StatsKey) *Counts {
	if t[k] == nil {
		t[k] = &Counts{}
	}
	return t[k]
}

// Rows are what is to be added, in the order of their keys.
func (t Tally) Rows() []StatsRow {
	rows := make([]StatsRow, 0, len(t))
	for k, c := range t {
		if !c.zero() {
			rows = append(rows, StatsRow{k, c})
		}
	}
	slices.SortFunc(rows, func(a, b StatsRow) int { return a.StatsKey.compare(b.StatsKey) })
	return rows
}

// Days gathers rows of hours as their days.
func Days(hours []StatsRow) Tally {
	t := make(Tally)
	for _, row := range hours {
		t.at(StatsKey{Day: true, Start: dayOf(row.Start), ShopID: row.ShopID, WebhookID: row.WebhookID}).Add(row.Counts)
	}
	return t
}
