package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/acmpca"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
)

// AuthorityConfig are the settings of `imprint serve` for certificate authorities.
type AuthorityConfig struct {
	// CAProfiles is a YAML or JSON file of profiles beside the built-in ones, and in the
	// place of those of their names. Empty: none.
	CAProfiles string `koanf:"ca-profiles"`
	// KnownKeys is a file of keys that nobody may use, because their private halves are
	// public: a line each of the SHA-256 of a SubjectPublicKeyInfo, or as Debian's
	// openssl-blacklist has them. Empty: the built-in ones alone.
	KnownKeys string `koanf:"known-keys"`
	// PKIURL is where CRLs, OCSP responses and CA certificates are found, such as
	// http://pki.example.com: certificates of authorities that have them name it. Empty:
	// nowhere.
	PKIURL string `koanf:"pki-url"`
	// PKIAddress is where these are served over plain HTTP. Empty: nowhere.
	PKIAddress string `koanf:"pki-address"`
	// PKIConnectionsPerAddress and PKIRatePerAddress bound what one address, or one /64 of
	// IPv6, may have there: connections, and requests a second. 0: no bound, for a server
	// behind a proxy that bounds them.
	PKIConnectionsPerAddress int `koanf:"pki-connections-per-address"`
	PKIRatePerAddress        int `koanf:"pki-rate-per-address"`
}

func addAuthorityFlags(f *pflag.FlagSet) {
	f.String("ca-profiles", "", "YAML or JSON file of certificate profiles beside the built-in ones")
	f.String("known-keys", "", "file of SHA-256 hashes of public keys that nobody may use")
	f.String("pki-address", "", "where CRLs, OCSP responses and CA certificates are served over plain HTTP, such as :8880; empty: nowhere")
	f.Int("pki-connections-per-address", 32, "connections of one address to the pki-address at a time (0: no bound)")
	f.Int("pki-rate-per-address", 100, "requests per second of one address to the pki-address (0: no bound)")
	f.String("pki-url", "", "where CRLs, OCSP responses and CA certificates are found, such as http://pki.example.com")
}

func (c AuthorityConfig) check() error {
	if c.PKIURL == "" {
		return nil
	}
	u, err := url.Parse(c.PKIURL)
	// RFC 5280 section 4.2.1.13 and 8: a verifier that asks over TLS for what it needs to
	// check TLS may never come to an end.
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return usageError{fmt.Errorf("pki-url is %q, not like http://pki.example.com (and not https: who checks a certificate must not need another one for it)", c.PKIURL)}
	}
	return nil
}

// openAuthorities makes the engine of certificate authorities.
func (s *server) openAuthorities(ctx context.Context) error {
	configs, err := readProfiles(s.config.CAProfiles)
	if err != nil {
		return err
	}
	profiles, err := pki.NewProfiles(configs...)
	if err != nil {
		return fmt.Errorf("couldn't use the profiles of %s: %w", s.config.CAProfiles, err)
	}
	stores, err := s.openKeyStores()
	if err != nil {
		return err
	}
	s.authorities = ca.New(ca.Options{
		Store: s.store, Sealer: s.sealer, Keys: stores, Journal: s.journal(), Clock: s.clock, Profiles: profiles, Known: s.known, Renewed: s.renewed,
		BaseURL: strings.TrimRight(s.config.PKIURL, "/"), Refused: s.refusedByCA, Logger: s.logger,
	})
	s.closeLater(s.authorities.Close)
	err = s.authorities.RememberKeys(ctx)
	if err != nil {
		return err
	}
	_, err = s.authorities.Purge(ctx)
	return err
}

