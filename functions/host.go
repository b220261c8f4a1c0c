package functions

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
)

// functionKey names a function, of all its versions.
type functionKey struct {
	tenant imprint.Tenant
	name   imprint.FunctionName
}

// poolKey names what runs in the processes of one pool: one state of one
// version.
type poolKey struct {
	functionKey
	version, revision string
}

// pool has the processes of one state of one version.
type pool struct {
	key      poolKey
	function imprint.Function
	limit    int // processes of the function, of all its pools
	idle     []*process
	starting int
	// returning counts processes that have answered and will ask for their next
	// event in a moment: for those nobody starts another.
	returning int
	size      int // all processes, the starting and ending ones too
	waiters   []*waiter
	stale     bool // another revision has come: processes end after their run
	// codeDir is the directory of its unpacked code, which it holds so many times.
	codeDir string
	holds   int
}

// waiter is a call that waits for a process.
type waiter struct {
	granted chan grant // of capacity 1; gets one grant
}

// grant is a process that is the caller's until its run is over, or what became
// of the start of one.
type grant struct {
	process *process
	cold    bool
	failed  *outcome
}

// host starts, keeps and ends processes. Its lock guards all pools and the state
// of all processes; nothing waits under it.
type host struct {
	clock imprint.Clock
	opts  Options
	code  *codeStore
	start *starter
	walls isolation

	interpretersMu sync.Mutex
	interpreters   map[string]string // paths by name

	mu     sync.Mutex
	pools  map[poolKey]*pool
	counts map[functionKey]int // processes
	total  int
	// used counts the processes of an account that aren't idle, which nobody can
	// take back; inUse those of all accounts.
	used    map[imprint.AccountID]int
	inUse   int
	waiting int
	closed  bool
	all     map[*process]struct{}

	work     sync.WaitGroup
	stop     chan struct{}
	watching chan struct{} // closed when the memory watch has ended
}

func newHost(clock imprint.Clock, opts Options, code *codeStore) (*host, error) {
	start := newStarter()
	walls, err := newIsolation(opts, start)
	if err != nil {
		start.close()
		return nil, err
	}
	h := &host{
		clock: clock, opts: opts, code: code, start: start, walls: walls,
		pools: map[poolKey]*pool{}, counts: map[functionKey]int{}, all: map[*process]struct{}{}, used: map[imprint.AccountID]int{},
		interpreters: map[string]string{}, stop: make(chan struct{}), watching: make(chan struct{}),
	}
	go h.watchMemory()
	return h, nil
}

// now counts processes and waiting calls.
func (h *host) now() (processes, waiting int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total, h.waiting
}

// close ends every process and waits for its end.
func (h *host) close() {
	h.mu.Lock()
	h.closed = true
	for p := range h.all {
		p.endLocked(endedShutdown)
	}
	for _, p := range h.pools {
		for _, w := range p.waiters {
			w.granted <- grant{failed: &outcome{kind: outcomeUnavailable}}
		}
		h.waiting -= len(p.waiters)
		p.waiters = nil
	}
	h.mu.Unlock()
	close(h.stop)
	h.work.Wait()
	h.start.close()
	<-h.watching
	if h.walls.ids != nil {
		h.walls.ids.release()
	}
}

// acquire gives a process for one run, or what became of its start. Errors:
// CodeFunctionThrottled, CodeFunctionTimeout when the context ends.
func (h *host) acquire(ctx context.Context, found target) (grant, error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return grant{failed: &outcome{kind: outcomeUnavailable}}, nil
	}
	p := h.poolOf(found)
	if p.limit == 0 {
		h.forget(p)
		h.mu.Unlock()
		return grant{}, imprint.Errorf(imprint.CodeFunctionThrottled, "the function's reserved concurrency is 0")
	}
	if len(p.idle) > 0 && len(p.waiters) == 0 && h.mayUse(p) {
		g := h.rouse(p)
		h.mu.Unlock()
		return g, nil
	}
	if len(p.waiters) >= h.opts.MaxWaiting {
		h.mu.Unlock()
		return grant{}, imprint.Errorf(imprint.CodeFunctionThrottled, "%d calls of function %s wait already", h.opts.MaxWaiting, p.key.name)
	}
	w := &waiter{granted: make(chan grant, 1)}
	p.waiters = append(p.waiters, w)
	h.waiting++
	h.schedule(p)
	h.mu.Unlock()
	select {
	case g := <-w.granted:
		return g, nil
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(p.waiters, w); i >= 0 {
		p.waiters = slices.Delete(p.waiters, i, i+1)
		h.waiting--
		h.forget(p)
	} else if g := <-w.granted; g.process != nil {
		g.process.freeLocked(false) // it came at the last moment
	}
	return grant{}, imprint.Errorf(imprint.CodeFunctionTimeout, "no process of function %s was ready in time", p.key.name)
}

