// Package rpc is gRPC and HTTP as every room speaks them: keys, checks, traces, and errors that say what to do.
package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/id"
)

// maxMessage is the largest gRPC message: a batch of events.
const maxMessage = 64 << 20

// NewServer makes a gRPC server on which rooms register.
func NewServer(keys Keys, tracing trace.TracerProvider, log *slog.Logger) (*grpc.Server, error) {
	validator, err := protovalidate.New()
	if err != nil {
		return nil, err
	}
	g := guard{keys, validator, log}
	return grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(tracing))),
		grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream),
	), nil
}

// guard stands before every method.
type guard struct {
	keys      Keys
	validator protovalidate.Validator
	log       *slog.Logger
}

// open are the methods that need no key: health checks and reflection tell nothing of any shop.
func open(method string) bool { return strings.HasPrefix(method, "/grpc.") }

func (g guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		err = g.leave(ctx, info.FullMethod, err)
	}()
	if open(info.FullMethod) {
		return next(ctx, req)
	}
	who, err := g.keys.identify(authorization(ctx))
	if err != nil {
		return nil, err
	}
	if err := who.mayCall(info.FullMethod, req); err != nil {
		return nil, err
	}
	if err := g.valid(req); err != nil {
		return nil, err
	}
	return next(with(ctx, who), req)
}

func (g guard) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		err = g.leave(s.Context(), info.FullMethod, err)
	}()
	if open(info.FullMethod) {
		return next(srv, s)
	}
	who, err := g.keys.identify(authorization(s.Context()))
	if err != nil {
		return err
	}
	s = &guarded{s, g.keys, info.FullMethod, with(s.Context(), who)}
	if !info.IsClientStream { // whoever takes many messages says himself what is wrong with which
		s = checked{s, g}
	}
	return next(srv, s)
}

// guarded is a stream whose messages are looked at one by one: each may name another shop, and the key may be deleted
// while the stream stands.
type guarded struct {
	grpc.ServerStream
	keys   Keys
	method string
	ctx    context.Context //nolint:containedctx // a stream's context is what a stream is asked for
}

// Context is the stream's, and says who calls.
func (s *guarded) Context() context.Context { return s.ctx }

// RecvMsg receives a message whose shop the caller's key opens.
func (s *guarded) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	who, err := s.keys.identify(authorization(s.ctx))
	if err != nil {
		return err
	}
	return who.mayCall(s.method, m)
}

// SendMsg sends a message to a caller whose key is still there.
func (s *guarded) SendMsg(m any) error {
	if _, err := s.keys.identify(authorization(s.ctx)); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// checked is a stream whose request is held against the rules in its proto.
type checked struct {
	grpc.ServerStream
	guard guard
}

// RecvMsg receives a request that is valid.
func (c checked) RecvMsg(m any) error {
	if err := c.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return c.guard.valid(m)
}

func panicked(p any) error { return errors.New("panic: " + toText(p) + "\n" + string(debug.Stack())) }

func toText(p any) string {
	if err, ok := p.(error); ok {
		return err.Error()
	}
	text, _ := json.Marshal(p) //nolint:errchkjson // a panic's value that cannot be printed is left out
	return string(text)
}

// valid checks a request against the rules in its proto.
func (g guard) valid(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	err := g.validator.Validate(m)
	var violations *protovalidate.ValidationError
	if !errors.As(err, &violations) {
		return err
	}
	var bad fault.Collector
	for _, v := range violations.Violations {
		text := v.Proto.GetMessage()
		if v.RuleDescriptor != nil && v.RuleValue.IsValid() {
			switch v.RuleDescriptor.Name() {
			case "pattern":
				text = "it must look like " + v.RuleValue.String()
			case "in":
				text = noneOf(v.FieldValue, v.RuleValue.List())
			}
		}
		bad.Add(protovalidate.FieldPathString(v.Proto.GetField()), "%s", text)
	}
	return bad.Err()
}

// noneOf says that a value is not one of a list; that the field may be left out goes without saying.
func noneOf(value protoreflect.Value, list protoreflect.List) string {
	var names []string
	for i := range list.Len() {
		if name := list.Get(i).String(); name != "" {
			names = append(names, name)
		}
	}
	return fmt.Sprintf("%q is none of %s%s", value.String(), strings.Join(names, ", "), fault.DidYouMean(value.String(), names))
}

// leave makes an error what the caller may see of it.
func (g guard) leave(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	return Status(ctx, g.log, method, err).Err()
}

// Status gives what a caller is told of an error, and logs what is ours.
func Status(ctx context.Context, log *slog.Logger, doing string, err error) *status.Status {
	errID := id.New(id.Fault, time.Now())
	st, internal := fault.Status(err, errID)
	if internal {
		log.ErrorContext(ctx, "request not served", slog.String("request", doing), slog.String("error_id", errID), slog.Any("error", err))
	} else if cause := fault.Cause(err); cause != nil {
		log.WarnContext(ctx, "request not served for now", slog.String("request", doing), slog.String("told", st.Message()), slog.Any("error", cause))
	}
	return st
}

// marshal prints messages as the API does.
var marshal = protojson.MarshalOptions{UseProtoNames: true}

// WriteError answers a request with an error, as API.md's errors look, and logs what is ours.
func WriteError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	st := Status(r.Context(), log, r.Method+" "+r.URL.Path, err)
	var body bytes.Buffer
	text, perr := marshal.Marshal(st.Proto())
	if perr == nil {
		perr = json.Indent(&body, text, "", "  ") // protojson puts blanks where it likes
	}
	if perr != nil {
		body.WriteString(`{"code":13,"message":"the error could not be printed"}`)
	}
	body.WriteByte('\n')
	w.Header().Set("Content-Type", "application/json")
	if wait := RetryAfter(st); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds()+0.999)))
	}
	if st.Code() == 16 {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(fault.HTTPStatus(st))
	_, _ = w.Write(body.Bytes())
}

// RetryAfter is how long a status asks the caller to wait, or 0.
func RetryAfter(st *status.Status) time.Duration {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// RequireKey lets only those through to next who have a key. Which shop it opens, and for what, next asks with Authorize.
func RequireKey(keys Keys, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := keys.identify(r.Header.Get("Authorization"))
		if err != nil {
			WriteError(w, r, log, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(with(r.Context(), who)))
	})
}
