package failures

// Row is a way to fail.
type Row struct {
	Name  string // of the subtest
	Wrong string // what is wrong
	// Seen is what the device sees, in the test's words.
	Seen string
	// Outcome is that of the attempt whose code is Code; empty: the connection goes
	// on, and only the step tells.
	Outcome string
	Step    string // the one that failed
	Code    string
	// Fix is the telling part of the step's fix. What stands in braces is put in by
	// the trace, such as {certificate}.
	Fix string
	// Typed says that Fix is a command, and that the device is let in, or served, once
	// a person has typed it.
	Typed bool
}

// Section is a group of rows.
type Section struct {
	Title string
	Rows  []Row
}

// What a device sees that is refused at CONNECT.
const (
	refused      = "MQTT 5: CONNACK 0x87; 3.1.1: closed without CONNACK"
	refusedID    = "MQTT 5: CONNACK 0x85; 3.1.1: closed without CONNACK"
	accessDenied = "/rejected: 403 AccessDenied"
	badToken     = "/rejected: 400 InvalidCertificateOwnershipToken"
)

// Commands that mend more than one failure.
const (
	activate     = "aws iot update-certificate --new-status ACTIVE --certificate-id {certificate}"
	registerOne  = "aws iot register-certificate-without-ca --status ACTIVE --certificate-pem file://device.pem"
	registerCA   = "aws iot register-ca-certificate --ca-certificate file://ca.pem --certificate-mode SNI_ONLY --set-as-active --allow-auto-registration"
	createPolicy = "aws iot create-policy --policy-name {policy} --policy-document file://policy.json"
)

