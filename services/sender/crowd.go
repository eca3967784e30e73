package sender

import "time"

// crowd counts the exchanges that are under way, and those of them that hang, by shop. It is guarded by the lanes' lock.
//
// A sender has places for some thousands. Receivers that hang, each with an event now and then so that no lane finds its own unwell, would
// take all of them: five hundred such events a second, of five seconds each and tried twice, are five thousand places.
type crowd struct {
	young   []*underway // began lately, the first of them first; some are over
	hanging int
	of      map[string]*shopCrowd
}

// shopCrowd is a shop's part of it. It exists while something is under way, or waits for a place.
type shopCrowd struct{ under, hanging, waiting int }

// underway is an exchange that has a place.
type underway struct {
	shop        string
	began       time.Time
	over, hangs bool
}

// hangsAfter is how long an exchange has gone on when it hangs, more or less: most answers come within less.
const hangsAfter = time.Second

func (c *crowd) begin(shop string) *underway {
	u := &underway{shop: shop, began: time.Now()}
	c.young = append(c.young, u)
	c.change(shop, func(its *shopCrowd) { its.under++ })
	return u
}

// change changes a shop's part.
func (c *crowd) change(shop string, change func(its *shopCrowd)) {
	its := c.of[shop]
	if its == nil {
		its = &shopCrowd{}
		if c.of == nil {
			c.of = map[string]*shopCrowd{}
		}
		c.of[shop] = its
	}
	if change(its); *its == (shopCrowd{}) {
		delete(c.of, shop)
	}
}

// wait is told that so many jobs of a shop more, or less, wait for their lanes or for a place.
func (c *crowd) wait(shop string, more int) {
	c.change(shop, func(its *shopCrowd) { its.waiting += more })
}

// part is a shop's part, to be read.
func (c *crowd) part(shop string) shopCrowd {
	if its := c.of[shop]; its != nil {
		return *its
	}
	return shopCrowd{}
}

func (c *crowd) end(u *underway) {
	u.over = true
	c.change(u.shop, func(its *shopCrowd) {
		if its.under--; u.hangs {
			c.hanging--
			its.hanging--
		}
	})
}

// look counts those that hang by now.
func (c *crowd) look(now time.Time) {
	for len(c.young) > 0 && now.Sub(c.young[0].began) > hangsAfter {
		if u := shift(&c.young); !u.over {
			u.hangs = true
			c.hanging++
			c.of[u.shop].hanging++
		}
	}
}

// longLine is how many jobs of a shop that has enough places wait for more before others of it are put off for them: what waits in memory
// is bounded, and behind that bound nobody's would come in.
const longLine = maxWaiting / 4

// fewHanging is how many exchanges of a shop hang before others of it are put off for them.
const fewHanging = 64

// crowded says how many exchanges of a shop hang, if that is not few, and it has an eighth of the sender's places, or those that hang have
// half of them in all; else 0.
func (c *crowd) crowded(shop string, places int) int {
	its := c.part(shop)
	if its.hanging < fewHanging || its.under < places/8 && c.hanging < places/2 {
		return 0
	}
	return its.hanging
}

// lookAtCrowd counts the exchanges that hang.
func (l *lanes) lookAtCrowd(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.crowd.look(now)
}
