package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"quorate/fsm"
)

// partitionID is what ids of partitions, placements and instances look like.
var partitionID = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func addIDFileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "read ids from `FILE` too, one a line; - is standard input")
	must(cmd.MarkFlagFilename("file"))
}

// checkPartitionID refuses what can be no id of a partition or placement, before anything is sent.
func checkPartitionID(what, id string) error {
	if !partitionID.MatchString(id) {
		return fmt.Errorf("%s: must be 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit, got %q", what, clip(id, maxQuoted))
	}
	return nil
}

// readIDs returns the ids of the arguments and of a file, in which empty lines and those that begin with # don't count. Each may be named once.
func readIDs(stdin io.Reader, arguments []string, file string) ([]string, error) {
	ids := make([]string, 0, len(arguments))
	seen := make(map[string]bool, len(arguments))
	add := func(where, id string) error {
		if err := checkPartitionID(where, id); err != nil {
			return err
		}
		if seen[id] {
			return fmt.Errorf("%s: %s is named twice", where, id)
		}
		if len(ids) == fsm.MaxPartitions {
			return fmt.Errorf("%s: more than %d ids", where, fsm.MaxPartitions)
		}
		seen[id] = true
		ids = append(ids, id)
		return nil
	}
	for _, id := range arguments {
		if err := add("ID", id); err != nil {
			return nil, err
		}
	}
	if file != "" {
		if err := readLines(stdin, file, add); err != nil {
			return nil, err
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("ID: missing; name partitions, or --file")
	}
	return ids, nil
}

func readLines(stdin io.Reader, file string, add func(where, id string) error) error {
	source := stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("--file: %w", err)
		}
		defer closeQuietly(opened)
		source = opened
	}
	lines := bufio.NewScanner(source)
	for n := 1; lines.Scan(); n++ {
		id := strings.TrimSpace(lines.Text())
		if id == "" || id[0] == '#' {
			continue
		}
		if err := add(fmt.Sprintf("%s:%d", file, n), id); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("--file %s: %w", file, err)
	}
	return nil
}
