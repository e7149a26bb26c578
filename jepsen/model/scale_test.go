package model

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestManyReadsAreLittleWork: most reads of a partition say nothing new, so that the work is by its transitions.
func TestManyReadsAreLittleWork(t *testing.T) {
	const transitions, reads = 200, 100
	var lines strings.Builder
	fmt.Fprintln(&lines, `c0 1 2 partition create p ok {"requestId":"r0","placement":"b0"} {"epoch":"1"}`)
	for i := range transitions {
		at := 1000 * (i + 1)
		fmt.Fprintf(&lines, "c1 %d %d partition set_placement p ok {\"requestId\":\"s%d\",\"placement\":\"b%d\"} {\"partition\":{\"epoch\":\"%d\",\"phase\":\"PARTITION_PHASE_ACTIVE\",\"placement\":\"b%d\"}}\n", at, at+5, i, i+1, i+2, i+1)
		// Of unknown fate, and overtaken: without its end, the search would have to carry each of them to the end of the history.
		fmt.Fprintf(&lines, "c2 %d 0 partition set_placement p unknown {\"requestId\":\"u%d\",\"expectedEpoch\":\"%d\",\"placement\":\"z\"} -\n", at, i, i+1)
		for j := range reads {
			fmt.Fprintf(&lines, "c3 %d %d partition get p ok {} {\"partition\":{\"epoch\":\"%d\",\"phase\":\"PARTITION_PHASE_ACTIVE\",\"placement\":\"b%d\"}}\n", at+6+j, at+7+j, i+2, i+1)
		}
	}
	began := time.Now()
	verdicts, err := Check(h(t, lines.String()), time.Minute)
	if err != nil || len(verdicts) != 1 || verdicts[0].Result != Holds || verdicts[0].Ops != 1+transitions*(reads+2) {
		t.Fatalf("%v, %v", verdicts, err)
	}
	t.Logf("%d operations in %v", verdicts[0].Ops, time.Since(began))
}
