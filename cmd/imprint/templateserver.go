package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/template"
)

// templateRegistry reads a server for dry runs, by the control plane's own
// operations.
type templateRegistry struct{ client *client.Client }

var _ provisioning.DryRunRegistry = templateRegistry{}

// get reads one thing. Errors: CodeNotFound.
func (t templateRegistry) get(ctx context.Context, out any, path, name, rest string) error {
	err := t.client.Call(ctx, http.MethodGet, path+url.PathEscape(name)+rest, nil, out)
	var refusal *client.Error
	if errors.As(err, &refusal) && refusal.Status == http.StatusNotFound {
		return imprint.Errorf(imprint.CodeNotFound, "%w", refusal)
	}
	return err
}

type describedTemplate struct {
	Body    string `json:"templateBody"`
	Type    string `json:"type"`
	Enabled bool   `json:"enabled"`
	Version int    `json:"defaultVersionId"`
	Hook    *struct {
		Target string `json:"targetArn"`
	} `json:"preProvisioningHook"`
}

type describedCA struct {
	Description struct {
		ID               string `json:"certificateId"`
		PEM              string `json:"certificatePem"`
		Status           string `json:"status"`
		AutoRegistration string `json:"autoRegistrationStatus"`
		Mode             string `json:"certificateMode"`
	} `json:"certificateDescription"`
	Registration *struct {
		Body string `json:"templateBody"`
		Name string `json:"templateName"`
	} `json:"registrationConfig"`
}

// load reads the template and the CA that the flags name.
func (t templateRegistry) load(ctx context.Context, f *templateFlags, s *templateSubject) error {
	if f.templateName != "" {
		return t.loadTemplate(ctx, f.templateName, s)
	}
	if f.caID == "" {
		return nil
	}
	found, err := t.loadCA(ctx, f.caID, s)
	if err != nil || f.file != "" {
		return err
	}
	s.kind = template.JITP
	switch r := found.Registration; {
	case r == nil || r.Body == "" && r.Name == "":
		return imprint.Errorf(imprint.CodeTemplateMissing, "CA %s has no template: its devices are registered and wait for activation", s.run.RegisteredCA.ID).
			WithHint("Name the template's FILE, or give the CA one: aws iot update-ca-certificate --registration-config templateName=NAME --certificate-id %s", s.run.RegisteredCA.ID)
	case r.Name == "":
		s.body, s.source = r.Body, fmt.Sprintf("inline template of CA %.12s", s.run.RegisteredCA.ID)
		return nil
	default:
		err = t.loadTemplate(ctx, r.Name, s)
		if err == nil && s.kind != template.JITP {
			err = imprint.Errorf(imprint.CodeTemplateMissing, "template %q, which CA %s names, is of type %s, not JITP", r.Name, s.run.RegisteredCA.ID, s.kind)
		}
		return err
	}
}

func (t templateRegistry) loadTemplate(ctx context.Context, name string, s *templateSubject) error {
	var found describedTemplate
	err := t.get(ctx, &found, "/provisioning-templates/", name, "")
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return imprint.Errorf(imprint.CodeTemplateMissing, "provisioning template %q doesn't exist", name).
			WithHint("aws iot list-provisioning-templates shows those that do.")
	}
	if err != nil {
		return fmt.Errorf("couldn't read template %q: %w", name, err)
	}
	s.body, s.source = found.Body, fmt.Sprintf("template %s, version %d", name, found.Version)
	s.kind = template.Fleet
	if found.Type == string(imprint.TemplateJITP) {
		s.kind = template.JITP
	}
	if found.Hook != nil {
		s.run.Hook = found.Hook.Target
	}
	if !found.Enabled {
		s.run.Unusable = imprint.Errorf(imprint.CodeTemplateDisabled, "provisioning template %q is disabled", name).
			WithHint("aws iot update-provisioning-template --template-name %s --enabled", name)
	}
	return nil
}

// loadCA reads a CA by its id, or by its file.
func (t templateRegistry) loadCA(ctx context.Context, word string, s *templateSubject) (describedCA, error) {
	var found describedCA
	match, err := matchOf(word)
	if err != nil {
		return found, err
	}
	id, err := imprint.ParseCertificateID(match)
	if err != nil {
		return found, usageError{fmt.Errorf("--ca-id is neither a certificate's id nor its PEM file: %w", err)}
	}
	err = t.get(ctx, &found, "/cacertificate/", string(id), "")
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return found, imprint.Errorf(imprint.CodeCANotRegistered, "CA %s isn't registered", id).WithHint("aws iot list-ca-certificates shows those that are.")
	}
	if err != nil {
		return found, fmt.Errorf("couldn't read CA %s: %w", id, err)
	}
	cert, err := pki.ParseCertificatePEM(found.Description.PEM)
	if err != nil {
		return found, fmt.Errorf("couldn't read CA %s: %w", id, err)
	}
	s.run.CAs = []*x509.Certificate{cert}
	s.run.RegisteredCA = &imprint.CACertificate{
		ID: id, Status: imprint.CAStatus(found.Description.Status), AutoRegistration: found.Description.AutoRegistration == "ENABLE",
		Mode: imprint.CertificateMode(found.Description.Mode), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}
	return found, nil
}

