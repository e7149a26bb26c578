package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// garbageRoom is how much garbage may gather at least before it is collected, in bytes. The state of most groups is small while each call leaves some
// 20 KiB of garbage, so that collecting whenever the heap has doubled, Go's default, takes a sixth of a busy member's time.
const garbageRoom = 128 << 20

const (
	// leastGarbage is the least percentage of what is alive that may gather as garbage, and Go's default: a large state has its own size as room.
	leastGarbage = 100
	// leastAlive is what counts as alive at least. Go reckons with as much while the heap is smaller.
	leastAlive = 4 << 20
)

// collectSeldom gives the garbage collector of this process garbageRoom, and adapts that to what is alive after each collection. Who sets GOGC has
// decided otherwise. GOMEMLIMIT works as ever.
var collectSeldom = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		adaptCollection(garbagePercent(0))
	}
})

// adaptCollection sets the percentage, and comes back after the next collection.
func adaptCollection(percent int) {
	debug.SetGCPercent(percent)
	awaitCollection(percent)
}

func awaitCollection(percent int) {
	runtime.AddCleanup(&witness{}, func(percent int) {
		now := garbagePercent(aliveBytes())
		// Setting it stops the world for a moment, so what would change little is left as it is.
		if now >= percent-percent/8 && now <= percent+percent/8 {
			awaitCollection(percent)
		} else {
			adaptCollection(now)
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

// garbagePercent is the share of what is alive that garbageRoom is.
func garbagePercent(alive uint64) int {
	return max(int(100*garbageRoom/max(alive, leastAlive)), leastGarbage)
}
