package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"shopbell.dev/services/log/store"
)

// part is a span of time whose rows have tables of their own: a day, or less.
type part struct{ lo, hi time.Time }

func (p part) holds(t time.Time) bool { return !t.Before(p.lo) && t.Before(p.hi) }

// parts are the parts that this process knows of. Others may have made more, or dropped some.
type parts struct {
	mu    sync.Mutex // guards known
	known []part
}

func (p *parts) load(ctx context.Context, pool *pgxpool.Pool) error {
	known, err := readParts(ctx, pool)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = known
	return nil
}

// readParts reads all parts, the oldest first.
func readParts(ctx context.Context, db querier) ([]part, error) {
	rows, err := db.Query(ctx, `SELECT lo, hi FROM parts ORDER BY lo`)
	if err != nil {
		return nil, err
	}
	known, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p part, err error) {
		err = row.Scan(&p.lo, &p.hi)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read which parts there are: %w", err)
	}
	return known, nil
}

// missing is, of each day that has no part for some of these times, such a time.
func (p *parts) missing(times func(yield func(time.Time) bool)) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var last part
	var lacking []time.Time
	for t := range times {
		if last.holds(t) {
			continue
		}
		if i := slices.IndexFunc(p.known, func(known part) bool { return known.holds(t) }); i >= 0 {
			last = p.known[i]
		} else {
			lacking = append(lacking, t)
			day := t.Truncate(24 * time.Hour)
			last = part{t, day.Add(24 * time.Hour)} // once will do for most
		}
	}
	return lacking
}

// ensureParts makes the parts that these rows need.
func (s *Store) ensureParts(ctx context.Context, rows store.Rows) error {
	lacking := s.parts.missing(func(yield func(time.Time) bool) {
		for _, e := range rows.Events {
			if !yield(e.AcceptedAt) {
				return
			}
		}
		for _, d := range rows.Decisions {
			if !yield(d.Born) {
				return
			}
		}
		// Every attempt and every change is of one of these.
		for _, d := range rows.Deliveries {
			if !yield(store.Born(d.ID)) {
				return
			}
		}
	})
	if len(lacking) == 0 {
		return nil
	}
	for _, t := range lacking {
		if _, err := s.pool.Exec(ctx, `SELECT log_part($1)`, t); err != nil {
			return fmt.Errorf("make the part of %s: %w", t, err)
		}
	}
	return s.parts.load(ctx, s.pool)
}
