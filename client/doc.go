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
// one to start from.
package client
