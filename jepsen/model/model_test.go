package model

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"quorate/jepsen/history"
)

// h makes a history of lines such as
//
//	c1 10 20 partition begin p1 ok {"requestId":"r1","to":"b"} {"partition":{"epoch":"2"}}
//
// with the outcome's error after an outcome of refused; "-" is nothing.
func h(t *testing.T, lines string) history.History {
	t.Helper()
	var found history.History
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		f := strings.Fields(line)
		if len(f) < 9 {
			t.Fatalf("%q has %d fields", line, len(f))
		}
		op := history.Op{ID: len(found.Ops), Client: f[0], Noun: f[3], Kind: f[4], Key: f[5], Outcome: history.Outcome(f[6])}
		for i, at := range []*time.Duration{&op.Call, &op.Return} {
			if _, err := fmt.Sscan(f[1+i], (*int64)(at)); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		op.Input = json.RawMessage(f[7])
		switch {
		case op.Outcome == history.Refused:
			op.Error = f[8] + ": why"
		case f[8] != "-":
			op.Output = json.RawMessage(f[8])
		}
		found.Ops = append(found.Ops, op)
	}
	return found
}

const document = `{"sets":[{"id":"s","mode":"WARM","servers":[` +
	`{"member":"m1","applicationUri":"urn:q:m1","endpointUrl":"opc.tcp://h1:4840","healthUrl":"http://h1:80/healthz","role":"Primary"},` +
	`{"member":"m2","applicationUri":"urn:q:m2","endpointUrl":"opc.tcp://h2:4840","healthUrl":"http://h2:80/healthz","role":"Backup"}]}]}`

