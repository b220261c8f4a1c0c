package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/ceremony"
)

func newCACeremony() *cobra.Command {
	var script, out, reviewed, sharesTo, profiles string
	var given []string
	var check bool
	cmd := &cobra.Command{
		Use:   "ceremony",
		Short: "Make roots and intermediates on an offline machine, by a reviewed script",
		Long: `Make roots and intermediates on a machine without network or server, by a script
that was written and reviewed before. It reads fingerprints to compare, needs shares of
the key or an HSM, and leaves a signed record: imprint ca verify.

  imprint ca ceremony --script root.toml --check
  imprint ca ceremony --script root.toml --out acme-root`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if script == "" || out == "" && !check {
				return usageError{errors.New("say --script FILE, and --check or --out DIRECTORY")}
			}
			configs, err := readProfiles(profiles)
			if err != nil {
				return err
			}
			known, err := pki.NewProfiles(configs...)
			if err != nil {
				return err
			}
			read, err := ceremony.ReadScript(script, known)
			if err != nil {
				return err
			}
			if check {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: no fault was found. SHA-256 of the script, for its reviewers:\n\n%s\n  %x\n", script, ceremony.Spoken(read.SHA256()), read.SHA256())
				return err
			}
			people := &people{in: newLineReader(cmd.InOrStdin()), out: cmd.OutOrStdout(), reviewed: reviewed, sharesTo: sharesTo, given: given}
			report, err := ceremony.Run(cmd.Context(), ceremony.Config{
				Script: read, Out: out, Clock: time.Now, People: people, Networks: networksUp(), Program: "imprint " + version(),
			})
			if err != nil {
				return errors.Join(err, people.takeBack())
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "\nThe ceremony is at its end: %d lines of record, signed by CA %s, and the certificates are in %s.\n", report.Lines, report.SignedName, out)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&script, "script", "", "TOML file that says what is made")
	f.StringVar(&out, "out", "", "directory to make, with certificates, sealed keys and the record")
	f.BoolVar(&check, "check", false, "look for faults in the script and print its fingerprint; make nothing")
	f.StringVar(&reviewed, "reviewed", "", "SHA-256 of the reviewed script, in place of the question for it")
	f.StringVar(&sharesTo, "shares-to", "", "directory in which each new share becomes a file, such as a mounted medium (default: they are shown one by one)")
	f.StringArrayVar(&given, "share", nil, "file with a holder's share, in place of a question (may be repeated)")
	f.StringVar(&profiles, "ca-profiles", "", "YAML or JSON file of certificate profiles beside the built-in ones")
	return cmd
}

// networksUp are the machine's networks but the loopback.
func networksUp() []string {
	all, err := net.Interfaces()
	if err != nil {
		return []string{"unknown: " + err.Error()}
	}
	var up []string
	for _, one := range all {
		if one.Flags&net.FlagUp != 0 && one.Flags&net.FlagLoopback == 0 {
			up = append(up, one.Name)
		}
	}
	return up
}

// people speaks with those at the terminal.
type people struct {
	in                 *lineReader
	out                io.Writer
	reviewed, sharesTo string
	given              []string // files with shares that aren't read yet
	written            []string // files of shares that were handed out
	fromFile           bool     // whether the last share was
}

func (p *people) Say(text string) error {
	_, err := io.WriteString(p.out, text)
	return err
}

// leastConfirmed is how many digits of the fingerprint must be typed.
const leastConfirmed = 8

