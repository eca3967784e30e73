// Package contract is what lies on the bus and what it is called: streams, subjects, consumers, buckets and headers.
// Nobody else makes or takes apart a subject.
package contract

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The streams.
const (
	Batches    = "BATCHES"
	Events     = "EVENTS"
	Deliveries = "DELIVERIES"
	Later      = "LATER"
	Held       = "HELD"
	Outcomes   = "OUTCOMES"
)

// The buckets.
const (
	Webhooks = "WEBHOOKS"
	Shops    = "SHOPS"
	Replays  = "REPLAYS"
	Keys     = "KEYS"
	Lanes    = "LANES"
)

// The durable consumers. A consumer belongs to a room; its replicas share the work.
const (
	Matcher     = "subscription-matcher" // on EVENTS: matches webhooks
	BulkMatcher = "subscription-bulk"    // on EVENTS: the same for bursts
	Switcher    = "subscription-switch"  // on OUTCOMES: switches webhooks off
	Sender      = "sender"               // on DELIVERIES: makes attempts
	BulkSender  = "sender-bulk"          // on DELIVERIES: the same for what came of bursts
	DueSender   = "sender-due"           // on LATER: the same for what a timer has made due
	LogEvents   = "log-events"           // on EVENTS: remembers events
	LogOutcomes = "log-outcomes"         // on OUTCOMES: remembers what became of them
)

// Senders are the consumers of the senders.
func Senders() []string { return []string{Sender, BulkSender, DueSender} }

// Options are the choices of a deployment. All rooms must be given the same.
type Options struct {
	// Replicas is how many nodes of the NATS cluster keep each stream and bucket: 1, 3 or 5.
	Replicas int
	// KeepEvents is how long events stay on the bus, at least an hour. It bounds how long subscription and log may
	// be away without losing anything.
	KeepEvents time.Duration
	// KeepOutcomes is the same for outcomes.
	KeepOutcomes time.Duration
	// DuplicateWindow is how long the id of an event is remembered, so that a repeat is answered "duplicate". Each id
	// costs 130 bytes of the server's memory.
	DuplicateWindow time.Duration
}

// DefaultOptions suit one machine.
func DefaultOptions() Options {
	return Options{Replicas: 1, KeepEvents: 7 * 24 * time.Hour, KeepOutcomes: 7 * 24 * time.Hour, DuplicateWindow: time.Hour}
}

// Streams are all streams, as they must be.
func Streams(o Options) []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name:        Batches,
			Description: "events that are taken all of them or none, until EVENTS has them",
			Subjects:    []string{BatchSubjects},
			Retention:   jetstream.LimitsPolicy,
			MaxAge:      o.KeepEvents,
			Storage:     jetstream.FileStorage,
			Replicas:    o.Replicas,
			Duplicates:  2 * time.Minute,
			AllowDirect: true,
		},
		{
			Name:        Events,
			Description: "what happened in the shops",
			Subjects:    []string{"events.>"},
			Retention:   jetstream.LimitsPolicy,
			MaxAge:      o.KeepEvents,
			Storage:     jetstream.FileStorage,
			Replicas:    o.Replicas,
			Duplicates:  min(o.DuplicateWindow, o.KeepEvents),
			AllowDirect: true,
		},
		{
			Name:        Deliveries,
			Description: "events on their way to webhooks",
			Subjects:    []string{deliverySubjects(Straight), deliverySubjects(Bulk), FillerSubject(Deliveries)},
			Retention:   jetstream.WorkQueuePolicy,
			Storage:     jetstream.FileStorage,
			Replicas:    o.Replicas,
			// Long enough for a publisher that repeats itself after a crash and an AckWait.
			Duplicates:        2 * time.Minute,
			AllowMsgSchedules: true, // an earlier build's timers were here, and no server takes it back
			AllowRollup:       true, // a filler may replace the one before it
			AllowDirect:       true,
		},
		{
			// Not in DELIVERIES: what waits lies between what comes and goes, the server writes the files that hold both anew
			// again and again, and nothing is stored in a stream or taken from it meanwhile.
			Name:              Later,
			Description:       "deliveries that wait for their time, and those whose time has come",
			Subjects:          []string{timerSubjects, deliverySubjects(Due), FillerSubject(Later)},
			Retention:         jetstream.WorkQueuePolicy,
			Storage:           jetstream.FileStorage,
			Replicas:          o.Replicas,
			Duplicates:        2 * time.Minute, // as in DELIVERIES
			AllowMsgSchedules: true,            // timers: ADR-51
			AllowRollup:       true,            // a timer or filler may replace the one before it
			AllowDirect:       true,
		},
		{
			Name:        Held,
			Description: "deliveries that wait until their webhook's lane takes them",
			Subjects:    []string{HeldSubjects, "tries.*.*", AllCancelSubjects, FillerSubject(Held)},
			Retention:   jetstream.LimitsPolicy,
			Storage:     jetstream.FileStorage,
			Replicas:    o.Replicas,
			Duplicates:  2 * time.Minute,
			AllowRollup: true, // of tries, wishes and fillers, each replaces the one before it
			AllowDirect: true,
		},
		{
			Name:        Outcomes,
			Description: "what was decided and what came of it",
			Subjects:    []string{"outcomes.*.*", "outcomes.*.*.switch"},
			Retention:   jetstream.LimitsPolicy,
			MaxAge:      o.KeepOutcomes,
			Storage:     jetstream.FileStorage,
			Replicas:    o.Replicas,
			Duplicates:  2 * time.Minute, // of wishes to switch off; records have no ids
			AllowDirect: true,
		},
	}
}

