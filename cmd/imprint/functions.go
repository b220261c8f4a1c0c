package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/lambda"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/functions"
)

// functionsDir keeps the functions' code in the data directory.
const functionsDir = "functions"

// functionUser is the name of the access key that functions get.
const functionUser = "functions"

// FunctionConfig are the settings of `imprint serve` about functions.
type FunctionConfig struct {
	// FunctionUser runs the processes of all functions, by name or as uid:gid. Empty:
	// each function has a user of its own when the server is root; all have the
	// server's own when it isn't.
	FunctionUser string `koanf:"function-user"`
	// FunctionUIDBase begins the 30,000 user ids of functions. Default 70000.
	FunctionUIDBase int64 `koanf:"function-uid-base"`
	// FunctionShareUser lets the functions of all accounts run where they share one
	// user, so that they can read each other's keys.
	FunctionShareUser bool `koanf:"function-share-user"`
	// FunctionDir is where code is unpacked and processes have their directories; it
	// is emptied at each start. Empty: a directory of the system's temporary one.
	FunctionDir string `koanf:"function-dir"`
	// FunctionTmp is the size of the /tmp that each process of a function has of its own,
	// in MB of memory; 0: functions share the machine's, as they do where the server isn't
	// root. Default 512.
	FunctionTmp int `koanf:"function-tmp"`
	// FunctionCode bounds the zips of one account's functions and their versions, in
	// MB. Default 10240.
	FunctionCode int64 `koanf:"function-code"`
	// FunctionProcesses bounds the processes of all functions; one account may use
	// half of them at once. Default 64.
	FunctionProcesses int `koanf:"function-processes"`
	// FunctionConcurrency bounds the runs of one function at once. Default 16.
	FunctionConcurrency int `koanf:"function-concurrency"`
	// FunctionIdle is how long an unused process is kept. Default 5m.
	FunctionIdle time.Duration `koanf:"function-idle"`
	// FunctionQueue bounds the asynchronous calls of one account that wait. Default
	// 100000.
	FunctionQueue int `koanf:"function-queue"`
	// FunctionOwnAccount lets the rules, templates and certificate providers of a
	// function's own account invoke it without add-permission.
	FunctionOwnAccount bool `koanf:"function-own-account"`
}

// defaultFunctionUID is past the ids of users and services, which have 16 bits, and
// its range ends before 100000, where those of containers begin.
const defaultFunctionUID = 70_000

// maxFunctionTmp is what a function of AWS Lambda has unless it asks for more, in MB.
const maxFunctionTmp = 512

// defaultFunctionCode is 10 GiB, in MB. AWS Lambda's is 75; registries share the disk.
const defaultFunctionCode = 10 << 10

func addFunctionFlags(f *pflag.FlagSet) {
	f.String("function-user", "", "one user for all functions, name or uid:gid (default: each its own for root, else the server's)")
	f.Int64("function-uid-base", defaultFunctionUID, "first of the 30,000 user ids that functions get from a server that is root")
	f.Bool("function-share-user", false, "run other accounts' functions although all share one user and can read each other's keys")
	f.String("function-dir", "", "where functions are unpacked (default: below the system's temporary directory)")
	f.Int("function-tmp", maxFunctionTmp, "size in MB of the /tmp that each process of a function has of its own, if the server is root; 0: the machine's")
	f.Int64("function-code", defaultFunctionCode, "bound of the zips of one account's functions and their versions, in MB")
	f.Int("function-processes", 64, "bound of the processes of all functions, of which an account may use half at once")
	f.Int("function-concurrency", 16, "bound of the runs of one function at once")
	f.Duration("function-idle", 5*time.Minute, "how long an unused process of a function is kept")
	f.Int("function-queue", 100_000, "bound of the asynchronous calls of one account that wait")
	f.Bool("function-own-account", false, "let rules and templates invoke functions of their account without add-permission")
}

