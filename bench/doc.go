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
// any client certificate, no tickets), reads one byte and closes, or holds the
// connection. The load runs
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
// # Brokers
//
// Broker adds mosquitto as a third child, with TLS 1.3, a certificate from each
// device and an ACL file that allows what the devices' policies allow. One load
// generator, in this process, drives both in turns: connections without a
// goroutine while they are idle, one reader each under load, one sender for all
// publishers, large TLS records, acknowledgements together. The load is closed: so
// much is under way that a server is never short of work, and less than what
// either keeps for one subscriber, so that none has a reason to drop. Each payload
// begins with its publisher and its number; the run fails at the first message
// that is missing, comes again without DUP or overtakes another. Latencies are
// open loop: each message counts from the moment when it was due.
//
// Memory of an idle connection is the growth of the server's resident pages from
// the first tenth of the connections to all of them, after both Go servers were
// told to collect their garbage and give free pages back. The kernel's socket
// buffers aren't in it.
//
// Both cores may be shared with the load generator, so that ratios by the clock
// say less than those per CPU-second; the cores that each kept busy are printed.
//
// # What it doesn't do
//
// CPU seconds of another process are read from /proc, so benches run on Linux
// only. Durable writes cost what the temporary directory's file system makes them
// cost: set TMPDIR to a directory on the disk of interest. Mosquitto 2.0 doesn't
// check subscriptions against its ACL file, only what is published and delivered.
package bench
