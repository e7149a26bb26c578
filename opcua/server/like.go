package server

import (
	"unicode/utf8"
)

// maxFilterSteps bounds how many comparisons of characters, and look-ups of types, the whole where clause of one item may cost for
// one event. What would cost more is neither true nor false. All items hear of an event while the listeners are locked, so this is
// what keeps clauses from holding up whoever emits.
const maxFilterSteps = 20_000

// like reports whether a text matches a pattern (Part 4 §7.7.3, table of wildcards): % is any text, _ one character, [ab0-9] one of
// those characters, [^ab0-9] one that is none of them, and \ takes away the meaning of the character behind it. Case
// counts. Where a % has matched too little only the last one takes more, so the steps are at most the product of the lengths;
// decided is false if that would be more than steps allows.
func like(text, pattern string, steps *int) (matches, decided bool) {
	t, p := 0, 0
	last, from := -1, 0 // behind the last %, and where in the text what follows it was tried
	for t < len(text) {
		if *steps--; *steps < 0 {
			return false, false
		}
		if p < len(pattern) && pattern[p] == '%' {
			p++
			last, from = p, t
			continue
		}
		r, size := utf8.DecodeRuneInString(text[t:])
		if length, ok := likeOne(pattern[p:], r, steps); ok {
			p, t = p+length, t+size
			continue
		}
		if last < 0 {
			return false, true
		}
		_, size = utf8.DecodeRuneInString(text[from:])
		from += size
		p, t = last, from
	}
	for p < len(pattern) && pattern[p] == '%' {
		p++
	}
	return p == len(pattern), true
}

// likeOne matches one character with the beginning of a pattern that is no %, and returns how long that is.
func likeOne(pattern string, r rune, steps *int) (length int, ok bool) {
	if pattern == "" {
		return 0, false
	}
	switch pattern[0] {
	case '_':
		return 1, true
	case '[':
		return likeList(pattern, r, steps)
	case '\\':
		want, size := utf8.DecodeRuneInString(pattern[1:])
		return 1 + size, size > 0 && want == r
	}
	want, size := utf8.DecodeRuneInString(pattern)
	return size, want == r
}

// likeList matches one character with a list in brackets. A list that does not end matches nothing.
func likeList(pattern string, r rune, steps *int) (length int, ok bool) {
	i := 1
	except := i < len(pattern) && pattern[i] == '^'
	if except {
		i++
	}
	found := false
	for i < len(pattern) && pattern[i] != ']' {
		*steps--
		low, size := likeCharacter(pattern[i:])
		i += size
		high := low
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			high, size = likeCharacter(pattern[i+1:])
			i += 1 + size
		}
		found = found || low <= r && r <= high
	}
	if i >= len(pattern) {
		return 0, false
	}
	return i + 1, found != except
}

// likeCharacter returns the first character of what is in a list, and how long it is.
func likeCharacter(s string) (r rune, size int) {
	if s[0] == '\\' && len(s) > 1 {
		r, size = utf8.DecodeRuneInString(s[1:])
		return r, size + 1
	}
	return utf8.DecodeRuneInString(s)
}
