package lambda

import "github.com/imprint-iot/imprint/awsapi/restjson"

// NameInput is the request of operations that name a function and no more.
type NameInput struct {
	FunctionName string  `api:"path FunctionName NamespacedFunctionName required"`
	Qualifier    *string `api:"query Qualifier Qualifier"`
}

// Code is where a function's code comes from. ZipFile is base64.
type Code struct {
	ZipFile  *string `api:"body ZipFile Blob"`
	S3Bucket *string `api:"body S3Bucket String"`
	ImageURI *string `api:"body ImageUri String"`
}

// Environment is the variables of a function.
type Environment struct {
	Variables map[string]string `api:"body Variables EnvironmentVariables"`
}

// Target is where a dead letter would go.
type Target struct {
	TargetARN *string `api:"body TargetArn String"`
}

// FileSystem is a file system that a function would mount.
type FileSystem struct {
	ARN *string `api:"body Arn String"`
}

// CreateFunctionInput is the request of CreateFunction.
type CreateFunctionInput struct {
	FunctionName      string            `api:"body FunctionName FunctionName required"`
	Runtime           *string           `api:"body Runtime String"`
	Role              string            `api:"body Role RoleArn required"`
	Handler           *string           `api:"body Handler Handler"`
	Code              Code              `api:"body Code FunctionCode required"`
	Description       *string           `api:"body Description Description"`
	Timeout           *int              `api:"body Timeout Timeout"`
	MemorySize        *int              `api:"body MemorySize MemorySize"`
	Publish           *bool             `api:"body Publish Boolean"`
	PackageType       *string           `api:"body PackageType String"`
	Environment       *Environment      `api:"body Environment Environment"`
	Architectures     []string          `api:"body Architectures Architectures"`
	Layers            []string          `api:"body Layers Layers"`
	DeadLetterConfig  *Target           `api:"body DeadLetterConfig DeadLetterConfig"`
	FileSystemConfigs []FileSystem      `api:"body FileSystemConfigs FileSystemConfigs"`
	Tags              map[string]string `api:"body Tags Tags"`
}

// UpdateCodeInput is the request of UpdateFunctionCode.
type UpdateCodeInput struct {
	FunctionName  string   `api:"path FunctionName NamespacedFunctionName required"`
	ZipFile       *string  `api:"body ZipFile Blob"`
	S3Bucket      *string  `api:"body S3Bucket String"`
	ImageURI      *string  `api:"body ImageUri String"`
	Publish       *bool    `api:"body Publish Boolean"`
	DryRun        *bool    `api:"body DryRun Boolean"`
	RevisionID    *string  `api:"body RevisionId String"`
	Architectures []string `api:"body Architectures Architectures"`
}

// UpdateConfigurationInput is the request of UpdateFunctionConfiguration.
type UpdateConfigurationInput struct {
	FunctionName      string       `api:"path FunctionName NamespacedFunctionName required"`
	Runtime           *string      `api:"body Runtime String"`
	Role              *string      `api:"body Role RoleArn"`
	Handler           *string      `api:"body Handler Handler"`
	Description       *string      `api:"body Description Description"`
	Timeout           *int         `api:"body Timeout Timeout"`
	MemorySize        *int         `api:"body MemorySize MemorySize"`
	Environment       *Environment `api:"body Environment Environment"`
	RevisionID        *string      `api:"body RevisionId String"`
	Layers            []string     `api:"body Layers Layers"`
	DeadLetterConfig  *Target      `api:"body DeadLetterConfig DeadLetterConfig"`
	FileSystemConfigs []FileSystem `api:"body FileSystemConfigs FileSystemConfigs"`
}

