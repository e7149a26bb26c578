package migration

import (
	"math"
	"strconv"
	"strings"
)

// Progress is how far a hook is: Done of Total, in its own unit. Total 0 means that it is not known.
type Progress struct {
	Done, Total uint64
	Text        string
}

const (
	// maxProgressText is the group's limit for the text of a progress report, in bytes.
	maxProgressText = 256
	// percentTotal is the total of progress in percent, which may have two decimals.
	percentTotal = 100 * 100
)

// ParseProgress reads a line that a hook wrote: "progress DONE TOTAL [TEXT]" or "progress PERCENT% [TEXT]". Any other line is for people.
func ParseProgress(line string) (Progress, bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), "progress ")
	if !ok {
		return Progress{}, false
	}
	first, rest := word(rest)
	if percent, ok := strings.CutSuffix(first, "%"); ok {
		value, err := strconv.ParseFloat(percent, 64)
		if err != nil || !(value >= 0 && value <= 100) {
			return Progress{}, false
		}
		return Progress{Done: uint64(math.Round(value * percentTotal / 100)), Total: percentTotal, Text: clip(rest, maxProgressText)}, true
	}
	second, rest := word(rest)
	done, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return Progress{}, false
	}
	total, err := strconv.ParseUint(second, 10, 64)
	if err != nil || total > 0 && done > total {
		return Progress{}, false
	}
	return Progress{Done: done, Total: total, Text: clip(rest, maxProgressText)}, true
}

// word cuts the first word off.
func word(s string) (first, rest string) {
	first, rest, _ = strings.Cut(strings.TrimSpace(s), " ")
	return first, rest
}