func (c FunctionConfig) check() error {
	for _, n := range []struct {
		name  string
		value int
	}{
		{"function-processes", c.FunctionProcesses}, {"function-concurrency", c.FunctionConcurrency}, {"function-queue", c.FunctionQueue},
	} {
		if n.value < 1 {
			return usageError{fmt.Errorf("%s is %d, and must be at least 1", n.name, n.value)}
		}
	}
	if c.FunctionTmp < 0 || c.FunctionTmp > maxFunctionTmp {
		return usageError{fmt.Errorf("function-tmp is %d, and must be from 0 to %d", c.FunctionTmp, maxFunctionTmp)}
	}
	if c.FunctionCode < 1 || c.FunctionCode > 1<<30 {
		return usageError{fmt.Errorf("function-code is %d, and must be from 1 to %d", c.FunctionCode, 1<<30)}
	}
	if c.FunctionIdle <= 0 {
		return usageError{fmt.Errorf("function-idle is %s, and must be more than nothing", c.FunctionIdle)}
	}
	if c.FunctionUIDBase < 1 || c.FunctionUIDBase > 1<<31 {
		return usageError{fmt.Errorf("function-uid-base is %d, and must be from 1 to %d", c.FunctionUIDBase, 1<<31)}
	}
	_, err := c.user()
	return err
}

// uidBase begins the user ids of functions; 0: they share one user.
func (c FunctionConfig) uidBase() uint32 {
	if c.FunctionUser != "" || os.Geteuid() != 0 {
		return 0
	}
	return uint32(c.FunctionUIDBase)
}

// user gives who runs functions where they share one user; nil: the server's own.
func (c FunctionConfig) user() (*functions.User, error) {
	name := c.FunctionUser
	if name == "" {
		if os.Geteuid() != 0 {
			return nil, nil
		}
		name = "nobody"
	}
	if uid, gid, both := strings.Cut(name, ":"); both {
		u, err := strconv.ParseUint(uid, 10, 32)
		g, gidErr := strconv.ParseUint(gid, 10, 32)
		if err != nil || gidErr != nil {
			return nil, usageError{fmt.Errorf("function-user is %q, neither a name nor uid:gid", name)}
		}
		return &functions.User{UID: uint32(u), GID: uint32(g)}, nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		return nil, usageError{fmt.Errorf("couldn't find the user of functions (--function-user): %w", err)}
	}
	u, err := strconv.ParseUint(found.Uid, 10, 32)
	g, gidErr := strconv.ParseUint(found.Gid, 10, 32)
	if err != nil || gidErr != nil {
		return nil, usageError{fmt.Errorf("the user %q has no numbers: functions run as processes on Unix alone", name)}
	}
	return &functions.User{UID: uint32(u), GID: uint32(g)}, nil
}

// workDir is where functions are unpacked: one directory for each data directory,
// so that what a killed server left is found by the next.
func (c Config) workDir() string {
	if c.FunctionDir != "" {
		return filepath.Join(c.FunctionDir, "imprint-functions")
	}
	sum := sha256.Sum256([]byte(c.Data))
	return filepath.Join(os.TempDir(), "imprint-functions-"+hex.EncodeToString(sum[:8]))
}

