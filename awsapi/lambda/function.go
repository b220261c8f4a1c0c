package lambda

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/functions"
)

// configuration shows a function under the qualifier that it was asked for.
func configuration(f imprint.Function, qualifier string) Configuration {
	out := Configuration{
		FunctionName: string(f.Name), FunctionARN: f.Tenant.FunctionARN(f.Name), Runtime: f.Runtime, Role: f.Role, Handler: f.Handler,
		CodeSize: f.CodeSize, Description: &f.Description, Timeout: int(f.Timeout / time.Second), MemorySize: f.MemoryMB,
		LastModified: f.ModifiedAt.UTC().Format("2006-01-02T15:04:05.000+0000"), Version: f.Version, RevisionID: f.RevisionID,
		State: "Active", LastUpdateStatus: "Successful", PackageType: "Zip", Architectures: []string{functions.Architecture()},
		TracingConfig: Tracing{Mode: "PassThrough"}, EphemeralStorage: Ephemeral{Size: 512},
	}
	if qualifier != "" {
		out.FunctionARN += ":" + qualifier
	}
	if len(f.Environment) > 0 {
		out.Environment = &Environment{Variables: f.Environment}
	}
	sum, err := hex.DecodeString(f.CodeSHA256)
	if err == nil {
		out.CodeSHA256 = base64.StdEncoding.EncodeToString(sum)
	}
	return out
}

// versionShown names a published version in the ARN.
func versionShown(f imprint.Function) string {
	if f.Version == imprint.LatestVersion {
		return ""
	}
	return f.Version
}

// oneLatest reads a name that must mean $LATEST: what changes a function.
func oneLatest(tenant imprint.Tenant, name string) (imprint.FunctionName, error) {
	found, qualifier, err := functions.ParseName(tenant, name, "")
	if err == nil && functions.PolicyQualifier(qualifier) != "" {
		err = imprint.Errorf(imprint.CodeInvalidRequest, "%q names a version, which can't be changed", imprint.Excerpt(name))
	}
	return found, err
}

// zipOf decodes the code and refuses other sources.
func zipOf(zip, bucket, image *string) ([]byte, error) {
	if bucket != nil || image != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "this server takes code as a zip file alone (--zip-file), not from S3 and not as an image")
	}
	data, err := base64.StdEncoding.DecodeString(text(zip))
	if err != nil {
		return nil, &awsapi.APIError{Code: awsapi.CodeSerialization, Status: http.StatusBadRequest, Message: "ZipFile must be base64."}
	}
	return data, nil
}

// refuseUnoffered refuses what would change how a function runs and isn't
// offered.
func refuseUnoffered(layers []string, letters *Target, systems []FileSystem) error {
	for what, given := range map[string]bool{
		"layers (put what they hold into the zip)": len(layers) > 0, "file systems": len(systems) > 0,
		"dead-letter queues": letters != nil && text(letters.TargetARN) != "",
	} {
		if given {
			return imprint.Errorf(imprint.CodeInvalidRequest, "this server doesn't offer %s", what)
		}
	}
	return nil
}

func checkArchitecture(list []string) error {
	if len(list) > 0 && list[0] != functions.Architecture() {
		return imprint.Errorf(imprint.CodeInvalidRequest, "this server's machine runs %s, not %s", functions.Architecture(), list[0])
	}
	return nil
}

func (s *Service) create(ctx context.Context, caller awsapi.Caller, in *CreateFunctionInput) (*Configuration, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err == nil {
		err = refuseUnoffered(in.Layers, in.DeadLetterConfig, in.FileSystemConfigs)
	}
	if err == nil {
		err = checkArchitecture(in.Architectures)
	}
	if err == nil && in.PackageType != nil && *in.PackageType != "Zip" {
		err = imprint.Errorf(imprint.CodeInvalidRequest, "this server doesn't offer container images: the package type must be Zip")
	}
	if err != nil {
		return nil, err
	}
	zip, err := zipOf(in.Code.ZipFile, in.Code.S3Bucket, in.Code.ImageURI)
	if err != nil {
		return nil, err
	}
	f := imprint.Function{
		Tenant: tenant, Name: name, Runtime: text(in.Runtime), Handler: text(in.Handler), Role: in.Role, Description: text(in.Description),
	}
	if in.Timeout != nil {
		f.Timeout = time.Duration(*in.Timeout) * time.Second
	}
	if in.MemorySize != nil {
		f.MemoryMB = *in.MemorySize
	}
	if in.Environment != nil {
		f.Environment = in.Environment.Variables
	}
	made, err := s.functions.Create(ctx, f, zip, isTrue(in.Publish), tagList(in.Tags)...)
	return shown(made, err)
}

