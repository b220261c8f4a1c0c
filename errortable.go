package imprint

// Code names one kind of refusal. The value is stable: it stands in traces,
// metrics, docs and the JSON output of the command line.
type Code string

// Codes of the control plane. Their AWS names stand in the table.
const (
	CodeInvalidRequest        Code = "InvalidRequest"
	CodeCertificateValidation Code = "CertificateValidation"
	CodeRegistrationCode      Code = "RegistrationCodeValidation"
	CodeMalformedPolicy       Code = "MalformedPolicy"
	CodeSQLParse              Code = "SqlParse"
	CodeRegistrationFailure   Code = "ResourceRegistrationFailure"
	CodeThrottled             Code = "Throttled"
	CodeUnauthorized          Code = "Unauthorized"
	CodeAccessDenied          Code = "AccessDenied"
	CodeNotFound              Code = "NotFound"
	CodeCertificateState      Code = "CertificateState"
	CodeCertificateConflict   Code = "CertificateConflict"
	CodeConflictingUpdate     Code = "ConflictingUpdate"
	CodeDeleteConflict        Code = "DeleteConflict"
	CodeAlreadyExists         Code = "AlreadyExists"
	CodeTaskAlreadyExists     Code = "TaskAlreadyExists"
	CodeTransferConflict      Code = "TransferConflict"
	CodeVersionConflict       Code = "VersionConflict"
	CodeVersionsLimitExceeded Code = "VersionsLimitExceeded"
	CodeLimitExceeded         Code = "LimitExceeded"
	CodeInternal              Code = "Internal"
	CodeUnavailable           Code = "Unavailable"
	CodeNotOffered            Code = "NotOffered"
	CodeKeyReused             Code = "KeyReused"
	CodeAuthorityState        Code = "AuthorityState"
	CodeKeyUnavailable        Code = "KeyUnavailable"
	CodeKeyRefused            Code = "KeyRefused"
)

