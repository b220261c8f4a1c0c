package keys_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/pki/keys/wire"
)

// helperProcess is imprint-pkcs11 without Imprint.
type helperProcess struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   io.Reader
	ended chan error
}

func startHelperProcess(t testing.TB) *helperProcess {
	t.Helper()
	path, err := helper()
	if err != nil {
		t.Fatal(err)
	}
	p := &helperProcess{t: t, cmd: exec.Command(path), ended: make(chan error, 1)}
	p.stdin, err = p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.out = in, out
	err = p.cmd.Start()
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close() // the process has its own
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it should have ended before
		_ = out.Close()
	})
	return p
}

func (p *helperProcess) send(request *wire.Request) {
	p.t.Helper()
	message, err := request.Marshal()
	if err == nil {
		err = wire.Write(p.stdin, message)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *helperProcess) ask(request *wire.Request) *wire.Response {
	p.t.Helper()
	p.send(request)
	message, err := wire.Read(p.out)
	var answer wire.Response
	if err == nil {
		err = answer.Unmarshal(message)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return &answer
}

func (p *helperProcess) end() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(patience):
		p.t.Fatal("imprint-pkcs11 is still there")
		return nil
	}
}

// Where Imprint is killed, the helper's input ends, and so does the helper, even while
// the module hangs.
func TestTheHelperEndsWithItsInput(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	h.tool("--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "root")
	p := startHelperProcess(t)
	for _, request := range []*wire.Request{
		{ID: 1, Op: wire.OpHello, Version: wire.Version, Module: h.module, Token: wire.Token{Label: h.label}},
		{ID: 2, Op: wire.OpLogin, PIN: []byte(h.pin)},
		{ID: 3, Op: wire.OpFind, Label: "root"},
	} {
		answer := p.ask(request)
		if answer.ID != request.ID || answer.Code != wire.OK {
			t.Fatalf("request %d: got %+v", request.ID, answer)
		}
	}
	h.tell("hang")
	p.send(&wire.Request{ID: 4, Op: wire.OpSign, Label: "root", Scheme: wire.ECDSA, Hash: 256, Digest: make([]byte, 32)})
	eventually(t, "the module hangs", func() error {
		_, err := os.Stat(filepath.Join(h.dir, "signing"))
		return err
	})
	err := p.stdin.Close()
	if err != nil {
		t.Fatal(err)
	}
	err = p.end()
	if err != nil {
		t.Errorf("imprint-pkcs11 ended with %v", err)
	}
}

// Requests out of order, unknown or of another version are refused; what is no request
// ends the helper.
func TestTheHelperRefusesWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	p := startHelperProcess(t)
	hello := &wire.Request{ID: 2, Op: wire.OpHello, Version: wire.Version, Module: h.module, Token: wire.Token{Label: h.label}}
	for _, step := range []struct {
		request *wire.Request
		want    wire.Code
	}{
		{&wire.Request{ID: 1, Op: wire.OpFind, Label: "x"}, wire.Protocol},
		{&wire.Request{ID: 2, Op: wire.OpHello, Version: wire.Version + 1, Module: h.module}, wire.Protocol},
		{hello, wire.OK},
		{hello, wire.Protocol},
		{&wire.Request{ID: 3, Op: 99}, wire.Protocol},
		{&wire.Request{ID: 4, Op: wire.OpSign, Scheme: wire.ECDSA, Hash: 256, Digest: make([]byte, 31)}, wire.Protocol},
		{&wire.Request{ID: 5, Op: wire.OpSign, Scheme: wire.ECDSA, Hash: 1, Digest: make([]byte, 32)}, wire.Protocol},
		{&wire.Request{ID: 6, Op: wire.OpGenerate, Label: "x", KeyID: []byte{1}, Kind: "dsa"}, wire.Protocol},
		{&wire.Request{ID: 7, Op: wire.OpGenerate, Kind: "p256"}, wire.Protocol},
		{&wire.Request{ID: 8, Op: wire.OpFind, Label: "x"}, wire.NoKey},
	} {
		answer := p.ask(step.request)
		if answer.ID != step.request.ID || answer.Code != step.want {
			t.Errorf("request %d: got %+v, want code %d", step.request.ID, answer, step.want)
		}
	}
	err := wire.Write(p.stdin, bytes.Repeat([]byte{0xff}, 100))
	if err != nil {
		t.Fatal(err)
	}
	err = p.end()
	if err == nil {
		t.Error("imprint-pkcs11 ended as if nothing were wrong")
	}
}
