package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples are what the help of a command shows that has no example in its own text.
var examples = map[string]string{
	"imprint serve": `imprint serve
imprint serve --data /var/lib/imprint --host iot.example.com --pki-address :8880
IMPRINT_MQTT_ADDRESS=:18883 imprint serve --config imprint.yaml`,
	"imprint version": `imprint version`,
	"imprint advise": `imprint advise
imprint advise --device-key unique --manufacturer csr --pki own --accounts one --installer no`,
	"imprint explain": `imprint explain sensor-17
imprint explain device.pem --limit 1
imprint explain 192.0.2.7 --follow`,

	"imprint account add":  `eval "$(imprint account add 111111111111)"`,
	"imprint account key":  `imprint account key 111111111111 --data /var/lib/imprint`,
	"imprint account list": `imprint account list`,

	"imprint user add":           `imprint user add installer --description "installs kiosks"`,
	"imprint user list":          `imprint user list`,
	"imprint user show":          `imprint user show installer`,
	"imprint user delete":        `imprint user delete installer`,
	"imprint user key add":       `eval "$(imprint user key add installer)"`,
	"imprint user key list":      `imprint user key list installer`,
	"imprint user key delete":    `imprint user key delete installer AKIAIOSFODNN7EXAMPLE`,
	"imprint user policy put":    `imprint user policy put installer claims claims.json`,
	"imprint user policy get":    `imprint user policy get installer claims`,
	"imprint user policy list":   `imprint user policy list installer`,
	"imprint user policy delete": `imprint user policy delete installer claims`,

	"imprint claim guard": `imprint claim guard
imprint claim guard claim.pem --quota 5000 --max-refusals 20 --window 1m
imprint claim guard claim.pem --resume`,
	"imprint claim allow": `imprint claim allow claim.pem --file serials.csv --column serial`,

	"imprint bulk start":   `imprint bulk start --template template.json lines devices.json`,
	"imprint bulk status":  `imprint bulk status`,
	"imprint bulk reports": `imprint bulk reports 1843fb87-080c-4066-8ed0-fcac470468da --errors`,
	"imprint bulk stop":    `imprint bulk stop 1843fb87-080c-4066-8ed0-fcac470468da`,

	"imprint policy lint": `imprint policy lint policy.json
imprint policy lint --list`,

	"imprint ca create": `imprint ca create --root --name root --subject "/O=Acme/CN=Acme root"
imprint ca create --parent root --name line7 --subject "/O=Acme/CN=Acme line 7" --profiles operational
imprint ca create --pending --name line9 --subject "/O=Acme/CN=Acme line 9"`,
	"imprint ca adopt": `imprint ca adopt --name root --cert root.pem
imprint ca adopt --name line8 --cert line8.pem --chain root.pem --key-file line8.key --profiles operational`,
	"imprint ca list":    `imprint ca list`,
	"imprint ca show":    `imprint ca show line7`,
	"imprint ca cert":    `imprint ca cert line7 --chain --out line7.pem`,
	"imprint ca csr":     `imprint ca csr line9 --out line9.csr`,
	"imprint ca import":  `imprint ca import line9 --cert line9.pem --chain root.pem`,
	"imprint ca issue":   `imprint ca issue line7 --csr device.csr --profile operational --out device.pem`,
	"imprint ca update":  `imprint ca update line7 --status DISABLED`,
	"imprint ca delete":  `imprint ca delete line7 --days 7`,
	"imprint ca restore": `imprint ca restore d319ba23-3e57-48d1-a8fc-dcd05666ef0f`,
	"imprint ca revoke": `imprint ca revoke --cert device.pem --reason key-compromise
imprint ca revoke line7 --reason key-compromise --below`,
	"imprint ca expiring": `imprint ca expiring --within 30d --unrenewed`,
	"imprint ca profiles": `imprint ca profiles operational`,
	"imprint ca keys": `imprint ca keys
imprint ca keys hsm`,
	"imprint ca crl import": `imprint ca crl import --ca 3fa9c1d2 http://pki.example.com/line7.crl`,
	"imprint ca crl list":   `imprint ca crl list`,
	"imprint ca crl set":    `imprint ca crl set --ca 3fa9c1d2 --stale refuse`,
	"imprint ca crl forget": `imprint ca crl forget --ca 3fa9c1d2`,
	"imprint ca verify":     `imprint ca verify acme-root/record.jsonl --root root.pem`,
	"imprint ca logged": `imprint ca logged device.pem --proof device.tlog-proof
imprint ca logged device.pem --log https://imprint.example.com/issuance-log --key verifier.txt`,
	"imprint ca audit": `imprint ca audit
imprint ca audit --data copy-of-imprint-data --key verifier.txt --checkpoint checkpoint`,

	"imprint est create":     `imprint est create line7 --authority line7 --profile operational --passwords`,
	"imprint est list":       `imprint est list`,
	"imprint est show":       `imprint est show line7`,
	"imprint est update":     `imprint est update line7 --renew 1/3`,
	"imprint est delete":     `imprint est delete line7`,
	"imprint est otp create": `imprint est otp create --label line7 --serial sensor-17 --expires 24h`,
	"imprint est otp list":   `imprint est otp list --label line7`,
	"imprint est otp delete": `imprint est otp delete --label line7 hxf3krywhvc2w2dx`,

	"imprint bench broker":    `imprint bench broker --only latency,one-to-one`,
	"imprint bench bulk":      `imprint bench bulk --devices 5000`,
	"imprint bench claim":     `imprint bench claim --device-ca-key p-256`,
	"imprint bench function":  `imprint bench function --json`,
	"imprint bench handshake": `imprint bench handshake`,
	"imprint bench issue":     `imprint bench issue --ca-key p256`,
	"imprint bench jitp":      `imprint bench jitp --devices 1000`,
	"imprint bench trace":     `imprint bench trace`,
}

// addExamples gives cmd, and the commands below it, their examples.
func addExamples(cmd *cobra.Command) {
	text, found := examples[cmd.CommandPath()]
	if found {
		cmd.Example = "  " + strings.ReplaceAll(text, "\n", "\n  ")
	}
	for _, child := range cmd.Commands() {
		addExamples(child)
	}
}