// Configuration is a function's version as the API shows it.
type Configuration struct {
	FunctionName     string       `api:"body FunctionName String"`
	FunctionARN      string       `api:"body FunctionArn String"`
	Runtime          string       `api:"body Runtime String"`
	Role             string       `api:"body Role String"`
	Handler          string       `api:"body Handler String"`
	CodeSize         int64        `api:"body CodeSize Long"`
	Description      *string      `api:"body Description String"`
	Timeout          int          `api:"body Timeout Timeout"`
	MemorySize       int          `api:"body MemorySize MemorySize"`
	LastModified     string       `api:"body LastModified String"`
	CodeSHA256       string       `api:"body CodeSha256 String"`
	Version          string       `api:"body Version String"`
	Environment      *Environment `api:"body Environment Environment"`
	RevisionID       string       `api:"body RevisionId String"`
	State            string       `api:"body State String"`
	LastUpdateStatus string       `api:"body LastUpdateStatus String"`
	PackageType      string       `api:"body PackageType String"`
	Architectures    []string     `api:"body Architectures Architectures"`
	TracingConfig    Tracing      `api:"body TracingConfig TracingConfig"`
	EphemeralStorage Ephemeral    `api:"body EphemeralStorage EphemeralStorage"`
}

// Tracing says that nothing is traced by X-Ray.
type Tracing struct {
	Mode string `api:"body Mode String"`
}

// Ephemeral is the size of one file that a process may write, in MB.
type Ephemeral struct {
	Size int `api:"body Size Integer"`
}

// GetFunctionOutput is the response of GetFunction.
type GetFunctionOutput struct {
	Configuration Configuration `api:"body Configuration FunctionConfiguration"`
	Code          CodeLocation  `api:"body Code FunctionCodeLocation"`
	Concurrency   *Concurrency  `api:"body Concurrency Concurrency"`
	// Tags are nil for a function without.
	Tags map[string]string `api:"body Tags Tags"`
}

// CodeSigningOutput is the response of GetFunctionCodeSigningConfig: no code is signed here.
type CodeSigningOutput struct {
	ConfigARN    string `api:"body CodeSigningConfigArn String"`
	FunctionName string `api:"body FunctionName String"`
}

// TagsInput is the request of ListTags.
type TagsInput struct {
	Resource string `api:"path Resource NamespacedFunctionName required"`
}

// TagsOutput is its response.
type TagsOutput struct {
	Tags map[string]string `api:"body Tags Tags"`
}

// TagInput is the request of TagResource.
type TagInput struct {
	Resource string            `api:"path Resource NamespacedFunctionName required"`
	Tags     map[string]string `api:"body Tags Tags required"`
}

// UntagInput is the request of UntagResource.
type UntagInput struct {
	Resource string   `api:"path Resource NamespacedFunctionName required"`
	Keys     []string `api:"query tagKeys TagKeys required"`
}

// CodeLocation says where the code is kept; it can't be fetched.
type CodeLocation struct {
	RepositoryType string `api:"body RepositoryType String"`
}

// Concurrency is how many runs may be under way at once.
type Concurrency struct {
	Reserved *int `api:"body ReservedConcurrentExecutions Integer"`
}

// PutConcurrencyInput is the request of PutFunctionConcurrency.
type PutConcurrencyInput struct {
	FunctionName string `api:"path FunctionName NamespacedFunctionName required"`
	Reserved     int    `api:"body ReservedConcurrentExecutions Reserved required"`
}

// ListInput is the request of ListFunctions.
type ListInput struct {
	FunctionVersion *string `api:"query FunctionVersion FunctionVersion"`
	Marker          *string `api:"query Marker Marker"`
	MaxItems        *int    `api:"query MaxItems MaxItems"`
}

// ListOutput is its response.
type ListOutput struct {
	Functions  []Configuration `api:"body Functions FunctionList"`
	NextMarker string          `api:"body NextMarker String"`
}

// ListVersionsInput is the request of ListVersionsByFunction.
type ListVersionsInput struct {
	FunctionName string  `api:"path FunctionName NamespacedFunctionName required"`
	Marker       *string `api:"query Marker Marker"`
	MaxItems     *int    `api:"query MaxItems MaxItems"`
}

// ListVersionsOutput is its response.
type ListVersionsOutput struct {
	Versions   []Configuration `api:"body Versions FunctionList"`
	NextMarker string          `api:"body NextMarker String"`
}

