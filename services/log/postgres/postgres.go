// Package postgres keeps the log in PostgreSQL, for any number of log replicas.
package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

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
	parts parts
}

var _ store.Store = (*Store)(nil)

// Open connects to the database that dsn names and brings its schema up to date; several replicas may do so at once.
// dsn is a URL or a keyword string as libpq takes it, with pgxpool's own keys such as pool_max_conns. Open returns an
// error when a newer release has been at the database. Close the store when done.
func Open(ctx context.Context, dsn string) (*Store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("read the address of the log's PostgreSQL: %w", err)
	}
	name := fmt.Sprintf("the log's database %q on %s", config.ConnConfig.Database, config.ConnConfig.Host)
	if err := migrateUp(ctx, name, config.ConnConfig); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	return &Store{pool: pool}, nil
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
