package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// BulkOptions are what a person can choose for Bulk.
type BulkOptions struct {
	Options
	// Long is how many lines of one input the server's memory is looked at with,
	// against inputs of bulkShort lines; 0: it isn't.
	Long int
	// CSR has each line bring a signing request, of which the server makes a certificate.
	CSR bool
}

const (
	bulkShort = 1000
	// maxShortInputs is how many inputs of bulkShort lines there are at most: by then
	// the caches and what waits for the garbage collector are as large as they get.
	maxShortInputs = 100
	maxBulkLong    = 10_000_000
	bulkUnit       = "devices/s"
	// bulkGoal is what the design asks of a server on two cores.
	bulkGoal = 10_000
	// flatMemory is how much more memory a long input may take.
	flatMemory = 1.25
	memoryUnit = "MB"
)

// Bulk measures bulk registration. Each line makes a thing with three attributes,
// attaches a certificate that is registered already, and a policy to that; it is
// durable, with its verdict, when it is counted. Certificates aren't made or parsed
// in the measured part, unless lines have signing requests. The lines of the memory's
// part share some certificates or requests.
func Bulk(ctx context.Context, target Target, opts BulkOptions) ([]Figure, error) {
	err := opts.check()
	if err != nil {
		return nil, err
	}
	if opts.Long < 0 || opts.Long > maxBulkLong {
		return nil, fmt.Errorf("couldn't run with %d lines: 0 to %d are possible", opts.Long, maxBulkLong)
	}
	if opts.Messages == nil {
		opts.Messages = io.Discard
	}
	s := &stand{opts: opts.Options}
	figures, err := s.bulk(ctx, target, opts.Long, opts.CSR)
	return figures, errors.Join(err, s.close())
}

// credentials are what lines have certificates of, and the property of templates that
// takes them.
type credentials struct {
	property string
	values   []string
}

func (s *stand) bulk(ctx context.Context, target Target, long int, csr bool) ([]Figure, error) {
	dir, err := os.MkdirTemp("", "imprint-bench-")
	if err != nil {
		return nil, fmt.Errorf("couldn't make a data directory: %w", err)
	}
	s.dir = dir
	s.server, err = startChild("Imprint server", target.Program, target.ServerArgs(dir), s.opts.Messages)
	if err != nil {
		return nil, err
	}
	err = s.awaitServer(ctx, target)
	if err != nil {
		return nil, err
	}
	of, err := s.bulkCredentials(ctx, csr)
	if err != nil {
		return nil, err
	}
	rate, perCPU, err := s.bulkRate(ctx, of)
	if err != nil {
		return nil, err
	}
	figures := []Figure{
		AtLeast("devices registered in bulk, by the clock", rate, bulkUnit, bulkGoal, 1),
		Plain("devices registered in bulk", perCPU, deviceUnit),
	}
	if csr { // the goal is about certificates that are there
		figures[0] = Plain("devices registered in bulk with a signing request each, by the clock", rate, bulkUnit)
		figures[1] = Plain("devices registered in bulk with a signing request each", perCPU, deviceUnit)
	}
	if long == 0 {
		return figures, nil
	}
	inputs := max(1, min(maxShortInputs, long/bulkShort))
	short, err := s.bulkMemory(ctx, of, inputs, bulkShort)
	if err != nil {
		return nil, err
	}
	peak, err := s.bulkMemory(ctx, of, 1, long)
	if err != nil {
		return nil, err
	}
	title := fmt.Sprintf("server memory at most while it reads %d lines, against %d inputs of %d", long, inputs, bulkShort)
	return append(figures, AtMost(title, peak, memoryUnit, short, flatMemory)), nil
}

// bulkCredentials makes the policy and what each device has its certificate of.
func (s *stand) bulkCredentials(ctx context.Context, csr bool) (credentials, error) {
	document := devicePolicy(s.facts)
	err := s.api.Call(ctx, "POST", "/policies/bulk", map[string]string{"policyDocument": document}, nil)
	if err != nil {
		return credentials{}, fmt.Errorf("couldn't make the policy: %w", err)
	}
	if csr {
		texts, _, err := requests(ctx, s.opts.Devices)
		return credentials{"CertificateSigningRequest", texts}, err
	}
	ids, err := s.registerCertificates(ctx)
	return credentials{"CertificateId", ids}, err
}