// Codes of the devices' door: what a connection or a first connection can die
// of. They appear in traces and metrics.
const (
	CodeHandshakeFailed        Code = "HandshakeFailed"
	CodeServerNotTrusted       Code = "ServerNotTrusted"
	CodeServerCertRefused      Code = "ServerCertificateRefused"
	CodeServerCertInvalid      Code = "ServerCertificateNotValid"
	CodeDeviceClock            Code = "DeviceClockWrong"
	CodeClosedInHandshake      Code = "ClosedInHandshake"
	CodeTLSVersion             Code = "TLSVersionRefused"
	CodeCipherSuite            Code = "NoSharedCipherSuite"
	CodeClientKey              Code = "ClientKeyMismatch"
	CodeClientCertificate      Code = "ClientCertificateUnusable"
	CodeHandshakeTimeout       Code = "HandshakeTimeout"
	CodeNotTLS                 Code = "NotTLS"
	CodeNoClientCertificate    Code = "NoClientCertificate"
	CodeSNIUnknown             Code = "SNIUnknown"
	CodeSNIRequired            Code = "SNIRequired"
	CodeALPNUnknown            Code = "ALPNUnknown"
	CodeALPNMissing            Code = "ALPNMissing"
	CodeOverloaded             Code = "Overloaded"
	CodeConnectTimeout         Code = "ConnectTimeout"
	CodeProtocolViolation      Code = "ProtocolViolation"
	CodeUnsupportedVersion     Code = "UnsupportedProtocolVersion"
	CodePacketTooLarge         Code = "PacketTooLarge"
	CodeClientIDInvalid        Code = "ClientIDInvalid"
	CodeCertificateUnknown     Code = "CertificateUnknown"
	CodeCertificateInactive    Code = "CertificateInactive"
	CodeCertificateRevoked     Code = "CertificateRevoked"
	CodeOnRevocationList       Code = "OnRevocationList"
	CodeRevocationListStale    Code = "RevocationListStale"
	CodeCertificatePending     Code = "CertificatePendingActivation"
	CodeCertificateTransfer    Code = "CertificatePendingTransfer"
	CodeCertificateExpired     Code = "CertificateExpired"
	CodeCertificateNotYetValid Code = "CertificateNotYetValid"
	CodeCertificateDeleted     Code = "CertificateDeleted"
	CodeCertificateWeak        Code = "CertificateKeyNotAccepted"
	CodeCANotRegistered        Code = "CANotRegistered"
	CodeCASignature            Code = "CASignatureMismatch"
	CodeCAInactive             Code = "CAInactive"
	CodeCAExpired              Code = "CAExpired"
	CodeAutoRegistrationOff    Code = "AutoRegistrationOff"
	CodeTemplateMissing        Code = "TemplateMissing"
	CodeTemplateDisabled       Code = "TemplateDisabled"
	CodeTemplateInvalid        Code = "TemplateInvalid"
	CodeParameterMissing       Code = "ParameterMissing"
	CodeTemplateValue          Code = "TemplateValueInvalid"
	CodePolicyMissing          Code = "PolicyMissing"
	CodeThingTypeMissing       Code = "ThingTypeMissing"
	CodeGroupMissing           Code = "GroupMissing"
	CodeProvisioned            Code = "ProvisionedReconnect"
	CodeRegisteredPending      Code = "RegisteredPendingActivation"
	CodeFunctionMissing        Code = "FunctionMissing"
	CodeFunctionDenied         Code = "FunctionDenied"
	CodeFunctionFailed         Code = "FunctionFailed"
	CodeFunctionTimeout        Code = "FunctionTimeout"
	CodeFunctionThrottled      Code = "FunctionThrottled"
	CodeFunctionStorage        Code = "FunctionCodeStorage"
	CodeRulesBusy              Code = "RulesBusy"
	CodeEventDropped           Code = "EventDropped"
	CodeRuleAction             Code = "RuleActionFailed"
	CodeConnectDenied          Code = "ConnectDenied"
	CodePublishDenied          Code = "PublishDenied"
	CodeSubscribeDenied        Code = "SubscribeDenied"
	CodeWillDenied             Code = "WillDenied"
	CodeRetainDenied           Code = "RetainPublishDenied"
	CodeReservedTopic          Code = "ReservedTopic"
	CodeTopicInvalid           Code = "TopicInvalid"
	CodeFilterInvalid          Code = "TopicFilterInvalid"
	CodeQoSNotSupported        Code = "QoSNotSupported"
	CodeQuotaExceeded          Code = "QuotaExceeded"
	CodeTakenOver              Code = "SessionTakenOver"
	CodeKeepAliveTimeout       Code = "KeepAliveTimeout"
	CodeConnectionLost         Code = "ConnectionLost"
	CodeClientDisconnect       Code = "ClientDisconnect"
	CodeServerShutdown         Code = "ServerShuttingDown"
	CodeServerStopped          Code = "ServerStopped"
	CodeSlowConsumer           Code = "SlowConsumer"
	CodeReceiveMaximum         Code = "ReceiveMaximumExceeded"
	CodePacketIDInUse          Code = "PacketIdentifierInUse"
	CodePublishRate            Code = "PublishRateExceeded"
	CodeConnectRate            Code = "ConnectRateExceeded"
	CodeRetainedQuota          Code = "RetainedMessagesQuotaExceeded"
	CodeQueueFull              Code = "SessionQueueFull"
	CodeAdministrative         Code = "EndedByOperator"
	CodeConnectionExpired      Code = "ConnectionExpired"
	CodeHTTPRequest            Code = "HTTPRequestInvalid"
	CodeNoRequest              Code = "NoHTTPRequest"
	CodeSignature              Code = "SignatureNotAccepted"
)

// Codes of fleet provisioning. Their names on the wire stand in the table.
const (
	CodeClaimRequest    Code = "ClaimRequestInvalid"
	CodeClaimToken      Code = "OwnershipTokenInvalid"
	CodeClaimDenied     Code = "ClaimDenied"
	CodeClaimExpired    Code = "ClaimExpired"
	CodeClaimStopped    Code = "ClaimStopped"
	CodeClaimNotAllowed Code = "ClaimNotAllowed"
	CodeClaimQuota      Code = "ClaimQuotaExceeded"
	CodeClaimAnomaly    Code = "ClaimAnomaly"
	CodeHookDenied      Code = "HookDenied"
	CodeHookFailed      Code = "HookFailed"
	CodeProviderFailed  Code = "CertificateProviderFailed"
	CodeReceiveDenied   Code = "ReceiveDenied"
	CodeAnswerUnread    Code = "AnswerNotSubscribed"
)

// Codes of enrolment over a secure channel (EST) and of renewal.
const (
	CodeEnrolmentLabel    Code = "EnrolmentLabelUnknown"
	CodeEnrolmentRequest  Code = "EnrolmentRequestInvalid"
	CodeEnrolmentUnproven Code = "EnrolmentUnauthenticated"
	CodeEnrolmentPassword Code = "EnrolmentPasswordRefused"
	CodeEnrolmentDenied   Code = "EnrolmentDenied"
	CodeEnrolmentBinding  Code = "EnrolmentNotBound"
	CodeEnrolmentRate     Code = "EnrolmentRateExceeded"
	CodeRenewalEarly      Code = "RenewalTooEarly"
)

