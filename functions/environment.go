package functions

import (
	"context"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
)

// The runtime clients of Node and Python, which are ours: they are written for
// this host and speak the Runtime API.
var (
	//go:embed runtime/node.cjs
	nodeRuntime []byte
	//go:embed runtime/python.py
	pythonRuntime []byte
)

// reserved are the variables that a function can't set for itself, from AWS
// Lambda's "Defined runtime environment variables".
var reserved = []string{
	"_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME",
	"AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE",
	"AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
	"AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
}

// runtimeKind tells what a runtime needs; empty: it can't run here.
func runtimeKind(runtime string) string {
	switch {
	case runtime == RuntimeWebhook || runtime == RuntimeRemote:
		return runtime
	case runtime == "provided" || runtime == "provided.al2" || runtime == "provided.al2023":
		return "provided"
	case strings.HasPrefix(runtime, "nodejs"):
		return "node"
	case strings.HasPrefix(runtime, "python3."):
		return "python"
	}
	return ""
}

// commandOf gives the program of a function and its arguments, or what the caller
// hears when there is none.
func (h *host) commandOf(f imprint.Function, root string) ([]string, *outcome) {
	cannot := func(format string, args ...any) *outcome {
		return &outcome{kind: outcomeError, payload: errorObject("Runtime.InvalidEntrypoint", "RequestId: "+newRequestID()+" Error: "+format, args...)}
	}
	runtimes := filepath.Join(h.opts.WorkDir, "runtime")
	switch runtimeKind(f.Runtime) {
	case "provided":
		path := filepath.Join(root, "bootstrap")
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil, cannot("Couldn't find valid bootstrap(s): [bootstrap] in the root of the zip")
		}
		return []string{path}, nil
	case "node":
		path := h.interpreter("node")
		if path == "" {
			return nil, cannot("runtime %s needs node on this server: install Node.js (apt-get install nodejs) where the functions' user can run it", f.Runtime)
		}
		// As AWS Lambda does, some memory is left to what isn't V8's heap.
		heap := strconv.Itoa(max(f.MemoryMB*9/10, 64))
		return []string{path, "--max-old-space-size=" + heap, filepath.Join(runtimes, "node.cjs")}, nil
	case "python":
		path := h.interpreter(f.Runtime)
		if path == "" {
			path = h.interpreter("python3")
		}
		if path == "" {
			return nil, cannot("runtime %s needs %s or python3 on this server: install Python (apt-get install python3) where the functions' user can run it", f.Runtime, f.Runtime)
		}
		return []string{path, "-u", filepath.Join(runtimes, "python.py")}, nil
	}
	return nil, cannot("runtime %s can't run here", f.Runtime)
}

// functionPath is the PATH of functions.
const functionPath = "/usr/local/bin:/usr/bin:/bin"

// probeTimeout bounds the try whether an interpreter runs.
const probeTimeout = 10 * time.Second

// interpreter finds a program that the functions' user can run, in the functions'
// PATH and then in the server's; empty: there is none. What is found is
// remembered; what isn't may be installed meanwhile.
func (h *host) interpreter(name string) string {
	h.interpretersMu.Lock()
	defer h.interpretersMu.Unlock()
	if found := h.interpreters[name]; found != "" {
		return found
	}
	for _, dir := range append(filepath.SplitList(functionPath), filepath.SplitList(os.Getenv("PATH"))...) {
		path, err := exec.LookPath(filepath.Join(dir, name))
		// A relative directory would be another one in the function's place.
		if err == nil && filepath.IsAbs(path) && h.runs(path) {
			h.interpreters[name] = path
			return path
		}
	}
	return ""
}

