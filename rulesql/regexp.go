package rulesql

import (
	"io"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// pattern is a compiled regular expression with an estimate of its size, which times the length
// of a text bounds the work of a search: the matching never backtracks.
type pattern struct {
	re   *regexp.Regexp
	cost int
	// looksBack says that whether it matches somewhere depends on what is before that place.
	looksBack bool
	// anchored says that it can match at the start of a text alone.
	anchored bool
}

// compilePattern compiles a Java pattern. The problem says what is wrong with it, the hint what to
// do; both are for people.
func compilePattern(java string) (p *pattern, problem, hint string) {
	if len(java) > MaxPatternBytes {
		return nil, "the regular expression is too long", "at most 2048 bytes"
	}
	text, problem := translatePattern(java)
	if problem != "" {
		return nil, problem, "patterns are matched in time proportional to the text, which rules this out"
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, "'" + excerpt(java) + "' is no regular expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "), ""
	}
	cost := patternCost(parsed)
	if cost > maxPatternCost {
		return nil, "the regular expression is too large when its repetitions are written out", "use smaller counts in {n,m}"
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, "'" + excerpt(java) + "' is no regular expression", ""
	}
	return &pattern{re, cost, looksBack(parsed), anchored(parsed)}, "", ""
}

// patternCost estimates the instructions of the compiled pattern.
func patternCost(re *syntax.Regexp) int {
	cost := 1 + len(re.Rune)/2
	for _, sub := range re.Sub {
		cost += patternCost(sub)
		if cost > maxPatternCost {
			return cost
		}
	}
	if re.Op == syntax.OpRepeat {
		cost *= max(re.Min, re.Max, 1)
	}
	return cost
}

func looksBack(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpBeginLine, syntax.OpBeginText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return true
	}
	return slices.ContainsFunc(re.Sub, looksBack)
}

func anchored(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpBeginText:
		return true
	case syntax.OpConcat, syntax.OpCapture:
		return len(re.Sub) > 0 && anchored(re.Sub[0])
	}
	return false
}

// preparePattern compiles a constant pattern, which is wrong for good if it is wrong.
func preparePattern(args []node) (prepared any, problem, hint string) {
	java, ok := literalText(args, 1)
	if !ok {
		return nil, "", ""
	}
	p, problem, hint := compilePattern(java)
	if problem != "" {
		return nil, problem, hint
	}
	return p, "", ""
}

// patternFor gives the text and the pattern of a call's first two arguments.
func (ev *Evaluation) patternFor(n *callNode, args []value) (string, *pattern, bool) {
	s, ok := ev.toString(args[0])
	if !ok {
		return "", nil, false
	}
	p, ok := n.prepared.(*pattern)
	if !ok {
		java, ok := ev.toString(args[1])
		// Compiling takes as long as many other steps, whether it succeeds or not.
		if !ok || !ev.spend(100+min(len(java), MaxPatternBytes)) {
			return "", nil, false
		}
		compiled, problem, _ := compilePattern(java)
		if problem != "" {
			ev.problem(n.fn.name, nil, "%s", problem)
			return "", nil, false
		}
		if !ev.spend(20 * compiled.cost) {
			return "", nil, false
		}
		p = compiled
	}
	return s, p, ev.spend(1 + (len(s)+1)*p.cost/patternCharging)
}

func regexpMatches(ev *Evaluation, n *callNode, args []value) value {
	s, p, ok := ev.patternFor(n, args)
	if !ok {
		return undefined()
	}
	return boolValue(p.re.MatchString(s))
}

func regexpSubstr(ev *Evaluation, n *callNode, args []value) value {
	s, p, ok := ev.patternFor(n, args)
	if !ok {
		return undefined()
	}
	found := p.re.FindStringIndex(s)
	if found == nil {
		return undefined()
	}
	return stringValue(s[found[0]:found[1]])
}

