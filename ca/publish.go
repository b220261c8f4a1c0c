package ca

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

// Handler serves what relying parties ask for, over plain HTTP, as it is signed: CRLs, OCSP
// responses (RFC 6960 appendix A: POST, and GET with the request in the path) and the
// certificates of authorities that have CRLs or OCSP.
//
//	/crl/ACCOUNT/REGION/AUTHORITY.crl, /crl/ACCOUNT/REGION/AUTHORITY/SHARD.crl
//	/ocsp/ACCOUNT/REGION/AUTHORITY[/REQUEST]
//	/ca/ACCOUNT/REGION/AUTHORITY.cer
//
// It must get requests with their path untouched: not behind an http.ServeMux, which takes
// the slashes together that base64 has.
func (e *Engine) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The request of /ocsp is the rest, which may have slashes.
		parts := strings.SplitN(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/", 5)
		if len(parts) < 4 {
			http.NotFound(w, r)
			return
		}
		tenant, err := tenantOf(parts[1], parts[2])
		if err != nil {
			http.NotFound(w, r)
			return
		}
		rest, more := "", len(parts) == 5
		if more {
			rest = parts[4]
		}
		switch parts[0] {
		case "crl":
			e.serveList(w, r, tenant, parts[3], rest, more)
		case "ocsp":
			e.serveOCSP(w, r, tenant, parts[3], rest, more)
		case "ca":
			if more {
				http.NotFound(w, r)
				return
			}
			e.serveCertificate(w, r, tenant, parts[3])
		default:
			http.NotFound(w, r)
		}
	})
}

func tenantOf(account, region string) (imprint.Tenant, error) {
	id, err := imprint.ParseAccountID(account)
	name, regionErr := imprint.ParseRegion(region)
	return imprint.Tenant{Account: id, Region: name}, errors.Join(err, regionErr)
}

// allowed refuses methods that a place doesn't have.
func allowed(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, method := range methods {
		if r.Method == method {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	http.Error(w, "the method isn't one of "+strings.Join(methods, ", "), http.StatusMethodNotAllowed)
	return false
}

func (e *Engine) serveList(w http.ResponseWriter, r *http.Request, tenant imprint.Tenant, name, file string, divided bool) {
	if !allowed(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	shard, known := imprint.WholeList, true
	if divided {
		number, isList := strings.CutSuffix(file, ".crl")
		n, err := strconv.Atoi(number)
		shard, known = n, isList && err == nil && n >= 0 && strconv.Itoa(n) == number
	} else {
		name, known = strings.CutSuffix(name, ".crl")
	}
	id, err := imprint.ParseAuthorityID(name)
	if !known || err != nil {
		http.NotFound(w, r)
		return
	}
	at := listPlace{tenant, id, shard}
	version, err := e.listVersion(r.Context(), at)
	if err != nil {
		e.fail(w, err)
		return
	}
	tag := version.tag()
	w.Header().Set("Content-Type", "application/pkix-crl")
	// A list is made anew when something is revoked: caches may keep one a minute.
	w.Header().Set("Cache-Control", "public, max-age=60")
	w.Header().Set("ETag", tag)
	if r.Method == http.MethodHead || strings.Contains(r.Header.Get("If-None-Match"), tag) {
		http.ServeContent(w, r, "", version.thisUpdate, &sizeAlone{size: version.size})
		return
	}
	reading := context.WithoutCancel(r.Context()) // others may wait for what one reads
	content, release, err := e.shelf.take(r.Context(), at, version, func() ([]byte, error) {
		l, err := e.List(reading, tenant, id, shard)
		return l.DER, err
	})
	if err != nil {
		w.Header().Del("ETag")
		w.Header().Del("Cache-Control")
		e.fail(w, err)
		return
	}
	defer release()
	http.ServeContent(w, r, "", version.thisUpdate, content)
}

func (e *Engine) serveOCSP(w http.ResponseWriter, r *http.Request, tenant imprint.Tenant, name, rest string, got bool) {
	id, err := imprint.ParseAuthorityID(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	var request []byte
	if got {
		if !allowed(w, r, http.MethodGet, http.MethodHead) {
			return
		}
		text, err := url.PathUnescape(rest)
		if err != nil || len(text) > 2*MaxOCSPRequest {
			http.NotFound(w, r)
			return
		}
		request, err = base64.StdEncoding.DecodeString(text)
		if err != nil {
			http.Error(w, "the path doesn't end in the base64 of an OCSP request", http.StatusBadRequest)
			return
		}
	} else {
		if !allowed(w, r, http.MethodPost) {
			return
		}
		request, err = io.ReadAll(http.MaxBytesReader(w, r.Body, MaxOCSPRequest))
		if err != nil {
			http.Error(w, "the OCSP request is longer than "+strconv.Itoa(MaxOCSPRequest)+" bytes or can't be read", http.StatusRequestEntityTooLarge)
			return
		}
	}
	// A failure to sign is logged where it happens, once.
	der, until, err := e.Respond(r.Context(), tenant, id, request)
	e.tally.countOCSP(der, err)
	w.Header().Set("Content-Type", "application/ocsp-response")
	if err == nil && got {
		w.Header().Set("Cache-Control", "public, no-transform, must-revalidate, max-age=60")
		w.Header().Set("Expires", until.UTC().Format(http.TimeFormat))
	}
	_, _ = w.Write(der)
}

// serveCertificate gives the certificate of an authority whose certificates name this
// place, which those of others don't.
func (e *Engine) serveCertificate(w http.ResponseWriter, r *http.Request, tenant imprint.Tenant, file string) {
	if !allowed(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	name, found := strings.CutSuffix(file, ".cer")
	id, err := imprint.ParseAuthorityID(name)
	if !found || err != nil {
		http.NotFound(w, r)
		return
	}
	a, err := e.Authority(r.Context(), tenant, id)
	if err != nil {
		e.fail(w, err)
		return
	}
	block, _ := pem.Decode([]byte(a.Certificate))
	if block == nil || !a.Revocation.CRL && !a.Revocation.OCSP {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-cert")
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(block.Bytes)))
}

// fail answers by the error's own status; strangers learn no more than its code.
func (e *Engine) fail(w http.ResponseWriter, err error) {
	switch imprint.CodeOf(err) {
	case imprint.CodeNotFound:
		http.Error(w, "there is none", http.StatusNotFound)
	case imprint.CodeUnavailable:
		w.Header().Set("Retry-After", "5")
		http.Error(w, "it isn't signed yet", http.StatusServiceUnavailable)
	case imprint.CodeThrottled:
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many are being sent", http.StatusServiceUnavailable)
	default:
		e.opts.Logger.Error("couldn't serve a certificate authority's data", "error", err)
		http.Error(w, "couldn't serve it", http.StatusInternalServerError)
	}
}
