package functions

import (
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
)

// callCost is about what a call takes beside its event.
const callCost = 16 << 10

// room bounds the bytes of the calls that somebody waits for, which are in memory until
// they end: an account has no more of them than it leaves to others.
type room struct {
	most int

	mu       sync.Mutex
	held     int
	accounts map[imprint.AccountID]int
}

func newRoom(most int) *room { return &room{most: most, accounts: map[imprint.AccountID]int{}} }

// take makes room for a call, which give ends. Errors: CodeFunctionThrottled.
func (r *room) take(call imprint.FunctionCall) (give func(), err error) {
	account, bytes := call.Tenant.Account, len(call.Payload)+callCost
	r.mu.Lock()
	defer r.mu.Unlock()
	if !fair.MayTake(r.accounts[account]+bytes, r.most-r.held) {
		return nil, imprint.Errorf(imprint.CodeFunctionThrottled, "the calls of account %s that aren't answered yet have %d bytes, about as many as allowed", account, r.accounts[account]).
			WithHint("Call again with back-off, send smaller events, or let the functions answer more quickly.")
	}
	r.held += bytes
	r.accounts[account] += bytes
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.held -= bytes
		r.accounts[account] -= bytes
		if r.accounts[account] == 0 {
			delete(r.accounts, account)
		}
	}, nil
}
