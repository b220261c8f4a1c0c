package rules

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/imprint-iot/imprint"
)

const (
	// defaultStatementTimeout is after how long PostgreSQL itself ends a statement,
	// and postgresPatience what Put adds for the way there and back.
	defaultStatementTimeout = 10 * time.Second
	longestStatementTimeout = 20 * time.Second
	postgresPatience        = 5 * time.Second
	// defaultPostgresPool and largestPostgresPool bound the connections.
	defaultPostgresPool = 4
	largestPostgresPool = 64
	// maxIdentifier is what PostgreSQL keeps of a name, in bytes.
	maxIdentifier = 63
)

// recordColumns are those that a table of records has; it may have more, and
// other types for data. docs/rules.md tells them.
const recordColumns = `(
	id text PRIMARY KEY,
	at timestamptz NOT NULL,
	account text NOT NULL,
	region text NOT NULL,
	rule text NOT NULL,
	data bytea NOT NULL
)`

// Conditions of PostgreSQL (manual, appendix A).
const (
	undefinedTable       = "42P01"
	classDataException   = "22"
	classIntegrityBroken = "23"
)

// postgresSink inserts records into a table, one row each. A record that comes
// again finds its row.
type postgresSink struct {
	pool           *pgxpool.Pool
	insert, create string // create is empty unless the table may be created
	patience       time.Duration
}

func openPostgresSink(at *sinkAddress) (Sink, error) {
	table, err := at.takeTable()
	if err != nil {
		return nil, err
	}
	s := &postgresSink{insert: "INSERT INTO " + table + " (id, at, account, region, rule, data) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING"}
	create, err := at.takeBool("create")
	if err != nil {
		return nil, err
	}
	if create {
		s.create = "CREATE TABLE IF NOT EXISTS " + table + " " + recordColumns
	}
	connections, timeout, err := at.takePostgresBounds()
	if err != nil {
		return nil, err
	}
	s.patience = timeout + postgresPatience
	passwords, err := at.takeFile("password-file")
	if err != nil {
		return nil, err
	}
	config, err := at.takePostgresConfig()
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(connections)
	config.ConnConfig.RuntimeParams["statement_timeout"] = strconv.FormatInt(timeout.Milliseconds(), 10)
	if passwords != "" {
		config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
			password, err := firstLine(passwords)
			if err != nil {
				return fmt.Errorf("couldn't read the password: %w", err)
			}
			c.Password = password
			return nil
		}
	}
	// It connects when it is used.
	s.pool, err = pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, at.refuse("PostgreSQL's client doesn't take its settings")
	}
	return s, nil
}

// takeTable gives the quoted name of the table.
func (at *sinkAddress) takeTable() (string, error) {
	name := at.take("table")
	parts := strings.Split(name, ".")
	bad := len(parts) > 2
	for _, part := range parts {
		bad = bad || part == "" || len(part) > maxIdentifier || strings.ContainsRune(part, 0)
	}
	if bad {
		return "", at.refuse("table is %q, and must be TABLE or SCHEMA.TABLE", imprint.Excerpt(name)).
			WithHint("For example postgres://imprint@HOST/DATABASE?table=records. Names are taken as they are written, capitals included.")
	}
	return pgx.Identifier(parts).Sanitize(), nil
}

func (at *sinkAddress) takePostgresBounds() (connections int, timeout time.Duration, err error) {
	connections, timeout = defaultPostgresPool, defaultStatementTimeout
	if text := at.take("connections"); text != "" {
		connections, err = strconv.Atoi(text)
		if err != nil || connections < 1 || connections > largestPostgresPool {
			return 0, 0, at.refuse("connections must be a number from 1 to %d", largestPostgresPool)
		}
	}
	if text := at.take("timeout"); text != "" {
		timeout, err = time.ParseDuration(text)
		if err != nil || timeout < time.Millisecond || timeout > longestStatementTimeout {
			return 0, 0, at.refuse("timeout must be a duration up to %s, such as 5s", longestStatementTimeout)
		}
	}
	return connections, timeout, nil
}

// takePostgresConfig gives what is left of the URL to PostgreSQL's client, as far
// as it is known to hold no secret.
func (at *sinkAddress) takePostgresConfig() (*pgxpool.Config, error) {
	settings := url.Values{}
	for _, parameter := range []string{
		"host", "sslmode", "sslrootcert", "sslcert", "sslkey", "passfile", "target_session_attrs", "connect_timeout", "application_name", "search_path",
	} {
		if value := at.take(parameter); value != "" {
			settings.Set(parameter, value)
		}
	}
	err := at.allTaken()
	if err != nil {
		return nil, err
	}
	if !settings.Has("application_name") {
		settings.Set("application_name", "imprint")
	}
	if !settings.Has("connect_timeout") {
		settings.Set("connect_timeout", "5")
	}
	user := ""
	if at.url.User != nil {
		user = at.url.User.String() + "@"
	}
	config, err := pgxpool.ParseConfig("postgres://" + user + strings.Join(at.hosts, ",") + at.url.EscapedPath() + "?" + settings.Encode())
	if err != nil {
		// The client's error would quote the URL.
		return nil, at.refuse("PostgreSQL's client doesn't take its URL").
			WithHint("Its form is postgres://USER@HOST:PORT/DATABASE?table=TABLE&sslmode=verify-full&sslrootcert=/PATH.")
	}
	return config, nil
}

// Put implements Sink.
func (s *postgresSink) Put(ctx context.Context, r Record) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	err := s.add(ctx, r)
	if condition(err) == undefinedTable && s.create != "" {
		// Another one may create it at the same time, so that the row decides.
		_, createErr := s.pool.Exec(ctx, s.create)
		err = s.add(ctx, r)
		if condition(err) == undefinedTable && createErr != nil {
			err = fmt.Errorf("couldn't create the table: %w", createErr)
		}
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("couldn't insert into PostgreSQL: %w", err)
	switch class := condition(err); {
	case strings.HasPrefix(class, classDataException), strings.HasPrefix(class, classIntegrityBroken):
		return permanent{err} // the table doesn't take such a record
	}
	return err
}

func (s *postgresSink) add(ctx context.Context, r Record) error {
	data := r.Data
	if data == nil {
		data = []byte{} // nil would be NULL
	}
	_, err := s.pool.Exec(ctx, s.insert, r.ID, r.At, string(r.Tenant.Account), string(r.Tenant.Region), string(r.Rule), data)
	return err
}

// condition gives PostgreSQL's code of an error, "" for others.
func condition(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

// Close implements Sink.
func (s *postgresSink) Close() error {
	s.pool.Close()
	return nil
}
