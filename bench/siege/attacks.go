package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"

	"github.com/gopcua/opcua/ua"

	"quorate/bench/client"
	"quorate/opcua/wire"
)

// attack is one way to harm a server. Its workers do their work again and again, whatever comes of it, until the end.
type attack struct {
	name    string
	short   bool // in the short form too
	workers int
	work    func(context.Context, *attacker) error
}

const (
	few      = 8
	many     = 64
	hundreds = 400
	// crowd is how many connections one address may hold, and some more.
	crowd = 1_250
)

// attacks are those of opcua.md §1 and issue 3, and those that cost a server most. First come those that need no session.
var attacks = []attack{
	{name: "idle_connections", short: true, workers: crowd, work: idle},
	{name: "connect_and_reset", short: true, workers: few, work: reset},
	{name: "garbage", workers: few, work: garbage},
	{name: "reverse_hello", workers: few, work: reverseHello},
	{name: "unfinished_chunks", short: true, workers: many, work: onChannel(unfinishedChunks)},
	{name: "nested_variants", workers: few, work: onChannel(bodies(nestedVariants()))},
	{name: "array_and_string_bombs", workers: few, work: onChannel(bodies(bombs()...))},
	{name: "without_session", workers: few, work: onChannel(flood(withoutSession))},
	{name: "discovery", workers: few, work: onChannel(flood(discovery))},
	{name: "sessions_never_activated", workers: few, work: onChannel(flood(sessionsNeverActivated))},
	{name: "policy_downgrade", workers: few, work: downgrade},
	{name: "opn_invalid_signature", workers: few, work: replay(invalidOPN)},
	{name: "opn_untrusted", workers: few, work: replay(strangersOPN)},
	{name: "opn_many_certificates", workers: few, work: manyCertificates},
	{name: "opn_trusted", short: true, workers: few, work: replay(trustedOPN)},
	{name: "opn_trusted_from_everywhere", workers: many, work: replay(trustedOPN)},
	{name: "wrong_passwords", short: true, workers: few, work: wrongPasswords},

	{name: "renewals", workers: few, work: onChannel(renewals)},
	{name: "secure_renewals", workers: few, work: secureRenewals},
	{name: "sessions_made_and_closed", workers: few, work: sessionStorm},
	{name: "slow_reader", short: true, workers: hundreds, work: inSession(slowReader)},
	{name: "stalled_subscribers", workers: many, work: inSession(stalledSubscriber)},
	{name: "publishing_interval_0", workers: few, work: inSession(subscriptionStorm)},
	{name: "items_made_and_deleted", workers: few, work: inSession(itemStorm)},
	{name: "unknown_ids", workers: few, work: inSession(flood(unknownIDs))},
	{name: "writes", workers: few, work: inSession(flood(writes))},
	{name: "publish_requests", workers: few, work: inSession(flood(publishRequests))},
	{name: "event_filters", workers: few, work: inSession(eventFilters)},
	{name: "single_reads", workers: many, work: inSession(flood(singleReads))},
	{name: "reads_of_1000", short: true, workers: few, work: inSession(flood(bigReads(1000)))},
	{name: "reads_of_200", workers: many, work: inSession(flood(bigReads(200)))},
	{name: "browse_big_folders", short: true, workers: few, work: inSession(flood(browse(1000)))},
	{name: "browse_from_many", workers: many, work: inSession(flood(browse(100)))},
	{name: "browse_paths", workers: few, work: inSession(flood(browsePaths))},
	{name: "method_calls", workers: few, work: inSession(methodCalls)},
}

// idle holds a connection, which the server gives to somebody else when it needs the place.
func idle(ctx context.Context, a *attacker) error {
	c, err := dial(ctx, a.Endpoint, attackerAddress)
	if err != nil {
		return err
	}
	defer closing(ctx, c)()
	a.rounds.Add(1)
	_, err = io.Copy(io.Discard, c)
	return err
}

