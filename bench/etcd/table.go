package main

import (
	"slices"
	"strings"
)

// alone takes the place of a system's name where only Quorate is measured, with one log store.
const alone = ""

// table holds what all turns gave: for each measurement and system a value for each round.
type table struct {
	order  []sample
	values map[string]map[string][]float64
}

func newTable() *table { return &table{values: map[string]map[string][]float64{}} }

func (t *table) add(system string, s sample) {
	bySystem, ok := t.values[s.name]
	if !ok {
		bySystem = map[string][]float64{}
		t.values[s.name] = bySystem
		t.order = append(t.order, s)
	}
	bySystem[system] = append(bySystem[system], s.value)
}

// print gives, of each measurement, the median for each system, and the medians of the ratios of those to etcd.
func (t *table) print(result func(name string, value float64, unit string)) {
	for _, s := range t.order {
		bySystem := t.values[s.name]
		for _, system := range []string{alone, storeBolt, storeWAL, etcdName} {
			values := bySystem[system]
			system = strings.TrimSuffix("_"+system, "_")
			switch {
			case len(values) == 0:
			case s.series:
				result(s.name+"_p50"+system, median(values), s.unit)
				result(s.name+"_max"+system, slices.Max(values), s.unit)
			default:
				result(s.name+system, median(values), s.unit)
			}
		}
		if !s.compare {
			continue
		}
		for _, system := range []string{storeBolt, storeWAL} {
			if ratios := quotients(bySystem[system], bySystem[etcdName]); len(ratios) > 0 {
				result(ratioName(s.name, system), median(ratios), "x")
				result(ratioName(s.name, system)+"_least", slices.Min(ratios), "x")
				result(ratioName(s.name, system)+"_most", slices.Max(ratios), "x")
			}
		}
	}
}

// ratioName leaves out the default log store.
func ratioName(name, store string) string {
	if store == storeWAL {
		name += "_" + store
	}
	return name + "_ratio_to_etcd"
}

// quotients divides what was measured in the same round.
func quotients(a, b []float64) (all []float64) {
	for i := range min(len(a), len(b)) {
		all = append(all, a[i]/b[i])
	}
	return all
}

// median is 0 of nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
