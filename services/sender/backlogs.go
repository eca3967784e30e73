package sender

import (
	"context"
	"sync"
)

// backlogs are the lanes that are ours.
type backlogs struct {
	ctx   context.Context // ends when no more is to be begun
	after func(*backlog)  // called when one is at its end

	mu  sync.Mutex // guards all
	all map[string]*backlog
	wg  sync.WaitGroup
}

func (bs *backlogs) get(webhookID string) *backlog {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return bs.all[webhookID]
}

func (bs *backlogs) count() int {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return len(bs.all)
}

// begin works on a backlog until it is at its end. One that is worked on already is left alone.
func (bs *backlogs) begin(b *backlog) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.all[b.webhookID] != nil || bs.ctx.Err() != nil {
		return
	}
	bs.all[b.webhookID] = b
	bs.wg.Go(func() {
		b.run(bs.ctx)
		bs.mu.Lock()
		delete(bs.all, b.webhookID)
		bs.mu.Unlock()
		bs.after(b)
	})
}
