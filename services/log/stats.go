package eventlog

import (
	"context"
	"log/slog"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/fault"
	logv1 "shopbell.dev/proto/shopbell/log/v1"

	"shopbell.dev/services/log/store"
)

const (
	hour = time.Hour
	day  = 24 * time.Hour
)

// GetWebhookStats counts what was delivered to a webhook. It returns NotFound for one that neither is nor has statistics.
func (l *Log) GetWebhookStats(ctx context.Context, r *logv1.GetWebhookStatsRequest) (*logv1.Stats, error) {
	now := time.Now()
	s, err := l.stats(ctx, r.GetShopId(), r.GetWebhookId(), r, now)
	if err == nil && s.GetTotal().GetDeliveries() == 0 && s.GetTotal().GetAttempts() == 0 {
		err = l.knownWebhook(ctx, r.GetShopId(), r.GetWebhookId(), now)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// knownWebhook says that a webhook is one, or was one as long as there are statistics of it.
func (l *Log) knownWebhook(ctx context.Context, shopID, webhookID string, now time.Time) error {
	rows, err := l.store.Stats(ctx, store.StatsFilter{ShopID: shopID, WebhookID: webhookID, From: now.Add(-l.cfg.StatsDays - day), To: now})
	if err != nil || len(rows) > 0 {
		return err
	}
	w, err := l.webhooks.Fetch(ctx, shopID, webhookID)
	switch {
	case err != nil:
		return fault.Away(2*time.Second, "the bus does not answer; try again: %w", err)
	case w == nil:
		return fault.New(fault.NotFound, "there is no webhook %s in shop %s, nor statistics of one; list them with GET /v1/shops/%s/webhooks", webhookID, shopID, shopID)
	}
	return nil
}

// GetShopStats counts what was delivered to all webhooks of a shop.
func (l *Log) GetShopStats(ctx context.Context, r *logv1.GetShopStatsRequest) (*logv1.Stats, error) {
	return l.stats(ctx, r.GetShopId(), "", r, time.Now())
}

func (l *Log) stats(ctx context.Context, shopID, webhookID string, r interface {
	GetDays() int32
	GetHours() int32
}, now time.Time,
) (*logv1.Stats, error) {
	s, err := l.cfg.span(int(r.GetDays()), int(r.GetHours()), now)
	if err != nil {
		return nil, err
	}
	rows, err := l.store.Stats(ctx, store.StatsFilter{ShopID: shopID, WebhookID: webhookID, From: s.from, To: s.to()})
	if err != nil {
		return nil, err
	}
	total, parts := s.sum(rows)
	if s.step == hour {
		return &logv1.Stats{Total: total, Hours: parts}, nil
	}
	return &logv1.Stats{Total: total, Days: parts}, nil
}

// span is so many days or hours.
type span struct {
	from  time.Time
	step  time.Duration // hour or day
	parts int
}

func (s span) to() time.Time { return s.from.Add(time.Duration(s.parts) * s.step) }

// span is the time until now that is asked for.
func (c Config) span(days, hours int, now time.Time) (span, error) {
	var bad fault.Collector
	if days > 0 && hours > 0 {
		bad.Add("hours", "days are asked for too; ask for one of the two")
	}
	if most := int(c.StatsDays / day); days > most {
		bad.Add("days", "%d is more than the %d days that are kept; ask for fewer", days, most)
	}
	if most := int(c.StatsHours / hour); hours > most {
		bad.Add("hours", "%d is more than the %d hours that are kept; ask for fewer, or for days", hours, most)
	}
	s := span{step: day, parts: days}
	switch {
	case hours > 0:
		s.step, s.parts = hour, hours
	case days == 0:
		s.parts = 30
	}
	s.from = now.UTC().Truncate(s.step).Add(time.Duration(1-s.parts) * s.step)
	return s, bad.Err()
}

// sum puts rows together: all of them, and those of each part.
func (s span) sum(rows []store.StatsRow) (total *logv1.Period, parts []*logv1.Period) {
	var all store.Counts
	counts := make([]store.Counts, s.parts)
	for _, row := range rows {
		all.Add(row.Counts)
		counts[int(row.Start.Sub(s.from)/s.step)].Add(row.Counts)
	}
	for i := range counts {
		from := s.from.Add(time.Duration(i) * s.step)
		parts = append(parts, period(from, from.Add(s.step), &counts[i]))
	}
	return period(s.from, s.to(), &all), parts
}

func period(from, to time.Time, c *store.Counts) *logv1.Period {
	p := &logv1.Period{
		From: timestamppb.New(from), To: timestamppb.New(to),
		Deliveries: float64(c.Deliveries), Delivered: float64(c.Delivered), Failed: float64(c.Failed), Cancelled: float64(c.Cancelled),
		Waiting:  float64(c.Deliveries - c.Delivered - c.Failed - c.Cancelled),
		Attempts: float64(c.Attempts), ErrorsByClass: make(map[string]float64), ErrorsByResponseCode: make(map[string]float64),
	}
	if ended := c.Delivered + c.Failed; ended > 0 {
		rate := float64(c.Delivered) / float64(ended)
		p.SuccessRate = &rate
	}
	if c.Attempted > 0 {
		each := float64(c.AttemptsOfDeliveries) / float64(c.Attempted)
		p.AttemptsPerDelivery = &each
	}
	for failure, n := range c.Failures {
		p.ErrorsByClass[failure.ErrorClass] += float64(n)
		code := "none"
		if failure.ResponseCode != 0 {
			code = strconv.Itoa(int(failure.ResponseCode))
		}
		p.ErrorsByResponseCode[code] += float64(n)
	}
	if ms := c.Latency(0.5, 0.9, 0.99); ms != nil {
		p.Latency = &logv1.Latency{P50Ms: hundredths(ms[0]), P90Ms: hundredths(ms[1]), P99Ms: hundredths(ms[2])}
	}
	return p
}

// hundredths leaves out the digits that a sketch only seems to know.
func hundredths(ms float64) float64 { return math.Round(100*ms) / 100 }

// thinStats makes days of old hours and forgets old days, now and then, until ctx ends.
func (l *Log) thinStats(ctx context.Context) {
	now := time.NewTicker(time.Hour)
	defer now.Stop()
	for {
		today := time.Now().UTC().Truncate(day)
		for more := true; more && ctx.Err() == nil; {
			var err error
			// Whole days before the hours that can be asked for.
			if more, err = l.store.ThinStats(ctx, today.Add(-l.cfg.StatsHours), today.Add(-l.cfg.StatsDays)); err != nil && ctx.Err() == nil {
				l.env.Log.WarnContext(ctx, "old statistics stay for another hour", slog.Any("error", err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-now.C:
		}
	}
}
