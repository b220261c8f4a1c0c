package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/pki"
)

// lookInterval is how often the files of given server certificates are looked
// at. A change is used once it is an interval old, so that a certificate and its
// key that are written one after the other are read together.
const lookInterval = 2 * time.Second

// reloads counts what became of changed server certificates.
type reloads struct{ done, failed atomic.Uint64 }

// openServerFiles takes over the server certificates that the settings name.
func (s *server) openServerFiles() error {
	files, err := pki.NewServerFiles(s.config.TLSCertificates, s.config.TLSKeys, s.clock)
	if err != nil {
		return err
	}
	if s.config.TLSRoots != "" {
		s.config.TLSRoots, err = filepath.Abs(s.config.TLSRoots)
		if err != nil {
			return fmt.Errorf("couldn't find the roots of the server's certificates: %w", err)
		}
		_, err = os.Stat(s.config.TLSRoots)
		if err != nil {
			return imprint.Errorf(imprint.CodeInvalidRequest, "couldn't find the roots of the server's certificates: %w", err).
				WithHint("--tls-roots names the PEM file that clients verify --tls-certificate with.")
		}
	}
	ecdsaPair, rsaPair, err := files.Load()
	if err != nil {
		return err
	}
	s.files = files
	s.certificates = gateway.NewCertificates(ecdsaPair, rsaPair)
	s.checkNames(ecdsaPair, rsaPair)
	return nil
}

// checkNames warns of endpoints that the given certificates don't stand for.
func (s *server) checkNames(pairs ...tls.Certificate) {
	var warned []byte
	for _, pair := range pairs {
		missing := pki.Missing(pair.Leaf, s.endpoints.AddressNames())
		if len(missing) > 0 && !slices.Equal(warned, pair.Leaf.Raw) {
			warned = pair.Leaf.Raw
			s.logger.Warn("a given server certificate doesn't stand for all endpoint names; devices that use these will refuse it",
				"subject", pair.Leaf.Subject.String(), "missing", missing)
		}
	}
}

// reloadFiles puts what is in the files now into use, or keeps what is used.
func (s *server) reloadFiles() {
	ecdsaPair, rsaPair, err := s.files.Load()
	if err != nil {
		s.reloads.failed.Add(1)
		s.logger.Warn("couldn't use the changed server certificates, the old ones stay in use", "error", err, "hint", imprint.HintOf(err))
		return
	}
	s.certificates.Replace(ecdsaPair, rsaPair)
	s.reloads.done.Add(1)
	s.logger.Info("server certificates replaced", "ecdsa", pki.SerialHex(ecdsaPair.Leaf.SerialNumber), "rsa", pki.SerialHex(rsaPair.Leaf.SerialNumber),
		"until", ecdsaPair.Leaf.NotAfter.UTC())
	s.checkNames(ecdsaPair, rsaPair)
}

// watchFiles reloads given server certificates on SIGHUP and when their files
// change, until the context ends. Without given ones SIGHUP does nothing.
func (s *server) watchFiles(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	if s.files == nil {
		ticker.Stop()
	}
	used := s.filesState()
	seen := used
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			if s.files == nil {
				s.logger.Info("SIGHUP has no meaning without --tls-certificate")
				continue
			}
			used = s.filesState()
			seen = used
			s.reloadFiles()
		case <-ticker.C:
			now := s.filesState()
			if !slices.Equal(now, used) && slices.Equal(now, seen) {
				used = now
				s.reloadFiles()
			}
			seen = now
		}
	}
}

// fileState tells whether a file is another than before.
type fileState struct {
	path, target string
	size         int64
	modified     time.Time
}

func (s *server) filesState() []fileState {
	if s.files == nil {
		return nil
	}
	var all []fileState
	for _, path := range s.files.Paths() {
		state := fileState{path: path}
		// A file that is missing for now has the state of a missing file.
		info, err := os.Stat(path)
		if err == nil {
			state.size, state.modified = info.Size(), info.ModTime()
		}
		// Orchestrators replace a link and keep the times of the files.
		target, err := filepath.EvalSymlinks(path)
		if err == nil {
			state.target = target
		}
		all = append(all, state)
	}
	return all
}

// renew replaces the server's certificates when their time comes.
func (s *server) renew(ctx context.Context) {
	const lookAgain = time.Hour
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.renewing.Lock()
		due := s.clock().After(s.identity.RenewAt)
		s.renewing.Unlock()
		if !due {
			continue
		}
		err := s.renewCertificates(ctx)
		if err != nil {
			s.logger.Error("couldn't renew the server's certificates", "error", err)
		}
	}
}