// TestModels has, for each noun, histories that can have been and such that can't.
func TestModels(t *testing.T) {
	created := `c0 1 2 partition create p ok {"requestId":"r0","placement":"a"} {"epoch":"1"}` + "\n"
	begun := created + `c1 10 20 partition begin p ok {"requestId":"r1","to":"b"} {"partition":{"epoch":"2","phase":"PARTITION_PHASE_DRAINING","placement":"a"}}` + "\n"
	cut := begun + `c1 21 30 partition cutover p ok {"requestId":"r2","expectedEpoch":"2"} {"partition":{"epoch":"3","phase":"PARTITION_PHASE_CUTOVER","placement":"a"}}` + "\n"
	complete := `{"partition":{"epoch":"4","phase":"PARTITION_PHASE_ACTIVE","placement":"b"}}`
	published := `c0 1 2 topology publish topology ok {"requestId":"g1","expectedGeneration":"0","topology":` + document + `} {"generation":{"number":"1","digest":"DIGEST","publishRequestId":"g1"}}` + "\n"
	for name, c := range map[string]struct {
		lines string
		want  Result
	}{
		"a read after a transition sees it": {begun + `c2 21 22 partition get p ok {"partition":"p"} {"partition":{"epoch":"2","phase":"PARTITION_PHASE_DRAINING","placement":"a"}}`, Holds},
		"a stale read":                      {begun + `c2 21 22 partition get p ok {"partition":"p"} {"partition":{"epoch":"1","phase":"PARTITION_PHASE_ACTIVE","placement":"a"}}`, Broken},
		"a stale local read is allowed":     {begun + `c2 21 22 partition get p ok {"partition":"p","read":{"consistency":"CONSISTENCY_LOCAL"}} {"partition":{"epoch":"1","phase":"PARTITION_PHASE_ACTIVE","placement":"a"}}`, Holds},
		"a read during a transition":        {begun + `c2 11 15 partition resolve p ok {"partitions":["p"]} {"resolutions":[{"partition":"p","epoch":"1","phase":"PARTITION_PHASE_ACTIVE","readPlacement":"a"}]}`, Holds},
		"reads go back": {begun + `c2 11 13 partition resolve p ok {"partitions":["p"]} {"resolutions":[{"partition":"p","epoch":"2","phase":"PARTITION_PHASE_DRAINING","readPlacement":"a"}]}
			c2 14 15 partition resolve p ok {"partitions":["p"]} {"resolutions":[{"partition":"p","epoch":"1","phase":"PARTITION_PHASE_ACTIVE","readPlacement":"a"}]}`, Broken},
		"a gate that passes":          {begun + `c2 21 22 partition check_gate p ok {"partition":"p","epoch":"2"} {"epoch":"2","placement":"a"}`, Holds},
		"a gate that passes in vain":  {cut + `c2 31 32 partition check_gate p ok {"partition":"p","epoch":"3"} {"epoch":"3","placement":"a"}`, Broken},
		"a gate that is closed":       {cut + `c2 31 32 partition check_gate p refused {"partition":"p","epoch":"3"} STALE_EPOCH`, Holds},
		"a gate that refuses in vain": {begun + `c2 21 22 partition check_gate p refused {"partition":"p","epoch":"2"} STALE_EPOCH`, Broken},
		"an epoch twice":              {begun + `c2 21 22 partition abort p ok {"requestId":"r2"} {"partition":{"epoch":"2","phase":"PARTITION_PHASE_ACTIVE","placement":"a"}}`, Broken},
		"barrier pending, then passed": {cut + `c1 31 32 partition complete p refused {"requestId":"r3","expectedEpoch":"3"} BARRIER_PENDING
			c1 33 34 partition complete p ok {"requestId":"r4","expectedEpoch":"3"} ` + complete, Holds},
		"barrier pending after completion": {cut + `c1 31 32 partition complete p ok {"requestId":"r3","expectedEpoch":"3"} ` + complete + `
			c1 33 34 partition complete p refused {"requestId":"r4"} BARRIER_PENDING`, Broken},
		"a refused completion moves no time": {cut + `c1 31 32 partition complete p refused {"requestId":"r3","expectedEpoch":"2"} STALE_EPOCH
			c1 33 34 partition complete p refused {"requestId":"r4","expectedEpoch":"3"} BARRIER_PENDING`, Holds},
		"unknown, and it was done late": {begun + `c1 21 0 partition abort p unknown {"requestId":"r2","expectedEpoch":"2"} -
			c2 30 31 partition get p ok {"partition":"p"} {"partition":{"epoch":"2","phase":"PARTITION_PHASE_DRAINING","placement":"a"}}
			c2 40 41 partition get p ok {"partition":"p"} {"partition":{"epoch":"3","phase":"PARTITION_PHASE_ACTIVE","placement":"a"}}`, Holds},
		"unknown, and never done": {begun + `c1 21 0 partition abort p unknown {"requestId":"r2","expectedEpoch":"2"} -
			c2 30 31 partition cutover p ok {"requestId":"r3"} {"partition":{"epoch":"3","phase":"PARTITION_PHASE_CUTOVER","placement":"a"}}`, Holds},
		"unknown can't be done before its call": {begun + `c2 30 31 partition get p ok {"partition":"p"} {"partition":{"epoch":"3","phase":"PARTITION_PHASE_ACTIVE","placement":"a"}}
			c1 40 0 partition abort p unknown {"requestId":"r2","expectedEpoch":"2"} -`, Broken},
		"one request id is one effect": {begun + `c1 21 22 partition abort p unknown {"requestId":"r2"} -
			c1 23 24 partition abort p ok {"requestId":"r2"} {"partition":{"epoch":"3","phase":"PARTITION_PHASE_ACTIVE","placement":"a"}}`, Holds},
		"refused elsewhere":                 {begun + `c1 21 22 partition cutover p refused {"requestId":"r2","expectedEpoch":"2"} APPLY_IN_PROGRESS`, Holds},
		"refused elsewhere, but stale":      {begun + `c1 21 22 partition cutover p refused {"requestId":"r2","expectedEpoch":"1"} APPLY_IN_PROGRESS`, Broken},
		"created twice":                     {created + `c1 3 4 partition create p ok {"requestId":"r9","placement":"a"} {"epoch":"1"}`, Broken},
		"created with others":               {`c0 1 2 partition create p,q ok {"requestId":"r0","ids":["p","q"],"placement":"a"} {"epoch":"1"}`, Holds},
		"deleted, and epochs go on":         {created + `c1 3 4 partition delete p ok {"requestId":"r9"} -` + "\n" + `c1 5 6 partition create p ok {"requestId":"r10","placement":"b"} {"epoch":"2"}`, Holds},
		"created above what others had":     {`c0 1 2 partition create p ok {"requestId":"r0","placement":"a"} {"epoch":"7"}` + "\n" + `c1 5 6 partition begin p ok {"requestId":"r1","to":"b"} {"partition":{"epoch":"8","phase":"PARTITION_PHASE_DRAINING","placement":"a"}}`, Holds},
		"deleted, and created far above":    {created + `c1 3 4 partition delete p ok {"requestId":"r9"} -` + "\n" + `c1 5 6 partition create p ok {"requestId":"r10","placement":"b"} {"epoch":"34"}`, Holds},
		"created above, and read below":     {`c0 1 2 partition create p ok {"requestId":"r0","placement":"a"} {"epoch":"7"}` + "\n" + `c1 5 6 partition begin p ok {"requestId":"r1","to":"b"} {"partition":{"epoch":"7","phase":"PARTITION_PHASE_DRAINING","placement":"a"}}`, Broken},
		"deleted, and an epoch comes again": {created + `c1 3 4 partition delete p ok {"requestId":"r9"} -` + "\n" + `c1 5 6 partition create p ok {"requestId":"r10","placement":"b"} {"epoch":"1"}`, Broken},

		"a generation":            {published, Holds},
		"a conflict":              {published + `c1 3 4 topology publish topology refused {"requestId":"g2","expectedGeneration":"0","topology":` + document + `} GENERATION_CONFLICT`, Holds},
		"a conflict without one":  {published + `c1 3 4 topology publish topology refused {"requestId":"g2","expectedGeneration":"1","topology":` + document + `} GENERATION_CONFLICT`, Broken},
		"a lost compare and swap": {published + strings.Replace(published, "g1", "g2", 1), Broken},
		"serving rights":          {published + `c1 3 4 topology publish topology refused {"requestId":"g2","expectedGeneration":"1","topology":` + document + `} SERVING_HELD`, Holds},
		"a rollback":              {published + `c1 3 4 topology rollback topology ok {"requestId":"g2","expectedGeneration":"1","to":"1"} {"generation":{"number":"2","digest":"DIGEST","publishRequestId":"g2"}}`, Holds},
		"a stale generation":      {published + `c1 3 4 topology rollback topology ok {"requestId":"g2","expectedGeneration":"1","to":"1"} {"generation":{"number":"2","digest":"DIGEST"}}` + "\n" + `c2 5 6 topology get topology ok {} {"generation":{"number":"1","digest":"DIGEST"}}`, Broken},
		"a history":               {published + `c2 5 6 topology history topology ok {"limit":5} {"generations":[{"number":"1","digest":"DIGEST"}]}`, Holds},
		"another history":         {published + `c2 5 6 topology history topology ok {"limit":5} {"generations":[{"number":"1","digest":"other"}]}`, Broken},

		"leases of two servers in turn": {published + `c1 3 4 lease begin m1 ok {"requestId":"l1","server":"m1","publishRequestId":"x"} {"lease":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}}
			c2 5 6 lease begin m2 refused {"requestId":"l2","server":"m2","publishRequestId":"x"} APPLY_IN_PROGRESS
			c1 7 8 lease end m1 ok {"requestId":"l3","server":"m1","publishRequestId":"x"} {"lease":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"state":"LEASE_STATE_ENDED","set":"s"}}
			c2 9 10 lease list all ok {} {}`, Holds},
		"leases of two servers at once": {published + `c1 3 4 lease begin m1 ok {"requestId":"l1","server":"m1","publishRequestId":"x"} {"lease":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}}
			c2 5 6 lease begin m2 ok {"requestId":"l2","server":"m2","publishRequestId":"x"} {"lease":{"key":{"server":"m2","generation":"1","publishRequestId":"x"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}}`, Broken},
		"a lease of a later generation": {published + `c1 3 4 lease begin m1 ok {"requestId":"l1","server":"m1","publishRequestId":"x"} {"lease":{"key":{"server":"m1","generation":"7","publishRequestId":"x"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}}
			c1 5 6 lease begin m1 refused {"requestId":"l2","server":"m1","generation":"6","publishRequestId":"x"} STALE_GENERATION`, Holds},
		"a list that misses one": {published + `c1 3 4 lease begin m1 ok {"requestId":"l1","server":"m1","publishRequestId":"x"} {"lease":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}}
			c2 9 10 lease list all ok {} {}`, Broken},

		"maintenance": {published + `c1 3 4 maintenance set m1 ok {"requestId":"x1","server":"m1","active":true,"reason":"r"} {"maintenance":{"server":"m1","active":true,"reason":"r"}}
			c2 5 6 maintenance list all ok {} {"maintenance":[{"server":"m1","active":true,"reason":"r"}]}`, Holds},
		"maintenance is lost": {published + `c1 3 4 maintenance set m1 ok {"requestId":"x1","server":"m1","active":true,"reason":"r"} {"maintenance":{"server":"m1","active":true,"reason":"r"}}
			c2 5 6 maintenance list all ok {} {}`, Broken},
		"settings": {`c1 3 4 settings set settings ok {"requestId":"x1","settings":{"gateTtl":"3s"}} {"settings":{"drainBarrier":"30s","minDrainBarrier":"30s","earlyFloor":"5s","gateTtl":"3s"}}
			c1 5 6 settings get settings ok {} {"settings":{"drainBarrier":"30s","minDrainBarrier":"30s","earlyFloor":"5s","gateTtl":"3s"}}`, Holds},
		"settings are lost": {`c1 3 4 settings set settings ok {"requestId":"x1","settings":{"gateTtl":"3s"}} {"settings":{"drainBarrier":"30s","minDrainBarrier":"30s","earlyFloor":"5s","gateTtl":"3s"}}
			c1 5 6 settings get settings ok {} {"settings":{"drainBarrier":"30s","minDrainBarrier":"30s","earlyFloor":"5s","gateTtl":"2s"}}`, Broken},
	} {
		t.Run(name, func(t *testing.T) {
			verdicts, err := Check(h(t, strings.ReplaceAll(c.lines, "DIGEST", digest(t))), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			got, text, ops := Holds, "", 0
			for _, v := range verdicts {
				ops += v.Ops
				if v.Result != Holds {
					got, text = v.Result, fmt.Sprintf("%s %s: %s (%v to %v, around %v)", v.Noun, v.Key, v.Text, v.From, v.Until, v.Around)
				}
			}
			if got != c.want || ops == 0 {
				t.Errorf("%s of %d operations, want %s: %s", got, ops, c.want, text)
			}
			if got == Broken && text == "" {
				t.Error("nothing says why")
			}
		})
	}
}