func regexpReplace(ev *Evaluation, n *callNode, args []value) value {
	s, p, ok := ev.patternFor(n, args)
	if !ok {
		return undefined()
	}
	with, ok := ev.toString(args[2])
	if !ok {
		return undefined()
	}
	parts, ok := parseReplacement(with, p.re)
	if !ok {
		ev.problem(n.fn.name, nil, "the replacement refers to a group that the regular expression doesn't have")
		return undefined()
	}
	var out []byte
	last := 0
	ok = ev.eachMatch(p, s, func(match []int) bool {
		out = append(out, s[last:match[0]]...)
		last = match[1]
		for _, part := range parts {
			if part.group < 0 {
				out = append(out, part.text...)
			} else if from := match[2*part.group]; from >= 0 {
				out = append(out, s[from:match[2*part.group+1]]...)
			}
			if len(out) > MaxResultBytes {
				ev.exceed("a text is longer than the %d bytes that a rule may make", MaxResultBytes)
				return false
			}
		}
		return ev.spend(1 + len(parts))
	})
	if !ok {
		return undefined()
	}
	out = append(out, s[last:]...)
	return stringValue(ev.keep(string(out)))
}

// shortText is how long a text may be whose matches are found without counting the characters
// that are looked at: as one search may look at all that is left, they are charged for its square.
const shortText = 128

// eachMatch calls do for the matches in s, one after the other, until it is false.
func (ev *Evaluation) eachMatch(p *pattern, s string, do func(match []int) bool) bool {
	if p.anchored {
		match := p.re.FindStringSubmatchIndex(s)
		return match == nil || do(match)
	}
	if len(s) <= shortText || p.looksBack {
		if !ev.spend(len(s) * len(s) / 2 / patternCharging * p.cost) {
			return false
		}
		for _, match := range p.re.FindAllStringSubmatchIndex(s, -1) {
			if !do(match) {
				return false
			}
		}
		return true
	}
	last := -1
	for from := 0; from <= len(s); {
		r := &countingReader{text: s[from:]}
		match := p.re.FindReaderSubmatchIndex(r)
		if !ev.spend(1 + r.pos*p.cost/patternCharging) {
			return false
		}
		if match == nil {
			return true
		}
		for i := range match {
			if match[i] >= 0 {
				match[i] += from
			}
		}
		if match[1] > match[0] || match[0] != last {
			if !do(match) {
				return false
			}
			last = match[1]
		}
		from = match[1]
		if match[1] == match[0] {
			_, size := utf8.DecodeRuneInString(s[from:])
			from += max(size, 1)
		}
	}
	return true
}

// countingReader tells how far a search has read.
type countingReader struct {
	text string
	pos  int
}

func (r *countingReader) ReadRune() (c rune, size int, err error) {
	if r.pos >= len(r.text) {
		return 0, 0, io.EOF
	}
	c, size = utf8.DecodeRuneInString(r.text[r.pos:])
	r.pos += size
	return c, size, nil
}

// replacement is a piece of a replacement text: a group, or text where group is below 0.
type replacement struct {
	text  string
	group int
}

// parseReplacement reads a replacement as Java's Matcher does: $1 and ${name} are groups, a
// backslash takes the meaning from what follows.
func parseReplacement(text string, re *regexp.Regexp) ([]replacement, bool) {
	var parts []replacement
	plain := []byte{}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			i++
			if i == len(text) {
				return nil, false
			}
			plain = append(plain, text[i])
		case '$':
			group, used := groupReference(text[i+1:], re)
			if group < 0 {
				return nil, false
			}
			parts = append(parts, replacement{string(plain), -1}, replacement{"", group})
			plain = plain[:0]
			i += used
		default:
			plain = append(plain, c)
		}
	}
	return append(parts, replacement{string(plain), -1}), true
}

// groupReference reads what is behind a "$": a number, as long as there is such a group, or
// {name}. It gives -1 for anything else.
func groupReference(text string, re *regexp.Regexp) (group, used int) {
	if name, _, ok := strings.Cut(strings.TrimPrefix(text, "{"), "}"); ok && strings.HasPrefix(text, "{") {
		return re.SubexpIndex(name), len(name) + 2
	}
	if leadingDigits(text) == 0 || int(text[0]-'0') > re.NumSubexp() {
		return -1, 0
	}
	group, used = int(text[0]-'0'), 1
	for used < leadingDigits(text) {
		next := group*10 + int(text[used]-'0')
		if next > re.NumSubexp() {
			break
		}
		group = next
		used++
	}
	return group, used
}
