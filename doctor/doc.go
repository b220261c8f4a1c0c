// Package doctor stands where a device stands: with the files that the device is
// given it resolves the endpoint's name, connects, speaks TLS and MQTT step by
// step, and says what is wrong before firmware is blamed.
//
//	report, err := doctor.Examine(ctx, doctor.Options{
//		Certificate: "device.pem", Key: "device.key", CA: "root.pem",
//		Endpoint: "a3qjEXAMPLEffp-ats.iot.eu-west-1.amazonaws.com:8883",
//	})
//	// err: the examination couldn't be made, and nobody was asked
//	for _, check := range report.Checks {
//		fmt.Println(check.Verdict, check.Name, check.Code, check.Detail, check.Fix)
//	}
//
// # What it promises
//
//   - The same checks in the same order, whatever happens (Names): one that can't
//     be made is skipped, and says why.
//   - A verdict, what was seen, and for what failed or is doubtful a code of one
//     list (Codes) and a fix that a person can type.
//   - Any endpoint: Imprint, AWS IoT Core, another broker, or something that is none.
//     Each step has a timeout, each connection a bound on the bytes that are read,
//     and what a server says is stripped of what a terminal would act on.
//   - Private keys are read and used, never shown, copied or sent.
//   - Nothing is published unless asked for.
//
// # What it changes
//
// It connects as the device: a connection of the same client id is ended by it, as
// the protocol wants, and a certificate that the server registers at its first
// connection is registered. A stored MQTT 3.1.1 session is resumed and left as it
// is; a broker may drop a stored session when its client id comes with the other
// version of MQTT, as Imprint does, so for a device that has one Options.MQTT
// should name its version. Options.NoMQTT ends the examination before all that.
//
// # What it does not do
//
// It doesn't replace the trace of the server, which knows why it refused; it says
// how to ask for it. It checks no revocation lists, and it judges this machine's
// clock, not the device's.
//
// # Sources
//
// RFC 8446 section 6 and RFC 5246 section 7.2 (alerts), RFC 5280 (certificates),
// RFC 7468 (PEM), MQTT 3.1.1 and 5.0, and of the AWS IoT Core developer guide the
// pages "Device communication protocols", "Transport security in AWS IoT Core",
// "Server authentication" and "Just-in-time provisioning".
package doctor

//go:generate go run ../internal/doctordoc -out ../docs/doctor.md
