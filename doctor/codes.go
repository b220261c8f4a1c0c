package doctor

// Code names one kind of thing that a check can find. The value is stable: it
// stands in the JSON output and in docs/doctor.md.
type Code string

// The codes of files and certificates.
const (
	FileUnreadable        Code = "FileUnreadable"
	FileTooLarge          Code = "FileTooLarge"
	FileEmpty             Code = "FileEmpty"
	FileIsDER             Code = "FileIsDER"
	FileNotPEM            Code = "FileNotPEM"
	PEMDamaged            Code = "PEMDamaged"
	PEMEscaped            Code = "PEMEscaped"
	PEMExtraText          Code = "PEMExtraText"
	PEMCRLF               Code = "PEMCRLF"
	WrongFile             Code = "WrongFile"
	CertificateUnreadable Code = "CertificateUnreadable"
	KeyInCertificateFile  Code = "KeyInCertificateFile"
	KeyEncrypted          Code = "KeyEncrypted"
	KeyUnreadable         Code = "KeyUnreadable"
	KeyMismatch           Code = "KeyMismatch"
	ChainOrder            Code = "ChainOrder"
	ChainBroken           Code = "ChainBroken"
	ChainWithoutCA        Code = "ChainWithoutCA"
	KeyNotAccepted        Code = "KeyNotAccepted"
	CertificateExpired    Code = "CertificateExpired"
	CertificateNotYet     Code = "CertificateNotYetValid"
	CertificateEndsSoon   Code = "CertificateEndsSoon"
	CertificateIsCA       Code = "CertificateIsCA"
	UsageNoClientAuth     Code = "UsageLacksClientAuth"
	UsageNoSignature      Code = "UsageLacksDigitalSignature"
	RootFileIsDeviceCA    Code = "RootFileIsDeviceCA"
	RootNotSelfSigned     Code = "RootNotSelfSigned"
	ClientIDInvalid       Code = "ClientIDInvalid"
	ClientIDMissing       Code = "ClientIDMissing"
)

// The codes of the network and of TLS.
const (
	EndpointIsAddress    Code = "EndpointIsAddress"
	EndpointNotATS       Code = "EndpointNotATS"
	EndpointPort         Code = "EndpointPort"
	NameNotFound         Code = "NameNotFound"
	NameLookupFailed     Code = "NameLookupFailed"
	AddressFamilyFails   Code = "AddressFamilyFails"
	TCPRefused           Code = "TCPRefused"
	TCPTimeout           Code = "TCPTimeout"
	TCPUnreachable       Code = "TCPUnreachable"
	TCPFailed            Code = "TCPFailed"
	NotTLS               Code = "NotTLS"
	TLSClosed            Code = "TLSClosed"
	TLSTimeout           Code = "TLSTimeout"
	TLSTooMuch           Code = "TLSTooMuch"
	TLSBroken            Code = "TLSBroken"
	TLSRefused           Code = "TLSRefused"
	TLSVersionRefused    Code = "TLSVersionRefused"
	OneTLSVersion        Code = "OneTLSVersion"
	ServerNameRefused    Code = "ServerNameRefused"
	ServerNameNeeded     Code = "ServerNameNeeded"
	ServerNameMissing    Code = "ServerNameMissing"
	ServerNameMismatch   Code = "ServerNameMismatch"
	ServerRootUnknown    Code = "ServerRootUnknown"
	ServerExpired        Code = "ServerCertificateExpired"
	ServerNotYet         Code = "ServerCertificateNotYetValid"
	ServerUnfit          Code = "ServerCertificateUnfit"
	ClientCertNotAsked   Code = "ClientCertificateNotAsked"
	ClientCertMissing    Code = "ClientCertificateMissing"
	ClientCertRefused    Code = "ClientCertificateRefused"
	ClientCertExpired    Code = "ClientCertificateExpired"
	ClientCertRevoked    Code = "ClientCertificateRevoked"
	ClientCARefused      Code = "ClientCARefused"
	ClientKeyRefused     Code = "ClientKeyRefused"
	ALPNRefused          Code = "ALPNRefused"
	ALPNMissing          Code = "ALPNMissing"
	ALPNIgnored          Code = "ALPNIgnored"
	ALPNCustomAuthorizer Code = "ALPNCustomAuthorizer"
	ClockWrong           Code = "ClockWrong"
	ClockOff             Code = "ClockOff"
)

