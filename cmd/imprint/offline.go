package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/awsapi/users"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// reachTimeout bounds the look whether a server answers.
const reachTimeout = 2 * time.Second

// newDirectoryClient makes a client of the users and accounts of a server: the
// running one, as newOperatorClient finds it, or, when the server of the data
// directory is stopped, one inside this process, over the directory. Both answer
// the same requests. The function closes it.
func newDirectoryClient(cmd *cobra.Command) (*client.Client, func(), error) {
	c, err := newOperatorClient(cmd)
	if err != nil {
		return nil, nil, err
	}
	nothing := func() {}
	if !cmd.Flags().Changed("data") && os.Getenv("AWS_ENDPOINT_URL_IOT") != "" && os.Getenv("AWS_ACCESS_KEY_ID") != "" {
		return c, nothing, nil
	}
	dir, err := cmd.Flags().GetString("data")
	if err != nil {
		return nil, nil, err
	}
	facts, err := readServerFacts(dir)
	if err != nil {
		return nil, nil, err
	}
	if answers(cmd.Context(), facts.APIURL) {
		return c, nothing, nil
	}
	return openOffline(cmd.Context(), dir, facts)
}

// answers tells whether something listens at a URL. Whatever isn't a clear no
// counts as yes: the request itself then tells what is wrong.
func answers(ctx context.Context, address string) bool {
	parsed, err := url.Parse(address)
	if err != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", parsed.Host)
	if err == nil {
		_ = conn.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// openOffline opens the registry of a stopped server.
func openOffline(ctx context.Context, dir string, facts serverFacts) (*client.Client, func(), error) {
	sealer, err := openSealer(dir, "", false)
	if err != nil {
		return nil, nil, err
	}
	key, err := readOperatorKey(dir, sealer)
	if err != nil {
		return nil, nil, err
	}
	store, err := sqlite.Open(ctx, sqlite.Options{
		Path: filepath.Join(dir, registryFile), Sealer: sealer, Clock: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("couldn't open the registry of the stopped server: %w", err)
	}
	shut := func() { _ = store.Close() }
	api, err := offlineAPI(ctx, store, facts)
	if err != nil {
		shut()
		return nil, nil, err
	}
	c, err := client.New(client.Config{
		Endpoint: facts.APIURL, KeyID: key.ID, Secret: key.Secret, Region: facts.Region, HTTPClient: &http.Client{Transport: inProcess{api}},
	})
	if err != nil {
		shut()
		return nil, nil, err
	}
	return c, shut, nil
}

// offlineAPI answers for users and accounts over a registry that this process
// holds. Whoever can open it holds the account's operator key.
func offlineAPI(ctx context.Context, store imprint.Store, facts serverFacts) (http.Handler, error) {
	home := imprint.Tenant{Account: imprint.AccountID(facts.Account), Region: imprint.Region(facts.Region)}
	endpoints, err := gateway.NewEndpoints(ctx, store, facts.Domain, home, nil)
	if err != nil {
		return nil, err
	}
	service := iot.NewService(iot.Rooms{Store: store, Clock: time.Now, Endpoint: endpoints.Address})
	directory := &users.Directory{
		Store: store, Clock: time.Now, Home: home.Account, NewKey: newAccessKey, EnsureTenant: service.EnsureTenant, Endpoint: endpoints.Address,
	}
	verifier, err := sigv4.New(sigv4.Config{Keys: storeKeys{store}, Services: []string{"iot"}})
	if err != nil {
		return nil, err
	}
	return awsapi.NewMux(awsapi.Config{Verifier: verifier, Translate: iot.Translate}, users.Operations(), directory.Routes())
}

// inProcess sends requests to a handler instead of over the network.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	incoming := r.Clone(r.Context())
	if incoming.Body == nil {
		incoming.Body = http.NoBody
	}
	incoming.RequestURI = r.URL.RequestURI()
	if incoming.Host == "" {
		incoming.Host = r.URL.Host
	}
	var w kept
	p.handler.ServeHTTP(&w, incoming)
	return &http.Response{
		StatusCode: w.status, Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
	}, nil
}

// kept is a response that stays in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (k *kept) Header() http.Header {
	if k.header == nil {
		k.header = http.Header{}
	}
	return k.header
}

// WriteHeader implements http.ResponseWriter.
func (k *kept) WriteHeader(status int) { k.status = status }

// Write implements http.ResponseWriter.
func (k *kept) Write(p []byte) (int, error) { return k.body.Write(p) }
