package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/outward"
	"github.com/imprint-iot/imprint/pki"
)

const (
	// fetchTime bounds one fetch, maxRedirects how often it is sent elsewhere.
	fetchTime    = 30 * time.Second
	maxRedirects = 3
	// lookEvery is how often Run looks for lists that are due.
	lookEvery = 5 * time.Second
	// fetchMost and fetchLeast bound the time between two fetches of a list.
	fetchMost, fetchLeast = 24 * time.Hour, time.Minute
	// retryFirst is the pause after a fetch that failed; each further one doubles it, up to
	// retryMost.
	retryFirst, retryMost = time.Minute, time.Hour
	// dueAtOnce bounds the lists of one look, fetchesAtOnce those that are fetched beside each
	// other: a place that is slow keeps few others waiting.
	dueAtOnce, fetchesAtOnce = 100, 8
)

func newClient(transport http.RoundTripper) *http.Client {
	return &http.Client{Timeout: fetchTime, Transport: transport, CheckRedirect: func(to *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("it was sent elsewhere %d times", len(via))
		}
		return checkURL(to.URL.String())
	}}
}

// maxURL bounds where a list is.
const maxURL = 2048

// checkURL refuses what isn't the URL of a list. http is good enough: the list is signed.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || len(text) > maxURL {
		return imprint.Errorf(imprint.CodeInvalidRequest, "%q isn't an http or https URL of at most %d characters without a password", imprint.Excerpt(text), maxURL)
	}
	return nil
}

// fetch reads a list of an account from its place. Errors: CodeInvalidRequest: whoever says a place says a
// wrong one.
func (e *Engine) fetch(ctx context.Context, account imprint.AccountID, from string) ([]byte, error) {
	data, err := e.get(ctx, account, from)
	if err != nil {
		e.failed.Add(1)
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "couldn't fetch the revocation list of %s: %w", imprint.Excerpt(from), err).
			WithHint("The server itself fetches it: look whether it reaches the place (curl), or bring the file.")
	}
	return data, nil
}

func (e *Engine) get(ctx context.Context, account imprint.AccountID, from string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/pkix-crl, */*;q=0.5")
	client := e.anywhere
	if outward.Bounds(account, e.opts.PrivateAccount) {
		client = e.public
	}
	response, err := client.Do(request)
	if err != nil {
		var problem *url.Error
		if errors.As(err, &problem) {
			err = problem.Err // the place stands in the message already
		}
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, pki.MaxForeignCRL+1))
	if err == nil && len(data) > pki.MaxForeignCRL {
		err = fmt.Errorf("the answer has more than %d bytes", pki.MaxForeignCRL)
	}
	return data, err
}

// nextFetch is when a list is fetched again: half-way to its next update, so that a place
// that is away for a while does no harm.
func nextFetch(l *imprint.ForeignList, now time.Time) time.Time {
	if l.URL == "" {
		return time.Time{}
	}
	wait := l.NextUpdate.Sub(now) / 2
	return now.Add(min(max(wait, fetchLeast), fetchMost))
}

// Run fetches the lists that are due, and applies those that a crash left unapplied, until
// the context ends.
func (e *Engine) Run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		err := e.FetchDue(ctx)
		if err != nil && ctx.Err() == nil {
			e.opts.Logger.Error("couldn't look after imported revocation lists", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// FetchDue does what is due now. A list that can't be fetched keeps no other from it.
func (e *Engine) FetchDue(ctx context.Context) error {
	var due []imprint.ForeignList
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		due, err = tx.ForeignListsDue(e.opts.Clock(), dueAtOnce)
		return err
	})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	room := make(chan struct{}, fetchesAtOnce)
	for _, l := range due {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			err := e.look(ctx, l)
			if err != nil && ctx.Err() == nil {
				e.opts.Logger.Error("couldn't look after an imported revocation list", "tenant", l.Tenant.String(), "ca", l.CA, "error", err)
			}
		})
	}
	all.Wait()
	return ctx.Err()
}

// look does what is due for one list.
func (e *Engine) look(ctx context.Context, l imprint.ForeignList) error {
	if l.Applied {
		return e.renew(ctx, l)
	}
	_, err := e.apply(ctx, l)
	return err
}

// renew fetches a list; a failure is stored and tried again later.
func (e *Engine) renew(ctx context.Context, l imprint.ForeignList) error {
	ca, err := pki.ParseCertificatePEM(l.CAPEM)
	if err != nil {
		return fmt.Errorf("couldn't read the CA of a revocation list: %w", err)
	}
	renewed, err := e.Import(ctx, l.Tenant, Request{CA: ca, URL: l.URL})
	if err == nil && renewed.ID != l.ID {
		// The place has a list of another scope now: this one isn't fetched there any more.
		err = imprint.Errorf(imprint.CodeInvalidRequest, "%s has a list of another scope now", imprint.Excerpt(l.URL))
	}
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	e.opts.Logger.Warn("couldn't renew an imported revocation list", "tenant", l.Tenant.String(), "ca", l.CA, "url", imprint.Excerpt(l.URL), "next", l.NextUpdate, "stale", l.Stale(e.opts.Clock()), "error", err)
	return e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		present, readErr := tx.ForeignList(l.ID)
		if imprint.CodeOf(readErr) == imprint.CodeNotFound {
			return nil
		}
		if readErr != nil {
			return readErr
		}
		now := e.opts.Clock()
		present.FetchedAt, present.LastError = now, imprint.Excerpt(err.Error())
		wait := retryMost
		if present.Failures < 6 {
			wait = retryFirst << present.Failures
		}
		present.Failures++
		present.FetchAt = now.Add(wait)
		return tx.PutForeignList(present)
	})
}
