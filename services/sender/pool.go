package sender

import (
	"context"
	"sync"
	"time"
)

// pool runs exchanges, each in a goroutine of its own. A goroutine that is free takes the next, so that its stack, which
// an exchange makes grow, is grown once.
type pool struct {
	do    func(context.Context, *job)
	jobs  chan *job
	ended chan struct{}
	wg    sync.WaitGroup
}

// linger is how long a goroutine waits for its next exchange.
const linger = 10 * time.Second

// run begins a job. It does not block.
func (p *pool) run(ctx context.Context, j *job) {
	select {
	case p.jobs <- j:
	default:
		p.wg.Go(func() {
			idle := time.NewTimer(linger)
			defer idle.Stop()
			for {
				p.do(ctx, j)
				j = nil // whoever waits keeps nothing alive
				idle.Reset(linger)
				select {
				case j = <-p.jobs:
				case <-idle.C:
					return
				case <-p.ended:
					return
				}
			}
		})
	}
}

// wait returns when all jobs are done. No others may be begun any more.
func (p *pool) wait() {
	close(p.ended)
	p.wg.Wait()
}
