package trace

// MaxApart is how many devices of one entry are told apart.
const MaxApart = maxApart
