package trace

// MaxFolds is how many failures are remembered.
const MaxFolds = maxFolds
