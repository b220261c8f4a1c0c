package rulesql

import (
	"math"
	"math/big"
	"math/bits"
	"strconv"
)

// Numbers have 34 significant digits, rounded half to even, and a magnitude of 1E-999 to
// 9.99...E999 (developer guide, "Data types"): what is larger is Undefined, what is smaller is 0.
const (
	maxDigits   = 34
	maxExponent = 999
)

var powersOfTen = [...]int64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18}

func bigPower(n int) *big.Int {
	if n < len(powersOfTen) {
		return big.NewInt(powersOfTen[n])
	}
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// digitsOf counts the decimal digits of a coefficient; 0 has one.
func digitsOf(v value) int {
	if v.ref == nil {
		if v.small == math.MinInt64 {
			return 19
		}
		n, d := v.small, 1
		if n < 0 {
			n = -n
		}
		for n >= 10 {
			n /= 10
			d++
		}
		return d
	}
	n := bigOf(v)
	d := int(float64(n.BitLen()-1)*math.Log10(2)) + 1
	if n.CmpAbs(bigPower(d)) >= 0 {
		d++
	}
	return d
}

func signOf(v value) int {
	if n, ok := v.ref.(*big.Int); ok {
		return n.Sign()
	}
	switch {
	case v.small < 0:
		return -1
	case v.small > 0:
		return 1
	}
	return 0
}

// makeNumber gives coef x 10^exp as a value of kind Int or Decimal: rounded, within range, and a
// whole Decimal as an Int after the first version. It takes coef over.
func makeNumber(k kind, coef *big.Int, exp int, v Version) value {
	if coef.IsInt64() {
		return smallNumber(k, coef.Int64(), exp, v)
	}
	n := value{kind: k, ref: coef}
	if d := digitsOf(n); d > maxDigits {
		return makeNumber(kindDecimal, roundedQuotient(coef, d-maxDigits), exp+d-maxDigits, v)
	}
	return rangeNumber(n, exp, v)
}

func smallNumber(k kind, coef int64, exp int, v Version) value {
	return rangeNumber(value{kind: k, small: coef}, exp, v)
}

// roundedQuotient gives coef / 10^drop, rounded half to even.
func roundedQuotient(coef *big.Int, drop int) *big.Int {
	divisor := bigPower(drop)
	quotient, rest := new(big.Int).QuoRem(coef, divisor, new(big.Int))
	rest.Abs(rest).Lsh(rest, 1)
	half := rest.Cmp(divisor)
	if half > 0 || half == 0 && quotient.Bit(0) == 1 {
		quotient.Add(quotient, big.NewInt(int64(coef.Sign())))
	}
	return quotient
}

func rangeNumber(n value, exp int, v Version) value {
	if signOf(n) == 0 {
		if n.kind == kindDecimal && !v.first() {
			return intValue(0)
		}
		n.exp = int32(min(max(exp, -maxExponent), maxExponent))
		return n
	}
	magnitude := exp + digitsOf(n) - 1
	if magnitude > maxExponent {
		return undefined()
	}
	if magnitude < -maxExponent {
		return smallNumber(n.kind, 0, 0, v)
	}
	n.exp = int32(exp)
	if n.kind == kindDecimal && !v.first() {
		return wholeToInt(n)
	}
	return n
}

// wholeToInt makes an Int of a Decimal without a fraction, if it has no more than 34 digits.
func wholeToInt(n value) value {
	switch {
	case n.exp == 0:
		n.kind = kindInt
		return n
	case n.exp > 0:
		if digitsOf(n)+int(n.exp) > maxDigits {
			return n
		}
		coef := new(big.Int).Mul(bigOf(n), bigPower(int(n.exp)))
		return normalInt(coef)
	case int(-n.exp) >= digitsOf(n):
		return n // its magnitude is below 1
	case n.ref == nil && int(-n.exp) < len(powersOfTen):
		power := powersOfTen[-n.exp]
		if n.small%power != 0 {
			return n
		}
		return intValue(n.small / power)
	}
	quotient, rest := new(big.Int).QuoRem(bigOf(n), bigPower(int(-n.exp)), new(big.Int))
	if rest.Sign() != 0 {
		return n
	}
	return normalInt(quotient)
}

func normalInt(n *big.Int) value {
	if n.IsInt64() {
		return intValue(n.Int64())
	}
	return value{kind: kindInt, ref: n}
}

// floatNumber is what a function of double precision gives; NaN and infinities are Undefined.
func floatNumber(f float64, v Version) value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return undefined()
	}
	n := parseNumber(strconv.FormatFloat(f, 'e', -1, 64), v)
	// Where whole Decimals aren't Ints, a double prints with a fraction: 3.0, 1.0E+10.
	if !v.first() || n.exp < 0 {
		return n
	}
	if magnitudeOf(n) < 7 {
		for ; n.exp >= 0; n.exp-- {
			n.small *= 10
		}
		return n
	}
	if digitsOf(n) == 1 {
		n.small *= 10
		n.exp--
	}
	return n
}

