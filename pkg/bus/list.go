package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Stored is a message as its stream keeps it.
type Stored struct {
	Subject  string
	Header   nats.Header
	Data     []byte
	Sequence uint64
	Time     time.Time // when it was stored
}

// readTimeout bounds how long the bus may take to begin, and between two messages of, an answer.
const readTimeout = 5 * time.Second

// behindPause is how long a replica that is behind is given to catch up.
const behindPause = 10 * time.Millisecond

// List gives the messages that lie on a subject from a sequence on, in their order: up to n of them, and no more than
// about size bytes (ADR-31). More says whether others lie behind them. Nothing that was stored before the call is
// overlooked: in a cluster any replica may answer, which may be a moment behind, and so the leader is asked about the end.
func (b *Bus) List(ctx context.Context, stream, subject string, from uint64, n, size int) (msgs []Stored, more bool, err error) {
	from = max(from, 1)
	for deadline := time.Now().Add(readTimeout); ; {
		if msgs, more, err = b.list(ctx, stream, subject, from, n, size); err != nil || more || b.replicas == 1 {
			return msgs, more, err
		}
		next := from
		if len(msgs) > 0 {
			next = msgs[len(msgs)-1].Sequence + 1
		}
		last, err := b.Last(ctx, stream, subject)
		if more = last >= next; err != nil || !more || len(msgs) > 0 {
			return msgs, more, err
		}
		if time.Now().After(deadline) {
			return nil, false, fmt.Errorf("list %s: message %d is on the stream's leader, and not yet on the replicas that answer", subject, last)
		}
		select {
		case <-ctx.Done():
			return nil, false, fmt.Errorf("list %s: %w", subject, ctx.Err())
		case <-time.After(behindPause):
		}
	}
}

// list is what one replica has of a List.
func (b *Bus) list(ctx context.Context, stream, subject string, from uint64, n, size int) (msgs []Stored, more bool, err error) {
	ask, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": subject, "batch": n, "max_bytes": size})
	if err != nil {
		return nil, false, err
	}
	answers := make(chan *nats.Msg, n+1) // all that can come, and the end; the client's own would have room for 65,536
	inbox, err := b.conn.ChanSubscribe(b.conn.NewInbox(), answers)
	if err != nil {
		return nil, false, fmt.Errorf("list %s: %w", subject, err)
	}
	defer func() { _ = inbox.Unsubscribe() }() // of a connection that is gone
	if err := b.conn.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox.Subject, ask); err != nil {
		return nil, false, fmt.Errorf("list %s: %w", subject, err)
	}
	patience := time.NewTimer(readTimeout)
	defer patience.Stop()
	for {
		var m *nats.Msg
		select {
		case m = <-answers:
			patience.Reset(readTimeout)
		case <-patience.C:
			return nil, false, fmt.Errorf("list %s: %w", subject, nats.ErrTimeout)
		case <-ctx.Done():
			return nil, false, fmt.Errorf("list %s: %w", subject, ctx.Err())
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204": // the end of the batch
			left, _ := strconv.Atoi(m.Header.Get("Nats-Num-Pending"))
			return msgs, left > 0, nil
		case "404":
			return nil, false, nil
		case "503":
			return nil, false, fmt.Errorf("list %s: %w", subject, nats.ErrNoResponders)
		default:
			return nil, false, fmt.Errorf("list %s: the bus answers %s %s", subject, status, m.Header.Get("Description"))
		}
		at, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return nil, false, fmt.Errorf("list %s: sequence of a message: %w", subject, err)
		}
		stored, err := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
		if err != nil {
			return nil, false, fmt.Errorf("list %s: time of a message: %w", subject, err)
		}
		msgs = append(msgs, Stored{Subject: m.Header.Get(jetstream.SubjectHeader), Header: m.Header, Data: m.Data, Sequence: at, Time: stored})
	}
}

