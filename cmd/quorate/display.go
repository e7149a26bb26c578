package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"quorate/cmd/quorate/migration"
)

const (
	// displayLines is how many migrations are on the screen at a time; of more only the number is.
	displayLines = 12
	// displayEvery is how often the screen is drawn, and noteEvery how often progress is written where there is no screen.
	displayEvery = 100 * time.Millisecond
	noteEvery    = 10 * time.Second
	// defaultWidth is that of a terminal which does not tell.
	defaultWidth = 80
)

// display shows on standard error what happens to migrations. On a terminal, those that run have a line each that is drawn again and again, below
// the lines that tell what happened; elsewhere there are only these, and progress from time to time.
type display struct {
	w    io.Writer
	live bool
	// width is how many characters fit into a line.
	width func() int

	mu      sync.Mutex
	running []string // in the order in which they began
	shown   map[string]*displayed
	written []string // lines that are to be written above
	drawn   []string // lines on the screen that are to be drawn again
	overall *progressbar.ProgressBar
	ended   uint64

	stop chan struct{}
	done chan struct{}
}

// displayed is one migration on the screen.
type displayed struct {
	stage migration.Stage
	text  string
	bar   *progressbar.ProgressBar
	// noted is when its progress was last written where there is no screen.
	noted time.Time
}

// newDisplay begins to show; total is how many migrations there will be, 0 if it is not known.
func newDisplay(w io.Writer, total uint64) *display {
	d := &display{w: w, live: isTerminal(w), width: func() int { return terminalWidth(w) }, shown: map[string]*displayed{}}
	d.begin(total)
	return d
}

func terminalWidth(w any) int {
	if file, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return defaultWidth
}

func (d *display) begin(total uint64) {
	if !d.live {
		return
	}
	if total > 1 {
		d.overall = drawnBar(io.Discard, "all", total, progressbar.OptionShowCount())
	}
	d.stop, d.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(d.done)
		tick := time.NewTicker(displayEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.draw()
			case <-d.stop:
				return
			}
		}
	}()
}

// tell takes what a driver tells.
func (d *display) tell(e migration.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	shown, ok := d.shown[e.Partition]
	if !ok {
		shown = &displayed{text: e.Stage.String(), stage: e.Stage}
		d.shown[e.Partition] = shown
		d.running = append(d.running, e.Partition)
	}
	if e.Stage != shown.stage {
		shown.stage, shown.bar, shown.noted = e.Stage, nil, time.Time{}
		shown.text = e.Stage.String()
	}
	switch {
	case e.Text != "" && e.Hook:
		d.write(e.Partition + "| " + e.Text)
	case e.Text != "":
		d.write(e.Partition + ": " + e.Text)
	case e.Progress != nil:
		shown.progress(d, e)
	case e.Whole > 0:
		shown.barrier(d, e)
	}
}

// progress shows how far a copy or a verification is.
func (s *displayed) progress(d *display, e migration.Event) {
	p := e.Progress
	s.text = strings.TrimSpace(e.Stage.String() + " " + p.Text)
	if p.Total == 0 {
		s.text = strings.TrimSpace(fmt.Sprintf("%s %d %s", e.Stage, p.Done, p.Text))
	}
	if d.live {
		if p.Total == 0 {
			s.bar = nil
			return
		}
		if s.bar == nil || uint64(s.bar.GetMax64()) != p.Total {
			s.bar = drawnBar(io.Discard, "", p.Total)
		}
		_ = s.bar.Set64(int64(min(p.Done, 1<<62))) // It is drawn into nothing, which does not fail.
		return
	}
	how := fmt.Sprint(p.Done)
	if p.Total > 0 {
		how = fmt.Sprintf("%d %%", percent(p.Done, p.Total))
	}
	s.note(d, e.Partition, fmt.Sprintf("%s %s %s", e.Stage, how, p.Text))
}

// barrier shows what is left of the drain barrier.
func (s *displayed) barrier(d *display, e migration.Event) {
	left := e.Left.Round(time.Second / 10)
	if d.live {
		if s.bar == nil {
			s.bar = drawnBar(io.Discard, "", uint64(e.Whole), progressbar.OptionSetElapsedTime(false), progressbar.OptionSetPredictTime(false))
		}
		s.text = fmt.Sprintf("barrier %s left", left)
		_ = s.bar.Set64(int64(e.Whole - e.Left))
		return
	}
	s.note(d, e.Partition, fmt.Sprintf("barrier %s of %s left", left, e.Whole))
}

// note writes progress where there is no screen, if the last was some time ago.
func (s *displayed) note(d *display, partition, text string) {
	if now := time.Now(); now.Sub(s.noted) >= noteEvery {
		s.noted = now
		d.write(partition + ": " + strings.TrimSpace(text))
	}
}

// write writes a line, above what is drawn.
func (d *display) write(line string) {
	line = singleLine(line)
	if d.live {
		d.written = append(d.written, line)
		return
	}
	// There is nobody left to tell if this fails.
	_, _ = fmt.Fprintln(d.w, line)
}

// end takes a migration from the screen.
func (d *display) end(partition string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.shown, partition)
	d.running = slices.DeleteFunc(d.running, func(id string) bool { return id == partition })
	d.ended++
	if d.overall != nil {
		_ = d.overall.Set64(int64(d.ended))
	}
}

// close ends the display: what was to be written is, and the screen is as if nothing had been drawn.
func (d *display) close() {
	if !d.live {
		return
	}
	close(d.stop)
	<-d.done
	d.mu.Lock()
	d.running, d.overall = nil, nil
	d.mu.Unlock()
	d.draw()
}

// draw draws all anew: it goes back to the first line that was drawn, and takes away everything below (ECMA-48 CPL and ED).
func (d *display) draw() {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := d.lines()
	if len(d.written) == 0 && slices.Equal(lines, d.drawn) {
		return
	}
	var out strings.Builder
	if len(d.drawn) > 0 {
		fmt.Fprintf(&out, "\x1b[%dF\x1b[J", len(d.drawn))
	}
	for _, line := range slices.Concat(d.written, lines) {
		out.WriteString(line + "\n")
	}
	d.written, d.drawn = nil, lines
	_, _ = io.WriteString(d.w, out.String())
}

// lines are those of the migrations that run.
func (d *display) lines() []string {
	var lines []string
	width := 0
	shown := d.running[:min(len(d.running), displayLines)]
	for _, id := range shown {
		width = max(width, len(id))
	}
	for _, id := range shown {
		s := d.shown[id]
		line := fmt.Sprintf("%-*s  ", width, id)
		if s.bar != nil {
			line += drawnText(s.bar) + "  "
		}
		lines = append(lines, d.cut(line+singleLine(s.text)))
	}
	if more := len(d.running) - len(shown); more > 0 {
		lines = append(lines, d.cut(fmt.Sprintf("and %d more", more)))
	}
	if d.overall != nil {
		lines = append(lines, d.cut(drawnText(d.overall)))
	}
	return lines
}

// drawnText is a bar as a line of text.
func drawnText(b *progressbar.ProgressBar) string {
	_ = b.RenderBlank() // It is drawn into nothing.
	return strings.TrimSpace(strings.NewReplacer("\r", "", "\x1b[0K", "", "\n", "").Replace(b.String()))
}

// cut keeps a line on one line of the screen, since more would not be taken away.
func (d *display) cut(line string) string {
	if most := d.width() - 1; utf8.RuneCountInString(line) > most {
		return string([]rune(line)[:max(most, 0)])
	}
	return line
}