// openFunctions makes the room of functions.
func (s *server) openFunctions(context.Context) error {
	who, err := s.config.user()
	if err != nil {
		return err
	}
	workDir, err := filepath.Abs(s.config.workDir())
	if err != nil {
		return fmt.Errorf("couldn't find the functions' directory: %w", err)
	}
	alone := s.home.Account
	if s.config.FunctionShareUser {
		alone = ""
	}
	s.functions, err = functions.New(s.store, s.clock, functions.Options{
		CodeDir: filepath.Join(s.config.Data, functionsDir), WorkDir: workDir,
		TmpMB: s.config.FunctionTmp, UIDBase: s.config.uidBase(), User: who, Account: alone,
		PrivateAccount: s.privateAccount(),
		Credentials:    s.functionCredentials, Attempts: s.trace, AllowOwnAccount: s.config.FunctionOwnAccount,
		MaxCode: s.config.FunctionCode << 20, MaxProcesses: s.config.FunctionProcesses, MaxConcurrency: s.config.FunctionConcurrency,
		MaxQueued: s.config.FunctionQueue, Idle: s.config.FunctionIdle, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	s.closeLater(s.functions.Close)
	return nil
}

// privateAccount is the only one whose rules, functions and revocation lists may call private addresses;
// empty: those of all may.
func (s *server) privateAccount() imprint.AccountID {
	if s.config.PrivateAddresses {
		return ""
	}
	return s.home.Account
}

// functionCredentials give a function an access key of its account: that of the
// user "functions", made when it is first needed. Processes are started when the
// server's facts are known.
func (s *server) functionCredentials(ctx context.Context, tenant imprint.Tenant) (functions.Credentials, error) {
	out := functions.Credentials{Endpoint: s.facts.APIURL, Roots: s.facts.CABundle}
	var found imprint.AccessKey
	find := func(tx imprint.ReadTx) error {
		keys, err := tx.AccessKeys(tenant.Account)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if key.User == functionUser {
				found = key
				return nil
			}
		}
		return imprint.Errorf(imprint.CodeNotFound, "functions of %s have no access key yet", tenant.Account)
	}
	err := s.store.View(ctx, find)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		fresh := newOperatorKey()
		err = s.store.Update(ctx, func(tx imprint.Tx) error {
			err := find(tx)
			if imprint.CodeOf(err) != imprint.CodeNotFound {
				return err
			}
			found = imprint.AccessKey{ID: fresh.ID, Account: tenant.Account, User: functionUser, Secret: fresh.Secret, CreatedAt: s.clock()}
			err = s.putFunctionUser(tx, tenant.Account)
			if err != nil {
				return err
			}
			return tx.PutAccessKey(found)
		})
	}
	if err != nil {
		return out, fmt.Errorf("couldn't get the access key of functions: %w", err)
	}
	out.AccessKeyID, out.SecretAccessKey = found.ID, found.Secret
	return out, nil
}

// functionPolicy is what functions may do until an operator narrows it with
// imprint user policy put: the whole of the IoT API, and call each other.
const functionPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:*","lambda:InvokeFunction"],"Resource":"*"}]}`

// putFunctionUser makes the user whose key functions have, unless an operator has
// made it.
func (s *server) putFunctionUser(tx imprint.Tx, account imprint.AccountID) error {
	_, err := tx.User(account, functionUser)
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return err
	}
	now := s.clock()
	err = tx.PutUser(imprint.User{Account: account, Name: functionUser, Description: "functions that run here", CreatedAt: now})
	if err != nil {
		return err
	}
	return tx.PutUserPolicy(imprint.UserPolicy{Account: account, User: functionUser, Name: "functions", Document: functionPolicy, CreatedAt: now, ModifiedAt: now})
}

// The deadlines of requests about functions: zips are large, and runs may take
// 15 minutes.
const (
	functionReadTimeout  = 2 * time.Minute
	functionWriteTimeout = 18 * time.Minute
)

// newLambdaAPI makes the API of functions, which has the port of the control
// plane.
func (s *server) newLambdaAPI() (http.Handler, error) {
	verifier, err := sigv4.New(sigv4.Config{
		Keys: storeKeys{s.store}, Services: []string{"lambda"}, Regions: s.config.Regions, Now: s.clock,
	})
	if err != nil {
		return nil, err
	}
	mux, err := awsapi.NewMux(awsapi.Config{
		Verifier: verifier, Translate: lambda.Translate, Observe: s.observe, Now: s.clock,
		Allow: s.callers.allow, Authorize: s.authorize, ThrottlingStatus: http.StatusTooManyRequests, TooLarge: lambda.TooLarge,
		Bodies: s.bodies, BodyTime: functionReadTimeout,
	}, lambda.Operations(), lambda.NewService(s.functions).Routes())
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deadlines := http.NewResponseController(w)
		now := time.Now()
		err := errors.Join(deadlines.SetReadDeadline(now.Add(functionReadTimeout)), deadlines.SetWriteDeadline(now.Add(functionWriteTimeout)))
		if err != nil {
			s.logger.Debug("couldn't give a request about functions more time", "error", err)
		}
		mux.ServeHTTP(w, r)
	}), nil
}
