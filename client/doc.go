// Package client is for programs that use a group of Quorate: proxies, gateways, historians.
//
// [Open] gives a [Client], which knows the members of a group and sends each call to one that answers: changes to the leader where it is known,
// reads to any. All services of quorate.v1 are there as their generated clients ([Client.Partitions], [Client.Topology] and so on); what they have in
// common is done once, below them:
//
//   - A change gets a request id if it has none, once, before it is first sent. After a failure that leaves its outcome open it is sent again under that
//     id until the context ends, which is safe: the group answers a repeated request with the first answer.
//   - What a member refuses is never sent again. The [Error] has the stable reason, the details and the fields.
//   - Reads are sent to another member when one fails.
//   - A member that is gone, frozen or out of service is not asked while others are there.
//
// [Client.Watch] tells what changed, in order, none missed and none twice, and goes on at another member when one is lost.
// [Client.FollowPartitions] lists all partitions and then tells what becomes of them.
//
// A [Gate] answers, from memory, whether a write to a partition may be made now, and where. It is what a proxy is built on: client/example/proxy is
// one to start from, and docs/partitions.md says what is promised and what is not.
//
//	pass, err := gate.Enter(ctx, "p7")
//	if err != nil {
//		return err // Nobody may write now, there is no such partition, or the group can't be asked.
//	}
//	defer pass.Done()
//	ctx, cancel := context.WithDeadline(ctx, pass.Deadline)
//	defer cancel()
//	return store[pass.Placement].Write(ctx, pass.Epoch, value)
//
// A write that was let in must have landed by Pass.Deadline, or never will: that is what the drain barrier of a migration relies on. The deadline is the moment of
// the check, by the monotonic clock of this process, plus the write time-out: GateOptions.WriteTimeout, or the group's min_drain_barrier less 2 % (the leader's
// clock, which counts the barrier, may be faster), whichever is less. It is checked by whoever makes the write, not by the gate. Who can't keep to it, such as a
// process that may be stopped between its last look at the clock and the write, has the store refuse whatever comes under an epoch lower than it has seen. Done says
// that the write has ended; where its outcome isn't known, that is at the deadline.
package client
