// Package fault is the errors that a caller is meant to read: what was wrong, in which field, and what to do.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Kind is what a caller can do about a fault. The list is closed.
type Kind int

// The kinds. Everything that is not a Fault counts as Internal.
const (
	Internal     Kind = iota // ours; the caller sees an id, the log the rest
	Invalid                  // the request must be changed
	NotFound                 // no such thing, or not for this caller
	Conflict                 // somebody was faster; read again, then change
	Precondition             // the thing's state does not allow it
	Unknown                  // who the caller is: no key, or not a known one
	Forbidden                // the key does not reach so far
	TooLarge                 // the request is larger than is taken
	Exhausted                // too often; try again later
	Unavailable              // something of ours is away; try again later
	NotDone                  // nothing of the kind is offered
)

// Fault is an error for the caller. Make it with New or Fields.
type Fault struct {
	Kind    Kind
	Message string      // tells the reader what to do
	Fields  []Violation // what is wrong with which field, for Invalid
	Retry   time.Duration
	cause   error
}

// Violation is what is wrong with one field.
type Violation struct{ Field, Description string }

// New makes a fault with a message for the caller. A format that ends in ": %w" wraps a cause, which is for our log and
// not part of the message.
func New(kind Kind, format string, args ...any) *Fault {
	err := fmt.Errorf(format, args...)
	f := &Fault{Kind: kind, Message: err.Error(), cause: errors.Unwrap(err)}
	if f.cause != nil {
		f.Message = strings.TrimSuffix(f.Message, ": "+f.cause.Error())
	}
	return f
}

// Field makes an Invalid fault about one field.
func Field(field, format string, args ...any) *Fault {
	f := New(Invalid, format, args...)
	f.Fields = []Violation{{Field: field, Description: f.Message}}
	f.Message = field + ": " + f.Message
	return f
}

// On gives the same fault about another field: for a check whose caller knows the field by another name. Other errors
// become a fault about the field.
func On(field string, err error) error {
	if err == nil {
		return nil
	}
	var f *Fault
	if !errors.As(err, &f) || len(f.Fields) == 0 {
		return Field(field, "%s", err)
	}
	var c Collector
	for _, v := range f.Fields {
		c.Add(field, "%s", v.Description)
	}
	return c.Err()
}

// Away makes an Unavailable fault that asks the caller to come back after a while.
func Away(retry time.Duration, format string, args ...any) *Fault {
	f := New(Unavailable, format, args...)
	f.Retry = retry
	return f
}

// Collector gathers violations, so that a caller hears of all of them at once. Its zero value is ready; it is not
// safe for use at once.
type Collector struct{ fields []Violation }

// Add notes what is wrong with a field.
func (c *Collector) Add(field, format string, args ...any) {
	c.fields = append(c.fields, Violation{field, fmt.Sprintf(format, args...)})
}

// Include notes the violations of another fault, with a prefix before their fields. Faults without fields, and other
// errors, are noted under the prefix alone. nil is nothing.
func (c *Collector) Include(prefix string, err error) {
	if err == nil {
		return
	}
	var f *Fault
	if !errors.As(err, &f) || len(f.Fields) == 0 {
		c.Add(strings.TrimSuffix(prefix, "."), "%s", err)
		return
	}
	for _, v := range f.Fields {
		c.fields = append(c.fields, Violation{prefix + v.Field, v.Description})
	}
}

// Err is nil when nothing was noted, and else one Invalid fault with all of it.
func (c *Collector) Err() error {
	if len(c.fields) == 0 {
		return nil
	}
	texts := make([]string, len(c.fields))
	for i, v := range c.fields {
		texts[i] = v.Field + ": " + v.Description
	}
	return &Fault{Kind: Invalid, Message: strings.Join(texts, "; "), Fields: c.fields}
}

// Error is the message for the caller.
func (f *Fault) Error() string { return f.Message }

// Unwrap gives the cause, for the log.
func (f *Fault) Unwrap() error { return f.cause }

// codes of the kinds, for gRPC; the HTTP status follows from it but for TooLarge.
var codeOf = map[Kind]codes.Code{
	Internal: codes.Internal, Invalid: codes.InvalidArgument, NotFound: codes.NotFound, Conflict: codes.Aborted,
	Precondition: codes.FailedPrecondition, Unknown: codes.Unauthenticated, Forbidden: codes.PermissionDenied,
	TooLarge: codes.OutOfRange, Exhausted: codes.ResourceExhausted, Unavailable: codes.Unavailable, NotDone: codes.Unimplemented,
}

// GRPCStatus makes the fault a google.rpc.Status; grpc-go calls it when a method returns a fault.
func (f *Fault) GRPCStatus() *status.Status {
	st := status.New(codeOf[f.Kind], f.Message)
	if len(f.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range f.Fields {
			bad.FieldViolations = append(bad.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Description})
		}
		st = withDetail(st, func(s *status.Status) (*status.Status, error) { return s.WithDetails(bad) })
	}
	if f.Retry > 0 {
		info := &errdetails.RetryInfo{RetryDelay: durationpb.New(f.Retry)}
		st = withDetail(st, func(s *status.Status) (*status.Status, error) { return s.WithDetails(info) })
	}
	return st
}

func withDetail(st *status.Status, add func(*status.Status) (*status.Status, error)) *status.Status {
	if with, err := add(st); err == nil {
		return with
	}
	return st
}

// HTTPStatus is the HTTP status that belongs to a gRPC status.
func HTTPStatus(st *status.Status) int {
	switch st.Code() {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument, codes.FailedPrecondition:
		return http.StatusBadRequest
	case codes.OutOfRange:
		return http.StatusRequestEntityTooLarge
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.Aborted, codes.AlreadyExists:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Canceled:
		return 499
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.Unimplemented:
		return http.StatusMethodNotAllowed
	default:
		return http.StatusInternalServerError
	}
}

// Cause is what lies behind a fault that the caller is told of, for our log; nil when nothing does.
func Cause(err error) error {
	var f *Fault
	if errors.As(err, &f) {
		return f.cause
	}
	return nil
}

// Status gives what the caller is told of any error, and whether it is ours: then the caller sees only the id, under
// which the log must hold the error. A status that a gRPC call answered is passed on; a context that ended says so.
func Status(err error, id string) (st *status.Status, internal bool) {
	var f *Fault
	if errors.As(err, &f) {
		if f.Kind != Internal {
			return f.GRPCStatus(), false
		}
	} else if st, ok := status.FromError(err); ok && st.Code() != codes.Unknown && st.Code() != codes.Internal {
		return st, false
	} else if errors.Is(err, context.DeadlineExceeded) {
		return status.New(codes.DeadlineExceeded, "it took too long; try again"), false
	} else if errors.Is(err, context.Canceled) {
		return status.New(codes.Canceled, "the request was cancelled"), false
	}
	return status.New(codes.Internal, "something went wrong on our side; whoever runs Shopbell finds the cause in its log under the id "+id), true
}

// IsKind says whether an error is a fault of this kind.
func IsKind(err error, kind Kind) bool {
	var f *Fault
	return errors.As(err, &f) && f.Kind == kind
}
