// Package renewal puts a device's new certificate in the place of its old one without ever
// leaving the device without one that works.
//
//	renewals, err := renewal.New(ctx, renewal.Options{Store: store, Clock: time.Now, InUse: inUse})
//	issued, err := engine.IssueInto(ctx, ...)    // whose transaction calls renewals.Attach
//	options.Seen = renewals.Saw                  // the broker tells of each CONNACK
//	go renewals.Run(ctx)
//
// What it promises: a renewed certificate is registered ACTIVE, on the same things and
// policies as the one that it renews, in the transaction that makes it a certificate; the
// old one stays ACTIVE until a connection with the new one was let in and a grace time has
// passed after that, and becomes INACTIVE then, never before; a device that connects with
// the old one meanwhile must prove the new one anew, and one that is still connected with
// the old one keeps it; a new certificate that is revoked, deleted, expired or never used
// retires nothing. A kill at any moment leaves a state from which this goes on: what was
// proven and not yet written is proven by the next connection.
//
// Several renewals of one certificate, because answers were lost, are one family with what
// was renewed from them: the certificate that connected last stays, the others are retired.
//
// What it does not do: it issues nothing, and revokes nothing; registrations of the old
// certificate in other accounts stay as they are. Who connects with an old certificate in
// the very moment in which it is retired is disconnected within a second, like anybody
// whose certificate becomes INACTIVE, and has the new one.
package renewal
