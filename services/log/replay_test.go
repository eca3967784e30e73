package eventlog

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

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

func TestReplay_LeavesAloneWhatIsHeld(t *testing.T) {
	t.Parallel()
	r := startRoom(t, "")
	for i, status := range []string{"held", "failed"} {
		publishRecord(t, r.bus, &busv1.Record{
			At: timestamppb.New(noon), ShopId: "tulip", EventId: "evt_1", EventType: "paid",
			What: &busv1.Record_Change{Change: &busv1.StatusChange{DeliveryId: fmt.Sprintf("dlv_0000%d", i), WebhookId: "wh_1", MatchedAt: timestamppb.New(noon), Status: status}},
		}, status)
	}
	eventually(t, "both are in the log", func() bool {
		list, err := r.ListDeliveries(t.Context(), &logv1.ListDeliveriesRequest{ShopId: "tulip"})
		return err == nil && len(list.GetDeliveries()) == 2
	})
	for status, why := range map[string]string{"held": "it is held", "failed": "was deleted"} {
		job, err := r.replays.CreateReplay(t.Context(), &logv1.CreateReplayRequest{ShopId: "tulip", Status: status})
		if err != nil || job.GetTotal() != 1 {
			t.Fatalf("%s: got %v, %v; want a job for one", status, job, err)
		}
		eventually(t, "the job is done", func() bool {
			now, err := r.replays.GetReplay(t.Context(), &logv1.GetReplayRequest{ShopId: "tulip", JobId: job.GetId()})
			return err == nil && now.GetStatus() == replayDone && now.GetSkipped() == 1 && strings.Contains(now.GetSkippedReason(), why)
		})
	}
}
