package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/id"
	"shopbell.dev/pkg/pace"
	"shopbell.dev/pkg/rpc"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/store"
)

// The statuses of a job.
const (
	replayRunning   = "running"
	replayPaused    = "paused"
	replayDone      = "done"
	replayCancelled = "cancelled"
	replayDry       = "dry_run"
)

const (
	// defaultRate is how many a job sends in a second when nobody says.
	defaultRate = 50
	// maxReplay is how many one job sends at most.
	maxReplay = 1_000_000
	// samples is how many a dry run shows.
	samples = 10
	// replayPage is how many deliveries a job reads ahead.
	replayPage = 500
)

// replays is the jobs that send many deliveries again: what callers ask of them, and the work. A job's state lies in a
// bucket; of the processes that follow it one works on each job.
type replays struct {
	logv1.UnimplementedReplayServiceServer

	log    *Log
	bucket jetstream.KeyValue
	me     string    // names this process among those that work on jobs
	pace   pace.Pace // of all jobs of this process together

	mu      sync.Mutex      // guards what follows
	known   map[string]*job // by key; those that run
	working map[string]bool // the keys of those that this process works on
	changed chan struct{}   // a job has changed
}

func openReplays(ctx context.Context, l *Log) (*replays, error) {
	bucket, err := l.env.Bus.Bucket(ctx, contract.Replays)
	if err != nil {
		return nil, err
	}
	return &replays{
		log: l, bucket: bucket, me: id.New("", time.Now()), known: map[string]*job{}, working: map[string]bool{}, changed: make(chan struct{}, 1),
	}, nil
}

// CreateReplay counts what is asked for and, unless that is all, stores a job for it.
func (r *replays) CreateReplay(ctx context.Context, req *logv1.CreateReplayRequest) (*logv1.Replay, error) {
	now := time.Now()
	asked := proto.CloneOf(req)
	if asked.To == nil || asked.GetTo().AsTime().After(now) {
		asked.To = timestamppb.New(now)
	}
	if asked.RatePerSecond == 0 {
		asked.RatePerSecond = defaultRate
	}
	state := &logv1.ReplayState{Replay: &logv1.Replay{
		Id: id.New(id.Job, now), ShopId: asked.GetShopId(), Status: replayRunning, Asked: asked, CreatedAt: timestamppb.New(now),
		UpdatedAt: timestamppb.New(now), CreatedBy: oneLine(rpc.Caller(ctx)),
	}}
	count := r.countDeliveries
	if asked.GetToWebhookId() != "" {
		count = r.countEvents
	}
	if err := count(ctx, state); err != nil {
		return nil, err
	}
	if asked.GetDryRun() {
		state.Replay.Id, state.Replay.Status = "", replayDry
		return state.Replay, nil
	}
	state.Replay.Sample = nil
	if state.Replay.Total == 0 {
		state.Replay.Status, state.Replay.Reason = replayDone, "there was nothing to send"
	}
	value, err := proto.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("write the job: %w", err)
	}
	if _, err := r.bucket.Create(ctx, contract.ReplayKey(asked.GetShopId(), state.Replay.GetId()), value); err != nil {
		return nil, fault.Away(2*time.Second, "the bus did not take the job; try again: %w", err)
	}
	return state.Replay, nil
}

// replayFilter is what the log lists of what a job is asked for.
func replayFilter(asked *logv1.CreateReplayRequest) (store.Filter, error) {
	if asked.GetWebhookId()+asked.GetEventType()+asked.GetEventId()+asked.GetStatus()+asked.GetResponseCode()+asked.GetDeliveryId()+
		asked.GetErrorClass()+asked.GetText() == "" && asked.GetFrom() == nil {
		return store.Filter{}, fault.New(fault.Invalid, "all deliveries that ever were would be sent again; name at least one filter, such as \"status\": \"failed\", or from")
	}
	f, err := filterOf(&logv1.ListDeliveriesRequest{
		ShopId: asked.GetShopId(), WebhookId: asked.GetWebhookId(), EventType: asked.GetEventType(), EventId: asked.GetEventId(),
		Status: asked.GetStatus(), ResponseCode: asked.GetResponseCode(), From: asked.GetFrom(), To: asked.GetTo(),
		DeliveryId: asked.GetDeliveryId(), ErrorClass: asked.GetErrorClass(), Text: asked.GetText(),
	})
	f.Limit = replayPage
	return f, err
}

