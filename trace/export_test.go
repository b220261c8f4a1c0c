package trace

// MaxApart is how many devices of one entry are told apart.
const MaxApart = maxApart

// HandOver has all recorders hand over what they have, as happens every second.
func (l *Log) HandOver() { l.handOver() }

// HandOverLate is one of the rounds in which that happens.
func (l *Log) HandOverLate() { l.handOverLate() }