// toFloat rounds to double precision.
func toFloat(n value) float64 {
	if n.ref == nil && n.exp == 0 {
		return float64(n.small)
	}
	f, err := strconv.ParseFloat(string(appendNumber(nil, n)), 64)
	if err != nil && !math.IsInf(f, 0) {
		return math.NaN()
	}
	return f
}

// compareNumbers gives -1, 0 or 1.
func compareNumbers(a, b value) int {
	if a.exp == b.exp && a.ref == nil && b.ref == nil {
		switch {
		case a.small < b.small:
			return -1
		case a.small > b.small:
			return 1
		}
		return 0
	}
	if x, y := signOf(a), signOf(b); x != y || x == 0 {
		return min(max(x-y, -1), 1)
	}
	// Different magnitudes need no arithmetic; equal ones differ in exponent by less than 34+34.
	if x, y := magnitudeOf(a), magnitudeOf(b); x != y {
		if x < y {
			return -signOf(a)
		}
		return signOf(a)
	}
	x, y := bigOf(a), bigOf(b)
	if a.exp > b.exp {
		x = new(big.Int).Mul(x, bigPower(int(a.exp-b.exp)))
	} else {
		y = new(big.Int).Mul(y, bigPower(int(b.exp-a.exp)))
	}
	return x.Cmp(y)
}

func magnitudeOf(n value) int { return int(n.exp) + digitsOf(n) - 1 }

func kindOfResult(a, b value) kind {
	if a.kind == kindInt && b.kind == kindInt {
		return kindInt
	}
	return kindDecimal
}

// addNumbers adds, or subtracts when negate.
func addNumbers(a, b value, negate bool, v Version) value {
	if a.exp == b.exp && a.ref == nil && b.ref == nil && b.small != math.MinInt64 {
		y := b.small
		if negate {
			y = -y
		}
		sum := a.small + y
		if (sum > a.small) == (y > 0) {
			return smallNumber(kindOfResult(a, b), sum, int(a.exp), v)
		}
	}
	x, y := bigOf(a), bigOf(b)
	if negate {
		y = new(big.Int).Neg(y)
	}
	exp := min(a.exp, b.exp)
	// A term of no influence on 34 digits isn't shifted over two thousand places.
	if gap := int(a.exp) - int(b.exp); gap > 2*maxDigits+1 && x.Sign() != 0 {
		y, exp = big.NewInt(int64(y.Sign())), a.exp-2*maxDigits
	} else if -gap > 2*maxDigits+1 && y.Sign() != 0 {
		x, exp = big.NewInt(int64(x.Sign())), b.exp-2*maxDigits
	} else {
		x, y = shiftTo(x, a.exp, exp), shiftTo(y, b.exp, exp)
		return makeNumber(kindOfResult(a, b), new(big.Int).Add(x, y), int(exp), v)
	}
	if a.exp > b.exp {
		x = shiftTo(x, a.exp, exp)
	} else {
		y = shiftTo(y, b.exp, exp)
	}
	return makeNumber(kindOfResult(a, b), new(big.Int).Add(x, y), int(exp), v)
}

