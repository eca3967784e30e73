package main

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/id"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// How the world looks: a few large shops and many small ones, a few frequent types of events and some rare ones.
const (
	shops    = 500
	perShop  = 8 // webhooks
	types    = 17
	days     = 30
	perBatch = 1000 // events
)

// world makes what happened in 30 days. Of a hundred deliveries 93 are delivered at once, four by the second attempt; two
// are answered 404 and given up; one times out three times.
type world struct {
	rows int // attempts that are to be made
	made int

	random  *rand.Rand
	shop    *rand.Zipf
	event   *rand.Zipf
	samples []sample
}

// sample is a delivery that searches look for.
type sample struct {
	shopID, webhookID, eventType, eventID, deliveryID, email string
	at                                                       time.Time
}

// begin is when the 30 days begin. Always the same: so are the ids, but for their random parts.
var begin = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

func newWorld(rows int) *world {
	random := rand.New(rand.NewPCG(1, 2)) // the same numbers each time
	return &world{rows: rows, random: random, shop: rand.NewZipf(random, 1.2, 5, shops-1), event: rand.NewZipf(random, 1.5, 2, types-1)}
}

// batches are as the room pulls them: events, and then the records of what became of them, with the attempts that come
// later among the records of a later batch.
func (w *world) batches() iter.Seq[store.Batch] {
	return func(yield func(store.Batch) bool) {
		var later []*busv1.Record
		for w.made < w.rows {
			var events, records store.Batch
			records.Records, later = later, nil
			for range perBatch {
				e, now, then := w.happen()
				events.Events = append(events.Events, e)
				records.Records = append(records.Records, now...)
				later = append(later, then...)
			}
			if !yield(events) || !yield(records) {
				return
			}
		}
	}
}

// happen is one event, the records of its deliveries, and those that follow a minute later.
func (w *world) happen() (e *shopbellv1.Event, now, then []*busv1.Record) {
	at := begin.Add(time.Duration(float64(w.made) / float64(w.rows) * float64(days*24*time.Hour)))
	shop := w.shop.Uint64()
	shopID, eventType, orderNo := fmt.Sprintf("shop-%03d", shop), fmt.Sprintf("order_%02d", w.event.Uint64()), w.random.IntN(1_000_000)
	email := fmt.Sprintf("kunde-%d@example.com", w.random.IntN(10_000_000))
	e = &shopbellv1.Event{
		ShopId: shopID, Id: id.New(id.Event, at), Type: eventType, Environment: "live", ContentType: "application/json",
		AcceptedAt: timestamppb.New(at), Content: &shopbellv1.Event_Data{Data: w.order(orderNo, email)},
	}
	decision := &busv1.Decision{}
	now = append(now, &busv1.Record{
		At: timestamppb.New(at.Add(2 * time.Millisecond)), ShopId: shopID, EventId: e.GetId(), EventType: eventType,
		What: &busv1.Record_Decision{Decision: decision},
	})
	for webhook := range 1 + w.random.IntN(perShop) {
		webhookID := fmt.Sprintf("wh_01KQH4V5T2Z9QW3N8X%03d%05d", shop, webhook)
		d := delivery{event: e, webhookID: webhookID, id: id.New(id.Delivery, at)}
		decision.Considered = append(decision.Considered, &shopbellv1.Considered{
			WebhookId: webhookID, Label: "Warehouse", Matched: true, Reason: "it wants " + eventType, DeliveryId: d.id,
		})
		switch n := w.random.IntN(100); {
		case n < 93:
			now = append(now, w.attempt(d, 1, "delivered", 200, ""))
		case n < 97:
			now = append(now, w.attempt(d, 1, "retrying", 500, "http_status"))
			then = append(then, w.attempt(d, 2, "delivered", 200, ""))
		case n < 99:
			now = append(now, w.attempt(d, 1, "failed", 404, "http_status"))
		default:
			now = append(now, w.attempt(d, 1, "retrying", 0, "timeout"))
			then = append(then, w.attempt(d, 2, "retrying", 0, "timeout"), w.attempt(d, 3, "failed", 0, "timeout"))
		}
		if w.random.IntN(1+w.rows/1000) == 0 {
			w.samples = append(w.samples, sample{shopID, webhookID, eventType, e.GetId(), d.id, email, at})
		}
	}
	return e, now, then
}

// order is a shop's order of about 1 KB.
func (w *world) order(no int, email string) []byte {
	b := fmt.Appendf(nil, `{"order_id":%d,"order_no":%d,"email":%q,"total":%d.50,"currency":"DKK","status":"paid","lines":[`,
		w.random.IntN(1e8), no, email, w.random.IntN(5000))
	for i := range 4 {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"product_id":%d,"sku":"SKU-%06d","name":"Wool sweater, size M, color no. %d","quantity":%d,"price":%d.95,"vat":25,"weight_grams":%d,"url":"https:\/\/example.com\/products\/%d"}`,
			w.random.IntN(1e6), w.random.IntN(1e6), w.random.IntN(40), 1+w.random.IntN(4), w.random.IntN(900), w.random.IntN(2000), w.random.IntN(1e6))
	}
	return append(b, `],"shipping":{"name":"Kirsten Hansen","street":"Nørregade 12","zip":"1165","city":"København K","country":"DK"}}`...)
}

type delivery struct {
	event         *shopbellv1.Event
	webhookID, id string
}

func (w *world) attempt(d delivery, number int32, status string, code int32, class string) *busv1.Record {
	w.made++
	at := d.event.GetAcceptedAt().AsTime().Add(time.Duration(number-1)*time.Minute + 5*time.Millisecond)
	took := 5 + w.random.Float64()*60
	a := &shopbellv1.Attempt{
		Number: number, StartedAt: timestamppb.New(at), DurationMs: took, ResponseCode: code, ErrorClass: class, Verdict: status,
		Url: "https://example.com/hooks/shopbell", RequestHeaders: requestHeaders(d.id),
		Timings: &shopbellv1.Timings{FirstByteMs: took},
	}
	if code > 0 {
		a.ResponseHeaders, a.ResponseBody = responseHeaders, []byte(`{"ok":true}`)
	}
	return &busv1.Record{
		At: timestamppb.New(at.Add(time.Duration(took * float64(time.Millisecond)))), ShopId: d.event.GetShopId(),
		EventId: d.event.GetId(), EventType: d.event.GetType(),
		What: &busv1.Record_Attempt{Attempt: &busv1.AttemptMade{
			DeliveryId: d.id, WebhookId: d.webhookID, MatchedAt: timestamppb.New(d.event.GetAcceptedAt().AsTime().Add(2 * time.Millisecond)),
			Attempt: a, Status: status, Reason: "answered", BodyPrefix: []byte(`{"event":"` + d.event.GetType() + `","data":`), BodySuffix: []byte(`}`),
		}},
	}
}

func requestHeaders(deliveryID string) []*shopbellv1.Header {
	return []*shopbellv1.Header{
		{Name: "Content-Type", Value: "application/json"},
		{Name: "User-Agent", Value: "Shopbell/1.0"},
		{Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"},
		{Name: "webhook-id", Value: deliveryID},
		{Name: "webhook-timestamp", Value: "1777636802"},
		{Name: "webhook-signature", Value: "v1,…"},
	}
}

var responseHeaders = []*shopbellv1.Header{
	{Name: "Content-Type", Value: "application/json"}, {Name: "Server", Value: "nginx"}, {Name: "Date", Value: "Fri, 01 May 2026 12:00:00 GMT"},
}