func reset(ctx context.Context, a *attacker) error {
	c, err := dial(ctx, a.Endpoint, attackerAddress)
	if err != nil {
		return err
	}
	a.rounds.Add(1)
	return errors.Join(c.SetLinger(0), c.TCPConn.Close())
}

// garbage sends bytes that mean nothing, to a new connection or behind a channel's opening.
func garbage(ctx context.Context, a *attacker) error {
	begin := open
	if rand.N(2) == 0 {
		begin = dial
	}
	c, err := begin(ctx, a.Endpoint, attackerAddress)
	if err != nil {
		return err
	}
	defer closing(ctx, c)()
	noise := make([]byte, 1<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for range 64 {
		if c.write(noise) != nil {
			break
		}
	}
	a.rounds.Add(1)
	return nil
}

func reverseHello(ctx context.Context, a *attacker) error {
	c, err := dial(ctx, a.Endpoint, attackerAddress)
	if err != nil {
		return err
	}
	defer closing(ctx, c)()
	err = c.write(client.Frame("RHEF", client.Field([]byte("urn:siege")), client.Field([]byte(a.Endpoint))))
	a.rounds.Add(1)
	return err
}

// unfinishedChunks begins requests of the largest size and finishes none.
func unfinishedChunks(_ context.Context, a *attacker, c *conn) error {
	part := make([]byte, client.MaxChunk-client.HeaderLength-4-client.SequenceLength)
	for range 31 {
		b, err := c.Append(nil, "MSGC", part)
		if err != nil {
			return err
		}
		// All chunks belong to one request.
		copy(b[client.HeaderLength+4+4:], client.Words(1))
		if err := c.write(b); err != nil {
			return err
		}
		a.rounds.Add(1)
	}
	_, err := io.Copy(io.Discard, c)
	return err
}

// bodies floods a channel with requests that are encoded already.
func bodies(list ...[]byte) func(context.Context, *attacker, *conn) error {
	return func(_ context.Context, a *attacker, c *conn) error { return c.floodBodies(a, list) }
}

// writeOf begins a WriteRequest of one value, up to where the value's Variant begins.
func writeOf(variant []byte) []byte {
	b, err := wire.AppendMessage(nil, &ua.WriteRequest{
		RequestHeader: new(ua.RequestHeader),
		NodesToWrite: []*ua.WriteValue{{NodeID: serverNode, AttributeID: ua.AttributeIDValue,
			Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(byte(0))}}},
	})
	if err != nil {
		panic(err) // It is the same at each start.
	}
	return append(b[:len(b)-2], variant...)
}

// nestedVariants is a value in a value in a value…, 12,000 times.
func nestedVariants() []byte {
	const variantOfVariants = 24 | 0x80
	var b []byte
	for range 12_000 {
		b = append(b, variantOfVariants, 1, 0, 0, 0)
	}
	return writeOf(b)
}

// bombs are requests whose lengths say that much follows, or less than nothing.
func bombs() (list [][]byte) {
	for _, n := range []uint32{0x7fffffff, 0xfffffffe, 0x80000000, 1 << 24} {
		for _, kind := range []byte{12, 15, 22, 24} { // String, ByteString, ExtensionObject, Variant
			list = append(list, writeOf(append([]byte{kind | 0x80}, client.Words(n, 0)...)), writeOf(append([]byte{kind}, client.Words(n, 0)...)))
		}
	}
	// The largest array that has nothing in it: two bytes for each node.
	nodes := make([]*ua.NodeID, 30_000)
	for i := range nodes {
		nodes[i] = ua.NewTwoByteNodeID(0)
	}
	b, err := wire.AppendMessage(nil, &ua.RegisterNodesRequest{RequestHeader: new(ua.RequestHeader), NodesToRegister: nodes})
	if err != nil {
		panic(err) // It is the same at each start.
	}
	return append(list, b)
}
