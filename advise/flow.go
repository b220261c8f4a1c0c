package advise

// flow is a row of the table of flows, which stand in the order in which they are
// preferred where several are possible.
type flow struct {
	name, title, page string
	// take is when to choose it, in a line.
	take string
	// needs must all hold.
	needs []need
	// reasons speak for the flow, where they apply.
	reasons []reason
	plan    func(Answers) plan
}

// need is something without which a flow can't be.
type need struct {
	what      string // that must hold, as a person reads it
	holds     func(Answers) bool
	otherwise func(Answers) string // why the flow is ruled out
}

// reason is an argument that applies to some answers.
type reason struct {
	applies func(Answers) bool
	text    string
}

func always(Answers) bool { return true }

func say(text string) func(Answers) string { return func(Answers) string { return text } }

// ownThing is the need of all flows that tell devices apart by what they bring.
var ownThing = need{
	what:  "each device leaves the line with something of its own",
	holds: Answers.personal,
	otherwise: func(a Answers) string {
		if a.DeviceKey == ClaimOnly {
			return "the devices hold nothing of their own: there is nothing to register"
		}
		return "the line puts nothing of its own into a device: nobody knows its key before it connects"
	},
}

var severalOwners = need{
	what:      "there are several accounts",
	holds:     func(a Answers) bool { return a.Accounts == SeveralAccounts },
	otherwise: say("there is one account: its own flows say more about a device than a certificate without a CA does"),
}

// anyAccount is the need of flows that register before an account is chosen: what this
// server signs is registered in one account.
var anyAccount = need{
	what:      "the account is known, or the certificates are those of your CA or a vendor's",
	holds:     func(a Answers) bool { return a.Accounts == OneAccount || a.PKI == OwnCA || a.PKI == VendorCA },
	otherwise: say("a certificate that Imprint signs is registered in one account, and a device must be able to go to any"),
}

// flows is the table.
func flows() []flow {
	return []flow{multiAccount(), jitp(), bulk(), jitr(), registerThing(), trustedUser(), claim()}
}

func multiAccount() flow {
	return flow{
		name: "multi-account", title: "multi-account registration", page: "docs/multi-account.md",
		take: "one certificate is registered without its CA in as many accounts as you like, and the server name chooses",
		needs: []need{severalOwners, ownThing, {
			what:      "the certificates aren't made by Imprint",
			holds:     func(a Answers) bool { return a.PKI != ImprintCA },
			otherwise: say("a certificate that Imprint signs is registered in one account and can't be in a second one"),
		}},
		reasons: []reason{
			{always, "the device keeps the certificate that it left the line with, in whichever account it ends"},
			{func(a Answers) bool { return a.PKI == VendorCA }, "no CA is registered, so that devices of the vendor's other customers stay unknown"},
			{func(a Answers) bool { return a.PKI == NoCA }, "no CA is needed: a self-signed certificate can be registered, too"},
			{func(a Answers) bool { return a.PKI == OwnCA }, "no owner must be given, or trust, your CA"},
		},
		plan: multiAccountPlan,
	}
}

func jitp() flow {
	return flow{
		name: "jitp", title: "just-in-time provisioning (JITP)", page: "docs/jitp.md",
		take: "the certificate's subject says all that must be known of a device",
		needs: []need{ownThing, {
			what:  "a CA of your own signs",
			holds: func(a Answers) bool { return a.PKI == OwnCA },
			otherwise: func(a Answers) string {
				switch a.PKI {
				case VendorCA:
					return "the vendor's CA signs for others, too: all their devices would be let in"
				case ImprintCA:
					return "what Imprint signs is registered already: no first connection has to do it"
				}
				return "there is no CA that could be registered"
			},
		}},
		reasons: []reason{
			{always, "nothing that several devices share can leak, and nobody lists the devices beforehand"},
			{always, "the factory needs no connection to the server"},
			{func(a Answers) bool { return a.DeviceKey == SecureElement }, "the secure element proves the key at each connection, and it never leaves it"},
			{func(a Answers) bool { return a.Accounts == SeveralAccounts }, "a CA in mode SNI_ONLY can be registered in each account; every account provisions for itself"},
		},
		plan: jitpPlan,
	}
}

