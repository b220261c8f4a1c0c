package rules

import (
	"errors"
	"net/url"
	"regexp"
	"strings"

	"github.com/imprint-iot/imprint"
)

var sinkNamePattern = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

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
	for _, setting := range settings {
		name, text, found := strings.Cut(setting, "=")
		if !found || !sinkNamePattern.MatchString(name) || sinks[name] != nil {
			return nil, closeAll(imprint.Errorf(imprint.CodeInvalidRequest, "a sink (--rule-sink) isn't of the form NAME=URL, or its name is there twice"))
		}
		u, err := url.Parse(text)
		if err != nil {
			return nil, closeAll(imprint.Errorf(imprint.CodeInvalidRequest, "sink %s (--rule-sink) has no valid URL", name))
		}
		sink, err := openSink(name, u)
		if err != nil {
			return nil, closeAll(err)
		}
		sinks[name] = sink
	}
	return sinks, nil
}

func openSink(name string, u *url.URL) (Sink, error) {
	switch u.Scheme {
	case "file":
		return openFileSink(name, u)
	}
	return nil, imprint.Errorf(imprint.CodeInvalidRequest, "sink %s (--rule-sink) has a URL of the scheme %q, and there is file alone", name, imprint.Excerpt(u.Scheme))
}
