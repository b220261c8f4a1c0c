package registry

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	functionColumns = "tenant, name, version, runtime, handler, role, description, timeout, memory, code_sha256, code_size, " +
		"environment, concurrency, revision_id, last_published, modified_at"
	aliasColumns      = "tenant, function_name, name, version, description, revision_id"
	permissionColumns = "tenant, function_name, qualifier, statement_id, action, principal, source_arn, source_account"
	callColumns       = "id, tenant, function_name, qualifier, source_arn, attempt_id, failures, refusals, due_at, created_at"
)

var (
	putFunction = upsert("functions", 3, "tenant", "name", "version", "runtime", "handler", "role", "description", "timeout",
		"memory", "code_sha256", "code_size", "environment", "concurrency", "revision_id", "last_published", "modified_at")
	putAlias      = upsert("function_aliases", 3, "tenant", "function_name", "name", "version", "description", "revision_id")
	putPermission = upsert("function_permissions", 4, "tenant", "function_name", "qualifier", "statement_id", "action",
		"principal", "source_arn", "source_account")
	putCall = upsert("queued_calls", 1, "id", "tenant", "function_name", "qualifier", "source_arn", "attempt_id", "failures",
		"refusals", "due_at", "created_at", "payload")

	callQueues = newDueQueues("queued_calls", "function_name")

	latestFunctions = newList("fs", functionColumns, "functions WHERE tenant = $1 AND version = $2", 2, []string{"name"}, scanFunction,
		func(f *imprint.Function) []any { return []any{string(f.Name)} })
	allFunctions = newList("gss", functionColumns, "functions WHERE tenant = $1", 1, []string{"name", "version"}, scanFunction,
		func(f *imprint.Function) []any { return []any{string(f.Name), f.Version} })
	functionVersions = newList("hs", functionColumns, "functions WHERE tenant = $1 AND name = $2", 2, []string{"version"}, scanFunction,
		func(f *imprint.Function) []any { return []any{f.Version} })
	functionAliases = newList("js", aliasColumns, "function_aliases WHERE tenant = $1 AND function_name = $2", 2, []string{"name"},
		scanAlias, func(a *imprint.FunctionAlias) []any { return []any{a.Name} })
)

// environmentContext binds a sealed environment to its row.
func environmentContext(t imprint.Tenant, name imprint.FunctionName, version string) []byte {
	return []byte("function:" + t.String() + ":" + string(name) + ":" + version)
}

func scanFunction(t *Tx, r Rows, f *imprint.Function) error {
	var tenant string
	var timeout, modified int64
	var sealed []byte
	err := r.Scan(&tenant, (*string)(&f.Name), &f.Version, &f.Runtime, &f.Handler, &f.Role, &f.Description, &timeout, &f.MemoryMB,
		&f.CodeSHA256, &f.CodeSize, &sealed, &f.Concurrency, &f.RevisionID, &f.LastPublished, &modified)
	if err != nil {
		return err
	}
	f.Tenant = t.readTenant(tenant)
	f.Timeout, f.ModifiedAt = duration(timeout), readTime(modified)
	if len(sealed) == 0 {
		return nil
	}
	plain, err := t.sealer.Open(sealed, environmentContext(f.Tenant, f.Name, f.Version))
	if err != nil {
		return fmt.Errorf("couldn't open the environment of function %s: %w", f.Name, err)
	}
	defer clear(plain)
	err = json.Unmarshal(plain, &f.Environment)
	if err != nil {
		return fmt.Errorf("couldn't read the environment of function %s: %w", f.Name, err)
	}
	return nil
}

func scanAlias(t *Tx, r Rows, a *imprint.FunctionAlias) error {
	var tenant string
	err := r.Scan(&tenant, (*string)(&a.Function), &a.Name, &a.Version, &a.Description, &a.RevisionID)
	a.Tenant = t.readTenant(tenant)
	return err
}

