// Command errordoc writes docs/errors.md from the domain's error table, so that
// page and program can't disagree. It is run by go generate in the module root.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/pagepart"
)

const head = `# Errors and refusals

Generated from the error table of the domain (errortable.go); don't edit.

Every refusal that an operator or a device can meet has a code. The control
plane answers operators with the AWS exception and its HTTP status, message and
hint together. A device hears the MQTT 5 reason code, in CONNACK, PUBACK, SUBACK
or DISCONNECT; an MQTT 3.1.1 device sees its connection close, as on AWS IoT
Core. The trace (` + "`imprint explain`" + `) has the code, the details and the fix.

| code | control plane | MQTT 5 reason | what happened | what to do |
|---|---|---|---|---|
`

func main() {
	out := flag.String("out", "docs/errors.md", "file to write")
	flag.Parse()
	err := os.WriteFile(*out, []byte(page()), 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, "errordoc: couldn't write the page:", err)
		os.Exit(1)
	}
}

func page() string {
	var b strings.Builder
	b.WriteString(head)
	for _, row := range imprint.Descriptions() {
		plane, reason := "", ""
		if row.Exception != "" {
			plane = fmt.Sprintf("`%s` %d", row.Exception, row.Status)
		}
		if row.Reason != 0 {
			reason = fmt.Sprintf("0x%02X", row.Reason)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", row.Code, plane, reason, pagepart.Cell(row.Meaning), pagepart.Cell(row.Hint))
	}
	return b.String()
}
