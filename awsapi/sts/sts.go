// Package sts answers GetCallerIdentity of AWS STS (version 2011-06-15, protocol Query): who
// holds the access key that a request is signed with. Clients ask it before anything else:
// `aws sts get-caller-identity`, and Terraform for the account's number.
//
//	<GetCallerIdentityResult>
//	  <Arn>arn:aws:iam::000000000000:user/installer</Arn>
//	  <UserId>AIDA...</UserId>
//	  <Account>000000000000</Account>
//	</GetCallerIdentityResult>
//
// As at AWS, whoever signs may ask, whatever its policies say; the parameters are in the query
// of a GET or the form of a POST; and the signature may be in the query (a presigned URL), here
// for an hour at most. The first key of an account is its user operator's. A user id
// follows from account and name: a user that is made again has the id of the one before.
//
// What it does not do: every other action. There are no roles and no temporary credentials
// here, and the answer, InvalidAction, says so.
//
// The rules are those of the AWS STS API reference, "GetCallerIdentity", "Common errors" and
// "Making query requests".
package sts

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

const (
	version   = "2011-06-15"
	operation = "GetCallerIdentity"
	form      = "application/x-www-form-urlencoded"
	// maxBody bounds a form. That of GetCallerIdentity has 43 bytes.
	maxBody = 64 << 10
)

// MaxExpiry is how long a presigned URL may hold, for the verifier.
const MaxExpiry = time.Hour

// Owns tells whether a request belongs to this API.
func Owns(r *http.Request) bool {
	if sigv4.EscapedPath(r) != "/" {
		return false
	}
	switch r.Method {
	case http.MethodGet:
		return r.URL.Query().Has("Action")
	case http.MethodPost:
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		return err == nil && kind == form
	}
	return false
}

// Service answers the API. It is an http.Handler for requests that it Owns. All fields are
// required, and as those of an awsapi.Config.
type Service struct {
	Verifier *sigv4.Verifier
	Allow    func(caller awsapi.Caller, operation string) bool
	Observe  func(awsapi.Access)
	Now      func() time.Time
}

type response struct {
	XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
	ARN       string   `xml:"GetCallerIdentityResult>Arn"`
	UserID    string   `xml:"GetCallerIdentityResult>UserId"`
	Account   string   `xml:"GetCallerIdentityResult>Account"`
	RequestID string   `xml:"ResponseMetadata>RequestId"`
}

type failure struct {
	XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

// ServeHTTP answers one request.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := s.Now()
	access := awsapi.Access{RequestID: uuid.NewString(), Method: r.Method, Path: sigv4.EscapedPath(r), Status: http.StatusOK}
	err := s.check(w, r, &access)
	var body any = response{
		ARN: access.Caller.PrincipalARN, UserID: userID(access.Caller.PrincipalARN), Account: access.Caller.Account, RequestID: access.RequestID,
	}
	if err != nil {
		refusal := outward(err)
		access.Status, access.Code, access.Err = refusal.Status, refusal.Code, err
		kind := "Sender"
		if refusal.Status >= http.StatusInternalServerError {
			kind = "Receiver"
		}
		body = failure{Type: kind, Code: refusal.Code, Message: refusal.Message, RequestID: access.RequestID}
	}
	// Structs of strings can't fail to be encoded.
	text, _ := xml.MarshalIndent(body, "", "  ")
	text = append(text, '\n')
	access.BytesOut = len(text)
	w.Header().Set("X-Amzn-RequestId", access.RequestID)
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(access.Status)
	_, writeErr := w.Write(text)
	if err == nil && writeErr != nil {
		access.Err = fmt.Errorf("couldn't write the response: %w", writeErr)
	}
	access.Duration = s.Now().Sub(start)
	s.Observe(access)
}

// check says why a request isn't answered, and sets its caller and operation.
func (s *Service) check(w http.ResponseWriter, r *http.Request, access *awsapi.Access) error {
	claim, err := s.Verifier.Parse(r)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return &awsapi.APIError{Code: "MalformedHttpRequestException", Status: http.StatusBadRequest,
			Message: fmt.Sprintf("The request's body couldn't be read, or has more than %d bytes.", maxBody)}
	}
	access.BytesIn = len(body)
	identity, err := s.Verifier.Verify(r.Context(), claim, r, body)
	if err != nil {
		return err
	}
	access.Caller = awsapi.Caller{Account: identity.Key.Account, Region: identity.Region, AccessKeyID: identity.Key.ID,
		PrincipalARN: identity.Key.PrincipalARN, RequestID: access.RequestID, SourceIP: addressOf(r)}
	if !s.Allow(access.Caller, operation) {
		return &awsapi.APIError{Code: "Throttling", Status: http.StatusBadRequest, Message: "Rate exceeded"}
	}
	text := r.URL.RawQuery
	if r.Method == http.MethodPost {
		text = string(body)
	}
	parameters, err := url.ParseQuery(text)
	if err != nil {
		return &awsapi.APIError{Code: "MalformedQueryString", Status: http.StatusBadRequest, Message: "The request's parameters aren't well formed."}
	}
	action := parameters.Get("Action")
	switch {
	case action == "":
		return &awsapi.APIError{Code: "MissingAction", Status: http.StatusBadRequest, Message: "The request has no parameter Action."}
	case parameters.Get("Version") != version:
		return &awsapi.APIError{Code: "InvalidAction", Status: http.StatusBadRequest, Message: fmt.Sprintf(
			"Could not find operation %s for version %s: the version is %s.", imprint.Excerpt(action), imprint.Excerpt(parameters.Get("Version")), version)}
	case action != operation:
		return &awsapi.APIError{Code: "InvalidAction", Status: http.StatusBadRequest, Message: fmt.Sprintf(
			"Imprint doesn't offer %s: of AWS STS it has %s alone. It has no roles and no temporary credentials: give each user a key of its own (imprint user key add).",
			imprint.Excerpt(action), operation)}
	}
	access.Operation = operation
	return nil
}

// codes are the names that STS has for the refusals of signatures.
var codes = map[string]string{
	sigv4.CodeMissing:      "MissingAuthenticationToken",
	sigv4.CodeIncomplete:   "IncompleteSignature",
	sigv4.CodeInvalid:      "SignatureDoesNotMatch",
	sigv4.CodeUnrecognized: "InvalidClientTokenId",
	sigv4.CodeExpired:      "ExpiredToken",
}

func outward(err error) *awsapi.APIError {
	var api *awsapi.APIError
	if errors.As(err, &api) {
		return api
	}
	var refused *sigv4.Error
	if errors.As(err, &refused) {
		return &awsapi.APIError{Code: codes[refused.Code], Status: http.StatusForbidden, Message: refused.Message}
	}
	return &awsapi.APIError{Code: "InternalFailure", Status: http.StatusInternalServerError,
		Message: "An internal error occurred. The server's log has the reason under this request id."}
}

// userID makes an id of IAM's shape: 21 characters that begin with AIDA.
func userID(arn string) string {
	sum := sha256.Sum256([]byte(arn))
	return "AIDA" + base32.StdEncoding.EncodeToString(sum[:])[:17]
}

func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
