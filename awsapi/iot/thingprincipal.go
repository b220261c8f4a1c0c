package iot

import (
	"context"
	"fmt"
	"regexp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/renewal"
)

// thingPrincipalRoutes are the operations that join certificates to things (AWS
// IoT API reference, AttachThingPrincipal and its neighbours).
func (s *Service) thingPrincipalRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleForAll(AttachThingPrincipal, func(c awsapi.Caller, in *AttachThingPrincipalInput) []string {
			return pairOf(thingResource(c, in.ThingName), targetResource(c, in.Principal))
		}, s.attachThingPrincipal),
		awsapi.HandleForAll(DetachThingPrincipal, func(c awsapi.Caller, in *DetachThingPrincipalInput) []string {
			return pairOf(thingResource(c, in.ThingName), targetResource(c, in.Principal))
		}, s.detachThingPrincipal),
		awsapi.Handle(ListThingPrincipals, s.listThingPrincipals),
		awsapi.Handle(ListThingPrincipalsV2, s.listThingPrincipalsV2),
		awsapi.HandleFor(ListPrincipalThings, func(c awsapi.Caller, in *ListPrincipalThingsInput) string {
			return targetResource(c, in.Principal)
		}, s.listPrincipalThings),
		awsapi.HandleFor(ListPrincipalThingsV2, func(c awsapi.Caller, in *ListPrincipalThingsV2Input) string {
			return targetResource(c, in.Principal)
		}, s.listPrincipalThingsV2),
	}
}

var cognitoPattern = regexp.MustCompile(`^[a-z]{2,8}(-[a-z0-9]{1,12}){1,4}:[0-9a-fA-F-]{36}$`)

// parsePrincipal reads the certificate that a request names as its principal:
// the ARN of a device certificate of the caller's tenant.
func parsePrincipal(tenant imprint.Tenant, text string) (imprint.CertificateID, error) {
	if cognitoPattern.MatchString(text) {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "%s is an Amazon Cognito identity.", text).
			WithHint("This build of Imprint keeps no Cognito identities: name a certificate by its ARN.")
	}
	id, err := tenant.ParseCertificateARN(text)
	if err != nil {
		return "", fmt.Errorf("couldn't read the principal: %w", err)
	}
	return id, nil
}

// readPrincipal finds the certificate that a request names as its principal.
func readPrincipal(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.Certificate, error) {
	id, err := parsePrincipal(tenant, text)
	if err != nil {
		return imprint.Certificate{}, err
	}
	certificate, err := tx.Certificate(tenant, id)
	if err != nil {
		return imprint.Certificate{}, explainNotFound(err, "Certificate", string(id))
	}
	return certificate, nil
}

// attachThingPrincipal joins a certificate, with what is to take its place, to a thing. An
// exclusive attachment is the certificate's only one.
func (s *Service) attachThingPrincipal(ctx context.Context, caller awsapi.Caller, in *AttachThingPrincipalInput) (*AttachThingPrincipalOutput, error) {
	exclusive := in.ThingPrincipalType != nil && *in.ThingPrincipalType == ThingPrincipalTypeExclusiveThing
	return update(ctx, s, func(tx imprint.Tx) (*AttachThingPrincipalOutput, error) {
		certificate, err := readPrincipal(tx, tenantOf(caller), in.Principal)
		if err != nil {
			return nil, err
		}
		thing, err := readThing(tx, certificate.Tenant, in.ThingName)
		if err != nil {
			return nil, err
		}
		wanted := imprint.ThingAttachment{Tenant: thing.Tenant, Thing: thing.Name, Certificate: certificate.ID, Exclusive: exclusive}
		along, err := renewal.Along(tx, certificate.Tenant, certificate.ID)
		if err != nil {
			return nil, err
		}
		for _, id := range append(along, certificate.ID) {
			wanted.Certificate = id
			there, err := checkExclusive(tx, wanted)
			if err == nil && !there {
				err = tx.PutThingAttachment(wanted)
			}
			if err != nil {
				return nil, fmt.Errorf("couldn't attach certificate %s to thing %s: %w", id, thing.Name, err)
			}
		}
		return &AttachThingPrincipalOutput{}, nil
	})
}

