// Command testfunction is the AWS Lambda function that the tests run: an
// ordinary one over aws-lambda-go, which does what its event says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/iot"
)

// event says what to do.
type event struct {
	Do    string `json:"do"`
	Value string `json:"value"`
	events.IoTPreProvisionHookRequest
}

// runs counts the events of this process.
var runs int

// held keeps memory from being collected.
var held [][]byte

func main() {
	if os.Getenv("FAIL_INIT") != "" {
		fmt.Fprintln(os.Stderr, "init fails")
		os.Exit(7)
	}
	if os.Getenv("HANG_INIT") != "" {
		time.Sleep(time.Hour)
	}
	if path := os.Getenv("TERM_FILE"); path != "" {
		lambda.StartWithOptions(handle, lambda.WithEnableSIGTERM(func() {
			_ = os.WriteFile(path, []byte("terminated"), 0o600)
		}))
		return
	}
	lambda.Start(handle)
}

// pid is the process's number outside of its PID namespace, where it is 1.
func pid() int {
	name, err := os.Readlink("/proc/self")
	if err != nil {
		return os.Getpid()
	}
	n, _ := strconv.Atoi(name)
	return n
}

func handle(ctx context.Context, in event) (any, error) {
	runs++
	switch in.Do {
	case "echo":
		return map[string]any{"value": in.Value, "runs": runs, "pid": pid()}, nil
	case "about":
		return about(ctx)
	case "log":
		fmt.Println("to standard output:", in.Value)
		fmt.Fprintln(os.Stderr, "to standard error:", in.Value)
		return nil, nil
	case "flood":
		line := strings.Repeat("x", 1000)
		for range 2000 {
			fmt.Println(line)
		}
		fmt.Println("the last line")
		return nil, nil
	case "fail":
		return nil, errors.New(in.Value)
	case "panic":
		panic(in.Value)
	case "exit":
		code, _ := strconv.Atoi(in.Value)
		os.Exit(code)
	case "hang":
		select {}
	case "child":
		return child(in.Value)
	case "wait":
		return waitForFile(ctx, in.Value)
	case "memory":
		for {
			block := make([]byte, 1<<20)
			for i := range block {
				block[i] = byte(i)
			}
			held = append(held, block)
		}
	case "large":
		n, _ := strconv.Atoi(in.Value)
		return strings.Repeat("x", n), nil
	case "write":
		return nil, os.WriteFile(in.Value, []byte("written"), 0o600)
	case "append":
		return nil, appendLine(in.Value)
	case "appendfail":
		return nil, errors.Join(appendLine(in.Value), errors.New("after the line"))
	case "reader":
		return strings.NewReader(in.Value), nil
	case "iot":
		return createThing(ctx, in.Value)
	}
	return map[string]any{"allowProvisioning": in.Parameters["SerialNumber"] == "SN-1", "parameterOverrides": map[string]string{"Site": "plant"}}, nil
}

// about tells what a function can see of its process.
func about(ctx context.Context) (any, error) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var files []string
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil {
			files = append(files, to)
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	called, _ := lambdacontext.FromContext(ctx)
	_, tmpErr := os.Stat(os.TempDir())
	return map[string]any{
		"env": os.Environ(), "files": files, "dir": dir, "uid": os.Getuid(), "gid": os.Getgid(), "tmp": os.TempDir(),
		"tmpWorks": tmpErr == nil && os.WriteFile(filepath.Join(os.TempDir(), "a"), nil, 0o600) == nil,
		"arn":      called.InvokedFunctionArn, "request": called.AwsRequestID, "left": time.Until(deadline).Seconds(),
	}, nil
}

// child starts a process that outlives its parent, and then does nothing itself.
func child(path string) (any, error) {
	cmd := exec.Command("/bin/sh", "-c", "read pid rest </proc/self/stat; echo $pid >"+path+"; exec sleep 600")
	err := cmd.Start()
	if err != nil {
		return nil, err
	}
	select {}
}

// waitForFile says that it runs, by a file, and returns when another is there.
func waitForFile(ctx context.Context, path string) (any, error) {
	err := os.WriteFile(path+".running."+strconv.Itoa(pid()), nil, 0o600)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		_, err := os.Stat(path)
		if err == nil {
			return pid(), nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// appendLine adds the process and the run to a file.
func appendLine(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, pid(), runs)
	return errors.Join(err, f.Close())
}

// createThing calls AWS IoT Core, with what the environment says.
func createThing(ctx context.Context, name string) (any, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	made, err := iot.NewFromConfig(settings).CreateThing(ctx, &iot.CreateThingInput{ThingName: aws.String(name)})
	if err != nil {
		return nil, err
	}
	return aws.ToString(made.ThingArn), nil
}

func init() {
	// A function may take signals; it is ended all the same.
	signal.Ignore(syscall.SIGHUP)
}
