package est

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
)

// cacerts gives the label's CA, those above it, and the roots of this server.
func (v *visit) cacerts() error {
	all := [][]byte{v.signer.Raw}
	if v.authority.Chain != "" {
		above, err := pki.ParseCertificatesPEM(v.authority.Chain)
		if err != nil {
			return err
		}
		for _, cert := range above {
			all = append(all, cert.Raw)
		}
	}
	for _, anchor := range v.door.opts.Anchors() {
		all = append(all, anchor.Raw)
	}
	der, err := certsOnly(all...)
	if err != nil {
		return err
	}
	v.send(typePKCS7, der)
	return nil
}

// enrol answers simpleenroll, simplereenroll and serverkeygen.
func (v *visit) enrol() error {
	who, err := v.identify()
	if err != nil {
		return err
	}
	csr, err := v.body()
	if err != nil {
		return err
	}
	attributes, err := attributesOf(csr)
	if err != nil {
		return err
	}
	err = v.checkBinding(attributes)
	if err != nil {
		return err
	}
	request := pki.RequestOf(csr)
	request.By = who.name(v.label.Name)
	err = v.allow(who, &request, attributes)
	if err != nil {
		return err
	}
	if who.kind == passwordClient && !who.password.UsedAt.IsZero() {
		return v.again(who, csr.PublicKey)
	}
	if request.Renews != "" && v.operation == opReenroll {
		sent, err := v.renewed(request.Renews, csr.PublicKey)
		if err != nil || sent {
			return err
		}
	}
	err = v.rated(who)
	if err != nil {
		return err
	}
	var key []byte
	if v.operation == opServerKey {
		key, err = v.makeKey(&request, attributes)
		if err != nil {
			return err
		}
		defer clear(key)
	}
	issued, err := v.issue(who, request)
	if err != nil {
		return err
	}
	der, err := certsOnly(issued.Certificate.Raw)
	if err != nil {
		return err
	}
	v.made(issued)
	if key != nil {
		return v.sendKey(key, der)
	}
	v.send(typeCertsOnly, der)
	return nil
}

// rated bounds what one client certificate gets, whatever address it comes from: a stolen key,
// or a firmware that asks in a loop, must not fill the record. A password gives one
// certificate anyway.
func (v *visit) rated(who *client) error {
	if who.kind == passwordClient {
		return nil
	}
	by, most, hint := v.door.renewals, maxRenewals, "Send the same request again when the answer to a renewal is lost: it gets the same certificate."
	if who.kind == stationClient {
		by, most, hint = v.door.stations, v.door.opts.StationRate, "Come again later, or give the line more stations, each with a certificate of its own."
	}
	id := string(pki.CertificateID(who.leaf.Raw))
	if !by.bucket(id).Allow() {
		return imprint.Errorf(imprint.CodeEnrolmentRate, "certificate %s asks for new certificates more than %d times an hour, each time for another key", id, most).WithHint("%s", hint)
	}
	return nil
}

// made tells the trace which certificate came of it.
func (v *visit) made(issued ca.Issued) {
	v.rec.Describe(func(a *imprint.Attempt) {
		if a.CertificateID == "" { // of who came with a password nothing else is known
			a.CertificateID, a.Subject, a.Serial = issued.ID, pki.SubjectText(issued.Certificate.RawSubject), pki.SerialHex(issued.Certificate.SerialNumber)
		}
	})
	v.rec.Made("est."+v.operation, issued.ID, "certificate %s, subject %q, valid until %s", string(issued.ID), pki.SubjectText(issued.Certificate.RawSubject), issued.Certificate.NotAfter.Format(time.RFC3339))
	v.rec.End(imprint.OutcomeEnrolled, "")
}

