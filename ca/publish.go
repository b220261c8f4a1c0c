package ca

import (
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
// certificates of authorities.
//
//	/crl/ACCOUNT/REGION/AUTHORITY.crl, /crl/ACCOUNT/REGION/AUTHORITY/SHARD.crl
//	/ocsp/ACCOUNT/REGION/AUTHORITY[/REQUEST]
//	/ca/ACCOUNT/REGION/AUTHORITY.cer
func (e *Engine) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /crl/{account}/{region}/{file}", e.serveList)
	mux.HandleFunc("GET /crl/{account}/{region}/{file}/{shard}", e.serveList)
	mux.HandleFunc("POST /ocsp/{account}/{region}/{file}", e.servePostedOCSP)
	mux.HandleFunc("GET /ocsp/{account}/{region}/{file}/{request...}", e.serveGotOCSP)
	mux.HandleFunc("GET /ca/{account}/{region}/{file}", e.serveCertificate)
	return mux
}

// placeOf reads the path; false when it names nothing that can be.
func placeOf(r *http.Request, suffix string) (imprint.Tenant, imprint.AuthorityID, bool) {
	account, err := imprint.ParseAccountID(r.PathValue("account"))
	region, regionErr := imprint.ParseRegion(r.PathValue("region"))
	name, found := strings.CutSuffix(r.PathValue("file"), suffix)
	id, idErr := imprint.ParseAuthorityID(name)
	return imprint.Tenant{Account: account, Region: region}, id, found && errors.Join(err, regionErr, idErr) == nil
}

func (e *Engine) serveList(w http.ResponseWriter, r *http.Request) {
	suffix, shard := ".crl", imprint.WholeList
	file := r.PathValue("shard")
	known := true
	if file != "" {
		number, isList := strings.CutSuffix(file, ".crl")
		n, err := strconv.Atoi(number)
		suffix, shard, known = "", n, isList && err == nil && n >= 0 && strconv.Itoa(n) == number
	}
	tenant, id, named := placeOf(r, suffix)
	if !known || !named {
		http.NotFound(w, r)
		return
	}
	l, err := e.List(r.Context(), tenant, id, shard)
	if err != nil {
		e.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	w.Header().Set("Last-Modified", l.ThisUpdate.UTC().Format(http.TimeFormat))
	// A list is made anew when something is revoked: caches may keep one a minute.
	w.Header().Set("Cache-Control", "public, max-age=60")
	w.Header().Set("ETag", `"`+strconv.FormatInt(l.Number, 10)+`"`)
	http.ServeContent(w, r, "", l.ThisUpdate, strings.NewReader(string(l.DER)))
}

func (e *Engine) servePostedOCSP(w http.ResponseWriter, r *http.Request) {
	request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxOCSPRequest))
	if err != nil {
		http.Error(w, "the OCSP request is longer than "+strconv.Itoa(MaxOCSPRequest)+" bytes or can't be read", http.StatusRequestEntityTooLarge)
		return
	}
	e.serveOCSP(w, r, request)
}

func (e *Engine) serveGotOCSP(w http.ResponseWriter, r *http.Request) {
	// The base64 may hold slashes, escaped or not.
	text, err := url.PathUnescape(r.PathValue("request"))
	if err != nil || len(text) > 2*MaxOCSPRequest {
		http.NotFound(w, r)
		return
	}
	request, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		http.Error(w, "the path doesn't end in the base64 of an OCSP request", http.StatusBadRequest)
		return
	}
	e.serveOCSP(w, r, request)
}

func (e *Engine) serveOCSP(w http.ResponseWriter, r *http.Request, request []byte) {
	tenant, id, known := placeOf(r, "")
	if !known {
		http.NotFound(w, r)
		return
	}
	der, until, err := e.Respond(r.Context(), tenant, id, request)
	e.tally.countOCSP(der, err)
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound && imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		e.opts.Logger.Error("couldn't answer an OCSP request", "tenant", tenant.String(), "authority", id, "error", err)
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	if !until.IsZero() && r.Method == http.MethodGet {
		w.Header().Set("Cache-Control", "public, no-transform, must-revalidate, max-age=60")
		w.Header().Set("Expires", until.UTC().Format(http.TimeFormat))
	}
	_, _ = w.Write(der)
}

func (e *Engine) serveCertificate(w http.ResponseWriter, r *http.Request) {
	tenant, id, known := placeOf(r, ".cer")
	if !known {
		http.NotFound(w, r)
		return
	}
	a, err := e.Authority(r.Context(), tenant, id)
	if err != nil {
		e.fail(w, err)
		return
	}
	block, _ := pem.Decode([]byte(a.Certificate))
	if block == nil {
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
	default:
		e.opts.Logger.Error("couldn't serve a certificate authority's data", "error", err)
		http.Error(w, "couldn't serve it", http.StatusInternalServerError)
	}
}
