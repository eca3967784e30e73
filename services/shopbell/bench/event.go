package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

const eventType = "order.created"

// eventID is the id that the event of a number is published with.
func eventID(number int) string { return fmt.Sprintf("order-%d-created", number) }

// eventText is an event as it is published.
func eventText(number int, sent time.Time) string { return typedText(eventType, number, sent) }

// typedText is an event of a type of its own.
func typedText(eventType string, number int, sent time.Time) string {
	return fmt.Sprintf(`{"id":%q,"type":%q,"data":%s}`, eventID(number), eventType, orderData(number, sent))
}

// bodyText is an event as a receiver gets it from a webhook of the profile "standard".
func bodyText(number int, sent time.Time) string {
	return fmt.Sprintf(`{"type":%q,"timestamp":%q,"data":%s}`, eventType, sent.UTC().Format("2006-01-02T15:04:05.000Z07:00"), orderData(number, sent))
}

// sentKey stands before the time at which an event was sent, which rides in its data: the receiver reads it there.
const sentKey = `"bench_sent_ns":`

// partKey stands before the part that an event has in its key, and its number.
const partKey = `"bench_part":"`

// keyedText is an event of a type that has a key.
func keyedText(eventType string, key, number int, sent time.Time) string {
	data := orderData(number, sent)
	return fmt.Sprintf(`{"id":"%s-%d","type":%q,"key":"order:%d","data":{%s%d/%d",%s}`, eventType, number, eventType, key, partKey, key, number, data[1:])
}

// keyed reads from a body what keyedText has written.
func keyed(body []byte) (a arrival, ok bool) {
	_, rest, ok := bytes.Cut(body, []byte(partKey))
	if !ok {
		return a, false
	}
	_, err := fmt.Fscanf(bytes.NewReader(rest), "%d/%d", &a.key, &a.number)
	return a, err == nil
}

// orderData is an event's data: an order as a shop system might tell of it, such that the body has about 1 KiB.
func orderData(number int, sent time.Time) string {
	return fmt.Sprintf(`{"order_id":%d,"order_no":%d,%s%d,`, 7_000_000+number, 1_000_000+number, sentKey, sent.UnixNano()) +
		`"status":"paid","currency":"EUR","total":549.50,"vat":109.90,"shipping":{"method":"parcel_shop","price":4.95,` +
		`"tracking":"JD014600007123498765"},"customer":{"id":88121,"email":"mette.s@example.com","name":"Mette Søndergård",` +
		`"phone":"+45 20 12 34 56","language":"da"},"address":{"street":"Nørrebrogade 112, 3. tv.","zip":"2200",` +
		`"city":"København N","country":"DK"},"items":[{"sku":"TULIP-30","name":"Tulips, 30 colours","quantity":2,"price":` +
		`199.75,"stock_left":17},{"sku":"POT-TERRA-14","name":"Pot, terracotta, 14 cm","quantity":4,"price":29.00,` +
		`"stock_left":203},{"sku":"SOIL-10L","name":"Potting soil, 10 l","quantity":1,"price":34.00,"stock_left":58}],` +
		`"payment":{"method":"card","brand":"visa","transaction":"txn_5QdM2bVxA81","paid_at":"2026-05-01T10:30:00+02:00"},` +
		`"note":"Please leave it with the neighbour on the 2nd floor.","created_at":"2026-05-01T10:29:12+02:00"}`
}

// sentTime reads from a body when its event was sent.
func sentTime(body []byte) (time.Time, error) {
	_, rest, _ := bytes.Cut(body, []byte(sentKey))
	digits, _, _ := bytes.Cut(rest, []byte{','})
	ns, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("the body does not say when it was sent: %.80q", body)
	}
	return time.Unix(0, ns), nil
}