// PublishInput is the request of PublishVersion.
type PublishInput struct {
	FunctionName string  `api:"path FunctionName NamespacedFunctionName required"`
	CodeSHA256   *string `api:"body CodeSha256 String"`
	Description  *string `api:"body Description Description"`
	RevisionID   *string `api:"body RevisionId String"`
}

// InvokeInput is the request of Invoke.
type InvokeInput struct {
	FunctionName   string  `api:"path FunctionName NamespacedFunctionName required"`
	Qualifier      *string `api:"query Qualifier Qualifier"`
	InvocationType *string `api:"header X-Amz-Invocation-Type InvocationType"`
	LogType        *string `api:"header X-Amz-Log-Type LogType"`
	Payload        []byte  `api:"blob Payload Blob"`
}

// Nothing is the response of operations without one.
type Nothing struct{}

// AddPermissionInput is the request of AddPermission.
type AddPermissionInput struct {
	FunctionName        string  `api:"path FunctionName NamespacedFunctionName required"`
	Qualifier           *string `api:"query Qualifier Qualifier"`
	StatementID         string  `api:"body StatementId StatementId required"`
	Action              string  `api:"body Action Action required"`
	Principal           string  `api:"body Principal Principal required"`
	SourceARN           *string `api:"body SourceArn SourceArn"`
	SourceAccount       *string `api:"body SourceAccount SourceAccount"`
	RevisionID          *string `api:"body RevisionId String"`
	EventSourceToken    *string `api:"body EventSourceToken String"`
	PrincipalOrgID      *string `api:"body PrincipalOrgID String"`
	FunctionURLAuthType *string `api:"body FunctionUrlAuthType String"`
}

// AddPermissionOutput is its response: the statement as JSON.
type AddPermissionOutput struct {
	Statement string `api:"body Statement String"`
}

// RemovePermissionInput is the request of RemovePermission.
type RemovePermissionInput struct {
	FunctionName string  `api:"path FunctionName NamespacedFunctionName required"`
	StatementID  string  `api:"path StatementId NamespacedStatementId required"`
	Qualifier    *string `api:"query Qualifier Qualifier"`
	RevisionID   *string `api:"query RevisionId String"`
}

// GetPolicyOutput is the response of GetPolicy: the policy as JSON.
type GetPolicyOutput struct {
	Policy     string `api:"body Policy String"`
	RevisionID string `api:"body RevisionId String"`
}

// Routing would spread an alias over two versions. It is read to be refused, so
// the weights' fractions don't matter.
type Routing struct {
	Weights map[string]int `api:"body AdditionalVersionWeights Weights"`
}

// CreateAliasInput is the request of CreateAlias.
type CreateAliasInput struct {
	FunctionName    string   `api:"path FunctionName NamespacedFunctionName required"`
	Name            string   `api:"body Name Alias required"`
	FunctionVersion string   `api:"body FunctionVersion Version required"`
	Description     *string  `api:"body Description Description"`
	RoutingConfig   *Routing `api:"body RoutingConfig Routing"`
}

// AliasInput is the request of GetAlias and DeleteAlias.
type AliasInput struct {
	FunctionName string `api:"path FunctionName NamespacedFunctionName required"`
	Name         string `api:"path Name Alias required"`
}

// UpdateAliasInput is the request of UpdateAlias.
type UpdateAliasInput struct {
	FunctionName    string   `api:"path FunctionName NamespacedFunctionName required"`
	Name            string   `api:"path Name Alias required"`
	FunctionVersion *string  `api:"body FunctionVersion Version"`
	Description     *string  `api:"body Description Description"`
	RevisionID      *string  `api:"body RevisionId String"`
	RoutingConfig   *Routing `api:"body RoutingConfig Routing"`
}

// Alias is an alias as the API shows it.
type Alias struct {
	AliasARN        string  `api:"body AliasArn String"`
	Name            string  `api:"body Name String"`
	FunctionVersion string  `api:"body FunctionVersion String"`
	Description     *string `api:"body Description String"`
	RevisionID      string  `api:"body RevisionId String"`
}

