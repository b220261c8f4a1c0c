package rulesql

import (
	"strings"
	"time"
)

// timeToEpoch is time_to_epoch(text, pattern).
func timeToEpoch(ev *Evaluation, n *callNode, args []value) value {
	text, ok := ev.toString(args[0])
	if !ok || len(text) > MaxPatternBytes {
		return undefined()
	}
	fields, ok := ev.timeFields(n, args[1], parseLetters)
	if !ok || !ev.spend(len(text)) {
		return undefined()
	}
	p := timeReader{ev: ev, function: n.fn.name, rest: text, month: 1, day: 1, pm: -1, half: -1}
	for i, f := range fields {
		if !p.field(f, fields[i+1:]) {
			return undefined()
		}
	}
	if p.rest != "" || !p.hasYear {
		return undefined()
	}
	t, ok := p.instant()
	if !ok {
		return undefined()
	}
	return intValue(t.UnixMilli())
}

// timeReader collects what the fields of a text say.
type timeReader struct {
	ev       *Evaluation
	function string
	rest     string

	hasYear, bc                    bool
	year, month, day, yearDay      int
	hour, minute, second           int
	half, pm                       int // hour of the half day, and 1 for PM; -1 if not said
	nanosecond, nanosecondOfTheDay int64
	location                       *time.Location
}

// field reads one field; next are those behind it.
func (p *timeReader) field(f timeField, next []timeField) bool {
	switch f.letter {
	case 0:
		var ok bool
		p.rest, ok = strings.CutPrefix(p.rest, f.literal)
		return ok
	case 'G':
		switch i := p.choice("AD", "BC", "Anno Domini", "Before Christ"); i {
		case -1:
			return false
		default:
			p.bc = i%2 == 1
		}
		return true
	case 'E':
		return p.choice("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday",
			"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat") >= 0
	case 'a':
		p.pm = p.choice("AM", "PM")
		return p.pm >= 0
	case 'V', 'z':
		return p.zoneName()
	case 'O', 'X', 'x', 'Z':
		return p.offset(f)
	case 'S':
		return p.fraction(f.count)
	case 'M', 'L':
		if f.count >= 3 {
			return p.monthName()
		}
	}
	n, ok := p.number(f, next)
	return ok && p.set(f.letter, f.count, n)
}

// choice takes the first of the words that is there, without regard to case, or gives -1. Longer words
// come first.
func (p *timeReader) choice(words ...string) int {
	for i, w := range words {
		if len(p.rest) >= len(w) && strings.EqualFold(p.rest[:len(w)], w) {
			p.rest = p.rest[len(w):]
			return i
		}
	}
	return -1
}

func (p *timeReader) monthName() bool {
	for m := time.January; m <= time.December; m++ {
		if p.choice(m.String(), m.String()[:3]) >= 0 {
			p.month = int(m)
			return true
		}
	}
	return false
}

// number reads digits: exactly count of them from two on, as many as there are for one, leaving to
// fixed fields right behind it what they need. A year of four letters may have more digits where
// no number follows.
func (p *timeReader) number(f timeField, next []timeField) (int64, bool) {
	least, most := f.count, f.count
	if f.count == 1 || f.letter == 'u' && f.count > 2 || f.letter == 'y' && f.count > 2 {
		most = 9
		if f.letter == 'A' || f.letter == 'n' || f.letter == 'N' {
			most = 15
		}
	}
	n := leadingDigits(p.rest)
	if most > least {
		for _, following := range next {
			if !following.fixed() {
				break
			}
			n -= following.count
		}
		n = min(max(n, least), leadingDigits(p.rest))
	}
	n = min(n, most)
	if n < least || n == 0 {
		return 0, false
	}
	value := smallDigits(p.rest[:n], "")
	p.rest = p.rest[n:]
	return value, true
}

// fixed says that a field is a number of exactly count digits.
func (f timeField) fixed() bool {
	if f.letter == 'S' {
		return true
	}
	return strings.IndexByte("DdHkKhms", f.letter) >= 0 && f.letter != 0 && f.count > 1 ||
		(f.letter == 'M' || f.letter == 'L' || f.letter == 'y' || f.letter == 'u') && f.count == 2
}

