package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
)

// identityConfig is the argument of identity.cjs.
type identityConfig struct {
	Version    int               `json:"version"`
	API        string            `json:"api"`
	Host       string            `json:"host"`
	Port       int               `json:"port"`
	Proxy      int               `json:"proxy,omitempty"`
	CA         string            `json:"ca"`
	Cert       string            `json:"cert"`
	Key        string            `json:"key"`
	ClientID   string            `json:"clientId"`
	CSR        string            `json:"csr,omitempty"`
	Parameters map[string]string `json:"parameters"`
}

// TestAWSIdentityClientIsProvisionedByClaim ensures that AWS's own client does
// both flows, understands a rejection, and comes back with its new certificate: in two
// accounts at once, with the same client ids, topics, template and thing names.
func TestAWSIdentityClientIsProvisionedByClaim(t *testing.T) {
	need(t, "openssl", "node")
	t.Parallel()
	s := newStage(t, "IMPRINT_CLAIM_RATE=0")
	const other = "111111111111"
	fleets := map[string]*fleet{"one": s.one.fleet(t), "two": s.side(t, other, s.addAccount(t, other), "us-east-1").fleet(t)}
	modules, tunnel := jsModules(t), s.tunnel(t)
	for _, version := range []int{4, 5} {
		for _, api := range []string{"v1", "v2"} {
			if version == 5 && api == "v1" {
				continue // the older client has only MQTT 3.1.1 connections of its own
			}
			for _, ownKey := range []bool{false, true} {
				name := fmt.Sprintf("js%d-%s-%t", version, api, ownKey)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					ids := map[string]string{}
					var both sync.Mutex
					t.Run("accounts", func(t *testing.T) {
						for account, f := range fleets {
							t.Run(account, func(t *testing.T) {
								t.Parallel()
								d, registered := f.identityClient(t, modules, name, identityConfig{Version: version, API: api, Proxy: tunnel}, ownKey)
								f.checkOnboarded(t, d, registered)
								back := f.as(t, d).jsDevice(t, jsConfig{Version: version, ClientID: d.name, Proxy: tunnel})
								back.connect()
								back.stop(nil)
								both.Lock()
								ids[account] = d.id(t)
								both.Unlock()
							})
						}
					})
					for account, f := range fleets {
						things := must(f.api.ListThingPrincipals(t.Context(), &iot.ListThingPrincipalsInput{ThingName: aws.String("sensor-" + name)}))(t).Principals
						if len(things) != 1 || !strings.HasSuffix(things[0], "cert/"+ids[account]) || ids["one"] == ids["two"] {
							t.Errorf("account %s: the thing has the certificates %v, want %s alone; both accounts' are %v", account, things, ids[account], ids)
						}
					}
				})
			}
		}
	}
}

// TestAWSIdentityClientIsProvisionedByATrustedUser ensures that AWS's own client does both
// flows with the certificates that CreateProvisioningClaim gives, in two accounts at once
// with the same names, and comes back with its new certificate.
func TestAWSIdentityClientIsProvisionedByATrustedUser(t *testing.T) {
	need(t, "openssl", "node")
	t.Parallel()
	s := newStage(t, "IMPRINT_CLAIM_RATE=0")
	const other = "111111111111"
	fleets := map[string]*fleet{"one": s.one.fleet(t), "two": s.side(t, other, s.addAccount(t, other), "us-east-1").fleet(t)}
	modules, tunnel := jsModules(t), s.tunnel(t)
	for name, config := range map[string]identityConfig{
		"keys": {Version: 4, API: "v1", Proxy: tunnel}, "csr": {Version: 5, API: "v2", Proxy: tunnel},
	} {
		for account, f := range fleets {
			t.Run(name+"/"+account, func(t *testing.T) {
				t.Parallel()
				claim := must(f.api.CreateProvisioningClaim(t.Context(), &iot.CreateProvisioningClaimInput{TemplateName: aws.String("sensors")}))(t)
				dir := t.TempDir()
				config := config
				config.Cert, config.Key = filepath.Join(dir, "claim.pem"), filepath.Join(dir, "claim.key")
				writeFile(t, config.Cert, aws.ToString(claim.CertificatePem))
				writeFile(t, config.Key, aws.ToString(claim.KeyPair.PrivateKey))
				d, registered := f.identityClient(t, modules, "trusted-"+name, config, name == "csr")
				f.checkOnboarded(t, d, registered)
				back := f.as(t, d).jsDevice(t, jsConfig{Version: config.Version, ClientID: d.name, Proxy: tunnel})
				back.connect()
				back.stop(nil)
				if account != "one" {
					return // whose attempts the operator of the first account doesn't see
				}
				var came bool
				for _, attempt := range s.awaitExplained(t, aws.ToString(claim.CertificateId), 1) {
					for _, step := range attempt.Steps {
						came = came || step.Name == "claim.registered" && strings.Contains(step.Detail, "sensor-trusted-"+name) && strings.Contains(step.Detail, d.id(t))
					}
				}
				if !came {
					t.Error("the trace doesn't say what came of the claim")
				}
			})
		}
	}
}

