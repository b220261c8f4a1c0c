// Package issuances is Imprint's own API for the log of issuances (package pki/translog):
//
//	GET  /imprint/issuance-log                                DescribeIssuanceLog
//	GET  /imprint/issuance-log/certificates/{certificateId}   ProveIssuance
//	GET  /imprint/issuance-log/files?path=                    ReadIssuanceLog
//	POST /imprint/issuance-log/audits                         StartIssuanceAudit
//	GET  /imprint/issuance-log/audits/{auditId}?from=         DescribeIssuanceAudit
//
// The requests are signed like every other of the control plane; the actions are
// imprint:DescribeIssuanceLog and so on, on any resource. One log has the certificates of all
// accounts. So ReadIssuanceLog and the audits are for callers of the server's first account
// alone; ProveIssuance proves certificates of the caller's account and region, with nothing of
// others but hashes.
//
// The checkpoint and the proof are signed texts, as C2SP's tlog-checkpoint and tlog-proof have
// them, the entry and a file are in base64: package pki/translog/tiles verifies them. Times are
// epoch seconds.
package issuances

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/pki/translog"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// Path is where the operations are.
const Path = "/imprint/issuance-log"

// The requests and responses.
type (
	// DescribeInput asks for the log's state.
	DescribeInput struct{}
	// DescribeOutput is that. Waiting certificates aren't in the log yet; the first of them
	// was prepared lagSeconds ago.
	DescribeOutput struct {
		Origin      string `api:"body origin String"`
		VerifierKey string `api:"body verifierKey String"`
		Checkpoint  string `api:"body checkpoint Text"`
		Entries     *int64 `api:"body entries Count"`
		Published   *int64 `api:"body published Count"`
		Waiting     *int64 `api:"body waiting Count"`
		LagSeconds  *int64 `api:"body lagSeconds Count"`
		Broken      *bool  `api:"body broken Flag"`
	}
	// ProveInput names a certificate.
	ProveInput struct {
		CertificateID string `api:"path certificateId CertificateID required"`
	}
	// ProveOutput proves that the log has it.
	ProveOutput struct {
		Index      *int64 `api:"body index Count"`
		IssuanceID string `api:"body issuanceId String"`
		Entry      string `api:"body entry String"`
		Proof      string `api:"body proof Text"`
	}
	// ReadInput names a file of the log, as tlog-tiles has it.
	ReadInput struct {
		Path string `api:"query path FilePath required"`
	}
	// ReadOutput is its content.
	ReadOutput struct {
		Content string `api:"body content String"`
	}
	// AuditInput has checkpoints that were kept: the log must begin with them.
	AuditInput struct {
		Checkpoints []string `api:"body checkpoints Checkpoints"`
	}
	// AuditOutput names an audit.
	AuditOutput struct {
		AuditID string `api:"body auditId String"`
	}
	// RunInput asks what an audit found, from a number of findings on.
	RunInput struct {
		AuditID string `api:"path auditId AuditID required"`
		From    *int   `api:"query from From"`
	}
	// RunOutput is that: RUNNING, COMPLETED or FAILED, with the message of why. Next is the
	// number to go on from.
	RunOutput struct {
		AuditID    string    `api:"body auditId String"`
		Status     string    `api:"body status String"`
		Message    string    `api:"body message String"`
		StartedAt  time.Time `api:"body startedAt Time"`
		EndedAt    time.Time `api:"body endedAt Time"`
		Checkpoint string    `api:"body checkpoint Text"`
		Summary    *Summary  `api:"body summary Summary"`
		Findings   []Finding `api:"body findings Findings"`
		Next       *int      `api:"body next Count"`
	}
)

// Summary is what an audit looked at, as translog.Audited has it.
type Summary struct {
	Entries      *int64 `api:"body entries Count"`
	Issuances    *int64 `api:"body issuances Count"`
	Certificates *int64 `api:"body certificates Count"`
	Ours         *int64 `api:"body ours Count"`
	Waiting      *int64 `api:"body waiting Count"`
	Unregistered *int64 `api:"body unregistered Count"`
	WithoutBytes *int64 `api:"body withoutBytes Count"`
	Unchecked    *int64 `api:"body unchecked Count"`
	Rechecked    *int64 `api:"body rechecked Count"`
	Findings     *int64 `api:"body findings Count"`
}

