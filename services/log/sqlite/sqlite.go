// Package sqlite keeps the log in one SQLite file, for one machine.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver

	"shopbell.dev/services/log/migrate"
	"shopbell.dev/services/log/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is how many reads run at once. More only share the same processors and page cache.
const readers = 4

// Store is a log in a file. It implements store.Store.
type Store struct {
	// SQLite has one writer at a time. One connection makes writers queue here, in order, instead of in SQLite's
	// busy loop.
	writer     *sql.DB
	statements statements // of the writer
	reader     *sql.DB
	path       string
	types      types

	forgetting sync.Mutex // guards patrolled, and that there is one at a time
	patrolled  [2]string  // the last decision that Forget has looked at
}

var _ store.Store = (*Store)(nil)

// Open opens the log in the file at path, makes it when there is none, and brings its schema up to date. It returns
// an error when a newer release wrote the file. Close it when done.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := create(path); err != nil {
		return nil, fmt.Errorf("create log file: %w", err)
	}
	s := &Store{path: path}
	if err := s.open(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open log %s: %w", path, err), s.Close())
	}
	return s, nil
}

// create makes the file readable for its owner alone: it holds what shops say of their customers. SQLite gives its
// other files the same permissions.
func create(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return f.Close()
}

func (s *Store) open(ctx context.Context, path string) error {
	var err error
	if s.writer, err = sql.Open("sqlite", dsn(path)+"&_txlock=immediate"); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1)
	if err := migrate.Up(ctx, "the log "+path, goose.DialectSQLite3, s.writer, sub(migrations)); err != nil {
		return err
	}
	if s.statements, err = prepare(ctx, s.writer); err != nil {
		return err
	}
	if s.reader, err = sql.Open("sqlite", dsn(path)+"&_pragma=query_only(1)"); err != nil {
		return err
	}
	s.reader.SetMaxOpenConns(readers)
	s.reader.SetMaxIdleConns(readers)
	return s.reader.PingContext(ctx)
}

// dsn names the file and how every connection treats it.
func dsn(path string) string {
	pragmas := url.Values{"_pragma": {
		// Must stand before the first table is made. It lets retention give space back bit by bit; a file without it
		// could only be shrunk by writing all of it anew.
		"auto_vacuum(INCREMENTAL)",
		// Readers go on while a batch is written, and see the log as it was before it.
		"journal_mode(WAL)",
		// A batch that was written has reached the disk: the bus is told that we have it, and will not tell us again.
		// NORMAL would lose the newest batches with the power, for some 5 % less CPU.
		"synchronous(FULL)",
		// Another process at the file (a backup, somebody's shell) is waited for.
		"busy_timeout(10000)",
		// What is deleted or moved within a page is overwritten there, so that Expunge has only freed pages to see to.
		"secure_delete(FAST)",
		// 16 MB of pages: the upper levels of all trees.
		"cache_size(-16000)",
		// The write-ahead log goes into the file 32 MB at a time, and not 4: a page that many batches change is written
		// there once.
		"wal_autocheckpoint(8000)",
		// A burst or a long read lets the write-ahead log grow; afterwards it is cut to 64 MB.
		"journal_size_limit(67108864)",
	}}
	file := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	return file.String() + "?" + pragmas.Encode()
}

func sub(files embed.FS) fs.FS {
	dir, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return dir
}

// Close ends all connections, after the calls that are under way. It may be called twice.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.reader, s.writer} { // the writer last: its end moves the write-ahead log into the file
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}
