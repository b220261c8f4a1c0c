package main

import (
	"io"
	"os"
)

// paint is how a word looks on a terminal: the number of an SGR sequence (ECMA-48).
type paint string

const (
	plain paint = "0"
	bold  paint = "1"
	bad   paint = "31"
	good  paint = "32"
)

// painterFor gives what paints words: nothing where they don't go to a terminal, or
// where the environment has NO_COLOR (no-color.org).
func painterFor(w io.Writer) func(paint, string) string {
	if !onTerminal(w) || os.Getenv("NO_COLOR") != "" {
		return func(_ paint, text string) string { return text }
	}
	return func(p paint, text string) string { return "\x1b[" + pad(p) + "m" + text + "\x1b[0m" }
}

// pad makes all sequences as long, because tables count their bytes.
func pad(p paint) string {
	if len(p) == 1 {
		return "0" + string(p)
	}
	return string(p)
}

func onTerminal(w io.Writer) bool {
	if tame, ok := w.(*tamed); ok {
		w = tame.to
	}
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
