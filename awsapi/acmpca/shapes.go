package acmpca

import (
	"time"

	"github.com/imprint-iot/imprint/awsapi/restjson"
)

// The requests and responses, and the shapes in them.
type (
	nothing struct{}

	arnInput struct {
		ARN string `api:"body CertificateAuthorityArn Arn required"`
	}
	arnOutput struct {
		ARN string `api:"body CertificateAuthorityArn Arn"`
	}
	createInput struct {
		Configuration configuration `api:"body CertificateAuthorityConfiguration Any required"`
		Revocation    *revocation   `api:"body RevocationConfiguration Any"`
		Type          string        `api:"body CertificateAuthorityType Type required"`
		Token         *string       `api:"body IdempotencyToken Token"`
		KeyStorage    *string       `api:"body KeyStorageSecurityStandard KeyStorage"`
		Tags          []tag         `api:"body Tags Tags"`
		UsageMode     *string       `api:"body UsageMode UsageMode"`
	}
	configuration struct {
		KeyAlgorithm     string       `api:"body KeyAlgorithm KeyAlgorithm required"`
		SigningAlgorithm string       `api:"body SigningAlgorithm SigningAlgorithm required"`
		Subject          subject      `api:"body Subject Any required"`
		CSRExtensions    *passthrough `api:"body CsrExtensions Any"`
	}
	// passthrough is what is refused when it is there.
	passthrough struct{}

	subject struct {
		Country             string            `api:"body Country Country"`
		Organization        string            `api:"body Organization Text64"`
		OrganizationalUnit  string            `api:"body OrganizationalUnit Text64"`
		Qualifier           string            `api:"body DistinguishedNameQualifier Printable64"`
		State               string            `api:"body State Text128"`
		CommonName          string            `api:"body CommonName Text64"`
		SerialNumber        string            `api:"body SerialNumber Printable64"`
		Locality            string            `api:"body Locality Text128"`
		Title               string            `api:"body Title Text64"`
		Surname             string            `api:"body Surname Text40"`
		GivenName           string            `api:"body GivenName Text16"`
		Initials            string            `api:"body Initials Text5"`
		Pseudonym           string            `api:"body Pseudonym Text128"`
		GenerationQualifier string            `api:"body GenerationQualifier Text3"`
		Custom              []customAttribute `api:"body CustomAttributes CustomAttributes"`
	}
	customAttribute struct {
		ID    string `api:"body ObjectIdentifier ObjectIdentifier required"`
		Value string `api:"body Value Text256 required"`
	}
	revocation struct {
		CRL  *crl  `api:"body CrlConfiguration Any"`
		OCSP *ocsp `api:"body OcspConfiguration Any"`
	}
	crl struct {
		Enabled bool    `api:"body Enabled Any required"`
		Days    *int    `api:"body ExpirationInDays Days"`
		Host    *string `api:"body CustomCname Cname"`
		Bucket  *string `api:"body S3BucketName Any"`
		ACL     *string `api:"body S3ObjectAcl Any"`
	}
	ocsp struct {
		Enabled bool    `api:"body Enabled Any required"`
		Host    *string `api:"body OcspCustomCname Cname"`
	}
	tag struct {
		Key   string  `api:"body Key TagKey required"`
		Value *string `api:"body Value TagValue"`
	}
	authority struct {
		ARN             string         `api:"body Arn Any"`
		Owner           string         `api:"body OwnerAccount Any"`
		CreatedAt       time.Time      `api:"body CreatedAt Any"`
		ChangedAt       time.Time      `api:"body LastStateChangeAt Any"`
		Type            string         `api:"body Type Any"`
		Serial          string         `api:"body Serial Any"`
		Status          string         `api:"body Status Any"`
		NotBefore       time.Time      `api:"body NotBefore Any"`
		NotAfter        time.Time      `api:"body NotAfter Any"`
		Configuration   *configuration `api:"body CertificateAuthorityConfiguration Any"`
		Revocation      *revocation    `api:"body RevocationConfiguration Any"`
		RestorableUntil time.Time      `api:"body RestorableUntil Any"`
		UsageMode       string         `api:"body UsageMode Any"`
	}
	describeOutput struct {
		Authority *authority `api:"body CertificateAuthority Any"`
	}
	listInput struct {
		NextToken  *string `api:"body NextToken NextToken"`
		MaxResults *int    `api:"body MaxResults MaxResults"`
		Owner      *string `api:"body ResourceOwner Owner"`
	}
	listOutput struct {
		Authorities []authority `api:"body CertificateAuthorities Any"`
		NextToken   string      `api:"body NextToken Any"`
	}
	csrOutput struct {
		CSR string `api:"body Csr Any"`
	}
	importInput struct {
		ARN         string `api:"body CertificateAuthorityArn Arn required"`
		Certificate []byte `api:"body Certificate CertificateBlob required"`
		Chain       []byte `api:"body CertificateChain ChainBlob"`
	}
	certificateOutput struct {
		Certificate string `api:"body Certificate Any"`
		Chain       string `api:"body CertificateChain Any"`
	}
	issueInput struct {
		Passthrough *passthrough `api:"body ApiPassthrough Any"`
		ARN         string       `api:"body CertificateAuthorityArn Arn required"`
		CSR         []byte       `api:"body Csr CSRBlob required"`
		Algorithm   string       `api:"body SigningAlgorithm SigningAlgorithm required"`
		Template    *string      `api:"body TemplateArn Arn"`
		Validity    validity     `api:"body Validity Any required"`
		NotBefore   *validity    `api:"body ValidityNotBefore Any"`
		Token       *string      `api:"body IdempotencyToken Token"`
	}
	validity struct {
		Value int64  `api:"body Value Positive required"`
		Type  string `api:"body Type ValidityType required"`
	}
	issueOutput struct {
		ARN string `api:"body CertificateArn Any"`
	}
	getInput struct {
		ARN         string `api:"body CertificateAuthorityArn Arn required"`
		Certificate string `api:"body CertificateArn Arn required"`
	}
	revokeInput struct {
		ARN    string `api:"body CertificateAuthorityArn Arn required"`
		Serial string `api:"body CertificateSerial Text128 required"`
		Reason string `api:"body RevocationReason Reason required"`
	}
	updateInput struct {
		ARN        string      `api:"body CertificateAuthorityArn Arn required"`
		Revocation *revocation `api:"body RevocationConfiguration Any"`
		Status     *string     `api:"body Status Status"`
	}
	deleteInput struct {
		ARN  string `api:"body CertificateAuthorityArn Arn required"`
		Days *int   `api:"body PermanentDeletionTimeInDays DeletionDays"`
	}
	tagInput struct {
		ARN  string `api:"body CertificateAuthorityArn Arn required"`
		Tags []tag  `api:"body Tags Tags required"`
	}
	listTagsInput struct {
		ARN        string  `api:"body CertificateAuthorityArn Arn required"`
		NextToken  *string `api:"body NextToken NextToken"`
		MaxResults *int    `api:"body MaxResults MaxResults"`
	}
	listTagsOutput struct {
		Tags      []tag  `api:"body Tags Any"`
		NextToken string `api:"body NextToken Any"`
	}
)