func (p *people) Confirm(ctx context.Context, script []byte) error {
	said := []byte(p.reviewed)
	if p.reviewed == "" {
		err := p.Say("\nType the first 8 digits, or more, of the SHA-256 of the script that was reviewed: ")
		if err != nil {
			return err
		}
		said, err = p.in.read(ctx)
		if err != nil {
			return fmt.Errorf("nobody confirmed the script: %w", err)
		}
	}
	digits := strings.ToLower(strings.Map(func(c rune) rune {
		if strings.ContainsRune(" -\t\r:", c) {
			return -1
		}
		return c
	}, string(said)))
	if len(digits) < leastConfirmed || p.reviewed != "" && len(digits) != 2*len(script) || !strings.HasPrefix(hex.EncodeToString(script), digits) {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the script isn't the one that was reviewed: its SHA-256 is %x", script).
			WithHint("Compare the script with the reviewed one; imprint ca ceremony --check prints its fingerprint.")
	}
	return nil
}

func (p *people) Give(ctx context.Context, holder string, number int, share []byte) error {
	label, err := ceremony.Label(share)
	if err != nil {
		return err
	}
	if p.sharesTo != "" {
		path := filepath.Join(p.sharesTo, fmt.Sprintf("share-%d.txt", number))
		text := append(bytes.Clone(share), '\n')
		defer clear(text)
		err = durable.CreateFile(path, text, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return imprint.Errorf(imprint.CodeAlreadyExists, "%s is there already", path).WithHint("Shares are never overwritten: take an empty medium.")
		}
		if err != nil {
			return fmt.Errorf("couldn't write the share of %s: %w", holder, err)
		}
		p.written = append(p.written, path)
		return p.Say(fmt.Sprintf("%s: %s, in %s\n", holder, label, path))
	}
	err = p.Say(fmt.Sprintf("\n%s alone looks at the screen now, and copies %s. Press Enter when the others have turned away: ", holder, label))
	if err == nil {
		_, err = p.in.read(ctx)
	}
	if err != nil {
		return err
	}
	// Not through Say: what is said may be kept until it is written.
	_, err = os.Stdout.Write(append(append([]byte("\n"), share...), "\n\nPress Enter when it is copied and compared: "...))
	if err == nil {
		_, err = p.in.read(ctx)
	}
	return errors.Join(err, clearScreen())
}

// clearScreen wipes the screen and what can be scrolled back to (ECMA-48, and xterm's
// extension), where there is one.
func clearScreen() error {
	info, err := os.Stdout.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return err
	}
	_, err = io.WriteString(os.Stdout, "\x1b[H\x1b[2J\x1b[3J")
	return err
}

// maxShareFile bounds a file or line with a share.
const maxShareFile = 4096

func (p *people) Ask(ctx context.Context, missing int, wrong error) ([]byte, error) {
	if wrong != nil {
		if p.fromFile {
			return nil, wrong
		}
		err := p.Say(fmt.Sprintf("%v. %s\n", wrong, imprint.HintOf(wrong)))
		if err != nil {
			return nil, err
		}
	}
	if len(p.given) == 0 && p.sharesTo != "" {
		// What was just written is read back from the medium.
		p.given, p.sharesTo = p.written, ""
	}
	if len(p.given) > 0 {
		path := p.given[0]
		p.given, p.fromFile = p.given[1:], true
		return readSmallFile(path, maxShareFile)
	}
	if p.fromFile {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the shares aren't enough: %d more are needed", missing).WithHint("Name a file of each holder: --share FILE, or none to be asked.")
	}
	err := p.Say(fmt.Sprintf("\nThe next holder types a share (at least %d to come): ", missing))
	if err != nil {
		return nil, err
	}
	share, err := p.in.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("the shares aren't enough, %d more are needed: %w", missing, err)
	}
	return share, clearScreen()
}

// takeBack deletes the shares of a ceremony that came to nothing.
func (p *people) takeBack() error {
	var all error
	for _, path := range p.written {
		all = errors.Join(all, os.Remove(path))
	}
	return all
}

// lineReader reads lines that people type, until the context ends.
type lineReader struct {
	lines chan typed
	from  io.Reader
}

type typed struct {
	line []byte
	err  error
}

func newLineReader(from io.Reader) *lineReader { return &lineReader{from: from} }

