package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/telemetry/telemetrytest"
	"shopbell.dev/pkg/testwait"
	logv1 "shopbell.dev/proto/shopbell/log/v1"

	"shopbell.dev/services/log/storetest"
)

func TestLog_StartsWithoutItsStoreAndCatchesUp(t *testing.T) {
	t.Parallel()
	pg := storetest.OwnCluster(t)
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	var logged telemetrytest.Lines
	var why atomic.Value // what /readyz says
	r := startRoomAt(t, pg.DSN("later"), slog.NewTextHandler(&logged, nil), func(text string) { why.Store(text) })
	publishRecord(t, r.bus, attempted("shop", "dlv_1", "delivered", 200))

	testwait.Until(t, "the room says why it is of no use", func() bool {
		text, _ := why.Load().(string)
		return strings.Contains(text, "its store could not be reached")
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("the room logged:\n" + logged.String())
		}
	})
	testwait.Until(t, "its log line names the database that is down", func() bool {
		return logged.Has("ERROR", "the log's store takes nothing", "connect to", "later") // whoever found it first
	})
	_, err := r.GetDelivery(context.Background(), &logv1.GetDeliveryRequest{ShopId: "shop", DeliveryId: "dlv_1"})
	if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Kind != fault.Unavailable {
		t.Errorf("reading meanwhile: got %v, want it to be away", err)
	}

	// It is up, and refuses who we are: the address is still wrong.
	if err := pg.Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.reach(context.Background()); err == nil || !strings.Contains(err.Error(), `database "later" does not exist`) {
		t.Errorf("a wrong address: got %v, want an error that says what is wrong with it", err)
	}
	if err := pg.Exec("CREATE DATABASE later"); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "what happened meanwhile is in the log", func() bool {
		d, err := r.GetDelivery(context.Background(), &logv1.GetDeliveryRequest{ShopId: "shop", DeliveryId: "dlv_1"})
		return err == nil && d.GetStatus() == "delivered"
	})
	testwait.Until(t, "the room says that it is of use", func() bool { return why.Load() == "" && logged.Has("takes what happens again") })
}

func TestNew_RefusesAStoreThatIsNone(t *testing.T) {
	t.Parallel()
	for where, want := range map[string]string{
		"postgres://shopbell:secret@[::1/log":                       "read the address of the log's PostgreSQL",
		"sqlite:" + filepath.Join("/dev/null", "not-a-folder", "x"): "create log file",
	} {
		if _, _, err := open(context.Background(), where); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got error %v, want one that says %q and not the password", where, err, want)
		}
	}
}
