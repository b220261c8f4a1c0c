package advise

// File is one that commands read and that is yours to bring.
type File struct {
	Name string `json:"name"`
	Text string `json:"text"` // what it holds
}

// Command is one line for a POSIX shell.
type Command struct {
	For  string `json:"for"` // what it is for
	Line string `json:"line"`
}

// plan is what is to be typed for a flow.
type plan struct {
	files    []File
	commands []Command
}

func (p plan) and(more plan) plan {
	return plan{append(append([]File{}, p.files...), more.files...), append(append([]Command{}, p.commands...), more.commands...)}
}

const (
	provisioningRole = "arn:aws:iam::000000000000:role/provisioning"
	functionRole     = "arn:aws:iam::000000000000:role/function"
)

// pointed makes the AWS CLI speak to this server.
func pointed() plan {
	return plan{commands: []Command{{"point the AWS CLI at the server", `eval "$(imprint env)"`}}}
}

// devicePolicy is what the devices may do, as the templates name it.
func devicePolicy() plan {
	return plan{
		[]File{{"policy.json", "what a device may do (AWS IoT policy)"}},
		[]Command{{"what a device may do", "aws iot create-policy --policy-name device --policy-document file://policy.json"}},
	}
}

// everywhere repeats what went before in another account, where there are several.
func everywhere(a Answers) plan {
	if a.Accounts != SeveralAccounts {
		return plan{}
	}
	return plan{commands: []Command{
		{"another account (its first key is shown this once); then the same again in it", `eval "$(imprint account add 111111111111)"`},
	}}
}

// registerCA registers a CA for first connections. In several accounts, and where a vendor
// holds its key, it is registered without proof, in mode SNI_ONLY.
func registerCA(a Answers, more string) plan {
	files := []File{{"ca.pem", "the CA that signs the devices' certificates"}}
	if a.Accounts == SeveralAccounts || a.PKI == VendorCA {
		return plan{files, []Command{{
			"the CA, for devices that send a server name; needs no proof, and can be in many accounts",
			"aws iot register-ca-certificate --ca-certificate file://ca.pem --certificate-mode SNI_ONLY --set-as-active" + more,
		}}}
	}
	return plan{append(files, File{"ca.key", "its private key, for the proof that the CA is yours"}), []Command{
		{"the code that proves the CA", "CODE=$(aws iot get-registration-code --query registrationCode --output text)"},
		{"a key for the proof", `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$CODE" -keyout proof.key -out proof.csr`},
		{"the proof, signed by the CA", "openssl x509 -req -in proof.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out proof.pem"},
		{"the CA", "aws iot register-ca-certificate --ca-certificate file://ca.pem --verification-certificate file://proof.pem --set-as-active" + more},
	}}
}

func template(kind, text string) plan {
	return plan{
		[]File{{"template.json", text}},
		[]Command{{"what becomes of a device", "aws iot create-provisioning-template --template-name fleet --type " + kind +
			" --enabled --provisioning-role-arn " + provisioningRole + " --template-body file://template.json"}},
	}
}

// function puts a function of the maker's onto the server. What may invoke it comes
// after that is there.
func function(name, text string) plan {
	return plan{
		[]File{{"function.zip", text}},
		[]Command{{"the function", "FUNCTION=$(aws lambda create-function --function-name " + name + " --runtime provided.al2023 --handler bootstrap --role " +
			functionRole + " --timeout 30 --zip-file fileb://function.zip --query FunctionArn --output text)"}},
	}
}

func permission(name, source string) Command {
	return Command{"let it be invoked", "aws lambda add-permission --function-name " + name +
		" --statement-id iot --action lambda:InvokeFunction --principal iot.amazonaws.com --source-arn \"$(" + source + ")\""}
}

func one(what, line string) plan { return plan{commands: []Command{{what, line}}} }

func jitpPlan(a Answers) plan {
	p := pointed().and(devicePolicy()).
		and(template("JITP", "what becomes of a device, by the fields of its certificate's subject (docs/jitp.md)")).
		and(registerCA(a, " --allow-auto-registration --registration-config templateName=fleet"))
	return p.and(everywhere(a)).and(one("how devices come", "imprint attempts"))
}

func jitrPlan(a Answers) plan {
	p := pointed().and(function("jitr", "the program that decides about a device, as bootstrap (docs/jitr.md)")).and(plan{commands: []Command{
		{"the rule that invokes it", `aws iot create-topic-rule --rule-name jitr --topic-rule-payload "{\"sql\": \"SELECT * FROM '\$aws/events/certificates/registered/+'\", ` +
			`\"awsIotSqlVersion\": \"2016-03-23\", \"actions\": [{\"lambda\": {\"functionArn\": \"$FUNCTION\"}}]}"`},
		permission("jitr", "aws iot get-topic-rule --rule-name jitr --query ruleArn --output text"),
	}}).and(registerCA(a, " --allow-auto-registration"))
	return p.and(everywhere(a)).and(one("how devices come", "imprint attempts"))
}

func multiAccountPlan(a Answers) plan {
	return pointed().and(devicePolicy()).and(registered()).and(everywhere(a)).
		and(one("the account's endpoint, which a device gives as server name", "aws iot describe-endpoint --endpoint-type iot:Data-ATS"))
}

