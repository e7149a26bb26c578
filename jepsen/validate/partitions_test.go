package validate

import (
	"fmt"
	"strings"
	"testing"
)

func moved(kind string, from, until, epoch int, phase, placement, more string) string {
	return fmt.Sprintf("op c1 %d %d partition %s p ok {\"requestId\":\"r%d\"} {\"partition\":{\"epoch\":\"%d\",\"phase\":\"PARTITION_PHASE_%s\",\"placement\":\"%s\",\"revision\":\"%d\"%s}}\n",
		from, until, kind, epoch, epoch, phase, placement, epoch*10, more)
}

func checked(from, until, epoch int, placement string) string {
	return fmt.Sprintf("op g1 %d %d partition gate p ok {\"instance\":\"g1\"} {\"placement\":\"%s\",\"epoch\":%d}\n", from, until, placement, epoch)
}

func landed(called, at, epoch int, placement string) string {
	return fmt.Sprintf("op s1 %d %d partition land p ok {\"gate\":1,\"epoch\":%d,\"called\":%d} {\"placement\":\"%s\"}\n", at, at, epoch, called*1_000_000, placement)
}

func TestPartitions(t *testing.T) {
	run := `mark 0 run - - {"writeLimit":500000000,"minBarrier":1000000000}` + "\n"
	begun := run + `op c1 1 2 partition create p ok {"placement":"a"} {"epoch":"1"}` + "\n" + moved("begin", 10, 11, 2, "DRAINING", "a", "")
	barrier := `,"migration":{"drainBarrier":"1s"}`
	cut := begun + moved("cutover", 20, 21, 3, "CUTOVER", "a", barrier)
	// Both have the number 3: the lines before are operations 0 to 2.
	instance := checked(12, 13, 2, "a")
	stranger := `op c2 12 13 partition check_gate p ok {"partition":"p","epoch":"2"} {"placement":"a","epoch":"2"}` + "\n"
	early := `op c1 200 201 partition complete p ok {"requestId":"r4"} {"early":true,"partition":{"epoch":"4","phase":"PARTITION_PHASE_ACTIVE","placement":"b"}}` + "\n"
	late := `op s1 300 300 partition land p ok {"gate":3,"epoch":2,"called":12000000} {"placement":"a"}` + "\n"
	skewed := `mark 10 fault - - {"kind":"version-skew","members":["m1"],"effect":"refused","seen":15000000,"healing":30000000}` + "\n"
	run1(t, partitions(), []past1{
		{"all is well", cut + checked(12, 13, 2, "a") + landed(12, 300, 2, "a") + moved("complete", 1100, 1101, 4, "ACTIVE", "b", "") + checked(1102, 1103, 4, "b") + landed(1102, 1200, 4, "b"), ""},
		{"a write lands late (M1)", cut + landed(1000, 1400, 2, "a") + moved("complete", 1100, 1101, 4, "ACTIVE", "b", ""), "INV-M1"},
		{"a write lands after a placement was set", begun + moved("abort", 12, 13, 3, "ACTIVE", "a", "") + moved("set_placement", 14, 15, 4, "ACTIVE", "b", "") + landed(12, 300, 3, "a"), ""},
		{"an instance's write lands after an early completion (M1)", cut + instance + early + late, "INV-M1"},
		{"a stranger's write lands after an early completion", cut + stranger + early + late, ""},
		{"a write lands after a completion that a watch told of (M1)", cut + `mark 200 event - m1 {"watch":"w","event":{"revision":"40","partitionChanged":{"transition":"PARTITION_TRANSITION_COMPLETE","partition":{"id":"p","epoch":"4","placement":"b"}}}}
			` + landed(12, 300, 2, "a"), "INV-M1"},
		{"a write that takes longer than it may", cut + landed(12, 700, 2, "a"), "the traffic is wrong"},
		{"a check passes in cutover (M2)", cut + checked(22, 23, 2, "a"), "by a check that began"},
		{"a check passes under the epoch of a cutover (M2)", cut + checked(22, 23, 3, "a"), "in cutover (INV-M2)"},
		{"a check as the cutover comes", cut + checked(19, 25, 2, "a"), ""},
		{"a closed gate", cut + `op g1 22 23 partition gate p refused - CUTOVER|{"details":{"current_epoch":"3"}}`, ""},
		{"a closed gate of long ago", cut + moved("abort", 30, 31, 4, "ACTIVE", "a", "") + `op g1 32 33 partition gate p refused - CUTOVER|{"details":{"current_epoch":"3"}}`, "by a check that began"},
		{"a check from the future", begun + checked(3, 4, 2, "a"), "before anybody asked"},
		{"an abort leaves the old owner (M3)", cut + moved("abort", 30, 31, 4, "ACTIVE", "a", ""), ""},
		{"an abort moves (M3)", cut + moved("abort", 30, 31, 4, "ACTIVE", "b", ""), "INV-M3"},
		{"two owners of an epoch (M4)", begun + checked(12, 13, 2, "a") + `op c2 14 15 partition resolve p ok - {"resolutions":[{"partition":"p","epoch":"2","phase":"PARTITION_PHASE_DRAINING","readPlacement":"b"}]}`, "was told to be"},
		{"another owner for a writer (M4)", begun + checked(12, 13, 2, "z"), `was told "z"`},
		{"another owner in a watch (M4)", begun + `mark 15 event - m1 {"watch":"w","event":{"revision":"20","partitionChanged":{"partition":{"id":"p","epoch":"2","placement":"b"}}}}`, "was told to be"},
		{"a short barrier", cut + moved("complete", 1000, 1019, 4, "ACTIVE", "b", ""), "the barrier from epoch 3 was 999ms at most"},
		{"a barrier below the least", begun + moved("cutover", 20, 21, 3, "CUTOVER", "a", `,"migration":{"drainBarrier":"0.1s"}`) + moved("complete", 500, 501, 4, "ACTIVE", "b", ""), "declared to be 1s"},
		{"a late check that is known only by a later epoch", run + `op c1 1 2 partition create p ok {"placement":"a"} {"epoch":"1"}
			op c2 30 31 partition get p ok - {"partition":{"id":"p","epoch":"5","phase":"PARTITION_PHASE_ACTIVE","placement":"b"}}
			` + checked(32, 33, 1, "a"), "by a check that began"},
		{"a move that a member does not know", begun + skewed + moved("cutover", 20, 21, 3, "CUTOVER", "a", barrier), "was known not to know it"},
		{"a move before anybody knew it", begun + moved("cutover", 14, 16, 3, "CUTOVER", "a", barrier) + skewed, ""},
		{"a move as the member begins to learn it", begun + skewed + moved("cutover", 29, 31, 3, "CUTOVER", "a", barrier), ""},
		{"a member that nobody saw to be of the former version", begun + strings.Replace(skewed, "refused", "", 1) + moved("cutover", 20, 21, 3, "CUTOVER", "a", barrier), ""},
		{"unreadable", begun + `op s1 5 6 partition land p ok 7 7`, "can't be read"},
	})
}