// keepReplays is how long a job is kept after it last changed.
const keepReplays = 30 * 24 * time.Hour

// Buckets are all buckets, as they must be.
func Buckets(o Options) []jetstream.KeyValueConfig {
	return []jetstream.KeyValueConfig{
		{Bucket: Webhooks, Description: "the webhooks, by shop and id", History: 5, Storage: jetstream.FileStorage, Replicas: o.Replicas},
		{Bucket: Shops, Description: "the shops' settings", History: 5, Storage: jetstream.FileStorage, Replicas: o.Replicas},
		{Bucket: Replays, Description: "jobs that send again, by shop and id", History: 1, TTL: keepReplays, Storage: jetstream.FileStorage, Replicas: o.Replicas},
		// Of a key that was deleted nothing stays.
		{Bucket: Keys, Description: "the shops' keys, by shop and id", History: 1, Storage: jetstream.FileStorage, Replicas: o.Replicas},
		{
			Bucket: Lanes, Description: "the lanes that hold deliveries, and the senders that are alive", History: 1,
			Storage: jetstream.FileStorage, Replicas: o.Replicas, LimitMarkerTTL: time.Hour,
		},
	}
}

// ackWait is how long a message that somebody took may stay unanswered before it is handed out again: the time that
// passes until the work of a process that was killed goes on. Whoever works longer says so with InProgress.
const ackWait = 20 * time.Second

// Consumer is a durable consumer and the stream it reads.
type Consumer struct {
	Stream string
	Config jetstream.ConsumerConfig
}

// Consumers are all consumers, as they must be.
func Consumers() []Consumer {
	consumer := func(stream, name, filter string, pending int) Consumer {
		return Consumer{stream, jetstream.ConsumerConfig{
			Durable: name, FilterSubject: filter, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
			MaxAckPending: pending, DeliverPolicy: jetstream.DeliverAllPolicy, MaxDeliver: -1,
		}}
	}
	return []Consumer{
		consumer(Events, Matcher, "events.single.>", 10_000),
		consumer(Events, BulkMatcher, "events.bulk.>", 10_000),
		consumer(Events, LogEvents, "events.>", 20_000),
		consumer(Deliveries, Sender, deliverySubjects(Straight), 20_000),
		consumer(Deliveries, BulkSender, deliverySubjects(Bulk), 20_000),
		consumer(Later, DueSender, deliverySubjects(Due), 20_000),
		consumer(Outcomes, LogOutcomes, OutcomeSubjects, 20_000),
		consumer(Outcomes, Switcher, "outcomes.*.*.switch", 1_000),
	}
}
