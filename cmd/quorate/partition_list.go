package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// pageSize is how many partitions are asked for at a time: the most that the group gives.
	pageSize = fsm.MaxPartitionBatch
	// defaultListed is how many list shows unless told otherwise.
	defaultListed = 100
)

func newPartitionList(o *options) *cobra.Command {
	var limit int
	var all bool
	request := &quoratev1.ListPartitionsRequest{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List partitions, in order of their ids",
		Long: `List asks for pages as it goes and prints each as it comes, so that even a million partitions take little memory. Each page is of one revision;
a partition that is there all the time is listed once.`,
		Example: `  quorate partition list --placement rack-7
  quorate partition list --all -o json | jq -r '.partitions[].id'`,
		Args: cobra.NoArgs,
	}
	read := addReadFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&request.Placement, "placement", "", "only those that this `PLACEMENT` owns")
	flags.StringVar(&request.Prefix, "prefix", "", "only those whose id begins with `X`")
	flags.IntVar(&limit, "limit", defaultListed, "show at most `N`")
	flags.BoolVar(&all, "all", false, "show all")
	must(cmd.RegisterFlagCompletionFunc("placement", o.completePlacements))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if request.Read, err = read.options(); err != nil {
			return err
		}
		switch {
		case limit < 1:
			return fmt.Errorf("--limit: must be 1 or more, got %d", limit)
		case all && cmd.Flags().Changed("limit"):
			return errors.New("--all: shows all, and --limit does not; give one of them")
		case all:
			limit = 0
		}
		return o.partition(func(client quoratev1.PartitionServiceClient) error {
			return o.listPartitions(cmd, client, request, limit)
		})
	}
	return cmd
}

// listPartitions prints page after page until there are no more, or limit are printed; 0 is no limit.
func (o *options) listPartitions(cmd *cobra.Command, client quoratev1.PartitionServiceClient, request *quoratev1.ListPartitionsRequest, limit int) error {
	list := &partitionList{o: o}
	bar := o.newBar("partitions", 0, isTerminal(o.std.out))
	defer bar.end()
	for {
		request.PageSize = pageSize
		if limit > 0 {
			request.PageSize = uint32(min(limit-list.count, pageSize))
		}
		page, err := client.ListPartitions(cmd.Context(), request)
		if err != nil {
			return err
		}
		if err := list.page(page); err != nil {
			return err
		}
		bar.set(uint64(list.count))
		request.PageToken = page.GetNextPageToken()
		if request.PageToken == "" || limit > 0 && list.count >= limit {
			break
		}
	}
	if err := list.end(request.GetPageToken()); err != nil {
		return err
	}
	if request.GetPageToken() != "" {
		_, err := fmt.Fprintf(o.std.err, "quorate: there are more than %d: --limit N, or --all\n", limit)
		return err
	}
	return nil
}

// partitionList prints a list that comes by pages. What it prints is what o.show would print of one answer with all of them.
type partitionList struct {
	o       *options
	count   int
	begun   bool
	columns columns
}

var partitionHeadings = []string{"PARTITION", "PHASE", "PLACEMENT", "TO", "EPOCH", "PREVIOUS", "DRAIN BARRIER"}

func (l *partitionList) page(page *quoratev1.ListPartitionsResponse) error {
	var out bytes.Buffer
	if err := l.write(&out, page); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	l.begun = true
	l.count += len(page.GetPartitions())
	_, err := l.o.std.out.Write(out.Bytes())
	return err
}

func (l *partitionList) write(out *bytes.Buffer, page *quoratev1.ListPartitionsResponse) error {
	if l.o.output == outputTable {
		p := newPrinter(l.o.std.out)
		var rows [][]cell
		if !l.begun {
			rows = append(rows, headingRow(partitionHeadings))
		}
		for _, partition := range page.GetPartitions() {
			rows = append(rows, text(partition.GetId(), phaseCell(partition), partition.GetPlacement(), partition.GetMigration().GetTo(), partition.GetEpoch(),
				partition.GetPreviousPlacement(), span(partition.GetDrainBarrier())))
		}
		l.columns.write(p, rows)
		_, err := p.buffer.WriteTo(out)
		return err
	}
	if !l.begun {
		if err := l.writeHeader(out, page.GetHeader()); err != nil {
			return err
		}
	}
	for i, partition := range page.GetPartitions() {
		raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(partition)
		if err != nil {
			return err
		}
		if err := l.writeItem(out, raw, l.count+i == 0); err != nil {
			return err
		}
	}
	return nil
}

func (l *partitionList) writeHeader(out *bytes.Buffer, header proto.Message) error {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(header)
	if err != nil {
		return err
	}
	if l.o.output == outputYAML {
		text, err := yaml.JSONToYAML(append(append([]byte(`{"header":`), raw...), '}'))
		out.Write(text)
		out.WriteString("partitions:")
		return err
	}
	out.WriteString("{\n  \"header\": ")
	if err := json.Indent(out, raw, "  ", "  "); err != nil {
		return err
	}
	out.WriteString(",\n  \"partitions\": [")
	return nil
}

func (l *partitionList) writeItem(out *bytes.Buffer, raw []byte, first bool) error {
	if l.o.output == outputYAML {
		if first {
			out.WriteByte('\n')
		}
		text, err := yaml.JSONToYAML(append(append([]byte{'['}, raw...), ']'))
		out.Write(text)
		return err
	}
	if !first {
		out.WriteByte(',')
	}
	out.WriteString("\n    ")
	return json.Indent(out, raw, "    ", "  ")
}

// end closes the list. Next is the page token of what is not in it.
func (l *partitionList) end(next string) error {
	token, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	text := ""
	switch {
	case l.o.output == outputJSON && l.count > 0:
		text = "\n  "
		fallthrough
	case l.o.output == outputJSON:
		text += fmt.Sprintf("],\n  \"nextPageToken\": %s\n}\n", token)
	case l.o.output == outputYAML && l.count == 0:
		text = " []\n"
		fallthrough
	case l.o.output == outputYAML:
		text += fmt.Sprintf("nextPageToken: %s\n", token)
	}
	_, err = io.WriteString(l.o.std.out, text)
	return err
}