// readProfiles reads a file of profiles; an empty name is none.
func readProfiles(path string) ([]pki.ProfileConfig, error) {
	if path == "" {
		return nil, nil
	}
	k := koanf.New(".")
	err := k.Load(file.Provider(path), yaml.Parser()) // JSON is YAML, too
	if err != nil {
		return nil, usageError{fmt.Errorf("couldn't read the profiles in %s: %w", path, err)}
	}
	var found struct {
		Profiles []pki.ProfileConfig `json:"profiles"`
	}
	err = k.UnmarshalWithConf("", &found, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &found, TagName: "json", ErrorUnused: true, DecodeHook: mapstructure.ComposeDecodeHookFunc(daysHook, mapstructure.TextUnmarshallerHookFunc()),
	}})
	if err != nil {
		return nil, usageError{fmt.Errorf("couldn't read the profiles in %s: %w", path, err)}
	}
	if len(found.Profiles) == 0 {
		return nil, usageError{fmt.Errorf("%s has no profiles, as a list under the name profiles", path)}
	}
	return found.Profiles, nil
}

// daysHook reads durations, with days: 3650d, or 8760h as Go writes them.
func daysHook(_, to reflect.Type, value any) (any, error) {
	text, isText := value.(string)
	if to != reflect.TypeFor[time.Duration]() {
		return value, nil
	}
	if !isText {
		return nil, fmt.Errorf("%v isn't a time such as 3650d or 12h", value)
	}
	return parseDays(text)
}

// parseDays reads 3650d, or what time.ParseDuration does.
func parseDays(text string) (time.Duration, error) {
	days, isDays := strings.CutSuffix(text, "d")
	if !isDays {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseInt(days, 10, 32)
	if err != nil || n < 0 || n > 100_000 {
		return 0, fmt.Errorf("%q isn't a number of days up to 100000", text)
	}
	return time.Duration(n) * 24 * time.Hour, nil
}

// maxKnownKeys bounds the file of known keys.
const maxKnownKeys = 512 << 20

func readKnownKeys(path string) (*pki.KnownKeys, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxKnownKeys {
		err = errors.New("it is larger than 512 MiB")
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("couldn't read the known keys in %s: %w", path, err)}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("couldn't read the known keys in %s: %w", path, err)}
	}
	known, err := pki.NewKnownKeys(string(text))
	if err != nil {
		return nil, fmt.Errorf("couldn't read the known keys in %s: %w", path, err)
	}
	return known, nil
}

// purgeEvery is how often authorities are taken away whose time after deletion is over.
const purgeEvery = time.Hour

// keepAuthorities brings what earlier versions wrote up to date, again until that succeeds, and
// takes deleted authorities away until the context ends.
func (s *server) keepAuthorities(ctx context.Context) {
	named := false
	ticker := time.NewTicker(purgeEvery)
	defer ticker.Stop()
	for {
		if !named {
			err := s.authorities.NameKeys(ctx)
			named = err == nil
			if err != nil && ctx.Err() == nil {
				s.logger.Error("couldn't bring the record of what was issued up to date", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		gone, err := s.authorities.Purge(ctx)
		if err != nil && ctx.Err() == nil {
			s.logger.Error("couldn't take deleted certificate authorities away", "error", err)
		}
		if gone > 0 {
			s.logger.Info("deleted certificate authorities are gone", "number", gone)
		}
	}
}

// newAuthorityAPI makes AWS Private CA's API, which has the port of the control plane.
func (s *server) newAuthorityAPI() (http.Handler, error) {
	verifier, err := sigv4.New(sigv4.Config{
		Keys: storeKeys{s.store}, Services: []string{"acm-pca"}, Regions: s.config.Regions, Now: s.clock,
	})
	if err != nil {
		return nil, err
	}
	return awsapi.NewMux(awsapi.Config{
		Verifier: verifier, Translate: acmpca.Translate, Observe: s.observe, Now: s.clock, Target: acmpca.Target, MaxBody: maxAuthorityBody,
		Allow: s.callers.allow, Authorize: s.authorize, Bodies: s.bodies,
	}, acmpca.Operations(), (&acmpca.Service{Engine: s.authorities, Clock: s.clock}).Routes())
}

// maxAuthorityBody lets the longest chain of the model through, in base64.
const maxAuthorityBody = 3 << 20