// Description is one row of the error table.
type Description struct {
	Code Code
	// Exception and Status are what the control plane answers: the AWS
	// exception name without namespace, and the HTTP status. Empty and 0 for
	// codes that only a device meets.
	Exception string
	Status    int
	// Reason is the MQTT 5 reason code of the CONNACK, PUBACK, SUBACK or
	// DISCONNECT that tells a device (MQTT 5 section 2.4); 0 where nothing is
	// sent. MQTT 3.1.1 devices see the connection close.
	Reason byte
	// Fleet is the errorCode of the fleet provisioning MQTT API.
	Fleet string
	// Meaning says what happened, Hint what to do about it.
	Meaning, Hint string
}

// Describe gives the table's row of a code; an unknown code gives the row of
// CodeInternal.
func Describe(code Code) Description {
	if row, ok := descriptions[code]; ok {
		return row
	}
	return descriptions[CodeInternal]
}

// Descriptions lists the whole table in its documented order.
func Descriptions() []Description {
	rows := make([]Description, len(table))
	copy(rows, table)
	return rows
}

var descriptions = func() map[Code]Description {
	m := make(map[Code]Description, len(table))
	for _, row := range table {
		m[row.Code] = row
	}
	return m
}()

// table is the only place where a code meets its outward forms. Exceptions and
// statuses are those of the AWS IoT API model of 2015-05-28; reason codes are
// those that AWS IoT Core documents for MQTT 5.
var table = []Description{
	{CodeInvalidRequest, "InvalidRequestException", 400, 0x83, "InvalidParameters", "The request is not valid.", "Read the message: it names the member and the rule it breaks."},
	{CodeCertificateValidation, "CertificateValidationException", 400, 0, "InvalidCsr", "A certificate in the request can't be accepted.", "Check the PEM, its signer, its validity and its key: openssl x509 -in FILE -noout -text."},
	{CodeRegistrationCode, "RegistrationCodeValidationException", 400, 0, "", "The verification certificate's common name isn't this tenant's registration code.", "Run aws iot get-registration-code and make a new verification certificate with exactly that CN."},
	{CodeMalformedPolicy, "MalformedPolicyException", 400, 0, "", "The policy document isn't valid.", "The message names the line and the member; fix it and send it again."},
	{CodeSQLParse, "SqlParseException", 400, 0, "", "The SQL statement of a topic rule can't be read.", "The message names line and column, and what to write instead."},
	{CodeRegistrationFailure, "ResourceRegistrationFailureException", 400, 0, "ResourceRegistrationFailure", "A resource of the template couldn't be made.", "Read the message: it names the resource."},
	{CodeThrottled, "ThrottlingException", 400, 0x97, "TooManyRequests", "Too many requests.", "Slow down and retry with back-off."},
	{CodeUnauthorized, "UnauthorizedException", 401, 0x87, "AccessDenied", "The service refuses this caller.", "Use credentials that may do this."},
	{CodeAccessDenied, "AccessDeniedException", 403, 0x87, "AccessDenied", "The caller's identity policy doesn't allow this.", "Let an administrator extend the policy of this access key."},
	{CodeNotFound, "ResourceNotFoundException", 404, 0, "ResourceNotFound", "The named resource doesn't exist in this tenant.", "Check the name, and the region: each region is a tenant of its own."},
	{CodeCertificateState, "CertificateStateException", 406, 0, "", "The certificate's status forbids this.", "Change the status first: aws iot update-certificate or update-ca-certificate."},
	{CodeCertificateConflict, "CertificateConflictException", 409, 0x87, "", "Several registered CAs have this subject and key.", "Send caCertificatePem along to say which one is meant."},
	{CodeConflictingUpdate, "ConflictingResourceUpdateException", 409, 0, "ResourceConflict", "Another change to the resource got in the way.", "Read the resource again and repeat the change."},
	{CodeDeleteConflict, "DeleteConflictException", 409, 0, "", "The resource is still in use.", "Detach or delete what the message names first."},
	{CodeAlreadyExists, "ResourceAlreadyExistsException", 409, 0, "ResourceAlreadyExists", "A resource of this name exists already.", "Use the existing one or choose another name."},
	{CodeTaskAlreadyExists, "TaskAlreadyExistsException", 400, 0, "", "Another task has this id.", "Choose another id, or send the clientRequestToken of the request that began the task."},
	{CodeTransferConflict, "TransferConflictException", 409, 0, "", "The certificate can't be transferred while policies or things are attached.", "Detach policies and things first."},
	{CodeVersionConflict, "VersionConflictException", 409, 0, "", "The resource has another version than the one expected.", "Read the resource again and send its present version."},
	{CodeVersionsLimitExceeded, "VersionsLimitExceededException", 409, 0, "", "The resource has the most versions it may have.", "Delete a version that isn't the default one."},
	{CodeLimitExceeded, "LimitExceededException", 410, 0x97, "LimitExceeded", "A quota is used up.", "Remove what isn't needed or raise the limit in the server's configuration."},
	{CodeInternal, "InternalFailureException", 500, 0x80, "InternalError", "Imprint failed.", "Retry; if it stays, look at the server's log for the request id."},
	{CodeUnavailable, "ServiceUnavailableException", 503, 0x88, "InternalError", "Imprint can't answer just now.", "Retry with back-off; look at /readyz for the reason."},
	{CodeKeyReused, "CertificateValidationException", 400, 0, "InvalidCsr", "The request's key has a certificate already.", "Make a new key on the device. The message names the certificate; a profile with allowKeyReuse lets one key have several."},
	{CodeAuthorityState, "CertificateStateException", 406, 0, "", "The certificate authority can't do this in its state.", "The message names the state; imprint ca list shows all."},
	{CodeNotOffered, "NotImplementedException", 501, 0, "", "This build of Imprint doesn't offer the operation.", "docs/compatibility.md lists what is offered."},
	{CodeKeyUnavailable, "ServiceUnavailableException", 503, 0x88, "InternalError", "The key store that has a CA's key (an HSM, a TPM, a KMS) doesn't answer, so nothing was signed.", "Look whether the token is there, its service runs and its PIN file is readable; Imprint tries again by itself: docs/keys.md."},
	{CodeKeyRefused, "ServiceUnavailableException", 503, 0x88, "InternalError", "The key store that has a CA's key refuses to sign: a wrong PIN, or a key that can't do this.", "The detail says which. A wrong PIN isn't tried again until the key is opened anew: docs/keys.md."},

	{CodeHandshakeFailed, "", 0, 0, "", "The TLS handshake failed in a way that has no code of its own.", "The detail names the TLS alert, or what was wrong; imprint doctor --cert FILE --key FILE tries the device's files step by step."},
	{CodeServerNotTrusted, "", 0, 0, "", "The device doesn't trust this server's root (TLS alert 48).", "Give the device this server's roots, the file that imprint env names as IMPRINT_CA."},
	{CodeServerCertRefused, "", 0, 0, "", "The device doesn't accept this server's certificate, and its alert leaves open why.", "Set the device's clock (one that was never set is before the certificate's time), give it the roots that imprint env names as IMPRINT_CA, and an endpoint that the server's certificate names."},
	{CodeServerCertInvalid, "", 0, 0, "", "This server's certificate is outside its validity, and the device doesn't accept it.", "Give the server a certificate that is valid (--tls-certificate; the server's own are renewed at its start), and look at the server's clock."},
	{CodeDeviceClock, "", 0, 0, "", "The device takes this server's certificate, which is valid now, for an expired one (TLS alert 45).", "Set the device's clock: it is ahead."},
	{CodeClosedInHandshake, "", 0, 0, "", "The device closed the connection in the middle of the TLS handshake, without an alert.", "The device may not trust this server's root and say nothing about it: give it the file that imprint env names as IMPRINT_CA."},
	{CodeTLSVersion, "", 0, 0, "", "The device speaks only TLS versions that the server's security policy doesn't take.", "Let the device speak TLS 1.2 or 1.3; --security-policy chooses what the server takes."},
	{CodeCipherSuite, "", 0, 0, "", "The device offers only cipher suites that the server's security policy doesn't have.", "Let the device offer one of the policy's suites, such as ECDHE-ECDSA-AES128-GCM-SHA256; --security-policy chooses what the server takes."},
	{CodeClientKey, "", 0, 0, "", "The device signed with another key than that of its certificate.", "The device's key doesn't belong to its certificate: compare openssl x509 -pubkey with openssl pkey -pubout."},
	{CodeClientCertificate, "", 0, 0, "", "The device's certificate can't be read or used.", "Look at it: openssl x509 -in FILE -noout -text."},
	{CodeHandshakeTimeout, "", 0, 0, "", "The device didn't finish the TLS handshake in time.", "Look for a device that stops half-way, a middlebox, or a very slow link; --handshake-timeout gives it longer."},
	{CodeNotTLS, "", 0, 0, "", "The first bytes weren't a TLS hello.", "The device must speak TLS on this port; plain MQTT is never accepted."},
	{CodeNoClientCertificate, "", 0, 0, "", "The device sent no client certificate.", "Give the MQTT client its certificate and key (mosquitto_pub: --cert and --key). A TLS library that has them sends none where the key is of a kind that the server can't take: use P-256 (P-384, P-521), RSA or Ed25519."},
	{CodeSNIUnknown, "", 0, 0, "", "The server name in the TLS hello names no tenant.", "Connect to the address that aws iot describe-endpoint --endpoint-type iot:Data-ATS gives."},
	{CodeSNIRequired, "", 0, 0x87, "", "The certificate is registered in a mode that needs a server name in the TLS hello.", "Connect by the host name that aws iot describe-endpoint --endpoint-type iot:Data-ATS gives, not by address, so that the hello carries it."},
	{CodeALPNUnknown, "", 0, 0, "", "The device offers only application protocols that this port doesn't speak.", "Offer x-amzn-mqtt-ca, mqtt, or no ALPN at all."},
	{CodeALPNMissing, "", 0, 0, "", "The device speaks MQTT on the HTTPS port and didn't ask for it in its TLS hello.", "Let the firmware offer the application protocol x-amzn-mqtt-ca (mosquitto_pub: --tls-alpn x-amzn-mqtt-ca), or connect to the MQTT port, 8883."},
	{CodeOverloaded, "", 0, 0, "", "The server is busy with as many handshakes as it takes.", "The device should retry with back-off; --max-handshakes raises the bound."},
	{CodeConnectTimeout, "", 0, 0, "", "The device sent no CONNECT packet in time after the TLS handshake.", "Look at the firmware's order of steps; --connect-timeout gives it longer."},
	{CodeProtocolViolation, "", 0, 0x82, "", "The device broke the MQTT protocol.", "Mend or update the device's MQTT library: the detail says what it sent, and names the rule of the specification."},
	{CodeUnsupportedVersion, "", 0, 0x84, "", "The device speaks an MQTT version other than 3.1.1 and 5.", "Set the client library to MQTT 3.1.1 (level 4) or 5."},
	{CodePacketTooLarge, "", 0, 0x95, "", "The device sent a packet over the size limit.", "Send at most 128 KiB of payload."},
	{CodeClientIDInvalid, "", 0, 0x85, "", "The client id isn't acceptable.", "Use 1 to 128 bytes of UTF-8 that don't start with $; an empty id needs a clean session."},
	{CodeCertificateUnknown, "", 0, 0x87, "", "The certificate isn't registered here.", "Register its CA with auto-registration, or the certificate itself: aws iot register-certificate."},
	{CodeCertificateInactive, "", 0, 0x87, "", "The certificate is registered but INACTIVE.", "aws iot update-certificate --new-status ACTIVE --certificate-id ID"},
	{CodeCertificateRevoked, "", 0, 0x87, "", "The certificate is REVOKED.", "Give the device a new certificate; a revoked one stays revoked."},
	{CodeOnRevocationList, "CertificateValidationException", 400, 0x87, "", "The certificate is on a revocation list of its CA that was imported, and isn't registered.", "Give the device a new certificate. If its CA revoked it by mistake, that signs a new list without it: imprint ca crl list shows which was imported."},
	{CodeRevocationListStale, "CertificateValidationException", 400, 0x87, "", "The revocation list of the certificate's CA is past its next update, and nobody is registered without a current one.", "Import the CA's current list: imprint ca crl import; or let newcomers in without: imprint ca crl set --stale allow."},
	{CodeCertificatePending, "", 0, 0x87, "", "The certificate is registered and waits for activation.", "Activate it (aws iot update-certificate --new-status ACTIVE) or mend what stopped the provisioning, named in the attempt before."},
	{CodeCertificateTransfer, "", 0, 0x87, "", "The certificate is being transferred to another account.", "Accept, reject or cancel the transfer."},
	{CodeCertificateExpired, "", 0, 0x87, "", "The certificate's validity has ended.", "Give the device a new certificate, or check the server's clock."},
	{CodeCertificateNotYetValid, "", 0, 0x87, "", "The certificate's validity hasn't begun.", "Check the clock of the machine that signed it, and the server's clock."},
	{CodeCertificateDeleted, "", 0, 0x87, "", "The certificate was deleted while the device was connected.", "Register the certificate again if the device should return."},
	{CodeCertificateWeak, "CertificateValidationException", 400, 0x87, "InvalidCsr", "The certificate's key or signature algorithm isn't accepted.", "Use RSA of 2048 bits or more, or P-256, P-384, P-521; sign with SHA-256 or better."},
	{CodeCANotRegistered, "", 0, 0x87, "", "No CA registered in this tenant has the certificate's issuer as its subject.", "Register the CA that signed it, not one above it: aws iot register-ca-certificate --ca-certificate file://ca.pem --certificate-mode SNI_ONLY --set-as-active --allow-auto-registration"},
	{CodeCASignature, "", 0, 0x87, "", "A registered CA has the issuer's name but didn't sign this certificate.", "The device's certificate was signed by another key of the same name: register that CA, or sign again."},
	{CodeCAInactive, "", 0, 0x87, "", "The CA that signed the certificate is INACTIVE.", "aws iot update-ca-certificate --new-status ACTIVE --certificate-id CA"},
	{CodeCAExpired, "", 0, 0x87, "", "The CA that signed the certificate is outside its validity.", "Register a renewed CA, or check the server's clock."},
	{CodeAutoRegistrationOff, "", 0, 0x87, "", "The CA that signed the certificate doesn't allow auto-registration.", "aws iot update-ca-certificate --new-auto-registration-status ENABLE --certificate-id CA"},
	{CodeTemplateMissing, "", 0, 0x87, "ResourceNotFound", "The provisioning template doesn't exist.", "Create it, or name one that does exist: in the CA's registrationConfig, or in the topic that the device publishes to."},
	{CodeTemplateDisabled, "", 0, 0x87, "AccessDenied", "The provisioning template is disabled.", "aws iot update-provisioning-template --enabled --template-name NAME"},
	{CodeTemplateInvalid, "", 0, 0x87, "InvalidRequest", "The provisioning template isn't valid.", "The detail names line and member; store a corrected version."},
	{CodeParameterMissing, "", 0, 0x87, "InvalidParameters", "The template needs a parameter that neither the certificate's subject nor the device's request has.", "Put the field into the subject of the device's certificates or the parameter into its request, or give it a Default in the template."},
	{CodeTemplateValue, "", 0, 0x87, "InvalidParameters", "A value that the template computed isn't legal.", "The detail names the member and the rule; change the template or the certificate's subject."},
	{CodePolicyMissing, "", 0, 0x87, "ResourceNotFound", "The policy that the template names doesn't exist.", "aws iot create-policy --policy-name NAME --policy-document file://policy.json"},
	{CodeThingTypeMissing, "", 0, 0x87, "ResourceNotFound", "The thing type that the template names doesn't exist.", "Create the thing type, or take it out of the template."},
	{CodeGroupMissing, "", 0, 0x87, "ResourceNotFound", "A thing group or billing group that the template names doesn't exist.", "Create the group, or take it out of the template."},
	{CodeProvisioned, "", 0, 0x87, "", "The device was provisioned; its first connection is closed as AWS IoT Core closes it.", "Nothing to mend: the device connects again and is accepted."},
	{CodeRegisteredPending, "", 0, 0x87, "", "The certificate was registered PENDING_ACTIVATION (just-in-time registration).", "Activate it from a rule or by hand: aws iot update-certificate --new-status ACTIVE --certificate-id ID"},
	{CodeFunctionMissing, "ResourceNotFoundException", 404, 0x87, "AccessDenied", "The function that a hook, a rule or a certificate provider names doesn't exist.", "aws lambda create-function, or correct the ARN."},
	{CodeFunctionDenied, "AccessDeniedException", 403, 0x87, "AccessDenied", "The function's permissions don't let the service invoke it.", "aws lambda add-permission --principal iot.amazonaws.com --action lambda:InvokeFunction --source-arn ARN --statement-id iot --function-name NAME"},
	{CodeFunctionFailed, "", 0, 0x87, "AccessDenied", "The function reported an error, crashed, or answered what isn't JSON.", "The detail has the end of its log; run it by hand with aws lambda invoke."},
	{CodeFunctionTimeout, "", 0, 0x87, "AccessDenied", "The function didn't answer in time.", "It has its own timeout, and as a hook or certificate provider that of --hook-timeout (5s unless the server is started with another), with the start of a process: make it quicker, or keep a process warm."},
	{CodeFunctionThrottled, "TooManyRequestsException", 429, 0x97, "TooManyRequests", "More calls than the function may have at once wait for it.", "Raise the function's concurrency, or let devices come more slowly."},
	{CodeFunctionStorage, "CodeStorageExceededException", 400, 0, "", "The code of the account's functions has as many bytes as the server allows.", "Delete functions or versions that aren't needed, or raise --function-code."},
	{CodeRulesBusy, "ServiceUnavailableException", 503, 0x97, "", "As many messages as the topic rules may have waiting wait for them.", "Send more slowly, or let rules match less; --rule-queue raises the bound."},
	{CodeEventDropped, "", 0, 0, "", "The device's event was dropped, untold: as many of its account wait as the server keeps.", "Look for a topic rule on $aws/events/ that is slow or has no room, or raise --stored-events. A device that waits for activation comes again with a new event."},
	{CodeRuleAction, "", 0, 0, "", "An action of a topic rule failed.", "The detail names the rule and the action's target; mend the target, and give the rule an errorAction that keeps what couldn't be delivered."},
	{CodeConnectDenied, "", 0, 0x87, "", "No policy of the certificate allows iot:Connect with this client id.", "Allow iot:Connect on client/CLIENT_ID in a policy that is attached to the certificate."},
	{CodePublishDenied, "", 0, 0x87, "", "No policy of the certificate allows iot:Publish on this topic.", "Allow iot:Publish on topic/TOPIC."},
	{CodeSubscribeDenied, "", 0, 0x87, "", "No policy of the certificate allows iot:Subscribe on this topic filter.", "Allow iot:Subscribe on topicfilter/FILTER, and iot:Receive on topic/TOPIC."},
	{CodeWillDenied, "", 0, 0x87, "", "No policy of the certificate allows the will to be published.", "Allow iot:Publish on topic/WILL_TOPIC."},
	{CodeRetainDenied, "", 0, 0x87, "", "No policy of the certificate allows iot:RetainPublish on this topic.", "Allow iot:RetainPublish on topic/TOPIC beside iot:Publish."},
	{CodeReservedTopic, "", 0, 0x90, "", "Topics that begin with $ belong to the service, and it doesn't offer this one.", "Use a topic that doesn't begin with $."},
	{CodeTopicInvalid, "", 0, 0x90, "", "The topic name isn't acceptable.", "At most 256 bytes, 7 slashes, no wildcards."},
	{CodeFilterInvalid, "", 0, 0x8f, "", "The topic filter isn't acceptable.", "At most 256 bytes and 7 slashes; # stands last, + fills a whole level."},
	{CodeQoSNotSupported, "", 0, 0x9b, "", "AWS IoT Core and Imprint speak QoS 0 and 1 only.", "Use QoS 1."},
	{CodeQuotaExceeded, "", 0, 0x97, "", "A limit of the connection or of the tenant is reached.", "The detail names the limit."},
	{CodeTakenOver, "", 0, 0x8e, "", "Another connection came with the same client id.", "Give every device its own client id; look for two devices with one."},
	{CodeKeepAliveTimeout, "", 0, 0x8d, "", "Nothing came from the device for one and a half keep-alive intervals.", "Check the link and that the client sends PINGREQ."},
	{CodeConnectionLost, "", 0, 0, "", "The connection broke without a DISCONNECT packet.", "Check the link and the device's power."},
	{CodeClientDisconnect, "", 0, 0, "", "The device said DISCONNECT.", "Nothing to mend."},
	{CodeServerShutdown, "", 0, 0x8b, "", "The server is shutting down.", "The device reconnects when the server is back."},
	{CodeServerStopped, "", 0, 0, "", "The server was killed, or its machine lost power, while the device was on.", "The device reconnects when the server is back. Stop servers with SIGTERM: they tell devices then."},
	{CodeReceiveMaximum, "", 0, 0x93, "", "The device sent more QoS 1 messages than the server's receive maximum before they were acknowledged.", "Wait for PUBACKs: at most as many may be open as CONNACK's Receive Maximum says (--max-inflight)."},
	{CodePacketIDInUse, "", 0, 0x91, "", "The device used a packet identifier again before its first use was acknowledged.", "Let the client library choose packet identifiers; each may be used again after its PUBACK."},
	{CodePublishRate, "", 0, 0x97, "", "The device publishes more messages a second than one connection may.", "Send less often, or let an operator raise --publish-rate."},
	{CodeConnectRate, "", 0, 0x97, "", "The client id connects more often than allowed.", "Connect again with back-off; --connect-rate raises the bound."},
	{CodeRetainedQuota, "LimitExceededException", 410, 0x97, "", "The tenant has as many retained messages as it may have.", "Delete some by publishing an empty payload with RETAIN, or raise --max-retained."},
	{CodeQueueFull, "", 0, 0, "", "Messages for an absent session were dropped because its queue was full.", "Let the device come more often, subscribe to less, or raise --max-session-messages and --max-session-bytes."},
	{CodeAdministrative, "", 0, 0x98, "", "An operator ended the connection (DeleteConnection).", "Nothing to mend: the device may connect again."},
	{CodeConnectionExpired, "", 0, 0xa0, "", "The connection lived as long as its credentials allow.", "Connect again with fresh credentials."},
	{CodeHTTPRequest, "", 0, 0, "", "The HTTP request isn't one that this port answers.", "Publish with POST /topics/TOPIC?qos=1; docs/http.md has the whole form."},
	{CodeNoRequest, "", 0, 0, "", "The connection ended before a complete HTTP request came.", "MQTT on this port needs the application protocol x-amzn-mqtt-ca or mqtt (ALPN) in the TLS hello; without one it speaks HTTP."},
	{CodeSignature, "", 0, 0, "", "The request's signature (Signature Version 4) isn't accepted.", "Sign with an access key of this server, the service name iotdevicegateway, and a clock that is right."},
	{CodeSlowConsumer, "", 0, 0x97, "", "The device didn't read its messages fast enough.", "Check the link, or let the device subscribe to less."},

	{CodeClaimRequest, "", 0, 0x83, "InvalidPayload", "A fleet provisioning request's payload isn't what its topic asks for.", "Send JSON to topics that end in /json, CBOR to those that end in /cbor; docs/fleet-provisioning.md has the members."},
	{CodeClaimToken, "", 0, 0x83, "InvalidCertificateOwnershipToken", "The certificate ownership token is empty, malformed, expired, used up, or another claim's.", "Ask for a new certificate: a token is good for one registration, for an hour, with the claim certificate that asked for it."},
	{CodeClaimDenied, "", 0, 0x87, "AccessDenied", "The caller can't use the fleet provisioning API.", "Connect with a claim certificate; a trusted user's claim is good for its own template alone."},
	{CodeClaimExpired, "", 0, 0x87, "AccessDenied", "The trusted user's claim certificate has expired.", "Ask for a new one: aws iot create-provisioning-claim --template-name NAME"},
	{CodeClaimStopped, "", 0, 0x87, "AccessDenied", "The claim certificate was stopped by its guard.", "Find out why, then: imprint claim guard CERTIFICATE_ID --resume"},
	{CodeClaimNotAllowed, "", 0, 0x87, "AccessDenied", "The claim certificate's guard doesn't allow this request: its time, network or serial number.", "The detail names the rule; imprint claim guard CERTIFICATE_ID shows all of them."},
	{CodeClaimQuota, "", 0, 0x87, "AccessDenied", "The claim certificate has registered as many devices as its guard allows.", "imprint claim guard CERTIFICATE_ID --quota N --resume"},
	{CodeClaimAnomaly, "", 0, 0x87, "AccessDenied", "The claim certificate was used in a way that its guard takes for misuse, and is stopped.", "Look for a leaked claim key; then: imprint claim guard CERTIFICATE_ID --resume"},
	{CodeHookDenied, "", 0, 0x87, "AccessDenied", "The template's pre-provisioning hook didn't allow the device.", "Look at the function: it must answer {\"allowProvisioning\": true}."},
	{CodeHookFailed, "", 0, 0x87, "AccessDenied", "The template's pre-provisioning hook failed, answered something else than it should, or didn't answer in time.", "The detail says which; run the function by hand with aws lambda invoke."},
	{CodeProviderFailed, "", 0, 0x87, "AccessDenied", "The certificate provider's function failed or answered a certificate that can't be used.", "The function must answer {\"certificatePem\": ...} for the key of the signing request within --hook-timeout (5s unless the server is started with another)."},
	{CodeReceiveDenied, "", 0, 0x87, "", "No policy of the certificate allows iot:Receive on the topic of a message or of the service's answer: it isn't sent.", "Allow iot:Receive on topic/TOPIC, beside iot:Subscribe on topicfilter/TOPIC."},
	{CodeAnswerUnread, "", 0, 0, "", "The device made a request and hasn't subscribed to the topic of the answer: it isn't sent.", "Subscribe to REQUEST_TOPIC/accepted and REQUEST_TOPIC/rejected before the request."},

	{CodeEnrolmentLabel, "", 0, 0, "", "The path of an EST request names no label or operation of this server.", "imprint est list shows the labels; a path is /.well-known/est/LABEL/OPERATION."},
	{CodeEnrolmentRequest, "", 0, 0, "", "An EST request's body isn't a certificate signing request.", "Send the base64 of a PKCS#10 request in DER: openssl req -new -outform der ... | base64"},
	{CodeEnrolmentUnproven, "", 0, 0, "", "An EST request came without a client certificate or a one-time password that its label accepts.", "Show a certificate of a CA that the label names, or a password of imprint est otp create."},
	{CodeEnrolmentPassword, "", 0, 0, "", "An EST one-time password is wrong, used up, expired, or another label's.", "Make a new one: imprint est otp create --label LABEL"},
	{CodeEnrolmentDenied, "", 0, 0, "", "Who sent an EST request may not have this certificate.", "The detail names the rule; imprint est show LABEL shows those of the label."},
	{CodeEnrolmentBinding, "", 0, 0, "", "The label demands that an EST request is tied to its TLS connection, and it isn't.", "Put the connection's tls-unique (TLS 1.2) or tls-exporter (TLS 1.3, RFC 9266) value into the request's challengePassword in base64."},
	{CodeEnrolmentRate, "", 0, 0, "", "An address sends EST requests or wrong passwords, or a certificate is renewed or enrols, more often than it may.", "Wait as long as Retry-After says; --est-rate raises the bound of requests."},
	{CodeRenewalEarly, "ConflictingResourceUpdateException", 409, 0, "", "The certificate is younger than its renewal window lets it be renewed.", "The detail has the day on which the window opens; imprint ca issue --force renews before."},
}
