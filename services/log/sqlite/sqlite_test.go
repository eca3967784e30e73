package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	busv1 "shopbell.dev/proto/shopbell/bus/v1"
	shopbellv1 "shopbell.dev/proto/shopbell/v1"

	"shopbell.dev/services/log/sqlite"
	"shopbell.dev/services/log/store"
	"shopbell.dev/services/log/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("SHOPBELL_TEST_WRITE_AND_DIE"); path != "" {
		writeAndDie(path)
	}
	if path := os.Getenv("SHOPBELL_TEST_COUNT_AND_DIE"); path != "" {
		countAndDie(path)
	}
	os.Exit(m.Run())
}

func open(t testing.TB) store.Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "log.db"))
}

func openAt(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	// Open's context is about opening; who calls it with a deadline keeps the store.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := sqlite.Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) { storetest.Run(t, open) }

func BenchmarkWrite(b *testing.B) { storetest.BenchmarkWrite(b, open) }

func TestOpen_TakesWhatEarlierReleasesWrote(t *testing.T) {
	t.Parallel()
	dump, err := os.ReadFile("testdata/version1.sql")
	if err != nil {
		t.Fatal(err)
	}
	storetest.EachVersion(t, goose.DialectSQLite3, func(t *testing.T, upTo func(*sql.DB) error) {
		path := filepath.Join(t.TempDir(), "log.db")
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = db.Exec(string(dump)); err == nil {
			err = upTo(db)
		}
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		storetest.Migrated(t, openAt(t, path), open(t))
	})
}

func TestOpen_TakesAnyPathAndKeepsItPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new folder", "a?b#c%20d&_pragma=query_only(1).db")
	for range 2 {
		if err := openAt(t, path).Close(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode().Perm(), os.FileMode(0o600); got != want {
		t.Errorf("permissions: got %v, want %v", got, want)
	}
}

func TestOpen_RefusesANewerSchema(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.db")
	if err := openAt(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = sqlite.Open(context.Background(), path)
	if err == nil || !strings.Contains(err.Error(), "version 999") || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("got error %v, want one that names version 999 and says what to do", err)
	}
}

func TestOpen_SaysWhatIsWrongWithTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := sqlite.Open(context.Background(), path)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "not a database") {
		t.Errorf("got error %v, want one that names the file and that it is not a database", err)
	}
}

// TestWrite_SurvivesKill proves what the comment at synchronous(NORMAL) says: what Write has written is there after
// the process was killed in the middle of the next one.
func TestWrite_SurvivesKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SHOPBELL_TEST_WRITE_AND_DIE="+path)
	out, err := cmd.CombinedOutput()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the writer ended with %v, want killed: %s", err, out)
	}
	written := strings.Count(string(out), "written")
	s := openAt(t, path)
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	for i := range written {
		if _, err := s.Event(context.Background(), "shop", fmt.Sprintf("evt_%d", i)); err != nil {
			t.Errorf("after %d batches were written and the writer killed: %v", written, err)
		}
	}
	if written == 0 {
		t.Error("the writer wrote nothing")
	}
}

// writeAndDie says "written" after each batch and is killed, by itself, while the last one is under way.
func writeAndDie(path string) {
	s, err := sqlite.Open(context.Background(), path)
	for i := 0; err == nil; i++ {
		if i == 20 {
			go func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }()
		}
		batch := store.Batch{Events: []*shopbellv1.Event{{ShopId: "shop", Id: fmt.Sprintf("evt_%d", i)}}}
		for j := range 200 {
			batch.Records = append(batch.Records, &busv1.Record{ShopId: "shop", What: &busv1.Record_Change{
				Change: &busv1.StatusChange{DeliveryId: fmt.Sprintf("dlv_%d_%d", i, j), Status: "held"},
			}})
		}
		if err = s.Write(context.Background(), batch); err == nil {
			fmt.Println("written")
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

// TestStats_SurviveKill kills the writer again and again in the middle of what it counts. Each new one is told everything
// from the beginning, as by a bus that has heard of nothing.
func TestStats_SurviveKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.db")
	killed := 0
	for range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SHOPBELL_TEST_COUNT_AND_DIE="+path)
		if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() > 0 {
			t.Fatalf("the writer ended with %v: %s", err, out)
		} else if err != nil {
			killed++
		}
	}
	s := openAt(t, path)
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	for _, batch := range livesInBatches() {
		if err := s.Write(context.Background(), batch); err != nil {
			t.Fatal(err)
		}
	}
	storetest.CheckStats(t, s)
	if killed == 0 {
		t.Error("no writer was killed while it wrote")
	}
}

func livesInBatches() (batches []store.Batch) {
	for part := range slices.Chunk(storetest.Lives(1, 400), 20) {
		batches = append(batches, store.Batch{Records: part})
	}
	return batches
}

// countAndDie is killed, by itself, after a time that leads into the middle of writing.
func countAndDie(path string) {
	s, err := sqlite.Open(context.Background(), path)
	if err == nil {
		time.AfterFunc(rand.N(60*time.Millisecond), func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	}
	for _, batch := range livesInBatches() {
		if err == nil {
			err = s.Write(context.Background(), batch)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}
