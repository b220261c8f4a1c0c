package ca

import "sync"

// locks lets one at a time work under a name. The zero value is ready.
type locks struct {
	mu   sync.Mutex
	held map[string]*heldLock
}

type heldLock struct {
	mu    sync.Mutex
	users int // who holds it and who waits
}

// hold waits for a name and gives what lets it go.
func (l *locks) hold(name string) (release func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*heldLock{}
	}
	one := l.held[name]
	if one == nil {
		one = &heldLock{}
		l.held[name] = one
	}
	one.users++
	l.mu.Unlock()
	one.mu.Lock()
	return func() {
		one.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		one.users--
		if one.users == 0 {
			delete(l.held, name)
		}
	}
}
