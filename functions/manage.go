package functions

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
)

// Defaults and bounds of a function's settings, AWS Lambda's.
const (
	DefaultTimeout  = 3 * time.Second
	maxTimeout      = 900 * time.Second
	DefaultMemoryMB = 128
	maxMemoryMB     = 10_240
	maxEnvironment  = 4 << 10
	maxVersions     = 1000 // of one function
)

// ErrRevision is in the chain of a refusal because a function has another
// revision than the caller thinks.
var ErrRevision = fmt.Errorf("the RevisionId provided does not match the latest RevisionId")

var variablePattern = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]+$`)

// Architecture is that of the functions' processes, by AWS Lambda's name.
func Architecture() string {
	if runtime.GOARCH == "amd64" {
		return "x86_64"
	}
	return runtime.GOARCH
}

// check refuses settings that can't work. Errors: CodeInvalidRequest.
func check(f imprint.Function, code bool) error {
	bad := func(format string, args ...any) error {
		return imprint.Errorf(imprint.CodeInvalidRequest, format, args...)
	}
	kind := runtimeKind(f.Runtime)
	elsewhere := kind == RuntimeWebhook || kind == RuntimeRemote
	switch {
	case kind == "":
		return bad("Value %s at 'runtime' failed to satisfy constraint: this server runs provided.al2023, provided.al2, nodejs*.x, python3.*, %s and %s",
			imprint.Excerpt(f.Runtime), RuntimeWebhook, RuntimeRemote)
	case f.Handler == "" && kind != "provided":
		return bad("a function of runtime %s needs a handler", f.Runtime)
	case code && elsewhere:
		return bad("a function of runtime %s has no code", f.Runtime)
	case !code && f.CodeSHA256 == "" && !elsewhere:
		return bad("Please provide a source for function code: ZipFile")
	case f.Timeout < time.Second || f.Timeout > maxTimeout:
		return bad("the timeout must be 1 to %d seconds", int(maxTimeout.Seconds()))
	case f.MemoryMB < DefaultMemoryMB || f.MemoryMB > maxMemoryMB:
		return bad("the memory size must be %d to %d MB", DefaultMemoryMB, maxMemoryMB)
	}
	err := checkEnvironment(f.Environment)
	if err != nil {
		return err
	}
	switch kind {
	case RuntimeWebhook:
		if len(f.Environment[WebhookSecret]) < minSecret {
			return bad("a function of runtime %s needs the environment variable %s with at least %d characters: it signs the requests", RuntimeWebhook, WebhookSecret, minSecret)
		}
		return checkAddress(f.Handler)
	case RuntimeRemote:
		if f.Environment[RemoteAccessKeyID] == "" || f.Environment[RemoteSecretAccessKey] == "" {
			return bad("a function of runtime %s needs the environment variables %s and %s", RuntimeRemote, RemoteAccessKeyID, RemoteSecretAccessKey)
		}
		_, _, err = remoteEndpoint(f)
	}
	return err
}

func checkEnvironment(environment map[string]string) error {
	size := 0
	for name, value := range environment {
		size += len(name) + len(value)
		if !variablePattern.MatchString(name) {
			return imprint.Errorf(imprint.CodeInvalidRequest, "the environment variable %q doesn't match [a-zA-Z][a-zA-Z0-9_]+", imprint.Excerpt(name))
		}
		if slices.Contains(reserved, name) {
			return imprint.Errorf(imprint.CodeInvalidRequest, "Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: %s", name)
		}
		for i := range len(value) {
			if value[i] == 0 {
				return imprint.Errorf(imprint.CodeInvalidRequest, "the environment variable %s has a NUL byte", name)
			}
		}
	}
	if size > maxEnvironment {
		return imprint.Errorf(imprint.CodeInvalidRequest, "Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the %d bytes limit", maxEnvironment)
	}
	return nil
}

func newRevision() string { return uuid.NewString() }

// Create stores a new function; publish also makes its first version, which is
// then what is given. A zero time limit, memory size and a negative concurrency
// mean the defaults. Errors: CodeInvalidRequest, CodeAlreadyExists, CodeFunctionStorage.
func (s *Service) Create(ctx context.Context, f imprint.Function, zip []byte, publish bool, tags ...imprint.Tag) (imprint.Function, error) {
	if f.Timeout == 0 {
		f.Timeout = DefaultTimeout
	}
	if f.MemoryMB == 0 {
		f.MemoryMB = DefaultMemoryMB
	}
	f.Version, f.Concurrency, f.LastPublished = imprint.LatestVersion, -1, 0
	err := s.admit(f)
	if err != nil {
		return f, err
	}
	err = check(f, len(zip) > 0)
	if err != nil {
		return f, err
	}
	made, err := s.create(ctx, f, zip, publish, tags)
	if err != nil && len(zip) > 0 {
		s.sweep(ctx, made.CodeSHA256)
	}
	return made, err
}

// create puts code and function; what it gives with an error has the code that was put.
func (s *Service) create(ctx context.Context, f imprint.Function, zip []byte, publish bool, tags []imprint.Tag) (imprint.Function, error) {
	s.code.naming.RLock()
	defer s.code.naming.RUnlock()
	if len(zip) > 0 {
		sum, err := s.code.put(zip)
		if err != nil {
			return f, err
		}
		f.CodeSHA256, f.CodeSize = sum, int64(len(zip))
	}
	made := f
	err := s.store.Update(ctx, func(tx imprint.Tx) error {
		_, err := tx.Function(f.Tenant, f.Name, imprint.LatestVersion)
		if err == nil {
			return imprint.Errorf(imprint.CodeAlreadyExists, "Function already exist: %s", f.Name)
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
		f.RevisionID, f.ModifiedAt = newRevision(), s.clock()
		stored, err := storeAndPublish(tx, f, publish, f.Description, s.clock())
		if err != nil {
			return err
		}
		made = stored
		err = putTags(tx, f.Tenant, f.Tenant.FunctionARN(f.Name), tags)
		if err != nil {
			return err
		}
		return s.checkCode(tx, f)
	})
	return made, err
}

// checkCode refuses code that was stored in the transaction when it is more than the
// account may have.
func (s *Service) checkCode(tx imprint.ReadTx, f imprint.Function) error {
	if f.CodeSize == 0 {
		return nil
	}
	has, err := tx.FunctionCodeBytes(f.Tenant.Account)
	if err != nil {
		return fmt.Errorf("couldn't count the code of account %s: %w", f.Tenant.Account, err)
	}
	if has > s.opts.MaxCode {
		return imprint.Errorf(imprint.CodeFunctionStorage, "You have exceeded your maximum total code size per account: with the %d bytes of %s it would be %d, of %d",
			f.CodeSize, f.Name, has, s.opts.MaxCode).
			WithHint("Delete functions and versions that aren't needed; the server's operator can raise --function-code.")
	}
	return nil
}

// storeAndPublish puts $LATEST and, when asked, the version of it.
func storeAndPublish(tx imprint.Tx, f imprint.Function, publish bool, description string, now time.Time) (imprint.Function, error) {
	err := tx.PutFunction(f)
	if err != nil || !publish {
		return f, err
	}
	return publishVersion(tx, f, description, now)
}

// publishVersion makes a version of $LATEST, unless the last one is the same.
func publishVersion(tx imprint.Tx, latest imprint.Function, description string, now time.Time) (imprint.Function, error) {
	if latest.LastPublished > 0 {
		last, err := tx.Function(latest.Tenant, latest.Name, strconv.Itoa(latest.LastPublished))
		if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			return last, err
		}
		if err == nil && sameFunction(last, latest) {
			return last, nil
		}
	}
	if latest.LastPublished >= maxVersions {
		versions, _, err := tx.FunctionVersions(latest.Tenant, latest.Name, imprint.Page{Limit: maxVersions + 1, Ascending: true})
		if err != nil {
			return latest, err
		}
		if len(versions) > maxVersions {
			return latest, imprint.Errorf(imprint.CodeLimitExceeded, "function %s has %d versions: delete some", latest.Name, maxVersions)
		}
	}
	latest.LastPublished++
	err := tx.PutFunction(latest)
	if err != nil {
		return latest, err
	}
	version := latest
	version.Version = strconv.Itoa(latest.LastPublished)
	version.LastPublished, version.Concurrency = 0, -1
	version.RevisionID, version.ModifiedAt = newRevision(), now
	if description != "" {
		version.Description = description
	}
	return version, tx.PutFunction(version)
}

// sameFunction says whether a version runs what $LATEST runs.
func sameFunction(version, latest imprint.Function) bool {
	return version.CodeSHA256 == latest.CodeSHA256 && version.Runtime == latest.Runtime && version.Handler == latest.Handler &&
		version.Role == latest.Role && version.Timeout == latest.Timeout && version.MemoryMB == latest.MemoryMB &&
		maps.Equal(version.Environment, latest.Environment)
}

// UpdateCode replaces the code of $LATEST. Errors: CodeNotFound,
// CodeInvalidRequest, CodeVersionConflict when the revision isn't the given one,
// CodeFunctionStorage.
func (s *Service) UpdateCode(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, zip []byte, revision string, publish, dryRun bool) (imprint.Function, error) {
	if len(zip) == 0 {
		return imprint.Function{}, imprint.Errorf(imprint.CodeInvalidRequest, "Please provide a source for function code: ZipFile")
	}
	sum, old, made, err := s.updateCode(ctx, tenant, name, zip, revision, publish, dryRun)
	if err != nil {
		s.sweep(ctx, sum)
		return made, err
	}
	s.sweep(ctx, old)
	return made, nil
}

// updateCode gives the code that it put, also with an error, and the one that was there.
func (s *Service) updateCode(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, zip []byte, revision string, publish, dryRun bool) (sum, old string, made imprint.Function, err error) {
	s.code.naming.RLock()
	defer s.code.naming.RUnlock()
	err = checkZip(zip)
	if err == nil && !dryRun {
		sum, err = s.code.put(zip)
	}
	if err != nil {
		return sum, "", made, err
	}
	made, err = s.change(ctx, tenant, name, revision, publish, dryRun, func(f *imprint.Function) error {
		kind := runtimeKind(f.Runtime)
		if kind == RuntimeWebhook || kind == RuntimeRemote {
			return imprint.Errorf(imprint.CodeInvalidRequest, "a function of runtime %s has no code", f.Runtime)
		}
		old, f.CodeSHA256, f.CodeSize = f.CodeSHA256, sum, int64(len(zip))
		return nil
	})
	return sum, old, made, err
}

// sweep removes code that may be nobody's now; it would only waste room, also when who
// asked has left.
func (s *Service) sweep(ctx context.Context, sum string) {
	err := s.code.sweep(context.WithoutCancel(ctx), sum)
	if err != nil {
		s.opts.Logger.Warn("couldn't remove the code of a function", "code", sum, "error", err)
	}
}

// UpdateSettings lets edit change the settings of $LATEST. Errors: as UpdateCode.
func (s *Service) UpdateSettings(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, revision string, edit func(*imprint.Function)) (imprint.Function, error) {
	return s.change(ctx, tenant, name, revision, false, false, func(f *imprint.Function) error {
		edit(f)
		return check(*f, false)
	})
}

// change edits $LATEST in one transaction.
func (s *Service) change(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, revision string, publish, dryRun bool, edit func(*imprint.Function) error) (imprint.Function, error) {
	var made imprint.Function
	err := s.store.Update(ctx, func(tx imprint.Tx) error {
		f, err := latestOf(tx, tenant, name, revision)
		if err != nil {
			return err
		}
		code := f.CodeSHA256
		err = edit(&f)
		if err != nil {
			return err
		}
		f.RevisionID, f.ModifiedAt = newRevision(), s.clock()
		made = f
		if dryRun {
			return nil
		}
		made, err = storeAndPublish(tx, f, publish, "", s.clock())
		if err != nil || f.CodeSHA256 == code {
			return err
		}
		return s.checkCode(tx, f)
	})
	return made, err
}

// latestOf gives $LATEST when it has the revision; an empty one fits all.
func latestOf(tx imprint.ReadTx, tenant imprint.Tenant, name imprint.FunctionName, revision string) (imprint.Function, error) {
	f, err := tx.Function(tenant, name, imprint.LatestVersion)
	if err != nil {
		return f, missing(err, tenant, name, "")
	}
	if revision != "" && revision != f.RevisionID {
		return f, imprint.Errorf(imprint.CodeVersionConflict, "%w", ErrRevision)
	}
	return f, nil
}

// SetConcurrency reserves and bounds the runs of a function at once; -1 lifts the
// bound. Processes and revision stay. Errors: CodeNotFound.
func (s *Service) SetConcurrency(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, n int) error {
	return s.store.Update(ctx, func(tx imprint.Tx) error {
		f, err := latestOf(tx, tenant, name, "")
		if err != nil {
			return err
		}
		f.Concurrency = n
		return tx.PutFunction(f)
	})
}

// Publish makes a version of $LATEST. Errors: as UpdateCode; codeSHA256, in base64,
// must be that of the code when it isn't empty.
func (s *Service) Publish(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, codeSHA256, description, revision string) (imprint.Function, error) {
	var made imprint.Function
	err := s.store.Update(ctx, func(tx imprint.Tx) error {
		f, err := latestOf(tx, tenant, name, revision)
		if err != nil {
			return err
		}
		sum, err := hex.DecodeString(f.CodeSHA256)
		if err != nil {
			return imprint.Errorf(imprint.CodeInternal, "the stored hash of function %s isn't hex: %w", name, err)
		}
		latest := base64.StdEncoding.EncodeToString(sum)
		if codeSHA256 != "" && codeSHA256 != latest {
			return imprint.Errorf(imprint.CodeInvalidRequest, "CodeSHA256 (%s) is different from current CodeSHA256 in $LATEST (%s).", imprint.Excerpt(codeSHA256), latest)
		}
		made, err = publishVersion(tx, f, description, s.clock())
		return err
	})
	return made, err
}

// Get finds a function's version by a qualifier. Errors: CodeNotFound.
func (s *Service) Get(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, qualifier string) (imprint.Function, error) {
	var found target
	err := s.store.View(ctx, func(tx imprint.ReadTx) error {
		t, err := lookUp(tx, tenant, name, qualifier)
		found = t
		return err
	})
	return found.function, err
}

// Delete removes a version, or without a qualifier the function with all that is
// its own. Errors: CodeNotFound, CodeInvalidRequest for $LATEST and aliases,
// CodeDeleteConflict for a version that an alias names.
func (s *Service) Delete(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, qualifier string) error {
	version := imprint.LatestVersion
	if qualifier != "" {
		_, numbered := imprint.ParseFunctionVersion(qualifier)
		if !numbered {
			return imprint.Errorf(imprint.CodeInvalidRequest, "$LATEST and aliases can't be deleted as versions: %q", imprint.Excerpt(qualifier))
		}
		version = qualifier
	}
	var codes []string
	err := s.store.Update(ctx, func(tx imprint.Tx) error {
		f, err := tx.Function(tenant, name, version)
		if err != nil {
			return missing(err, tenant, name, qualifier)
		}
		codes = []string{f.CodeSHA256}
		if qualifier == "" {
			versions, _, err := tx.FunctionVersions(tenant, name, imprint.Page{Limit: maxVersions + 1, Ascending: true})
			if err != nil {
				return err
			}
			for _, v := range versions {
				codes = append(codes, v.CodeSHA256)
			}
			err = tx.DeleteTags(tenant, tenant.FunctionARN(name))
			if err != nil {
				return fmt.Errorf("couldn't delete the tags of function %s: %w", name, err)
			}
		} else if err := notAliased(tx, tenant, name, version); err != nil {
			return err
		}
		return tx.DeleteFunction(tenant, name, version)
	})
	if err != nil {
		return err
	}
	s.host.retireAll(functionKey{tenant, name}, qualifier)
	if qualifier == "" {
		s.queue.rows.Forget(tenant.Account)
	}
	slices.Sort(codes)
	for _, sum := range slices.Compact(codes) {
		s.sweep(ctx, sum)
	}
	return nil
}

func notAliased(tx imprint.ReadTx, tenant imprint.Tenant, name imprint.FunctionName, version string) error {
	const most = 10_000
	aliases, _, err := tx.FunctionAliases(tenant, name, imprint.Page{Limit: most, Ascending: true})
	if err != nil {
		return err
	}
	for _, a := range aliases {
		if a.Version == version {
			return imprint.Errorf(imprint.CodeDeleteConflict, "version %s of function %s is what its alias %s means", version, name, a.Name)
		}
	}
	return nil
}

// List lists a tenant's functions, or all their versions, by name.
func (s *Service) List(ctx context.Context, tenant imprint.Tenant, allVersions bool, page imprint.Page) ([]imprint.Function, string, error) {
	var list []imprint.Function
	var next string
	err := s.store.View(ctx, func(tx imprint.ReadTx) error {
		found, cursor, err := tx.Functions(tenant, allVersions, page)
		list, next = found, cursor
		return err
	})
	return list, next, err
}

// Versions lists a function's versions. Errors: CodeNotFound.
func (s *Service) Versions(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, page imprint.Page) ([]imprint.Function, string, error) {
	var list []imprint.Function
	var next string
	err := s.store.View(ctx, func(tx imprint.ReadTx) error {
		_, err := latestOf(tx, tenant, name, "")
		if err != nil {
			return err
		}
		list, next, err = tx.FunctionVersions(tenant, name, page)
		return err
	})
	return list, next, err
}