// registered registers one certificate without its CA.
func registered() plan {
	return plan{
		[]File{{"device.pem", "a device's certificate"}},
		[]Command{
			{"a device's certificate", "CERTIFICATE=$(aws iot register-certificate-without-ca --certificate-pem file://device.pem --status ACTIVE --query certificateArn --output text)"},
		},
	}.and(attached())
}

// attached gives a certificate its thing and policy.
func attached() plan {
	return plan{commands: []Command{
		{"its thing", "aws iot create-thing --thing-name device-1"},
		{"the certificate is the thing's", `aws iot attach-thing-principal --thing-name device-1 --principal "$CERTIFICATE"`},
		{"and may do what the policy says", `aws iot attach-policy --policy-name device --target "$CERTIFICATE"`},
	}}
}

func bulkPlan(a Answers) plan {
	p, lines := pointed().and(devicePolicy()), "a JSON object a device: its parameters, with the CSR"
	if a.certified() {
		p, lines = p.and(registerCA(a, "")), "a JSON object a device: its parameters, with the certificate's PEM"
	}
	return p.and(plan{
		[]File{{"template.json", "what becomes of a line (docs/bulk-registration.md)"}, {"devices.json", lines}},
		[]Command{
			{"the file, where the server looks for it", `mkdir -p "${IMPRINT_DATA:-imprint-data}/bulk/lines" && cp devices.json "${IMPRINT_DATA:-imprint-data}/bulk/lines/"`},
			{"begin", "TASK=$(imprint bulk start --template template.json lines devices.json)"},
			{"how far it is", `imprint bulk status "$TASK"`},
			{"what was registered, with certificates", `imprint bulk reports "$TASK" > results.ndjson`},
			{"what failed, and why", `imprint bulk reports "$TASK" --errors`},
		},
	}).and(everywhere(a))
}

func registerThingPlan(a Answers) plan {
	p := pointed().and(devicePolicy())
	if !a.certified() && !a.makesKeys() {
		return p.and(one("a device's key and certificate; the key is kept nowhere else",
			"CERTIFICATE=$(aws iot create-keys-and-certificate --set-as-active --certificate-pem-outfile device.pem --private-key-outfile device.key --query certificateArn --output text)")).
			and(attached())
	}
	parameters := "the template's parameters, with the CSR's PEM"
	if a.certified() {
		p, parameters = p.and(registerCA(a, "")), "the template's parameters, with the certificate's PEM"
	}
	return p.and(plan{
		[]File{{"template.json", "what becomes of a device (docs/register-thing.md)"}, {"parameters.json", parameters}},
		[]Command{{"a device: thing, certificate and policy in one transaction",
			"aws iot register-thing --template-body file://template.json --parameters file://parameters.json --query certificatePem --output text > device.pem"}},
	}).and(everywhere(a))
}

const fleetTemplate = "what becomes of a device, by the parameters that it sends (docs/fleet-provisioning.md)"

func claimPlan(a Answers) plan {
	p := pointed().and(devicePolicy()).and(template("FLEET_PROVISIONING", fleetTemplate)).and(plan{
		[]File{{"claim.json", "what a claim may do (docs/fleet-provisioning.md)"}},
		[]Command{
			{"what a claim may do", "aws iot create-policy --policy-name claim --policy-document file://claim.json"},
		},
	}).and(claimCertificate(a)).and(plan{commands: []Command{
		{"the claim may do it", `aws iot attach-policy --policy-name claim --target "$CLAIM"`},
		{"its bounds: as many devices as the batch has", "imprint claim guard claim.pem --quota 5000 --max-refusals 20 --window 1m"},
	}})
	return p.and(one("how many devices came of the claims, and which ones are stopped", "imprint claim guard")).and(everywhere(a))
}

// claimCertificate makes a claim for one batch. One that the server makes is good in
// one account.
func claimCertificate(a Answers) plan {
	if a.Accounts == OneAccount {
		return one("a claim certificate for one batch",
			"CLAIM=$(aws iot create-keys-and-certificate --set-as-active --certificate-pem-outfile claim.pem --private-key-outfile claim.key --query certificateArn --output text)")
	}
	return plan{commands: []Command{
		{"a claim certificate for one batch, once", `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=claim" -keyout claim.key -out claim.pem`},
		{"it is registered in each account", "CLAIM=$(aws iot register-certificate-without-ca --certificate-pem file://claim.pem --status ACTIVE --query certificateArn --output text)"},
	}}
}

func trustedUserPlan(a Answers) plan {
	p := pointed().and(devicePolicy()).and(template("FLEET_PROVISIONING", fleetTemplate)).and(plan{
		[]File{{"installer.json", "what the installer's key may do (docs/trusted-user.md)"}},
		[]Command{
			{"the installer", "imprint user add installer"},
			{"may ask for claims of that template, and nothing else", "imprint user policy put installer claims installer.json"},
			{"the installer's key, for the app; shown this once", `eval "$(imprint user key add installer)"`},
			{"what the app does, as the installer", "aws iot create-provisioning-claim --template-name fleet"},
		},
	})
	return p.and(one("back to the operator's key", `eval "$(imprint env)"`)).and(everywhere(a))
}
