// Package awscli runs the system's AWS CLI quickly, for tests: one process imports
// its modules, and each command runs in a fork of that, by the CLI's own main
// function. A command on its own takes a second of processor time to begin.
//
//	cli, err := awscli.Start()
//	defer cli.Close()
//	exec.Command(cli.Path(), "iot", "describe-endpoint")
//
// It needs Linux and the Debian package awscli. What a command reads, writes, its
// directory, its environment and its exit status are those of the program at Path.
package awscli

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

var (
	//go:embed host.py
	hostSource string
	//go:embed client.py
	clientSource string
)

// CLI is a running host.
type CLI struct {
	dir   string
	cmd   *exec.Cmd
	stdin io.Closer
}

// python is the interpreter that Debian's package brings its modules to.
const python = "/usr/bin/python3"

// Start starts the host and returns when it takes commands.
func Start() (*CLI, error) {
	dir, err := os.MkdirTemp("", "awscli-")
	if err != nil {
		return nil, fmt.Errorf("couldn't make a directory for the AWS CLI: %w", err)
	}
	c := &CLI{dir: dir}
	err = c.start()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *CLI) start() error {
	socket := filepath.Join(c.dir, "socket")
	program := "#!" + python + " -IS\n" + strings.Replace(clientSource, "SOCKET", strconv.Quote(socket), 1)
	err := os.WriteFile(c.Path(), []byte(program), 0o700)
	if err != nil {
		return fmt.Errorf("couldn't write the AWS CLI's client: %w", err)
	}
	c.cmd = exec.Command(python, "-c", hostSource, socket)
	c.cmd.Stderr = os.Stderr
	c.stdin, err = c.cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	err = c.cmd.Start()
	if err != nil {
		c.cmd = nil
		return fmt.Errorf("couldn't start the AWS CLI's host: %w", err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		return fmt.Errorf("the AWS CLI's host isn't ready, but says %q: %w", line, errors.Join(err, errNotReady))
	}
	return nil
}

var errNotReady = errors.New("it should say ready")

// Path is the program that stands for the AWS CLI. Its name is aws.
func (c *CLI) Path() string { return filepath.Join(c.dir, "aws") }

// Close ends the host; commands that run go on to their end.
func (c *CLI) Close() error {
	var err error
	if c.cmd != nil {
		// It ends with its input, and with status 0.
		_ = c.stdin.Close()
		err = c.cmd.Wait()
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
