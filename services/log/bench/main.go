// Command bench measures the log's stores: what writing costs, how large it becomes, and how long each kind of search
// takes in it. Progress goes to standard error; at the end come tables in Markdown, as they stand in docs/log.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"shopbell.dev/services/log/postgres"
	"shopbell.dev/services/log/sqlite"
	"shopbell.dev/services/log/store"
	"shopbell.dev/services/log/storetest"
)

func main() {
	if err := bench(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func bench() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rows := flag.Int("rows", 10_000_000, "number of attempts; ten million take some 20 GB, a store at a time")
	quick := flag.Bool("quick", false, "100,000 attempts: says whether it works, not how fast it is")
	names := flag.String("stores", "sqlite,postgres", "the stores to measure")
	folder := flag.String("dir", "/tmp", "where the databases are while it runs")
	flag.Parse()
	if *quick {
		*rows = 100_000
	}
	if flag.NArg() > 0 || *rows < 10_000 {
		return fmt.Errorf("%q: nothing but flags is taken, and -rows from 10000", os.Args[1:])
	}
	dir, err := os.MkdirTemp(*folder, "shopbell-bench-log-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var reports []*report
	for name := range strings.SplitSeq(*names, ",") {
		open := map[string]func(context.Context, string) (*subject, error){"sqlite": openSQLite, "postgres": openPostgres}[name]
		if open == nil {
			return fmt.Errorf("-stores: %q is neither sqlite nor postgres", name)
		}
		s, err := open(ctx, dir)
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		r, err := measure(ctx, s, *rows)
		if err := errors.Join(err, s.close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		reports = append(reports, r)
	}
	printReports(reports)
	return nil
}

// began is when this program was started.
var began = time.Now()

// progress tells the person who waits.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6s  %s\n", time.Since(began).Round(time.Second), fmt.Sprintf(format, args...))
}

// subject is a store that is measured.
type subject struct {
	store.Store
	name    string
	explain func(context.Context, store.Filter) (string, error)
	size    func(context.Context) (int64, error) // bytes on disk
	server  func() time.Duration                 // processor time of the database's own processes
	close   func() error
}

func openSQLite(ctx context.Context, dir string) (*subject, error) {
	path := filepath.Join(dir, "sqlite", "log.db")
	s, err := sqlite.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	return &subject{
		Store: s, name: "SQLite", explain: s.Explain,
		size:   func(context.Context) (int64, error) { return sizeOf(filepath.Dir(path)) },
		server: func() time.Duration { return 0 },
		close:  func() error { return errors.Join(s.Close(), os.RemoveAll(filepath.Dir(path))) },
	}, nil
}

func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

// openPostgres starts a cluster that writes as safely as it does by default, with the memory of a small server.
func openPostgres(ctx context.Context, dir string) (*subject, error) {
	// The user postgres goes through it, and removes what is its own.
	if err := os.Chmod(dir, os.ModeSticky|0o777); err != nil {
		return nil, err
	}
	cluster, err := storetest.StartCluster(dir, "shared_buffers=1GB", "max_wal_size=2GB")
	if err != nil {
		return nil, err
	}
	s, err := postgres.Open(ctx, cluster.DSN("postgres"))
	if err != nil {
		return nil, errors.Join(err, cluster.Stop())
	}
	return &subject{
		Store: s, name: "PostgreSQL", explain: s.Explain,
		size: func(ctx context.Context) (size int64, err error) {
			conn, err := pgx.Connect(ctx, cluster.DSN("postgres"))
			if err != nil {
				return 0, err
			}
			err = conn.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&size)
			return size, errors.Join(err, conn.Close(ctx))
		},
		server: cluster.CPU,
		close:  func() error { return errors.Join(s.Close(), cluster.Stop()) },
	}, nil
}

func measure(ctx context.Context, s *subject, rows int) (*report, error) {
	w, r := newWorld(rows), &report{name: s.name}
	if err := write(ctx, s, w, r); err != nil {
		return nil, err
	}
	if err := search(ctx, s, w, r); err != nil {
		return nil, err
	}
	return r, forget(ctx, s, w, r)
}

// forget forgets the first three days of thirty, while a writer writes small batches and notes how long each took.
func forget(ctx context.Context, s *subject, w *world, r *report) error {
	progress("%s: forgetting the oldest tenth", s.name)
	forgotten := make(chan struct{})
	var longest time.Duration
	var beside sync.WaitGroup
	var errWrite error
	w.rows *= 2 // more of the same
	beside.Go(func() {
		for batch := range w.batches() {
			select {
			case <-forgotten:
				return
			case <-time.After(20 * time.Millisecond):
			}
			batch.Events, batch.Records = batch.Events[:min(len(batch.Events), 50)], batch.Records[:min(len(batch.Records), 50)]
			began := time.Now()
			if errWrite = s.Write(ctx, batch); errWrite != nil {
				return
			}
			longest = max(longest, time.Since(began))
		}
	})
	began, ownBefore, serverBefore := time.Now(), used(), s.server()
	_, err := s.Forget(ctx, begin.Add(days*24*time.Hour), store.Keep{Age: 27 * 24 * time.Hour})
	took, cpu := time.Since(began), used()-ownBefore+s.server()-serverBefore
	close(forgotten)
	beside.Wait()
	r.forgot = fmt.Sprintf("%s: %.1f s and %.1f CPU-s, with a writer of small batches beside it, whose longest took %.0f ms.",
		s.name, took.Seconds(), cpu.Seconds(), ms(longest))
	return errors.Join(err, errWrite)
}

// write writes all of the world, and says what it cost at the beginning, in the middle and at the end.
func write(ctx context.Context, s *subject, w *world, r *report) error {
	var spent, own, server time.Duration
	since, next, told := 0, w.rows/10, time.Now()
	for batch := range w.batches() {
		began, ownBefore, serverBefore := time.Now(), used(), s.server()
		if err := s.Write(ctx, batch); err != nil {
			return err
		}
		spent, own, server = spent+time.Since(began), own+used()-ownBefore, server+s.server()-serverBefore
		if now := time.Now(); now.Sub(told) > 10*time.Second {
			told = now
			progress("%s: %d of %d attempts written", s.name, w.made, w.rows)
		}
		if w.made == since || w.made < next && w.made < w.rows {
			continue
		}
		size, err := s.size(ctx)
		if err != nil {
			return err
		}
		n := float64(w.made - since)
		cpu := fmt.Sprintf("%.3f", (own+server).Seconds()/n*1000)
		if server > 0 {
			cpu += fmt.Sprintf(", %.3f", server.Seconds()/n*1000)
		}
		r.writes = append(r.writes, []string{fmt.Sprint(w.made), fmt.Sprintf("%.0f", n/spent.Seconds()), cpu, fmt.Sprint(size / int64(w.made))})
		spent, own, server, since, next = 0, 0, 0, w.made, next+w.rows*3/10
	}
	return nil
}

// used is the processor time of this process so far.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
