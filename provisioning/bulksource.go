package provisioning

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/imprint-iot/imprint"
)

// changed is the refusal of an input that isn't the one that the task began with.
func changed() error {
	return imprint.Errorf(imprint.CodeInvalidRequest, "The input file was changed while the task was under way.").
		WithHint("Start another task; OverrideSettings of the template say what becomes of devices that are registered already.")
}

// BulkDirectory finds inputs below a directory, in a directory an account and in
// that a directory a bucket. Nothing outside of the account's buckets can be named.
type BulkDirectory struct {
	Path string
	// Home is the account whose buckets may also stand in Path itself.
	Home imprint.AccountID
}

// Open implements BulkInput.
func (d BulkDirectory) Open(_ context.Context, account imprint.AccountID, bucket, key string, offset int64, version string) (BulkFile, error) {
	root, err := os.OpenRoot(d.Path)
	if err != nil {
		return BulkFile{}, imprint.Errorf(imprint.CodeNotFound, "The directory of input files can't be opened: %w.", bare(err))
	}
	defer func() { _ = root.Close() }()
	file, err := openBelow(root, []string{string(account), bucket}, key)
	if errors.Is(err, fs.ErrNotExist) && account == d.Home && !isAccount(bucket) {
		file, err = openBelow(root, []string{bucket}, key)
	}
	if err != nil {
		return BulkFile{}, imprint.Errorf(imprint.CodeNotFound, "The input file %s/%s can't be opened: %w.", bucket, key, bare(err)).
			WithHint("Put it into the server's directory of bulk inputs (--bulk-directory), as %s/%s/%s.", account, bucket, key)
	}
	found, err := openAt(file, offset)
	if err == nil && version != "" && found.Version != version {
		err = changed()
	}
	if err != nil {
		_ = file.Close()
		return BulkFile{}, err
	}
	return found, nil
}