func (p *timeReader) set(letter byte, count int, long int64) bool {
	switch letter {
	case 'A':
		p.nanosecondOfTheDay = long * 1e6
		return long < 86_400_000
	case 'N':
		p.nanosecondOfTheDay = long
		return long < 86_400_000_000_000
	case 'n':
		p.nanosecond = long
		return long < 1e9
	}
	n := int(min(long, 1e9))
	switch letter {
	case 'y', 'u':
		p.hasYear, p.year = true, n
		if count == 2 {
			p.year += 2000
		}
		return true
	case 'D':
		p.yearDay = n
		return n >= 1 && n <= 366
	case 'M', 'L':
		p.month = n
		return n >= 1 && n <= 12
	case 'd':
		p.day = n
		return n >= 1 && n <= 31
	case 'H':
		p.hour = n
		return n <= 23
	case 'k':
		p.hour = n % 24
		return n >= 1 && n <= 24
	case 'K':
		p.half = n
		return n <= 11
	case 'h':
		p.half = n % 12
		return n >= 1 && n <= 12
	case 'm':
		p.minute = n
		return n <= 59
	case 's':
		p.second = n
		return n <= 59
	}
	return false
}

func (p *timeReader) fraction(count int) bool {
	if count > 9 || leadingDigits(p.rest) < count {
		return false
	}
	n := smallDigits(p.rest[:count], "")
	for range 9 - count {
		n *= 10
	}
	p.nanosecond = n
	p.rest = p.rest[count:]
	return true
}

// zoneName takes what can be the name of a zone or an offset.
func (p *timeReader) zoneName() bool {
	n := 0
	for n < len(p.rest) && (p.rest[n]|0x20 >= 'a' && p.rest[n]|0x20 <= 'z' || strings.IndexByte("0123456789/_+-:", p.rest[n]) >= 0) {
		n++
	}
	if n == 0 {
		return false
	}
	var ok bool
	p.location, ok = p.ev.zone(p.function, p.rest[:n])
	p.rest = p.rest[n:]
	return ok
}

// offset is +01, +0100 or +01:00; Z where X or ZZZZZ allow it, GMT+1 for O and ZZZZ.
func (p *timeReader) offset(f timeField) bool {
	if (f.letter == 'X' || f.letter == 'Z' && f.count == 5) && p.choice("Z") >= 0 {
		p.location = time.UTC
		return true
	}
	if (f.letter == 'O' || f.letter == 'Z' && f.count == 4) && p.choice("GMT") < 0 {
		return false
	}
	seconds, used, ok := parseOffset(p.rest)
	if !ok {
		if f.letter != 'O' {
			return false
		}
		seconds, used = 0, 0
	}
	p.rest = p.rest[used:]
	p.location = time.FixedZone("", seconds)
	return true
}

// instant puts it together; ok is false for days that don't exist.
func (p *timeReader) instant() (t time.Time, ok bool) {
	if p.bc {
		p.year = 1 - p.year
	}
	if p.year > 9999 || p.year < -9999 {
		return t, false
	}
	if p.half >= 0 {
		if p.pm < 0 {
			return t, false
		}
		p.hour = p.half + 12*p.pm
	}
	if p.location == nil {
		p.location = time.UTC
	}
	if p.yearDay > 0 {
		p.month, p.day = 1, p.yearDay
	}
	t = time.Date(p.year, time.Month(p.month), p.day, p.hour, p.minute, p.second, int(p.nanosecond), p.location)
	if p.nanosecondOfTheDay > 0 {
		t = time.Date(p.year, time.Month(p.month), p.day, 0, 0, 0, 0, p.location).Add(time.Duration(p.nanosecondOfTheDay))
	}
	date := time.Date(p.year, time.Month(p.month), p.day, 0, 0, 0, 0, time.UTC)
	if p.yearDay > 0 {
		return t, date.Year() == p.year
	}
	return t, date.Day() == p.day
}
