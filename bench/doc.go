// Package bench measures a whole Imprint server against a bare reference on the
// machine that it runs on, and prints figures of one shape:
//
//	figures, err := bench.JITP(ctx, target, bench.Options{Devices: 3000, Concurrency: 32})
//	err = bench.PrintTable(os.Stdout, figures)
//
// # How figures are taken
//
// The server is a child process with a data directory of its own, on loopback,
// started like any other server; the reference is a second child: a plain Go
// server that completes a mutual-TLS handshake (TLS 1.3, a P-256 certificate,
// any client certificate, no tickets), reads one byte and closes. The load runs
// in the calling process, so the CPU time of each child is its own: user and
// system time as the kernel accounts it, with all the child's threads, its
// garbage collection and what it writes in the background. A figure per
// CPU-second therefore doesn't depend on how many cores there are, nor on the
// load generator, which usually takes more CPU than the server.
//
// The reference is probed before and after the measured part, with the same
// client certificates and concurrency, and the mean of the two rates is the
// reference: a machine that becomes slower during a run slows both. Both are
// printed; where they differ by more than a few per cent, the machine was not
// quiet and the ratio is worth as little. Both children get a short warm-up,
// which isn't measured. The measured part ends when what the server keeps in
// memory of its trace is in the registry.
//
// Devices, their keys and certificates are made before. Each device's
// certificate has CN, serialNumber, O and C; the CA's template joins the thing's
// name, sets attributes and attaches a policy with policy variables, so that a
// first connection does all that a real one does. A first connection is closed
// once the device is provisioned, as AWS IoT Core closes it (developer guide,
// "Just-in-time provisioning"); the device comes again and must get its CONNACK.
// A run fails, instead of giving figures, when a single connection went wrong,
// or when the registry or the trace doesn't hold exactly the devices that came.
//
// # What it doesn't do
//
// TLS sessions aren't resumed: the server offers no tickets. CPU seconds of
// another process are read from /proc, so benches run on Linux only. Durable
// writes cost what the temporary directory's file system makes them cost: set
// TMPDIR to a directory on the disk of interest.
package bench
