package validate

import "testing"

func TestDurability(t *testing.T) {
	digests := `op c 1 2 digest get m1 ok - {"index":"10","digest":"aa"}
		op c 1 2 digest get m2 ok - {"index":"10","digest":"aa"}` + "\n"
	published := `op c1 1 2 topology publish topology ok {"requestId":"r1"} {"generation":{"number":"2","digest":"d","publishRequestId":"r1","revision":"10"}}` + "\n"
	begun := `op c1 1 2 lease begin m1 ok {"server":"m1"} {"lease":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"begun":"1s"}}` + "\n"
	run1(t, durability(), []past1{
		{"equal digests", digests, ""},
		{"different digests", digests + `op c 1 2 digest get m3 ok - {"index":"10","digest":"bb"}`, "at index 10 m3 has digest bb"},
		{"a member that differs from itself", digests + `op c 1 2 digest get m1 ok - {"index":"10","digest":"bb"}`, "has digest bb"},
		{"digests of different indexes", `op c 1 2 digest get m1 ok - {"index":"10","digest":"aa"}
			op c 1 2 digest get m2 ok - {"index":"11","digest":"bb"}`, "no two members"},
		{"a generation is kept", digests + published + `op final 5 6 topology history topology ok - {"generations":[{"number":"2","digest":"d","publishRequestId":"r1"}]}`, ""},
		{"a generation is lost", digests + published + `op final 5 6 topology history topology ok - {"generations":[{"number":"1","digest":"d","publishRequestId":"r0"}]}`, "is lost"},
		{"a generation was replaced", digests + published + `op final 5 6 topology history topology ok - {"generations":[{"number":"2","digest":"e","publishRequestId":"r9"}]}`, "is lost"},
		{"an epoch is kept", digests + moved("begin", 1, 2, 2, "DRAINING", "a", "") + `op final 5 6 partition get p ok - {"partition":{"epoch":"3","placement":"b"}}`, ""},
		{"an epoch is lost", digests + moved("begin", 1, 2, 2, "DRAINING", "a", "") + `op final 5 6 partition get p ok - {"partition":{"epoch":"1","placement":"a"}}`, "and is lost"},
		{"a lease is kept", digests + begun + `op final 5 6 lease list all ok - {"leases":[{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"state":"LEASE_STATE_ENDED"}]}`, ""},
		{"a lease is lost", digests + begun + `op final 5 6 lease list all ok - {}`, "the lease m1/1/x was acknowledged, and is lost"},
		{"a revision is another's", digests + published + `mark 5 event - m1 {"watch":"w","event":{"revision":"10","requestId":"rX"}}`, "where the log has something else"},
	})
}

func TestFailover(t *testing.T) {
	run := `mark 0 run - - {"failoverBudget":5000000000}` + "\n"
	up := ""
	for _, at := range []string{"1000 1001", "1900 1901", "2800 2801", "3700 3701", "4600 4601", "5500 5501", "6400 6401", "7300 7301", "8200 8201"} {
		up += "op o " + at + ` level read m1 ok - {"level":255,"source":0}` + "\n"
	}
	run1(t, failover(), []past1{
		{"short gaps", run + `mark 5000 failover cutOver - {"silenceMilliseconds":900}
			mark 6000 failover value - {"gap":1100000000}`, ""},
		{"a long gap with a server", run + up + `mark 8200 failover cutOver - {"silenceMilliseconds":7000}`, "no values for 7s"},
		{"a long gap of values with a server", run + up + `mark 8200 failover value - {"gap":7000000000}`, "no values for 7s"},
		{"a long gap without any server", run + `mark 8200 failover cutOver - {"silenceMilliseconds":7000}`, ""},
		{"a long gap with a server now and then", run + up + `op o 4700 4800 level read m1 failed - -
			mark 8200 failover cutOver - {"silenceMilliseconds":7000}`, ""},
		{"no budget", `mark 8200 failover cutOver - {"silenceMilliseconds":7000}`, "no budget"},
		{"unreadable", run + `mark 8200 failover cutOver - 7`, "can't be read"},
	})
}

func TestRecovery(t *testing.T) {
	quiet := "mark 1000 note quiet - -\nmark 30000 note final - -\n"
	run1(t, recovery(), []past1{
		{"all succeed", quiet + "op c 11001 11002 partition get p ok - -\nop quiet-1 5000 5001 partition get p refused - UNKNOWN_PARTITION", ""},
		{"too early to tell", quiet + "op c 10999 11002 partition get p failed - -\nop c 12000 12001 partition get p ok - -", ""},
		{"a failure", quiet + "op c 11001 11002 partition get p failed - -", "is failed"},
		{"an unknown outcome", quiet + "op c 11001 11002 partition abort p unknown - -", "is unknown"},
		{"a quiet client's failure", quiet + "op quiet-1 5000 5001 partition get p failed - -", "by quiet-1"},
		{"a failure of the last reads", quiet + "op final 31000 31001 partition get p failed - -", "by final"},
		{"cut short by the end", quiet + "op c 29999 30001 partition get p failed - -\nop c 12000 12001 partition get p ok - -", ""},
		{"no quiet period", "op c 11001 11002 partition get p ok - -", "no quiet period"},
	})
}
