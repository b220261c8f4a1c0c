package rulesql

import "fmt"

// Version is a version of the language, as a rule's awsIotSqlVersion names it.
type Version string

// The versions. VersionBeta is read as Version20160323, which is the newest that is
// documented; sql_version() gives what the rule says.
const (
	Version20151008 Version = "2015-10-08"
	Version20160323 Version = "2016-03-23"
	VersionBeta     Version = "beta"
)

// ParseVersion gives the version that a rule names; empty is 2015-10-08.
func ParseVersion(s string) (Version, error) {
	switch v := Version(s); v {
	case "":
		return Version20151008, nil
	case Version20151008, Version20160323, VersionBeta:
		return v, nil
	}
	return "", fmt.Errorf("unknown SQL version %q: one of %s, %s, %s", excerpt(s), Version20160323, Version20151008, VersionBeta)
}

// first says that v is the first version, in which numbers keep their ".0" and
// much of the language is missing.
func (v Version) first() bool { return v == Version20151008 }