func scanPermission(t *Tx, r Rows, p *imprint.FunctionPermission) error {
	var tenant string
	err := r.Scan(&tenant, (*string)(&p.Function), &p.Qualifier, &p.StatementID, &p.Action, &p.Principal, &p.SourceARN, &p.SourceAccount)
	p.Tenant = t.readTenant(tenant)
	return err
}

func scanCall(t *Tx, r Rows, c *imprint.QueuedCall) error { return scanCallAnd(t, r, c) }

func scanWholeCall(t *Tx, r Rows, c *imprint.QueuedCall) error {
	return scanCallAnd(t, r, c, &c.Payload)
}

func scanCallAnd(t *Tx, r Rows, c *imprint.QueuedCall, more ...any) error {
	var tenant string
	var due, created int64
	err := r.Scan(append([]any{&c.ID, &tenant, (*string)(&c.Function), &c.Qualifier, &c.SourceARN, &c.AttemptID, &c.Failures,
		&c.Refusals, &due, &created}, more...)...)
	c.Tenant = t.readTenant(tenant)
	c.DueAt, c.CreatedAt = readTime(due), readTime(created)
	return err
}

func noFunction(t imprint.Tenant, name imprint.FunctionName) error {
	return imprint.Errorf(imprint.CodeNotFound, "function %s doesn't exist in %s", name, t)
}

// Function implements imprint.FunctionReader.
func (t *Tx) Function(tenant imprint.Tenant, name imprint.FunctionName, version string) (imprint.Function, error) {
	f, found, err := first(t, scanFunction,
		"SELECT "+functionColumns+" FROM functions WHERE tenant = $1 AND name = $2 AND version = $3", t.in(tenant), string(name), version)
	if err == nil && !found {
		err = noFunction(tenant, name)
	}
	return f, err
}

// Functions implements imprint.FunctionReader.
func (t *Tx) Functions(tenant imprint.Tenant, allVersions bool, p imprint.Page) ([]imprint.Function, string, error) {
	if allVersions {
		return allFunctions.page(t, p, nil, t.in(tenant))
	}
	return latestFunctions.page(t, p, nil, t.in(tenant), imprint.LatestVersion)
}

// FunctionVersions implements imprint.FunctionReader.
func (t *Tx) FunctionVersions(tenant imprint.Tenant, name imprint.FunctionName, p imprint.Page) ([]imprint.Function, string, error) {
	return functionVersions.page(t, p, nil, t.in(tenant), string(name))
}

// FunctionByHandler implements imprint.FunctionReader.
func (t *Tx) FunctionByHandler(tenant imprint.Tenant, runtime, handler string) (imprint.Function, error) {
	f, found, err := first(t, scanFunction, "SELECT "+functionColumns+" FROM functions WHERE tenant = $1 AND runtime = $2"+
		" AND handler = $3 AND version = $4 ORDER BY name LIMIT 1", t.in(tenant), runtime, handler, imprint.LatestVersion)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no function of %s has the handler %q", tenant, imprint.Excerpt(handler))
	}
	return f, err
}

// FunctionCode implements imprint.FunctionReader.
func (t *Tx) FunctionCode(sha256 string) (bool, error) {
	_, found, err := first(t, func(_ *Tx, r Rows, n *int) error { return r.Scan(n) },
		"SELECT 1 FROM functions WHERE code_sha256 = $1 LIMIT 1", sha256)
	return found, err
}

// FunctionCodeBytes implements imprint.FunctionReader. 0 follows the slash behind an
// account.
func (t *Tx) FunctionCodeBytes(account imprint.AccountID) (int64, error) {
	sum, _, err := first(t, func(_ *Tx, r Rows, n *int64) error { return r.Scan(n) },
		"SELECT COALESCE(SUM(code_size), 0) FROM (SELECT DISTINCT tenant, code_sha256, code_size FROM functions WHERE tenant >= $1 AND tenant < $2) AS part_codes",
		string(account)+"/", string(account)+"0")
	return sum, err
}