// checkExclusive says whether an attachment exists already, and refuses it when
// an exclusive one is in its way or it would be exclusive beside another. Two
// rows are enough: beside an exclusive attachment there is no other.
func checkExclusive(tx imprint.ReadTx, wanted imprint.ThingAttachment) (bool, error) {
	attached, _, err := tx.CertificateThings(wanted.Tenant, wanted.Certificate, imprint.Page{Limit: 2, Ascending: true})
	if err != nil {
		return false, fmt.Errorf("couldn't read the things of certificate %s: %w", wanted.Certificate, err)
	}
	there := false
	for _, a := range attached {
		if a.Thing == wanted.Thing {
			there = true
			continue
		}
		if a.Exclusive {
			return false, imprint.Errorf(imprint.CodeInvalidRequest, "Certificate %s is attached exclusively to thing %s.", wanted.Certificate, a.Thing).
				WithHint("Detach it there first.")
		}
		if wanted.Exclusive {
			return false, imprint.Errorf(imprint.CodeInvalidRequest, "Certificate %s is attached to thing %s and can't be attached exclusively to thing %s.",
				wanted.Certificate, a.Thing, wanted.Thing).WithHint("Detach it there first.")
		}
	}
	if there && attached[0].Exclusive != wanted.Exclusive {
		return false, imprint.Errorf(imprint.CodeInvalidRequest, "Certificate %s is attached to thing %s as %s, not as %s.",
			wanted.Certificate, wanted.Thing, principalType(attached[0].Exclusive), principalType(wanted.Exclusive)).
			WithHint("Detach it first to change the type.")
	}
	return there, nil
}

func principalType(exclusive bool) ThingPrincipalType {
	if exclusive {
		return ThingPrincipalTypeExclusiveThing
	}
	return ThingPrincipalTypeNonExclusiveThing
}

func (s *Service) detachThingPrincipal(ctx context.Context, caller awsapi.Caller, in *DetachThingPrincipalInput) (*DetachThingPrincipalOutput, error) {
	id, err := parsePrincipal(tenantOf(caller), in.Principal)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*DetachThingPrincipalOutput, error) {
		thing, err := readThing(tx, tenantOf(caller), in.ThingName)
		if err != nil {
			return nil, err
		}
		_, found, err := findAttachment(tx, thing, id)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, imprint.Errorf(imprint.CodeNotFound, "Certificate %s is not attached to thing %s.", id, thing.Name)
		}
		along, err := renewal.Along(tx, thing.Tenant, id)
		if err != nil {
			return nil, err
		}
		for _, one := range append(along, id) {
			err = tx.DeleteThingAttachment(thing.Tenant, thing.Name, one)
			if err != nil {
				return nil, fmt.Errorf("couldn't detach certificate %s from thing %s: %w", one, thing.Name, err)
			}
		}
		return &DetachThingPrincipalOutput{}, nil
	})
}

// findAttachment looks a certificate up among a thing's principals. A thing
// has few of them, a certificate may have very many things.
func findAttachment(tx imprint.ReadTx, thing imprint.Thing, id imprint.CertificateID) (imprint.ThingAttachment, bool, error) {
	p := imprint.Page{Limit: maxPageSize, Ascending: true}
	for {
		attached, next, err := tx.ThingPrincipals(thing.Tenant, thing.Name, p)
		if err != nil {
			return imprint.ThingAttachment{}, false, fmt.Errorf("couldn't read the principals of thing %s: %w", thing.Name, err)
		}
		for _, a := range attached {
			if a.Certificate == id {
				return a, true, nil
			}
		}
		if next == "" {
			return imprint.ThingAttachment{}, false, nil
		}
		p.Cursor = next
	}
}

// attachmentPage reads one page of a thing's or a certificate's attachments.
type attachmentPage func(imprint.Page) ([]imprint.ThingAttachment, string, error)

// maxFilterRounds bounds the reads for one page of a filtered list. A page that
// is short because of it still carries the token of the next one.
const maxFilterRounds = 8

// listAttachments gives one page of attachments, of one type only when only is
// set.
func listAttachments(read attachmentPage, p imprint.Page, only *ThingPrincipalType) ([]imprint.ThingAttachment, string, error) {
	found := make([]imprint.ThingAttachment, 0, p.Limit)
	limit := p.Limit
	for range maxFilterRounds {
		p.Limit = limit - len(found)
		attached, next, err := read(p)
		if err != nil {
			return nil, "", fmt.Errorf("couldn't list attachments: %w", err)
		}
		for _, a := range attached {
			if only == nil || principalType(a.Exclusive) == *only {
				found = append(found, a)
			}
		}
		p.Cursor = next
		if next == "" || len(found) == limit {
			break
		}
	}
	return found, p.Cursor, nil
}

