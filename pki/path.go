package pki

import (
	"crypto/x509"
	"slices"
	"time"
)

// VerifyPath builds a path from a certificate to one of the anchors, which both are in it, as
// x509.Certificate.Verify does, and keeps constraints of directory names, too, for which that
// refuses all that stands below a CA. Errors are those of Verify, or say which constraint
// doesn't permit which subject.
func VerifyPath(leaf *x509.Certificate, anchors, between []*x509.Certificate, at time.Time, usage x509.ExtKeyUsage) ([]*x509.Certificate, error) {
	paths, err := understood(leaf).Verify(x509.VerifyOptions{Roots: poolOf(anchors), Intermediates: poolOf(between), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		err = permittedPath(path)
		if err == nil {
			return path, nil
		}
	}
	return nil, err
}

func poolOf(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(understood(cert))
	}
	return pool
}

// understood gives a certificate of which crypto/x509 doesn't say that it can't handle its
// name constraints, if limits can.
func understood(cert *x509.Certificate) *x509.Certificate {
	if !slices.ContainsFunc(cert.UnhandledCriticalExtensions, nameConstraintsID.Equal) {
		return cert
	}
	_, err := newLimits(cert)
	if err != nil {
		return cert
	}
	plain := *cert
	plain.UnhandledCriticalExtensions = nil // newLimits takes no others
	return &plain
}

// permittedPath holds the directories that each CA of a path permits against what is below
// it. Certificates between that a CA made for itself aren't concerned (RFC 5280 section
// 4.2.1.10).
func permittedPath(path []*x509.Certificate) error {
	for n, cert := range path[1:] {
		l, err := newLimits(cert)
		if err != nil {
			continue // not critical, or Verify had refused it
		}
		for below, one := range path[:n+1] {
			if below > 0 && string(one.RawSubject) == string(one.RawIssuer) {
				continue
			}
			subject, err := parseName(one.RawSubject)
			if err == nil {
				err = l.permitsDirectory(subject)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
