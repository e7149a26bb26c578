package redundancy

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestNewHookRefusesWhatIsWrongByName(t *testing.T) {
	for _, c := range []struct {
		command []string
		timeout time.Duration
		want    string
	}{
		{nil, 0, "command[0]: is missing"},
		{[]string{"", "x"}, 0, "command[0]: is missing"},
		{make([]string, MaxHookArguments+1), 0, "command[0]: is missing"},
		{append([]string{"a"}, make([]string, MaxHookArguments)...), 0, "command: has 65 words, at most 64 are allowed"},
		{[]string{"a", strings.Repeat("x", MaxHookArgument+1)}, 0, "command[1]: must have at most 4096 bytes, none of them zero"},
		{[]string{"a\x00b"}, 0, "command[0]: must have at most 4096 bytes, none of them zero"},
		{[]string{"a"}, time.Millisecond, "timeout: 1ms is not within 100ms and 9m0s"},
		{[]string{"a"}, time.Hour, "timeout: 1h0m0s is not within 100ms and 9m0s"},
	} {
		if _, err := NewHook(c.command, c.timeout); err == nil || err.Error() != c.want {
			t.Errorf("%.80q, %v: %v, want %s", c.command, c.timeout, err, c.want)
		}
	}
	if h, err := NewHook([]string{"a", ""}, 0); err != nil || h.timeout != DefaultHookTimeout {
		t.Errorf("%+v, %v", h, err)
	}
}

func FuzzTailIsTextWithinItsLimit(f *testing.F) {
	f.Add("line\n", 3)
	f.Add("\xff\xfeü", 2)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < 0 || limit > 1<<16 {
			return
		}
		got := tail(text, limit)
		if len(got) > limit || !utf8.ValidString(got) {
			t.Errorf("tail(%q, %d) = %q", text, limit, got)
		}
		if utf8.ValidString(text) && !strings.HasSuffix(text, got) {
			t.Errorf("tail(%q, %d) = %q is not its end", text, limit, got)
		}
	})
}
