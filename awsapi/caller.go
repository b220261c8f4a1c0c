package awsapi

// Caller is who asks, and which tenant (Account and Region) it asks for. The
// account is that of the access key, the region that of the signature's scope.
type Caller struct {
	Account      string // twelve digits
	Region       string
	AccessKeyID  string
	PrincipalARN string
	RequestID    string // UUID, the one of the response's x-amzn-RequestId
	SourceIP     string // without port
}