// allow decides whether a client may have what it asks for.
func (v *visit) allow(who *client, request *pki.Request, attributes map[string][]byte) error {
	if who.kind == ownClient && v.operation != opEnroll || v.operation == opReenroll {
		return v.allowRenewal(who, request, attributes)
	}
	commonNames, serialNumbers := pki.NameValues(request.RawSubject)
	asked := slices.Concat(commonNames, serialNumbers)
	switch who.kind {
	case ownClient:
		return imprint.Errorf(imprint.CodeEnrolmentDenied, "the client shows a certificate of the label's authority, with which it can renew that alone").
			WithHint("Use %s.", opReenroll)
	case stationClient:
		return nil
	case passwordClient:
		if bound := who.password.Subject; bound != "" && (len(asked) == 0 || slices.ContainsFunc(asked, func(name string) bool { return name != bound })) {
			return imprint.Errorf(imprint.CodeEnrolmentDenied, "the password %s is for %q, the request's commonName and serialNumber are %q", who.password.ID, bound, asked).
				WithHint("Ask for /CN=%s, or make a password for another device.", imprint.Excerpt(bound))
		}
		if who.password.Subject == "" {
			return nil
		}
		return v.choosesNothing(request, pki.AltNames{}, []string{who.password.Subject})
	}
	own := slices.Concat(pki.NameValues(who.leaf.RawSubject))
	if len(asked) == 0 || slices.ContainsFunc(asked, func(name string) bool { return !slices.Contains(own, name) }) {
		return imprint.Errorf(imprint.CodeEnrolmentDenied, "the client's commonName and serialNumber are %q, those of the request %q: a device asks for itself alone", own, asked).
			WithHint("Ask for the device's own name, or name the CA as one of stations: imprint est update %s --station-ca FILE", v.label.Name)
	}
	return v.choosesNothing(request, pki.NamesOf(who.leaf), own, who.leaf.RawSubject)
}

// choosesNothing refuses attributes and names that a device gives itself beside what it is
// known by: templates, policies and who verifies tell devices apart by them. Those of the
// label's CA, which all below it may have, and its own ones say nothing new.
func (v *visit) choosesNothing(request *pki.Request, names pki.AltNames, known []string, own ...[]byte) error {
	chosen, err := v.profile.Chosen(request.RawSubject, append(own, v.signer.RawSubject)...)
	if err != nil {
		return err
	}
	if len(chosen) == 0 {
		chosen = v.profile.ChosenNames(request.Names, names, known...)
		if len(chosen) == 0 {
			return nil
		}
		return imprint.Errorf(imprint.CodeEnrolmentDenied, "the request's subjectAltName has %s, which who asks for one device may not choose", imprint.Excerpt(strings.Join(chosen, ", "))).
			WithHint("Leave it out, or ask for what the device is known by; profile %s can let others in by names.patterns.", v.label.Profile)
	}
	return imprint.Errorf(imprint.CodeEnrolmentDenied, "the request's subject has %s, which who asks for one device may not choose", imprint.Excerpt(strings.Join(chosen, ", "))).
		WithHint("Leave it out; what all devices of the label are to have belongs into subject.fixed of profile %s.", v.label.Profile)
}

// allowRenewal wants the request to be for the certificate that the connection shows (RFC
// 7030 section 4.2.2), in its time.
func (v *visit) allowRenewal(who *client, request *pki.Request, attributes map[string][]byte) error {
	switch who.kind {
	case passwordClient:
		return imprint.Errorf(imprint.CodeEnrolmentDenied, "%s needs the certificate that is renewed, as the client certificate of the connection", opReenroll).WithHint("Use %s with a password.", opEnroll)
	case stationClient:
		return imprint.Errorf(imprint.CodeEnrolmentDenied, "a station's certificate isn't renewed by label %s", v.label.Name).WithHint("Use a label whose authority signed it.")
	}
	_, changes := attributes[attrSubject]
	if changes || !pki.SameName(request.RawSubject, who.leaf.RawSubject) {
		return imprint.Errorf(imprint.CodeEnrolmentDenied, "the request's subject is %q, that of the certificate that is renewed %q", pki.SubjectText(request.RawSubject), pki.SubjectText(who.leaf.RawSubject)).
			WithHint("Ask for the same subject; with another one the device enrols anew.")
	}
	names := pki.NamesOf(who.leaf)
	if !request.Names.Empty() && !request.Names.Same(&names) {
		return imprint.Errorf(imprint.CodeEnrolmentDenied, "the request's subjectAltName isn't that of the certificate that is renewed").
			WithHint("Ask for the same names, or leave them out: the new certificate has those of the old one.")
	}
	err := v.keepsProfile(pki.CertificateID(who.leaf.Raw))
	if err != nil {
		return err
	}
	window := v.label.Window
	if window.IsZero() {
		window = v.door.opts.Window
	}
	opens := window.Opens(who.leaf.NotBefore, who.leaf.NotAfter)
	if v.door.opts.Clock().Before(opens) {
		return imprint.Errorf(imprint.CodeRenewalEarly, "the certificate may be renewed from %s on, it ends at %s", opens.Format(time.RFC3339), who.leaf.NotAfter.Format(time.RFC3339)).
			WithHint("Come again then; imprint est update %s --renew always lets devices renew at any time.", v.label.Name)
	}
	// Octet by octet, so that nothing of the device's name changes.
	request.RawSubject, request.Names = who.leaf.RawSubject, names
	request.Renews = pki.CertificateID(who.leaf.Raw)
	v.rec.OK("est.renewal", "certificate %s is renewed; its window is open since %s", string(request.Renews), opens.Format(time.RFC3339))
	return nil
}

