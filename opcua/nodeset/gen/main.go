// The command gen makes ns0.bin, the nodes of namespace 0, from the NodeSet2 file that the gopcua module carries (OPC
// 10000-6 annex F). It is run by go generate in the package nodeset; the same module version always gives the same
// file.
//
// It is strict: an element, attribute or kind of value that it does not know is an error, because leaving it out would
// make the address space silently wrong with the next version of the standard.
package main

import (
	"fmt"
	"os"

	"github.com/gopcua/opcua/schema"
)

const output = "ns0.bin"

func main() {
	b, err := build(schema.OpcUaNodeSet2)
	if err == nil {
		err = os.WriteFile(output, b, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
