package sender

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
)

// comesAgain says whether a message was handed out before, to a sender that did not answer: it was killed, or is slow, or gave it
// back.
func comesAgain(m bus.Message) bool {
	meta, err := m.Metadata()
	return err == nil && meta.NumDelivered > 1
}

// wasMade says whether the attempt that a message asks for was made, held or put off by whoever had it before and was killed before he
// could answer: then the bus has the same delivery with that attempt or a later one. Made again, it would be followed by a second
// one of each that is to come. An attempt that somebody asked for is followed by none of its own, and is made.
//
// It is not all: where the later attempt was made too, and was the last, or where more deliveries of its webhook wait or are held
// than are looked at, it is made again. So it is when the bus is behind, never the other way round.
func (s *Sender) wasMade(ctx context.Context, m bus.Message, d *contract.Delivery) (bool, error) {
	if d.ByHand() || !comesAgain(m) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	waits, err := s.waitsLater(ctx, d)
	if err != nil || waits {
		return waits, err
	}
	from := uint64(1)
	if meta, err := m.Metadata(); err == nil && meta.Stream == contract.Later {
		from = meta.Sequence.Stream + 1 // the message itself is not behind itself
	}
	behind, _, err := s.env.Bus.List(ctx, contract.Later, contract.DeliverySubject(d.WebhookID, contract.Due), from, readAtOnce, readBytes)
	if err != nil || contains(behind, func(other *contract.Delivery) bool { return follows(other, d) }) {
		return err == nil, err
	}
	kept, _, err := s.env.Bus.List(ctx, contract.Held, contract.HeldSubject(d.WebhookID), 1, readAtOnce, readBytes)
	return contains(kept, func(other *contract.Delivery) bool { return other.ID == d.ID && other.Attempt >= d.Attempt }), err
}

func contains(batch []bus.Stored, is func(*contract.Delivery) bool) bool {
	return slices.ContainsFunc(batch, func(raw bus.Stored) bool {
		d, err := contract.ParseDelivery(raw.Header, raw.Data)
		return err == nil && is(&d)
	})
}

// waitsLater says whether a timer of a later attempt is set. One whose time has passed says nothing: after a kill of its server
// the bus may bring back a timer that has fired, and such a one never fires again.
func (s *Sender) waitsLater(ctx context.Context, d *contract.Delivery) (bool, error) {
	timer, err := s.env.Bus.LastMessage(ctx, contract.Later, contract.LaterSubject(d.WebhookID, d.ID))
	if err != nil || timer == nil {
		return false, err
	}
	later, due, _ := contract.ParseLater(timer.Header, timer.Data) // one that cannot be read is due at no time
	return follows(&later, d) && time.Now().Before(due), nil
}

// follows says whether a delivery is a later attempt of another, which its schedule asks for, or the same one put off.
func follows(later, d *contract.Delivery) bool {
	return later.ID == d.ID && (later.Attempt > d.Attempt || later.Attempt == d.Attempt && later.Deferred > d.Deferred) && !later.ByHand()
}

// leaveOut answers for an attempt that was made before.
func (s *Sender) leaveOut(ctx context.Context, m bus.Message, d *contract.Delivery) {
	s.env.Log.InfoContext(ctx, "an attempt comes again that was made; its repeat is left out", slog.String("shop_id", d.ShopID),
		slog.String("webhook_id", d.WebhookID), slog.String("delivery_id", d.ID), slog.Int("attempt", d.Attempt))
	s.settle(ctx, m, nil)
}
