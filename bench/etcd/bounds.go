package main

import "fmt"

// bound is a row of platform.md §9: what must be reached, and what is aimed at.
type bound struct {
	name       string
	floor, aim float64 // aim is 0 where there is none
	unit       string
	// less says that less is better.
	less bool
}

var bounds = []bound{
	{name: "commits_256_ratio_to_etcd", floor: 2.0, aim: 2.4, unit: "x"},
	{name: "commits_256_wal_ratio_to_etcd", floor: 2.0, aim: 2.4, unit: "x"},
	{name: "commits_1_ratio_to_etcd", floor: 0.7, unit: "x"},
	{name: "commits_1_wal_ratio_to_etcd", floor: 1.0, aim: 1.1, unit: "x"},
	{name: "reads_256_ratio_to_etcd", floor: 1.15, aim: 1.4, unit: "x"},
	{name: "resolve_100_keys_bolt", floor: 500_000, aim: 700_000, unit: "keys/s"},
	{name: "resolve_100_keys_wal", floor: 500_000, aim: 700_000, unit: "keys/s"},
	{name: "resolve_100_keys_of_all", floor: 500_000, aim: 700_000, unit: "keys/s"},
	{name: "gate_checks", floor: 5_000_000, unit: "checks/s"},
	{name: "failover_p50_bolt", floor: 600, aim: 250, unit: "ms", less: true},
	{name: "failover_p50_wal", floor: 600, aim: 250, unit: "ms", less: true},
	{name: "hand_over_p50_bolt", floor: 20, aim: 10, unit: "ms", less: true},
	{name: "hand_over_p50_wal", floor: 20, aim: 10, unit: "ms", less: true},
	// The rows of 1,000,000 devices hold for as many partitions.
	{name: "snapshot_capture", floor: 1, aim: 0.01, unit: "ms", less: true},
	{name: "snapshot_write", floor: 1000, aim: 300, unit: "ms", less: true},
	{name: "snapshot_restore", floor: 1500, aim: 500, unit: "ms", less: true},
	{name: "partition_bytes", floor: 1024, aim: 300, unit: "B", less: true},
}

// reached says whether a value is as good as what is asked for.
func (b bound) reached(value, asked float64) bool {
	if b.less {
		return value <= asked
	}
	return value >= asked
}

// judge holds what was measured against the bounds, and returns what to print of that, and the names of those whose floors are missed.
func judge(results map[string]float64) (lines, missed []string) {
	word := map[bool]string{true: "met", false: "missed"}
	for _, b := range bounds {
		value, ok := results[b.name]
		if !ok {
			continue
		}
		side := "at least"
		if b.less {
			side = "at most"
		}
		aim := ""
		if b.aim != 0 {
			aim = fmt.Sprintf(", aim %v %s", b.aim, word[b.reached(value, b.aim)])
		}
		lines = append(lines, fmt.Sprintf("BOUND %s %.*f %s %s %v %s%s", b.name, digits(value), value, b.unit, side, b.floor, word[b.reached(value, b.floor)], aim))
		if !b.reached(value, b.floor) {
			missed = append(missed, b.name)
		}
	}
	return lines, missed
}
