package trace

import (
	"slices"

	"github.com/imprint-iot/imprint"
)

// nextByCode is what a device is expected to do next after an attempt that ended
// with a code, where that isn't plain from the outcome.
var nextByCode = map[imprint.Code]string{
	imprint.CodeProvisioned:            "The device connects again with the same certificate and is let in; SDKs do that by themselves.",
	imprint.CodeRegisteredPending:      "Nobody lets the device in before its certificate is ACTIVE: a rule's function, or an operator, activates it; then the device's next connection succeeds.",
	imprint.CodeCertificatePending:     "The device comes again and is refused until its certificate is activated.",
	imprint.CodeCertificateNotYetValid: "The device comes again and is let in once the certificate's time has begun; if that is long ago, the clock of whoever made the certificate was wrong.",
	imprint.CodeOverloaded:             "The device waits and comes again; it is let in once there is room.",
	imprint.CodeConnectRate:            "The device waits and comes again; it is let in once it comes less often.",
	imprint.CodeServerShutdown:         "The device connects again when the server is back.",
	imprint.CodeServerStopped:          "The device notices that its connection is gone and comes again.",
	imprint.CodeTakenOver:              "The connection that took the client id stays; if both devices come again and again, two of them share the id or the certificate.",
	imprint.CodeKeepAliveTimeout:       "The device notices that its connection is gone and comes again.",
	imprint.CodeConnectionLost:         "The device notices that its connection is gone and comes again.",
	imprint.CodeClientDisconnect:       "None: the device ended the connection itself and comes again when it wants to.",
	imprint.CodeCertificateRevoked:     "The device is refused for good: it needs a new certificate.",
	imprint.CodeOnRevocationList:       "The device is refused for good: it needs a new certificate.",
	imprint.CodeRevocationListStale:    "The device comes again and is let in once its CA's revocation list is current.",
	imprint.CodeCertificateDeleted:     "The device is refused unless its certificate is registered again: by its CA's auto-registration, or by an operator.",
	imprint.CodeCertificateExpired:     "The device is refused for good: it needs a new certificate.",
	imprint.CodeClaimStopped:           "Devices with this claim are refused until an operator lets the claim go on.",
	imprint.CodeUnavailable:            "The device comes again, and is served once the store works.",
	imprint.CodeInternal:               "The device comes again; the server's log has the cause.",
	imprint.CodeHandshakeTimeout:       "The device, or whoever connected, comes again; nothing was sent in time.",
	imprint.CodeClientIDInvalid:        "The device is refused until its firmware has another client id.",
	imprint.CodeUnsupportedVersion:     "The device is refused until its firmware speaks MQTT 3.1.1 or 5.",
	imprint.CodeCertificateWeak:        "The device is refused for good: it needs a certificate with another kind of key.",
	imprint.CodeNotTLS:                 "None: this wasn't a device that speaks TLS.",
	imprint.CodeAdministrative:         "The device connects again by itself.",
	imprint.CodeConnectionExpired:      "The client signs a new request and connects again.",
	imprint.CodeQoSNotSupported:        "The device connects again; its firmware must not use QoS 2.",
	imprint.CodeSlowConsumer:           "The device connects again; a persistent session has what it missed.",
}

// Next says what the device is expected to do after an attempt; empty while it is
// on.
func Next(outcome imprint.Outcome, code imprint.Code) string {
	if outcome == imprint.OutcomeConnected {
		return ""
	}
	if next, ok := nextByCode[code]; ok {
		return next
	}
	if outcome == imprint.OutcomeEnrolled {
		return "The device connects with its new certificate."
	}
	if outcome == imprint.OutcomeRefused {
		return "The device comes again, and fails in the same way until the fix is done."
	}
	return "The device connects again by itself."
}

// NextOf is Next with what the steps tell: a claim's device goes on with its new
// certificate, and what a device was thrown out for throws it out again, and what it was
// refused is refused again.
func NextOf(a *imprint.Attempt) string {
	if a.OfLine() {
		return nextOfLine(a)
	}
	if a.Outcome != imprint.OutcomeClosed {
		return Next(a.Outcome, a.Code)
	}
	for i := range a.Steps {
		if a.Steps[i].Name == "claim.registered" && a.Steps[i].Certificate != "" {
			return "The device connects with its new certificate and is let in; with the claim it comes again only for another device."
		}
	}
	switch a.Code {
	case imprint.CodeClientDisconnect, imprint.CodeConnectionLost, imprint.CodeKeepAliveTimeout:
		if wasRefused(a) {
			return Next(a.Outcome, a.Code) + " What it was refused here it is refused again until the fix is done."
		}
	case imprint.CodePublishDenied, imprint.CodeSubscribeDenied, imprint.CodeRetainDenied, imprint.CodeReservedTopic, imprint.CodeTopicInvalid,
		imprint.CodeFilterInvalid, imprint.CodeQoSNotSupported, imprint.CodePacketTooLarge, imprint.CodeProtocolViolation, imprint.CodeQuotaExceeded, imprint.CodeReceiveMaximum:
		return "The device connects again by itself, and is closed again by the same packet until the fix is done."
	}
	return Next(a.Outcome, a.Code)
}

// wasRefused says whether the device was refused something that didn't end the connection. What
// its messages caused elsewhere may fail without that.
func wasRefused(a *imprint.Attempt) bool {
	for i := range a.Steps {
		s := &a.Steps[i]
		if s.Verdict == imprint.VerdictFailed && !slices.Contains([]string{"session", "rule", "function", "event"}, s.Name) {
			return true
		}
	}
	return false
}

// nextOfLine is NextOf for a line of a bulk registration.
func nextOfLine(a *imprint.Attempt) string {
	if a.Outcome == imprint.OutcomeRegistered {
		return "The device connects with its certificate; of one that was made of a signing request the report has the text: imprint bulk reports " + a.Host()
	}
	return "Nothing of the line is registered. Send it again in another file, with all that failed: imprint bulk reports " + a.Host() + " --errors"
}
