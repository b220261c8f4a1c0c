// Command jitrfunction is the AWS Lambda function of the tests of just-in-time
// registration: it activates certificates, with a thing and a policy, whose serial
// number in the subject is on its list (ALLOWED), if it has one, and which their CA's
// revocation list (CRL_URL), if it has one, doesn't name. It revokes the others. It is an
// ordinary one over aws-lambda-go and the AWS SDK; all that it needs of this
// server is in its environment.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// registered is the event on $aws/events/certificates/registered/{caId}.
type registered struct {
	CertificateID string `json:"certificateId"`
	CAID          string `json:"caCertificateId"`
	Status        string `json:"certificateStatus"`
	Account       string `json:"awsAccountId"`
}

// policyName and its document are what each device gets.
const policyName = "jitr-devices"

const policyDocument = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
 "Action":["iot:Connect","iot:Publish"],"Resource":["arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}","arn:aws:iot:*:*:topic/d/${iot:Connection.Thing.ThingName}/*"]}]}`

func main() { lambda.Start(handle) }

// handle may see an event more than once, and runs at once for several devices.
func handle(ctx context.Context, event registered) error {
	api, err := client()
	if err != nil {
		return err
	}
	described, err := api.DescribeCertificate(ctx, &iot.DescribeCertificateInput{CertificateId: &event.CertificateID})
	if err != nil {
		return err
	}
	if described.CertificateDescription.Status != types.CertificateStatusPendingActivation {
		return nil // an event that came before decided it
	}
	block, _ := pem.Decode([]byte(aws.ToString(described.CertificateDescription.CertificatePem)))
	if block == nil {
		return errors.New("the certificate has no PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	// What can't be checked now is checked when the event comes again: the certificate
	// waits.
	refused, err := refusal(ctx, api, event.CAID, leaf)
	if err != nil {
		return err
	}
	if refused != "" {
		fmt.Println(refused)
		_, err = api.UpdateCertificate(ctx, &iot.UpdateCertificateInput{CertificateId: &event.CertificateID, NewStatus: types.CertificateStatusRevoked})
		return err
	}
	return welcome(ctx, api, leaf.Subject.CommonName, described.CertificateDescription)
}

// refusal says why a certificate isn't activated; empty: it is.
func refusal(ctx context.Context, api *iot.Client, ca string, leaf *x509.Certificate) (string, error) {
	if list, given := os.LookupEnv("ALLOWED"); given {
		serial := leaf.Subject.SerialNumber
		if !slices.Contains(strings.Split(list, ":"), serial) {
			return "not on the list: " + serial, nil
		}
		fmt.Println("on the list:", serial)
	}
	if url := os.Getenv("CRL_URL"); url != "" {
		revoked, err := isRevoked(ctx, api, url, ca, leaf)
		if err != nil {
			return "", fmt.Errorf("couldn't check the revocation list: %w", err)
		}
		if revoked {
			return fmt.Sprintf("revoked by its CA: %x", leaf.SerialNumber), nil
		}
		fmt.Printf("not revoked by its CA: %x\n", leaf.SerialNumber)
	}
	return "", nil
}

// isRevoked fetches the revocation list, which must be the CA's and in force.
func isRevoked(ctx context.Context, api *iot.Client, url, ca string, leaf *x509.Certificate) (bool, error) {
	described, err := api.DescribeCACertificate(ctx, &iot.DescribeCACertificateInput{CertificateId: &ca})
	if err != nil {
		return false, err
	}
	block, _ := pem.Decode([]byte(aws.ToString(described.CertificateDescription.CertificatePem)))
	if block == nil {
		return false, errors.New("the CA has no PEM")
	}
	issuer, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	const maxList = 16 << 20
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxList))
	if err != nil {
		return false, err
	}
	if answer.StatusCode != http.StatusOK {
		return false, errors.New(answer.Status)
	}
	if block, _ := pem.Decode(body); block != nil {
		body = block.Bytes
	}
	list, err := x509.ParseRevocationList(body)
	if err != nil {
		return false, err
	}
	err = list.CheckSignatureFrom(issuer)
	if err != nil {
		return false, fmt.Errorf("the list isn't the CA's: %w", err)
	}
	if time.Now().After(list.NextUpdate) {
		return false, fmt.Errorf("the list was in force until %s", list.NextUpdate)
	}
	return slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(leaf.SerialNumber) == 0 }), nil
}

// welcome makes thing and policy, attaches both and activates the certificate.
func welcome(ctx context.Context, api *iot.Client, thing string, cert *types.CertificateDescription) error {
	_, err := api.CreateThing(ctx, &iot.CreateThingInput{ThingName: &thing})
	if err != nil {
		return err
	}
	_, err = api.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: aws.String(policyName), PolicyDocument: aws.String(policyDocument)})
	var exists *types.ResourceAlreadyExistsException
	if err != nil && !errors.As(err, &exists) {
		return err
	}
	_, err = api.AttachPolicy(ctx, &iot.AttachPolicyInput{PolicyName: aws.String(policyName), Target: cert.CertificateArn})
	if err != nil {
		return err
	}
	_, err = api.AttachThingPrincipal(ctx, &iot.AttachThingPrincipalInput{ThingName: &thing, Principal: cert.CertificateArn})
	if err != nil {
		return err
	}
	_, err = api.UpdateCertificate(ctx, &iot.UpdateCertificateInput{CertificateId: cert.CertificateId, NewStatus: types.CertificateStatusActive})
	return err
}

// client is the SDK's, with what the environment of a function says.
func client() (*iot.Client, error) {
	options := iot.Options{
		Region: os.Getenv("AWS_REGION"), BaseEndpoint: aws.String(os.Getenv("AWS_ENDPOINT_URL")),
		Credentials: credentials.NewStaticCredentialsProvider(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN")),
	}
	if path := os.Getenv("AWS_CA_BUNDLE"); path != "" {
		bundle, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundle)
		options.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	}
	return iot.New(options), nil
}
