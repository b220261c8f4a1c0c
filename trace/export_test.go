package trace

// MaxApart is how many devices of one entry are told apart.
const MaxApart = maxApart

// HandOver has all recorders hand over what they have, as happens every second.
func (l *Log) HandOver() { l.handOver() }

// HandOverLate is one of the rounds in which that happens.
func (l *Log) HandOverLate() { l.handOverLate() }

// Past is how many attempts that are over are remembered.
func (l *Log) Past() int {
	l.past.mu.Lock()
	defer l.past.mu.Unlock()
	return len(l.past.young) + len(l.past.old)
}
