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
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver named sqlite

	"github.com/imprint-iot/imprint"
)

//go:embed migrations/*.sql
var migrations embed.FS

// database makes connections to the file. None stays open unused.
type database struct {
	db   *sql.DB
	opts Options
}

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
	db, err := sql.Open("sqlite", dataSource(opts.Path))
	if err != nil {
		return nil, fmt.Errorf("couldn't set up the driver: %w", err)
	}
	db.SetMaxIdleConns(-1)
	file := &database{db: db, opts: opts}
	s, err := assemble(ctx, file)
	if err != nil {
		return nil, errors.Join(err, file.close())
	}
	return s, nil
}

// assemble opens the connections and starts the goroutines. The writing
// connection comes first and stays, so that those of the migration don't make
// and remove the log each time.
func assemble(ctx context.Context, file *database) (*Store, error) {
	writer, err := file.writer(ctx)
	if err != nil {
		return nil, err
	}
	err = migrate(ctx, file)
	if err != nil {
		return nil, errors.Join(err, writer.close())
	}
	side, err := file.side(ctx)
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
		renew: func() (*session, error) { return file.writer(context.Background()) },
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

// dataSource gives the driver's URI with what holds for every connection. The
// driver sets busy_timeout before the other pragmas.
func dataSource(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	// temp_store keeps the savepoints' journals in memory. Autocheckpoints are
	// off: they run inside a COMMIT.
	pragmas := url.Values{"_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "temp_store(MEMORY)", "wal_autocheckpoint(0)",
		"foreign_keys(OFF)", "trusted_schema(OFF)",
	}}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + pragmas.Encode()
}

func (d *database) writer(ctx context.Context) (*session, error) {
	return newSession(ctx, d.db, fmt.Sprintf("cache_size = -%d", d.opts.WriteCacheKiB), "journal_size_limit = 67108864")
}

func (d *database) reader(ctx context.Context) (*session, error) {
	return newSession(ctx, d.db, fmt.Sprintf("cache_size = -%d", d.opts.ReadCacheKiB), "query_only = 1")
}

// side opens the connection of the checkpointer, which never waits.
func (d *database) side(ctx context.Context) (*session, error) {
	return newSession(ctx, d.db, "busy_timeout = 0")
}

func (d *database) close() error {
	err := d.db.Close()
	if err != nil {
		return fmt.Errorf("couldn't close the database: %w", err)
	}
	return nil
}

// migrate brings the tables to the version that this program knows.
func migrate(ctx context.Context, file *database) error {
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("couldn't read the migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, file.db, folder,
		goose.WithSlog(file.opts.Logger), goose.WithDisableGlobalRegistry(true))
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
	if present == known {
		return nil
	}
	_, err = provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("couldn't bring the registry to version %d: %w", known, classify(err))
	}
	return nil
}