// maxSamples is how many certificates of a CA lint looks at, the newest ones.
const maxSamples = 100

// certificatesOf reads certificates that a CA signed.
func (t templateRegistry) certificatesOf(ctx context.Context, ca imprint.CertificateID) ([]*x509.Certificate, error) {
	var list struct {
		Certificates []struct {
			ID string `json:"certificateId"`
		} `json:"certificates"`
	}
	err := t.get(ctx, &list, "/certificates-by-ca/", string(ca), fmt.Sprintf("?pageSize=%d", maxSamples))
	if err != nil {
		return nil, fmt.Errorf("couldn't list the certificates of CA %s: %w", ca, err)
	}
	var all []*x509.Certificate
	for _, one := range list.Certificates {
		found, err := t.certificate(ctx, one.ID)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("couldn't read certificate %s: %w", one.ID, err)
		}
		cert, err := pki.ParseCertificatePEM(found.PEM)
		if err != nil {
			return nil, fmt.Errorf("couldn't read certificate %s: %w", one.ID, err)
		}
		all = append(all, cert)
	}
	return all, nil
}

type describedCertificate struct {
	Status string `json:"status"`
	PEM    string `json:"certificatePem"`
}

func (t templateRegistry) certificate(ctx context.Context, id string) (describedCertificate, error) {
	var found struct {
		Description describedCertificate `json:"certificateDescription"`
	}
	err := t.get(ctx, &found, "/certificates/", id, "")
	return found.Description, err
}

// Certificate implements provisioning.DryRunRegistry.
func (t templateRegistry) Certificate(ctx context.Context, id imprint.CertificateID) (imprint.Certificate, error) {
	found, err := t.certificate(ctx, string(id))
	return imprint.Certificate{ID: id, Status: imprint.CertificateStatus(found.Status), PEM: found.PEM}, err
}

// Thing implements provisioning.DryRunRegistry.
func (t templateRegistry) Thing(ctx context.Context, name imprint.ThingName) (imprint.Thing, error) {
	var found struct {
		Type       imprint.ThingTypeName    `json:"thingTypeName"`
		Billing    imprint.BillingGroupName `json:"billingGroupName"`
		Attributes map[string]string        `json:"attributes"`
	}
	err := t.get(ctx, &found, "/things/", string(name), "")
	return imprint.Thing{Name: name, TypeName: found.Type, BillingGroup: found.Billing, Attributes: found.Attributes}, err
}

// ThingType implements provisioning.DryRunRegistry.
func (t templateRegistry) ThingType(ctx context.Context, name imprint.ThingTypeName) (imprint.ThingType, error) {
	var found struct {
		Metadata struct {
			Deprecated bool    `json:"deprecated"`
			Date       float64 `json:"deprecationDate"`
		} `json:"thingTypeMetadata"`
	}
	err := t.get(ctx, &found, "/thing-types/", string(name), "")
	kind := imprint.ThingType{Name: name}
	if found.Metadata.Deprecated {
		kind.DeprecatedAt = time.UnixMilli(int64(found.Metadata.Date * 1000))
	}
	return kind, err
}

// ThingGroup implements provisioning.DryRunRegistry.
func (t templateRegistry) ThingGroup(ctx context.Context, name imprint.ThingGroupName) (imprint.ThingGroup, error) {
	var found struct {
		Metadata struct {
			Above []struct {
				Name imprint.ThingGroupName `json:"groupName"`
			} `json:"rootToParentThingGroups"`
		} `json:"thingGroupMetadata"`
	}
	err := t.get(ctx, &found, "/thing-groups/", string(name), "")
	group := imprint.ThingGroup{Name: name}
	for _, above := range found.Metadata.Above {
		group.Ancestors = append(group.Ancestors, above.Name)
	}
	return group, err
}

// ThingGroupsOf implements provisioning.DryRunRegistry.
func (t templateRegistry) ThingGroupsOf(ctx context.Context, name imprint.ThingName) ([]imprint.ThingGroupName, error) {
	var found struct {
		Groups []struct {
			Name imprint.ThingGroupName `json:"groupName"`
		} `json:"thingGroups"`
	}
	err := t.get(ctx, &found, "/things/", string(name), fmt.Sprintf("/thing-groups?maxResults=%d", 2*imprint.MaxGroupsPerThing))
	var names []imprint.ThingGroupName
	for _, group := range found.Groups {
		names = append(names, group.Name)
	}
	return names, err
}

// BillingGroup implements provisioning.DryRunRegistry.
func (t templateRegistry) BillingGroup(ctx context.Context, name imprint.BillingGroupName) (imprint.BillingGroup, error) {
	return imprint.BillingGroup{Name: name}, t.get(ctx, nil, "/billing-groups/", string(name), "")
}

// Policy implements provisioning.DryRunRegistry.
func (t templateRegistry) Policy(ctx context.Context, name imprint.PolicyName) (imprint.Policy, error) {
	return imprint.Policy{Name: name}, t.get(ctx, nil, "/policies/", string(name), "")
}

// policyDocument reads the default version of a policy.
func (t templateRegistry) policyDocument(ctx context.Context, name imprint.PolicyName) (string, error) {
	var found struct {
		Document string `json:"policyDocument"`
	}
	err := t.get(ctx, &found, "/policies/", string(name), "")
	return found.Document, err
}
