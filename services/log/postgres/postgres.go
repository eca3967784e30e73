// Package postgres keeps the log in PostgreSQL, for any number of log replicas.
package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"shopbell.dev/services/log/migrate"
	"shopbell.dev/services/log/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrateLock is the advisory lock that replicas take which start at the same time: "shopbell" as a number.
const migrateLock = 0x73686f7062656c6c

// Store is a log in a PostgreSQL database. It implements store.Store.
type Store struct {
	pool  *pgxpool.Pool
	name  string
	parts parts

	migrating sync.Mutex // guards migrated
	migrated  bool
}

var _ store.Store = (*Store)(nil)

// Open is New and Reach.
func Open(ctx context.Context, dsn string) (*Store, error) {
	s, err := New(dsn)
	if err != nil {
		return nil, err
	}
	if err := s.Reach(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// New makes a store of the database that dsn names: a URL or a keyword string as libpq takes it, with pgxpool's own keys such
// as pool_max_conns. It connects when it is used, and its first connection brings the schema up to date; several replicas may
// do so at once. So the database may be away meanwhile. Close the store when done.
func New(dsn string) (*Store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("read the address of the log's PostgreSQL: %w", err)
	}
	s := &Store{name: fmt.Sprintf("the log's database %q on %s", config.ConnConfig.Database, config.ConnConfig.Host)}
	config.AfterConnect = func(ctx context.Context, _ *pgx.Conn) error { return s.migrate(ctx, config.ConnConfig) }
	// Nothing that is asked of the store gives this context its end.
	if s.pool, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.name, err)
	}
	return s, nil
}

// Reach returns nil when the database answers and has this release's schema. An error is store.ErrAway when it may be there
// later without anybody changing this process: it is down, on its way, full, or refuses who we are; and not when a newer
// release has been at it. It may be called again.
func (s *Store) Reach(ctx context.Context) error {
	err := s.pool.Ping(ctx)
	if err == nil {
		return nil
	}
	if !errors.Is(err, migrate.ErrNewer) {
		err = fmt.Errorf("%w: %w", store.ErrAway, err)
	}
	return fmt.Errorf("connect to %s: %w", s.name, err)
}

// migrate brings the schema up to date, once in this process. ctx is the pool's: whoever waits for a connection may give up
// meanwhile, and a long migration goes on.
func (s *Store) migrate(ctx context.Context, config *pgx.ConnConfig) error {
	s.migrating.Lock()
	defer s.migrating.Unlock()
	if s.migrated {
		return nil
	}
	err := migrateUp(ctx, s.name, config)
	s.migrated = err == nil
	return err
}

// migrateUp works outside the pool: the lock belongs to a connection and ends with it, however this process ends.
func migrateUp(ctx context.Context, name string, config *pgx.ConnConfig) error {
	lock, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", name, err)
	}
	defer func() { _ = lock.Close(context.WithoutCancel(ctx)) }() // the server frees the lock however it closes
	if _, err := lock.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(migrateLock)); err != nil {
		return fmt.Errorf("wait for others that migrate %s: %w", name, err)
	}
	db := stdlib.OpenDB(*config)
	defer func() { _ = db.Close() }() // everything is committed by then
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return migrate.Up(ctx, name, goose.DialectPostgres, db, files)
}

// Close ends all connections, after the calls that are under way.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}
