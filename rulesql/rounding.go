package rulesql

import "math/big"

// floorNumber rounds down to an Int. A Decimal too large for an Int stays as it is.
func floorNumber(n value) value {
	quotient, rest, ok := splitNumber(n)
	if !ok {
		return n
	}
	if rest < 0 {
		quotient.Sub(quotient, big.NewInt(1))
	}
	return normalInt(quotient)
}

// ceilNumber rounds up to an Int.
func ceilNumber(n value) value {
	quotient, rest, ok := splitNumber(n)
	if !ok {
		return n
	}
	if rest > 0 {
		quotient.Add(quotient, big.NewInt(1))
	}
	return normalInt(quotient)
}

// truncNumber cuts towards zero to an Int.
func truncNumber(n value) value {
	quotient, _, ok := splitNumber(n)
	if !ok {
		return n
	}
	return normalInt(quotient)
}

// roundNumber rounds to the nearest Int, halves away from zero.
func roundNumber(n value) value {
	if n.exp >= 0 {
		return truncNumber(n)
	}
	if int(-n.exp) > digitsOf(n)+1 {
		return intValue(0)
	}
	sign := int64(signOf(n))
	// 2n + sign, cut, halved: no half is lost.
	twice := new(big.Int).Add(new(big.Int).Lsh(bigOf(n), 1), new(big.Int).Mul(big.NewInt(sign), bigPower(int(-n.exp))))
	return normalInt(twice.Quo(twice, new(big.Int).Lsh(bigPower(int(-n.exp)), 1)))
}

// splitNumber cuts a number towards zero; rest is the sign of what was cut off. ok is false when
// the whole part has more than 34 digits.
func splitNumber(n value) (whole *big.Int, rest int, ok bool) {
	if n.exp >= 0 {
		if digitsOf(n)+int(n.exp) > maxDigits && signOf(n) != 0 {
			return nil, 0, false
		}
		return new(big.Int).Mul(bigOf(n), bigPower(int(n.exp))), 0, true
	}
	if int(-n.exp) > digitsOf(n)+1 {
		return new(big.Int), signOf(n), true
	}
	quotient, remainder := new(big.Int).QuoRem(bigOf(n), bigPower(int(-n.exp)), new(big.Int))
	return quotient, remainder.Sign(), true
}

// cutPlaces cuts to so many decimal places and strips zeros behind the point.
func cutPlaces(n value, places int, v Version) value {
	if n.exp >= 0 {
		return n
	}
	coef, exp := bigOf(n), int(n.exp)
	if drop := -exp - places; drop > digitsOf(n) {
		return intValue(0)
	} else if drop > 0 {
		coef, exp = new(big.Int).Quo(coef, bigPower(drop)), -places
	}
	coef = stripZeros(coef, &exp, 0)
	k := n.kind
	if exp == 0 {
		k = kindInt
	}
	return makeNumber(k, new(big.Int).Set(coef), exp, v)
}
