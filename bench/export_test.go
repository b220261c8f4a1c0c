package bench

// What the tests look into.
var (
	ParseStat        = parseStat
	PerSecond        = perSecond
	Percentile       = percentile
	Compare          = compare
	ChildEnvironment = childEnvironment
	ReadConnack      = readConnack
)