func shiftTo(coef *big.Int, from, to int32) *big.Int {
	if from == to {
		return coef
	}
	return new(big.Int).Mul(coef, bigPower(int(from-to)))
}

func multiplyNumbers(a, b value, v Version) value {
	k, exp := kindOfResult(a, b), int(a.exp)+int(b.exp)
	if a.ref == nil && b.ref == nil && fitsProduct(a.small, b.small) {
		return smallNumber(k, a.small*b.small, exp, v)
	}
	return makeNumber(k, new(big.Int).Mul(bigOf(a), bigOf(b)), exp, v)
}

func fitsProduct(a, b int64) bool {
	return bits.Len64(uint64(max(a, -a)))+bits.Len64(uint64(max(b, -b))) < 63 && a != math.MinInt64 && b != math.MinInt64
}

// divideNumbers divides; Ints give an Int, cut towards zero. By zero: Undefined.
func divideNumbers(a, b value, v Version) value {
	if signOf(b) == 0 {
		return undefined()
	}
	if a.kind == kindInt && b.kind == kindInt {
		if a.ref == nil && b.ref == nil && b.small != -1 {
			return intValue(a.small / b.small)
		}
		return normalInt(new(big.Int).Quo(bigOf(a), bigOf(b)))
	}
	// Enough places that the quotient has at least 34 digits and one to round by; what remains
	// only matters as being there.
	shift := max(maxDigits+2+digitsOf(b)-digitsOf(a), 0)
	quotient, rest := new(big.Int).QuoRem(new(big.Int).Mul(bigOf(a), bigPower(shift)), bigOf(b), new(big.Int))
	exp, preferred := int(a.exp)-int(b.exp)-shift, int(a.exp)-int(b.exp)
	if rest.Sign() != 0 {
		sticky := int64(signOf(a) * signOf(b))
		quotient.Mul(quotient, big.NewInt(10)).Add(quotient, big.NewInt(sticky))
		return makeNumber(kindDecimal, quotient, exp-1, v)
	}
	return makeNumber(kindDecimal, stripZeros(quotient, &exp, preferred), exp, v)
}

// stripZeros takes trailing zeros off coef until its exponent is limit.
func stripZeros(coef *big.Int, exp *int, limit int) *big.Int {
	ten, rest := big.NewInt(10), new(big.Int)
	for *exp < limit && coef.Sign() != 0 {
		quotient, remainder := new(big.Int).QuoRem(coef, ten, rest)
		if remainder.Sign() != 0 {
			break
		}
		coef = quotient
		*exp++
	}
	if coef.Sign() == 0 {
		*exp = limit
	}
	return coef
}

// remainderOf has the sign of a. By zero: Undefined. A quotient of more than 34 digits gives
// Undefined, too.
func remainderOf(a, b value, v Version) value {
	if signOf(b) == 0 {
		return undefined()
	}
	k := kindOfResult(a, b)
	if a.exp == b.exp && a.ref == nil && b.ref == nil && b.small != -1 {
		return smallNumber(k, a.small%b.small, int(a.exp), v)
	}
	if magnitudeOf(a)-magnitudeOf(b) > maxDigits || int(b.exp)-int(a.exp) > 4*maxDigits {
		if magnitudeOf(a) < magnitudeOf(b) {
			return a
		}
		return undefined()
	}
	exp := min(a.exp, b.exp)
	x, y := shiftTo(bigOf(a), a.exp, exp), shiftTo(bigOf(b), b.exp, exp)
	return makeNumber(k, new(big.Int).Rem(x, y), int(exp), v)
}
