// Package foreign finds the programs of others that tests need. Where they are
// promised, which is wherever IMPRINT_CI or CI is set, a test without its program
// fails; elsewhere it is skipped and says what to install. So nothing is passed over
// in CI, and a person without mosquitto can still test the rest.
//
//	openssl := foreign.Program(t, "openssl")
//
// scripts/test-tools installs all of them.
package foreign

import (
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// packages are where Debian keeps programs whose package has another name.
var packages = map[string]string{
	"mosquitto_pub": "mosquitto-clients", "mosquitto_sub": "mosquitto-clients",
	"node": "nodejs", "aws": "awscli", "timeout": "coreutils", "stdbuf": "coreutils", "script": "bsdutils", "pki": "strongswan-pki",
}

// Program gives the path of the first of the programs that is there; a name is
// looked for in PATH, a path is taken as it is. Without any it is as [Missing] says.
func Program(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		found, err := exec.LookPath(name)
		if err == nil {
			return found
		}
	}
	name := path.Base(names[0])
	debian := packages[name]
	if debian == "" {
		debian = name
	}
	Missing(t, strings.Join(names, " or "), "install the package "+debian)
	return ""
}

// Missing ends a test that lacks something: as failed where all must be there, else
// as skipped.
func Missing(t testing.TB, what, remedy string) {
	t.Helper()
	if promised() {
		t.Fatalf("%s is missing, and this environment must have it: %s", what, remedy)
	}
	t.Skipf("%s is missing: %s", what, remedy)
}

// promised tells whether all programs must be there. Who sets a variable to 0 or
// false says no.
func promised() bool {
	for _, name := range []string{"IMPRINT_CI", "CI"} {
		switch os.Getenv(name) {
		case "", "0", "false":
		default:
			return true
		}
	}
	return false
}
