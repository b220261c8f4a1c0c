package main

import (
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint/broker"
)

var (
	documentedFlag = regexp.MustCompile("`--([a-z-]+)`(?: \\((\\d[^)]*)\\))?")
	documentedSize = regexp.MustCompile(`\b(\d[\d,]*)(?: (KiB|MiB|ms|s|min|h|days)\b)?|\bnone\b`)
)

// units are those of the page, in what the settings count: bytes, or nanoseconds.
var units = map[string]int64{
	"": 1, "KiB": 1 << 10, "MiB": 1 << 20,
	"ms": int64(time.Millisecond), "s": int64(time.Second), "min": int64(time.Minute), "h": int64(time.Hour), "days": int64(24 * time.Hour),
}

func sizesOf(t *testing.T, text string) []int64 {
	t.Helper()
	var sizes []int64
	for _, match := range documentedSize.FindAllStringSubmatch(text, -1) {
		if match[0] == "none" {
			sizes = append(sizes, 0)
			continue
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(match[1], ",", ""), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, n*units[match[2]])
	}
	return sizes
}

// documentedDefaults reads the second column of the tables of docs/mqtt.md: values before
// their settings in the same order, or a value in parentheses behind each.
func documentedDefaults(t *testing.T) map[string]int64 {
	t.Helper()
	page, err := os.ReadFile("../../docs/mqtt.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int64{}
	note := func(flag string, value int64) {
		if before, twice := found[flag]; twice && before != value {
			t.Errorf("--%s: the page says %d and %d", flag, before, value)
		}
		found[flag] = value
	}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || cells[0] != "" {
			continue
		}
		flags := documentedFlag.FindAllStringSubmatchIndex(cells[2], -1)
		if len(flags) == 0 {
			continue
		}
		before := sizesOf(t, cells[2][:flags[0][0]])
		for n, at := range flags {
			name := cells[2][at[2]:at[3]]
			switch {
			case at[4] >= 0:
				note(name, sizesOf(t, cells[2][at[4]:at[5]])[0])
			case n < len(before):
				note(name, before[n])
			}
		}
	}
	return found
}

// The limits that docs/mqtt.md documents, AWS IoT Core's where it has some, are what a
// program without settings has, and each setting is documented.
func TestTheDefaultLimitsAreThoseOfThePage(t *testing.T) {
	t.Parallel()
	documented := documentedDefaults(t)
	mine, all := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	addMQTTFlags(mine)
	addServeFlags(all)
	mine.VisitAll(func(f *pflag.Flag) {
		if _, found := documented[f.Name]; !found && f.Value.Type() != "bool" {
			t.Errorf("docs/mqtt.md tells no default of --%s", f.Name)
		}
	})
	for name, want := range documented {
		f := all.Lookup(name)
		if f == nil {
			t.Errorf("docs/mqtt.md has a setting --%s that the program lacks", name)
			continue
		}
		var got int64
		var err error
		if f.Value.Type() == "duration" {
			var d time.Duration
			d, err = time.ParseDuration(f.DefValue)
			got = int64(d)
		} else {
			got, err = strconv.ParseInt(f.DefValue, 10, 64)
		}
		if err != nil || got != want {
			t.Errorf("--%s: the default is %s, docs/mqtt.md says %d (nanoseconds where it is a time); %v", name, f.DefValue, want, err)
		}
	}
}

// loaded gives the broker's options for arguments of serve.
func loaded(t *testing.T, args ...string) broker.Options {
	t.Helper()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addServeFlags(flags)
	err := flags.Parse(args)
	if err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(flags)
	if err != nil {
		t.Fatal(err)
	}
	return c.MQTTConfig.options()
}

// Each setting of MQTT reaches the broker, and changes one option there.
func TestEachMQTTSettingReachesTheBroker(t *testing.T) {
	t.Parallel()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addMQTTFlags(flags)
	before := reflect.ValueOf(loaded(t))
	changedBy := map[string]string{}
	flags.VisitAll(func(f *pflag.Flag) {
		value, most := "12345", 1
		switch f.Value.Type() {
		case "duration":
			value = "47s"
		case "bool":
			value, most = "true", 2 // standard-matching stands for two
		default:
			if strings.Contains(f.Name, "slashes") {
				value = "99"
			}
			if f.Name == "max-filters-per-subscribe" {
				value = "9"
			}
		}
		args := []string{"--" + f.Name + "=" + value}
		if f.Name == "max-session-expiry" {
			args = append(args, "--session-expiry=1s") // it can't be longer
		}
		after := reflect.ValueOf(loaded(t, args...))
		changed := 0
		for n := range before.NumField() {
			field := before.Type().Field(n).Name
			if len(args) > 1 && field == "SessionExpiry" || reflect.DeepEqual(before.Field(n).Interface(), after.Field(n).Interface()) {
				continue
			}
			changed++
			if other := changedBy[field]; other != "" {
				t.Errorf("--%s changes %s, as --%s does", f.Name, field, other)
			}
			changedBy[field] = f.Name
		}
		if changed != most {
			t.Errorf("--%s=%s changes %d options, want %d", f.Name, value, changed, most)
		}
	})
}

// No setting of its own leaves the broker's defaults as they are.
func TestTheProgramHasTheBrokersDefaults(t *testing.T) {
	t.Parallel()
	got, want := reflect.ValueOf(loaded(t)), reflect.ValueOf(broker.DefaultOptions())
	for n := range got.NumField() {
		field := got.Type().Field(n).Name
		value := got.Field(n)
		// What isn't set here the broker fills in.
		if value.IsZero() || field == "ConnectRate" {
			continue
		}
		if !reflect.DeepEqual(value.Interface(), want.Field(n).Interface()) {
			t.Errorf("%s: got %v, want %v", field, value, want.Field(n))
		}
	}
}
