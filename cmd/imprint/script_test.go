package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"imprint": func() { os.Exit(run(os.Args[1:])) },
	})
}

// The scripts in testdata say what a person types and sees.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			// Nothing of the machine's own settings may leak in.
			for _, name := range []string{"AWS_ENDPOINT_URL_IOT", "AWS_ACCESS_KEY_ID", "IMPRINT_DATA", "IMPRINT_CONFIG"} {
				e.Setenv(name, "")
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode":  exitCode,
			"waitready": waitReady,
		},
	})
}

// exitCode N COMMAND... wants the command to end with this status.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exitcode N COMMAND...")
	}
	got := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("couldn't run %q: %v", args[1:], err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%q: got exit code %d, want %s", args[1:], got, args[0])
	}
}

// waitReady DIR waits until the server of a data directory answers /readyz.
func waitReady(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: waitready DIR")
	}
	dir := ts.MkAbs(args[0])
	deadline := time.After(2 * time.Minute)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !ready(dir) {
		select {
		case <-look.C:
		case <-deadline:
			ts.Fatalf("the server of %s wasn't ready in time", dir)
		}
	}
}

func ready(dir string) bool {
	facts, err := readServerFacts(dir)
	if err != nil {
		return false
	}
	bundle, err := os.ReadFile(filepath.Join(dir, "pki", "server-roots.pem"))
	if err != nil {
		return false
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get(facts.APIURL + "/readyz")
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
