package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
)

// How much garbage may gather at least before it is collected: a part of the machine's memory, or of what this process may have of it, within bounds, in
// bytes. The state of most groups is small while each call leaves some 15 KiB of garbage, so that collecting whenever the heap has doubled, Go's default,
// takes a sixth of a busy member's time. What gathers in an idle member Go collects every two minutes.
const (
	garbageShare     = 1.0 / 32
	leastGarbageRoom = 64 << 20
	mostGarbageRoom  = 256 << 20
)

const (
	// leastGarbage is the least percentage of what is alive that may gather as garbage, and Go's default: a large state has its own size as room.
	leastGarbage = 100
	// leastAlive is what counts as alive at least. Go reckons with as much while the heap is smaller.
	leastAlive = 4 << 20
)

// collectSeldom gives the garbage collector of this process room, and adapts that to what is alive after each collection. Who sets GOGC has decided
// otherwise. GOMEMLIMIT works as ever.
var collectSeldom = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		room := roomIn(memory())
		adaptCollection(room, room.percent(0))
	}
})

// garbageRoom is how much garbage may gather at least.
type garbageRoom uint64

func roomIn(memory uint64) garbageRoom {
	return garbageRoom(min(max(uint64(garbageShare*float64(memory)), leastGarbageRoom), mostGarbageRoom))
}

// adaptCollection sets the percentage, and comes back after the next collection.
func adaptCollection(room garbageRoom, percent int) {
	debug.SetGCPercent(percent)
	awaitCollection(room, percent)
}

func awaitCollection(room garbageRoom, percent int) {
	runtime.AddCleanup(&witness{}, func(percent int) {
		now := room.percent(aliveBytes())
		// Setting it stops the world for a moment, so what would change little is left as it is.
		if now >= percent-percent/8 && now <= percent+percent/8 {
			awaitCollection(room, percent)
		} else {
			adaptCollection(room, now)
		}
	}, percent)
}

// witness is an object that is dead at once. It has a pointer, since what has none may share its place with others and live as long as they do.
type witness struct{ _ *byte }

// aliveBytes is what the last collection found alive.
func aliveBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// percent is the share of what is alive that the room is.
func (r garbageRoom) percent(alive uint64) int {
	return max(int(100*uint64(r)/max(alive, leastAlive)), leastGarbage)
}

// machineMemory is where Linux says how much memory the machine has.
const machineMemory = "/proc/meminfo"

// memoryLimits are where it says how much the group of processes may have that this one is in: cgroup v2, and v1.
var memoryLimits = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}

// memory is what this process may have, in bytes: the machine's, or less by its cgroup or by GOMEMLIMIT. What can't be found out is no limit.
func memory() uint64 {
	most := uint64(debug.SetMemoryLimit(-1))
	if text, err := os.ReadFile(machineMemory); err == nil {
		var kib uint64
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kib); err == nil {
			most = min(most, kib<<10)
		}
	}
	for _, file := range memoryLimits {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // Else it is "max".
			most = min(most, limit)
		}
	}
	return most
}
