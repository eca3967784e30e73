// Package migrate brings a log database to the schema that this binary knows.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// ErrNewer says that a newer release has been at the database. It comes wrapped.
var ErrNewer = errors.New("a newer release wrote it")

// Up runs the migrations that the database lacks, in order, each in a transaction of its own. It returns an error
// that says what to do when a newer release has been at the database: that one's rows may not be readable, and
// writing beside them could lose what they mean. name says which database it is. Where several processes may start at
// once, the caller holds a lock.
func Up(ctx context.Context, name string, dialect goose.Dialect, db *sql.DB, migrations fs.FS) error {
	p, err := goose.NewProvider(dialect, db, migrations, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	has, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version of %s: %w", name, err)
	}
	sources := p.ListSources()
	known := sources[len(sources)-1].Version
	if has > known {
		return fmt.Errorf("%s has schema version %d, and this release knows versions up to %d: %w; "+
			"start that release or a later one, or give this one another database", name, has, known, ErrNewer)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema of %s from version %d to %d: %w", name, has, known, err)
	}
	return nil
}
