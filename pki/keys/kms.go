//go:build awskms

package keys

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/imprint-iot/imprint"
)

// kmsKey is a key in AWS KMS.
type kmsKey struct {
	client *kms.Client
	arn    string
}

// kmsClient makes a client. Credentials come from where AWS's SDK looks: environment,
// shared files, the instance's or container's role.
func kmsClient(ctx context.Context, uri URI) (*kms.Client, error) {
	var options []func(*config.LoadOptions) error
	if uri.region != "" {
		options = append(options, config.WithRegion(uri.region))
	}
	settings, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't read AWS's settings: %w", err).
			WithHint("Look at the files in ~/.aws and the AWS_ variables of the server.")
	}
	if settings.Region == "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "no region is given for AWS KMS").WithHint("Add ;region=REGION to the URI.")
	}
	return kms.NewFromConfig(settings, func(o *kms.Options) {
		if uri.endpoint != "" {
			o.BaseEndpoint = aws.String(uri.endpoint)
		}
	}), nil
}

func openKMS(ctx context.Context, uri URI, settings Config) (Signer, error) {
	if uri.keyID == "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the URI names no key").WithHint("Add key-id=, an id, an ARN or alias/NAME, to the URI.")
	}
	client, err := kmsClient(ctx, uri)
	if err != nil {
		return nil, err
	}
	answer, err := client.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(uri.keyID)})
	if err != nil {
		return nil, explainKMS(ctx, "couldn't get the public key", err)
	}
	public, _, err := kmsPublic(answer)
	if err != nil {
		return nil, err
	}
	// The ARN, so that an alias that is pointed elsewhere doesn't change the key.
	return &remoteSigner{uri: uri, public: public, timeout: settings.Timeout, key: &kmsKey{client: client, arn: aws.ToString(answer.KeyId)}}, nil
}

// kmsPublic reads a public key that may sign.
func kmsPublic(answer *kms.GetPublicKeyOutput) (crypto.PublicKey, Kind, error) {
	if answer.KeyUsage != types.KeyUsageTypeSignVerify {
		return nil, "", imprint.Errorf(imprint.CodeKeyRefused, "the key is for %s, not for signing", imprint.Excerpt(string(answer.KeyUsage)))
	}
	public, err := x509.ParsePKIXPublicKey(answer.PublicKey)
	if err != nil {
		return nil, "", imprint.Errorf(imprint.CodeKeyRefused, "couldn't read the public key: %w", err)
	}
	kind, known := KindOf(public)
	if !known {
		return nil, "", imprint.Errorf(imprint.CodeKeyRefused, "the key isn't P-256, P-384 or RSA with 2048, 3072 or 4096 bits")
	}
	return public, kind, nil
}

var kmsAlgorithms = map[scheme]map[crypto.Hash]types.SigningAlgorithmSpec{
	schemeECDSA: {crypto.SHA256: types.SigningAlgorithmSpecEcdsaSha256, crypto.SHA384: types.SigningAlgorithmSpecEcdsaSha384},
	schemePKCS1: {crypto.SHA256: types.SigningAlgorithmSpecRsassaPkcs1V15Sha256, crypto.SHA384: types.SigningAlgorithmSpecRsassaPkcs1V15Sha384, crypto.SHA512: types.SigningAlgorithmSpecRsassaPkcs1V15Sha512},
	schemePSS:   {crypto.SHA256: types.SigningAlgorithmSpecRsassaPssSha256, crypto.SHA384: types.SigningAlgorithmSpecRsassaPssSha384, crypto.SHA512: types.SigningAlgorithmSpecRsassaPssSha512},
}

func (k *kmsKey) sign(ctx context.Context, j job) ([]byte, error) {
	algorithm, known := kmsAlgorithms[j.scheme][j.hash]
	if !known {
		return nil, imprint.Errorf(imprint.CodeKeyRefused, "AWS KMS doesn't sign %v with this key", j.hash).WithHint("P-256 goes with SHA-256, P-384 with SHA-384.")
	}
	answer, err := k.client.Sign(ctx, &kms.SignInput{KeyId: aws.String(k.arn), Message: j.digest, MessageType: types.MessageTypeDigest, SigningAlgorithm: algorithm})
	if err != nil {
		return nil, explainKMS(ctx, "the signature failed", err)
	}
	return answer.Signature, nil
}

func (k *kmsKey) close() error { return nil }

var kmsSpecs = map[Kind]types.KeySpec{
	P256: types.KeySpecEccNistP256, P384: types.KeySpecEccNistP384, RSA2048: types.KeySpecRsa2048, RSA3072: types.KeySpecRsa3072, RSA4096: types.KeySpecRsa4096,
}