func (l *lineReader) read(ctx context.Context) ([]byte, error) {
	if l.lines == nil {
		l.lines = make(chan typed)
		go func() {
			buffered := bufio.NewReaderSize(l.from, maxShareFile)
			for {
				line, err := buffered.ReadSlice('\n')
				if len(line) > 0 && errors.Is(err, io.EOF) {
					err = nil // the last line may lack its end
				}
				copied := bytes.Clone(bytes.TrimRight(line, "\r\n"))
				clear(line)
				select {
				case l.lines <- typed{copied, err}:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
			}
		}()
	}
	select {
	case one := <-l.lines:
		return one.line, one.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func newCAVerify() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "verify RECORD",
		Short: "Check the record of a ceremony: that nobody changed a line, and who signed it",
		Long: `Check the record of a ceremony: that each line is as it was written, that the CA signed
all of them, and that the certificates are what the script in it asks for. It needs nothing
but the record. A record can be forged together with its root, so compare the fingerprint
of the root with the one that was read aloud, or name the root's file with --root.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			record, err := readSmallFile(args[0], 4<<20)
			if err != nil {
				return err
			}
			var known *x509.Certificate
			if root != "" {
				text, err := readSmallFile(root, maxPEMFile)
				if err != nil {
					return err
				}
				known, err = pki.ParseCertificatePEM(string(text))
				if err != nil {
					return fmt.Errorf("couldn't read the root: %w", err)
				}
			}
			report, err := ceremony.Verify(record, known)
			if err != nil {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "imprint: %s doesn't verify: %v\nhint: %s\n", args[0], err, imprint.HintOf(err))
				return exitNo
			}
			return printCeremony(cmd.OutOrStdout(), report)
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "PEM file of the root that must have signed it")
	return cmd
}

func printCeremony(w io.Writer, r *ceremony.Report) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(table, "%s\t%s\n", name, value)
		}
	}
	row("ceremony", r.Title)
	row("began", r.Began.Format(time.RFC3339))
	row("ended", r.Ended.Format(time.RFC3339))
	row("script", "SHA-256 "+r.ScriptID)
	for _, person := range r.People {
		row("present", person)
	}
	row("networks", strings.Join(r.Networks, ", "))
	switch {
	case r.Store != "":
		row("keys", r.Store)
	case r.Total > 0:
		row("keys", fmt.Sprintf("sealed, %d of %d shares of set %s open them", r.Threshold, r.Total, r.Set))
	default:
		row("keys", fmt.Sprintf("opened with %d shares of set %s", r.Threshold, r.Set))
	}
	for _, one := range r.Authorities {
		by := "a root"
		switch {
		case one.Present:
			by = "was there already"
		case one.Issuer != "":
			by = "signed by " + one.Issuer
		}
		row("CA "+one.Name, fmt.Sprintf("%s, %s, until %s, SHA-256 %s", pki.SubjectText(one.Certificate.RawSubject), by, one.Certificate.NotAfter.Format(time.DateOnly), pki.CertificateID(one.Certificate.Raw)))
	}
	for _, name := range r.CRLs {
		row("CRL", "of "+name)
	}
	err := table.Flush()
	if err != nil {
		return err
	}
	sum, err := hex.DecodeString(string(pki.CertificateID(r.SignedBy.Raw)))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\nAll %d lines are as they were written. CA %s signed them. SHA-256 of its certificate, to compare with what was read aloud:\n\n%s", r.Lines, r.SignedName, ceremony.Spoken(sum))
	return err
}

// unsealed gives a CA key of a ceremony, opened by its holders' shares, as PEM.
func unsealed(cmd *cobra.Command, path string, shares []string) ([]byte, error) {
	key, err := ceremony.OpenSealed(cmd.Context(), path, &people{in: newLineReader(cmd.InOrStdin()), out: cmd.ErrOrStderr(), given: shares})
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the key: %w", err)
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