// keepsProfile refuses a renewal by another profile: the label's rules for who gets a
// certificate of its profile would be stepped around, and a claim, which a whole batch has,
// would become a device's certificate. That there is an issuance at all is asked for with
// the intent to sign.
func (v *visit) keepsProfile(old imprint.CertificateID) error {
	var before imprint.Issuance
	err := v.door.opts.Store.View(v.r.Context(), func(tx imprint.ReadTx) error {
		var err error
		before, err = tx.IssuanceOfCertificate(v.label.Tenant, old)
		return err
	})
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return nil
	case err != nil:
		return err
	case before.Profile != v.label.Profile:
		return imprint.Errorf(imprint.CodeEnrolmentDenied, "certificate %s is of profile %s, and label %s signs by %s: a renewal keeps the profile", string(old), before.Profile, v.label.Name, v.label.Profile).
			WithHint("Renew at a label of profile %s; for another profile enrol anew, with %s and what the label asks for.", before.Profile, opEnroll)
	}
	return nil
}

// issue signs, and uses the password up in the transaction that makes the certificate one.
func (v *visit) issue(who *client, request pki.Request) (ca.Issued, error) {
	now := v.door.opts.Clock()
	also := func(tx imprint.Tx, issued *pki.Issued) error {
		label, err := tx.EnrolmentLabel(v.label.Name)
		if err != nil {
			return err
		}
		if label.Tenant != v.label.Tenant || label.Authority != v.label.Authority || label.Profile != v.label.Profile {
			return imprint.Errorf(imprint.CodeConflictingUpdate, "label %s was changed meanwhile", v.label.Name).WithHint("Ask again.")
		}
		if who.kind != passwordClient {
			return nil
		}
		password, err := tx.EnrolmentPassword(who.password.ID)
		if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && !password.UsedAt.IsZero() {
			return used(who.password.ID)
		}
		if err != nil {
			return err
		}
		password.UsedAt, password.Authority, password.Serial = now, v.label.Authority, pki.SerialHex(issued.Certificate.SerialNumber)
		return tx.PutEnrolmentPassword(password)
	}
	// A client that goes away doesn't end what is half done: its retry would find the key
	// used.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.r.Context()), signTimeout)
	defer cancel()
	return v.door.opts.Engine.IssueInto(ctx, v.label.Tenant, v.label.Authority, v.label.Profile, request, also)
}

// signTimeout bounds one signature and its commit.
const signTimeout = 30 * time.Second

func used(id string) error {
	return imprint.Errorf(imprint.CodeEnrolmentPassword, "the password %s was used", id)
}

