package server

import (
	"math"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLike(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"main%", []string{"main", "main.go"}, []string{"Main", "a main", "mai"}},
		{"%en%", []string{"en", "entail", "green", "content"}, []string{"", "e", "n"}},
		{"%a%b%", []string{"ab", "xaxbx", "aab"}, []string{"ba", "a", "b"}},
		{"_ould", []string{"would", "could", "ßould"}, []string{"ould", "should"}},
		{"5[%]", []string{"5%"}, []string{"5", "5x"}},
		{"5[_]", []string{"5_"}, []string{"5", "5x"}},
		{"abc[13-68]", []string{"abc1", "abc3", "abc5", "abc6", "abc8"}, []string{"abc2", "abc7", "abc", "abc-"}},
		{"xyz[c-f]", []string{"xyzc", "xyzf"}, []string{"xyzb", "xyzg"}},
		{"ABC[^13-5]", []string{"ABC2", "ABCx", "ABC^"}, []string{"ABC1", "ABC4", "ABC"}},
		{"xyz[^dgh]", []string{"xyza", "xyzß"}, []string{"xyzd", "xyzg", "xyz"}},
		{"[a^]", []string{"a", "^"}, []string{"b"}},
		{"[a-]", []string{"a", "-"}, []string{"b"}},
		{`\%\_\[\\`, []string{`%_[\`}, []string{"%_[", `xy[\`}},
		{`[\]x]`, []string{"]", "x"}, []string{`\`, "y"}},
		{`100\%`, []string{"100%"}, []string{"100", "1000"}},
		{"", []string{""}, []string{"a"}},
		{"%", []string{"", "a", "äöü"}, nil},
		{"[abc", nil, []string{"a", "[abc", ""}},
		{"[]", nil, []string{"", "]", "a"}},
		{`a\`, nil, []string{"a", `a\`, "ab"}},
	} {
		pattern := c.pattern
		for i, list := range [][]string{c.yes, c.no} {
			for _, s := range list {
				steps := maxFilterSteps
				if got, decided := like(s, pattern, &steps); !decided || got != (i == 0) {
					t.Errorf("%q like %q: %v, %v", s, pattern, got, decided)
				}
			}
		}
	}
}

// TestLikeIsBounded has patterns that take exponential time elsewhere, and more than the limit here.
func TestLikeIsBounded(t *testing.T) {
	steps := math.MaxInt
	if got, decided := like(strings.Repeat("a", 1000), strings.Repeat("%a", 500)+"%b", &steps); got || !decided {
		t.Errorf("%v, %v", got, decided)
	}
	if used := math.MaxInt - steps; used > 1_000_000 {
		t.Errorf("%d steps", used)
	}
	steps = maxFilterSteps
	if got, decided := like(strings.Repeat("a", 4000), "%"+strings.Repeat("a", 2000)+"b", &steps); got || decided {
		t.Errorf("more steps than allowed: %v, %v", got, decided)
	}
	steps = maxFilterSteps
	list := "[" + strings.Repeat("x", maxLiteralBytes-4) + "]"
	if _, decided := like(strings.Repeat("a", 100), "%"+list+list, &steps); decided {
		t.Error("long lists cost nothing")
	}
}

// FuzzLike compares with a regular expression of the same meaning.
func FuzzLike(f *testing.F) {
	f.Add("smoke", "%[m-o]_e")
	f.Add("a%b", `a\%[^c]`)
	f.Fuzz(func(t *testing.T, s, pattern string) {
		if len(s) > 200 || len(pattern) > 50 {
			return
		}
		steps := maxFilterSteps
		got, decided := like(s, pattern, &steps)
		if steps < -maxLiteralBytes {
			t.Fatalf("%d steps beyond the limit", -steps)
		}
		if strings.ContainsAny(pattern, `[]\`) || !utf8.ValidString(s) || !utf8.ValidString(pattern) || !decided {
			return
		}
		expr := strings.NewReplacer("%", ".*", "_", ".").Replace(regexp.QuoteMeta(pattern))
		if want := regexp.MustCompile("(?s)^" + expr + "$").MatchString(s); got != want {
			t.Fatalf("%q like %q: %v, want %v", s, pattern, got, want)
		}
	})
}