// thingAttachments lists what is attached to a thing.
func (s *Service) thingAttachments(ctx context.Context, caller awsapi.Caller, name string, p imprint.Page, only *ThingPrincipalType) (attachmentList, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (attachmentList, error) {
		thing, err := readThing(tx, tenantOf(caller), name)
		if err != nil {
			return attachmentList{}, err
		}
		items, next, err := listAttachments(func(p imprint.Page) ([]imprint.ThingAttachment, string, error) {
			return tx.ThingPrincipals(thing.Tenant, thing.Name, p)
		}, p, only)
		return attachmentList{items, next}, err
	})
}

// principalAttachments lists the things of a certificate.
func (s *Service) principalAttachments(ctx context.Context, caller awsapi.Caller, principal string, p imprint.Page, only *ThingPrincipalType) (attachmentList, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (attachmentList, error) {
		certificate, err := readPrincipal(tx, tenantOf(caller), principal)
		if err != nil {
			return attachmentList{}, err
		}
		items, next, err := listAttachments(func(p imprint.Page) ([]imprint.ThingAttachment, string, error) {
			return tx.CertificateThings(certificate.Tenant, certificate.ID, p)
		}, p, only)
		return attachmentList{items, next}, err
	})
}

// attachmentList is one page of attachments with the token of the next.
type attachmentList struct {
	items []imprint.ThingAttachment
	next  string
}

func (s *Service) listThingPrincipals(ctx context.Context, caller awsapi.Caller, in *ListThingPrincipalsInput) (*ListThingPrincipalsOutput, error) {
	list, err := s.thingAttachments(ctx, caller, in.ThingName, registryPage(in.MaxResults, in.NextToken), nil)
	if err != nil {
		return nil, err
	}
	out := &ListThingPrincipalsOutput{Principals: make([]string, 0, len(list.items)), NextToken: list.next}
	for _, a := range list.items {
		out.Principals = append(out.Principals, a.Tenant.CertificateARN(a.Certificate))
	}
	return out, nil
}

func (s *Service) listThingPrincipalsV2(ctx context.Context, caller awsapi.Caller, in *ListThingPrincipalsV2Input) (*ListThingPrincipalsV2Output, error) {
	list, err := s.thingAttachments(ctx, caller, in.ThingName, registryPage(in.MaxResults, in.NextToken), in.ThingPrincipalType)
	if err != nil {
		return nil, err
	}
	out := &ListThingPrincipalsV2Output{ThingPrincipalObjects: make([]ThingPrincipalObject, 0, len(list.items)), NextToken: list.next}
	for _, a := range list.items {
		out.ThingPrincipalObjects = append(out.ThingPrincipalObjects, ThingPrincipalObject{
			Principal: a.Tenant.CertificateARN(a.Certificate), ThingPrincipalType: principalType(a.Exclusive),
		})
	}
	return out, nil
}

func (s *Service) listPrincipalThings(ctx context.Context, caller awsapi.Caller, in *ListPrincipalThingsInput) (*ListPrincipalThingsOutput, error) {
	list, err := s.principalAttachments(ctx, caller, in.Principal, registryPage(in.MaxResults, in.NextToken), nil)
	if err != nil {
		return nil, err
	}
	out := &ListPrincipalThingsOutput{Things: make([]string, 0, len(list.items)), NextToken: list.next}
	for _, a := range list.items {
		out.Things = append(out.Things, string(a.Thing))
	}
	return out, nil
}

func (s *Service) listPrincipalThingsV2(ctx context.Context, caller awsapi.Caller, in *ListPrincipalThingsV2Input) (*ListPrincipalThingsV2Output, error) {
	list, err := s.principalAttachments(ctx, caller, in.Principal, registryPage(in.MaxResults, in.NextToken), in.ThingPrincipalType)
	if err != nil {
		return nil, err
	}
	out := &ListPrincipalThingsV2Output{PrincipalThingObjects: make([]PrincipalThingObject, 0, len(list.items)), NextToken: list.next}
	for _, a := range list.items {
		out.PrincipalThingObjects = append(out.PrincipalThingObjects, PrincipalThingObject{
			ThingName: string(a.Thing), ThingPrincipalType: principalType(a.Exclusive),
		})
	}
	return out, nil
}