// again answers who used the password before with the certificate that came of it, if the
// request has the same key: the answer may have been lost on its way.
func (v *visit) again(who *client, key crypto.PublicKey) error {
	if v.operation != opEnroll {
		return used(who.password.ID)
	}
	var before imprint.Issuance
	err := v.door.opts.Store.View(v.r.Context(), func(tx imprint.ReadTx) error {
		var err error
		before, err = tx.IssuanceOf(v.label.Tenant, who.password.Authority, who.password.Serial)
		return err
	})
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return used(who.password.ID)
	}
	if err != nil {
		return err
	}
	issued, err := pki.ParseIssued(before.Certificate)
	if err != nil {
		return err
	}
	own, comparable := issued.Certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !comparable || !own.Equal(key) || !before.RevokedAt.IsZero() {
		return used(who.password.ID)
	}
	der, err := certsOnly(issued.Certificate.Raw)
	if err != nil {
		return err
	}
	v.rec.Info("est.password", "the password was used for this key before: the certificate of then is sent again")
	v.made(ca.Issued{Issued: issued})
	v.send(typeCertsOnly, der)
	return nil
}

// renewed answers who asks once more, with the key of a renewal that is open, with the
// certificate of then: the answer may have been lost, and another certificate for the key
// would be refused.
func (v *visit) renewed(old imprint.CertificateID, key crypto.PublicKey) (bool, error) {
	var before []imprint.Issuance
	err := v.door.opts.Store.View(v.r.Context(), func(tx imprint.ReadTx) error {
		before = nil
		all, err := tx.RenewalsOf(v.label.Tenant, old)
		if err != nil {
			return err
		}
		for _, r := range all {
			if !r.Open() {
				continue
			}
			issued, err := tx.IssuanceOfCertificate(v.label.Tenant, r.Certificate)
			if err != nil {
				return err
			}
			before = append(before, issued)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for _, one := range before {
		issued, err := pki.ParseIssued(one.Certificate)
		if err != nil {
			return false, err
		}
		own, comparable := issued.Certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if !comparable || !own.Equal(key) || !one.RevokedAt.IsZero() || one.Authority != v.label.Authority || one.Profile != v.label.Profile {
			continue
		}
		der, err := certsOnly(issued.Certificate.Raw)
		if err != nil {
			return false, err
		}
		v.rec.Info("est.renewal", "certificate %s was renewed for this key before: that certificate is sent again", string(old))
		v.made(ca.Issued{Issued: issued})
		v.send(typeCertsOnly, der)
		return true, nil
	}
	return false, nil
}

// makeKey makes a key of the kind of the request's, puts it into the request, and gives it
// in PKCS#8.
func (v *visit) makeKey(request *pki.Request, attributes map[string][]byte) ([]byte, error) {
	if !v.label.ServerKeys {
		return nil, imprint.Errorf(imprint.CodeEnrolmentDenied, "label %s makes no keys for devices", v.label.Name).
			WithHint("Make the key on the device and use %s; imprint est update %s --server-keys would allow it.", opEnroll, v.label.Name)
	}
	if attributes[attrDecryptKey] != nil || attributes[attrDecryptAsymm] != nil {
		return nil, imprint.Errorf(imprint.CodeEnrolmentRequest, "the request asks for a key that is encrypted for the client, which isn't offered").
			WithHint("Leave the attribute out: TLS protects the key on its way.")
	}
	kind := pki.KeyKindOf(request.PublicKey)
	if kinds := v.profile.Config().Keys; len(kinds) > 0 && !slices.Contains(kinds, kind) {
		kind = kinds[0]
	}
	if kind == pki.KeyRSA2048 || kind == pki.KeyRSA3072 || kind == pki.KeyRSA4096 {
		timer := time.NewTimer(keyTimeout)
		defer timer.Stop()
		select {
		case v.door.making <- struct{}{}:
			defer func() { <-v.door.making }()
		case <-timer.C:
			return nil, imprint.Errorf(imprint.CodeOverloaded, "too many RSA keys are being made").WithHint("Come again, or ask for a P-256 key.")
		case <-v.r.Context().Done():
			return nil, imprint.Errorf(imprint.CodeConnectionLost, "the client went away")
		}
	}
	made, err := pki.NewKey(kind)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(made)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode a key: %w", err)
	}
	request.PublicKey = made.Public()
	v.rec.OK("est.key", "a %s key was made; it is sent once and kept nowhere", string(kind))
	return der, nil
}

// keyTimeout is how long a request waits for its turn to have an RSA key made.
const keyTimeout = 5 * time.Second
