package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// row is one kind of row with a key that is legal in any tenant.
type row struct {
	name string
	// full has a value in every field, bare only in those of the key.
	full, bare func(imprint.Tenant) any
	put        func(imprint.Tx, any) error
	get        func(imprint.ReadTx, imprint.Tenant) (any, error)
	remove     func(imprint.Tx, imprint.Tenant) error // nil: can't be deleted
}

const unusual = "Grüße, 世界 % _ \\ ' \" \U0001F511"

func testRows(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	for _, r := range allRows() {
		t.Run(r.name, func(t *testing.T) {
			absent(t, store, r, here)
			for _, values := range []func(imprint.Tenant) any{r.full, r.bare, r.full} {
				for _, tenant := range []imprint.Tenant{here, there, other} {
					checkPut(t, store, r, values(tenant), tenant)
				}
			}
			if r.remove == nil {
				return
			}
			for range 2 {
				update(t, store, func(tx imprint.Tx) error { return r.remove(tx, here) })
			}
			absent(t, store, r, here)
			view(t, store, func(tx imprint.ReadTx) error {
				got, err := r.get(tx, there)
				same(t, "the row of the other tenant", got, r.full(there))
				return err
			})
		})
	}
}

// checkPut puts a row and reads it inside the transaction and after it.
func checkPut(t *testing.T, store imprint.Store, r row, value any, tenant imprint.Tenant) {
	t.Helper()
	var inside any
	update(t, store, func(tx imprint.Tx) error {
		err := r.put(tx, value)
		if err != nil {
			return err
		}
		inside, err = r.get(tx, tenant)
		return err
	})
	same(t, "the row inside the transaction", inside, value)
	view(t, store, func(tx imprint.ReadTx) error {
		got, err := r.get(tx, tenant)
		same(t, "the row", got, value)
		return err
	})
}

func absent(t *testing.T, store imprint.Store, r row, tenant imprint.Tenant) {
	t.Helper()
	view(t, store, func(tx imprint.ReadTx) error {
		_, err := r.get(tx, tenant)
		wantCode(t, err, imprint.CodeNotFound)
		return nil
	})
}

func allRows() []row {
	return slices.Concat(certificateRows(), nameRows(), registryRows(), otherRows(), functionRows(), claimRows(), userRows(), taskRows(), ruleRows(), auditRows(), mitigationRows(), rolloverRows(), foreignListRows())
}

