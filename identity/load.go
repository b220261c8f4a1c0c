package identity

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

// load reads an identity, and the documents of its policies, from the store.
func (r *Resolver) load(ctx context.Context, key certKey) (*Identity, []document, error) {
	var i *Identity
	var documents []document
	err := r.store.View(ctx, func(tx imprint.ReadTx) error {
		i, documents = &Identity{}, nil
		cert, err := tx.Certificate(key.tenant, key.id)
		if err != nil {
			return err
		}
		i.Certificate = lean(cert)
		err = loadThings(tx, key, i)
		if err != nil {
			return err
		}
		documents, err = r.loadPolicies(tx, i)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("couldn't look up certificate %s: %w", key.id, err)
	}
	i.Policies, err = r.sets.compiled(documents)
	return i, documents, err
}

// lean drops what no connection needs, to spare memory.
func lean(cert imprint.Certificate) imprint.Certificate {
	cert.PEM, cert.Serial, cert.Subject, cert.GenerationID = "", "", "", ""
	return cert
}

func loadThings(tx imprint.ReadTx, key certKey, i *Identity) error {
	attached, _, err := tx.CertificateThings(key.tenant, key.id, imprint.Page{Limit: maxThings, Ascending: true})
	if err != nil || len(attached) == 0 {
		return err
	}
	i.Things = make([]Attachment, 0, len(attached))
	i.names = make([]imprint.ThingName, 0, len(attached))
	for _, a := range attached {
		i.names = append(i.names, a.Thing)
		thing, err := tx.Thing(key.tenant, a.Thing)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		i.Things = append(i.Things, Attachment{Thing: thing, Exclusive: a.Exclusive})
	}
	return nil
}

// document is one policy's default version.
type document struct {
	name imprint.PolicyName
	text string
}

// loadPolicies gives the documents of the attached policies, by policy name. A
// document that is known from another certificate isn't read again.
func (r *Resolver) loadPolicies(tx imprint.ReadTx, i *Identity) ([]document, error) {
	tenant := i.Certificate.Tenant
	attached, _, err := tx.TargetPolicies(tenant, i.Certificate.ARN(), imprint.Page{Limit: maxPolicies, Ascending: true})
	if err != nil || len(attached) == 0 {
		return nil, err
	}
	documents := make([]document, 0, len(attached))
	i.marks = make([]mark, 0, len(attached))
	for _, a := range attached {
		i.marks = append(i.marks, mark{name: a.Policy})
		if text, known := r.document(policyKey{tenant, a.Policy}); known {
			documents = append(documents, document{a.Policy, text})
			continue
		}
		p, err := tx.Policy(tenant, a.Policy)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		version, err := tx.PolicyVersion(tenant, a.Policy, p.DefaultVersion)
		if err != nil {
			return nil, err
		}
		documents = append(documents, document{a.Policy, version.Document})
	}
	return documents, nil
}

// setKey is the hash of names and documents: a set is shared by whoever has
// the same ones.
type setKey [sha256.Size]byte

func keyOf(documents []document) setKey {
	h := sha256.New()
	var size [8]byte
	write := func(s string) {
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		_, _ = h.Write(size[:]) // a hash never fails
		_, _ = h.Write([]byte(s))
	}
	for _, d := range documents {
		write(string(d.name))
		write(d.text)
	}
	var key setKey
	h.Sum(key[:0])
	return key
}

// setCache holds compiled policies.
type setCache struct {
	mu   sync.Mutex
	sets map[setKey]*policy.Set
}

func (c *setCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sets)
}

// compiled gives the set of the documents.
func (c *setCache) compiled(documents []document) (*policy.Set, error) {
	key := keyOf(documents)
	c.mu.Lock()
	set := c.sets[key]
	c.mu.Unlock()
	if set != nil {
		return set, nil
	}
	named := make([]policy.Named, 0, len(documents))
	for _, d := range documents {
		parsed, err := policy.Parse([]byte(d.text))
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeInternal, "stored policy %s isn't valid: %w", d.name, err)
		}
		named = append(named, policy.Named{Name: string(d.name), Doc: parsed})
	}
	set = policy.Compile(named...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if quicker := c.sets[key]; quicker != nil {
		return quicker, nil
	}
	if len(c.sets) >= maxSets {
		clear(c.sets)
	}
	c.sets[key] = set
	return set, nil
}
