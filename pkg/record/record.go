// Package record writes what happened onto OUTCOMES, and reads it. What several goroutines write at about the same time is
// one message: the bus then stores, hands out and is answered once for all of it.
package record

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// What one message holds at most. A record that is larger is a message of its own.
const (
	maxRecords = 256
	maxBytes   = 128 << 10
)

// Messages makes as few messages as hold the records.
func Messages(records ...*busv1.Record) (msgs []*nats.Msg, err error) {
	for p := (packet{}); len(records) > 0; p = (packet{}) {
		for len(records) > 0 {
			value, err := marshal(records[0])
			if err != nil {
				return nil, err
			}
			if !p.fits(value) {
				break
			}
			p.add(records[0], value)
			records = records[1:]
		}
		msgs = append(msgs, p.message())
	}
	return msgs, nil
}

// Read gives the records of a message of OUTCOMES.
func Read(h nats.Header, data []byte) ([]*busv1.Record, error) {
	if contract.IsRecords(h) {
		all := &busv1.Records{}
		if err := proto.Unmarshal(data, all); err != nil {
			return nil, fmt.Errorf("read records: %w", err)
		}
		return all.GetRecords(), nil
	}
	one := &busv1.Record{}
	if err := proto.Unmarshal(data, one); err != nil {
		return nil, fmt.Errorf("read a record: %w", err)
	}
	return []*busv1.Record{one}, nil
}

// Change is what the log is told of a delivery that has another status without an attempt.
func Change(d *contract.Delivery, status, reason string) *busv1.Record {
	return &busv1.Record{
		At: timestamppb.Now(), ShopId: d.ShopID, EventId: d.Event.ID, EventType: d.Type,
		What: &busv1.Record_Change{Change: &busv1.StatusChange{
			DeliveryId: d.ID, WebhookId: d.WebhookID, MatchedAt: timestamppb.New(d.MatchedAt), Status: status, Reason: reason,
		}},
	}
}

// Traced has a record belong to the trace of ctx, if anybody follows that, and gives it back.
func Traced(ctx context.Context, r *busv1.Record) *busv1.Record {
	if trace.SpanContextFromContext(ctx).IsSampled() {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(ctx, carrier)
		r.Traceparent = carrier[traceparent]
	}
	return r
}

// Trace gives a context with the trace that a record belongs to, if anybody follows it.
func Trace(ctx context.Context, r *busv1.Record) context.Context {
	if r.GetTraceparent() == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparent: r.GetTraceparent()})
}

const traceparent = "traceparent"

func marshal(r *busv1.Record) ([]byte, error) {
	value, err := proto.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("record what happened to event %s: %w", r.GetEventId(), err)
	}
	return value, nil
}

// webhookOf is the webhook that a record speaks of; empty when it speaks of several.
func webhookOf(r *busv1.Record) string {
	switch what := r.GetWhat().(type) {
	case *busv1.Record_Attempt:
		return what.Attempt.GetWebhookId()
	case *busv1.Record_Change:
		return what.Change.GetWebhookId()
	}
	return ""
}

// packet is records that become one message. Its zero value is empty.
type packet struct {
	shop, webhookID string // empty when they are of several
	records         [][]byte
	size            int // of the records
}

func (p *packet) fits(value []byte) bool {
	return len(p.records) == 0 || len(p.records) < maxRecords && p.size+len(value) <= maxBytes
}

func (p *packet) add(r *busv1.Record, value []byte) {
	switch shop, webhookID := r.GetShopId(), webhookOf(r); {
	case len(p.records) == 0:
		p.shop, p.webhookID = shop, webhookID
	case p.shop != shop:
		p.shop, p.webhookID = "", ""
	case p.webhookID != webhookID:
		p.webhookID = ""
	}
	p.records = append(p.records, value)
	p.size += len(value)
}

func (p *packet) message() *nats.Msg {
	if len(p.records) == 1 {
		return contract.RecordMessage(p.shop, p.webhookID, p.records[0])
	}
	const around = 1 + binary.MaxVarintLen32 // of each
	body := make([]byte, 0, p.size+len(p.records)*around)
	for _, value := range p.records {
		body = protowire.AppendBytes(protowire.AppendTag(body, 1, protowire.BytesType), value) // busv1.Records
	}
	return contract.RecordsMessage(p.shop, p.webhookID, body, len(p.records))
}

// publishTimeout bounds how long the bus may take to store a message.
const publishTimeout = 15 * time.Second