func bulk() flow {
	return flow{
		name: "bulk-registration", title: "bulk registration", page: "docs/bulk-registration.md",
		take: "a file knows the devices before they come: certificates, or signing requests",
		needs: []need{ownThing, anyAccount, {
			what:      "a CA of yours or a vendor's signs, or the line collects signing requests",
			holds:     func(a Answers) bool { return a.certified() || a.Manufacturer == SignsCSRs },
			otherwise: say("nothing can be listed: no CA of yours or a vendor's signs, and the line takes no signing requests"),
		}},
		reasons: []reason{
			{func(a Answers) bool { return a.PKI == VendorCA }, "the vendor's manifest says which of its certificates are yours; no other is let in"},
			{func(a Answers) bool { return a.PKI == OwnCA }, "a device that isn't in the file isn't let in, though your CA signed it"},
			{func(a Answers) bool { return !a.certified() }, "the signing requests of the line become certificates, and the reports have them"},
			{always, "the devices are let in at their first connection; a million lines need no more memory than a thousand"},
		},
		plan: bulkPlan,
	}
}

func jitr() flow {
	return flow{
		name: "jitr", title: "just-in-time registration (JITR)", page: "docs/jitr.md",
		take: "something outside the certificate decides about a device: an allow list, a revocation list, an order system",
		needs: []need{ownThing, {
			what:  "a CA of yours or a vendor's signs",
			holds: func(a Answers) bool { return a.PKI == OwnCA || a.PKI == VendorCA },
			otherwise: func(a Answers) string {
				if a.PKI == ImprintCA {
					return "what Imprint signs is registered already: no first connection has to do it"
				}
				return "there is no CA that could be registered"
			},
		}},
		reasons: []reason{
			{func(a Answers) bool { return a.PKI == VendorCA }, "your function's list tells your devices from those of the vendor's other customers"},
			{always, "a function of yours decides at the first connection, with all that it can look up"},
			{func(a Answers) bool { return a.Accounts == SeveralAccounts }, "a CA in mode SNI_ONLY can be registered in each account; every account decides for itself"},
		},
		plan: jitrPlan,
	}
}

func registerThing() flow {
	return flow{
		name: "register-thing", title: "RegisterThing and CreateKeysAndCertificate, device by device", page: "docs/register-thing.md",
		take:  "a program of yours registers each device while it is on the line, with one call",
		needs: []need{ownThing, anyAccount},
		reasons: []reason{
			{func(a Answers) bool { return !a.certified() && !a.makesKeys() }, "Imprint makes key and certificate, and the line puts both into the device"},
			{func(a Answers) bool { return !a.certified() && a.makesKeys() }, "the device makes its key, Imprint signs the request, and the line puts the certificate back"},
			{Answers.certified, "thing, policy and certificate are there, in one transaction, before the device connects"},
			{always, "the first connection is like every other; the line must reach the server"},
		},
		plan: registerThingPlan,
	}
}

func trustedUser() flow {
	return flow{
		name: "trusted-user", title: "fleet provisioning by trusted user", page: "docs/trusted-user.md",
		take: "an installer's app fetches a claim that is good for five minutes, and gives it to the device",
		needs: []need{{
			what:      "an installer is at the device's first start",
			holds:     func(a Answers) bool { return a.Installer == WithInstaller },
			otherwise: say("nobody whom you trust is at the device when it starts for the first time"),
		}},
		reasons: []reason{
			{always, "nothing secret is in the image: the claim is a certificate for five minutes and one template"},
			{always, "who asked for the claim, and which device came of it, stands in the trace"},
			{func(a Answers) bool { return a.Accounts == SeveralAccounts }, "the installer's key chooses the account"},
			{func(a Answers) bool { return a.PKI == OwnCA || a.PKI == VendorCA }, "the CA may sign the new certificates, too: a certificate provider asks it (docs/fleet-provisioning.md)"},
		},
		plan: trustedUserPlan,
	}
}

func claim() flow {
	return flow{
		name: "fleet-provisioning", title: "fleet provisioning by claim", page: "docs/fleet-provisioning.md",
		take: "devices get their identity at their first connection, with a claim certificate that a batch shares",
		reasons: []reason{
			{func(a Answers) bool { return a.DeviceKey == ClaimOnly || !a.personal() }, "one image for all is enough: the line does nothing for a single device"},
			{Answers.makesKeys, "the device sends a signing request: its private key never travels"},
			{func(a Answers) bool { return !a.makesKeys() }, "the server makes the key; a device that can make keys should send a signing request instead"},
			{func(a Answers) bool { return a.PKI == OwnCA || a.PKI == VendorCA }, "the CA may sign the new certificates, too: a certificate provider asks it (docs/fleet-provisioning.md)"},
			{func(a Answers) bool { return a.personal() }, "but a claim is a secret that many share, and your devices can do better"},
			{func(a Answers) bool { return a.Accounts == SeveralAccounts }, "the claim certificate is registered in each account; the endpoint that a device is given chooses"},
			{always, "give each batch its own claim, with a guard: quota, time, network, allow list of serial numbers"},
		},
		plan: claimPlan,
	}
}
