package bench

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint/awsapi/client"
)

// registerAuthority registers a CA as an operator does: registration code,
// verification certificate, active, open for auto-registration, with an inline
// template (AWS IoT Core developer guide, "Register your CA certificate" and
// "Just-in-time provisioning").
func registerAuthority(ctx context.Context, c *client.Client, a *authority, facts Facts, now time.Time) error {
	var code struct {
		RegistrationCode string `json:"registrationCode"`
	}
	err := c.Call(ctx, "GET", "/registrationcode", nil, &code)
	if err != nil {
		return fmt.Errorf("couldn't get a registration code: %w", err)
	}
	verification, err := a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: code.RegistrationCode}}, now)
	if err != nil {
		return err
	}
	template, err := json.Marshal(jitpTemplate(facts))
	if err != nil {
		return fmt.Errorf("couldn't encode the template: %w", err)
	}
	err = c.Call(ctx, "POST", "/cacertificate?setAsActive=true&allowAutoRegistration=true", map[string]any{
		"caCertificate":           a.pem(),
		"verificationCertificate": certificatePEM(verification.Leaf.Raw),
		"registrationConfig": map[string]string{
			"templateBody": string(template), "roleArn": "arn:aws:iam::" + facts.Account + ":role/bench",
		},
	}, nil)
	if err != nil {
		return fmt.Errorf("couldn't register the CA: %w", err)
	}
	return nil
}

type object = map[string]any

// jitpTemplate uses what real templates use: several parameters, a function,
// attributes and a policy of its own.
func jitpTemplate(facts Facts) object {
	parameter := func(name string) object { return object{"Ref": "AWS::IoT::Certificate::" + name} }
	parameters := object{}
	for _, name := range []string{"CommonName", "SerialNumber", "Organization", "Country", "Id"} {
		parameters["AWS::IoT::Certificate::"+name] = object{"Type": "String"}
	}
	return object{
		"Parameters": parameters,
		"Resources": object{
			"thing": object{"Type": "AWS::IoT::Thing", "Properties": object{
				"ThingName": object{"Fn::Join": []any{"-", []any{parameter("Organization"), parameter("SerialNumber")}}},
				// Three attributes are what a thing without a type may have.
				"AttributePayload": object{
					"name": parameter("CommonName"), "country": parameter("Country"), "model": modelName,
				},
			}},
			"certificate": object{"Type": "AWS::IoT::Certificate", "Properties": object{
				"CertificateId": parameter("Id"), "Status": "ACTIVE",
			}},
			"policy": object{"Type": "AWS::IoT::Policy", "Properties": object{"PolicyDocument": devicePolicy(facts)}},
		},
	}
}

// modelName is the attribute that all devices' things have in common.
const modelName = "sensor-1"

// devicePolicy lets a device connect as its thing, and use its own topics and
// those of its model, which the others may use, too.
func devicePolicy(facts Facts) string {
	const thing = "${iot:Connection.Thing.ThingName}"
	const model = "${iot:Connection.Thing.Attributes[model]}"
	resource := func(kind string) string {
		return fmt.Sprintf("arn:aws:iot:%s:%s:%s", facts.Region, facts.Account, kind)
	}
	statement := func(actions []string, resources ...string) object {
		return object{"Effect": "Allow", "Action": actions, "Resource": resources}
	}
	connect := statement([]string{"iot:Connect"}, resource("client/"+thing))
	connect["Condition"] = object{"Bool": object{"iot:Connection.Thing.IsAttached": "true"}}
	document, err := json.Marshal(object{"Version": "2012-10-17", "Statement": []any{
		connect,
		statement([]string{"iot:Publish", "iot:Receive"}, resource("topic/devices/"+thing+"/*"), resource("topic/models/"+model+"/*")),
		statement([]string{"iot:Subscribe"}, resource("topicfilter/devices/"+thing+"/*"), resource("topicfilter/models/"+model+"/*")),
	}})
	if err != nil {
		return "" // maps of strings always encode
	}
	return string(document)
}
