package validate

import (
	"fmt"
	"testing"
)

func told(at int, watch string, revision, sequence int, request string) string {
	return fmt.Sprintf("mark %d event - m1 {\"watch\":\"%s\",\"event\":{\"revision\":\"%d\",\"sequence\":%d,\"requestId\":\"%s\",\"partitionChanged\":{\"partition\":{\"id\":\"p\",\"epoch\":\"%d\"}}}}\n", at, watch, revision, sequence, request, revision)
}

func starts(at int, watch string, from int, resumed bool) string {
	return fmt.Sprintf("mark %d note watch - {\"watch\":\"%s\",\"from\":%d,\"resumed\":%t}\n", at, watch, from, resumed)
}

func TestWatches(t *testing.T) {
	first := starts(1, "w1", 5, false) + told(2, "w1", 5, 0, "a") + told(3, "w1", 5, 1, "a") + told(4, "w1", 7, 0, "b") + `mark 5 note progress - {"watch":"w1","revision":"9"}` + "\n"
	run1(t, watches(), []past1{
		{"two agree", first + starts(1, "w2", 0, false) + told(2, "w2", 5, 1, "a") + told(4, "w2", 7, 0, "b"), ""},
		{"twice", first + told(6, "w1", 7, 0, "b"), "twice"},
		{"out of order", first + told(6, "w1", 6, 0, "c"), "w1 was told event 6.0 after 7.0"},
		{"a gap", first + starts(1, "w2", 5, false) + told(2, "w2", 5, 0, "a") + told(4, "w2", 7, 0, "b") + `mark 9 note progress - {"watch":"w2","revision":"9"}`, "w2 was not told event 5.1"},
		{"a gap before it resumed", first + starts(1, "w2", 5, false) + told(2, "w2", 5, 0, "a") + starts(3, "w2", 6, true) + `mark 9 note progress - {"watch":"w2","revision":"9"}`, "w2 was not told event 7.0"},
		{"resumed", first + starts(1, "w2", 5, false) + told(2, "w2", 5, 0, "a") + told(2, "w2", 5, 1, "a") + starts(3, "w2", 6, true) + told(4, "w2", 7, 0, "b"), ""},
		{"compacted", first + starts(1, "w2", 3, false) + `mark 2 note compacted - {"watch":"w2","revision":"7"}` + "\n" + told(4, "w2", 7, 0, "b"), ""},
		{"another event", first + starts(1, "w2", 7, false) + told(4, "w2", 7, 0, "X"), "is told to w2 as"},
	})
}

// TestAcceptedChangesAreTold compares answers with what watches were told of their revision.
func TestAcceptedChangesAreTold(t *testing.T) {
	abort := `op c 1 2 partition abort p ok {"requestId":"b"} {"partition":{"epoch":"7","revision":"7"}}` + "\n"
	run1(t, watches(), []past1{
		{"told", starts(1, "w1", 5, false) + told(4, "w1", 7, 0, "b") + told(4, "w1", 8, 0, "c") + abort, ""},
		{"not told", starts(1, "w1", 5, false) + told(4, "w1", 8, 0, "c") + abort, "and no watch was told"},
		{"something else is told", starts(1, "w1", 5, false) + told(4, "w1", 7, 0, "X") + told(4, "w1", 8, 0, "c") + abort, "and no watch was told"},
	})
}
