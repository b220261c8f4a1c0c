package gateway

import "time"

// HoldTurn takes one of the turns of handshakes; the function gives it back.
func HoldTurn(g *Gateway) (leave func(), err error) {
	t := &turn{turnstile: g.turnstile, deadline: time.Now().Add(time.Minute)}
	err = t.take()
	return t.leave, err
}