// poolOf gives the pool of a version's present state, and lets the processes of
// its earlier states end.
func (h *host) poolOf(found target) *pool {
	key := poolKey{functionKey{found.function.Tenant, found.function.Name}, found.function.Version, found.function.RevisionID}
	limit := h.opts.MaxConcurrency
	if found.limit >= 0 {
		limit = min(limit, found.limit)
	}
	p := h.pools[key]
	if p == nil {
		p = &pool{key: key, function: found.function}
		h.pools[key] = p
		for other, old := range h.pools {
			if other.functionKey == key.functionKey && other.version == key.version && old != p {
				h.retire(old)
			}
		}
	}
	p.limit = limit
	return p
}

// retire ends a pool's idle processes; others end after their run.
func (h *host) retire(p *pool) {
	p.stale = true
	for _, process := range slices.Clone(p.idle) {
		process.endLocked(endedIdle)
	}
	h.forget(p)
}

// retireAll ends the processes of a function, or of one of its versions, that was
// deleted.
func (h *host) retireAll(key functionKey, version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.pools {
		if p.key.functionKey == key && (version == "" || p.key.version == version) {
			h.retire(p)
		}
	}
}

// forget drops a pool with nothing in it.
func (h *host) forget(p *pool) {
	if p.size == 0 && len(p.waiters) == 0 && h.pools[p.key] == p {
		delete(h.pools, p.key)
	}
}

// mayUse says whether the account of a pool may use one process more: it never has
// more in use than it leaves to others. What is idle is left to others, as it can
// make room.
func (h *host) mayUse(p *pool) bool {
	return fair.MayTake(h.used[p.key.tenant.Account], h.opts.MaxProcesses-h.inUse)
}

// waitForShare counts the functions whose calls wait for a process only
// because the account has as many in use as it may.
func (h *host) waitForShare() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := map[functionKey]struct{}{}
	for _, p := range h.pools {
		key := p.key.functionKey
		if len(p.waiters) == 0 || h.mayUse(p) || len(p.idle) == 0 && h.counts[key] >= p.limit {
			continue
		}
		found[key] = struct{}{}
	}
	return len(found)
}

// use counts a process as in use, unuse as no longer so.
func (h *host) use(p *pool) {
	h.used[p.key.tenant.Account]++
	h.inUse++
}

func (h *host) unuse(p *pool) {
	account := p.key.tenant.Account
	h.used[account]--
	if h.used[account] == 0 {
		delete(h.used, account)
	}
	h.inUse--
}

// rouse grants the process of a pool that became idle last.
func (h *host) rouse(p *pool) grant {
	process := p.idle[len(p.idle)-1]
	h.leaveIdle(process)
	process.state = stateBusy
	return grant{process: process}
}

// leaveIdle takes a process from the idle ones, if it is one.
func (h *host) leaveIdle(process *process) {
	p := process.pool
	if i := slices.Index(p.idle, process); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
		h.use(p)
	}
}

