package advise_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/advise"
)

func mustAdvise(t *testing.T, a advise.Answers) advise.Advice {
	t.Helper()
	advice, err := advise.For(a)
	if err != nil {
		t.Fatalf("%+v: %v", a, err)
	}
	return advice
}

func names(advice advise.Advice) []string {
	var list []string
	for _, f := range advice.Flows {
		list = append(list, f.Name)
	}
	return list
}

// excluded says, apart from the table under test, which flows answers exclude.
func excluded(a advise.Answers) map[string]bool {
	out := map[string]bool{}
	exclude := func(when bool, flows ...string) {
		for _, flow := range flows {
			out[flow] = out[flow] || when
		}
	}
	perDevice := []string{"jitp", "jitr", "multi-account", "bulk-registration", "register-thing"}
	// Nothing on the device is its own.
	exclude(a.DeviceKey == "claim", perDevice...)
	exclude(a.Manufacturer == "nothing" && a.DeviceKey == "unique", perDevice...)
	exclude(a.Manufacturer == "nothing" && a.DeviceKey == "secure-element" && a.PKI != "vendor", perDevice...)
	// Registration by CA needs a CA that can be registered; a shared one must not let
	// everything in that it signs.
	exclude(a.PKI == "none" || a.PKI == "imprint", "jitp", "jitr")
	exclude(a.PKI == "vendor", "jitp")
	// A certificate of the built-in CA is in one account.
	exclude(a.PKI == "imprint", "multi-account")
	exclude(a.Accounts == "one", "multi-account")
	exclude(a.Accounts == "several" && (a.PKI == "imprint" || a.PKI == "none"), "bulk-registration", "register-thing")
	// A list holds certificates that somebody signed, or signing requests.
	exclude((a.PKI == "imprint" || a.PKI == "none") && a.Manufacturer != "csr", "bulk-registration")
	exclude(a.Installer == "no", "trusted-user")
	return out
}

func TestEveryAnswerHasAFlow(t *testing.T) {
	t.Parallel()
	all := advise.All()
	want := 1
	for _, q := range advise.Questions() {
		want *= len(q.Options)
	}
	if len(all) != want {
		t.Fatalf("All gives %d combinations, want %d", len(all), want)
	}
	for n, a := range all {
		if slices.Contains(all[:n], a) {
			t.Errorf("%+v is there twice", a)
		}
		advice := mustAdvise(t, a)
		if len(advice.Flows) == 0 {
			t.Errorf("%+v: no flow", a)
		}
		if got, want := len(advice.Flows)+len(advice.RuledOut), len(advise.Table()); got != want {
			t.Errorf("%+v: %d flows are given or ruled out, want %d", a, got, want)
		}
		for _, f := range advice.Flows {
			if len(f.Reasons) == 0 || len(f.Commands) == 0 || f.Take == "" {
				t.Errorf("%+v: %s lacks reasons or commands", a, f.Name)
			}
		}
		for _, f := range advice.RuledOut {
			if len(f.Why) == 0 || slices.Contains(f.Why, "") {
				t.Errorf("%+v: %s is ruled out without a reason", a, f.Name)
			}
		}
		if again := mustAdvise(t, a); !cmp.Equal(advice, again) {
			t.Errorf("%+v: advice differs from one time to the next:\n%s", a, cmp.Diff(advice, again))
		}
	}
}

func TestNoFlowIsGivenThatTheAnswersExclude(t *testing.T) {
	t.Parallel()
	for _, a := range advise.All() {
		bad := excluded(a)
		advice := mustAdvise(t, a)
		for _, f := range advice.Flows {
			if bad[f.Name] {
				t.Errorf("%+v: %s is given, and can't be", a, f.Name)
			}
		}
		for _, f := range advice.RuledOut {
			if !bad[f.Name] {
				t.Errorf("%+v: %s is ruled out, and could be: %v", a, f.Name, f.Why)
			}
		}
	}
}

// What is preferred, for answers that are met in practice.
func TestThePreferredFlow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		device, line, pki, accounts, installer advise.Answer
		want                                   string
	}{
		{"unique", "csr", "own", "one", "no", "jitp"},
		{"secure-element", "nothing", "vendor", "one", "no", "bulk-registration"},
		{"secure-element", "nothing", "vendor", "several", "no", "multi-account"},
		{"unique", "csr", "imprint", "one", "no", "bulk-registration"},
		{"unique", "injection", "imprint", "one", "no", "register-thing"},
		{"claim", "nothing", "imprint", "one", "no", "fleet-provisioning"},
		{"claim", "nothing", "own", "several", "yes", "trusted-user"},
		{"unique", "nothing", "own", "one", "no", "fleet-provisioning"},
	} {
		a := advise.Answers{DeviceKey: c.device, Manufacturer: c.line, PKI: c.pki, Accounts: c.accounts, Installer: c.installer}
		if got := names(mustAdvise(t, a)); got[0] != c.want {
			t.Errorf("%+v: got %v, want %s first", a, got, c.want)
		}
	}
}

// The page says that an installer changes the first choice in this way alone.
func TestAnInstallerReplacesTheClaimAlone(t *testing.T) {
	t.Parallel()
	for _, a := range advise.All() {
		if a.Installer != advise.NoInstaller {
			continue
		}
		without := names(mustAdvise(t, a))[0]
		a.Installer = advise.WithInstaller
		with := names(mustAdvise(t, a))[0]
		want := without
		if without == "fleet-provisioning" {
			want = "trusted-user"
		}
		if with != want {
			t.Errorf("%+v: got %s first, want %s", a, with, want)
		}
	}
}

func TestWrongAndMissingAnswersAreRefused(t *testing.T) {
	t.Parallel()
	good := advise.All()[0]
	for _, q := range advise.Questions() {
		a := good
		err := q.Answer(&a, "perhaps")
		if err == nil || !strings.Contains(err.Error(), "--"+q.Name) || !strings.Contains(err.Error(), q.Names()) {
			t.Errorf("%s: got %v, want the flag and its options", q.Name, err)
		}
		if a != good {
			t.Errorf("%s: a wrong answer changed %+v", q.Name, a)
		}
	}
	_, err := advise.For(advise.Answers{DeviceKey: advise.UniqueKey})
	if err == nil || strings.Contains(err.Error(), "device-key") || !strings.Contains(err.Error(), "--pki") {
		t.Errorf("answers that lack: got %v, want the flags that lack", err)
	}
	if got := len(advise.Answers{PKI: advise.OwnCA}.Missing()); got != len(advise.Questions())-1 {
		t.Errorf("missing: got %d", got)
	}
}

// Every page that is named is there, and is headed by the flow.
func TestThePagesAreThere(t *testing.T) {
	t.Parallel()
	for _, row := range advise.Table() {
		page, err := os.ReadFile(filepath.Join("..", row.Page))
		if err != nil {
			t.Errorf("%s: %v", row.Name, err)
			continue
		}
		for _, part := range []string{"```mermaid", "## When to choose it", "## What the device must do", "## Commands", "## What can go wrong, and how it shows", "choosing.md"} {
			if !strings.Contains(string(page), part) {
				t.Errorf("%s lacks %q", row.Page, part)
			}
		}
	}
}