func certificateRows() []row {
	id := certID(0xabc)
	return []row{{
		name: "certificate",
		full: func(t imprint.Tenant) any {
			return imprint.Certificate{Tenant: t, ID: id, PEM: "-----BEGIN " + unusual, Status: imprint.CertificateActive,
				Mode: imprint.ModeSNIOnly, CAID: certID(1), OwnedBy: t.Account, PreviousOwner: "222222222222", Serial: "0a",
				Subject: "CN=" + unusual, NotBefore: instant.Add(-time.Hour), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
				CreatedAt: instant, ModifiedAt: instant.Add(time.Millisecond), CustomerVersion: 7, GenerationID: "g " + string(t.Region), Attempt: attemptID(3)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.Certificate{Tenant: t, ID: id} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutCertificate(v.(imprint.Certificate)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Certificate(t, id) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteCertificate(t, id) },
	}, {
		name: "CA",
		full: func(t imprint.Tenant) any {
			return imprint.CACertificate{Tenant: t, ID: id, PEM: unusual, Status: imprint.CAActive, Mode: imprint.ModeDefault,
				AutoRegistration: true, Registration: &imprint.RegistrationConfig{TemplateBody: "{}", RoleARN: "arn", TemplateName: "line"},
				FirstConnection: imprint.FirstConnectionHold, OwnedBy: t.Account, SubjectKey: "5b", Subject: unusual, Serial: "1",
				NotBefore: instant, NotAfter: instant.Add(time.Hour), CreatedAt: instant, ModifiedAt: instant, CustomerVersion: 2,
				GenerationID: "g " + string(t.Region)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.CACertificate{Tenant: t, ID: id} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutCA(v.(imprint.CACertificate)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.CA(t, id) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteCA(t, id) },
	}, {
		name: "CA with an empty registration",
		full: func(t imprint.Tenant) any {
			return imprint.CACertificate{Tenant: t, ID: certID(0xabd), Registration: &imprint.RegistrationConfig{}}
		},
		bare: func(t imprint.Tenant) any { return imprint.CACertificate{Tenant: t, ID: certID(0xabd)} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutCA(v.(imprint.CACertificate)) },
		get:  func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.CA(t, certID(0xabd)) },
	}}
}

func nameRows() []row {
	return []row{{
		name: "thing",
		full: func(t imprint.Tenant) any {
			return imprint.Thing{Tenant: t, Name: "sensor:1", ID: "uuid " + string(t.Region), TypeName: "sensor", BillingGroup: "group",
				Attributes: map[string]string{"a": "1", "quoted": unusual, "empty": ""}, Version: 1 << 40,
				CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.Thing{Tenant: t, Name: "sensor:1"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutThing(v.(imprint.Thing)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Thing(t, "sensor:1") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteThing(t, "sensor:1") },
	}, {
		name: "thing group",
		full: func(t imprint.Tenant) any {
			return imprint.ThingGroup{Tenant: t, Name: "plant:1", ID: "uuid " + string(t.Region), Ancestors: []imprint.ThingGroupName{"world", "eu-west"},
				Description: unusual, Attributes: map[string]string{"a": "1", "quoted": unusual, "empty": ""}, Version: 1 << 40,
				CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.ThingGroup{Tenant: t, Name: "plant:1"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutThingGroup(v.(imprint.ThingGroup)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.ThingGroup(t, "plant:1") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteThingGroup(t, "plant:1") },
	}, {
		name: "policy",
		full: func(t imprint.Tenant) any {
			return imprint.Policy{Tenant: t, Name: "p+=,.@-", DefaultVersion: 3, LastVersion: 9, CreatedAt: instant,
				ModifiedAt: instant.Add(time.Second), GenerationID: "g " + string(t.Region)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.Policy{Tenant: t, Name: "p+=,.@-"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutPolicy(v.(imprint.Policy)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Policy(t, "p+=,.@-") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeletePolicy(t, "p+=,.@-") },
	}, {
		name: "policy version",
		full: func(t imprint.Tenant) any {
			return imprint.PolicyVersion{Tenant: t, Policy: "v", Version: 4, Document: unusual + string(t.Region), CreatedAt: instant}
		},
		bare:   func(t imprint.Tenant) any { return imprint.PolicyVersion{Tenant: t, Policy: "v", Version: 4} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutPolicyVersion(v.(imprint.PolicyVersion)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.PolicyVersion(t, "v", 4) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeletePolicyVersion(t, "v", 4) },
	}, {
		name: "template",
		full: func(t imprint.Tenant) any {
			return imprint.ProvisioningTemplate{Tenant: t, Name: "line", Type: imprint.TemplateFleet, Description: unusual, Enabled: true,
				RoleARN: "role", HookTargetARN: "hook", HookPayloadVersion: "2020-04-01", DefaultVersion: 2, LastVersion: 5,
				CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.ProvisioningTemplate{Tenant: t, Name: "line"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutTemplate(v.(imprint.ProvisioningTemplate)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Template(t, "line") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteTemplate(t, "line") },
	}, {
		name: "template version",
		full: func(t imprint.Tenant) any {
			return imprint.TemplateVersion{Tenant: t, Template: "v", Version: 4, Body: unusual + string(t.Region), CreatedAt: instant}
		},
		bare:   func(t imprint.Tenant) any { return imprint.TemplateVersion{Tenant: t, Template: "v", Version: 4} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutTemplateVersion(v.(imprint.TemplateVersion)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.TemplateVersion(t, "v", 4) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteTemplateVersion(t, "v", 4) },
	}}
}

// otherRows have ids of their own, which hold the tenant here.
func otherRows() []row {
	id := func(t imprint.Tenant) string { return "id " + t.String() }
	labelOf := func(t imprint.Tenant) imprint.LabelName {
		return imprint.LabelName("l" + string(t.Account+"-") + string(t.Region))
	}
	return []row{{
		name: "tenant settings",
		full: func(t imprint.Tenant) any {
			return imprint.TenantSettings{Tenant: t, EndpointPrefix: "prefix" + t.String(), RegistrationCode: "code", CreatedAt: instant}
		},
		bare: func(t imprint.Tenant) any { return imprint.TenantSettings{Tenant: t} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutTenantSettings(v.(imprint.TenantSettings)) },
		get:  func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.TenantSettings(t) },
	}, {
		name: "access key",
		full: func(t imprint.Tenant) any {
			return imprint.AccessKey{ID: id(t), Account: t.Account, User: unusual, Secret: "secret of " + id(t), CreatedAt: instant}
		},
		bare:   func(t imprint.Tenant) any { return imprint.AccessKey{ID: id(t)} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutAccessKey(v.(imprint.AccessKey)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.AccessKey(id(t)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteAccessKey(id(t)) },
	}, {
		name: "attempt",
		full: func(t imprint.Tenant) any {
			return imprint.Attempt{ID: id(t), Tenant: t, At: instant, EndedAt: instant.Add(time.Minute), Address: "[2001:db8::1]:443",
				SNI: "a.example.com", ALPN: "mqtt", TLSVersion: "1.3", CertificateID: certID(1), Serial: "0f", Subject: unusual,
				Thing: "thing", ClientID: unusual, Outcome: imprint.OutcomeRefused, Code: imprint.CodeCAInactive,
				Steps: []imprint.Step{{At: instant.Add(123), Name: "ca", Verdict: imprint.VerdictFailed, Code: imprint.CodeCAInactive,
					Detail: unusual, Fix: "fix"}, {At: instant.Add(124), Name: "close", Verdict: imprint.VerdictInfo}},
				Repeats: 1 << 40, FirstAt: instant.Add(-time.Hour), Fold: "fold", Devices: 3, Sample: []string{unusual, "b"}}
		},
		bare:   func(t imprint.Tenant) any { return imprint.Attempt{ID: id(t)} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutAttempt(v.(imprint.Attempt)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Attempt(id(t)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteAttempt(id(t)) },
	}, {
		name: "issuance",
		full: func(t imprint.Tenant) any {
			return imprint.Issuance{ID: id(t), Tenant: t, Authority: authorityID(1), Profile: "device", Serial: "1f", Subject: unusual, TBSHash: "ab",
				KeyHash: "cd", KeyReusable: true, CA: true, RequestedBy: unusual, RequestToken: unusual, RequestHash: "ef", Renews: certID(9), At: instant, NotBefore: instant.Add(-time.Hour), NotAfter: instant.Add(time.Hour),
				CertificateID: certID(2), Certificate: []byte("0\x00"), RevokedAt: instant.Add(time.Minute), Reason: imprint.ReasonKeyCompromise}
		},
		bare: func(t imprint.Tenant) any { return imprint.Issuance{ID: id(t)} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutIssuance(v.(imprint.Issuance)) },
		get:  func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Issuance(id(t)) },
	}, {
		name: "certificate authority",
		full: func(t imprint.Tenant) any {
			return imprint.CertificateAuthority{Tenant: t, ID: authorityID(1), Name: unusual, Type: imprint.AuthoritySubordinate, Status: imprint.AuthorityActive,
				Key: "file:", SealedKey: []byte("k\x00"), KeyAlgorithm: "EC_prime256v1", SigningAlgorithm: "SHA256WITHECDSA", KeyHash: "ab", Subject: []byte("0\x00"), CSR: "csr",
				Certificate: "pem", Chain: "pem2", CertificateID: certID(3), Serial: "2f", SubjectKeyID: "aa", NotBefore: instant, NotAfter: instant.Add(time.Hour),
				Parent: authorityID(2), Profiles: []string{"device", "server"}, SigningEnds: instant.Add(time.Minute),
				Revocation: imprint.RevocationConfiguration{CRL: true, CRLDays: 7, CRLShards: 64, CRLHost: "crl.example.com", OCSP: true, OCSPHost: "ocsp.example.com"},
				ShortLived: true, Tags: map[string]string{"k": unusual}, IdempotencyToken: unusual, CreatedAt: instant, ChangedAt: instant.Add(1e6),
				RestorableUntil: instant.Add(2e6), RevokedAt: instant.Add(3e6), RevocationReason: imprint.ReasonSuperseded,
				CRLs: imprint.CRLHistory{Base: "http://pki.example.com", Layouts: []imprint.CRLLayout{{Base: "http://old.example.com", Shards: 4}}, Floor: 500, Unknown: true}}
		},
		bare:   func(t imprint.Tenant) any { return imprint.CertificateAuthority{Tenant: t, ID: authorityID(1)} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutAuthority(v.(imprint.CertificateAuthority)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Authority(t, authorityID(1)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteAuthority(t, authorityID(1)) },
	}, {
		name: "renewal",
		full: func(t imprint.Tenant) any {
			return imprint.Renewal{Tenant: t, Certificate: certID(1), Renews: certID(2), State: imprint.RenewalProven, CreatedAt: instant, ProvenAt: instant.Add(time.Hour),
				DueAt: instant.Add(2 * time.Hour), EndedAt: instant.Add(3 * time.Hour), Reason: unusual}
		},
		bare: func(t imprint.Tenant) any { return imprint.Renewal{Tenant: t, Certificate: certID(1)} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutRenewal(v.(imprint.Renewal)) },
		get:  func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Renewal(t, certID(1)) },
	}, {
		name: "enrolment label",
		full: func(t imprint.Tenant) any {
			window, _ := imprint.ParseRenewalWindow("30d")
			return imprint.EnrolmentLabel{Tenant: t, Name: labelOf(t), Authority: authorityID(1), Profile: "operational", DeviceCAs: unusual, StationCAs: "pem", Passwords: true,
				ServerKeys: true, Binding: true, Window: window, CreatedAt: instant, ChangedAt: instant.Add(time.Hour)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.EnrolmentLabel{Tenant: t, Name: labelOf(t)} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutEnrolmentLabel(v.(imprint.EnrolmentLabel)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.EnrolmentLabel(labelOf(t)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteEnrolmentLabel(t, labelOf(t)) },
	}, {
		name: "enrolment password",
		full: func(t imprint.Tenant) any {
			return imprint.EnrolmentPassword{ID: id(t), Tenant: t, Label: "line7", Hash: []byte("h\x00"), Subject: unusual, CreatedAt: instant, ExpiresAt: instant.Add(time.Hour),
				UsedAt: instant.Add(time.Minute), Authority: authorityID(1), Serial: "1f"}
		},
		bare:   func(t imprint.Tenant) any { return imprint.EnrolmentPassword{ID: id(t)} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutEnrolmentPassword(v.(imprint.EnrolmentPassword)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.EnrolmentPassword(id(t)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteEnrolmentPassword(id(t)) },
	}, {
		name: "revocation list",
		full: func(t imprint.Tenant) any {
			return imprint.RevocationList{Tenant: t, Authority: authorityID(1), Shard: 7, Number: 1 << 40, DER: []byte("0\x00"), ThisUpdate: instant,
				NextUpdate: instant.Add(time.Hour), SignedAt: instant.Add(time.Second), DueAt: instant.Add(time.Minute), Wanted: 3, Retired: true}
		},
		bare: func(t imprint.Tenant) any {
			return imprint.RevocationList{Tenant: t, Authority: authorityID(1), Shard: 7}
		},
		put: func(tx imprint.Tx, v any) error { return tx.PutRevocationList(v.(imprint.RevocationList)) },
		get: func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.RevocationList(t, authorityID(1), 7) },
	}, {
		name: "adopted revocation",
		full: func(t imprint.Tenant) any {
			return imprint.AdoptedRevocation{Tenant: t, Authority: authorityID(1), Serial: "1f", CertificateID: certID(4), NotAfter: instant.Add(time.Hour), RevokedAt: instant,
				Reason: imprint.ReasonSuperseded, KeyHash: "aa"}
		},
		bare: func(t imprint.Tenant) any {
			return imprint.AdoptedRevocation{Tenant: t, Authority: authorityID(1), Serial: "1f"}
		},
		put: func(tx imprint.Tx, v any) error { return tx.PutAdoptedRevocation(v.(imprint.AdoptedRevocation)) },
		get: func(tx imprint.ReadTx, t imprint.Tenant) (any, error) {
			return tx.AdoptedRevocation(t, authorityID(1), "1f")
		},
	}, {
		name: "retained message",
		full: func(t imprint.Tenant) any {
			return imprint.RetainedMessage{Tenant: t, Topic: unusual, QoS: 1, Packet: append([]byte("0\x00"), t.Region...), PayloadSize: 1 << 17,
				ModifiedAt: instant, ExpiresAt: instant.Add(time.Hour)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.RetainedMessage{Tenant: t, Topic: unusual} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutRetained(v.(imprint.RetainedMessage)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Retained(t, unusual) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteRetained(t, unusual) },
	}}
}