// schedule finds processes for those who wait, or starts them, as far as the
// limits allow.
func (h *host) schedule(p *pool) {
	for len(p.waiters) > 0 && len(p.idle) > 0 && h.mayUse(p) {
		h.grant(p, h.rouse(p))
	}
	for len(p.waiters) > p.starting+p.returning && h.counts[p.key.functionKey] < p.limit && !h.closed && h.mayUse(p) {
		if h.total >= h.opts.MaxProcesses {
			// An idle process of another pool makes room when it has ended.
			h.evict()
			return
		}
		p.starting++
		p.size++
		h.use(p)
		h.total++
		h.counts[p.key.functionKey]++
		h.work.Go(func() { h.run(p) })
	}
}

// scheduleAll looks after everybody who waits, when something came free.
func (h *host) scheduleAll() {
	for _, p := range h.pools {
		h.schedule(p)
	}
}

// grant gives something to who waits for longest.
func (h *host) grant(p *pool, g grant) {
	p.waiters[0].granted <- g
	p.waiters = p.waiters[1:]
	h.waiting--
}

// evict ends an idle process of the account that has most processes, and of those
// the one that is idle for longest: who runs much doesn't cost others their warm
// functions.
func (h *host) evict() {
	held := map[imprint.AccountID]int{}
	for _, p := range h.pools {
		held[p.key.tenant.Account] += p.size
	}
	var oldest *process
	most := 0
	for _, p := range h.pools {
		n := held[p.key.tenant.Account]
		for _, process := range p.idle {
			if n > most || n == most && process.idleSince.Before(oldest.idleSince) {
				oldest, most = process, n
			}
		}
	}
	if oldest != nil {
		oldest.endLocked(endedIdle)
	}
}

// offer gives a process that is ready to who waits for longest, or keeps it
// warm: also when its account has more in use than it may by now, as others want
// some, too.
func (h *host) offer(process *process, cold bool) {
	p := process.pool
	h.unuse(p)
	switch {
	case len(p.waiters) > 0 && h.mayUse(p):
		h.use(p)
		process.state = stateBusy
		h.grant(p, grant{process: process, cold: cold})
		return
	case p.stale || h.closed:
		h.use(p) // until it has ended
		process.endLocked(endedIdle)
		return
	}
	process.state = stateIdle
	process.idleSince = h.clock()
	process.idleTimer.Reset(h.opts.Idle)
	p.idle = append(p.idle, process)
	if h.waiting > 0 {
		h.scheduleAll()
	}
}

// run is the life of one process, from its start to its end.
func (h *host) run(p *pool) {
	process, failed := h.launch(p)
	if process != nil {
		failed = process.wait()
	}
	h.mu.Lock()
	if failed != nil {
		// It ended before it was ready: who waits for longest hears of it.
		p.starting--
		if len(p.waiters) > 0 {
			h.grant(p, grant{failed: failed, cold: true})
		}
	}
	if process != nil {
		delete(h.all, process)
	}
	p.size--
	h.unuse(p)
	h.total--
	h.counts[p.key.functionKey]--
	if h.counts[p.key.functionKey] == 0 {
		delete(h.counts, p.key.functionKey)
	}
	h.scheduleAll()
	h.forget(p)
	// What is unpacked is bounded as processes are: without one, not even a pool whose
	// calls wait keeps its code. At the end of the server all of it is removed.
	holds := 0
	if p.size == 0 && !h.closed {
		holds, p.holds = p.holds, 0
	}
	dir := p.codeDir
	h.mu.Unlock()
	if holds == 0 {
		return
	}
	err := h.code.leave(dir, holds)
	if err != nil {
		h.opts.Logger.Warn("couldn't remove the code of a function that doesn't run any more", "function", p.function.ARN(), "error", err)
	}
}

// memoryInterval is how often the memory of processes is looked at.
const memoryInterval = 100 * time.Millisecond

// watchMemory ends processes that hold more memory than their function may. A
// limit of address space would be simpler, but the runtimes of Go, Node and
// Python reserve far more than they use.
func (h *host) watchMemory() {
	defer close(h.watching)
	ticker := time.NewTicker(memoryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-ticker.C:
		}
		h.mu.Lock()
		list := make([]*process, 0, len(h.all))
		for p := range h.all {
			list = append(list, p)
		}
		h.mu.Unlock()
		for _, p := range list {
			p.checkMemory()
		}
	}
}
