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

// shopCrowd is a shop's part of it. It exists while something is under way.
type shopCrowd struct{ under, hanging int }

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
	if c.of == nil {
		c.of = map[string]*shopCrowd{}
	}
	if c.of[shop] == nil {
		c.of[shop] = &shopCrowd{}
	}
	c.of[shop].under++
	return u
}

func (c *crowd) end(u *underway) {
	u.over = true
	its := c.of[u.shop]
	if its.under--; u.hangs {
		c.hanging--
		its.hanging--
	}
	if its.under == 0 {
		delete(c.of, u.shop)
	}
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

// fewHanging is how many exchanges of a shop hang before others of it are put off for them.
const fewHanging = 64

// crowded says how many exchanges of a shop hang, if that is not few, and it has an eighth of the sender's places, or those that hang have
// half of them in all; else 0.
func (c *crowd) crowded(shop string, places int) int {
	its := c.of[shop]
	if its == nil || its.hanging < fewHanging || its.under < places/8 && c.hanging < places/2 {
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
