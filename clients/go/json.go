package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The gateway's limits on what it stores.
const (
	maxNesting = 32   // objects and arrays inside each other, X-Session-Set itself counted
	maxDigits  = 4300 // of one number; Python refuses more
)

var errNotJSON = errors.New("it is not JSON")

// A scanner looks through JSON for what encoding/json passes in silence.
type scanner struct {
	data []byte
	at   int
	// nesting is the most objects and arrays inside each other.
	nesting int
	// stored: whether the gateway's rules for values that are written hold, too.
	stored bool
}

// scan checks that data is one JSON value without a name twice in one object,
// without half surrogate pairs, and nested no deeper than nesting.
func scan(data []byte, nesting int, stored bool) error {
	// The grammar is encoding/json's part, without recursion. It lets broken UTF-8
	// pass.
	if !utf8.Valid(data) || !json.Valid(data) {
		return errNotJSON
	}
	s := scanner{data: data, nesting: nesting, stored: stored}
	s.blanks()
	return s.value(0)
}

func (s *scanner) blanks() {
	for s.at < len(s.data) && strings.IndexByte(" \t\r\n", s.data[s.at]) >= 0 {
		s.at++
	}
}

// value reads a value of JSON that is known to be valid. It calls itself no more
// than nesting times.
func (s *scanner) value(depth int) error {
	switch s.data[s.at] {
	case '{', '[':
		if depth == s.nesting {
			return errors.New("it is nested too deep")
		}
		return s.items(depth + 1)
	case '"':
		_, err := s.text()
		return err
	default:
		start := s.at
		for s.at < len(s.data) && strings.IndexByte(" \t\r\n,]}", s.data[s.at]) < 0 {
			s.at++
		}
		return s.number(s.data[start:s.at])
	}
}

func (s *scanner) number(text []byte) error {
	if !s.stored || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
		return nil
	}
	if len(text) > maxDigits {
		return errors.New("it has a number of more than 4300 digits")
	}
	if _, err := strconv.ParseFloat(string(text), 64); err != nil {
		return errors.New("it has a number that no double can hold")
	}
	return nil
}

func (s *scanner) items(depth int) error {
	var names map[string]struct{}
	if s.data[s.at] == '{' {
		names = map[string]struct{}{}
	}
	s.at++
	s.blanks()
	for s.data[s.at] != '}' && s.data[s.at] != ']' {
		if names != nil {
			name, err := s.text()
			if err != nil {
				return err
			}
			if _, twice := names[name]; twice {
				return errors.New("it has a name twice in one object")
			}
			names[name] = struct{}{}
			s.blanks()
			s.at++ // The colon.
			s.blanks()
		}
		if err := s.value(depth); err != nil {
			return err
		}
		s.blanks()
		if s.data[s.at] == ',' {
			s.at++
			s.blanks()
		}
	}
	s.at++
	return nil
}

// text reads a string, and what it means.
func (s *scanner) text() (string, error) {
	start := s.at
	escaped, half := false, rune(0)
	for s.at++; s.data[s.at] != '"'; s.at++ {
		unit := rune(0)
		if s.data[s.at] == '\\' {
			escaped = true
			s.at++
			if s.data[s.at] == 'u' {
				code, _ := strconv.ParseUint(string(s.data[s.at+1:s.at+5]), 16, 16)
				unit = rune(code)
				s.at += 4
				if s.stored && unit == 0 {
					return "", errors.New("it has U+0000 in a text")
				}
			}
		}
		isLow := unit >= 0xdc00 && unit <= 0xdfff
		if isLow != (half != 0) {
			return "", errors.New("it has half a surrogate pair")
		}
		half = 0
		if unit >= 0xd800 && unit <= 0xdbff {
			half = unit
		}
	}
	s.at++
	if half != 0 {
		return "", errors.New("it has half a surrogate pair")
	}
	raw := s.data[start:s.at]
	if !escaped {
		return string(raw[1 : len(raw)-1]), nil
	}
	var text string
	err := json.Unmarshal(raw, &text)
	return text, err
}

// appendASCII appends valid JSON with \u escapes for everything that a header
// field cannot carry.
func appendASCII(dst, src []byte) []byte {
	for len(src) > 0 {
		if b := src[0]; b < utf8.RuneSelf && b != 0x7f {
			dst, src = append(dst, b), src[1:]
			continue
		}
		r, size := utf8.DecodeRune(src)
		src = src[size:]
		if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
			dst = appendUnit(appendUnit(dst, r1), r2)
		} else {
			dst = appendUnit(dst, r)
		}
	}
	return dst
}

func appendUnit(dst []byte, unit rune) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', digits[unit>>12&15], digits[unit>>8&15], digits[unit>>4&15], digits[unit&15])
}

// decode reads one value with exact numbers.
func decode(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	return decoder.Decode(into)
}

// equalJSON says whether two JSON texts mean the same. Numbers are compared by
// their value, with all digits.
func equalJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return decode(a, &x) == nil && decode(b, &y) == nil && equalValues(x, y)
}

func equalValues(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && (a == b || decimalOf(string(a)).equal(decimalOf(string(b))))
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equalValues(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, value := range a {
			other, there := b[name]
			if !there || !equalValues(value, other) {
				return false
			}
		}
		return true
	default: // A string, a bool or nil.
		return a == b
	}
}

// decimal is a number as digits and a power of ten: 0.digits * 10^exponent,
// without zeros at either end.
type decimal struct {
	negative bool
	digits   string
	exponent *big.Int
}

func decimalOf(number string) decimal {
	var d decimal
	d.negative = strings.HasPrefix(number, "-")
	number = strings.TrimPrefix(number, "-")
	d.exponent = new(big.Int)
	if e := strings.IndexAny(number, "eE"); e >= 0 {
		d.exponent.SetString(strings.TrimPrefix(number[e+1:], "+"), 10)
		number = number[:e]
	}
	whole, fraction := number, ""
	if point := strings.IndexByte(number, '.'); point >= 0 {
		whole, fraction = number[:point], number[point+1:]
	}
	digits := strings.TrimLeft(whole+fraction, "0")
	zeros := len(whole) + len(fraction) - len(digits)
	d.digits = strings.TrimRight(digits, "0")
	if d.digits == "" {
		d.exponent = new(big.Int)
	} else {
		d.exponent.Add(d.exponent, big.NewInt(int64(len(whole)-zeros)))
	}
	return d
}

func (d decimal) equal(other decimal) bool {
	return d.negative == other.negative && d.digits == other.digits && d.exponent.Cmp(other.exponent) == 0
}
