package eventlog

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

const (
	// lease is how long a process has a job for itself after it last said how far it is. When it dies, another takes the
	// job over after that.
	lease = 15 * time.Second
	// maxJobs is how many jobs a process works on at once.
	maxJobs = 4
	// maxChunk is how many are put on their way between two notes of how far the job is: so many may be sent twice when
	// the process dies.
	maxChunk = 100
	// fewPerSecond is how often in a second some of a chunk are put on their way at most.
	fewPerSecond = 500
	// maxBacklog is how many deliveries may wait for the senders before a job waits, too: what happens now goes first.
	maxBacklog = 200
)

// run works on jobs until ctx ends. A job that is begun then is left where it is, for whoever comes next.
func (r *replays) run(ctx context.Context) error {
	group, work := errgroup.WithContext(ctx)
	group.Go(func() error {
		return r.log.env.Bus.Watch(work, contract.Replays, func(entry bus.Entry) { r.hear(work, entry) }, func() {})
	})
	group.Go(func() error {
		tick := time.NewTicker(time.Second) // a lease may have run out
		defer tick.Stop()
		for {
			select {
			case <-work.Done():
				return nil
			case <-tick.C:
			case <-r.changed:
			}
			for _, j := range r.free() {
				if !r.take(work, j) {
					continue
				}
				group.Go(func() error {
					r.work(work, j)
					r.mu.Lock()
					defer r.mu.Unlock()
					delete(r.working, j.key)
					return nil
				})
			}
		}
	})
	return group.Wait()
}

