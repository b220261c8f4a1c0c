package rulesql

import (
	"encoding/binary"
	"io"
	"math"
	"math/big"
)

// numberFunctions take numbers and texts that say numbers; everything else makes them Undefined.
var numberFunctions = []function{
	{name: "abs", least: 1, most: 1, call: onNumber(absolute)},
	{name: "ceil", least: 1, most: 1, call: rounded(ceilNumber)},
	{name: "floor", least: 1, most: 1, call: rounded(floorNumber)},
	{name: "round", least: 1, most: 1, call: rounded(roundNumber)},
	{name: "trunc", least: 1, most: 2, call: truncate},
	{name: "sign", least: 1, most: 1, call: rounded(func(n value) value { return intValue(int64(signOf(n))) })},
	{name: "mod", least: 2, most: 2, call: onTwoNumbers(remainderOf)},
	{name: "remainder", least: 2, most: 2, call: onTwoNumbers(remainderOf)},
	{name: "bitand", least: 2, most: 2, call: onBits((*big.Int).And)},
	{name: "bitor", least: 2, most: 2, call: onBits((*big.Int).Or)},
	{name: "bitxor", least: 2, most: 2, call: onBits((*big.Int).Xor)},
	{name: "bitnot", least: 1, most: 1, call: bitNot},
	{name: "sqrt", least: 1, most: 1, call: onDouble(math.Sqrt)},
	{name: "exp", least: 1, most: 1, call: onDouble(math.Exp)},
	{name: "ln", least: 1, most: 1, call: onDouble(math.Log)},
	{name: "log", least: 1, most: 1, call: onDouble(math.Log10)},
	{name: "power", least: 2, most: 2, call: onTwoDoubles(math.Pow)},
	{name: "sin", least: 1, most: 1, call: onDouble(math.Sin)},
	{name: "cos", least: 1, most: 1, call: onDouble(math.Cos)},
	{name: "tan", least: 1, most: 1, call: onDouble(math.Tan)},
	{name: "sinh", least: 1, most: 1, call: onDouble(math.Sinh)},
	{name: "cosh", least: 1, most: 1, call: onDouble(math.Cosh)},
	{name: "tanh", least: 1, most: 1, call: onDouble(math.Tanh)},
	{name: "asin", least: 1, most: 1, call: onDouble(math.Asin)},
	{name: "acos", least: 1, most: 1, call: onDouble(math.Acos)},
	{name: "atan", least: 1, most: 1, call: onDouble(math.Atan)},
	{name: "atan2", least: 2, most: 2, call: onTwoDoubles(math.Atan2)},
	{name: "rand", least: 0, most: 0, call: random},
}

func onNumber(change func(value, Version) value) callFunction {
	return func(ev *Evaluation, _ *callNode, args []value) value {
		n, ok := ev.toNumber(args[0])
		if !ok || !ev.spend(longNumber) {
			return undefined()
		}
		return change(n, ev.version)
	}
}

func rounded(round func(value) value) callFunction {
	return onNumber(func(n value, _ Version) value { return round(n) })
}

func onTwoNumbers(compute func(a, b value, v Version) value) callFunction {
	return func(ev *Evaluation, _ *callNode, args []value) value {
		return ev.twoNumbers(args, compute)
	}
}

func (ev *Evaluation) twoNumbers(args []value, compute func(a, b value, v Version) value) value {
	a, ok := ev.toNumber(args[0])
	if !ok {
		return undefined()
	}
	b, ok := ev.toNumber(args[1])
	if !ok || !ev.spend(longNumber) {
		return undefined()
	}
	return compute(a, b, ev.version)
}

func absolute(n value, v Version) value {
	if signOf(n) < 0 {
		return negated(n, v)
	}
	return n
}

func truncate(ev *Evaluation, _ *callNode, args []value) value {
	n, ok := ev.toNumber(args[0])
	if !ok {
		return undefined()
	}
	places := 0
	if len(args) == 2 {
		places, ok = ev.toInt(args[1])
		if !ok {
			return undefined()
		}
	}
	return cutPlaces(n, min(max(places, 0), maxDigits), ev.version)
}

// bits gives a number rounded down, as the bits of its two's complement.
func (ev *Evaluation) bits(v value) (*big.Int, bool) {
	n, ok := ev.toNumber(v)
	if !ok {
		return nil, false
	}
	n = floorNumber(n)
	if n.kind != kindInt {
		return nil, false
	}
	return bigOf(n), true
}

func onBits(combine func(z, x, y *big.Int) *big.Int) callFunction {
	return func(ev *Evaluation, _ *callNode, args []value) value {
		x, ok := ev.bits(args[0])
		if !ok {
			return undefined()
		}
		y, ok := ev.bits(args[1])
		if !ok {
			return undefined()
		}
		return makeNumber(kindInt, combine(new(big.Int), x, y), 0, ev.version)
	}
}

// bitNot turns the bits up to the highest one that is set: the developer guide's example is
// bitnot(13) = 2. Of a negative number it is the two's complement's.
func bitNot(ev *Evaluation, _ *callNode, args []value) value {
	x, ok := ev.bits(args[0])
	if !ok {
		return undefined()
	}
	if x.Sign() < 0 {
		return makeNumber(kindInt, new(big.Int).Not(x), 0, ev.version)
	}
	mask := new(big.Int).Lsh(big.NewInt(1), uint(x.BitLen()))
	mask.Sub(mask, big.NewInt(1))
	return makeNumber(kindInt, mask.Xor(mask, x), 0, ev.version)
}

func onDouble(compute func(float64) float64) callFunction {
	return onNumber(func(n value, v Version) value { return floatNumber(compute(toFloat(n)), v) })
}

func onTwoDoubles(compute func(a, b float64) float64) callFunction {
	return onTwoNumbers(func(a, b value, v Version) value {
		return floatNumber(compute(toFloat(a), toFloat(b)), v)
	})
}

// random reads random bytes from the outside.
func (ev *Evaluation) random(function string, b []byte) bool {
	if ev.outside.Random == nil {
		ev.problem(function, nil, "no source of randomness is given here")
		return false
	}
	_, err := io.ReadFull(ev.outside.Random, b)
	if err != nil {
		ev.problem(function, err, "couldn't read random bytes")
		return false
	}
	return true
}

// random is uniform in [0, 1), with 53 bits.
func random(ev *Evaluation, _ *callNode, _ []value) value {
	var b [8]byte
	if !ev.random("rand", b[:]) {
		return undefined()
	}
	return floatNumber(float64(binary.BigEndian.Uint64(b[:])>>11)/(1<<53), ev.version)
}