// countDeliveries counts the deliveries that a job is for, and marks their pages.
func (r *replays) countDeliveries(ctx context.Context, state *logv1.ReplayState) error {
	f, err := replayFilter(state.Replay.Asked)
	if err != nil {
		return err
	}
	inPage, before := 0, "" // before is the delivery before, which is the next newer
	err = r.log.each(ctx, f, func(page []*shopbellv1.Delivery) error {
		for _, d := range page {
			if d.GetTest() {
				continue // sample data, which nobody is to take for an order
			}
			if inPage == replayPage {
				state.Marks, inPage = append(state.Marks, before), 0
			}
			inPage++
			before = d.GetId()
			if state.Replay.Total++; len(state.Replay.Sample) < samples {
				state.Replay.Sample = append(state.Replay.Sample, d)
			}
		}
		return tooMany(state.Replay.Total)
	})
	slices.Reverse(state.Marks)
	return err
}

func tooMany(n int32) error {
	if n > maxReplay {
		return fault.New(fault.Invalid, "there are more than %d; choose fewer, as by a shorter time from from to to", maxReplay)
	}
	return nil
}

// countEvents counts the events that a job is for.
func (r *replays) countEvents(ctx context.Context, state *logv1.ReplayState) error {
	asked := state.Replay.Asked
	if err := r.checkEvents(ctx, asked); err != nil {
		return err
	}
	w, err := r.log.reachable(ctx, asked.GetShopId(), asked.GetToWebhookId(), false)
	if err != nil {
		return err
	}
	events, err := r.log.env.Bus.Stream(ctx, contract.Events)
	if err != nil {
		return fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	state.LastEvent = events.CachedInfo().State.LastSeq
	err = r.events(ctx, state, w, func(e placed) bool {
		if state.Replay.Total++; len(state.Replay.Sample) < samples {
			state.Replay.Sample = append(state.Replay.Sample, &shopbellv1.Delivery{
				Id: w.DeliveryID(&e.Event), ShopId: e.ShopID, EventId: e.ID, EventType: e.Type, WebhookId: w.ID,
			})
		}
		return state.Replay.Total <= maxReplay
	})
	if err != nil {
		return err
	}
	return tooMany(state.Replay.Total)
}

// checkEvents says what is wrong with what is asked of events.
func (r *replays) checkEvents(ctx context.Context, asked *logv1.CreateReplayRequest) error {
	var wrong fault.Collector
	for field, value := range map[string]string{
		"webhook_id": asked.GetWebhookId(), "event_id": asked.GetEventId(), "status": asked.GetStatus(), "response_code": asked.GetResponseCode(),
		"delivery_id": asked.GetDeliveryId(), "error_class": asked.GetErrorClass(), "text": asked.GetText(),
	} {
		if value != "" {
			wrong.Add(field, "it chooses deliveries, and with to_webhook_id events are sent; leave out the one or the other")
		}
	}
	from, to := timeOf(&wrong, "from", asked.GetFrom()), timeOf(&wrong, "to", asked.GetTo())
	switch {
	case from.IsZero():
		wrong.Add("from", "it is missing; say from when on the events are to be sent")
	case !from.Before(to):
		wrong.Add("to", "it is not after from, so nothing lies between them; set a later time")
	}
	if err := wrong.Err(); err != nil {
		return err
	}
	events, err := r.log.env.Bus.Stream(ctx, contract.Events)
	if err != nil {
		return fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	// Detail without end has none here either.
	if kept := max(events.CachedInfo().Config.MaxAge, r.log.cfg.Keep); r.log.cfg.Keep > 0 && time.Since(from) > kept {
		return fault.Field("from", "events are kept for %s, and what is older is forgotten; choose a time after %s",
			kept, time.Now().Add(-kept).UTC().Format(time.RFC3339))
	}
	return nil
}

// ListReplays lists a shop's jobs, newest first.
func (r *replays) ListReplays(ctx context.Context, req *logv1.ListReplaysRequest) (*logv1.ListReplaysResponse, error) {
	all, err := r.bucket.WatchFiltered(ctx, []string{contract.ShopReplayKeys(req.GetShopId())}, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	defer func() { _ = all.Stop() }()
	out := &logv1.ListReplaysResponse{}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case entry := <-all.Updates():
			if entry == nil { // that were all
				slices.SortFunc(out.Replays, func(a, b *logv1.Replay) int { return strings.Compare(b.GetId(), a.GetId()) })
				return out, nil
			}
			j, err := parseJob(entry)
			if err != nil {
				return nil, err
			}
			out.Replays = append(out.Replays, j.Replay)
		}
	}
}

// GetReplay reads a job.
func (r *replays) GetReplay(ctx context.Context, req *logv1.GetReplayRequest) (*logv1.Replay, error) {
	j, err := r.load(ctx, req.GetShopId(), req.GetJobId())
	if err != nil {
		return nil, err
	}
	return j.Replay, nil
}

// PauseReplay has a job wait.
func (r *replays) PauseReplay(ctx context.Context, req *logv1.PauseReplayRequest) (*logv1.Replay, error) {
	return r.turn(ctx, req.GetShopId(), req.GetJobId(), replayPaused, "paused")
}

// ResumeReplay has a paused job go on.
func (r *replays) ResumeReplay(ctx context.Context, req *logv1.ResumeReplayRequest) (*logv1.Replay, error) {
	return r.turn(ctx, req.GetShopId(), req.GetJobId(), replayRunning, "resumed")
}

// CancelReplay ends a job.
func (r *replays) CancelReplay(ctx context.Context, req *logv1.CancelReplayRequest) (*logv1.Replay, error) {
	return r.turn(ctx, req.GetShopId(), req.GetJobId(), replayCancelled, "cancelled")
}

// turn gives a job another status, unless it is over. Who works on it hears of it when it next saves how far it is.
func (r *replays) turn(ctx context.Context, shop, jobID, status, how string) (*logv1.Replay, error) {
	for {
		j, err := r.load(ctx, shop, jobID)
		if err != nil {
			return nil, err
		}
		switch now := j.Replay.GetStatus(); now {
		case status:
			return j.Replay, nil
		case replayDone, replayCancelled:
			return nil, fault.New(fault.Precondition, "the job is %s; make another one", now)
		}
		j.Replay.Status, j.Replay.UpdatedAt = status, timestamppb.Now()
		if j.Replay.Reason = ""; status != replayRunning {
			j.Replay.Reason = oneLine(how + because(" by ", rpc.Caller(ctx)))
		}
		err = r.put(ctx, j)
		if err == nil {
			return j.Replay, nil
		}
		if !bus.Outrun(err) || ctx.Err() != nil {
			return nil, fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
		}
	}
}

// job is a job as it lies in the bucket.
type job struct {
	*logv1.ReplayState
	key      string
	revision uint64
}

func parseJob(entry jetstream.KeyValueEntry) (*job, error) {
	j := &job{&logv1.ReplayState{}, entry.Key(), entry.Revision()}
	if err := proto.Unmarshal(entry.Value(), j.ReplayState); err != nil {
		return nil, fmt.Errorf("parse the job %s: %w", entry.Key(), err)
	}
	return j, nil
}

func (r *replays) load(ctx context.Context, shop, jobID string) (*job, error) {
	entry, err := r.bucket.Get(ctx, contract.ReplayKey(shop, jobID))
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrInvalidKey) {
		return nil, fault.New(fault.NotFound, "no job %q in shop %q: check both ids; a job is kept for 30 days after it last changed", jobID, shop)
	}
	if err != nil {
		return nil, fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	}
	return parseJob(entry)
}

// put writes a job that nobody has changed since it was read; else it gives an error that bus.Outrun knows.
func (r *replays) put(ctx context.Context, j *job) error {
	value, err := proto.Marshal(j.ReplayState)
	if err != nil {
		return fmt.Errorf("write the job %s: %w", j.key, err)
	}
	revision, err := r.bucket.Update(ctx, j.key, value, j.revision)
	if err == nil {
		j.revision = revision
	}
	return err
}
