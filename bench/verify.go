package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint/awsapi/attempts"
)

const (
	pageSize = "250"
	// verifyTimeout bounds the wait for connections' last records.
	verifyTimeout = 20 * time.Second
	// samples is how many certificates are also looked at one by one.
	samples = 16
)

// verify says whether the registry and the trace hold exactly the devices that
// came: a thing and an ACTIVE certificate each, an attempt that provisioned it,
// and attempts that connected of those whom the trace kept.
func (s *stand) verify(ctx context.Context) error {
	all := slices.Concat(s.warmers, s.devices)
	err := s.verifyThings(ctx, all)
	if err != nil {
		return err
	}
	err = s.verifyCertificates(ctx, all)
	if err != nil {
		return err
	}
	for n := range min(samples, len(all)) {
		err = s.verifySample(ctx, all[n*len(all)/min(samples, len(all))])
		if err != nil {
			return err
		}
	}
	// An attempt is recorded as connected after its CONNACK went out, so the
	// last ones may come a moment later.
	return s.await(ctx, verifyTimeout, "couldn't find every attempt in the trace", func(ctx context.Context) error {
		return s.verifyAttempts(ctx, all)
	})
}

// compare checks that a list holds each wanted name once and nothing else.
func compare(what string, found, wanted []string) error {
	slices.Sort(found)
	slices.Sort(wanted)
	if slices.Equal(found, wanted) {
		return nil
	}
	if len(found) != len(wanted) {
		return fmt.Errorf("couldn't account for every device: %d %s are there, %d came", len(found), what, len(wanted))
	}
	for n, name := range found {
		if name != wanted[n] {
			return fmt.Errorf("couldn't account for every device: among the %s is %s, where %s is expected", what, name, wanted[n])
		}
	}
	return nil
}

func namesOf(all []*device, name func(*device) string) []string {
	names := make([]string, 0, len(all))
	for _, d := range all {
		names = append(names, name(d))
	}
	return names
}

func (s *stand) verifyThings(ctx context.Context, all []*device) error {
	var found []string
	err := s.pages(ctx, "/things", "maxResults", "nextToken", func(path string) (string, error) {
		var page struct {
			Things []struct {
				ThingName string `json:"thingName"`
			} `json:"things"`
			NextToken string `json:"nextToken"`
		}
		err := s.api.Call(ctx, "GET", path, nil, &page)
		for _, thing := range page.Things {
			found = append(found, thing.ThingName)
		}
		return page.NextToken, err
	})
	if err != nil {
		return fmt.Errorf("couldn't list the things: %w", err)
	}
	return compare("things", found, namesOf(all, func(d *device) string { return d.thing }))
}

func (s *stand) verifyCertificates(ctx context.Context, all []*device) error {
	var found []string
	err := s.pages(ctx, "/certificates", "pageSize", "marker", func(path string) (string, error) {
		var page struct {
			Certificates []struct {
				CertificateID string `json:"certificateId"`
				Status        string `json:"status"`
			} `json:"certificates"`
			NextMarker string `json:"nextMarker"`
		}
		err := s.api.Call(ctx, "GET", path, nil, &page)
		for _, certificate := range page.Certificates {
			if certificate.Status == "ACTIVE" {
				found = append(found, certificate.CertificateID)
			}
		}
		return page.NextMarker, err
	})
	if err != nil {
		return fmt.Errorf("couldn't list the certificates: %w", err)
	}
	return compare("ACTIVE certificates", found, namesOf(all, func(d *device) string { return d.certificateID }))
}

// verifySample looks at one device's certificate as it is stored and at what is
// attached to it.
func (s *stand) verifySample(ctx context.Context, d *device) error {
	var described struct {
		CertificateDescription struct {
			Status         string `json:"status"`
			CertificatePEM string `json:"certificatePem"`
		} `json:"certificateDescription"`
	}
	err := s.api.Call(ctx, "GET", "/certificates/"+d.certificateID, nil, &described)
	if err != nil {
		return fmt.Errorf("couldn't look at the certificate of %s: %w", d.thing, err)
	}
	stored := described.CertificateDescription
	if stored.Status != "ACTIVE" || strings.TrimSpace(stored.CertificatePEM) != strings.TrimSpace(certificatePEM(d.certificate.Leaf.Raw)) {
		return fmt.Errorf("couldn't account for %s: its certificate is %s, or isn't the one that it came with", d.thing, stored.Status)
	}
	var attached struct {
		Principals []string `json:"principals"`
	}
	err = s.api.Call(ctx, "GET", "/things/"+url.PathEscape(d.thing)+"/principals", nil, &attached)
	if err != nil {
		return fmt.Errorf("couldn't look at the principals of %s: %w", d.thing, err)
	}
	if len(attached.Principals) != 1 || !strings.HasSuffix(attached.Principals[0], ":cert/"+d.certificateID) {
		return fmt.Errorf("couldn't account for %s: attached to it is %q", d.thing, attached.Principals)
	}
	return nil
}

func (s *stand) verifyAttempts(ctx context.Context, all []*device) error {
	var provisioned, connected []string
	err := s.pages(ctx, attempts.Path, "maxResults", "nextToken", func(path string) (string, error) {
		var page struct {
			Attempts []struct {
				CertificateID string `json:"certificateId"`
				Outcome       string `json:"outcome"`
				Code          string `json:"code"`
			} `json:"attempts"`
			NextToken string `json:"nextToken"`
		}
		err := s.api.Call(ctx, "GET", path, nil, &page)
		for _, a := range page.Attempts {
			switch a.Outcome {
			case "provisioned":
				provisioned = append(provisioned, a.CertificateID)
			case "connected", "closed":
				connected = append(connected, a.CertificateID)
			default:
				return "", fmt.Errorf("an attempt of certificate %s is %s: %s", a.CertificateID, a.Outcome, a.Code)
			}
		}
		return page.NextToken, err
	})
	if err != nil {
		return fmt.Errorf("couldn't list the attempts: %w", err)
	}
	wanted := namesOf(all, func(d *device) string { return d.certificateID })
	err = compare("attempts that provisioned", provisioned, wanted)
	if err != nil {
		return err
	}
	// Of those that were let in while many came, the trace keeps some.
	slices.Sort(wanted)
	slices.Sort(connected)
	for n, id := range connected {
		if _, came := slices.BinarySearch(wanted, id); !came || n > 0 && connected[n-1] == id {
			return fmt.Errorf("couldn't account for every attempt: certificate %s is among those that connected, and came twice or never", id)
		}
	}
	if len(connected) == 0 {
		return errors.New("couldn't find an attempt that connected")
	}
	return nil
}

// pages gets every page of a list. The function is given the path of one and
// gives the token of the next.
func (s *stand) pages(ctx context.Context, path, sizeName, tokenName string, get func(path string) (string, error)) error {
	token := ""
	for range MaxDevices { // far more pages than there can be
		query := url.Values{sizeName: {pageSize}}
		if token != "" {
			query.Set(tokenName, token)
		}
		next, err := get(path + "?" + query.Encode())
		if err != nil {
			return err
		}
		if next == "" {
			return nil
		}
		if next == token {
			return fmt.Errorf("the list %s doesn't go on after one of its pages", path)
		}
		token = next
		err = ctx.Err()
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("the list %s has no end", path)
}
