package rulesql

import (
	"math/big"
	"strconv"
	"strings"
)

// number reads a number as the evaluation's version has it; Undefined if text isn't one.
func (ev *Evaluation) number(text string) value { return parseNumber(text, ev.version) }

// parseNumber reads "-?digits[.digits][E[+-]digits]" (developer guide, "Conversions"; JSON
// allows the plus as well). Everything else is Undefined.
func parseNumber(text string, v Version) value {
	rest, negative := strings.CutPrefix(text, "-")
	whole := leadingDigits(rest)
	if whole == 0 {
		return undefined()
	}
	digits, fraction := rest[:whole], ""
	rest = rest[whole:]
	k := kindInt
	if strings.HasPrefix(rest, ".") {
		n := leadingDigits(rest[1:])
		if n == 0 {
			return undefined()
		}
		k, fraction, rest = kindDecimal, rest[1:1+n], rest[1+n:]
	}
	exp := -len(fraction)
	if rest != "" {
		shift, ok := exponent(rest)
		if !ok {
			return undefined()
		}
		k, exp = kindDecimal, exp+shift
	}
	if len(digits)+len(fraction) <= 18 {
		coef := smallDigits(digits, fraction)
		if negative {
			coef = -coef
		}
		return smallNumber(k, coef, exp, v)
	}
	coef, ok := new(big.Int).SetString(digits+fraction, 10)
	if !ok {
		return undefined()
	}
	if negative {
		coef.Neg(coef)
	}
	return makeNumber(k, coef, exp, v)
}

func smallDigits(digits, fraction string) int64 {
	coef := int64(0)
	for i := range len(digits) {
		coef = coef*10 + int64(digits[i]-'0')
	}
	for i := range len(fraction) {
		coef = coef*10 + int64(fraction[i]-'0')
	}
	return coef
}

func leadingDigits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// exponent reads "E-12" up to the end.
func exponent(s string) (int, bool) {
	if s[0] != 'e' && s[0] != 'E' {
		return 0, false
	}
	digits := strings.TrimPrefix(s[1:], "+")
	unsigned := strings.TrimPrefix(digits, "-")
	if unsigned == "" || leadingDigits(unsigned) != len(unsigned) || len(digits) < len(s)-1 && digits != unsigned {
		return 0, false
	}
	// What is out of range in any case is cut, so that sums stay small.
	if trimmed := strings.TrimLeft(unsigned, "0"); len(trimmed) > 7 {
		unsigned = "9999999"
	}
	n, err := strconv.Atoi(unsigned)
	if err != nil {
		return 0, false
	}
	if digits != unsigned && strings.HasPrefix(digits, "-") {
		n = -n
	}
	return n, true
}

// appendNumber writes an Int in standard notation and a Decimal as Java's BigDecimal does:
// with an exponent when it has no digit left of its last place, or more than six zeros
// behind the point.
func appendNumber(dst []byte, n value) []byte {
	if n.exp == 0 && n.ref == nil {
		return strconv.AppendInt(dst, n.small, 10)
	}
	coef := bigOf(n)
	if n.exp == 0 {
		return coef.Append(dst, 10)
	}
	var buf [48]byte
	var digits []byte
	if n.ref == nil {
		digits = strconv.AppendInt(buf[:0], n.small, 10)
	} else {
		digits = coef.Append(buf[:0], 10)
	}
	if digits[0] == '-' {
		dst = append(dst, '-')
		digits = digits[1:]
	}
	magnitude := int(n.exp) + len(digits) - 1
	if n.exp < 0 && magnitude >= -6 {
		point := len(digits) + int(n.exp)
		if point > 0 {
			dst = append(append(dst, digits[:point]...), '.')
			return append(dst, digits[point:]...)
		}
		dst = append(dst, '0', '.')
		for ; point < 0; point++ {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	dst = append(dst, digits[0])
	if len(digits) > 1 {
		dst = append(append(dst, '.'), digits[1:]...)
	}
	if magnitude == 0 {
		return dst
	}
	dst = append(dst, 'E')
	if magnitude > 0 {
		dst = append(dst, '+')
	}
	return strconv.AppendInt(dst, int64(magnitude), 10)
}
