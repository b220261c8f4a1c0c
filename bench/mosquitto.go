package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// contender is a broker under load.
type contender struct {
	name  string
	child *child
	door  door
}

// mosquittoPlaces are where the program is looked for when none is named.
// Debian's isn't on everyone's PATH.
func mosquittoPlaces() []string { return []string{"mosquitto", "/usr/sbin/mosquitto"} }

// findMosquitto gives the path of the program.
func findMosquitto(named string) (string, error) {
	places := mosquittoPlaces()
	if named != "" {
		places = []string{named}
	}
	var errs []error
	for _, place := range places {
		path, err := exec.LookPath(place)
		if err == nil {
			return path, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("couldn't find the broker to compare with; install the package mosquitto, name its program with --mosquitto, or measure without it (--no-mosquitto): %w",
		errors.Join(errs...))
}

// mosquittoConfig makes mosquitto do the same work: TLS 1.3 with a certificate
// from each device, an identity from it, rules with a variable. It keeps all in
// memory, drops nothing and logs nothing; the window is Imprint's.
const mosquittoConfig = `user root
per_listener_settings false
persistence false
log_type none
log_dest none
connection_messages false
sys_interval 0
allow_anonymous false
acl_file %[1]s/acl
max_inflight_messages 100
max_inflight_bytes 0
max_queued_messages 0
max_queued_bytes 0
memory_limit 0
max_connections -1
max_keepalive 65535
set_tcp_nodelay true
listener %[2]s 127.0.0.1
tls_version tlsv1.3
ciphers_tls1.3 TLS_AES_128_GCM_SHA256
cafile %[1]s/ca.pem
certfile %[1]s/server.pem
keyfile %[1]s/server.key
require_certificate true
use_identity_as_username true
`

// mosquittoACL has the rules of devicePolicy.
const mosquittoACL = `pattern readwrite devices/%c/#
pattern readwrite models/` + modelName + `/#
`

// portTries is how many ports mosquitto is started with until it listens on one: another
// program may take each before it does.
const portTries = 5

// startMosquitto starts mosquitto with everything of its in dir, for the
// devices of a CA, on an address that free gives.
func startMosquitto(ctx context.Context, program, dir string, ca *authority, free func(context.Context) (string, error), messages io.Writer) (*contender, error) {
	err := os.Mkdir(dir, 0o700)
	if err != nil {
		return nil, fmt.Errorf("couldn't make mosquitto's directory: %w", err)
	}
	root, err := newAuthority("Imprint bench mosquitto root", time.Now())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	for tries := 1; ; tries++ {
		address, err := free(ctx)
		if err != nil {
			return nil, err
		}
		err = writeMosquitto(dir, address, root, ca)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(program, "-c", filepath.Join(dir, "mosquitto.conf"))
		endWithParent(cmd)
		c, err := start("mosquitto", cmd, messages)
		if err != nil {
			return nil, err
		}
		m := &contender{name: "mosquitto", child: c, door: door{address: address, roots: roots}}
		err = m.awaitPort(ctx)
		if err == nil {
			return m, nil
		}
		if !c.over() || tries == portTries {
			return nil, errors.Join(err, c.stop())
		}
	}
}

// freeAddress gives a loopback address whose port was free a moment ago:
// mosquitto can't say which one it took.
func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("couldn't find a free port for mosquitto: %w", err)
	}
	address := ln.Addr().String()
	err = ln.Close()
	if err != nil {
		return "", fmt.Errorf("couldn't find a free port for mosquitto: %w", err)
	}
	return address, nil
}

func writeMosquitto(dir, address string, root, ca *authority) error {
	certificate, err := root.serverCertificate(time.Now())
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		return fmt.Errorf("couldn't encode mosquitto's key: %w", err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("couldn't read mosquitto's address: %w", err)
	}
	for name, text := range map[string]string{
		"mosquitto.conf": fmt.Sprintf(mosquittoConfig, dir, port), "acl": mosquittoACL, "ca.pem": ca.pem(),
		"server.pem": certificatePEM(certificate.Leaf.Raw),
		"server.key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	} {
		err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
		if err != nil {
			return fmt.Errorf("couldn't configure mosquitto: %w", err)
		}
	}
	return nil
}

// awaitPort waits until mosquitto listens, and not another program with its port.
func (m *contender) awaitPort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if m.child.over() {
			return m.child.lost()
		}
		err := m.greet(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-m.child.ended:
		case <-ctx.Done():
			return fmt.Errorf("mosquitto doesn't listen: %w", err)
		}
	}
}

// greetPatience bounds a greeting: who took the port may never answer.
const greetPatience = time.Second

// greet makes a connection with the program that has mosquitto's key.
func (m *contender) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, greetPatience)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: m.door.roots}}
	conn, err := dialer.DialContext(ctx, "tcp", m.door.address)
	if err == nil {
		_ = conn.Close()
	}
	return err
}
