package template_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/template"
)

// certID is a certificate id as the service makes them.
const certID = "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab"

const fleetExample = `{"Parameters":{"SerialNumber":{"Type":"String"},"Site":{"Type":"String","Default":"lab"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Mappings":{"Urls":{"lab":{"Api":"https://lab.example.com"},"plant":{"Api":"https://plant.example.com"}}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing",
   "Properties":{"ThingName":{"Fn::Join":["",["sensor-",{"Ref":"SerialNumber"}]]},"AttributePayload":{"serial":{"Ref":"SerialNumber"},"site":{"Ref":"Site"}},
    "ThingTypeName":"sensor","ThingGroups":["all-sensors",{"Ref":"Site"}],"BillingGroup":"plant-a"},
   "OverrideSettings":{"AttributePayload":"MERGE","ThingTypeName":"REPLACE","ThingGroups":"DO_NOTHING"}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE","ThingPrincipalType":"EXCLUSIVE_THING"}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"sensor-policy"}}},
 "DeviceConfiguration":{"ApiUrl":{"Fn::FindInMap":["Urls",{"Ref":"Site"},"Api"]},"Interval":"60"}}`

const jitpDocument = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Publish"],"Resource":["arn:aws:iot:us-east-1:123456789012:topic/${iot:Connection.Thing.ThingName}/#"]}]}`

const jitpExample = `{
  "Parameters": {
    "AWS::IoT::Certificate::CommonName": {"Type": "String"},
    "AWS::IoT::Certificate::SerialNumber": {"Type": "String"},
    "AWS::IoT::Certificate::Country": {"Type": "String"},
    "AWS::IoT::Certificate::Id": {"Type": "String"}
  },
  "Resources": {
    "thing": {
      "Type": "AWS::IoT::Thing",
      "Properties": {
        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
        "AttributePayload": {"version": "v1", "serialNumber": {"Ref": "AWS::IoT::Certificate::SerialNumber"}},
        "ThingTypeName": "lightBulb-versionA",
        "ThingGroups": ["v1-lightbulbs", {"Ref": "AWS::IoT::Certificate::Country"}]
      },
      "OverrideSettings": {"AttributePayload": "MERGE", "ThingTypeName": "REPLACE", "ThingGroups": "DO_NOTHING"}
    },
    "certificate": {
      "Type": "AWS::IoT::Certificate",
      "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
      "OverrideSettings": {"Status": "DO_NOTHING"}
    },
    "policy": {
      "Type": "AWS::IoT::Policy",
      "Properties": {"PolicyDocument": "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":[\"iot:Publish\"],\"Resource\":[\"arn:aws:iot:us-east-1:123456789012:topic/${iot:Connection.Thing.ThingName}/#\"]}]}"}
    }
  }
}`

func jitpParams() map[string]string {
	return map[string]string{
		"AWS::IoT::Certificate::CommonName":   "bulb-17",
		"AWS::IoT::Certificate::SerialNumber": "SN-0017",
		"AWS::IoT::Certificate::Country":      "FR",
		"AWS::IoT::Certificate::Id":           certID,
	}
}

// mustParse parses a template that the test needs.
func mustParse(t testing.TB, body string, kind template.Kind) *template.Template {
	t.Helper()
	parsed, err := template.Parse([]byte(body), kind)
	if err != nil {
		t.Fatalf("couldn't parse the template: %v\n%s", err, body)
	}
	return parsed
}

// asError gives the package's error, or fails the test.
func asError(t testing.TB, err error) *template.Error {
	t.Helper()
	var e *template.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v of type %T, want *template.Error", err, err)
	}
	return e
}

// thingNamed is a fleet template with parameters A and B whose thing has the given JSON as name.
func thingNamed(value string) string {
	return `{"Parameters":{"A":{"Type":"String"},"B":{"Type":"String","Default":"b"}},` +
		`"Mappings":{"M":{"k":{"s":"v"},"k2":{"s2":"v2"}}},` +
		`"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":` + value + `}}}}`
}

// configured is a fleet template whose device configuration has the given JSON as member "v".
func configured(value string) string {
	return `{"Parameters":{"A":{"Type":"String"},"B":{"Type":"String","Default":"b"}},` +
		`"Mappings":{"M":{"k":{"s":"v"},"k2":{"s2":"v2"}}},` +
		`"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"t"}}},` +
		`"DeviceConfiguration":{"v":` + value + `}}`
}

// withProperties is a bulk template with one resource.
func withResource(typ, properties string) string {
	return `{"Parameters":{"A":{"Type":"String"}},"Resources":{"r":{"Type":"` + typ + `","Properties":` + properties + `}}}`
}

// place gives the 1-based line and column of the first appearance of a text.
func place(body, text string) (line, column int) {
	before, _, found := strings.Cut(body, text)
	if !found {
		return 0, 0
	}
	return strings.Count(before, "\n") + 1, len(before) - strings.LastIndexByte(before, '\n')
}