var codec = restjson.New(restjson.Shapes{
	"Arn": {Limits: restjson.Between(5, 200), Pattern: `arn:[\w+=/,.@-]+:[\w+=/,.@-]+:[\w+=/,.@-]*:[0-9]*:[\w+=,.@-]+(/[\w+=,.@-]+)*`},
	// The model of botocore 1.43 and later ones; RSA_3072 came with them.
	"KeyAlgorithm":     {Enum: []string{"RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1"}},
	"SigningAlgorithm": {Enum: []string{"SHA256WITHECDSA", "SHA384WITHECDSA", "SHA512WITHECDSA", "SHA256WITHRSA", "SHA384WITHRSA", "SHA512WITHRSA"}},
	"Type":             {Enum: []string{"ROOT", "SUBORDINATE"}},
	"UsageMode":        {Enum: []string{"GENERAL_PURPOSE", "SHORT_LIVED_CERTIFICATE"}},
	"Status":           {Enum: []string{"CREATING", "PENDING_CERTIFICATE", "ACTIVE", "DELETED", "DISABLED", "EXPIRED", "FAILED"}},
	"Owner":            {Enum: []string{"SELF", "OTHER_ACCOUNTS"}},
	"ValidityType":     {Enum: []string{"END_DATE", "ABSOLUTE", "DAYS", "MONTHS", "YEARS"}},
	"Reason": {Enum: []string{"UNSPECIFIED", "KEY_COMPROMISE", "CERTIFICATE_AUTHORITY_COMPROMISE", "AFFILIATION_CHANGED", "SUPERSEDED", "CESSATION_OF_OPERATION",
		"PRIVILEGE_WITHDRAWN", "A_A_COMPROMISE"}},
	"Token":            {Limits: restjson.Between(1, 36), Pattern: `[\u0009\u000A\u000D\u0020-\u00FF]*`, RE2: `[\x09\x0A\x0D\x20-\x{FF}]*`},
	"Country":          {Limits: restjson.Between(2, 2), Pattern: `[A-Za-z]{2}`},
	"Text3":            {Limits: restjson.AtMost(3)},
	"Text5":            {Limits: restjson.AtMost(5)},
	"Text16":           {Limits: restjson.AtMost(16)},
	"Text40":           {Limits: restjson.AtMost(40)},
	"Text64":           {Limits: restjson.AtMost(64)},
	"Text128":          {Limits: restjson.AtMost(128)},
	"Text256":          {Limits: restjson.Between(1, 256)},
	"Printable64":      {Limits: restjson.AtMost(64), Pattern: `[a-zA-Z0-9'()+-.?:/= ]*`},
	"CustomAttributes": {Limits: restjson.Between(1, 30), Member: "Any"},
	"ObjectIdentifier": {Limits: restjson.AtMost(64), Pattern: `^([0-2])\.([0-9]|([0-3][0-9]))((\.([0-9]+)){0,126})$`},
	"Days":             {Limits: restjson.Between(1, 5000)},
	"DeletionDays":     {Limits: restjson.Between(7, 30)},
	"Cname":            {Limits: restjson.AtMost(253), Pattern: `^[-a-zA-Z0-9;/?:@&=+$,%_.!~*()']*$`},
	"Tags":             {Limits: restjson.Between(1, 50), Member: "Any"},
	"TagKey":           {Limits: restjson.Between(1, 128), Pattern: `^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$`},
	"TagValue":         {Limits: restjson.AtMost(256), Pattern: `^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$`},
	"NextToken":        {Limits: restjson.Between(1, 500)},
	"MaxResults":       {Limits: restjson.Between(1, 1000)},
	"CertificateBlob":  {Limits: restjson.Between(1, 32768)},
	"ChainBlob":        {Limits: restjson.AtMost(2097152)},
	"CSRBlob":          {Limits: restjson.Between(1, 32768)},
	"Positive":         {Limits: restjson.AtLeast(1)},
}, "ValidationException")
