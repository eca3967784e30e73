package storetest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestPostgres_SaysThatItDidNotRun runs this test binary again, where it finds no PostgreSQL.
func TestPostgres_SaysThatItDidNotRun(t *testing.T) {
	if os.Getenv("SHOPBELL_TEST_NO_POSTGRES") != "" {
		binaries = func() string { return "" }
		Postgres(t)
		return
	}
	t.Parallel()
	for _, test := range []struct {
		name, ci string
		failed   bool
	}{
		{"a skip on a machine without it", "", false},
		{"a failure in CI", "true", true},
	} {
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "SHOPBELL_TEST_NO_POSTGRES=1", "CI="+test.ci)
		out, err := cmd.CombinedOutput()
		if (err != nil) != test.failed || !strings.Contains(string(out), "the PostgreSQL part did not run") ||
			strings.Contains(string(out), "--- SKIP") == test.failed {
			t.Errorf("%s: got %v and %s", test.name, err, out)
		}
	}
}
