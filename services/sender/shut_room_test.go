package sender

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/contract"
	"shopbell.dev/pkg/testwait"
	busv1 "shopbell.dev/proto/shopbell/bus/v1"
)

// hearShut listens to what senders say of hosts, and gives the latest.
func (b *bundle) hearShut(t *testing.T) (latest func() *busv1.ShutHosts) {
	t.Helper()
	var mu sync.Mutex
	var last *busv1.ShutHosts
	listening := make(chan struct{})
	go func() {
		_ = b.bus.Overhear(t.Context(), contract.ShutHostsSubject, func() { close(listening) }, func(m *nats.Msg) {
			word := &busv1.ShutHosts{}
			if err := proto.Unmarshal(m.Data, word); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			last = word
		})
	}()
	<-listening
	return func() *busv1.ShutHosts {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

// Ten were tried, and nobody answered: the sender says so. What is put off for that by others is there when somebody answers, and what is put
// off after that at once.
func TestSender_SaysWhichHostsAreShutAndSendsWhatWasPutOffForThat(t *testing.T) {
	t.Parallel()
	const before, meanwhile, after = manyShut, 20, 3
	b := setup(t)
	in, up := countOnceThere(t)
	said := b.hearShut(t)
	b.start(t, few())
	testwait.Until(t, "it says that no host is shut", func() bool { return said() != nil && len(said().GetHosts()) == 0 })
	shop := ""
	for i := range before {
		id := fmt.Sprint("wh_", i)
		b.put(t, governed(id, fmt.Sprint(in.url, "/", i), inAnHour()))
		all := numbered(id, 1)
		shop = all[0].ShopID
		b.send(t, all)
	}
	testwait.Until(t, "it says that the host is shut to the shop", func() bool {
		hosts := said().GetHosts()
		return len(hosts) == 1 && hosts[0].GetHost() == in.url && hosts[0].GetShopId() == shop
	})
	// What is put off is told after its timer is set, and each waits for an hour.
	putOff := func(from, n int) {
		t.Helper()
		told := &busv1.PutOffs{}
		for i := from; i < from+n; i++ {
			id := fmt.Sprint("wh_", i)
			b.put(t, governed(id, fmt.Sprint(in.url, "/", i), inAnHour()))
			d := numbered(id, i+1)[i]
			d.MatchedAt, d.Deferred = time.Now(), 1
			due := d.MatchedAt.Add(time.Hour)
			b.publish(t, d.Later(due))
			told.Deliveries = append(told.Deliveries, &busv1.PutOff{
				DeliveryId: d.ID, WebhookId: id, Host: in.url, AcceptedAt: timestamppb.New(d.AcceptedAt), DecidedAt: timestamppb.New(d.MatchedAt), Due: timestamppb.New(due),
			})
		}
		told.Deliveries = append(told.Deliveries, &busv1.PutOff{DeliveryId: "dlv_x", WebhookId: "wh_x", Host: "https://elsewhere.example", Due: timestamppb.New(time.Now().Add(time.Hour))})
		data, err := proto.Marshal(told)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.bus.Tell(contract.PutOffsSubject, data); err != nil {
			t.Fatal(err)
		}
	}
	putOff(before, meanwhile)
	testwait.Until(t, "it knows what was put off", func() bool { return b.waiting() >= before+meanwhile-1 }) // one may be a probe just now
	if n := in.requests.Load(); n > 2*before {
		t.Errorf("%d requests were made, want few more than the %d that tell", n, before)
	}
	up.Store(true)
	b.empty(t)
	testwait.Until(t, "it says that the host is no longer shut", func() bool { return len(said().GetHosts()) == 0 })
	putOff(before+meanwhile, after) // by one who has not heard that
	b.empty(t)
	tried := map[string]int{}
	for _, r := range b.records(t, before+meanwhile+after) {
		if a := r.GetAttempt(); a.GetStatus() == delivered {
			tried[a.GetWebhookId()]++
		}
	}
	for i := range before + meanwhile + after {
		if id := fmt.Sprint("wh_", i); tried[id] != 1 {
			t.Errorf("%s was delivered %d times, want once", id, tried[id])
		}
	}
}

func TestLanes_TellOfHostsThatAreShut(t *testing.T) {
	t.Parallel()
	now := time.Now()
	refuses, hangs := &exchange{class: "connect"}, &exchange{class: "timeout", reached: true}
	for _, row := range []struct {
		name string
		do   func(l *lanes, try func(webhooks int, shop string, x *exchange))
		want []string
	}{
		{"few were tried", func(_ *lanes, try func(int, string, *exchange)) { try(manyShut-1, "one", refuses) }, nil},
		{"nobody can connect", func(_ *lanes, try func(int, string, *exchange)) { try(manyShut, "one", refuses) }, []string{""}},
		{"its shop's hang", func(_ *lanes, try func(int, string, *exchange)) { try(manyShut, "one", hangs) }, []string{"one"}},
		{"two shops' hang", func(_ *lanes, try func(int, string, *exchange)) {
			try(manyShut, "two", hangs)
			try(manyShut, "one", hangs)
		}, []string{"one", "two"}},
		{"it has answered", func(_ *lanes, try func(int, string, *exchange)) {
			try(manyShut, "one", refuses)
			try(1, "one", &exchange{code: 200})
		}, nil},
		{"more could not be remembered", func(l *lanes, try func(int, string, *exchange)) {
			try(manyShut, "one", refuses)
			l.failing = maxFailing / 2
		}, nil},
	} {
		l := newLanes(8, func() int { return 1 })
		row.do(l, func(webhooks int, shop string, x *exchange) {
			for i := range webhooks {
				ln := l.of(fmt.Sprint("wh_", shop, i))
				ln.shop = shop
				l.heard(ln, "https://one.example/in", x, now.Add(-time.Minute))
			}
		})
		var got []string
		for _, h := range l.shutHosts(now) {
			if got = append(got, h.GetShopId()); h.GetHost() != "https://one.example" {
				t.Errorf("%s: told of %v", row.name, h)
			}
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: it is told to be shut to %q, want %q", row.name, got, row.want)
		}
	}
}
