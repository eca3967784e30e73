package fault_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	"shopbell.dev/pkg/fault"
)

func TestDidYouMean_NamesTheNearestOrNothing(t *testing.T) {
	known := []string{"order_created", "new_status", "paid", "test.ping", "retry_schedule"}
	for _, row := range []struct{ wrong, want string }{
		{"order.created", "order_created"},
		{"Order_Created", "order_created"},
		{"piad", "paid"},
		{"retrySchedule", "retry_schedule"},
		{"newstatus", "new_status"},
		{"something_else_entirely", ""},
		{"", ""},
	} {
		got := fault.DidYouMean(row.wrong, known)
		want := ""
		if row.want != "" {
			want = fmt.Sprintf(" (did you mean %q?)", row.want)
		}
		if got != want {
			t.Errorf("DidYouMean(%q) = %q, want %q", row.wrong, got, want)
		}
	}
}

func TestFault_BecomesAStatusWithFieldViolations(t *testing.T) {
	var c fault.Collector
	c.Add("url", "it is relative; write https://… in full")
	c.Include("policy.", fault.Field("timeout", "over 60s"))
	st, internal := fault.Status(fmt.Errorf("create webhook: %w", c.Err()), "err_1")
	if internal || st.Code() != codes.InvalidArgument {
		t.Fatalf("Status = %v (internal %v), want InvalidArgument", st, internal)
	}
	bad, ok := st.Details()[0].(*errdetails.BadRequest)
	if !ok || len(bad.FieldViolations) != 2 || bad.FieldViolations[1].Field != "policy.timeout" {
		t.Errorf("details = %v, want violations of url and policy.timeout", st.Details())
	}
}

func TestStatus_HidesWhatIsOurs(t *testing.T) {
	st, internal := fault.Status(errors.New("dial tcp 10.0.0.7: secret host"), "err_42")
	if !internal || strings.Contains(st.Message(), "10.0.0.7") || !strings.Contains(st.Message(), "err_42") {
		t.Errorf("Status = %q (internal %v), want the id and nothing else", st.Message(), internal)
	}
}
