package rules

import (
	"errors"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/imprint-iot/imprint"
)

var (
	sinkNamePattern  = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)
	parameterPattern = regexp.MustCompile(`^[a-z_-]{1,32}$`)
	// severalHosts begins a setting whose URL may have commas between its hosts.
	severalHosts = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}=(nats|tls|kafka|postgres|postgresql)://`)
)

// sinkSettings puts settings together again that were cut at the commas between
// the hosts of one URL, as flags and variables are cut.
func sinkSettings(settings []string) []string {
	var whole []string
	for _, setting := range settings {
		name, _, found := strings.Cut(setting, "=")
		begins := found && sinkNamePattern.MatchString(name)
		if last := len(whole) - 1; last >= 0 && !begins && severalHosts.MatchString(whole[last]) {
			whole[last] += "," + setting
			continue
		}
		whole = append(whole, setting)
	}
	return whole
}

// OpenSinks makes sinks of settings of the form NAME=URL. Nothing is connected
// yet: a sink that can't be reached is tried again by each delivery. Errors:
// CodeInvalidRequest, which never quotes a URL: it may hold a password.
func OpenSinks(settings []string) (map[string]Sink, error) {
	sinks := map[string]Sink{}
	closeAll := func(err error) error {
		for _, sink := range sinks {
			err = errors.Join(err, sink.Close())
		}
		return err
	}
	for _, setting := range sinkSettings(settings) {
		name, text, found := strings.Cut(setting, "=")
		if !found || !sinkNamePattern.MatchString(name) || sinks[name] != nil {
			return nil, closeAll(imprint.Errorf(imprint.CodeInvalidRequest, "a sink (--rule-sink) isn't of the form NAME=URL, or its name is there twice").
				WithHint("For example --rule-sink log=file:///var/lib/imprint/log.jsonl."))
		}
		at, err := parseSinkAddress(name, text)
		if err != nil {
			return nil, closeAll(err)
		}
		sink, err := openSink(at)
		if err != nil {
			return nil, closeAll(err)
		}
		sinks[name] = sink
	}
	return sinks, nil
}

func openSink(at *sinkAddress) (Sink, error) {
	switch at.url.Scheme {
	case "file":
		return openFileSink(at)
	case "nats", "tls":
		return openNATSSink(at)
	case "postgres", "postgresql":
		return openPostgresSink(at)
	case "kafka":
		return openKafkaSink(at)
	}
	return nil, at.refuse("the scheme %q is none that there is a sink for", imprint.Excerpt(at.url.Scheme)).
		WithHint("There are file://, nats://, tls:// (NATS), postgres:// and kafka://.")
}

// sinkAddress is the URL of a sink. Its parameters are taken one by one, and what
// nobody took is refused: a misspelt setting isn't one that silently doesn't hold.
type sinkAddress struct {
	name  string
	url   *url.URL // with the first of the hosts
	hosts []string // with ports, as far as they were given
	query url.Values
}

// maxSinkHosts bounds the servers of one sink, which are tried one after another.
const maxSinkHosts = 16

func parseSinkAddress(name, text string) (*sinkAddress, error) {
	at := &sinkAddress{name: name}
	scheme, rest, _ := strings.Cut(text, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, rest := rest[:end], rest[end:]
	begin := strings.LastIndexByte(authority, '@') + 1
	at.hosts = strings.Split(authority[begin:], ",")
	if len(at.hosts) > maxSinkHosts {
		return nil, at.refuse("its URL has %d hosts, at most %d are allowed", len(at.hosts), maxSinkHosts)
	}
	for n, host := range slices.Backward(at.hosts) {
		// url.Parse knows one host alone.
		user := ""
		if n == 0 {
			user = authority[:begin]
		}
		u, err := url.Parse(scheme + "://" + user + host + rest)
		if err != nil || u.Fragment != "" || u.Opaque != "" || len(at.hosts) > 1 && u.Hostname() == "" {
			return nil, at.refuse("it has no valid URL").
				WithHint("Its form is SCHEME://HOST:PORT/PATH?PARAMETER=VALUE; docs/rules.md, Sinks, has examples.")
		}
		at.url = u
	}
	query, err := url.ParseQuery(at.url.RawQuery)
	if err != nil {
		return nil, at.refuse("the parameters of its URL aren't valid").WithHint("They have the form ?NAME=VALUE&NAME=VALUE.")
	}
	at.query = query
	if _, has := at.url.User.Password(); has {
		return nil, at.refuse("its URL has a password, which everybody can read who lists processes").
			WithHint("Put it into a file that only the server can read: docs/rules.md, Sinks, says how the kinds of sinks are told of it.")
	}
	return at, nil
}

// refuse makes an error that names the sink. What it quotes must not be secret.
func (at *sinkAddress) refuse(format string, args ...any) *imprint.Error {
	return imprint.Errorf(imprint.CodeInvalidRequest, "sink %s (--rule-sink): "+format, append([]any{at.name}, args...)...).
		WithHint("docs/rules.md, Sinks, has the URL and the parameters of each kind.")
}

// take gives a parameter, "" when it isn't there.
func (at *sinkAddress) take(parameter string) string {
	value := at.query.Get(parameter)
	at.query.Del(parameter)
	return value
}

func (at *sinkAddress) takeBool(parameter string) (bool, error) {
	text := at.take(parameter)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, at.refuse("%s is %q, and must be true or false", parameter, imprint.Excerpt(text))
	}
	return value, nil
}

// takeFile gives the path of a file that can be read now.
func (at *sinkAddress) takeFile(parameter string) (string, error) {
	path := at.take(parameter)
	if path == "" {
		return "", nil
	}
	_, err := os.ReadFile(path)
	if err != nil {
		return "", at.refuse("the file of %s can't be read: %w", parameter, err).
			WithHint("Write the whole path, and let the user read it that the server runs as.")
	}
	return path, nil
}

// allTaken refuses parameters that no one took.
func (at *sinkAddress) allTaken() error {
	for parameter := range at.query {
		if !parameterPattern.MatchString(parameter) {
			parameter = "of this name" // it may be half of a password
		}
		return at.refuse("there is no parameter %s of a %s sink", parameter, at.url.Scheme)
	}
	return nil
}

// firstLine reads a file that holds a password or token.
func firstLine(path string) (string, error) {
	const longest = 64 << 10
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data[:min(len(data), longest)]), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}
