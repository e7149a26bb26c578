package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"
)

const (
	outputTable = "table"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

var outputFormats = []string{outputTable, outputJSON, outputYAML}

func checkOutput(format string) error {
	for _, known := range outputFormats {
		if format == known {
			return nil
		}
	}
	return fmt.Errorf("--output: must be one of %s, got %q", strings.Join(outputFormats, ", "), format)
}

// show prints an answer in the format asked for; the table is only made where it is wanted.
func (o *options) show(answer proto.Message, table func(*printer)) error {
	if o.output == outputTable {
		p := newPrinter(o.std.out)
		table(p)
		return p.flush()
	}
	// Every field is always there, so that a script may read it without asking whether it exists.
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(answer)
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return writeDocument(o.std.out, o.output, raw)
}

// showPlain prints a value that is no protobuf message.
func (o *options) showPlain(value any, table func(*printer)) error {
	if o.output == outputTable {
		p := newPrinter(o.std.out)
		table(p)
		return p.flush()
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return writeDocument(o.std.out, o.output, raw)
}

// writeDocument prints JSON in one stable form: protojson varies its white space on purpose, so that nobody relies on it.
func writeDocument(w io.Writer, format string, raw []byte) error {
	var text []byte
	if format == outputYAML {
		converted, err := yaml.JSONToYAML(raw)
		if err != nil {
			return fmt.Errorf("print the answer: %w", err)
		}
		text = converted
	} else {
		var indented bytes.Buffer
		if err := json.Indent(&indented, raw, "", "  "); err != nil {
			return fmt.Errorf("print the answer: %w", err)
		}
		indented.WriteByte('\n')
		text = indented.Bytes()
	}
	_, err := w.Write(text)
	return err
}

// say tells the user something on standard error. There is nobody left to tell if that fails.
func (o *options) say(format string, arguments ...any) {
	_, _ = fmt.Fprintf(o.std.err, "quorate: "+format+"\n", arguments...)
}

// Colours, by what they mean. They are used on a terminal only.
const (
	plain = ""
	good  = "\x1b[32m"
	warn  = "\x1b[33m"
	bad   = "\x1b[31m"
	faint = "\x1b[2m"
	reset = "\x1b[0m"
)

// printer collects lines and one table after another, and writes them at once.
type printer struct {
	w      io.Writer
	colour bool
	buffer bytes.Buffer
}

func newPrinter(w io.Writer) *printer {
	return &printer{w: w, colour: isTerminal(w) && os.Getenv("NO_COLOR") == ""} //nolint:misspell // A name that others gave.
}

// isTerminal tells whether a stream is a terminal.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

func (p *printer) line(format string, arguments ...any) {
	fmt.Fprintf(&p.buffer, format+"\n", arguments...)
}

// cell is one field of a table. Its colour is apart from its text, so that it does not count in the width.
type cell struct {
	text   string
	colour string
}

func text(values ...any) []cell {
	row := make([]cell, len(values))
	for i, value := range values {
		if c, ok := value.(cell); ok {
			row[i] = c
			continue
		}
		row[i] = cell{text: fmt.Sprint(value)}
	}
	return row
}

// table writes the rows in aligned columns under their headings.
func (p *printer) table(headings []string, rows [][]cell) {
	(&columns{}).write(p, append([][]cell{headingRow(headings)}, rows...))
}

func headingRow(headings []string) []cell {
	row := make([]cell, len(headings))
	for i, heading := range headings {
		row[i] = cell{text: heading, colour: faint}
	}
	return row
}

// columns are the widths of a table that may come in parts: a column never gets narrower.
type columns []int

// write writes the next rows, as wide as those before.
func (c *columns) write(p *printer, rows [][]cell) {
	for _, row := range rows {
		for i := range row {
			if row[i].text == "" {
				row[i].text = "-"
			}
			row[i].text = singleLine(row[i].text)
			if i == len(*c) {
				*c = append(*c, 0)
			}
			(*c)[i] = max((*c)[i], utf8.RuneCountInString(row[i].text))
		}
	}
	for _, row := range rows {
		for i, field := range row {
			p.coloured(field)
			if i < len(row)-1 {
				p.buffer.WriteString(strings.Repeat(" ", (*c)[i]-utf8.RuneCountInString(field.text)+2))
			}
		}
		p.buffer.WriteByte('\n')
	}
}

// singleLine keeps control characters of foreign text off the terminal.
func singleLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func (p *printer) coloured(c cell) {
	if p.colour && c.colour != plain {
		p.buffer.WriteString(c.colour + c.text + reset)
		return
	}
	p.buffer.WriteString(c.text)
}

func (p *printer) flush() error {
	_, err := p.w.Write(p.buffer.Bytes())
	return err
}

// moment shows wall time in the local zone of whoever reads it.
func moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05")
}

// short shows the beginning of a digest, which is enough to tell two of them apart by eye.
func short(digest string) string {
	const shown = 12
	if len(digest) > shown {
		return digest[:shown]
	}
	return digest
}