func shown(f imprint.Function, err error) (*Configuration, error) {
	if err != nil {
		return nil, err
	}
	out := configuration(f, versionShown(f))
	return &out, nil
}

func (s *Service) updateCode(ctx context.Context, caller awsapi.Caller, in *UpdateCodeInput) (*Configuration, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err == nil {
		err = checkArchitecture(in.Architectures)
	}
	if err != nil {
		return nil, err
	}
	zip, err := zipOf(in.ZipFile, in.S3Bucket, in.ImageURI)
	if err != nil {
		return nil, err
	}
	return shown(s.functions.UpdateCode(ctx, tenant, name, zip, text(in.RevisionID), isTrue(in.Publish), isTrue(in.DryRun)))
}

func (s *Service) updateConfiguration(ctx context.Context, caller awsapi.Caller, in *UpdateConfigurationInput) (*Configuration, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err == nil {
		err = refuseUnoffered(in.Layers, in.DeadLetterConfig, in.FileSystemConfigs)
	}
	if err != nil {
		return nil, err
	}
	return shown(s.functions.UpdateSettings(ctx, tenant, name, text(in.RevisionID), func(f *imprint.Function) {
		for _, member := range []struct{ to, from *string }{
			{&f.Runtime, in.Runtime}, {&f.Role, in.Role}, {&f.Handler, in.Handler}, {&f.Description, in.Description},
		} {
			if member.from != nil {
				*member.to = *member.from
			}
		}
		if in.Timeout != nil {
			f.Timeout = time.Duration(*in.Timeout) * time.Second
		}
		if in.MemorySize != nil {
			f.MemoryMB = *in.MemorySize
		}
		if in.Environment != nil {
			f.Environment = in.Environment.Variables
		}
	}))
}

// find gives what a name and a qualifier mean, with the qualifier.
func (s *Service) find(ctx context.Context, caller awsapi.Caller, name string, qualifier *string) (imprint.Function, string, error) {
	tenant := tenantOf(caller)
	parsed, named, err := functions.ParseName(tenant, name, text(qualifier))
	if err != nil {
		return imprint.Function{}, "", err
	}
	f, err := s.functions.Get(ctx, tenant, parsed, named)
	return f, named, err
}

