package awscli

import (
	"sync"
	"testing"

	"github.com/imprint-iot/imprint/internal/foreign"
)

// system is where Debian's package has the AWS CLI. Others in the PATH may be shims
// without one behind them.
const system = "/usr/bin/aws"

// host runs all commands of a test program. It ends with it.
var host = sync.OnceValues(Start)

// Program gives what runs the AWS CLI of this machine for a test: the system's in a
// host, and one that is elsewhere as it is.
func Program(t testing.TB) string {
	t.Helper()
	path := foreign.Program(t, system, "aws")
	if path != system {
		return path
	}
	cli, err := host()
	if err != nil {
		t.Fatal(err)
	}
	return cli.Path()
}