// Finding is one thing that doesn't agree, as translog.Finding has it.
type Finding struct {
	Kind          string `api:"body kind String"`
	Path          string `api:"body path String"`
	Account       string `api:"body account String"`
	Region        string `api:"body region String"`
	CertificateID string `api:"body certificateId String"`
	Issuance      string `api:"body issuance String"`
	Index         *int64 `api:"body index Count"`
	Problem       string `api:"body problem String"`
}

var codec = restjson.New(restjson.Shapes{
	"CertificateID": {Pattern: `[0-9a-f]{64}`},
	"FilePath":      {Limits: restjson.Between(1, 256)},
	"Checkpoints":   {Limits: restjson.AtMost(100), Member: "Checkpoint"},
	"Checkpoint":    {Limits: restjson.Between(1, 8192)},
	"AuditID":       {Pattern: `[A-Z2-7]{1,64}`},
	"From":          {Limits: restjson.Between(0, translog.FindingsKept)},
}, "InvalidRequestException")

func operation(name, method, path string) awsapi.Operation {
	return awsapi.Operation{Name: name, Method: method, Path: path, Action: "imprint:" + name, Resource: "*"}
}

// The operations.
var (
	DescribeIssuanceLog   = awsapi.Define[DescribeInput, DescribeOutput](codec, operation("DescribeIssuanceLog", "GET", Path))
	ProveIssuance         = awsapi.Define[ProveInput, ProveOutput](codec, operation("ProveIssuance", "GET", Path+"/certificates/{certificateId}"))
	ReadIssuanceLog       = awsapi.Define[ReadInput, ReadOutput](codec, operation("ReadIssuanceLog", "GET", Path+"/files"))
	StartIssuanceAudit    = awsapi.Define[AuditInput, AuditOutput](codec, operation("StartIssuanceAudit", "POST", Path+"/audits"))
	DescribeIssuanceAudit = awsapi.Define[RunInput, RunOutput](codec, operation("DescribeIssuanceAudit", "GET", Path+"/audits/{auditId}"))
)

// Operations lists what the package defines.
func Operations() []awsapi.Operation {
	return []awsapi.Operation{
		DescribeIssuanceLog.Operation, ProveIssuance.Operation, ReadIssuanceLog.Operation, StartIssuanceAudit.Operation, DescribeIssuanceAudit.Operation,
	}
}

// Reader answers the operations.
type Reader struct {
	// Log gives the log, or why there is none.
	Log     func() (*translog.Log, error)
	Store   imprint.Store
	Auditor *translog.Auditor
	// Home is the account whose callers may read what is of all accounts.
	Home imprint.AccountID
}

// Routes binds the operations.
func (r Reader) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(DescribeIssuanceLog, r.describe), awsapi.Handle(ProveIssuance, r.prove), awsapi.Handle(ReadIssuanceLog, r.read),
		awsapi.Handle(StartIssuanceAudit, r.audit), awsapi.Handle(DescribeIssuanceAudit, r.run),
	}
}

func (r Reader) onlyHome(caller awsapi.Caller) error {
	if imprint.AccountID(caller.Account) == r.Home {
		return nil
	}
	return imprint.Errorf(imprint.CodeAccessDenied, "the issuance log has the certificates of all accounts, and is read from the server's first account, %s", r.Home).
		WithHint("Use an access key of account %s; ProveIssuance proves certificates of your own.", r.Home)
}

func (r Reader) describe(context.Context, awsapi.Caller, *DescribeInput) (*DescribeOutput, error) {
	log, err := r.Log()
	if err != nil {
		return nil, err
	}
	c := log.Counters()
	return &DescribeOutput{
		Origin: log.Verifier().Origin(), VerifierKey: log.VerifierKey(), Checkpoint: string(log.Checkpoint().Raw),
		Entries: &c.Size, Published: &c.Published, Waiting: &c.Waiting, LagSeconds: new(int64(c.Lag / time.Second)), Broken: &c.Broken,
	}, nil
}

// proofWait bounds how long ProveIssuance waits for a certificate that was just signed.
const proofWait = 5 * time.Second

