package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver named sqlite

	"github.com/imprint-iot/imprint"
)

//go:embed migrations/*.sql
var migrations embed.FS

// database makes connections to the file.
type database struct{ opts Options }

// Open opens the store at Options.Path, makes it when it is absent, and brings
// its tables to the present version. Errors: CodeUnavailable when another
// process has it open, when the disk refuses, or when the file was made by a
// newer version; CodeInternal when it is damaged.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Path == "" || opts.Sealer == nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the store needs a path and a sealer")
	}
	opts = opts.withDefaults()
	path, err := filepath.Abs(opts.Path)
	if err != nil {
		return nil, fmt.Errorf("couldn't find the database file: %w", err)
	}
	opts.Path = path
	lock, err := acquireLock(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("couldn't open the registry: %w", err)
	}
	s, err := open(ctx, opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("couldn't open the registry %s: %w", path, err), lock.release())
	}
	s.lock = lock
	return s, nil
}

func open(ctx context.Context, opts Options) (*Store, error) {
	err := makeFile(opts.Path)
	if err != nil {
		return nil, err
	}
	return assemble(ctx, &database{opts: opts})
}

// assemble opens the connections and starts the goroutines. The writing
// connection comes first and stays, so that those of the migration don't make
// and remove the log each time.
func assemble(ctx context.Context, file *database) (*Store, error) {
	writer, err := file.writer()
	if err != nil {
		return nil, err
	}
	err = migrate(ctx, file)
	if err != nil {
		return nil, errors.Join(err, writer.close())
	}
	side, err := file.side()
	if err != nil {
		return nil, errors.Join(err, writer.close())
	}
	s := &Store{
		opts: file.opts, file: file, queue: make(chan *request, file.opts.Queue), ended: make(chan struct{}),
		check: newCheckpointer(side, file.opts.Logger), readers: newReaders(file),
	}
	s.commits = &committer{
		opts: file.opts, queue: s.queue, session: writer, check: s.check, tell: s.tell, done: make(chan struct{}),
		timer: time.NewTimer(time.Hour),
		renew: file.writer,
	}
	go s.check.work()
	go s.commits.work()
	return s, nil
}

// makeFile makes the file with its mode before SQLite does; SQLite gives the
// log and its index the file's own mode.
func makeFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return failure(imprint.CodeUnavailable, err, "Check that the data directory exists and that the server may write there.")
	}
	return file.Close()
}

// patience is how long a connection waits for a lock that another has.
const patience = 5 * time.Second

// session opens a connection with what holds for every one: temp_store keeps the
// savepoints' journals in memory; checkpoints are off that would run inside a
// COMMIT.
func (d *database) session(wait time.Duration, pragmas ...string) (*session, error) {
	return newSession(d.opts.Path, wait, append([]string{
		"journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY", "wal_autocheckpoint = 0",
		"foreign_keys = OFF", "trusted_schema = OFF",
	}, pragmas...)...)
}

func (d *database) writer() (*session, error) {
	return d.session(patience, fmt.Sprintf("cache_size = -%d", d.opts.WriteCacheKiB), "journal_size_limit = 67108864")
}

func (d *database) reader() (*session, error) {
	return d.session(patience, fmt.Sprintf("cache_size = -%d", d.opts.ReadCacheKiB), "query_only = 1")
}

// side opens the connection of the checkpointer, which never waits.
func (d *database) side() (*session, error) { return d.session(0) }

// dataSource gives the URI that database/sql, which the migrations need, opens
// the file by.
func dataSource(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	pragmas := url.Values{"_pragma": {"busy_timeout(5000)", "synchronous(FULL)", "wal_autocheckpoint(0)"}}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + pragmas.Encode()
}

// migrate brings the tables to the version that this program knows.
func migrate(ctx context.Context, file *database) error {
	db, err := sql.Open("sqlite", dataSource(file.opts.Path))
	if err != nil {
		return fmt.Errorf("couldn't set up the driver of the migrations: %w", err)
	}
	err = migrateOver(ctx, db, file.opts.Logger)
	return errors.Join(err, db.Close())
}

func migrateOver(ctx context.Context, db *sql.DB, logger *slog.Logger) error {
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("couldn't read the migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, folder,
		goose.WithSlog(logger), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("couldn't set up the migrations: %w", err)
	}
	present, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("couldn't read the registry's version: %w", classify(err))
	}
	if present > known {
		return imprint.Errorf(imprint.CodeUnavailable, "the registry has version %d, this program knows %d", present, known).
			WithHint("Use the program version that made the registry, or a newer one.")
	}
	// The highest version that ran says nothing of lower ones: a migration that came with a
	// number below it must not be passed over in silence. The error names it.
	pending, err := provider.HasPending(ctx)
	if err != nil {
		return fmt.Errorf("couldn't tell which migrations the registry lacks: %w", classify(err))
	}
	if !pending {
		return nil
	}
	_, err = provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("couldn't bring the registry to version %d: %w", known, classify(err))
	}
	return nil
}
