package rules

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/trace"
)

// kindConfirm is the kind of the delivery that asks a URL's owner to confirm a
// destination.
const kindConfirm = "confirm"

// ConfirmAge is how long the question is tried and an answer is waited for
// (developer guide, "Working with HTTP topic rule destinations").
const ConfirmAge = 24 * time.Hour

// TokenHash gives what a destination keeps of its token.
func TokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// confirmation is the request of a confirm delivery.
type confirmation struct {
	ID    string `json:"id"`
	Token string `json:"token"`
}

// Ask puts a destination into the transaction, to be confirmed with a new token,
// and the question to its owner.
func Ask(tx imprint.Tx, d imprint.RuleDestination, now time.Time) (imprint.RuleDestination, error) {
	var raw [32]byte
	// crypto/rand.Read never fails; it ends the program instead.
	_, _ = rand.Read(raw[:])
	token := base64.RawURLEncoding.EncodeToString(raw[:])
	d.Status, d.TokenHash, d.ModifiedAt = imprint.RuleDestinationInProgress, TokenHash(token), now
	d.StatusReason = "Awaiting confirmation. Confirmation message sent on " + now.UTC().Format(time.RFC3339) + "."
	request, err := json.Marshal(confirmation{ID: d.ID, Token: token})
	if err != nil {
		return d, fmt.Errorf("couldn't encode a confirmation: %w", err)
	}
	err = tx.PutRuleDestination(d)
	if err != nil {
		return d, fmt.Errorf("couldn't store destination %s: %w", d.ID, err)
	}
	err = tx.PutRuleDelivery(imprint.RuleDelivery{
		ID: trace.NewID(now), Tenant: d.Tenant, Kind: kindConfirm, Queue: queueOf(kindConfirm, hostOf(d.URL)), DueAt: now, CreatedAt: now, Request: request,
	})
	if err != nil {
		return d, fmt.Errorf("couldn't store the confirmation of destination %s: %w", d.ID, err)
	}
	return d, nil
}

// AsOf gives a destination as it stands at a time: one that nobody has confirmed for
// ConfirmAge failed.
func AsOf(d imprint.RuleDestination, now time.Time) imprint.RuleDestination {
	end := d.ModifiedAt.Add(ConfirmAge)
	if d.Status == imprint.RuleDestinationInProgress && !now.Before(end) {
		d.Status, d.ModifiedAt = imprint.RuleDestinationError, end
		d.StatusReason = "Confirmation timed out: nobody confirmed within a day of the message. The status IN_PROGRESS asks again."
	}
	return d
}

// Confirm enables the destination of a token, within ConfirmAge; the tenant, when given,
// must be the destination's. Errors: CodeUnauthorized.
func Confirm(tx imprint.Tx, tenant *imprint.Tenant, token string, now time.Time) error {
	refusal := imprint.Errorf(imprint.CodeUnauthorized, "the confirmation token isn't that of a destination that waits for it")
	if token == "" {
		return refusal
	}
	d, err := tx.RuleDestinationByToken(TokenHash(token))
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && tenant != nil && d.Tenant != *tenant {
		return refusal
	}
	if err != nil {
		return fmt.Errorf("couldn't read a destination: %w", err)
	}
	switch AsOf(d, now).Status {
	case imprint.RuleDestinationEnabled:
		return nil // the owner's client asks twice
	case imprint.RuleDestinationInProgress:
	default:
		return refusal
	}
	d.Status, d.StatusReason, d.ModifiedAt = imprint.RuleDestinationEnabled, "", now
	err = tx.PutRuleDestination(d)
	if err != nil {
		return fmt.Errorf("couldn't enable destination %s: %w", d.ID, err)
	}
	return nil
}

// tryConfirm asks the owner of a destination's URL.
func (o *outbox) tryConfirm(d imprint.RuleDelivery) error {
	e := o.engine
	var c confirmation
	err := json.Unmarshal(d.Request, &c)
	if err != nil {
		return o.remove(d)
	}
	var destination imprint.RuleDestination
	err = e.store.View(o.ctx, func(tx imprint.ReadTx) error {
		found, err := tx.RuleDestination(d.Tenant, c.ID)
		destination = found
		return err
	})
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return o.remove(d)
	}
	if err != nil {
		return err
	}
	if destination.Status != imprint.RuleDestinationInProgress || destination.TokenHash != TokenHash(c.Token) {
		return o.remove(d) // it was confirmed, or another question was asked since
	}
	failed := o.ask(destination, c.Token)
	if o.ctx.Err() != nil {
		return nil
	}
	if failed == nil {
		return o.remove(d)
	}
	d.Failures++
	if !isPermanent(failed) && e.clock().Sub(d.CreatedAt) < ConfirmAge {
		return o.putOff(d)
	}
	e.opts.Logger.Warn("a destination of topic rules couldn't be asked to confirm", "tenant", d.Tenant.String(), "destination", destination.ARN(), "error", failed)
	err = e.store.Update(o.ctx, func(tx imprint.Tx) error {
		now, err := tx.RuleDestination(d.Tenant, c.ID)
		gone := imprint.CodeOf(err) == imprint.CodeNotFound
		if gone || err == nil && (now.TokenHash != destination.TokenHash || now.Status != imprint.RuleDestinationInProgress) {
			return nil // or somebody was quicker
		}
		if err != nil {
			return err
		}
		now.Status, now.ModifiedAt = imprint.RuleDestinationError, e.clock()
		now.StatusReason = "The confirmation message couldn't be delivered: " + imprint.Excerpt(failed.Error())
		return tx.PutRuleDestination(now)
	})
	if err != nil {
		return err
	}
	return o.remove(d)
}

// ask sends the question (developer guide, "Confirming topic rule destinations").
func (o *outbox) ask(d imprint.RuleDestination, token string) error {
	enable := ""
	if o.engine.opts.ConfirmURL != nil {
		enable = o.engine.opts.ConfirmURL() + "/" + url.PathEscape(token)
	}
	body, err := json.Marshal(map[string]string{
		"arn": d.ARN(), "confirmationToken": token, "enableUrl": enable, "messageType": "DestinationConfirmation",
	})
	if err != nil {
		return permanent{err}
	}
	target, err := url.Parse(d.URL)
	if err != nil {
		return permanent{err}
	}
	query := target.Query()
	query.Set("confirmationToken", token)
	target.RawQuery = query.Encode()
	header := http.Header{}
	header.Set("Content-Type", "application/json")
	header.Set("x-amz-rules-engine-message-type", "DestinationConfirmation")
	header.Set("x-amz-rules-engine-destination-arn", d.ARN())
	// What the address answers isn't told: nobody has confirmed yet that it is the
	// account's.
	_, err = o.http.send(o.ctx, d.Tenant.Account, target.String(), header, body)
	return err
}