// The codes of MQTT.
const (
	ConnectUnanswered     Code = "ConnectUnanswered"
	ConnectClosed         Code = "ConnectClosed"
	NotMQTT               Code = "NotMQTT"
	NotAuthorized         Code = "NotAuthorized"
	ClientIDRefused       Code = "ClientIDRefused"
	ClientIDNotAllowed    Code = "ClientIDNotAllowed"
	BadUserNameOrPassword Code = "BadUserNameOrPassword"
	ServerBusy            Code = "ServerBusy"
	ConnectRefused        Code = "ConnectRefused"
	MQTTVersionRefused    Code = "MQTTVersionRefused"
	PersistentRefused     Code = "PersistentSessionRefused"
	FirstConnectionClosed Code = "FirstConnectionClosed"
	TakenOver             Code = "SessionTakenOver"
	ConnectionEnded       Code = "ConnectionEnded"
	PingUnanswered        Code = "PingUnanswered"
	TopicInvalid          Code = "TopicInvalid"
	SubscribeRefused      Code = "SubscribeRefused"
	SubscribeUnanswered   Code = "SubscribeUnanswered"
	PublishRefused        Code = "PublishRefused"
	PublishUnanswered     Code = "PublishUnanswered"
	MessageNotReceived    Code = "MessageNotReceived"
)

// Description is a row of the list of codes.
type Description struct {
	Code    Code
	Meaning string
	// Fix is what to do in general; a check says it with the names at hand.
	Fix string
}

// Codes lists all codes.
func Codes() []Description {
	list := make([]Description, 0, len(descriptions))
	return append(list, descriptions...)
}

func (c Code) description() Description {
	for _, d := range descriptions {
		if d.Code == c {
			return d
		}
	}
	return Description{Code: c}
}

