// Command hookfunction is the AWS Lambda function of the tests of fleet
// provisioning: a pre-provisioning hook, and a certificate provider that signs with a
// CA of the device maker's. It is an ordinary one over aws-lambda-go. What goes wrong
// is up to the device: the serial number that the hook is asked about, or the common
// name of the signing request, says how.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

// event is that of a hook or that of a certificate provider.
type event struct {
	Parameters map[string]string `json:"parameters"`
	CSR        string            `json:"certificateSigningRequest"`
}

// handler answers bytes, so that it can answer what isn't JSON, too.
type handler struct{}

func main() { lambda.Start(handler{}) }

func (handler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var in event
	err := json.Unmarshal(payload, &in)
	if err != nil {
		return nil, err
	}
	if in.CSR == "" {
		return decide(ctx, in.Parameters["SerialNumber"])
	}
	block, _ := pem.Decode([]byte(in.CSR))
	if block == nil {
		return nil, errors.New("no PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	kind, _, _ := strings.Cut(csr.Subject.CommonName, "-")
	switch kind {
	case "sign":
		return sign(csr, csr.PublicKey, time.Hour)
	case "otherkey":
		other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return sign(csr, other.Public(), time.Hour)
	case "expired":
		return sign(csr, csr.PublicKey, -time.Minute)
	case "empty":
		return []byte(`{"certificatePem":""}`), nil
	case "notpem":
		return []byte(`{"certificatePem":"not a certificate"}`), nil
	}
	return fail(kind)
}

// decide is the hook.
func decide(ctx context.Context, serial string) ([]byte, error) {
	kind, _, _ := strings.Cut(serial, "-")
	switch kind {
	case "allow":
		return []byte(`{"allowProvisioning":true,"parameterOverrides":{"Site":"plant"}}`), nil
	case "unasked":
		return []byte(`{"allowProvisioning":true,"more":[1],"parameterOverrides":{"Unknown":"x","Site":"plant","AWS::IoT::Certificate::Id":"` +
			strings.Repeat("0", 64) + `"}}`), nil
	case "deny":
		fmt.Println("denied:", serial)
		return []byte(`{"allowProvisioning":false}`), nil
	case "silent":
		return []byte(`{}`), nil
	case "text":
		return []byte(`{"allowProvisioning":"true"}`), nil
	case "wait":
		return waitForFile(ctx, os.Getenv("GATE"))
	}
	return fail(kind)
}

// fail does what a function shouldn't.
func fail(kind string) ([]byte, error) {
	switch kind {
	case "error":
		return nil, errors.New("the database is away")
	case "panic":
		panic("out of its mind")
	case "crash":
		fmt.Fprintln(os.Stderr, "about to crash")
		os.Exit(3)
	case "hang":
		select {} // past what the server waits for
	case "nonsense":
		return []byte(`allow = yes`), nil
	case "large":
		return []byte(`{"allowProvisioning":true,"padding":"` + strings.Repeat("x", 7<<20) + `"}`), nil
	}
	return nil, fmt.Errorf("nothing is known about %q", kind)
}

// sign has the device maker's CA sign.
func sign(csr *x509.CertificateRequest, key crypto.PublicKey, lifetime time.Duration) ([]byte, error) {
	pair, err := issuer()
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: csr.Subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
	}, pair.certificate, key, pair.key)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{"certificatePem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))})
}

// authority is the maker's CA.
type authority struct {
	certificate *x509.Certificate
	key         any
}

// issuer reads the CA from the environment of the function.
func issuer() (authority, error) {
	var found authority
	for _, name := range []string{"CA_CERTIFICATE", "CA_KEY"} {
		block, _ := pem.Decode([]byte(os.Getenv(name)))
		if block == nil {
			return found, errors.New(name + " has no PEM")
		}
		var err error
		if name == "CA_KEY" {
			found.key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		} else {
			found.certificate, err = x509.ParseCertificate(block.Bytes)
		}
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// waitForFile says by a file that it runs, and allows once another is there.
func waitForFile(ctx context.Context, path string) ([]byte, error) {
	err := os.WriteFile(path+".running", nil, 0o600)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		_, err := os.Stat(path)
		if err == nil {
			return []byte(`{"allowProvisioning":true}`), nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