func (r Reader) prove(ctx context.Context, caller awsapi.Caller, in *ProveInput) (*ProveOutput, error) {
	log, err := r.Log()
	if err != nil {
		return nil, err
	}
	tenant := imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
	var issuance imprint.LoggedIssuance
	err = r.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		issuance, err = tx.LoggedIssuanceOf(tenant, imprint.CertificateID(in.CertificateID))
		return err
	})
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, proofWait)
	defer cancel()
	receipt, err := log.Wait(waiting, issuance.ID)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, imprint.Errorf(imprint.CodeUnavailable, "certificate %s waits for the issuance log: %w", in.CertificateID, err).WithHint("Retry later.")
	}
	if err != nil {
		return nil, err
	}
	proof, err := log.Prove(ctx, receipt)
	if err != nil {
		return nil, err
	}
	entry, err := tiles.ReadEntry(ctx, log.Source(), receipt.Checkpoint, receipt.Index)
	if err != nil {
		return nil, err
	}
	return &ProveOutput{Index: &receipt.Index, IssuanceID: issuance.ID, Entry: base64.StdEncoding.EncodeToString(entry), Proof: string(proof.Marshal())}, nil
}

func (r Reader) read(ctx context.Context, caller awsapi.Caller, in *ReadInput) (*ReadOutput, error) {
	err := r.onlyHome(caller)
	if err != nil {
		return nil, err
	}
	log, err := r.Log()
	if err != nil {
		return nil, err
	}
	if !tiles.IsPath(in.Path) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%q is no path in a log", imprint.Excerpt(in.Path)).WithHint("See https://c2sp.org/tlog-tiles.")
	}
	content, err := log.Source().Read(ctx, in.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, imprint.Errorf(imprint.CodeNotFound, "the log doesn't have %s, or no more: a full tile has taken its place", in.Path)
	}
	if err != nil {
		return nil, err
	}
	return &ReadOutput{Content: base64.StdEncoding.EncodeToString(content)}, nil
}

func (r Reader) audit(_ context.Context, caller awsapi.Caller, in *AuditInput) (*AuditOutput, error) {
	err := r.onlyHome(caller)
	if err != nil {
		return nil, err
	}
	log, err := r.Log()
	if err != nil {
		return nil, err
	}
	remembered := make([]tiles.Checkpoint, 0, len(in.Checkpoints))
	for n, text := range in.Checkpoints {
		checkpoint, err := log.Verifier().Checkpoint([]byte(text))
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "checkpoint %d isn't one of this log: %w", n+1, err).WithHint("The log is called %s.", log.Verifier().Origin())
		}
		remembered = append(remembered, checkpoint)
	}
	id, err := r.Auditor.Start(remembered)
	if err != nil {
		return nil, err
	}
	return &AuditOutput{AuditID: id}, nil
}

// findingsPage is how many findings one answer has at most.
const findingsPage = 500

func (r Reader) run(_ context.Context, caller awsapi.Caller, in *RunInput) (*RunOutput, error) {
	err := r.onlyHome(caller)
	if err != nil {
		return nil, err
	}
	run, err := r.Auditor.Run(in.AuditID)
	if err != nil {
		return nil, err
	}
	from := 0
	if in.From != nil {
		from = min(*in.From, len(run.Findings))
	}
	to := min(from+findingsPage, len(run.Findings))
	out := &RunOutput{AuditID: run.ID, Status: "RUNNING", StartedAt: run.StartedAt, EndedAt: run.EndedAt, Findings: []Finding{}, Next: &to}
	for _, f := range run.Findings[from:to] {
		out.Findings = append(out.Findings, Finding{
			Kind: string(f.Kind), Path: f.Path, Account: string(f.Tenant.Account), Region: string(f.Tenant.Region), CertificateID: string(f.Certificate),
			Issuance: f.Issuance, Index: &f.Index, Problem: f.Problem,
		})
	}
	if run.EndedAt.IsZero() {
		return out, nil
	}
	out.Status = "COMPLETED"
	if run.Err != nil {
		out.Status, out.Message = "FAILED", run.Err.Error()
	}
	d := run.Audited
	out.Checkpoint = string(d.Checkpoint.Raw)
	out.Summary = &Summary{
		Entries: &d.Entries, Issuances: &d.Issuances, Certificates: &d.Certificates, Ours: &d.Ours, Waiting: &d.Waiting,
		Unregistered: &d.Unregistered, WithoutBytes: &d.WithoutBytes, Unchecked: &d.Unchecked, Rechecked: &d.Rechecked, Findings: &d.Findings,
	}
	return out, nil
}
