package test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// thiefCode is a function that looks for the keys of others in every process, asks
// for a file, and leaves a process in a session of its own behind.
const thiefCode = `
import glob, os, subprocess
def handler(event, context):
    keys = set()
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            keys.update(v[18:].decode() for v in open(path, "rb").read().split(b"\0") if v.startswith(b"AWS_ACCESS_KEY_ID="))
        except OSError:
            pass
    read = []
    for path in event["files"]:
        try:
            read.append(open(path, "rb").read(1).hex())
        except OSError:
            pass
    subprocess.run(["/bin/sh", "-c", "(read pid rest </proc/self/stat; echo $pid >$0.half; mv $0.half $0; exec sleep 600) &", event["pid"]],
                   start_new_session=True, stdin=subprocess.DEVNULL)
    return {"keys": len(keys), "own": os.environ["AWS_ACCESS_KEY_ID"] in keys, "read": read, "uid": os.getuid()}
`

// The built program keeps the functions of two accounts apart, and takes along what
// they started when it is killed. It needs root, as each function has a user of
// its own.
func TestFunctionsOfTwoAccountsAreApart(t *testing.T) {
	need(t, "bash", "aws", "python3")
	if os.Geteuid() != 0 {
		t.Fatal("run this test as root: nobody else can give functions users of their own")
	}
	t.Parallel()
	s := startServer(t)
	dir, shared := functionDir(t), openDirectory(t)
	writeFile(t, filepath.Join(dir, "thief.py"), thiefCode)
	other := s.addAccount(t, "111111111111")
	const create = `python3 -m zipfile -c thief.zip thief.py
aws lambda create-function --zip-file fileb://thief.zip --function-name thief --runtime python3.12 --handler thief.handler --timeout 60 --role arn:aws:iam::000000000000:role/x >/dev/null
`
	uids := map[int]bool{}
	var pids []int
	// The first is still warm, with its key, when the second looks around.
	for n, key := range []aws.Credentials{{}, other} {
		path := filepath.Join(shared, strconv.Itoa(n))
		event, err := json.Marshal(map[string]any{"pid": path, "files": []string{filepath.Join(s.dir, "master.key"), filepath.Join(s.dir, "registry.db")}})
		if err != nil {
			t.Fatal(err)
		}
		as := ""
		if key.AccessKeyID != "" {
			as = "export AWS_ACCESS_KEY_ID=" + key.AccessKeyID + " AWS_SECRET_ACCESS_KEY=" + key.SecretAccessKey + "\n"
		}
		run := s.shell(t, dir, as+create+`aws lambda invoke --function-name thief --cli-binary-format raw-in-base64-out --payload '`+string(event)+`' out.json`)
		if run.exit != 0 {
			t.Fatalf("exit code %d\n%s", run.exit, run.all())
		}
		var got struct {
			Keys, UID int
			Own       bool
			Read      []string
		}
		err = json.Unmarshal([]byte(readFile(t, filepath.Join(dir, "out.json"))), &got)
		if err != nil || got.Keys != 1 || !got.Own || len(got.Read) != 0 {
			t.Errorf("function %d: got %+v (%v), want its own key alone\n%s", n, got, err, run.all())
		}
		uids[got.UID] = true
		eventuallyTrue(t, "what the function leaves behind", func() bool { _, err := os.Stat(path); return err == nil })
		pid, err := strconv.Atoi(strings.TrimSpace(readFile(t, path)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(uids) != 2 || uids[0] || uids[65534] {
		t.Errorf("the functions ran as %v, want two users", uids)
	}
	s.signal(syscall.SIGKILL)
	for _, pid := range pids {
		eventuallyTrue(t, "the end of what functions started with the server", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	}
}
