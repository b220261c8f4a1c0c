package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// template names things by the common name and allows each device its own
// topics.
const template = `{
  "Parameters": {
    "AWS::IoT::Certificate::CommonName": {"Type": "String"},
    "AWS::IoT::Certificate::Country": {"Type": "String", "Default": "none"},
    "AWS::IoT::Certificate::Id": {"Type": "String"}
  },
  "Resources": {
    "thing": {
      "Type": "AWS::IoT::Thing",
      "Properties": {
        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
        "AttributePayload": {"country": {"Ref": "AWS::IoT::Certificate::Country"}}
      }
    },
    "certificate": {
      "Type": "AWS::IoT::Certificate",
      "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}
    },
    "policy": {
      "Type": "AWS::IoT::Policy",
      "Properties": {"PolicyDocument": {
        "Version": "2012-10-17",
        "Statement": [
          {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}"},
          {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": "arn:aws:iot:*:*:topic/devices/${iot:ClientId}/*"},
          {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:*:*:topicfilter/devices/${iot:ClientId}/*"}
        ]
      }}
    }
  }
}`

// operator is AWS's SDK, pointed at the server.
type operator struct{ api *iot.Client }

func newOperator(env map[string]string) (*operator, error) {
	pem, err := os.ReadFile(env["AWS_CA_BUNDLE"])
	if err != nil {
		return nil, fmt.Errorf("couldn't read the server's root: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &operator{api: iot.New(iot.Options{
		Region:       env["AWS_REGION"],
		BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_IOT"]),
		Credentials:  credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], ""),
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}},
	})}, nil
}

func (o *operator) registerCA(ctx context.Context, f *factory) (string, error) {
	code, err := o.api.GetRegistrationCode(ctx, &iot.GetRegistrationCodeInput{})
	if err != nil {
		return "", err
	}
	ca, verification, err := f.makeCA(aws.ToString(code.RegistrationCode))
	if err != nil {
		return "", err
	}
	made, err := o.api.RegisterCACertificate(ctx, &iot.RegisterCACertificateInput{
		CaCertificate: aws.String(ca), VerificationCertificate: aws.String(verification),
		SetAsActive: true, AllowAutoRegistration: true,
		RegistrationConfig: &types.RegistrationConfig{
			TemplateBody: aws.String(template), RoleArn: aws.String("arn:aws:iam::000000000000:role/provisioning"),
		},
	})
	if err != nil {
		return "", err
	}
	return aws.ToString(made.CertificateArn), nil
}

// describe shows the thing, its certificate and the certificate's policy.
func (o *operator) describe(ctx context.Context, name string) (string, error) {
	thing, err := o.api.DescribeThing(ctx, &iot.DescribeThingInput{ThingName: aws.String(name)})
	if err != nil {
		return "", err
	}
	principals, err := o.api.ListThingPrincipals(ctx, &iot.ListThingPrincipalsInput{ThingName: aws.String(name)})
	if err != nil {
		return "", err
	}
	if len(principals.Principals) != 1 {
		return "", fmt.Errorf("thing %s has %d principals, want 1", name, len(principals.Principals))
	}
	arn := principals.Principals[0]
	certificate, err := o.api.DescribeCertificate(ctx, &iot.DescribeCertificateInput{CertificateId: aws.String(arn[strings.LastIndexByte(arn, '/')+1:])})
	if err != nil {
		return "", err
	}
	policies, err := o.api.ListAttachedPolicies(ctx, &iot.ListAttachedPoliciesInput{Target: aws.String(arn)})
	if err != nil {
		return "", err
	}
	if len(policies.Policies) != 1 {
		return "", fmt.Errorf("certificate %s has %d policies, want 1", arn, len(policies.Policies))
	}
	return fmt.Sprintf("thing %s, attributes %v\ncertificate %.12s... %s\npolicy %.12s...", aws.ToString(thing.ThingName), thing.Attributes,
		aws.ToString(certificate.CertificateDescription.CertificateId), certificate.CertificateDescription.Status,
		aws.ToString(policies.Policies[0].PolicyName)), nil
}
