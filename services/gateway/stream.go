package gateway

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shopbell.dev/pkg/fault"
	logv1 "shopbell.dev/proto/shopbell/log/v1"
)

// chosen reads the filters of ListDeliveries from a query.
func chosen(r *http.Request, query url.Values) (*logv1.ListDeliveriesRequest, error) {
	req := &logv1.ListDeliveriesRequest{}
	if err := (strictQuery{}).Parse(req, query, utilities.NewDoubleArray([][]string{{"shop_id"}})); err != nil {
		return nil, forCaller(status.Error(codes.InvalidArgument, err.Error()))
	}
	req.ShopId = r.PathValue("shop_id")
	return req, nil
}

const (
	// keepAlive is how often a reader who hears nothing is sent a comment, so that nothing in between takes the
	// connection for dead.
	keepAlive = 15 * time.Second
	// patience is how long a reader may take nothing before he is left.
	patience = time.Minute
)

// tail is GET /v1/shops/{shop_id}/deliveries:tail: Server-Sent Events until the reader leaves or we stop.
func (g *Gateway) tail(w http.ResponseWriter, r *http.Request) {
	req, err := chosen(r, r.URL.Query())
	if err != nil {
		g.env.Fail(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(withKey(r))
	defer cancel()
	stream, err := g.log.TailDeliveries(ctx, req)
	if err == nil {
		if header, herr := stream.Header(); header == nil || herr != nil { // it has ended already; why, its end says
			_, err = stream.Recv()
		}
	}
	if err != nil {
		g.env.Fail(w, r, forCaller(err))
		return
	}
	happened, ended := make(chan *logv1.TailDeliveriesResponse), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			what, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case happened <- what:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { cancel(); <-ended }()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy is to pass each on as it comes
	reader := http.NewResponseController(w)
	_ = reader.SetReadDeadline(time.Time{}) // the server's is for requests, and would end this one
	say := func(text string) error {
		_ = reader.SetWriteDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		return reader.Flush()
	}
	if err = say(": what happens from now on\n\n"); err == nil && r.Header.Get("Last-Event-ID") != "" {
		// A reader who comes back, as browsers do by themselves, is not told what happened meanwhile, but that he was away.
		text, perr := g.print.line(&logv1.TailDeliveriesResponse{At: timestamppb.Now(), What: "gap"})
		if perr != nil {
			return
		}
		err = say(fmt.Sprintf("event: gap\ndata: %s\n", text))
	}
	quiet := time.NewTicker(keepAlive)
	defer quiet.Stop()
	for err == nil {
		select {
		case what := <-happened:
			text, perr := g.print.line(what)
			if perr != nil {
				return
			}
			err = say(fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n", what.GetId(), what.GetWhat(), text))
			quiet.Reset(keepAlive)
		case <-quiet.C:
			err = say(": still here\n\n")
		case <-ended:
			return
		case <-g.env.Stopping:
			return
		case <-ctx.Done():
			return
		}
	}
}

// The formats of an export.
const (
	ndjson   = "ndjson"
	commaSep = "csv"
)

// export is GET /v1/shops/{shop_id}/deliveries:export. It writes as it reads, and stops when the reader leaves.
func (g *Gateway) export(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	format, what := query.Get("format"), query.Get("what")
	query.Del("format")
	query.Del("what")
	var wrong fault.Collector
	if format == "" {
		format = ndjson
	}
	if format != ndjson && format != commaSep {
		wrong.Add("format", "%q is neither %s nor %s%s", format, ndjson, commaSep, fault.DidYouMean(format, []string{ndjson, commaSep}))
	}
	if what == "" {
		what = "deliveries"
	}
	if what != "deliveries" && what != "attempts" {
		wrong.Add("what", "%q is neither deliveries nor attempts%s", what, fault.DidYouMean(what, []string{"deliveries", "attempts"}))
	}
	req, err := chosen(r, query)
	wrong.Include("", err)
	if err := wrong.Err(); err != nil {
		g.env.Fail(w, r, err)
		return
	}
	var next func() ([]proto.Message, error)
	ctx, cancel := context.WithCancel(withKey(r))
	defer cancel()
	columns := deliveryColumns
	if what == "attempts" {
		columns = attemptColumns
		next, err = pages(ctx, req, g.log.ExportAttempts, (*logv1.ExportAttemptsResponse).GetAttempts)
	} else {
		next, err = pages(ctx, req, g.log.ExportDeliveries, (*logv1.ExportDeliveriesResponse).GetDeliveries)
	}
	var page []proto.Message
	if err == nil {
		page, err = next() // what is wrong with the request is known by now
	}
	if err != nil && !errors.Is(err, io.EOF) {
		g.env.Fail(w, r, forCaller(err))
		return
	}
	out := &sheet{w: w, print: g.print, columns: columns, csv: format == commaSep}
	out.begin(fmt.Sprintf("%s-%s.%s", r.PathValue("shop_id"), what, format))
	reader := http.NewResponseController(w)
	_ = reader.SetReadDeadline(time.Time{})
	for ; err == nil; page, err = next() {
		_ = reader.SetWriteDeadline(time.Now().Add(patience))
		if err = out.rows(page); err == nil {
			err = reader.Flush()
		}
		if err != nil {
			break
		}
	}
	if !errors.Is(err, io.EOF) {
		panic(http.ErrAbortHandler) // the connection breaks, so that nobody takes what came for the whole
	}
}

// pages gives the pages of an export one after the other; the last is followed by io.EOF.
func pages[R any, M proto.Message](ctx context.Context, req *logv1.ListDeliveriesRequest,
	call func(context.Context, *logv1.ListDeliveriesRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[R], error), list func(*R) []M,
) (next func() ([]proto.Message, error), err error) {
	stream, err := call(ctx, req)
	if err != nil {
		return nil, err
	}
	return func() ([]proto.Message, error) {
		page, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		var all []proto.Message
		for _, m := range list(page) {
			all = append(all, m)
		}
		return all, nil
	}, nil
}

// The columns of an export as CSV: fields, and fields of fields.
var (
	deliveryColumns = []string{
		"id", "created_at", "updated_at", "event_id", "event_type", "webhook_id", "status", "reason", "attempts_made", "response_code",
		"error_class", "next_attempt_at", "test",
	}
	attemptColumns = []string{
		"delivery_id", "event_id", "event_type", "webhook_id", "attempt.number", "attempt.started_at", "attempt.duration_ms",
		"attempt.response_code", "attempt.error_class", "attempt.error", "attempt.verdict", "attempt.url", "attempt.by_hand",
		"attempt.asked_by", "attempt.replay_id", "attempt.trace_id",
	}
)

// sheet writes messages as rows.
type sheet struct {
	w       http.ResponseWriter
	print   printer
	columns []string
	csv     bool
}

func (s *sheet) begin(name string) {
	s.w.Header().Set("Content-Disposition", "attachment; filename="+strconv.Quote(name))
	if !s.csv {
		s.w.Header().Set("Content-Type", "application/x-ndjson")
		return
	}
	s.w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	titles := make([]string, len(s.columns))
	for i, path := range s.columns {
		titles[i] = path[strings.LastIndexByte(path, '.')+1:]
	}
	out := csv.NewWriter(s.w)
	_ = out.Write(titles) // the reader has gone if this fails, and the first row finds out
	out.Flush()
}

func (s *sheet) rows(list []proto.Message) error {
	if !s.csv {
		for _, m := range list {
			line, err := s.print.line(m)
			if err != nil {
				return err
			}
			if _, err := s.w.Write(line); err != nil {
				return err
			}
		}
		return nil
	}
	out := csv.NewWriter(s.w)
	for _, m := range list {
		row := make([]string, len(s.columns))
		for i, path := range s.columns {
			row[i] = cell(m.ProtoReflect(), path)
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// cell is a field as a program for tables reads it; what is absent is empty.
func cell(m protoreflect.Message, path string) string {
	name, rest, deeper := strings.Cut(path, ".")
	f := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	v := m.Get(f)
	switch {
	case deeper:
		return cell(v.Message(), rest)
	case f.Kind() == protoreflect.StringKind:
		return harmless(v.String())
	case f.Message() == nil:
		return v.String()
	case !m.Has(f):
		return ""
	}
	at, _ := v.Message().Interface().(*timestamppb.Timestamp)
	return at.AsTime().Format(time.RFC3339Nano)
}

// harmless is a text that programs for tables take for text: with one of these signs in front they would take it for a
// formula, and a customer may have written it.
func harmless(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}
