// Package traffic is what clients of all kinds do with a group while it is broken: each operation goes into a history, with what was asked, what came of it,
// and when, by one clock outside of all members.
//
// There is one file for each noun, with a [Workload] that sets up what it needs, runs until it is told to end, asks once for everything in the quiet period
// after the last fault, and reads everything at the end. A new slice adds one file here, one line in [All], and one file in jepsen/validate.
//
// What an operation's record holds:
//
//   - Noun, Kind and Key say what was asked: partition, cutover, p3. Input is the request and Output the answer, as the JSON of their messages.
//   - Member is who was asked, where it was one member alone; empty where the client library chose.
//   - A refusal has REASON: message as its error, and the details of it as {"details": {…}} in its output. It changed nothing.
//   - A change whose outcome is not known is unknown. All attempts of an operation have one request id, and an operation has one.
//   - A write that lands in a store upstream (kind land) names the check that let it in, and is made within [WriteLimit] of when that check was called.
//
// What is not an operation is a mark: events as watches tell them (event), leaders (leader), lines of the OPC UA failover client (failover), memory and
// goroutines (sample), and notes.
package traffic
