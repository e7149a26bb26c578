package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quorate/cmd/quorate/migration"
)

func TestDisplayWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	d := newDisplay(&out, 3)
	half := &migration.Progress{Done: 5, Total: 10, Text: "rows"}
	d.tell(migration.Event{Partition: "p1", Stage: migration.StageBegin, Text: "begun"})
	d.tell(migration.Event{Partition: "p1", Stage: migration.StageCopy, Text: "x\x1b[2Jy", Hook: true})
	d.tell(migration.Event{Partition: "p1", Stage: migration.StageCopy, Progress: half})
	d.tell(migration.Event{Partition: "p1", Stage: migration.StageCopy, Progress: half}) // Too soon to be written again.
	d.tell(migration.Event{Partition: "p2", Stage: migration.StageCopy, Progress: &migration.Progress{Done: 7}})
	d.tell(migration.Event{Partition: "p1", Stage: migration.StageBarrier, Left: 4 * time.Second, Whole: 5 * time.Second})
	d.end("p1")
	d.close()
	want := "p1: begun\np1| x [2Jy\np1: copy 50 % rows\np2: copy 7\np1: barrier 4s of 5s left\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// screen plays a terminal: it understands the two sequences that a display writes.
func screen(out string) string {
	var lines []string
	for i, part := range strings.Split(out, "\x1b[") {
		if i > 0 {
			code, rest, _ := strings.Cut(part, map[bool]string{true: "J", false: "F"}[strings.HasPrefix(part, "J")])
			if code != "" {
				up := 0
				for _, c := range code {
					up = 10*up + int(c-'0')
				}
				lines = lines[:len(lines)-up]
			}
			part = rest
		}
		if part != "" {
			lines = append(lines, strings.Split(strings.TrimSuffix(part, "\n"), "\n")...)
		}
	}
	return strings.Join(lines, "\n")
}

func TestDisplayOnATerminal(t *testing.T) {
	var out bytes.Buffer
	d := &display{w: &out, live: true, width: func() int { return 60 }, shown: map[string]*displayed{}}
	d.overall = drawnBar(&bytes.Buffer{}, "all", 2)
	d.tell(migration.Event{Partition: "tank-1", Stage: migration.StageCopy, Text: "copy hook begins"})
	d.tell(migration.Event{Partition: "tank-1", Stage: migration.StageCopy, Progress: &migration.Progress{Done: 5, Total: 10, Text: "rows"}})
	d.tell(migration.Event{Partition: "p2", Stage: migration.StageBarrier, Left: 1500 * time.Millisecond, Whole: 6 * time.Second})
	d.draw()
	want := `tank-1: copy hook begins
tank-1  50% [===========>            ]  [0s:0s]  copy rows
p2      75% [=================>      ]  barrier 1.5s left
all   0% [                        ]  [0s:0s]`
	if got := screen(out.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	before := out.Len()
	d.draw()
	if out.Len() != before {
		t.Error("it was drawn though nothing had changed")
	}
	d.tell(migration.Event{Partition: "p2", Stage: migration.StageComplete, Text: "completed"})
	d.end("p2")
	d.tell(migration.Event{Partition: "tank-1", Stage: migration.StageCutover})
	d.tell(migration.Event{Partition: "tank-1", Stage: migration.StageVerify, Progress: &migration.Progress{Done: 3, Text: strings.Repeat("long ", 30)}})
	d.draw()
	got := strings.Split(screen(out.String()), "\n")
	if len(got) != 4 || got[0] != "tank-1: copy hook begins" || got[1] != "p2: completed" || !strings.HasPrefix(got[2], "tank-1  ") || len(got[2]) != 59 ||
		!strings.HasPrefix(got[3], "all  50% ") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	for i := range displayLines + 5 {
		d.tell(migration.Event{Partition: string(rune('a' + i)), Stage: migration.StageBegin, Text: "begun"})
	}
	d.draw()
	if got := screen(out.String()); !strings.Contains(got, "\nand 6 more\n") || strings.Count(got, "\na       begin") != 1 {
		t.Errorf("got\n%s", got)
	}
	// At the end only what was told is left.
	d.stop, d.done = make(chan struct{}), make(chan struct{})
	close(d.done)
	d.close()
	if got := screen(out.String()); strings.Contains(got, "[=") || strings.Contains(got, "more") || !strings.HasSuffix(got, ": begun") {
		t.Errorf("got\n%s", got)
	}
}

func TestDisplayEnds(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	d := &display{w: &bytes.Buffer{}, live: true, width: func() int { return 60 }, shown: map[string]*displayed{}}
	d.begin(2)
	d.tell(migration.Event{Partition: "p", Text: "x"})
	d.close()
}