// Table has all rows.
var Table = []Section{
	{"The TLS handshake", []Row{
		{Name: "wrong root", Wrong: "the device has another root than the server's", Seen: "it hangs up: certificate verify failed",
			Outcome: "refused", Step: "tls", Code: "ServerNotTrusted", Fix: "the file that imprint env names as IMPRINT_CA"},
		{Name: "clock never set", Wrong: "the device's clock is in 2001, before the server's certificate begins", Seen: "it hangs up: certificate verify failed",
			Outcome: "refused", Step: "tls", Code: "ServerCertificateRefused", Fix: "Set the device's clock"},
		{Name: "clock ahead", Wrong: "the device's clock is in 2128, after the server's certificate ends", Seen: "it hangs up: certificate verify failed",
			Outcome: "refused", Step: "tls", Code: "DeviceClockWrong", Fix: "Set the device's clock"},
		{Name: "hangs up in silence", Wrong: "the device has another root, and closes without an alert", Seen: "it hangs up",
			Outcome: "refused", Step: "tls", Code: "ClosedInHandshake", Fix: "may not trust this server's root and say nothing"},
		{Name: "hangs up at once", Wrong: "the device, or something else, closes before its TLS hello is complete", Seen: "it hangs up",
			Outcome: "refused", Step: "tls", Code: "ClosedInHandshake", Fix: "may have looked at the port"},
		{Name: "silent after TCP", Wrong: "the device, or something else, connects and sends nothing", Seen: "closed",
			Outcome: "refused", Step: "tls", Code: "HandshakeTimeout", Fix: "--handshake-timeout gives it longer"},
		{Name: "not TLS", Wrong: "MQTT without TLS", Seen: "closed",
			Outcome: "refused", Step: "tls", Code: "NotTLS", Fix: "must speak TLS on this port"},
		{Name: "old TLS", Wrong: "TLS 1.1", Seen: "TLS alert 70",
			Outcome: "refused", Step: "tls", Code: "TLSVersionRefused", Fix: "TLS 1.2"},
		{Name: "no shared cipher suite", Wrong: "only cipher suites that the server's security policy doesn't have", Seen: "TLS alert 40",
			Outcome: "refused", Step: "tls", Code: "NoSharedCipherSuite", Fix: "TLS 1.2"},
		{Name: "wrong ALPN", Wrong: "only application protocols that the port doesn't speak", Seen: "TLS alert 120",
			Outcome: "refused", Step: "tls", Code: "ALPNUnknown", Fix: "Offer x-amzn-mqtt-ca, mqtt, or no ALPN at all"},
		{Name: "wrong server name", Wrong: "a server name (SNI) that is no endpoint's", Seen: "TLS alert 112",
			Outcome: "refused", Step: "tls", Code: "SNIUnknown", Fix: "aws iot describe-endpoint --endpoint-type iot:Data-ATS", Typed: true},
		{Name: "no client certificate, TLS 1.3", Wrong: "no client certificate", Seen: "TLS alert 116",
			Outcome: "refused", Step: "tls", Code: "NoClientCertificate", Fix: "--cert and --key"},
		{Name: "no client certificate, TLS 1.2", Wrong: "no client certificate", Seen: "TLS alert 40",
			Outcome: "refused", Step: "tls", Code: "NoClientCertificate", Fix: "--cert and --key"},
		{Name: "wrong key", Wrong: "the device signs with another key than its certificate's", Seen: "TLS alert 51",
			Outcome: "refused", Step: "tls", Code: "ClientKeyMismatch", Fix: "openssl pkey -pubout"},
		{Name: "chain order", Wrong: "the device sends its CA's certificate first, and its own behind it", Seen: "TLS alert 51",
			Outcome: "refused", Step: "tls", Code: "ClientKeyMismatch", Fix: "turn the file round"},
		{Name: "too many at once", Wrong: "more connections of one address wait to be let in than may", Seen: "closed",
			Outcome: "refused", Step: "admission", Code: "Overloaded", Fix: "--max-pending-per-address raises the bound"},
	}},
	{"CONNECT", []Row{
		{Name: "no CONNECT", Wrong: "nothing comes after the handshake", Seen: "closed",
			Outcome: "refused", Step: "mqtt.connect", Code: "ConnectTimeout", Fix: "--connect-timeout gives it longer"},
		{Name: "packet before CONNECT", Wrong: "the first packet is PUBLISH", Seen: "closed",
			Outcome: "refused", Step: "mqtt.connect", Code: "ProtocolViolation", Fix: "names the rule"},
		{Name: "MQTT 3.1", Wrong: "MQTT 3.1 (level 3)", Seen: "CONNACK 1",
			Outcome: "refused", Step: "mqtt.connect", Code: "UnsupportedProtocolVersion", Fix: "MQTT 3.1.1 (level 4) or 5"},
		{Name: "enhanced authentication", Wrong: "an authentication method (MQTT 5)", Seen: "CONNACK 0x8c",
			Outcome: "refused", Step: "mqtt.auth", Code: "ProtocolViolation", Fix: "names the rule"},
		{Name: "client id too long", Wrong: "a client id of 129 bytes", Seen: refusedID,
			Outcome: "refused", Step: "mqtt.clientid", Code: "ClientIDInvalid", Fix: "1 to 128 bytes"},
		{Name: "client id with $", Wrong: "a client id that begins with $", Seen: refusedID,
			Outcome: "refused", Step: "mqtt.clientid", Code: "ClientIDInvalid", Fix: "don't start with $"},
		{Name: "client id mismatch", Wrong: "a client id that the policy doesn't allow", Seen: refused,
			Outcome: "refused", Step: "policy.connect", Code: "ConnectDenied", Fix: "connect with the thing's name as client id"},
		{Name: "policy without Connect", Wrong: "the policy has no iot:Connect", Seen: refused,
			Outcome: "refused", Step: "policy.connect", Code: "ConnectDenied", Fix: `iot:Connect`},
		{Name: "no policy attached", Wrong: "no policy is attached to the certificate", Seen: refused,
			Outcome: "refused", Step: "policy.connect", Code: "ConnectDenied", Fix: "aws iot attach-policy --policy-name NAME --target {certificateArn}", Typed: true},
		{Name: "will denied", Wrong: "a will on a topic that the policy doesn't allow", Seen: refused,
			Outcome: "refused", Step: "mqtt.will", Code: "WillDenied", Fix: ":topic/elsewhere/will"},
		{Name: "connect rate", Wrong: "one client id connects again and again", Seen: "CONNACK 0x97",
			Outcome: "refused", Step: "mqtt.connect", Code: "ConnectRateExceeded", Fix: "--connect-rate raises the bound"},
	}},
	{"The certificate", []Row{
		{Name: "expired", Wrong: "the certificate has expired", Seen: refused,
			Outcome: "refused", Step: "certificate.validity", Code: "CertificateExpired", Fix: "Give the device a new certificate"},
		{Name: "not yet valid", Wrong: "the certificate isn't valid yet", Seen: refused,
			Outcome: "refused", Step: "certificate.validity", Code: "CertificateNotYetValid", Fix: "Check the clock of the machine that signed it"},
		{Name: "RSA 1024", Wrong: "an RSA key of 1024 bits", Seen: "CONNACK 0x87",
			Outcome: "refused", Step: "certificate.key", Code: "CertificateKeyNotAccepted", Fix: "2048"},
		{Name: "not registered", Wrong: "a self-signed certificate that nobody registered", Seen: refused,
			Outcome: "refused", Step: "ca", Code: "CANotRegistered", Fix: registerOne, Typed: true},
		{Name: "deleted", Wrong: "the certificate was deleted", Seen: refused,
			Outcome: "refused", Step: "ca", Code: "CANotRegistered", Fix: registerOne, Typed: true},
		{Name: "inactive", Wrong: "the certificate is INACTIVE", Seen: refused,
			Outcome: "refused", Step: "certificate", Code: "CertificateInactive", Fix: activate, Typed: true},
		{Name: "deactivated while on", Wrong: "the certificate is set INACTIVE while the device is on", Seen: "DISCONNECT 0x87",
			Outcome: "closed", Step: "session", Code: "CertificateInactive", Fix: activate, Typed: true},
		{Name: "revoked", Wrong: "the certificate is REVOKED", Seen: refused,
			Outcome: "refused", Step: "certificate", Code: "CertificateRevoked", Fix: "Give the device a new certificate"},
		{Name: "revoked before it came", Wrong: "its issuer, an authority of this server, revoked the certificate before the device came for the first time", Seen: refused,
			Outcome: "refused", Step: "certificate.revoked", Code: "CertificateRevoked", Fix: "Give the device a new certificate"},
		{Name: "on a revocation list", Wrong: "the certificate is on the imported revocation list of its CA", Seen: refused,
			Outcome: "refused", Step: "certificate.crl", Code: "OnRevocationList", Fix: "imprint ca crl list"},
		{Name: "pending activation", Wrong: "just-in-time registration left it PENDING_ACTIVATION", Seen: refused,
			Outcome: "refused", Step: "activate", Code: "RegisteredPendingActivation", Fix: activate, Typed: true},
		{Name: "no server name, two tenants", Wrong: "no server name (SNI), and the certificate is registered in two tenants", Seen: "CONNACK 0x87",
			Outcome: "refused", Step: "certificate", Code: "SNIRequired", Fix: "aws iot describe-endpoint --endpoint-type iot:Data-ATS", Typed: true},
	}},
	{"The CA", []Row{
		{Name: "CA not registered", Wrong: "nobody registered the CA", Seen: refused,
			Outcome: "refused", Step: "ca", Code: "CANotRegistered", Fix: registerCA, Typed: true},
		{Name: "missing intermediate", Wrong: "an intermediate CA signed it, and only the root above is registered", Seen: refused,
			Outcome: "refused", Step: "ca", Code: "CANotRegistered", Fix: "Register the CA with that subject, not one above it"},
		{Name: "another CA's name", Wrong: "the CA that signed it has a registered one's name and another key", Seen: refused,
			Outcome: "refused", Step: "ca", Code: "CASignatureMismatch", Fix: "register that CA, or sign again"},
		{Name: "CA inactive", Wrong: "the CA is INACTIVE", Seen: refused,
			Outcome: "refused", Step: "ca", Code: "CAInactive", Fix: "aws iot update-ca-certificate --new-status ACTIVE --certificate-id {ca}", Typed: true},
		{Name: "CA expired", Wrong: "the CA has expired", Seen: refused,
			Outcome: "refused", Step: "ca", Code: "CAExpired", Fix: "Register a renewed CA"},
		{Name: "revocation list too old", Wrong: "the imported revocation list of the CA is past its next update, and refuses then", Seen: refused,
			Outcome: "refused", Step: "certificate.crl", Code: "RevocationListStale", Fix: "imprint ca crl set --ca {ca} --stale allow", Typed: true},
		{Name: "auto-registration off", Wrong: "the CA doesn't allow auto-registration", Seen: refused,
			Outcome: "refused", Step: "ca", Code: "AutoRegistrationOff", Fix: "aws iot update-ca-certificate --new-auto-registration-status ENABLE --certificate-id {ca}", Typed: true},
	}},
	{"The template", []Row{
		{Name: "missing Country", Wrong: "the subject lacks a field that the template needs", Seen: refused,
			Outcome: "refused", Step: "template.plan", Code: "ParameterMissing", Fix: "Put Country into the subject of the device's certificate"},
		{Name: "illegal value", Wrong: "the template computes a thing name with a space", Seen: refused,
			Outcome: "refused", Step: "template.plan", Code: "TemplateValueInvalid", Fix: "what the device's certificate has for AWS::IoT::Certificate::CommonName"},
		{Name: "template disabled", Wrong: "the template is disabled", Seen: refused,
			Outcome: "refused", Step: "template", Code: "TemplateDisabled", Fix: "aws iot update-provisioning-template --template-name {template} --enabled", Typed: true},
		{Name: "policy missing", Wrong: "the template names a policy that doesn't exist", Seen: refused,
			Outcome: "refused", Step: "policy", Code: "PolicyMissing", Fix: createPolicy, Typed: true},
		{Name: "thing type missing", Wrong: "the template names a thing type that doesn't exist", Seen: refused,
			Outcome: "refused", Step: "thing", Code: "ThingTypeMissing", Fix: "aws iot create-thing-type --thing-type-name {type}", Typed: true},
		{Name: "thing group missing", Wrong: "the template names a thing group that doesn't exist", Seen: refused,
			Outcome: "refused", Step: "thing.groups", Code: "GroupMissing", Fix: "aws iot create-thing-group --thing-group-name {group}", Typed: true},
		{Name: "billing group missing", Wrong: "the template names a billing group that doesn't exist", Seen: refused,
			Outcome: "refused", Step: "thing", Code: "GroupMissing", Fix: "aws iot create-billing-group --billing-group-name {group}", Typed: true},
		{Name: "thing exists", Wrong: "the thing exists, and the template's OverrideSettings say FAIL", Seen: "MQTT 5: closed without CONNACK; 3.1.1: closed without CONNACK",
			Outcome: "refused", Step: "thing", Code: "ConflictingUpdate", Fix: "Delete the thing, or set AttributePayload"},
	}},
	{"Publish and subscribe", []Row{
		{Name: "publish denied", Wrong: "a topic that the policy doesn't allow, QoS 1, MQTT 5", Seen: "PUBACK 0x87",
			Step: "publish", Code: "PublishDenied", Fix: ":topic/elsewhere/x"},
		{Name: "publish denied, MQTT 3.1.1", Wrong: "a topic that the policy doesn't allow, QoS 1, MQTT 3.1.1", Seen: "closed without PUBACK",
			Outcome: "closed", Step: "session", Code: "PublishDenied", Fix: ":topic/elsewhere/x"},
		{Name: "topic for topicfilter", Wrong: "the policy allows iot:Subscribe on topic/ where topicfilter/ is meant", Seen: "SUBACK 0x87",
			Step: "policy.subscribe", Code: "SubscribeDenied", Fix: ":topicfilter/mistaken/#"},
		{Name: "subscribe denied, MQTT 3.1.1", Wrong: "a filter that the policy doesn't allow, MQTT 3.1.1", Seen: "closed without SUBACK",
			Outcome: "closed", Step: "session", Code: "SubscribeDenied", Fix: ":topicfilter/elsewhere/x"},
		{Name: "receive denied", Wrong: "iot:Subscribe without iot:Receive", Seen: "no message comes",
			Step: "policy.receive", Code: "ReceiveDenied", Fix: ":topic/mute/*"},
		{Name: "retain denied", Wrong: "RETAIN without iot:RetainPublish", Seen: "PUBACK 0x87",
			Step: "publish", Code: "RetainPublishDenied", Fix: "iot:RetainPublish"},
		{Name: "topic of the service", Wrong: "a topic that the service publishes on", Seen: "PUBACK 0x90",
			Step: "publish", Code: "ReservedTopic", Fix: "Use a topic that doesn't begin with $"},
		{Name: "topic too deep", Wrong: "a topic with eight slashes", Seen: "PUBACK 0x90",
			Step: "publish", Code: "TopicInvalid", Fix: "7 slashes"},
		{Name: "filter too deep", Wrong: "a filter with eight slashes", Seen: "SUBACK 0x8f",
			Step: "mqtt.subscribe", Code: "TopicFilterInvalid", Fix: "7 slashes"},
		{Name: "wildcard in a topic", Wrong: "PUBLISH on a topic with +", Seen: "DISCONNECT 0x90",
			Outcome: "closed", Step: "session", Code: "TopicInvalid", Fix: "no wildcards"},
		{Name: "QoS 2", Wrong: "PUBLISH with QoS 2", Seen: "DISCONNECT 0x9b",
			Outcome: "closed", Step: "session", Code: "QoSNotSupported", Fix: "Use QoS 1"},
		{Name: "SUBSCRIBE with QoS 2", Wrong: "SUBSCRIBE with QoS 2", Seen: "DISCONNECT 0x9b",
			Outcome: "closed", Step: "session", Code: "QoSNotSupported", Fix: "Use QoS 1"},
		{Name: "oversized", Wrong: "a payload over 128 KiB", Seen: "DISCONNECT 0x95",
			Outcome: "closed", Step: "session", Code: "PacketTooLarge", Fix: "at most 128 KiB"},
		{Name: "malformed packet", Wrong: "a packet that isn't MQTT", Seen: "DISCONNECT 0x81",
			Outcome: "closed", Step: "session", Code: "ProtocolViolation", Fix: "names the rule"},
		{Name: "second CONNECT", Wrong: "CONNECT twice", Seen: "DISCONNECT 0x82",
			Outcome: "closed", Step: "session", Code: "ProtocolViolation", Fix: "names the rule"},
		{Name: "publish rate", Wrong: "more messages a second than one connection may send", Seen: "PUBACK 0x97",
			Step: "publish", Code: "PublishRateExceeded", Fix: "--publish-rate"},
		{Name: "keep-alive", Wrong: "nothing comes for one and a half keep-alive times", Seen: "DISCONNECT 0x8d",
			Outcome: "closed", Step: "session", Code: "KeepAliveTimeout", Fix: "sends PINGREQ"},
		{Name: "client id taken over", Wrong: "another device has the same client id", Seen: "DISCONNECT 0x8e",
			Outcome: "closed", Step: "session", Code: "SessionTakenOver", Fix: "Give every device its own client id"},
		{Name: "cut", Wrong: "the connection breaks", Seen: "the network fails",
			Outcome: "closed", Step: "session", Code: "ConnectionLost", Fix: "Check the link"},
	}},
	{"HTTPS and WebSockets", []Row{
		{Name: "HTTPS publish denied", Wrong: "a topic that the policy doesn't allow", Seen: "HTTP 403",
			Outcome: "refused", Step: "policy.publish", Code: "PublishDenied", Fix: ":topic/elsewhere/x"},
		{Name: "HTTPS without a certificate", Wrong: "neither a client certificate nor a signature", Seen: "HTTP 403",
			Outcome: "refused", Step: "certificate", Code: "NoClientCertificate", Fix: "--cert and --key"},
		{Name: "WebSocket signature", Wrong: "a WebSocket whose URL has another signature than its own", Seen: "HTTP 403",
			Outcome: "refused", Step: "http.signature", Code: "SignatureNotAccepted", Fix: "Sign with an access key of this server"},
	}},
	{"Provisioning by claim", []Row{
		{Name: "claim may not subscribe", Wrong: "the claim's policy lacks iot:Subscribe", Seen: "SUBACK 0x87",
			Step: "policy.subscribe", Code: "SubscribeDenied", Fix: "iot:Subscribe"},
		{Name: "claim may not publish", Wrong: "the claim's policy lacks the template's topic", Seen: "PUBACK 0x87",
			Step: "publish", Code: "PublishDenied", Fix: ":topic/$aws/provisioning-templates/others/provision/json"},
		{Name: "claim may not receive", Wrong: "the claim's policy lacks iot:Receive", Seen: "no answer comes",
			Step: "answer", Code: "ReceiveDenied", Fix: ":topic/$aws/certificates/create/json/accepted"},
		{Name: "wrong rejected topic", Wrong: "the device subscribed to another topic than the answer's", Seen: "no answer comes",
			Step: "answer", Code: "AnswerNotSubscribed", Fix: "Subscribe to $aws/provisioning-templates/sensors/provision/json/rejected"},
		{Name: "payload isn't JSON", Wrong: "the request isn't JSON", Seen: "/rejected: 400 InvalidPayload",
			Step: "claim.payload", Code: "ClaimRequestInvalid", Fix: "Send JSON to topics that end in /json"},
		{Name: "weak CSR", Wrong: "a signing request with an RSA key of 1024 bits", Seen: "/rejected: 400 InvalidCsr",
			Step: "claim.csr", Code: "CertificateKeyNotAccepted", Fix: "2048"},
		{Name: "malformed token", Wrong: "something else than an ownership token", Seen: badToken,
			Step: "claim.token", Code: "OwnershipTokenInvalid", Fix: "Ask for a new certificate"},
		{Name: "reused token", Wrong: "an ownership token for the second time", Seen: badToken,
			Step: "claim.token", Code: "OwnershipTokenInvalid", Fix: "The device is registered: it connects with that certificate"},
		{Name: "expired token", Wrong: "an ownership token after its lifetime", Seen: badToken,
			Step: "claim.token", Code: "OwnershipTokenInvalid", Fix: "Ask for a new certificate"},
		{Name: "other claim's token", Wrong: "the ownership token of another claim certificate", Seen: badToken,
			Step: "claim.token", Code: "OwnershipTokenInvalid", Fix: "--claim-token-any-claim"},
		{Name: "missing parameter", Wrong: "the request lacks a parameter that the template needs", Seen: "/rejected: 400 InvalidParameters",
			Step: "template.plan", Code: "ParameterMissing", Fix: "the parameter"},
		{Name: "no such template", Wrong: "the topic names a template that doesn't exist", Seen: "/rejected: 404 ResourceNotFound",
			Step: "template", Code: "TemplateMissing",
			Fix: "aws iot create-provisioning-template --template-name {template} --enabled --provisioning-role-arn ROLE --template-body file://template.json", Typed: true},
		{Name: "fleet template disabled", Wrong: "the template is disabled", Seen: accessDenied,
			Step: "template", Code: "TemplateDisabled", Fix: "aws iot update-provisioning-template --template-name {template} --enabled", Typed: true},
		{Name: "hook denies", Wrong: "the hook says no", Seen: accessDenied,
			Step: "claim.hook", Code: "HookDenied", Fix: `the function must answer {"allowProvisioning": true}`},
		{Name: "hook times out", Wrong: "the hook doesn't answer in its time", Seen: accessDenied,
			Step: "claim.hook", Code: "HookFailed", Fix: "make the function quicker"},
		{Name: "hook crashes", Wrong: "the hook's process ends", Seen: accessDenied,
			Step: "claim.hook", Code: "HookFailed", Fix: "aws lambda invoke --function-name {function}"},
		{Name: "hook without permission", Wrong: "the function's permissions don't let the service invoke it", Seen: accessDenied,
			Step: "claim.hook", Code: "HookFailed",
			Fix: "aws lambda add-permission --function-name decide --statement-id iot --action lambda:InvokeFunction --principal iot.amazonaws.com --source-arn {templateArn}", Typed: true},
		{Name: "hook missing", Wrong: "the hook's function doesn't exist", Seen: accessDenied,
			Step: "claim.hook", Code: "HookFailed", Fix: "aws lambda create-function"},
		{Name: "claim quota", Wrong: "the claim has registered as many devices as it may", Seen: accessDenied,
			Step: "claim.guard", Code: "ClaimQuotaExceeded", Fix: "imprint claim guard {certificate} --quota N --resume", Typed: true},
		{Name: "claim stopped", Wrong: "the claim was stopped by its guard", Seen: accessDenied,
			Step: "claim.guard", Code: "ClaimStopped", Fix: "imprint claim guard {certificate} --resume", Typed: true},
		{Name: "serial not allowed", Wrong: "the serial number isn't in the claim's allow list", Seen: accessDenied,
			Step: "claim.guard", Code: "ClaimNotAllowed", Fix: "imprint claim allow {certificate} --file serials.csv", Typed: true},
		{Name: "network not allowed", Wrong: "the claim's guard doesn't allow the device's network", Seen: accessDenied,
			Step: "claim.guard", Code: "ClaimNotAllowed", Fix: "imprint claim guard {certificate} --network 192.0.2.0/24,{address}/32", Typed: true},
		{Name: "trusted user's claim expired", Wrong: "a trusted user's claim after its five minutes", Seen: refused,
			Outcome: "refused", Step: "certificate", Code: "ClaimExpired", Fix: "aws iot create-provisioning-claim --template-name sensors", Typed: true},
	}},
}
