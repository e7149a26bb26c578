package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// topInterval is how often the live view asks the group.
	topInterval = time.Second
	// topChanges is how many of the last changes of level it shows.
	topChanges = 10
)

func newTop(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "top",
		Short: "A live view of sets, levels, leases, roll-outs, members and migrations, on a terminal",
		Long:  "Top shows what status shows, with the last changes of level, anew each second. q or Ctrl-C ends it; the space bar holds it still.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !isTerminal(o.std.out) || !isTerminal(o.std.in) {
				return fmt.Errorf("top: needs a terminal; quorate status prints the same once")
			}
			group, err := o.connect()
			if err != nil {
				return err
			}
			defer group.Close()
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			_, err = tea.NewProgram(&topModel{ctx: ctx, group: group},
				tea.WithContext(ctx), tea.WithInput(o.std.in), tea.WithOutput(o.std.out)).Run()
			return err
		},
	}
}

// topModel is the live view: one question to the group at a time, and the last answer on the screen.
type topModel struct {
	ctx    context.Context
	group  *connection
	height int
	width  int
	held   bool
	asked  bool // An answer is on its way.
	screen string
	at     time.Time
	failed error
}

// topAnswer is what the group said.
type topAnswer struct {
	screen string
	err    error
}

// topTick is the time to ask again.
type topTick struct{}

func (m *topModel) Init() tea.Cmd { return m.ask() }

// ask looks around aside, so that keys are answered meanwhile.
func (m *topModel) ask() tea.Cmd {
	m.asked = true
	return func() tea.Msg {
		s, err := lookAround(m.ctx, m.group, &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL})
		if err != nil {
			return topAnswer{err: err}
		}
		changes, err := quoratev1.NewServingServiceClient(m.group).ListLevelChanges(m.ctx, &quoratev1.ListLevelChangesRequest{
			Read: &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL}, Limit: topChanges,
		})
		if err != nil {
			return topAnswer{err: err}
		}
		p := &printer{colour: true}
		s.print(p)
		p.line("")
		printLevelChanges(p, changes.GetChanges())
		return topAnswer{screen: p.buffer.String()}
	}
}

func (m *topModel) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := message.(type) {
	case tea.WindowSizeMsg:
		m.height, m.width = msg.Height, msg.Width
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "ctrl+c", "esc":
			return m, tea.Quit
		case "space":
			m.held = !m.held
		}
	case topTick:
		if !m.asked && !m.held {
			return m, m.ask()
		}
		return m, nextTick()
	case topAnswer:
		m.asked, m.failed = false, msg.err
		if msg.err == nil && !m.held {
			m.screen, m.at = msg.screen, time.Now()
		}
		return m, nextTick()
	}
	return m, nil
}

func nextTick() tea.Cmd {
	return tea.Tick(topInterval, func(time.Time) tea.Msg { return topTick{} })
}

func (m *topModel) View() tea.View {
	lines := strings.Split(strings.TrimRight(m.screen, "\n"), "\n")
	if most := max(m.height-1, 1); m.height > 0 && len(lines) > most {
		lines = lines[:most]
	}
	view := tea.NewView(strings.Join(append(lines, m.footer()), "\n"))
	view.AltScreen = true
	view.WindowTitle = "quorate top"
	return view
}

// footer says how old the screen is. What is shown stays when the group doesn't answer: old is better than nothing, if it says so.
func (m *topModel) footer() string {
	switch {
	case m.failed != nil && m.at.IsZero():
		return bad + singleLine(m.failed.Error()) + reset
	case m.failed != nil:
		return bad + "as of " + m.at.Format(time.TimeOnly) + ": " + singleLine(m.failed.Error()) + reset
	case m.at.IsZero():
		return faint + "asking …" + reset
	case m.held:
		return warn + "held, as of " + m.at.Format(time.TimeOnly) + reset + faint + "  space: go on  q: end" + reset
	default:
		return faint + m.at.Format(time.TimeOnly) + "  space: hold  q: end" + reset
	}
}