// runs tells whether a program can say its version. Version managers put programs
// into the PATH that run nothing.
func (h *host) runs(path string) bool {
	cmd := &exec.Cmd{Path: path, Args: []string{path, "--version"}, Dir: h.opts.WorkDir, Env: []string{"PATH=" + functionPath}}
	confine(cmd, h.walls.prober(), namespaces{})
	err := h.start.run(cmd, nil)
	if err != nil {
		return false
	}
	kill := time.AfterFunc(probeTimeout, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	return cmd.Wait() == nil
}

// writeRuntimes puts our runtime clients beside the functions' code.
func writeRuntimes(workDir string) error {
	dir := filepath.Join(workDir, "runtime")
	err := openDir(dir, 0o755)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"node.cjs": nodeRuntime, "python.py": pythonRuntime} {
		err = writeReadable(filepath.Join(dir, name), content)
		if err != nil {
			return err
		}
	}
	return nil
}

// writeReadable writes a file that everyone may read, whatever the umask.
func writeReadable(path string, content []byte) error {
	const mode = 0o644
	err := os.WriteFile(path, content, mode)
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return fmt.Errorf("couldn't write a file for functions: %w", err)
	}
	return nil
}

// environment gives a process its variables: those of AWS Lambda, the function's
// own, and nothing of the server's.
func (p *process) environment(root string) ([]string, error) {
	f := p.pool.function
	tmp := filepath.Join(p.dir, "tmp")
	if p.host.walls.tmp != nil {
		tmp = "/tmp"
	}
	region := string(f.Tenant.Region)
	values := map[string]string{
		"PATH": functionPath, "LANG": "en_US.UTF-8", "TZ": ":UTC", "TMPDIR": tmp,
		"LD_LIBRARY_PATH": root + ":" + filepath.Join(root, "lib"),
	}
	credentials, err := p.credentials()
	if err != nil {
		return nil, err
	}
	if credentials.Endpoint != "" {
		values["AWS_ENDPOINT_URL"] = credentials.Endpoint
	}
	if credentials.Roots != "" {
		values["AWS_CA_BUNDLE"], values["NODE_EXTRA_CA_CERTS"] = credentials.Roots, credentials.Roots
	}
	// The function's own come next: it may call another endpoint.
	for name, value := range f.Environment {
		values[name] = value
	}
	for name, value := range map[string]string{
		"AWS_LAMBDA_RUNTIME_API": p.listener.Addr().String() + "/" + p.secret, "_HANDLER": f.Handler,
		"LAMBDA_TASK_ROOT": root, "LAMBDA_RUNTIME_DIR": filepath.Join(p.host.opts.WorkDir, "runtime"),
		"AWS_REGION": region, "AWS_DEFAULT_REGION": region,
		"AWS_LAMBDA_FUNCTION_NAME": string(f.Name), "AWS_LAMBDA_FUNCTION_VERSION": f.Version,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.Itoa(f.MemoryMB), "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME":  "/aws/lambda/" + string(f.Name),
		"AWS_LAMBDA_LOG_STREAM_NAME": p.host.clock().UTC().Format("2006/01/02") + "/[" + f.Version + "]" + logStream(),
	} {
		values[name] = value
	}
	if runtimeKind(f.Runtime) != "provided" {
		values["AWS_EXECUTION_ENV"] = "AWS_Lambda_" + f.Runtime
	}
	if credentials.AccessKeyID != "" {
		values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"] = credentials.AccessKeyID, credentials.SecretAccessKey
	}
	list := make([]string, 0, len(values))
	for name, value := range values {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list, nil
}

// credentials gives what the function calls this server with, its roots as a file
// that its user can read.
func (p *process) credentials() (Credentials, error) {
	if p.host.opts.Credentials == nil {
		return Credentials{}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	found, err := p.host.opts.Credentials(ctx, p.pool.function.Tenant)
	if err != nil {
		return found, fmt.Errorf("couldn't get the access key of functions: %w", err)
	}
	if found.Roots == "" {
		return found, nil
	}
	roots, err := os.ReadFile(found.Roots)
	if err != nil {
		return found, fmt.Errorf("couldn't read the server's roots for a function: %w", err)
	}
	found.Roots = filepath.Join(p.dir, "roots.pem")
	return found, writeReadable(found.Roots, roots)
}

func logStream() string {
	id := uuid.New()
	return hex.EncodeToString(id[:])
}
