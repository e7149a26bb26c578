// Package report shows a run to people: one page that needs no other file, and beside it a summary for programs.
//
// The page stays light whatever the length of the run: time is cut into a fixed number of bins, of each client the worst outcome of a bin is drawn, and single
// operations only where something failed, in a window around each problem.
package report

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quorate/jepsen/history"
	"quorate/jepsen/validate"
)

const (
	// MaxWindows bounds the problems that are shown in detail.
	MaxWindows = 20
	// MaxWindowOps bounds the operations that are shown of each.
	MaxWindowOps = 80
	// MaxClients bounds the clients that have a line of their own.
	MaxClients = 100
	// bins is into how many parts the time of a run is cut.
	bins = 300
	// around is how much is shown before and after a problem, and windowMost the longest that a window is.
	around     = 500 * time.Millisecond
	windowMost = 20 * time.Second
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{"seconds": seconds, "dated": dated}).Parse(pageText))

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// Write writes report.html and summary.json into a folder, of the history in the file source.
func Write(dir, source string, h history.History, verdicts []validate.Verdict) error {
	s := summarise(h, verdicts)
	encoded, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "report.html"))
	if err != nil {
		return err
	}
	return errors.Join(
		page.Execute(f, view{Summary: s, Timeline: drawTimeline(h, verdicts), Windows: windows(h, verdicts), Judge: "bin/chaos-run --judge " + quoted(source)}),
		f.Close(),
		os.WriteFile(filepath.Join(dir, "summary.json"), append(encoded, '\n'), 0o644),
	)
}

// view is what the page shows.
type view struct {
	*Summary
	Timeline template.HTML
	Windows  []window
	// Judge is the command that judges the history again.
	Judge string
}

// quoted is a file name as a shell reads it.
func quoted(name string) string {
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
