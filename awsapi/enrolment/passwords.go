package enrolment

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

const (
	// maxPasswords is how many are made at once, and maxLifetime, a year, the longest that
	// one lives, in seconds.
	maxPasswords = 1000
	maxLifetime  = 365 * 24 * 60 * 60
)

// The requests and responses.
type (
	// PasswordCreateInput asks for passwords: Count of them, or one for each of Subjects.
	PasswordCreateInput struct {
		Label    string   `api:"path label Label required"`
		Count    *int     `api:"body count Count"`
		Subjects []string `api:"body subjects Subjects"`
		Lifetime *int     `api:"body lifetimeSeconds Seconds"`
	}
	// PasswordCreateOutput has them.
	PasswordCreateOutput struct {
		Passwords []Password `api:"body passwords Passwords"`
	}
	// PasswordInput names one.
	PasswordInput struct {
		Label    string `api:"path label Label required"`
		Password string `api:"path password PasswordID required"`
	}
	// PasswordListInput asks for a page.
	PasswordListInput struct {
		Label      string  `api:"path label Label required"`
		MaxResults *int    `api:"query maxResults MaxResults"`
		NextToken  *string `api:"query nextToken NextToken"`
	}
	// PasswordListOutput is a page of passwords, without what is secret.
	PasswordListOutput struct {
		Passwords []Password `api:"body passwords Passwords"`
		NextToken string     `api:"body nextToken NextToken"`
	}
	// Password is one as it is shown. Secret is there when it is made.
	Password struct {
		User      string    `api:"body user String"`
		Secret    string    `api:"body password String"`
		Subject   string    `api:"body subject String"`
		CreatedAt time.Time `api:"body createdAt Time"`
		ExpiresAt time.Time `api:"body expiresAt Time"`
		UsedAt    time.Time `api:"body usedAt Time"`
		Serial    string    `api:"body serial String"`
	}
)

// defaultLifetime is how long a password is good for where nothing is said.
const defaultLifetime = 24 * time.Hour

// letters write what a person may have to type: no capitals, no digits that look like
// letters.
var letters = base32.StdEncoding.WithPadding(base32.NoPadding)

func random(bytes int) string {
	raw := make([]byte, bytes)
	// crypto/rand.Read never fails; it ends the program instead.
	_, _ = rand.Read(raw)
	return strings.ToLower(letters.EncodeToString(raw))
}

// The password has 130 bits: nobody guesses it, and a plain hash keeps it.
const (
	userBytes   = 10
	secretBytes = 16
)

func (o Office) createPasswords(ctx context.Context, caller awsapi.Caller, in *PasswordCreateInput) (*PasswordCreateOutput, error) {
	subjects := in.Subjects
	switch {
	case in.Count != nil && len(subjects) > 0 && *in.Count != len(subjects):
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%d passwords are asked for and %d serial numbers given", *in.Count, len(subjects)).
			WithHint("Each serial number gets one password: leave the number out.")
	case len(subjects) == 0:
		count := 1
		if in.Count != nil {
			count = *in.Count
		}
		subjects = make([]string, count)
	}
	lifetime := defaultLifetime
	if in.Lifetime != nil {
		lifetime = time.Duration(*in.Lifetime) * time.Second
	}
	now := o.Clock()
	out := &PasswordCreateOutput{}
	rows := make([]imprint.EnrolmentPassword, 0, len(subjects))
	for _, subject := range subjects {
		secret := random(secretBytes)
		hash := sha256.Sum256([]byte(secret))
		row := imprint.EnrolmentPassword{
			ID: random(userBytes), Tenant: tenantOf(caller), Label: imprint.LabelName(in.Label), Hash: hash[:], Subject: subject, CreatedAt: now, ExpiresAt: now.Add(lifetime),
		}
		rows = append(rows, row)
		shown := shownPassword(&row)
		shown.Secret = secret
		out.Passwords = append(out.Passwords, shown)
	}
	err := o.Store.Update(ctx, func(tx imprint.Tx) error {
		l, err := read(tx, caller, in.Label)
		if err != nil {
			return err
		}
		if !l.Passwords {
			return imprint.Errorf(imprint.CodeInvalidRequest, "label %s takes no passwords", l.Name).WithHint("imprint est update %s --passwords", l.Name)
		}
		for _, row := range rows {
			err = tx.PutEnrolmentPassword(row)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (o Office) passwords(ctx context.Context, caller awsapi.Caller, in *PasswordListInput) (*PasswordListOutput, error) {
	out := &PasswordListOutput{}
	err := o.Store.View(ctx, func(tx imprint.ReadTx) error {
		l, err := read(tx, caller, in.Label)
		if err != nil {
			return err
		}
		all, next, err := tx.EnrolmentPasswords(l.Tenant, l.Name, pageOf(in.MaxResults, in.NextToken))
		out.Passwords, out.NextToken = []Password{}, next
		for _, p := range all {
			out.Passwords = append(out.Passwords, shownPassword(&p))
		}
		return err
	})
	return out, err
}

func (o Office) deletePassword(ctx context.Context, caller awsapi.Caller, in *PasswordInput) (*Nothing, error) {
	err := o.Store.Update(ctx, func(tx imprint.Tx) error {
		l, err := read(tx, caller, in.Label)
		if err != nil {
			return err
		}
		found, err := tx.EnrolmentPassword(in.Password)
		if err == nil && (found.Tenant != l.Tenant || found.Label != l.Name) {
			err = imprint.Errorf(imprint.CodeNotFound, "no one-time password of label %s has the name %q", l.Name, in.Password)
		}
		if err != nil {
			return err
		}
		return tx.DeleteEnrolmentPassword(in.Password)
	})
	return &Nothing{}, err
}

func shownPassword(p *imprint.EnrolmentPassword) Password {
	return Password{User: p.ID, Subject: p.Subject, CreatedAt: p.CreatedAt, ExpiresAt: p.ExpiresAt, UsedAt: p.UsedAt, Serial: p.Serial}
}
