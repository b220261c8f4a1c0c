package provisioning

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/imprint-iot/imprint"
)

// partsPerRead is how many parts of a report are in memory.
const partsPerRead = 4

// HasReport says whether a report of a task has a line. Errors: CodeNotFound for
// the task.
func (b *Bulk) HasReport(ctx context.Context, tenant imprint.Tenant, id, kind string) (bool, error) {
	var found []imprint.RegistrationReport
	err := b.store.View(ctx, func(tx imprint.ReadTx) error {
		_, err := tx.RegistrationTask(tenant, id)
		if err != nil {
			return err
		}
		found, err = tx.RegistrationReports(tenant, id, kind, 0, 1)
		return err
	})
	return len(found) > 0, err
}

// WriteReport writes a report of a task as far as it is: a JSON object a line. After
// each part of some hundred lines it calls progress.
func (b *Bulk) WriteReport(ctx context.Context, w io.Writer, tenant imprint.Tenant, id, kind string, progress func() error) error {
	last := int64(0)
	for {
		var body bytes.Buffer
		parts := 0
		err := b.store.View(ctx, func(tx imprint.ReadTx) error {
			body.Reset()
			found, err := tx.RegistrationReports(tenant, id, kind, last, partsPerRead)
			if err != nil {
				return err
			}
			parts = len(found)
			for _, part := range found {
				last = part.Line
				err = present(tx, &body, part)
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("couldn't read the report: %w", err)
		}
		if parts == 0 {
			return nil
		}
		err = progress()
		if err != nil {
			return fmt.Errorf("couldn't go on with the report: %w", err)
		}
		_, err = w.Write(body.Bytes())
		if err != nil {
			return fmt.Errorf("couldn't send the report: %w", err)
		}
	}
}

// present writes a part of a report with the texts of the certificates, which are
// in the registry; one that was deleted has none.
func present(tx imprint.ReadTx, body *bytes.Buffer, part imprint.RegistrationReport) error {
	if part.Kind != imprint.ReportResults {
		body.Write(part.Body)
		return nil
	}
	encoder := json.NewEncoder(body)
	for line := range bytes.Lines(part.Body) {
		var v verdict
		err := json.Unmarshal(line, &v)
		if err == nil && v.Response == nil {
			err = errors.New("it has no response")
		}
		if err != nil {
			return imprint.Errorf(imprint.CodeInternal, "couldn't read a line of the report of task %s: %w", part.Task, err)
		}
		id, found := certificateOf(v.Response.ResourceArns)
		if found {
			cert, err := tx.Certificate(part.Tenant, id)
			if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
				return err
			}
			v.Response.CertificatePem = cert.PEM
		}
		err = encoder.Encode(v)
		if err != nil {
			return fmt.Errorf("couldn't encode a line of a report: %w", err)
		}
	}
	return nil
}

func certificateOf(arns map[string]string) (imprint.CertificateID, bool) {
	for _, arn := range arns {
		_, id, found := strings.Cut(arn, ":cert/")
		if found {
			return imprint.CertificateID(id), true
		}
	}
	return "", false
}