// identityClient runs the program and gives the device that came of it.
func (f *fleet) identityClient(t *testing.T, modules, serial string, config identityConfig, ownKey bool) (*device, claimed) {
	t.Helper()
	dir := t.TempDir()
	d := &device{name: "sensor-" + serial, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	config.Host, config.CA = f.host, f.stage.at().CABundle
	if config.Cert == "" {
		config.Cert, config.Key = f.claim.cert, f.claim.key
	}
	config.ClientID, config.Parameters = "fleet-provisioning-"+serial, map[string]string{"SerialNumber": serial, "Site": "plant"}
	port, err := strconv.Atoi(f.stage.port())
	if err != nil {
		t.Fatal(err)
	}
	config.Port = port
	if ownKey {
		csr := filepath.Join(dir, "device.csr")
		writeFile(t, filepath.Join(dir, "openssl.cnf"), opensslConfig)
		openssl(t, dir, append([]string{"req", "-new", "-nodes", "-subj", "/CN=" + d.name, "-keyout", d.key, "-out", csr}, keyKinds["P-256"]...)...)
		config.CSR = readFile(t, csr)
	}
	argument, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	run := runTool(t, "", cleanEnv("NODE_PATH="+modules), "node", "js/identity.cjs", string(argument))
	if run.exit != 0 {
		t.Fatalf("identity.cjs: exit code %d\n%s", run.exit, run.all())
	}
	var made, registered, rejected claimed
	for line := range strings.Lines(run.stdout) {
		var one struct{ Made, Rejected, Registered *claimed }
		err = json.Unmarshal([]byte(line), &one)
		if err != nil {
			t.Fatalf("identity.cjs said %q: %v", line, err)
		}
		switch {
		case one.Made != nil:
			made = *one.Made
		case one.Rejected != nil:
			rejected = *one.Rejected
		case one.Registered != nil:
			registered = *one.Registered
		}
	}
	if rejected.Code != "InvalidCertificateOwnershipToken" || rejected.Status != 400 || rejected.Message == "" {
		t.Errorf("a bad token: the client says %+v, want 400 InvalidCertificateOwnershipToken\n%s", rejected, run.stdout)
	}
	writeFile(t, d.cert, made.PEM)
	if !ownKey {
		writeFile(t, d.key, made.Key)
	}
	return d, registered
}

// tunnel is an HTTP proxy to the devices' door, whatever name is asked for: clients give
// an account's host name as the server name though nothing resolves it. It gives the
// port.
func (s *stage) tunnel(t *testing.T) int {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		over, err := net.Dial("tcp", s.device())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = over.Close() }()
		device, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = device.Close() }()
		_, err = io.WriteString(device, "HTTP/1.1 200 OK\r\n\r\n")
		if err != nil {
			return // the device has gone
		}
		var back sync.WaitGroup
		back.Go(func() {
			_, _ = io.Copy(device, over) // until either has closed
			_ = device.Close()
		})
		_, _ = io.Copy(over, buffered)
		_ = over.Close()
		back.Wait()
	}))
	t.Cleanup(proxy.Close)
	_, port, err := net.SplitHostPort(proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
