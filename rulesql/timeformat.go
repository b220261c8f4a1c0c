package rulesql

import (
	"fmt"
	"strconv"
	"time"
)

// parseTime is parse_time(pattern, milliseconds[, zone]): despite its name it formats.
func parseTime(ev *Evaluation, n *callNode, args []value) value {
	fields, ok := ev.timeFields(n, args[0], formatLetters)
	if !ok {
		return undefined()
	}
	milliseconds, ok := ev.toLong(args[1])
	// The years that four digits can say, about.
	const most = 253402300799999
	if !ok || milliseconds > most || milliseconds < -most {
		return undefined()
	}
	location := time.UTC
	if len(args) == 3 {
		name, ok := ev.toString(args[2])
		if !ok {
			return undefined()
		}
		location, ok = ev.zone(n.fn.name, name)
		if !ok {
			return undefined()
		}
	}
	t := time.UnixMilli(milliseconds).In(location)
	out := make([]byte, 0, 4*len(fields))
	for _, f := range fields {
		if !ev.spend(2) {
			return undefined()
		}
		out = f.format(out, t)
		if len(out) > MaxPatternBytes*8 {
			return undefined()
		}
	}
	return stringValue(ev.keep(string(out)))
}

// padNumber writes at least width digits, up to a bound that no use needs.
func padNumber(dst []byte, n, width int) []byte {
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	text := strconv.Itoa(n)
	for i := len(text); i < min(width, 32); i++ {
		dst = append(dst, '0')
	}
	return append(dst, text...)
}

// format writes one field as Joda-Time does in the English locale.
func (f timeField) format(dst []byte, t time.Time) []byte {
	switch f.letter {
	case 0:
		return append(dst, f.literal...)
	case 'G':
		return append(dst, era(t.Year())...)
	case 'E':
		return appendName(dst, t.Weekday().String(), f.count >= 4)
	case 'M':
		if f.count >= 3 {
			return appendName(dst, t.Month().String(), f.count >= 4)
		}
	case 'a':
		if t.Hour() < 12 {
			return append(dst, "AM"...)
		}
		return append(dst, "PM"...)
	case 'S':
		return f.fraction(dst, t)
	case 'z':
		return append(dst, zoneName(t, f.count >= 4)...)
	case 'Z':
		return f.offset(dst, t)
	case 'y', 'Y', 'x':
		return f.year(dst, t)
	}
	return padNumber(dst, f.number(t), f.count)
}

func era(year int) string {
	if year <= 0 {
		return "BC"
	}
	return "AD"
}

func appendName(dst []byte, name string, full bool) []byte {
	if full {
		return append(dst, name...)
	}
	return append(dst, name[:3]...)
}

// number gives a field that prints as a number.
func (f timeField) number(t time.Time) int {
	switch f.letter {
	case 'C':
		return t.Year() / 100
	case 'w':
		_, week := t.ISOWeek()
		return week
	case 'e':
		return (int(t.Weekday())+6)%7 + 1
	case 'D':
		return t.YearDay()
	case 'M':
		return int(t.Month())
	case 'd':
		return t.Day()
	case 'K':
		return t.Hour() % 12
	case 'h':
		return (t.Hour()+11)%12 + 1
	case 'H':
		return t.Hour()
	case 'k':
		return (t.Hour()+23)%24 + 1
	case 'm':
		return t.Minute()
	}
	return t.Second()
}

func (f timeField) year(dst []byte, t time.Time) []byte {
	year := t.Year()
	switch {
	case f.letter == 'x':
		year, _ = t.ISOWeek()
	case f.letter == 'Y' && year <= 0:
		year = 1 - year
	}
	if f.count == 2 {
		return padNumber(dst, (year%100+100)%100, 2)
	}
	return padNumber(dst, year, f.count)
}

// fraction writes so many digits of the second; the instant has three.
func (f timeField) fraction(dst []byte, t time.Time) []byte {
	digits := fmt.Sprintf("%09d", t.Nanosecond())
	for i := range min(f.count, 32) {
		if i < len(digits) {
			dst = append(dst, digits[i])
		} else {
			dst = append(dst, '0')
		}
	}
	return dst
}

func zoneName(t time.Time, full bool) string {
	name, offset := t.Zone()
	if name == "UTC" || name == "" {
		if full {
			return "Coordinated Universal Time"
		}
		return "UTC"
	}
	if c := name[0]; c == '+' || c == '-' {
		return string(appendOffset(nil, offset, true))
	}
	return name
}

// offset is +hhmm, +hh:mm or the zone's name.
func (f timeField) offset(dst []byte, t time.Time) []byte {
	_, offset := t.Zone()
	if f.count >= 3 {
		return append(dst, t.Location().String()...)
	}
	return appendOffset(dst, offset, f.count == 2)
}

func appendOffset(dst []byte, seconds int, colon bool) []byte {
	sign := byte('+')
	if seconds < 0 {
		sign, seconds = '-', -seconds
	}
	dst = padNumber(append(dst, sign), seconds/3600, 2)
	if colon {
		dst = append(dst, ':')
	}
	return padNumber(dst, seconds/60%60, 2)
}