// Last is the sequence of the last message on a subject, 0 when there is none. The stream's leader answers, so nothing
// that was stored before is overlooked.
func (b *Bus) Last(ctx context.Context, stream, subject string) (uint64, error) {
	at, err := b.place(ctx, stream, map[string]any{"last_by_subj": subject})
	if err != nil {
		return 0, fmt.Errorf("look for the last message on %s: %w", subject, err)
	}
	return at, nil
}

// Next is the sequence of the first message on a subject that has this sequence or a higher one, 0 when there is none. The
// stream's leader answers.
func (b *Bus) Next(ctx context.Context, stream, subject string, from uint64) (uint64, error) {
	at, err := b.place(ctx, stream, map[string]any{"next_by_subj": subject, "seq": max(from, 1)})
	if err != nil {
		return 0, fmt.Errorf("look for the next message on %s: %w", subject, err)
	}
	return at, nil
}

// place is the sequence of the message that is asked for, 0 when there is none.
func (b *Bus) place(ctx context.Context, stream string, question map[string]any) (uint64, error) {
	var answer struct {
		Message struct {
			Sequence uint64 `json:"seq"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := b.ask(ctx, "$JS.API.STREAM.MSG.GET."+stream, question, &answer); err != nil {
		return 0, err
	}
	if answer.Error != nil {
		if answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return 0, nil
		}
		return 0, answer.Error
	}
	return answer.Message.Sequence, nil
}

// Remove takes a message out of its stream. One that is gone already is no error.
func (b *Bus) Remove(ctx context.Context, stream string, sequence uint64) error {
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	ask := map[string]any{"seq": sequence, "no_erase": true}
	if err := b.ask(ctx, "$JS.API.STREAM.MSG.DELETE."+stream, ask, &answer); err != nil {
		return fmt.Errorf("remove message %d of %s: %w", sequence, stream, err)
	}
	if e := answer.Error; e != nil && e.ErrorCode != errSequenceNotFound && e.ErrorCode != errDeleteFailed {
		return fmt.Errorf("remove message %d of %s: %w", sequence, stream, e)
	}
	return nil
}

// error codes of the server for the removal of a message that is not there.
const (
	errSequenceNotFound jetstream.ErrorCode = 10043
	errDeleteFailed     jetstream.ErrorCode = 10057
)

// RemoveAll takes all messages on a subject out of their stream and says how many they were.
func (b *Bus) RemoveAll(ctx context.Context, stream, subject string) (int, error) {
	var answer struct {
		Purged int                 `json:"purged"`
		Error  *jetstream.APIError `json:"error"`
	}
	if err := b.ask(ctx, "$JS.API.STREAM.PURGE."+stream, map[string]string{"filter": subject}, &answer); err != nil {
		return 0, fmt.Errorf("remove all on %s: %w", subject, err)
	}
	if answer.Error != nil {
		return 0, fmt.Errorf("remove all on %s: %w", subject, answer.Error)
	}
	return answer.Purged, nil
}

// ask makes a request of the JetStream API.
func (b *Bus) ask(ctx context.Context, subject string, question, answer any) error {
	text, err := json.Marshal(question)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	m, err := b.conn.RequestWithContext(ctx, subject, text)
	if err != nil {
		return err
	}
	return json.Unmarshal(m.Data, answer)
}

// Tell publishes what is not stored, to those who overhear it now.
func (b *Bus) Tell(subject string, data []byte) error {
	if err := b.conn.Publish(subject, data); err != nil {
		return fmt.Errorf("tell %s: %w", subject, err)
	}
	return nil
}

// Overhear calls heard for every message that is published to a subject from now on, one after the other, until ctx ends; open is called
// when it listens. It is a hint and no more: what is published while the bus is away is not heard, and what is heard may not be
// stored yet.
func (b *Bus) Overhear(ctx context.Context, subject string, open func(), heard func(*nats.Msg)) error {
	sub, err := b.conn.Subscribe(subject, heard)
	if err != nil {
		return fmt.Errorf("overhear %s: %w", subject, err)
	}
	_ = b.conn.FlushTimeout(readTimeout) // of a connection that is gone: it listens when it is back
	open()
	<-ctx.Done()
	_ = sub.Unsubscribe() // of a connection that is gone
	return nil
}