// ListAliasesInput is the request of ListAliases.
type ListAliasesInput struct {
	FunctionName    string  `api:"path FunctionName NamespacedFunctionName required"`
	FunctionVersion *string `api:"query FunctionVersion Version"`
	Marker          *string `api:"query Marker Marker"`
	MaxItems        *int    `api:"query MaxItems MaxItems"`
}

// ListAliasesOutput is its response.
type ListAliasesOutput struct {
	Aliases    []Alias `api:"body Aliases AliasList"`
	NextMarker string  `api:"body NextMarker String"`
}

// The constraints are those of the API's model, but for names, which package
// functions reads.
var codec = restjson.New(restjson.Shapes{
	"FunctionName":             {Limits: restjson.Between(1, 140)},
	"NamespacedFunctionName":   {Limits: restjson.Between(1, 256)},
	"Qualifier":                {Limits: restjson.Between(1, 128), Pattern: `(|[a-zA-Z0-9$_-]+)`},
	"RoleArn":                  {Limits: restjson.Between(1, 2048), Pattern: `arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+`},
	"Handler":                  {Limits: restjson.AtMost(2048), Pattern: `[^\s]+`},
	"Description":              {Limits: restjson.AtMost(256)},
	"Timeout":                  {Limits: restjson.Between(1, 900)},
	"MemorySize":               {Limits: restjson.Between(128, 10240)},
	"Blob":                     {Sensitive: true},
	"EnvironmentVariables":     {Key: "EnvironmentVariableName", Value: "EnvironmentVariableValue"},
	"EnvironmentVariableName":  {Sensitive: true, Limits: restjson.AtMost(4096)},
	"EnvironmentVariableValue": {Sensitive: true, Limits: restjson.AtMost(4096)},
	"Tags":                     {Key: "TagKey", Value: "TagValue"},
	"TagKeys":                  {Member: "TagKey"},
	"TagKey":                   {Limits: restjson.Between(1, 128)},
	"TagValue":                 {Limits: restjson.AtMost(256)},
	"Architectures":            {Limits: restjson.Between(1, 1), Member: "Architecture"},
	"Architecture":             {Enum: []string{"x86_64", "arm64"}},
	"Layers":                   {Limits: restjson.AtMost(100), Member: "String"},
	"FileSystemConfigs":        {Limits: restjson.AtMost(10)},
	"FunctionVersion":          {Enum: []string{"ALL"}},
	"Marker":                   {Limits: restjson.AtMost(4096)},
	"MaxItems":                 {Limits: restjson.Between(1, 10_000)},
	"Reserved":                 {Limits: restjson.AtLeast(0)},
	"InvocationType":           {Enum: []string{"Event", "RequestResponse", "DryRun"}},
	"LogType":                  {Enum: []string{"None", "Tail"}},
	"StatementId":              {Limits: restjson.Between(1, 100), Pattern: `([a-zA-Z0-9-_]+)`, RE2: `([a-zA-Z0-9_-]+)`},
	"NamespacedStatementId":    {Limits: restjson.Between(1, 100), Pattern: `([a-zA-Z0-9-_.]+)`, RE2: `([a-zA-Z0-9_.-]+)`},
	"Action":                   {Limits: restjson.AtMost(256), Pattern: `(lambda:[*]|lambda:[a-zA-Z]+|[*])`},
	"Principal":                {Limits: restjson.Between(1, 256), Pattern: `[^\s]+`},
	"SourceArn":                {Limits: restjson.AtMost(2048), Pattern: `arn:[^:]*:[^:]*:[^:]*:[^:]*:.*`},
	"SourceAccount":            {Limits: restjson.AtMost(12), Pattern: `\d{12}`},
	"Alias":                    {Limits: restjson.Between(1, 128), Pattern: `(?!^[0-9]+$)([a-zA-Z0-9-_]+)`, RE2: `([a-zA-Z0-9_-]+)`},
	"Version":                  {Limits: restjson.Between(1, 1024), Pattern: `(\$LATEST|[0-9]+)`},
	"String":                   {Limits: restjson.AtMost(4096)},
}, "InvalidParameterValueException")
