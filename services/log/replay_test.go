package eventlog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
)

// What the list is filtered by, a replay is as well.
func TestReplay_KnowsEveryFilterOfTheList(t *testing.T) {
	t.Parallel()
	value := map[protoreflect.Name]protoreflect.Value{
		"from": protoreflect.ValueOfMessage(timestamppb.New(noon).ProtoReflect()), "to": protoreflect.ValueOfMessage(timestamppb.New(noon.AddDate(0, 0, 1)).ProtoReflect()),
		"response_code": protoreflect.ValueOfString("404"), "status": protoreflect.ValueOfString("failed"),
	}
	fields := (&logv1.ListDeliveriesRequest{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		name := fields.Get(i).Name()
		if name == "page_size" || name == "page_token" {
			continue
		}
		list, replay := &logv1.ListDeliveriesRequest{ShopId: "s", EventType: "paid"}, &logv1.CreateReplayRequest{ShopId: "s", EventType: "paid"}
		of := replay.ProtoReflect().Descriptor().Fields().ByName(name)
		if of == nil {
			t.Errorf("a replay cannot be asked for by %s", name)
			continue
		}
		v, ok := value[name]
		if !ok {
			v = protoreflect.ValueOfString("x")
		}
		if name == "text" {
			list.From, list.To = timestamppb.New(noon), timestamppb.New(noon.AddDate(0, 0, 1))
			replay.From, replay.To = list.GetFrom(), list.GetTo()
		}
		list.ProtoReflect().Set(fields.Get(i), v)
		replay.ProtoReflect().Set(of, v)
		want, err := filterOf(list)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want.Limit = replayPage
		if got, err := replayFilter(replay); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
	}
}

func TestReplay_SendsFewerWhileWhatHappensNowIsLate(t *testing.T) {
	t.Parallel()
	r := &replays{working: map[string]bool{}}
	fast, slow := &job{ReplayState: &logv1.ReplayState{Replay: &logv1.Replay{Asked: &logv1.CreateReplayRequest{RatePerSecond: 100_000}}}},
		&job{ReplayState: &logv1.ReplayState{Replay: &logv1.Replay{Asked: &logv1.CreateReplayRequest{RatePerSecond: 20}}}}
	if got := r.rate(fast); got != 100_000 {
		t.Fatalf("nothing happens beside it, and it may send %d a second", got)
	}
	attempt := func(lateMs float64) *busv1.Record {
		return &busv1.Record{What: &busv1.Record_Attempt{Attempt: &busv1.AttemptMade{LateMs: lateMs}}}
	}
	// look has it see what happens now, an attempt each millisecond, until its rate is as wanted, which takes it a quarter of a
	// second or more each time; two minutes end a look that will never see it.
	look := func(what string, lateMs float64, is func(rate int) bool) {
		t.Helper()
		for began := time.Now(); !is(r.rate(fast)); time.Sleep(time.Millisecond) {
			if time.Since(began) > 2*time.Minute {
				t.Fatalf("%s: it may send %d a second", what, r.rate(fast))
			}
			// The other records say nothing.
			r.heed([]*busv1.Record{attempt(lateMs), attempt(0), {}})
			r.pace.Sent(1000) // no fewer than it may send, however seldom this loop has its turn
		}
	}
	look("others are sent", 5, func(rate int) bool { return rate < 100_000 })
	look("they are no later for it", 5, func(rate int) bool { return rate >= 1000 })
	look("they are later", 500, func(rate int) bool { return rate < 500 })
	r.working = map[string]bool{"a": true, "b": true, "c": true, "d": true}
	if got := r.rate(fast); got > 500/4 {
		t.Errorf("one of four jobs may send %d a second", got)
	}
	if got := r.rate(slow); got > 20 {
		t.Errorf("a job that was asked for 20 a second may send %d", got)
	}
}

func TestReplay_LeavesAloneWhatIsHeld(t *testing.T) {
	t.Parallel()
	r := startRoom(t, "")
	for i, status := range []string{"held", "failed"} {
		publishRecord(t, r.bus, &busv1.Record{
			At: timestamppb.New(noon), ShopId: "tulip", EventId: "evt_1", EventType: "paid",
			What: &busv1.Record_Change{Change: &busv1.StatusChange{DeliveryId: fmt.Sprintf("dlv_0000%d", i), WebhookId: "wh_1", MatchedAt: timestamppb.New(noon), Status: status}},
		})
	}
	testwait.Until(t, "both are in the log", func() bool {
		list, err := r.ListDeliveries(t.Context(), &logv1.ListDeliveriesRequest{ShopId: "tulip"})
		return err == nil && len(list.GetDeliveries()) == 2
	})
	for status, why := range map[string]string{"held": "it is held", "failed": "was deleted"} {
		job, err := r.replays.CreateReplay(t.Context(), &logv1.CreateReplayRequest{ShopId: "tulip", Status: status})
		if err != nil || job.GetTotal() != 1 {
			t.Fatalf("%s: got %v, %v; want a job for one", status, job, err)
		}
		testwait.Until(t, "the job is done", func() bool {
			now, err := r.replays.GetReplay(t.Context(), &logv1.GetReplayRequest{ShopId: "tulip", JobId: job.GetId()})
			return err == nil && now.GetStatus() == replayDone && now.GetSkipped() == 1 && strings.Contains(now.GetSkippedReason(), why)
		})
	}
}

// hookedBucket has something happen between what a process reads of a job and what it writes.
type hookedBucket struct {
	jetstream.KeyValue
	before func() // each update
}

func (b hookedBucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	b.before()
	return b.KeyValue.Update(ctx, key, value, revision)
}

func TestReplay_ACallersWordHoldsWhileItIsNotedHowFarAJobIs(t *testing.T) {
	t.Parallel()
	r := startRoom(t, "")
	for i, row := range []struct {
		name         string
		worker       string   // what who works on it has found
		says         []string // of the caller, one before each time it is noted
		want, reason string
	}{
		{"nothing", replayRunning, nil, replayRunning, ""},
		{"paused", replayRunning, []string{replayPaused}, replayPaused, "paused"},
		{"paused and resumed", replayRunning, []string{replayPaused, replayRunning}, replayRunning, ""},
		{"paused, resumed, and cancelled", replayRunning, []string{replayPaused, replayRunning, replayCancelled}, replayCancelled, "cancelled"},
		{"all is sent, and it is paused", replayDone, []string{replayPaused}, replayDone, ""},
		{"all is sent, and it is paused and resumed", replayDone, []string{replayPaused, replayRunning}, replayDone, ""},
		{"all is sent, and it is cancelled", replayDone, []string{replayCancelled}, replayCancelled, "cancelled"},
	} {
		work, err := openReplays(t.Context(), r.Log)
		if err != nil {
			t.Fatal(err)
		}
		jobID := fmt.Sprintf("job_%d", i)
		j := &job{key: contract.ReplayKey("tulip", jobID), ReplayState: &logv1.ReplayState{
			Replay: &logv1.Replay{Id: jobID, ShopId: "tulip", Status: replayRunning}, Holder: work.me, HeldUntil: timestamppb.New(time.Now().Add(time.Hour)),
		}}
		value, err := proto.Marshal(j.ReplayState)
		if err != nil {
			t.Fatal(err)
		}
		if j.revision, err = work.bucket.Create(t.Context(), j.key, value); err != nil {
			t.Fatal(err)
		}
		says := row.says
		work.bucket = hookedBucket{work.bucket, func() {
			if len(says) == 0 {
				return
			}
			status := says[0]
			says = says[1:]
			if _, err := r.replays.turn(t.Context(), "tulip", jobID, status, status); err != nil {
				t.Error(err)
			}
		}}
		j.Replay.Status, j.Replay.Done = row.worker, 100
		if !work.note(t.Context(), j) {
			t.Errorf("%s: it is another's", row.name)
		}
		now, err := r.replays.GetReplay(t.Context(), &logv1.GetReplayRequest{ShopId: "tulip", JobId: jobID})
		if err != nil || now.GetStatus() != row.want || now.GetReason() != row.reason || now.GetDone() != 100 || j.Replay.GetStatus() != row.want {
			t.Errorf("%s: got %v, %v, and who works on it takes it for %s; want %s, %q, and 100 done", row.name, now, err, j.Replay.GetStatus(), row.want, row.reason)
		}
	}
}

// nothingToSend is a source of what cannot be sent.
type nothingToSend struct{ left int }

func (s *nothingToSend) next(_ context.Context, n int) ([]parcel, bool, error) {
	n = min(n, s.left)
	return slices.Repeat([]parcel{{skipped: "it is held"}}, n), n == s.left, nil
}

func (s *nothingToSend) taken(n int) { s.left -= n }

// A job passes by what it leaves alone; at its rate that would take nearly two minutes here.
func TestReplay_WhatIsSkippedTakesNoTime(t *testing.T) {
	t.Parallel()
	const n = 5000
	r := startRoom(t, "")
	j := &job{ReplayState: &logv1.ReplayState{Replay: &logv1.Replay{Status: replayRunning}}}
	from := &nothingToSend{n}
	for began := time.Now(); j.Replay.GetStatus() == replayRunning; {
		if _, err := r.replays.chunk(t.Context(), j, from, 50); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("after a minute %d of %d are passed", j.Replay.GetSkipped(), n)
		}
	}
	if j.Replay.GetSkipped() != n {
		t.Errorf("%d are skipped, want %d", j.Replay.GetSkipped(), n)
	}
}
