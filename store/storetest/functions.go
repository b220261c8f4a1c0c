package storetest

import (
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func fullFunction(t imprint.Tenant, name, version string) imprint.Function {
	return imprint.Function{
		Tenant: t, Name: imprint.FunctionName(name), Version: version, Runtime: "provided.al2023", Handler: "h " + unusual,
		Role: "role", Description: unusual, Timeout: 900 * time.Second, MemoryMB: 10_240, CodeSHA256: "ab" + version, CodeSize: 1 << 40,
		Environment: map[string]string{"SECRET": unusual, "EMPTY": ""}, Concurrency: -1, RevisionID: "r " + t.String(), LastPublished: 7,
		ModifiedAt: instant,
	}
}

func fullCall(t imprint.Tenant, id string) imprint.QueuedCall {
	return imprint.QueuedCall{
		ID: id, Tenant: t, Function: "f", Qualifier: "prod", Payload: allBytes(1 << 20), SourceARN: unusual, AttemptID: "a",
		Failures: 2, Refusals: 9, DueAt: instant.Add(time.Minute), CreatedAt: instant,
	}
}

func functionRows() []row {
	id := func(t imprint.Tenant) string { return "call " + t.String() }
	return []row{{
		name: "function",
		full: func(t imprint.Tenant) any { return fullFunction(t, "f", imprint.LatestVersion) },
		bare: func(t imprint.Tenant) any {
			return imprint.Function{Tenant: t, Name: "f", Version: imprint.LatestVersion}
		},
		put: func(tx imprint.Tx, v any) error { return tx.PutFunction(v.(imprint.Function)) },
		get: func(tx imprint.ReadTx, t imprint.Tenant) (any, error) {
			return tx.Function(t, "f", imprint.LatestVersion)
		},
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteFunction(t, "f", imprint.LatestVersion) },
	}, {
		name: "function alias",
		full: func(t imprint.Tenant) any {
			return imprint.FunctionAlias{Tenant: t, Function: "f", Name: "prod", Version: "3", Description: unusual, RevisionID: "r " + t.String()}
		},
		bare:   func(t imprint.Tenant) any { return imprint.FunctionAlias{Tenant: t, Function: "f", Name: "prod"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutFunctionAlias(v.(imprint.FunctionAlias)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.FunctionAlias(t, "f", "prod") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteFunctionAlias(t, "f", "prod") },
	}, {
		name: "queued call",
		full: func(t imprint.Tenant) any { return fullCall(t, id(t)) },
		bare: func(t imprint.Tenant) any { return imprint.QueuedCall{ID: id(t), Tenant: t} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutQueuedCall(v.(imprint.QueuedCall)) },
		get:  func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.QueuedCall(id(t)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error {
			return tx.DeleteQueuedCall(id(t))
		},
	}}
}

func permission(t imprint.Tenant, name, qualifier, id string) imprint.FunctionPermission {
	return imprint.FunctionPermission{
		Tenant: t, Function: imprint.FunctionName(name), Qualifier: qualifier, StatementID: id, Action: "lambda:InvokeFunction",
		Principal: "iot.amazonaws.com", SourceARN: "arn " + unusual, SourceAccount: "000000000000",
	}
}

// putFunctions gives two functions in two tenants with all that can be theirs.
func putFunctions(tx imprint.Tx) error {
	for _, tenant := range []imprint.Tenant{here, there} {
		for _, name := range []string{"f", "g"} {
			for _, version := range []string{imprint.LatestVersion, "1", "2"} {
				err := tx.PutFunction(fullFunction(tenant, name, version))
				if err != nil {
					return err
				}
			}
			for _, alias := range []string{"a", "b", "c"} {
				err := tx.PutFunctionAlias(imprint.FunctionAlias{Tenant: tenant, Function: imprint.FunctionName(name), Name: alias, Version: "1"})
				if err != nil {
					return err
				}
			}
			for _, p := range []imprint.FunctionPermission{
				permission(tenant, name, "", "s2"), permission(tenant, name, "", "s1"), permission(tenant, name, "a", "s1"), permission(tenant, name, "1", "s1"),
			} {
				err := tx.PutFunctionPermission(p)
				if err != nil {
					return err
				}
			}
			call := fullCall(tenant, tenant.String()+name)
			call.Function = imprint.FunctionName(name)
			err := tx.PutQueuedCall(call)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// ids names functions by name and version.
func ids(list []imprint.Function) string {
	var all []string
	for _, f := range list {
		all = append(all, string(f.Name)+":"+f.Version)
	}
	return strings.Join(all, " ")
}

// pages gives what all pages of a size hold.
func pages(t *testing.T, limit int, list func(imprint.Page) ([]imprint.Function, string, error)) string {
	t.Helper()
	var all []imprint.Function
	page := imprint.Page{Limit: limit, Ascending: true}
	for {
		part, next, err := list(page)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, part...)
		if next == "" {
			return ids(all)
		}
		page.Cursor = next
	}
}

func testFunctions(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, putFunctions)
	view(t, store, func(tx imprint.ReadTx) error {
		for _, limit := range []int{1, 2, 3, 100} {
			same(t, "$LATEST of all", pages(t, limit, func(p imprint.Page) ([]imprint.Function, string, error) { return tx.Functions(here, false, p) }),
				"f:$LATEST g:$LATEST")
			same(t, "all versions", pages(t, limit, func(p imprint.Page) ([]imprint.Function, string, error) { return tx.Functions(here, true, p) }),
				"f:$LATEST f:1 f:2 g:$LATEST g:1 g:2")
			same(t, "the versions of one", pages(t, limit, func(p imprint.Page) ([]imprint.Function, string, error) { return tx.FunctionVersions(here, "f", p) }),
				"f:$LATEST f:1 f:2")
		}
		aliases, next, err := tx.FunctionAliases(here, "f", imprint.Page{Limit: 2, Ascending: true})
		if err != nil || len(aliases) != 2 || aliases[0].Name != "a" || next == "" {
			t.Errorf("got %+v, %q, %v", aliases, next, err)
		}
		statements, err := tx.FunctionPermissions(here, "f", "")
		same(t, "the statements", statements, []imprint.FunctionPermission{permission(here, "f", "", "s1"), permission(here, "f", "", "s2")})
		if err != nil {
			return err
		}
		found, err := tx.FunctionByHandler(there, "provided.al2023", "h "+unusual)
		same(t, "by handler", found, fullFunction(there, "f", imprint.LatestVersion))
		if err != nil {
			return err
		}
		_, err = tx.FunctionByHandler(there, "provided.al2", "h "+unusual)
		wantCode(t, err, imprint.CodeNotFound)
		for sum, want := range map[string]bool{"ab1": true, "ab3": false} {
			got, err := tx.FunctionCode(sum)
			if err != nil || got != want {
				t.Errorf("code %s: got %v, %v", sum, got, err)
			}
		}
		want := int64(0)
		counted := map[string]bool{}
		for _, name := range []string{"f", "g"} {
			for _, version := range []string{imprint.LatestVersion, "1", "2"} {
				f := fullFunction(here, name, version)
				if !counted[f.CodeSHA256] {
					want += f.CodeSize
				}
				counted[f.CodeSHA256] = true
			}
		}
		if here.Account == there.Account {
			want *= 2 // regions are counted each
		}
		got, err := tx.FunctionCodeBytes(here.Account)
		if err != nil || got != want || want == 0 {
			t.Errorf("an account's code: got %d, %v, want %d", got, err, want)
		}
		got, err = tx.FunctionCodeBytes("999999999999")
		if err != nil || got != 0 {
			t.Errorf("the code of an account without functions: got %d, %v", got, err)
		}
		return nil
	})
}

func testFunctionDeletes(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, putFunctions)
	update(t, store, func(tx imprint.Tx) error {
		err := tx.DeleteFunctionPermission(here, "f", "", "s2")
		if err == nil {
			err = tx.DeleteFunction(here, "f", "1")
		}
		if err == nil {
			err = tx.DeleteFunctionAlias(here, "f", "a")
		}
		if err == nil {
			err = tx.DeleteFunction(there, "g", imprint.LatestVersion)
		}
		return err
	})
	view(t, store, func(tx imprint.ReadTx) error {
		counts := map[string]int{}
		for _, tenant := range []imprint.Tenant{here, there} {
			for _, name := range []imprint.FunctionName{"f", "g"} {
				at := tenant.String() + " " + string(name)
				versions, _, err := tx.FunctionVersions(tenant, name, imprint.Page{Limit: 100})
				if err != nil {
					return err
				}
				aliases, _, err := tx.FunctionAliases(tenant, name, imprint.Page{Limit: 100})
				if err != nil {
					return err
				}
				for _, qualifier := range []string{"", "a", "1"} {
					statements, err := tx.FunctionPermissions(tenant, name, qualifier)
					if err != nil {
						return err
					}
					counts[at+" statements"] += len(statements)
				}
				counts[at+" versions"], counts[at+" aliases"] = len(versions), len(aliases)
			}
			n, err := tx.QueuedCallUnits(tenant)
			if err != nil {
				return err
			}
			counts[tenant.String()+" calls"] = n
		}
		a, b := here.String(), there.String()
		same(t, "what is left", counts, map[string]int{
			a + " f versions": 2, a + " f aliases": 2, a + " f statements": 1, a + " g versions": 3, a + " g aliases": 3, a + " g statements": 4,
			b + " f versions": 3, b + " f aliases": 3, b + " f statements": 4, b + " g versions": 0, b + " g aliases": 0, b + " g statements": 0,
			a + " calls": 2 * imprint.OwedUnits(1<<20), b + " calls": imprint.OwedUnits(1 << 20),
		})
		return nil
	})
}

func testQueuedCalls(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error {
		for i, id := range []string{"c", "a", "b"} {
			call := fullCall(here, id)
			call.DueAt = instant.Add(time.Duration(i/2) * time.Minute)
			err := tx.PutQueuedCall(call)
			if err != nil {
				return err
			}
		}
		for id, of := range map[string]imprint.QueuedCall{"d": fullCall(there, "d"), "e": fullCall(here, "e"), "g": fullCall(here, "g")} {
			if of.Tenant == here {
				of.Function = imprint.FunctionName(id)
			}
			of.DueAt = instant
			err := tx.PutQueuedCall(of)
			if err != nil {
				return err
			}
		}
		return nil
	})
	view(t, store, func(tx imprint.ReadTx) error {
		tenants, err := tx.CallTenants()
		if err == nil {
			err = wantQueues(t, tenants, func(after string, limit int) ([]imprint.DueQueue, error) { return tx.CallQueues(here, after, limit) },
				[]imprint.DueQueue{{Name: "e", DueAt: instant}, {Name: "f", DueAt: instant}, {Name: "g", DueAt: instant}})
		}
		if err != nil {
			return err
		}
		for _, test := range []struct {
			at    time.Time
			limit int
			want  string
			next  time.Time
		}{
			{instant.Add(-time.Millisecond), 10, "", instant},
			{instant, 10, "ac", instant.Add(time.Minute)},
			{instant, 1, "a", instant.Add(time.Minute)},
			{instant, 0, "", instant.Add(time.Minute)},
			{instant.Add(time.Minute), 10, "acb", time.Time{}},
		} {
			list, err := tx.QueuedCalls(here, "f", test.at, test.limit)
			if err != nil {
				return err
			}
			got := ""
			for _, call := range list {
				got += call.ID
				if call.Payload != nil {
					t.Errorf("the list has the payload of %s", call.ID)
				}
			}
			next, err := tx.NextCall(test.at)
			if err != nil || got != test.want || !next.Equal(test.next) {
				t.Errorf("at %s: got %q and %s, %v; want %q and %s", test.at, got, next, err, test.want, test.next)
			}
		}
		return nil
	})
}
