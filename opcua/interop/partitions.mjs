// The folder of partitions, which no server could build of objects: by pages, by a path, and one of them through a migration.
import { AttributeIds, BrowseDirection, constructEventFilter, makeBrowsePath, ofType, TimestampsToReturn } from "node-opcua-client";

// pages browses a folder by pages of a size.
async function pages(session, nodeId, size) {
  session.requestedMaxReferencesPerNode = size;
  let result = await session.browse({
    nodeId, browseDirection: BrowseDirection.Forward, referenceTypeId: "Organizes", includeSubtypes: true, nodeClassMask: 0, resultMask: 63,
  });
  const found = [];
  for (let number = 1; ; number++) {
    if (result.statusCode.name !== "Good" || result.references.length > size) throw new Error(`page ${number} of ${nodeId}: ${result}`);
    found.push(...result.references.map((r) => r.nodeId.toString()));
    if (!result.continuationPoint) return { number, count: found.length, distinct: new Set(found).size, first: found[0], last: found.at(-1) };
    result = await session.browseNext(result.continuationPoint, false);
  }
}

// watch says what there is, and then each value of a partition's variables and each event of partitions, until input ends.
export async function watch(session, { partition, size }, say, input) {
  const folder = await pages(session, "ns=2;s=partitions", size);
  const path = await session.translateBrowsePath(makeBrowsePath("RootFolder", `/Objects/2:Quorate/2:Partitions/2:${partition}/2:Phase`));
  const unknown = await session.read({ nodeId: `ns=2;s=partitions/${partition}x/Phase`, attributeId: AttributeIds.Value });
  say({ folder, target: path.targets?.[0]?.targetId.toString(), unknown: unknown.statusCode.name });

  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 50, requestedLifetimeCount: 600, requestedMaxKeepAliveCount: 10, publishingEnabled: true,
  });
  const filter = constructEventFilter(["EventType", "SourceNode", "2:Phase", "2:Epoch"], ofType("ns=2;s=types/PartitionEventType"));
  const events = await subscription.monitor(
    { nodeId: "i=2253", attributeId: AttributeIds.EventNotifier }, { samplingInterval: 0, discardOldest: true, queueSize: 1000, filter }, TimestampsToReturn.Both,
  );
  events.on("changed", ([type, source, phase, epoch]) =>
    say({ event: `${type.value} ${source.value} ${phase.value ?? ""} ${epoch.value?.[1] ?? epoch.value}` }));
  for (const name of ["Placement", "Phase"]) {
    const item = await subscription.monitor(
      { nodeId: `ns=2;s=partitions/${partition}/${name}`, attributeId: AttributeIds.Value }, { samplingInterval: 0, discardOldest: true, queueSize: 100 }, TimestampsToReturn.Both,
    );
    item.on("changed", (v) => say({ name, value: v.statusCode.name === "Good" ? v.value.value : v.statusCode.name }));
  }
  for await (const _ of input);
  await subscription.terminate();
}
