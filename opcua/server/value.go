package server

import (
	"math"
	"reflect"

	"github.com/gopcua/opcua/ua"
)

// change says in which respects two samples of one attribute differ, and, in a monitored item, which differences count.
type change uint8

const (
	changeStatus change = 1 << iota
	changeValue
	changeTimestamp // of the source
)

// compare returns how b differs from a.
func compare(a, b *ua.DataValue) change {
	var c change
	if a.Status != b.Status {
		c |= changeStatus
	}
	if !sameVariant(a.Value, b.Value) {
		c |= changeValue
	}
	if !a.SourceTimestamp.Equal(b.SourceTimestamp) || a.SourcePicoseconds != b.SourcePicoseconds {
		c |= changeTimestamp
	}
	return c
}

// sameVariant compares floats by their bits, so that NaN is no change from NaN.
func sameVariant(a, b *ua.Variant) bool {
	if a == b {
		return true
	}
	if a == nil || b == nil || a.EncodingMask() != b.EncodingMask() {
		return false
	}
	switch x := a.Value().(type) {
	case bool, int8, uint8, int16, uint16, int32, uint32, int64, uint64, string, ua.StatusCode:
		return x == b.Value()
	case float64:
		y, ok := b.Value().(float64)
		return ok && math.Float64bits(x) == math.Float64bits(y)
	case float32:
		y, ok := b.Value().(float32)
		return ok && math.Float32bits(x) == math.Float32bits(y)
	}
	return reflect.DeepEqual(a.Value(), b.Value())
}

// Info bits of a status code that say that values of a queue were lost (Part 4 §7.39.1, table of info bits).
const (
	infoTypeDataValue ua.StatusCode = 1 << 10
	infoOverflow      ua.StatusCode = 1 << 7
)

// overflown returns dv with the overflow bit set. dv itself is shared by many items, so it is left alone.
func overflown(dv *ua.DataValue) *ua.DataValue {
	c := *dv
	c.Status |= infoTypeDataValue | infoOverflow
	c.EncodingMask |= ua.DataValueStatusCode
	return &c
}

// valueQueue holds the values of one monitored item that wait to be published (Part 4 §5.13.1.5). It grows as it fills.
type valueQueue struct {
	ring          []*ua.DataValue
	head, length  int
	size          int // the most that it holds, at least 1
	discardOldest bool
}

// push adds a value. If the queue is full, one is lost: the oldest, or the newest that it holds. The value next to
// the loss gets the overflow bit, and lost is true, except in a queue of one, where losing values is what was asked for.
func (q *valueQueue) push(dv *ua.DataValue) (lost bool) {
	if q.length < q.size {
		if q.length == len(q.ring) {
			q.grow(min(max(2*q.length, 1), q.size))
		}
		q.length++
		q.ring[q.at(q.length-1)] = dv
		return false
	}
	switch {
	case q.size == 1:
		q.ring[q.head] = dv
		return false
	case q.discardOldest:
		q.ring[q.head] = dv // The place of the oldest is the place after the newest.
		q.head = q.at(1)
		q.ring[q.head] = overflown(q.ring[q.head])
	default:
		q.ring[q.at(q.length-1)] = overflown(dv)
	}
	return true
}

// pop removes the oldest value. The queue must not be empty.
func (q *valueQueue) pop() *ua.DataValue {
	dv := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = q.at(1)
	q.length--
	return dv
}

// resize changes the size. What does not fit any more is lost as if it had been pushed into the smaller queue.
func (q *valueQueue) resize(size int, discardOldest bool) {
	old := *q
	*q = valueQueue{size: size, discardOldest: discardOldest}
	for old.length > 0 {
		q.push(old.pop())
	}
}

func (q *valueQueue) clear() { *q = valueQueue{size: q.size, discardOldest: q.discardOldest} }

func (q *valueQueue) grow(to int) {
	ring := make([]*ua.DataValue, to)
	for i := range q.length {
		ring[i] = q.ring[q.at(i)]
	}
	q.ring, q.head = ring, 0
}

// at returns the index in ring of the i-th value.
func (q *valueQueue) at(i int) int {
	if i += q.head; i >= len(q.ring) {
		i -= len(q.ring)
	}
	return i
}
