package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
	"github.com/imprint-iot/imprint/internal/seal"
)

// Files of the data directory.
const (
	masterKeyFile = "master.key"
	registryFile  = "registry.db"
	pkiDir        = "pki"
	issuanceLog   = "issuance-log"
	operatorFile  = "operator.sealed"
	serverFile    = "server.json"
	ticketsFile   = "tickets.sealed"
)

// operatorContext binds the sealed operator key to its file.
var operatorContext = []byte("imprint/operator")

// operatorKey is the first access key, as `imprint env` hands it out.
type operatorKey struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

// serverFacts tell the other subcommands where the server of a data directory
// is. They hold no secret.
type serverFacts struct {
	Version     string `json:"version"`
	PID         int    `json:"pid"`
	Account     string `json:"account"`
	Region      string `json:"region"`
	Domain      string `json:"domain,omitempty"` // of the device endpoints
	APIURL      string `json:"apiUrl"`
	MQTTAddress string `json:"mqttAddress"` // host:port for devices of the first tenant
	// HTTPSAddress is host:port for HTTPS of devices, empty when it is switched off.
	HTTPSAddress string `json:"httpsAddress,omitempty"`
	// ESTURL is https://host:port of EST, empty when it is switched off.
	ESTURL   string `json:"estUrl,omitempty"`
	CABundle string `json:"caBundle"` // absolute path of the server's roots, a PEM bundle; empty: the system's
}

// openSealer gives the sealer of a data directory; create makes the master key
// of a directory in which nothing is sealed yet.
func openSealer(dir, masterKey string, create bool) (imprint.Sealer, error) {
	if masterKey == "" {
		masterKey = os.Getenv("IMPRINT_MASTER_KEY")
	}
	if masterKey != "" {
		key, err := seal.ParseMasterKey(masterKey)
		if err != nil {
			return nil, fmt.Errorf("couldn't read IMPRINT_MASTER_KEY: %w", err)
		}
		return seal.New(key), nil
	}
	path := filepath.Join(dir, masterKeyFile)
	load := seal.LoadMasterKey
	if create && !exists(filepath.Join(dir, operatorFile)) {
		load = seal.LoadOrCreateMasterKey
	}
	key, err := load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, imprint.Errorf(imprint.CodeUnavailable, "the master key %s is missing, and what it sealed is there: %w", path, err).
			WithHint("Put the file back from where you keep it, or set IMPRINT_MASTER_KEY to its content. Without it the keys in %s can't be opened.", dir)
	}
	if err != nil {
		return nil, err
	}
	return seal.New(key), nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// writeOperatorKey stores the first access key for `imprint env`.
func writeOperatorKey(dir string, sealer imprint.Sealer, key operatorKey) error {
	plain, err := json.Marshal(key)
	if err != nil {
		return fmt.Errorf("couldn't encode the operator's key: %w", err)
	}
	defer clear(plain)
	sealed, err := sealer.Seal(plain, operatorContext)
	if err != nil {
		return fmt.Errorf("couldn't seal the operator's key: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, operatorFile), sealed, 0o600)
}

// readOperatorKey gives the first access key of a data directory.
func readOperatorKey(dir string, sealer imprint.Sealer) (operatorKey, error) {
	var key operatorKey
	sealed, err := os.ReadFile(filepath.Join(dir, operatorFile))
	if err != nil {
		return key, fmt.Errorf("couldn't read the operator's key: %w", err)
	}
	plain, err := sealer.Open(sealed, operatorContext)
	if err != nil {
		return key, fmt.Errorf("couldn't open the operator's key: %w", err)
	}
	defer clear(plain)
	err = json.Unmarshal(plain, &key)
	if err != nil {
		return key, fmt.Errorf("couldn't read the operator's key: %w", err)
	}
	return key, nil
}

// readServerFacts gives what the server of a data directory wrote at its start.
func readServerFacts(dir string) (serverFacts, error) {
	var facts serverFacts
	data, err := os.ReadFile(filepath.Join(dir, serverFile))
	if errors.Is(err, fs.ErrNotExist) {
		return facts, imprint.Errorf(imprint.CodeNotFound, "%s is not the data directory of a server that was started", dir).
			WithHint("Start one with: imprint serve --data %s; or name the right directory with --data or IMPRINT_DATA.", dir)
	}
	if err != nil {
		return facts, fmt.Errorf("couldn't read the server's facts: %w", err)
	}
	err = json.Unmarshal(data, &facts)
	if err != nil {
		return facts, fmt.Errorf("couldn't read the server's facts in %s: %w", serverFile, err)
	}
	return facts, nil
}

// ensureOperatorKey gives the first access key, making it at the first start.
// The file comes before the row: a start that dies in between makes the row
// from the file.
func ensureOperatorKey(ctx context.Context, dir string, sealer imprint.Sealer, store imprint.Store, account imprint.AccountID, now imprint.Clock) (operatorKey, error) {
	key, err := readOperatorKey(dir, sealer)
	if errors.Is(err, fs.ErrNotExist) {
		key = newOperatorKey()
		err = writeOperatorKey(dir, sealer, key)
	}
	if err != nil {
		return key, err
	}
	err = store.Update(ctx, func(tx imprint.Tx) error {
		_, err := tx.AccessKey(key.ID)
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
		return tx.PutAccessKey(imprint.AccessKey{ID: key.ID, Account: account, User: string(imprint.OperatorUser), Secret: key.Secret, CreatedAt: now()})
	})
	if err != nil {
		return key, fmt.Errorf("couldn't store the operator's access key: %w", err)
	}
	return key, nil
}
