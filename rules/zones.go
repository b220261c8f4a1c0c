package rules

import (
	"sync"
	"time"
	_ "time/tzdata" // statements name zones, and the program may stand in a container without any

	"github.com/imprint-iot/imprint"
)

// maxZones is more than there are names of time zones, but one zone may be written in many
// ways.
const maxZones = 1024

// zones remembers the time zones that statements named.
type zones struct {
	mu    sync.RWMutex
	known map[string]*time.Location
}

func (z *zones) location(name string) (*time.Location, error) {
	z.mu.RLock()
	found := z.known[name]
	z.mu.RUnlock()
	if found != nil {
		return found, nil
	}
	if name == "Local" || name == "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%q is no time zone", name)
	}
	found, err := time.LoadLocation(name)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%q is no time zone", imprint.Excerpt(name))
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.known == nil {
		z.known = map[string]*time.Location{}
	}
	if len(z.known) >= maxZones {
		for old := range z.known {
			delete(z.known, old)
			break
		}
	}
	z.known[name] = found
	return found, nil
}