// openBelow opens a file below some directories, of which each is one level and
// bounds what the next can name.
func openBelow(root *os.Root, dirs []string, key string) (*os.File, error) {
	for _, dir := range dirs {
		if dir != path.Base(dir) || dir == "." || dir == ".." {
			return nil, fs.ErrNotExist
		}
		below, err := root.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer func() { _ = below.Close() }()
		root = below
	}
	// Without O_NONBLOCK a named pipe would hold the task, and the server's end, until
	// somebody writes into it.
	return root.OpenFile(path.Clean(key), os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// isAccount tells whether a bucket's name is that of an account's directory.
func isAccount(bucket string) bool {
	_, err := imprint.ParseAccountID(bucket)
	return err == nil
}

// bare is an error of the file system without the server's paths.
func bare(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

func openAt(file *os.File, offset int64) (BulkFile, error) {
	info, err := file.Stat()
	if err != nil {
		return BulkFile{}, fmt.Errorf("couldn't look at the input file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return BulkFile{}, imprint.Errorf(imprint.CodeInvalidRequest, "The input isn't a file.")
	}
	_, err = file.Seek(offset, io.SeekStart)
	if err != nil {
		return BulkFile{}, fmt.Errorf("couldn't go on in the input file: %w", err)
	}
	return BulkFile{ReadCloser: file, Size: info.Size(), Version: fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())}, nil
}

// BulkURL finds the inputs of one account at {Base}/{bucket}/{key} over http(s).
// With Credentials it signs its requests as an S3-compatible store wants them
// (path-style).
type BulkURL struct {
	Base        string
	Account     imprint.AccountID // all others are refused
	Client      *http.Client
	Credentials *aws.Credentials
	Region      string // that signatures are for
	// Idle is how long the server may send nothing of a body that is waited for;
	// then the read fails. 0: for ever.
	Idle time.Duration
}

// lively reads a body and gives up when nothing comes for a while.
type lively struct {
	io.ReadCloser
	ctx    context.Context // of the request: its end ends a read
	cancel context.CancelCauseFunc
	idle   time.Duration
}

func (l *lively) Read(p []byte) (int, error) {
	if l.idle <= 0 {
		return l.ReadCloser.Read(p)
	}
	alarm := time.AfterFunc(l.idle, func() {
		l.cancel(imprint.Errorf(imprint.CodeUnavailable, "the input's server sent nothing for %s", l.idle))
	})
	n, err := l.ReadCloser.Read(p)
	alarm.Stop()
	if err != nil && !errors.Is(err, io.EOF) && context.Cause(l.ctx) != nil {
		err = context.Cause(l.ctx)
	}
	return n, err
}

func (l *lively) Close() error {
	err := l.ReadCloser.Close()
	l.cancel(context.Canceled)
	return err
}

// emptyBody is the SHA-256 of no body.
const emptyBody = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Open implements BulkInput. A server that knows no ranges is read from the
// beginning again.
func (u BulkURL) Open(ctx context.Context, account imprint.AccountID, bucket, key string, offset int64, version string) (BulkFile, error) {
	if account != u.Account {
		return BulkFile{}, imprint.Errorf(imprint.CodeInvalidRequest, "The server's place of input files isn't for account %s.", account).
			WithHint("The server's --bulk-account names the account that it is for; a --bulk-directory has a part for each.")
	}
	if !plainPath(bucket) || strings.Contains(bucket, "/") || !plainPath(key) {
		return BulkFile{}, imprint.Errorf(imprint.CodeInvalidRequest, "The input can't be named by a URL: %s/%s has levels that lead elsewhere.", imprint.Excerpt(bucket), imprint.Excerpt(key))
	}
	address := strings.TrimSuffix(u.Base, "/") + "/" + url.PathEscape(bucket) + "/" + escapeKey(key)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return BulkFile{}, imprint.Errorf(imprint.CodeInvalidRequest, "The input can't be named by a URL: %w.", err)
	}
	// What a server packs on the way has other offsets.
	request.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		request.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	if u.Credentials != nil {
		request.Header.Set("X-Amz-Content-Sha256", emptyBody)
		err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).
			SignHTTP(ctx, *u.Credentials, request, emptyBody, "s3", u.Region, time.Now())
		if err != nil {
			return BulkFile{}, fmt.Errorf("couldn't sign the request for the input: %w", err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	response, err := u.Client.Do(request.WithContext(ctx))
	if err != nil {
		cancel(err)
		return BulkFile{}, imprint.Errorf(imprint.CodeUnavailable, "couldn't ask for the input: %w", err)
	}
	response.Body = &lively{ReadCloser: response.Body, ctx: ctx, cancel: cancel, idle: u.Idle}
	found, err := fromResponse(response, offset, version)
	if err != nil {
		_ = response.Body.Close()
	}
	return found, err
}

// plainPath tells whether no level of a path is one that servers take for a way up.
func plainPath(name string) bool {
	for level := range strings.SplitSeq(name, "/") {
		if level == "." || level == ".." {
			return false
		}
	}
	return true
}

// escapeKey escapes a key as S3 signs it: all but unreserved characters and
// slashes.
func escapeKey(key string) string {
	parts := strings.Split(key, "/")
	for n, part := range parts {
		parts[n] = strings.NewReplacer("+", "%20", "%7E", "~").Replace(url.QueryEscape(part))
	}
	return strings.Join(parts, "/")
}

func fromResponse(response *http.Response, offset int64, version string) (BulkFile, error) {
	switch {
	case response.StatusCode == http.StatusOK, response.StatusCode == http.StatusPartialContent:
	case response.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		// Behind the last byte there is nothing left, unless the input was changed.
		if version != "" && response.Header.Get("Content-Range") != "bytes */"+strconv.FormatInt(offset, 10) {
			return BulkFile{}, changed()
		}
		return BulkFile{ReadCloser: http.NoBody, Size: offset, Version: version}, response.Body.Close()
	case response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests:
		return BulkFile{}, imprint.Errorf(imprint.CodeUnavailable, "the input's server answers %s", response.Status)
	default:
		return BulkFile{}, imprint.Errorf(imprint.CodeNotFound, "The input's server answers %s.", response.Status).
			WithHint("Check bucket and key, and the server's --bulk-url or --bulk-s3-endpoint with its credentials.")
	}
	file := BulkFile{ReadCloser: response.Body, Version: versionOf(response)}
	if response.ContentLength >= 0 {
		file.Size = response.ContentLength
	}
	if response.StatusCode == http.StatusPartialContent {
		if start, _, found := strings.Cut(strings.TrimPrefix(response.Header.Get("Content-Range"), "bytes "), "-"); !found || start != strconv.FormatInt(offset, 10) {
			return BulkFile{}, imprint.Errorf(imprint.CodeInvalidRequest, "The input's server gave the range %q, not from byte %d.", imprint.Excerpt(response.Header.Get("Content-Range")), offset)
		}
		file.Size += offset
	}
	if version != "" && file.Version != version {
		return BulkFile{}, changed()
	}
	if response.StatusCode == http.StatusOK && offset > 0 {
		_, err := io.CopyN(io.Discard, response.Body, offset)
		if err != nil {
			return BulkFile{}, fmt.Errorf("couldn't go on in the input: %w", err)
		}
	}
	return file, nil
}

// versionOf is what a server says that stands for the content: without anything, a
// change can't be noticed.
func versionOf(response *http.Response) string {
	if tag := response.Header.Get("Etag"); tag != "" {
		return imprint.Excerpt(tag)
	}
	if changed := response.Header.Get("Last-Modified"); changed != "" {
		return imprint.Excerpt(changed)
	}
	return "unknown"
}