// descriptions is never written to.
var descriptions = []Description{
	{FileUnreadable, "The file doesn't exist, is a directory, or may not be read.", "Give the right path: ls -l FILE"},
	{FileTooLarge, "The file is larger than 1 MiB, so it is no certificate and no key.", "Give the right path."},
	{FileEmpty, "The file has no content.", "Copy it again; a device's file system may have been full."},
	{FileIsDER, "The file is DER, not PEM.", "openssl x509 -inform DER -in FILE -out FILE.pem; for a key: openssl pkey -inform DER -in FILE -out FILE.pem"},
	{FileNotPEM, "The file has no PEM block that begins at the start of a line.", "Give the whole file, from its BEGIN line to its END line."},
	{PEMDamaged, "A PEM block's base64 lines or its END line are broken, or its content isn't what its BEGIN line says.", "Copy the whole file again, from BEGIN to END, without changing a line."},
	{PEMEscaped, "The line breaks of the PEM text are the two characters \\n.", "Make real line breaks: printf '%b' \"$(cat FILE)\" > FILE.pem"},
	{PEMExtraText, "There is text around the PEM blocks. OpenSSL skips it; some devices' libraries don't.", "openssl x509 -in FILE -out FILE.pem"},
	{PEMCRLF, "The lines end with CR LF. Most TLS libraries take that; modems that are given the file by AT commands often don't.", "tr -d '\\r' < FILE > FILE.pem"},
	{WrongFile, "The file holds something else than what it was given for: a key, a certificate, a signing request or a public key.", "Give each file its own option: --cert, --key, --ca."},
	{CertificateUnreadable, "The PEM block holds no legal X.509 certificate.", "Look at it: openssl x509 -in FILE -noout -text; make it anew."},
	{KeyInCertificateFile, "The private key stands in the certificate's file, so whoever is given the certificate has the key.", "openssl x509 -in FILE -out FILE.cert; keep the key in a file of its own."},
	{KeyEncrypted, "The private key is encrypted, and a device has nobody to type the passphrase.", "openssl pkey -in FILE -out FILE.plain"},
	{KeyUnreadable, "The private key can't be read: damaged, or of a kind that TLS doesn't know here.", "Look at it: openssl pkey -in FILE -noout -text_pub"},
	{KeyMismatch, "The key doesn't belong to the certificate.", "Compare: openssl x509 -in CERT -noout -pubkey; openssl pkey -in KEY -pubout"},
	{ChainOrder, "The device's own certificate isn't the first one of the file. Servers take the first for the device's.", "Put the device's certificate first, then the CA that signed it, then the next."},
	{ChainBroken, "A certificate of the file didn't sign the one in front of it.", "Put only the CA that signed the device's certificate behind it, and above it the next."},
	{ChainWithoutCA, "The device sends its own certificate alone and no server name. A first connection (JITP, JITR) needs one of the two: the CA's certificate or the server name.", "Let the device send the server name; or append the CA: cat device.pem ca.pem > chain.pem"},
	{KeyNotAccepted, "The key's kind or size, or the algorithm of the signature, isn't accepted.", "Use P-256, or RSA of 2048 bits, signed with SHA-256."},
	{CertificateExpired, "The certificate has expired.", "Issue a new one; or set the clock, if it is wrong."},
	{CertificateNotYet, "The certificate isn't valid yet.", "Set the clock, if it is wrong; or let the CA begin the validity earlier."},
	{CertificateEndsSoon, "The certificate expires within 30 days.", "Issue a new one in time."},
	{CertificateIsCA, "The device's certificate is a CA's: who has its key can make certificates of its own.", "Sign it with basicConstraints = critical,CA:FALSE"},
	{UsageNoClientAuth, "The certificate's extendedKeyUsage lacks clientAuth. AWS IoT Core and Imprint take it; brokers that check chains refuse it.", "Add clientAuth, or leave extendedKeyUsage out."},
	{UsageNoSignature, "The certificate's keyUsage lacks digitalSignature, which TLS needs.", "Sign it with keyUsage = critical,digitalSignature"},
	{RootFileIsDeviceCA, "The file of the server's root is the CA that signed the device's certificate.", "--ca is for the root of the server's certificate: for AWS https://www.amazontrust.com/repository/AmazonRootCA1.pem"},
	{RootNotSelfSigned, "No certificate in the file of the server's root is self-signed. OpenSSL and others want a root.", "Take the root, and not a certificate below it."},
	{ClientIDInvalid, "The client id isn't acceptable: over 128 bytes, or beginning with $.", "Choose another with --client-id."},
	{ClientIDMissing, "There is no client id: none was given, and the certificate has no common name.", "--client-id NAME"},

	{EndpointIsAddress, "The endpoint is an IP address: then TLS sends no server name, which AWS IoT Core needs for first connections and custom domains, and few certificates name addresses.", "Use the name: aws iot describe-endpoint --endpoint-type iot:Data-ATS"},
	{EndpointNotATS, "The endpoint is the old one of AWS IoT Core, without -ats, under a root that TLS libraries no longer trust.", "aws iot describe-endpoint --endpoint-type iot:Data-ATS"},
	{EndpointPort, "The port is usually one that speaks something else.", "MQTT over TLS: 8883, or 443 with ALPN x-amzn-mqtt-ca."},
	{NameNotFound, "The endpoint's name has no address.", "Look for a typing mistake: aws iot describe-endpoint --endpoint-type iot:Data-ATS"},
	{NameLookupFailed, "The name server couldn't be asked.", "Look at the network and at /etc/resolv.conf."},
	{AddressFamilyFails, "The port is reached over IPv4 or IPv6 only, and the name has addresses of both. A device that tries the other first waits.", "Mend the route, or take the address out of DNS."},
	{TCPRefused, "Nothing listens on the port.", "Look at the port, and whether the server runs."},
	{TCPTimeout, "No answer to the attempt to connect: a firewall drops it, or the host is away.", "Let port 8883 out of the network; or use port 443 with ALPN x-amzn-mqtt-ca."},
	{TCPUnreachable, "There is no route to the address.", "Look at the network: ip route"},
	{TCPFailed, "The attempt to connect failed in another way.", "The detail says how."},
	{NotTLS, "The first bytes of the server aren't TLS.", "Look at the port: 8883 speaks MQTT over TLS, 1883 MQTT without."},
	{TLSClosed, "The server closed the connection in the middle of the handshake, without an alert.", "Look at the port, and at the server's log; a firewall that inspects TLS does the same."},
	{TLSTimeout, "The handshake wasn't complete in time.", "Look at the port and the server; --timeout gives it more time."},
	{TLSTooMuch, "The server sent more bytes than any handshake or session needs.", "Look at the port: this isn't an MQTT server."},
	{TLSBroken, "The server's part of the handshake breaks the rules of TLS.", "Look at the port; a firewall that inspects TLS may stand between."},
	{TLSRefused, "The server refused the handshake with an alert.", "The detail names the alert; the server's log or trace knows more."},
	{TLSVersionRefused, "Server and device have no TLS version or no cipher suite in common.", "Let the device speak TLS 1.2 or 1.3."},
	{OneTLSVersion, "The server speaks only one of TLS 1.2 and 1.3, so a device that speaks the other alone can't connect.", "Check what the device's TLS library speaks; on the server a security policy decides."},
	{ServerNameRefused, "The server doesn't know the server name that the hello carries.", "Connect to the name that aws iot describe-endpoint --endpoint-type iot:Data-ATS gives."},
	{ServerNameNeeded, "Without the server name (SNI) the server refuses or shows another certificate.", "Let the firmware send the server name: mbedtls_ssl_set_hostname, wolfSSL_UseSNI, SSL_set_tlsext_host_name."},
	{ServerNameMissing, "The hello carries no server name (SNI), as asked for or because the endpoint is an IP address.", "Let the firmware send the server name: mbedtls_ssl_set_hostname, wolfSSL_UseSNI, SSL_set_tlsext_host_name."},
	{ServerNameMismatch, "The server's certificate is for other names.", "Connect to one of the names that it has, or let the server's certificate have this one."},
	{ServerRootUnknown, "The server's certificate doesn't lead to a root that the device is given.", "Give the root that the detail names with --ca, and to the device."},
	{ServerExpired, "The server's certificate, or one above it, has expired by this machine's clock.", "Renew the server's certificate; or set the clock, if it is wrong."},
	{ServerNotYet, "The server's certificate isn't valid yet by this machine's clock.", "Set the clock: sudo timedatectl set-ntp true"},
	{ServerUnfit, "The server's certificate can't be used for a TLS server.", "Issue it with extendedKeyUsage = serverAuth and an algorithm of today."},
	{ClientCertNotAsked, "The server doesn't ask for the device's certificate, so it can't know who the device is.", "Look at port and ALPN; with mosquitto: require_certificate true"},
	{ClientCertMissing, "The server wants a certificate and got none.", "Give --cert and --key, and let the firmware load both."},
	{ClientCertRefused, "The server refused the device's certificate.", "Look at it: openssl x509 -in CERT -noout -text; the server's log knows more."},
	{ClientCertExpired, "The server takes the device's certificate for expired.", "Issue a new one; or set the server's clock."},
	{ClientCertRevoked, "The server takes the device's certificate for revoked.", "Issue a new one with a new key."},
	{ClientCARefused, "The server doesn't know the CA that signed the device's certificate, or misses one between.", "Give the CA to the server; or let the device send the certificates between: cat device.pem intermediate.pem > chain.pem"},
	{ClientKeyRefused, "The server couldn't verify a signature. The key belongs to the certificate, so it is the CA's: OpenSSL says so, as in mosquitto, where it has a CA of the issuer's name with another key.", "Give the server the CA that signed the device's certificate, and compare with the one that it has: openssl verify -partial_chain -CAfile CA CERT"},
	{ALPNRefused, "The server speaks none of the application protocols that the hello offers.", "--alpn x-amzn-mqtt-ca for MQTT with a certificate; or none on port 8883."},
	{ALPNMissing, "On port 443 and 8443 a hello without application protocol means HTTP, not MQTT.", "Let the firmware offer x-amzn-mqtt-ca: mbedtls_ssl_conf_alpn_protocols, SSL_set_alpn_protos; or use port 8883."},
	{ALPNIgnored, "The server chose none of the application protocols, so on this port it may speak HTTP.", "Use port 8883, or ask whoever runs the server."},
	{ALPNCustomAuthorizer, "The application protocol mqtt means a custom authorizer on AWS IoT Core, which asks for no certificate.", "--alpn x-amzn-mqtt-ca"},
	{ClockWrong, "This machine's clock is wrong by more than five minutes, or by so much that certificates look invalid.", "sudo timedatectl set-ntp true"},
	{ClockOff, "This machine's clock is off by more than a minute.", "sudo timedatectl set-ntp true"},

	{ConnectUnanswered, "CONNECT was sent and nothing came back in time.", "Look at the port: is this an MQTT server? On port 443 and 8443 it needs ALPN x-amzn-mqtt-ca."},
	{ConnectClosed, "The server closed the connection instead of answering CONNECT. AWS IoT Core and Imprint do so with MQTT 3.1.1 when the certificate isn't registered or not ACTIVE, or no policy allows iot:Connect with this client id.", "imprint explain CERTIFICATE-ID; on AWS: aws iot describe-certificate --certificate-id ID, and its policies"},
	{NotMQTT, "What came instead of CONNACK isn't MQTT.", "Look at the port, and at ALPN on port 443 and 8443."},
	{NotAuthorized, "The server knows or doesn't know the certificate, and lets it not connect: not registered, not ACTIVE, or no policy allows iot:Connect with this client id.", "imprint explain CERTIFICATE-ID; on AWS: aws iot describe-certificate --certificate-id ID, and its policies"},
	{ClientIDRefused, "The server doesn't accept the client id.", "Choose another with --client-id: 1 to 128 bytes, not beginning with $."},
	{ClientIDNotAllowed, "The certificate's common name is allowed as client id, and the one that was given isn't.", "Let the device use its common name as client id, or allow iot:Connect on client/CLIENT_ID."},
	{BadUserNameOrPassword, "The server wants a user name and a password.", "This is not how AWS IoT Core knows devices: look at the endpoint, or at the broker's settings."},
	{ServerBusy, "The server is there and doesn't take the connection now: busy, or a limit.", "Try again later; connect at most once a second with one client id."},
	{ConnectRefused, "The server refused CONNECT with another code.", "The detail has the code; the server's log or trace knows more."},
	{MQTTVersionRefused, "The server doesn't speak this version of MQTT.", "Let the device speak the other version."},
	{PersistentRefused, "The connection is allowed with a clean session only.", "Let the device connect with a clean session; or allow persistent sessions in the policy (iot:ConnectAttributes)."},
	{FirstConnectionClosed, "The first connection was closed and the second accepted: just-in-time provisioning registers the device and closes, by design.", "Nothing to mend: the firmware has to connect again after the close."},
	{TakenOver, "Another connection came with the same client id while this one was on.", "Switch the device off for the examination; else look for two devices with one client id."},
	{ConnectionEnded, "The server ended the connection after it had accepted it.", "The detail says how; the server's log or trace knows more."},
	{PingUnanswered, "PINGREQ wasn't answered in time.", "Look at the server; a proxy may stand between."},
	{TopicInvalid, "The topic or filter isn't legal, has more than 256 bytes or 7 slashes, or belongs to the service.", "# stands last, + fills a whole level; a topic has neither. Topics that begin with $ are the service's own."},
	{SubscribeRefused, "The subscription was refused, or the connection closed instead of an answer.", "Allow iot:Subscribe on topicfilter/FILTER, and iot:Receive on topic/TOPIC."},
	{SubscribeUnanswered, "SUBSCRIBE wasn't answered in time.", "Look at the server's log or trace."},
	{PublishRefused, "The message was refused, or the connection closed instead of an answer.", "Allow iot:Publish on topic/TOPIC."},
	{PublishUnanswered, "PUBLISH at QoS 1 wasn't answered in time.", "Look at the server's log or trace."},
	{MessageNotReceived, "The message was taken and didn't come back to the subscription that matches it.", "Allow iot:Receive on topic/TOPIC."},
}