// FunctionAlias implements imprint.FunctionReader.
func (t *Tx) FunctionAlias(tenant imprint.Tenant, name imprint.FunctionName, alias string) (imprint.FunctionAlias, error) {
	a, found, err := first(t, scanAlias, "SELECT "+aliasColumns+" FROM function_aliases WHERE tenant = $1 AND function_name = $2 AND name = $3",
		t.in(tenant), string(name), alias)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "function %s has no alias %q in %s", name, imprint.Excerpt(alias), tenant)
	}
	return a, err
}

// FunctionAliases implements imprint.FunctionReader.
func (t *Tx) FunctionAliases(tenant imprint.Tenant, name imprint.FunctionName, p imprint.Page) ([]imprint.FunctionAlias, string, error) {
	return functionAliases.page(t, p, nil, t.in(tenant), string(name))
}

// FunctionPermissions implements imprint.FunctionReader.
func (t *Tx) FunctionPermissions(tenant imprint.Tenant, name imprint.FunctionName, qualifier string) ([]imprint.FunctionPermission, error) {
	return all(t, scanPermission, "SELECT "+permissionColumns+" FROM function_permissions WHERE tenant = $1 AND function_name = $2"+
		" AND qualifier = $3 ORDER BY statement_id LIMIT $4", t.in(tenant), string(name), qualifier, int64(maxPlain))
}

// QueuedCalls implements imprint.FunctionReader.
func (t *Tx) QueuedCalls(tenant imprint.Tenant, name imprint.FunctionName, due time.Time, limit int) ([]imprint.QueuedCall, error) {
	return some(t, limit, scanCall, "SELECT "+callColumns+" FROM queued_calls WHERE tenant = $1 AND function_name = $2 AND due_at <= $3"+
		" ORDER BY due_at, id LIMIT $4", t.in(tenant), string(name), millis(due))
}

// CallTenants implements imprint.FunctionReader.
func (t *Tx) CallTenants() ([]imprint.Tenant, error) { return callQueues.tenants.list(t) }

// CallQueues implements imprint.FunctionReader.
func (t *Tx) CallQueues(tenant imprint.Tenant, after string, limit int) ([]imprint.DueQueue, error) {
	return callQueues.list(t, tenant, after, limit)
}

// QueuedCall implements imprint.FunctionReader.
func (t *Tx) QueuedCall(id string) (imprint.QueuedCall, error) {
	c, found, err := first(t, scanWholeCall, "SELECT "+callColumns+", payload FROM queued_calls WHERE id = $1", id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no call %q waits", id)
	}
	return c, err
}

// NextCall implements imprint.FunctionReader.
func (t *Tx) NextCall(after time.Time) (time.Time, error) {
	due, found, err := first(t, func(_ *Tx, r Rows, n *int64) error { return r.Scan(n) },
		"SELECT due_at FROM queued_calls WHERE due_at > $1 ORDER BY due_at, id LIMIT 1", millis(after))
	if err != nil || !found {
		return time.Time{}, err
	}
	return readTime(due), nil
}

// QueuedCallUnits implements imprint.FunctionReader.
func (t *Tx) QueuedCallUnits(tenant imprint.Tenant) (int, error) {
	n, _, err := first(t, func(_ *Tx, r Rows, n *int) error { return r.Scan(n) },
		"SELECT COALESCE(SUM(1 + LENGTH(payload) / $2), 0) FROM queued_calls WHERE tenant = $1", t.in(tenant), int64(imprint.OwedUnit))
	return n, err
}