// hear notes what the bucket says of a job.
func (r *replays) hear(ctx context.Context, entry bus.Entry) {
	var j *job
	if entry.Operation() == jetstream.KeyValuePut {
		var err error
		if j, err = parseJob(entry); err != nil {
			r.log.env.Log.ErrorContext(ctx, "a job cannot be read; it is left alone", slog.String("key", entry.Key()), slog.Any("error", err))
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if j == nil || j.Replay.GetStatus() != replayRunning {
		delete(r.known, entry.Key())
		return
	}
	r.known[entry.Key()] = j
	signal(r.changed)
}

// free are jobs that nobody works on, the oldest first, as many as this process may take.
func (r *replays) free() (jobs []*job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for key, j := range r.known {
		if !r.working[key] && (j.Holder == "" || now.After(j.HeldUntil.AsTime())) {
			jobs = append(jobs, &job{proto.CloneOf(j.ReplayState), key, j.revision})
		}
	}
	slices.SortFunc(jobs, func(a, b *job) int { return cmp.Compare(a.Replay.GetId(), b.Replay.GetId()) })
	return jobs[:min(len(jobs), maxJobs-len(r.working))]
}

// take makes a job this process's own, unless another was faster.
func (r *replays) take(ctx context.Context, j *job) bool {
	j.Holder, j.HeldUntil = r.me, timestamppb.New(time.Now().Add(lease))
	if err := r.put(ctx, j); err != nil {
		return false // or the bus is away: it is tried again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.working[j.key] = true
	return true
}

// work does a job chunk by chunk, until it is over, somebody else has it, or ctx ends.
//
// A chunk is put on its way, and then it is noted how far the job is. Who dies in between has the chunk repeated by whoever
// comes next; the bus knows it by its ids, and stores nothing twice that it still remembers. So none is skipped, and at
// most one chunk is sent twice.
func (r *replays) work(ctx context.Context, j *job) {
	log := r.log.env.Log.With(slog.String("shop_id", j.Replay.GetShopId()), slog.String("job_id", j.Replay.GetId()))
	log.InfoContext(ctx, "replay goes on", slog.Int("done", int(j.Replay.GetDone())), slog.Int("total", int(j.Replay.GetTotal())))
	var next source = &deliverySource{replays: r, job: j}
	if j.Replay.Asked.GetToWebhookId() != "" {
		next = &eventSource{replays: r, job: j}
	}
	for noted := time.Now(); ctx.Err() == nil; {
		began, rate, crowded := time.Now(), r.rate(j), r.crowded(ctx)
		if crowded && time.Since(noted) < lease/3 {
			wait(ctx, 100*time.Millisecond)
			continue
		}
		sent := 0
		if !crowded {
			var err error
			if sent, err = r.chunk(ctx, j, next, rate); err != nil {
				if ctx.Err() == nil {
					log.WarnContext(ctx, "replay is held up, trying again", slog.Any("error", err))
				}
				wait(ctx, time.Second)
			}
		}
		if !r.note(ctx, j) {
			return
		}
		if noted = time.Now(); j.Replay.GetStatus() != replayRunning {
			log.InfoContext(ctx, "replay stops", slog.String("status", j.Replay.GetStatus()), slog.Int("done", int(j.Replay.GetDone())), slog.Int("skipped", int(j.Replay.GetSkipped())))
			return
		}
		r.pace.Sent(sent)
		wait(ctx, time.Until(began.Add(time.Duration(sent)*time.Second/time.Duration(rate))))
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	j.Holder, j.HeldUntil = "", nil
	_ = r.put(bound, j) // if this is not heard, the lease runs out
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// heed looks at how late what happens now is delivered, which jobs yield to.
func (r *replays) heed(records []*busv1.Record) {
	for _, some := range records {
		if late := some.GetAttempt().GetLateMs(); late != 0 {
			r.pace.Saw(time.Duration(late * float64(time.Millisecond)))
		}
	}
}

// rate is how many a job may send in a second now: what it was asked for, or less where what happens now would suffer.
func (r *replays) rate(j *job) int {
	asked, bound := int(j.Replay.Asked.GetRatePerSecond()), int(r.pace.PerSecond())
	if bound == 0 {
		return asked
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return min(asked, max(1, bound/max(1, len(r.working))))
}

// crowded says that so many deliveries wait for the senders that a job has to wait, too.
func (r *replays) crowded(ctx context.Context) bool {
	for _, consumer := range contract.Senders() {
		if waiting, _, err := r.log.env.Bus.Pending(ctx, consumer); err != nil || waiting > maxBacklog {
			return true
		}
	}
	return false
}

// note stores how far a job is, and has it for this process for another lease. Where a caller has changed the job
// meanwhile, his word holds. It gives false when another process has the job, or it is gone.
func (r *replays) note(ctx context.Context, j *job) bool {
	ctx = context.WithoutCancel(ctx) // what was put on its way is noted, also while we stop
	runs := j.Replay.GetStatus() == replayRunning
	for {
		j.Replay.UpdatedAt = timestamppb.Now()
		j.Holder, j.HeldUntil = r.me, timestamppb.New(time.Now().Add(lease))
		if j.Replay.GetStatus() != replayRunning {
			j.Holder, j.HeldUntil = "", nil
		}
		bound, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := r.put(bound, j)
		var now *job
		if bus.Outrun(err) {
			now, err = r.load(bound, j.Replay.GetShopId(), j.Replay.GetId())
		}
		cancel()
		switch {
		case err != nil:
			r.log.env.Log.WarnContext(ctx, "how far a replay is cannot be noted; it is taken up again", slog.String("job_id", j.Replay.GetId()), slog.Any("error", err))
			return false
		case now == nil:
			return true
		case now.Holder != r.me:
			return false
		}
		if runs || now.Replay.GetStatus() == replayCancelled {
			j.Replay.Status, j.Replay.Reason = now.Replay.GetStatus(), now.Replay.GetReason()
		}
		j.revision = now.revision
	}
}

// parcel is one of what a job sends: its messages, or why it cannot be sent.
type parcel struct {
	msgs    []*nats.Msg
	skipped string
	cursor  string // of the job, once this is on its way
}

// source gives what a job sends next, up to n at a time, and again until they were taken; done says that nothing follows.
type source interface {
	next(ctx context.Context, n int) (parcels []parcel, done bool, err error)
	taken(n int)
}

// chunk puts some of what a job sends on its way: what it may send in a tenth of a second, one by one or few by few, so that
// what happens now comes between them.
func (r *replays) chunk(ctx context.Context, j *job, from source, rate int) (sent int, err error) {
	began := time.Now()
	parcels, done, err := from.next(ctx, max(1, min(maxChunk, rate/10)))
	if err != nil {
		return 0, err
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	leave := slices.DeleteFunc(slices.Clone(parcels), func(p parcel) bool { return p.skipped != "" }) // who is skipped takes no time
	few := max(1, rate/fewPerSecond)
	for i := 0; i < len(leave); i += few {
		var msgs []*nats.Msg
		for _, p := range leave[i:min(i+few, len(leave))] {
			msgs = append(msgs, p.msgs...)
		}
		wait(ctx, time.Until(began.Add(time.Duration(i)*time.Second/time.Duration(rate))))
		if err := r.log.ask(bound, msgs...); err != nil {
			return 0, err
		}
	}
	from.taken(len(parcels))
	for _, p := range parcels {
		if j.Cursor = p.cursor; p.skipped != "" {
			j.Replay.Skipped++
			j.Replay.SkippedReason = p.skipped
			continue
		}
		j.Replay.Done++
		sent++
	}
	if done {
		j.Replay.Status = replayDone
	}
	return sent, nil
}
