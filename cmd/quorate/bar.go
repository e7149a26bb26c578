package main

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	// barDelay is after what time a bar appears: what takes less shows none.
	barDelay = time.Second
	// barWidth is that of the bar itself, in characters, and barEvery how often it is drawn at most.
	barWidth = 24
	barEvery = 100 * time.Millisecond
)

// bar shows on standard error how far a command is with its own work, if that is a terminal and takes longer than a moment.
type bar struct {
	bar   *progressbar.ProgressBar
	began time.Time
}

// newBar returns a bar for that much work; 0 is unknown. Hidden is for where it would be in the way.
func (o *options) newBar(what string, total uint64, hidden bool) *bar {
	if hidden || !isTerminal(o.std.err) {
		return &bar{}
	}
	return &bar{bar: drawnBar(o.std.err, what, total, progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(barEvery)), began: time.Now()}
}

// drawnBar is a bar as all of this program look.
func drawnBar(w io.Writer, what string, total uint64, more ...progressbar.Option) *progressbar.ProgressBar {
	most := int64(min(total, 1<<62))
	if total == 0 {
		most = -1
	}
	b := progressbar.NewOptions64(most, append([]progressbar.Option{
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(barWidth),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetTheme(progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: " ", BarStart: "[", BarEnd: "]"}),
		// Otherwise one of unknown length has a goroutine of its own.
		progressbar.OptionSetSpinnerChangeInterval(0),
	}, more...)...)
	b.StartWithoutRender()
	return b
}

func (b *bar) set(done uint64) {
	if b.bar != nil && time.Since(b.began) >= barDelay {
		// A bar that can't be drawn is no reason to stop.
		_ = b.bar.Set64(int64(min(done, 1<<62)))
	}
}

// end takes the bar from the screen.
func (b *bar) end() {
	if b.bar != nil && time.Since(b.began) >= barDelay {
		_ = b.bar.Clear()
	}
}