// PutFunction implements imprint.FunctionWriter.
func (t *Tx) PutFunction(f imprint.Function) error {
	sealed := []byte{}
	if len(f.Environment) > 0 {
		plain, err := json.Marshal(f.Environment)
		if err != nil {
			return fmt.Errorf("couldn't encode the environment of function %s: %w", f.Name, err)
		}
		defer clear(plain)
		sealed, err = t.sealer.Seal(plain, environmentContext(f.Tenant, f.Name, f.Version))
		if err != nil {
			return fmt.Errorf("couldn't seal the environment of function %s: %w", f.Name, err)
		}
	}
	_, err := t.exec(putFunction, t.in(f.Tenant), string(f.Name), f.Version, f.Runtime, f.Handler, f.Role, f.Description,
		f.Timeout.Milliseconds(), int64(f.MemoryMB), f.CodeSHA256, f.CodeSize, sealed, int64(f.Concurrency), f.RevisionID,
		int64(f.LastPublished), millis(f.ModifiedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeFunction, f.Tenant, string(f.Name))
	return nil
}

// DeleteFunction implements imprint.FunctionWriter.
func (t *Tx) DeleteFunction(tenant imprint.Tenant, name imprint.FunctionName, version string) error {
	if version != imprint.LatestVersion {
		err := t.remove(imprint.ChangeFunction, tenant, string(name),
			"DELETE FROM function_permissions WHERE tenant = $1 AND function_name = $2 AND qualifier = $3", t.in(tenant), string(name), version)
		if err != nil {
			return err
		}
		return t.remove(imprint.ChangeFunction, tenant, string(name),
			"DELETE FROM functions WHERE tenant = $1 AND name = $2 AND version = $3", t.in(tenant), string(name), version)
	}
	for _, query := range []string{
		"DELETE FROM functions WHERE tenant = $1 AND name = $2",
		"DELETE FROM function_aliases WHERE tenant = $1 AND function_name = $2",
		"DELETE FROM function_permissions WHERE tenant = $1 AND function_name = $2",
		"DELETE FROM queued_calls WHERE tenant = $1 AND function_name = $2",
	} {
		err := t.remove(imprint.ChangeFunction, tenant, string(name), query, t.in(tenant), string(name))
		if err != nil {
			return err
		}
	}
	return nil
}

// PutFunctionAlias implements imprint.FunctionWriter.
func (t *Tx) PutFunctionAlias(a imprint.FunctionAlias) error {
	_, err := t.exec(putAlias, t.in(a.Tenant), string(a.Function), a.Name, a.Version, a.Description, a.RevisionID)
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeFunction, a.Tenant, string(a.Function))
	return nil
}

// DeleteFunctionAlias implements imprint.FunctionWriter.
func (t *Tx) DeleteFunctionAlias(tenant imprint.Tenant, name imprint.FunctionName, alias string) error {
	for _, query := range []string{
		"DELETE FROM function_permissions WHERE tenant = $1 AND function_name = $2 AND qualifier = $3",
		"DELETE FROM function_aliases WHERE tenant = $1 AND function_name = $2 AND name = $3",
	} {
		err := t.remove(imprint.ChangeFunction, tenant, string(name), query, t.in(tenant), string(name), alias)
		if err != nil {
			return err
		}
	}
	return nil
}

// PutFunctionPermission implements imprint.FunctionWriter.
func (t *Tx) PutFunctionPermission(p imprint.FunctionPermission) error {
	_, err := t.exec(putPermission, t.in(p.Tenant), string(p.Function), p.Qualifier, p.StatementID, p.Action, p.Principal,
		p.SourceARN, p.SourceAccount)
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeFunction, p.Tenant, string(p.Function))
	return nil
}

// DeleteFunctionPermission implements imprint.FunctionWriter.
func (t *Tx) DeleteFunctionPermission(tenant imprint.Tenant, name imprint.FunctionName, qualifier, statement string) error {
	return t.remove(imprint.ChangeFunction, tenant, string(name), "DELETE FROM function_permissions WHERE tenant = $1"+
		" AND function_name = $2 AND qualifier = $3 AND statement_id = $4", t.in(tenant), string(name), qualifier, statement)
}

// PutQueuedCall implements imprint.FunctionWriter.
func (t *Tx) PutQueuedCall(c imprint.QueuedCall) error {
	_, err := t.exec(putCall, c.ID, t.in(c.Tenant), string(c.Function), c.Qualifier, c.SourceARN, c.AttemptID, int64(c.Failures),
		int64(c.Refusals), millis(c.DueAt), millis(c.CreatedAt), blob(c.Payload))
	return err
}

// DeleteQueuedCall implements imprint.FunctionWriter.
func (t *Tx) DeleteQueuedCall(id string) error {
	_, err := t.exec("DELETE FROM queued_calls WHERE id = $1", id)
	return err
}