// generateKMS makes a key. An alias in the URI becomes the new key's; other ids are
// AWS's to give.
func generateKMS(ctx context.Context, uri URI, kind Kind, settings Config) (Signer, URI, error) {
	if uri.keyID != "" && !strings.HasPrefix(uri.keyID, "alias/") {
		return nil, URI{}, imprint.Errorf(imprint.CodeInvalidRequest, "AWS KMS chooses the ids of its keys").WithHint("Write key-id=alias/NAME, or leave key-id out.")
	}
	client, err := kmsClient(ctx, uri)
	if err != nil {
		return nil, URI{}, err
	}
	if uri.keyID != "" {
		// Before the key is made: one without a name costs money unseen.
		_, err = client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String(uri.keyID)})
		var missing *types.NotFoundException
		if err == nil {
			return nil, URI{}, imprint.Errorf(imprint.CodeAlreadyExists, "%s is there already", uri.keyID).WithHint("Choose another alias.")
		}
		if !errors.As(err, &missing) {
			return nil, URI{}, explainKMS(ctx, "couldn't look for the alias", err)
		}
	}
	made, err := client.CreateKey(ctx, &kms.CreateKeyInput{KeySpec: kmsSpecs[kind], KeyUsage: types.KeyUsageTypeSignVerify, Description: aws.String("CA key of Imprint")})
	if err != nil {
		return nil, URI{}, explainKMS(ctx, "couldn't make the key", err)
	}
	if made.KeyMetadata == nil || aws.ToString(made.KeyMetadata.Arn) == "" {
		return nil, URI{}, imprint.Errorf(imprint.CodeKeyUnavailable, "AWS KMS made a key and didn't say which")
	}
	if uri.keyID != "" {
		_, err = client.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String(uri.keyID), TargetKeyId: made.KeyMetadata.KeyId})
		if err != nil {
			return nil, URI{}, explainKMS(ctx, fmt.Sprintf("made the key %s, but couldn't give it its alias", aws.ToString(made.KeyMetadata.Arn)), err)
		}
	}
	uri.keyID = aws.ToString(made.KeyMetadata.Arn)
	signer, err := openKMS(ctx, uri, settings)
	return signer, uri, err
}

func listKMS(ctx context.Context, uri URI, _ Config) ([]Info, error) {
	client, err := kmsClient(ctx, uri)
	if err != nil {
		return nil, err
	}
	ids := []string{uri.keyID}
	if uri.keyID == "" {
		answer, err := client.ListKeys(ctx, &kms.ListKeysInput{Limit: aws.Int32(maxListed)})
		if err != nil {
			return nil, explainKMS(ctx, "couldn't list keys", err)
		}
		ids = nil
		for _, key := range answer.Keys {
			ids = append(ids, aws.ToString(key.KeyArn))
		}
	}
	var list []Info
	for _, id := range ids {
		info := Info{URI: uri}
		info.URI.keyID = id
		answer, err := client.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(id)})
		var unsupported *types.UnsupportedOperationException
		if errors.As(err, &unsupported) {
			// Symmetric keys are none of ours.
			continue
		}
		if err == nil {
			info.Public, info.Kind, err = kmsPublic(answer)
		} else if ctx.Err() != nil {
			return nil, explainKMS(ctx, "couldn't get a public key", err)
		}
		if err != nil {
			info.Problem = err.Error()
		}
		list = append(list, info)
	}
	return list, nil
}

// explainKMS gives an error of AWS's SDK a code.
func explainKMS(ctx context.Context, what string, err error) error {
	var missing *types.NotFoundException
	var state *types.KMSInvalidStateException
	var disabled *types.DisabledException
	var usage *types.InvalidKeyUsageException
	switch {
	case ctx.Err() != nil:
		// The SDK's words hide which of its tries it was.
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case errors.As(err, &missing):
		return imprint.Errorf(imprint.CodeNotFound, "%s: AWS KMS has no such key: %w", what, err).WithHint("Look at key-id= and region= in the URI: aws kms list-aliases --region REGION.")
	case errors.As(err, &state), errors.As(err, &disabled), errors.As(err, &usage):
		return imprint.Errorf(imprint.CodeKeyRefused, "%s: %w", what, err).WithHint("aws kms describe-key --key-id KEY tells the key's state and usage.")
	}
	var answer interface{ ErrorCode() string }
	if errors.As(err, &answer) && strings.Contains(answer.ErrorCode(), "AccessDenied") {
		return imprint.Errorf(imprint.CodeKeyRefused, "%s: AWS doesn't allow it: %w", what, err).
			WithHint("The server's identity needs kms:GetPublicKey and kms:Sign on the key; to make keys also kms:CreateKey, kms:CreateAlias and kms:DescribeKey.")
	}
	return imprint.Errorf(imprint.CodeKeyUnavailable, "%s: %w", what, err)
}
