package provisioning

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/template"
)

// claimOperation is one of the API's calls.
type claimOperation int

const (
	createKeys claimOperation = iota
	createFromCSR
	register
	operations // how many there are
)

// claimCall is what a topic asks for.
type claimCall struct {
	operation claimOperation
	template  string // of register
	format    claimFormat
}

func (c claimCall) name() string {
	switch c.operation {
	case createKeys:
		return "CreateKeysAndCertificate"
	case createFromCSR:
		return "CreateCertificateFromCsr"
	}
	return "RegisterThing of template " + c.template
}

// ClaimTopic tells whether requests of fleet provisioning are published to a
// topic.
func ClaimTopic(topic string) bool {
	_, found := parseClaimTopic(topic)
	return found
}

// parseClaimTopic reads a topic (developer guide, "Device provisioning MQTT
// API").
func parseClaimTopic(topic string) (claimCall, bool) {
	rest, found := strings.CutPrefix(topic, "$aws/")
	if !found {
		return claimCall{}, false
	}
	at := strings.LastIndexByte(rest, '/')
	if at < 0 {
		return claimCall{}, false
	}
	call := claimCall{format: claimFormat(rest[at+1:])}
	if call.format != formatJSON && call.format != formatCBOR {
		return claimCall{}, false
	}
	switch rest = rest[:at]; rest {
	case "certificates/create":
		call.operation = createKeys
		return call, true
	case "certificates/create-from-csr":
		call.operation = createFromCSR
		return call, true
	}
	name, found := strings.CutPrefix(rest, "provisioning-templates/")
	if !found {
		return claimCall{}, false
	}
	call.operation = register
	call.template, found = strings.CutSuffix(name, "/provision")
	return call, found && call.template != "" && !strings.Contains(call.template, "/")
}

// claimFormat is a topic's last level: how its payloads are encoded.
type claimFormat string

const (
	formatJSON claimFormat = "json"
	formatCBOR claimFormat = "cbor"
)

// The payloads. CBOR has the names of JSON.
type (
	csrRequest struct {
		CSR string `json:"certificateSigningRequest"`
	}
	registerRequest struct {
		Token      string `json:"certificateOwnershipToken"`
		Parameters texts  `json:"parameters"`
	}
	createdBody struct {
		CertificateID  string `json:"certificateId"`
		CertificatePEM string `json:"certificatePem"`
		PrivateKey     string `json:"privateKey,omitempty"`
		Token          string `json:"certificateOwnershipToken"`
	}
	registeredBody struct {
		DeviceConfiguration map[string]string `json:"deviceConfiguration"`
		ThingName           string            `json:"thingName,omitempty"`
	}
	rejectedBody struct {
		StatusCode   int    `json:"statusCode"`
		ErrorCode    string `json:"errorCode"`
		ErrorMessage string `json:"errorMessage"`
	}
)

func (r *csrRequest) UnmarshalJSON(data []byte) error {
	return readMembers(data, map[string]any{"certificateSigningRequest": &r.CSR})
}

func (r *registerRequest) UnmarshalJSON(data []byte) error {
	return readMembers(data, map[string]any{"certificateOwnershipToken": &r.Token, "parameters": &r.Parameters})
}

// The payload's size is bounded by the broker's; what it may make of that here.
const (
	maxCBORDepth = 4
	maxCBORItems = 1024
)

var (
	cborDecoder = mustMode(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: maxCBORDepth, MaxArrayElements: maxCBORItems, MaxMapPairs: maxCBORItems,
		IndefLength: cbor.IndefLengthAllowed, TagsMd: cbor.TagsForbidden,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode())
	cborEncoder = mustMode(cbor.EncOptions{Sort: cbor.SortNone}.EncMode())
)

// mustMode holds a mode made of constants.
func mustMode[T any](mode T, err error) T {
	if err != nil {
		panic(err)
	}
	return mode
}

// cborMark is tag 55799, which may stand before any CBOR and says only that it is that (RFC
// 8949 section 3.4.6).
const cborMark = "\xd9\xd9\xf7"

// decode reads a payload; an empty one has no members.
func (f claimFormat) decode(payload []byte, into any) error {
	if len(payload) == 0 {
		return nil
	}
	var err error
	if f == formatCBOR {
		payload = bytes.TrimPrefix(payload, []byte(cborMark))
		err = cborDecoder.Unmarshal(payload, into)
	} else {
		err = json.Unmarshal(payload, into)
	}
	name := strings.ToUpper(string(f))
	if err == nil && !f.isMap(payload) {
		err = errors.New("it is another value")
	}
	if err != nil {
		refusal := imprint.Errorf(imprint.CodeClaimRequest, "the payload isn't a map of texts in %s: %w", name, err)
		return told{refusal, "The payload isn't a valid " + name + " request."}
	}
	return nil
}

// isMap tells whether a payload that was read is a map: null is taken for any
// type by both decoders.
func (f claimFormat) isMap(payload []byte) bool {
	if f == formatCBOR {
		const major, maps = 0xe0, 0xa0 // RFC 8949 section 3.1
		return payload[0]&major == maps
	}
	return bytes.HasPrefix(bytes.TrimLeft(payload, " \t\r\n"), []byte("{"))
}

// told is a refusal that a device reads in other words than the trace has: what
// they know of other devices, of functions and of the program is for operators.
type told struct {
	error
	words string
}

func (t told) Unwrap() error { return t.error }

func (f claimFormat) encode(body any) ([]byte, error) {
	var payload []byte
	var err error
	if f == formatCBOR {
		payload, err = cborEncoder.Marshal(body)
	} else {
		payload, err = json.Marshal(body)
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't encode an answer: %w", err)
	}
	return payload, nil
}

// rejection tells a device what stopped its request. What a person can do stands
// in the trace.
func rejection(why error) rejectedBody {
	name := imprint.Describe(imprint.CodeOf(why)).Fleet
	if name == "" {
		name = "InvalidRequest"
	}
	// What broke inside of the server is for its log, not for a device.
	body := rejectedBody{StatusCode: fleetStatus(name), ErrorCode: name, ErrorMessage: imprint.MessageOf(why)}
	if name == "InternalError" {
		body.ErrorMessage = "The service couldn't do this now; try again."
	}
	switch imprint.CodeOf(why) {
	case imprint.CodeClaimNotAllowed, imprint.CodeClaimStopped, imprint.CodeClaimQuota, imprint.CodeClaimAnomaly,
		imprint.CodeHookDenied, imprint.CodeHookFailed, imprint.CodeProviderFailed:
		// The rules of a guard, and a function's name and words, are the operator's.
		body.ErrorMessage = imprint.Describe(imprint.CodeOf(why)).Meaning
	}
	var other told
	if errors.As(why, &other) {
		body.ErrorMessage = other.words
	}
	var fault *template.Error
	if errors.As(why, &fault) && fault.Code == template.CodeMissingParameter {
		body.ErrorMessage = fault.Msg
	}
	return body
}

// fleetStatus is the status code beside an error's name.
func fleetStatus(name string) int {
	switch name {
	case "AccessDenied":
		return 403
	case "ResourceNotFound":
		return 404
	case "ResourceConflict", "ResourceAlreadyExists":
		return 409
	case "TooManyRequests", "LimitExceeded":
		return 429
	case "InternalError":
		return 500
	}
	return 400
}