// registerCertificates registers a certificate for each device.
func (s *stand) registerCertificates(ctx context.Context) ([]string, error) {
	ca, err := newAuthority("Imprint bench bulk", time.Now())
	if err != nil {
		return nil, err
	}
	devices, err := ca.devices(ctx, s.opts.Devices, time.Now())
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(devices))
	_, err = each(ctx, len(devices), s.opts.Concurrency, func(ctx context.Context, i int) (time.Duration, error) {
		ids[i] = devices[i].certificateID
		return 0, s.api.Call(ctx, "POST", "/certificate/register-no-ca", map[string]string{
			"certificatePem": certificatePEM(devices[i].certificate.Leaf.Raw), "status": "ACTIVE",
		}, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't register the certificates: %w", err)
	}
	return ids, s.server.idle(ctx)
}

// bulkTemplate is over what bulkLine gives.
func bulkTemplate(property string) object {
	parameter := func(name string) object { return object{"Ref": name} }
	return object{
		"Parameters": object{"Name": object{"Type": "String"}, "Serial": object{"Type": "String"}, "Credential": object{"Type": "String"}},
		"Resources": object{
			"thing": object{"Type": "AWS::IoT::Thing", "Properties": object{
				"ThingName":        object{"Fn::Join": []any{"-", []any{"bulk", parameter("Name")}}},
				"AttributePayload": object{"serial": parameter("Serial"), "country": country, "model": modelName},
			}},
			"certificate": object{"Type": "AWS::IoT::Certificate", "Properties": object{property: parameter("Credential"), "Status": "ACTIVE"}},
			"policy":      object{"Type": "AWS::IoT::Policy", "Properties": object{"PolicyName": "bulk"}},
		},
	}
}

// writeBulk writes an input into the server's directory.
func (s *stand) writeBulk(of credentials, name string, lines int) error {
	dir := filepath.Join(s.dir, "bulk", "lines")
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		return fmt.Errorf("couldn't make the directory of the input: %w", err)
	}
	file, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("couldn't make the input: %w", err)
	}
	w := bufio.NewWriterSize(file, 1<<20)
	for n := range lines {
		// An error stays until Flush tells it.
		_, _ = fmt.Fprintf(w, "{\"Name\":\"%s-%08d\",\"Serial\":\"SN%08d\",\"Credential\":%q}\n", name, n, n, of.values[n%len(of.values)])
	}
	err = errors.Join(w.Flush(), file.Close())
	if err != nil {
		return fmt.Errorf("couldn't write the input: %w", err)
	}
	return nil
}

// startBulk starts a task and gives its path in the API.
func (s *stand) startBulk(ctx context.Context, property, name string) (string, error) {
	body, err := json.Marshal(bulkTemplate(property))
	if err != nil {
		return "", fmt.Errorf("couldn't encode the template: %w", err)
	}
	var started struct {
		TaskID string `json:"taskId"`
	}
	err = s.api.Call(ctx, "POST", "/thing-registration-tasks", map[string]string{
		"templateBody": string(body), "inputFileBucket": "lines", "inputFileKey": name, "roleArn": "arn:aws:iam::" + s.facts.Account + ":role/bench",
	}, &started)
	if err != nil {
		return "", fmt.Errorf("couldn't start the task: %w", err)
	}
	return "/thing-registration-tasks/" + url.PathEscape(started.TaskID), nil
}

// awaitBulk waits for a task's end, which each line must have reached, and calls
// look before each look at it.
func (s *stand) awaitBulk(ctx context.Context, path string, lines int, look func() error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := look()
		if err != nil {
			return err
		}
		var task struct {
			Status, Message            string
			SuccessCount, FailureCount int
		}
		err = s.api.Call(ctx, "GET", path, nil, &task)
		if err != nil {
			return fmt.Errorf("couldn't look at the task: %w", err)
		}
		switch {
		case task.Status == "Completed" && task.SuccessCount == lines:
			return nil
		case task.Status != "InProgress":
			return fmt.Errorf("couldn't register %d devices: the task is %s with %d registered, %d failed: %s", lines, task.Status, task.SuccessCount, task.FailureCount, task.Message)
		}
		select {
		case <-ticker.C:
		case <-s.server.ended:
			return s.server.lost()
		case <-ctx.Done():
			return fmt.Errorf("couldn't wait for the task: %w", ctx.Err())
		}
	}
}

// bulkRate gives devices a second and devices a second of the server's CPU time.
func (s *stand) bulkRate(ctx context.Context, of credentials) (float64, float64, error) {
	err := s.writeBulk(of, "rate", len(of.values))
	if err != nil {
		return 0, 0, err
	}
	before, err := s.server.cpu()
	if err != nil {
		return 0, 0, err
	}
	if s.opts.CPUProfile != "" {
		err = s.server.order(ctx, profileOrder+s.opts.CPUProfile)
		if err != nil {
			return 0, 0, err
		}
	}
	began := time.Now()
	path, err := s.startBulk(ctx, of.property, "rate")
	if err == nil {
		err = s.awaitBulk(ctx, path, len(of.values), func() error { return nil })
	}
	if err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	after, err := s.server.cpu()
	if err != nil {
		return 0, 0, err
	}
	if s.opts.CPUProfile != "" {
		err = s.server.order(ctx, profileEndOrder)
	}
	return perSecond(len(of.values), took), perSecond(len(of.values), after-before), err
}

// bulkMemory gives the most memory that the server has while inputs of so many lines
// are read, one after the other. Each call begins with the same: what is free is
// given back.
func (s *stand) bulkMemory(ctx context.Context, of credentials, inputs, lines int) (float64, error) {
	err := s.server.order(ctx, collectOrder)
	if err != nil {
		return 0, err
	}
	var most int64
	for n := range inputs {
		name := fmt.Sprintf("%d-%d", lines, n)
		err = s.writeBulk(of, name, lines)
		if err != nil {
			return 0, err
		}
		path, err := s.startBulk(ctx, of.property, name)
		if err != nil {
			return 0, err
		}
		err = s.awaitBulk(ctx, path, lines, func() error {
			now, err := s.server.memory()
			most = max(most, now)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return float64(most) / 1e6, nil
}