func (s *Service) get(ctx context.Context, caller awsapi.Caller, in *NameInput) (*GetFunctionOutput, error) {
	f, qualifier, err := s.find(ctx, caller, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	out := &GetFunctionOutput{Configuration: configuration(f, qualifier), Code: CodeLocation{RepositoryType: "S3"}}
	if f.Concurrency >= 0 {
		out.Concurrency = &Concurrency{Reserved: &f.Concurrency}
	}
	tags, err := s.functions.Tags(ctx, f.Tenant, f.Name)
	if err != nil {
		return nil, err
	}
	out.Tags = tagMap(tags)
	return out, nil
}

func (s *Service) getConfiguration(ctx context.Context, caller awsapi.Caller, in *NameInput) (*Configuration, error) {
	f, qualifier, err := s.find(ctx, caller, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	out := configuration(f, qualifier)
	return &out, nil
}

// defaultPage is AWS Lambda's, and its most.
const defaultPage = 50

func page(marker *string, size *int) imprint.Page {
	p := imprint.Page{Limit: defaultPage, Cursor: text(marker), Ascending: true}
	if size != nil {
		p.Limit = min(*size, defaultPage)
	}
	return p
}

func (s *Service) list(ctx context.Context, caller awsapi.Caller, in *ListInput) (*ListOutput, error) {
	list, next, err := s.functions.List(ctx, tenantOf(caller), in.FunctionVersion != nil, page(in.Marker, in.MaxItems))
	if err != nil {
		return nil, err
	}
	return &ListOutput{Functions: configurations(list), NextMarker: next}, nil
}

// configurations shows a list, in which every version has its qualifier.
func configurations(list []imprint.Function) []Configuration {
	out := make([]Configuration, 0, len(list))
	for _, f := range list {
		out = append(out, configuration(f, versionShown(f)))
	}
	return out
}

func (s *Service) listVersions(ctx context.Context, caller awsapi.Caller, in *ListVersionsInput) (*ListVersionsOutput, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err != nil {
		return nil, err
	}
	list, next, err := s.functions.Versions(ctx, tenant, name, page(in.Marker, in.MaxItems))
	if err != nil {
		return nil, err
	}
	out := &ListVersionsOutput{Versions: configurations(list), NextMarker: next}
	for i := range out.Versions {
		if out.Versions[i].Version == imprint.LatestVersion {
			out.Versions[i].FunctionARN += ":" + imprint.LatestVersion
		}
	}
	return out, nil
}

func (s *Service) delete(ctx context.Context, caller awsapi.Caller, in *NameInput) (*Nothing, error) {
	tenant := tenantOf(caller)
	name, qualifier, err := functions.ParseName(tenant, in.FunctionName, text(in.Qualifier))
	if err != nil {
		return nil, err
	}
	return nil, s.functions.Delete(ctx, tenant, name, qualifier)
}

func (s *Service) publish(ctx context.Context, caller awsapi.Caller, in *PublishInput) (*Configuration, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err != nil {
		return nil, err
	}
	return shown(s.functions.Publish(ctx, tenant, name, text(in.CodeSHA256), text(in.Description), text(in.RevisionID)))
}

func (s *Service) putConcurrency(ctx context.Context, caller awsapi.Caller, in *PutConcurrencyInput) (*Concurrency, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err != nil {
		return nil, err
	}
	err = s.functions.SetConcurrency(ctx, tenant, name, in.Reserved)
	return &Concurrency{Reserved: &in.Reserved}, err
}

func (s *Service) getConcurrency(ctx context.Context, caller awsapi.Caller, in *NameInput) (*Concurrency, error) {
	f, _, err := s.find(ctx, caller, in.FunctionName, nil)
	if err != nil || f.Concurrency < 0 {
		return nil, err
	}
	return &Concurrency{Reserved: &f.Concurrency}, nil
}

func (s *Service) deleteConcurrency(ctx context.Context, caller awsapi.Caller, in *NameInput) (*Nothing, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err != nil {
		return nil, err
	}
	return nil, s.functions.SetConcurrency(ctx, tenant, name, -1)
}

// invoke runs a function as an operator asks: at once, later, or not at all.
func (s *Service) invoke(ctx context.Context, caller awsapi.Caller, in *InvokeInput) (awsapi.Answer, error) {
	tenant := tenantOf(caller)
	name, qualifier, err := functions.ParseName(tenant, in.FunctionName, text(in.Qualifier))
	if err != nil {
		return awsapi.Answer{}, err
	}
	call := imprint.FunctionCall{Tenant: tenant, ARN: tenant.FunctionARN(name), Payload: in.Payload}
	if qualifier != "" {
		call.ARN += ":" + qualifier
	}
	switch text(in.InvocationType) {
	case "DryRun":
		return awsapi.Answer{Status: http.StatusNoContent}, contentError(s.functions.Check(ctx, call))
	case "Event":
		return awsapi.Answer{Status: http.StatusAccepted}, contentError(s.functions.InvokeLater(ctx, call))
	}
	result, err := s.functions.Invoke(ctx, call)
	failed := imprint.CodeOf(err) == imprint.CodeFunctionFailed || imprint.CodeOf(err) == imprint.CodeFunctionTimeout
	if err != nil && (!failed || result.Payload == nil) {
		return awsapi.Answer{}, contentError(err)
	}
	header := http.Header{"X-Amz-Executed-Version": {result.Version}}
	if failed {
		header.Set("X-Amz-Function-Error", "Unhandled")
	}
	if text(in.LogType) == "Tail" {
		header.Set("X-Amz-Log-Result", base64.StdEncoding.EncodeToString([]byte(result.Log)))
	}
	return awsapi.Answer{Status: http.StatusOK, Header: header, Body: result.Payload}, nil
}

// contentError gives what is wrong with an event the name that Invoke has for
// it.
func contentError(err error) error {
	var e *imprint.Error
	if imprint.CodeOf(err) == imprint.CodeInvalidRequest && errors.As(err, &e) {
		return &awsapi.APIError{Code: "InvalidRequestContentException", Status: http.StatusBadRequest, Message: e.Error(),
			Extra: map[string]string{"Type": "User"}}
	}
	return err
}
