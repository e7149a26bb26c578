// What the interop test has node-opcua do with every service that its client can call: a list of steps, each with the service
// set and service (Part 4 §5) that it is about, what it does, and how. A step throws unless everything is as the standard says.
import assert from "node:assert/strict";
import net from "node:net";
import {
  AttributeIds,
  BrowseDirection,
  CallMethodRequest,
  CancelRequest,
  DataChangeFilter,
  DataChangeTrigger,
  DataType,
  DeadbandType,
  HistoryReadRequest,
  makeBrowsePath,
  MonitoringMode,
  PublishRequest,
  QueryFirstRequest,
  RegisterServer2Request,
  ReadRawModifiedDetails,
  ReadRequest,
  RepublishRequest,
  StatusChangeNotification,
  TimestampsToReturn,
  Variant,
} from "node-opcua-client";

const ids = {
  server: "i=2253",
  serverArray: "i=2254",
  namespaceArray: "i=2255",
  serverStatus: "i=2256",
  currentTime: "i=2258",
  serviceLevel: "i=2267",
  getMonitoredItems: "i=11492",
  resendData: "i=12873",
};

const status = (code) => code.name;

// send sends a request for which node-opcua's session has no method of its own.
const send = (session, request) =>
  new Promise((resolve, reject) => session.performMessageTransaction(request, (err, response) => (err ? reject(err) : resolve(response))));

// fault wants a whole call to fail with a status.
async function fault(name, call) {
  await assert.rejects(call, (err) => {
    assert.match(String(err.message), new RegExp(name));
    return true;
  });
}

async function attribute(session, nodeId, attributeId, more = {}) {
  return session.read({ nodeId, attributeId, ...more });
}

// subscribe makes a subscription without node-opcua's own publishing, so that a step has each message in its hands.
async function subscribe(session, more = {}) {
  const r = await session.createSubscription({
    requestedPublishingInterval: 50,
    requestedLifetimeCount: 600,
    requestedMaxKeepAliveCount: 100,
    maxNotificationsPerPublish: 0,
    publishingEnabled: true,
    priority: 1,
    ...more,
  });
  return r.subscriptionId;
}

async function monitor(session, subscriptionId, nodeId, more = {}, mode = MonitoringMode.Reporting) {
  const r = await session.createMonitoredItems({
    subscriptionId,
    timestampsToReturn: TimestampsToReturn.Both,
    itemsToCreate: [
      {
        itemToMonitor: { nodeId, attributeId: AttributeIds.Value },
        monitoringMode: mode,
        requestedParameters: { clientHandle: 7, samplingInterval: 50, queueSize: 10, discardOldest: true, ...more },
      },
    ],
  });
  assert.equal(status(r.results[0].statusCode), "Good");
  return r.results[0].monitoredItemId;
}

const publish = (session, acknowledge = []) =>
  new Promise((resolve, reject) =>
    session.publish(new PublishRequest({ requestHeader: { timeoutHint: 10000 }, subscriptionAcknowledgements: acknowledge }), (err, r) =>
      err ? reject(err) : resolve(r),
    ),
  );

// values are the values of a message, with their statuses; a keep-alive has none.
const values = (response) =>
  (response.notificationMessage.notificationData ?? []).flatMap((data) =>
    data.monitoredItems.map((n) => ({ handle: n.clientHandle, value: n.value.value.value, status: n.value.statusCode })),
  );

// drop ends a subscription and waits for what that tells the Publish requests that are left.
const drop = (session, subscriptionId) => session.deleteSubscriptions({ subscriptionIds: [subscriptionId] });

// ended waits until a subscription is no longer there.
async function ended(session, subscriptionId) {
  for (;;) {
    const r = await session.call({
      objectId: ids.server, methodId: ids.getMonitoredItems, inputArguments: [new Variant({ dataType: DataType.UInt32, value: subscriptionId })],
    });
    if (status(r.statusCode) === "BadSubscriptionIdInvalid") return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// breakable stands between a client and a server, and breaks all connections on demand, as a cable does.
async function breakable(endpoint) {
  const { hostname, port } = new URL(endpoint.replace("opc.tcp", "http"));
  const sockets = new Set();
  const proxy = net.createServer((near) => {
    const far = net.connect(Number(port), hostname);
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from);
      from.on("error", () => {}).on("close", () => to.destroy());
      from.pipe(to);
    }
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const end = () => sockets.forEach((s) => s.destroy());
  return { endpoint: `opc.tcp://127.0.0.1:${proxy.address().port}`, break: end, close: () => (end(), proxy.close()) };
}

// steps are run one after the other in one session; connect makes another client with a session, for those that need one.
export const steps = [
  ["Discovery", "RegisterServer2", "refused as not supported", async ({ session }) => {
    await fault("BadServiceUnsupported", () => send(session, new RegisterServer2Request({ server: { serverUri: "urn:quorate:interop" } })));
  }],
  ["Attribute", "Read", "several values in one call", async ({ session }) => {
    const v = await session.read([ids.serviceLevel, ids.currentTime, ids.serverArray].map((nodeId) => ({ nodeId, attributeId: AttributeIds.Value })));
    assert.deepEqual(v.map((x) => DataType[x.value.dataType]), ["Byte", "DateTime", "String"]);
    assert.ok(v.every((x) => status(x.statusCode) === "Good"));
  }],
  ["Attribute", "Read", "every attribute of a variable", async ({ session }) => {
    const want = {
      NodeId: (v) => assert.equal(v.toString(), "ns=0;i=2267"),
      NodeClass: (v) => assert.equal(v, 2),
      BrowseName: (v) => assert.equal(v.name, "ServiceLevel"),
      DisplayName: (v) => assert.equal(v.text, "ServiceLevel"),
      Value: (v) => assert.equal(v, 255),
      DataType: (v) => assert.equal(v.toString(), "ns=0;i=3"),
      ValueRank: (v) => assert.equal(v, -1),
      AccessLevel: (v) => assert.equal(v & 3, 1),
      UserAccessLevel: (v) => assert.equal(v & 3, 1),
      Historizing: (v) => assert.equal(v, false),
    };
    for (const [name, check] of Object.entries(want)) {
      const v = await attribute(session, ids.serviceLevel, AttributeIds[name]);
      assert.equal(status(v.statusCode), "Good", name);
      check(v.value.value);
    }
    assert.equal(status((await attribute(session, ids.serviceLevel, AttributeIds.EventNotifier)).statusCode), "BadAttributeIdInvalid");
  }],
  ["Attribute", "Read", "index ranges", async ({ session }) => {
    const all = (await attribute(session, ids.namespaceArray, AttributeIds.Value)).value.value;
    const range = (indexRange) => attribute(session, ids.namespaceArray, AttributeIds.Value, { indexRange });
    assert.deepEqual((await range("0")).value.value, all.slice(0, 1));
    assert.deepEqual((await range("1:2")).value.value, all.slice(1, 3));
    assert.equal(status((await range("100:101")).statusCode), "BadIndexRangeNoData");
  }],
  ["Attribute", "Read", "timestamps to return, and maxAge", async ({ session }) => {
    const stamped = async (timestampsToReturn) => {
      const r = await send(session, new ReadRequest({
        maxAge: 0, timestampsToReturn, nodesToRead: [{ nodeId: ids.currentTime, attributeId: AttributeIds.Value }],
      }));
      return [Boolean(r.results[0].sourceTimestamp), Boolean(r.results[0].serverTimestamp)];
    };
    assert.deepEqual(await stamped(TimestampsToReturn.Both), [true, true]);
    assert.deepEqual(await stamped(TimestampsToReturn.Source), [true, false]);
    assert.deepEqual(await stamped(TimestampsToReturn.Server), [false, true]);
    assert.deepEqual(await stamped(TimestampsToReturn.Neither), [false, false]);
  }],
  ["Attribute", "Read", "data encodings: the default one, and refused ones", async ({ session }) => {
    const as = (nodeId, dataEncoding) => attribute(session, nodeId, AttributeIds.Value, { dataEncoding });
    assert.equal(status((await as(ids.serverStatus, { name: "Default Binary" })).statusCode), "Good");
    assert.equal(status((await as(ids.serverStatus, { name: "Default XML" })).statusCode), "BadDataEncodingUnsupported");
    assert.equal(status((await as(ids.serviceLevel, { name: "Default Binary" })).statusCode), "BadDataEncodingInvalid");
  }],
  ["Attribute", "Read", "a node that is not there", async ({ session }) => {
    assert.equal(status((await attribute(session, "ns=2;s=nowhere", AttributeIds.Value)).statusCode), "BadNodeIdUnknown");
  }],
  ["Attribute", "Write", "refused on a read-only node", async ({ session }) => {
    const code = await session.write({ nodeId: ids.serviceLevel, attributeId: AttributeIds.Value, value: { value: { dataType: DataType.Byte, value: 1 } } });
    assert.equal(status(code), "BadNotWritable");
    assert.equal((await attribute(session, ids.serviceLevel, AttributeIds.Value)).value.value, 255);
  }],
  ["Attribute", "HistoryRead", "refused on a node without history", async ({ session }) => {
    const r = await session.historyRead(new HistoryReadRequest({
      historyReadDetails: new ReadRawModifiedDetails({ startTime: new Date(0), endTime: new Date(), numValuesPerNode: 10 }),
      nodesToRead: [{ nodeId: ids.serviceLevel }],
      timestampsToReturn: TimestampsToReturn.Both,
    }));
    assert.equal(status(r.results[0].statusCode), "BadHistoryOperationUnsupported");
  }],

  ["View", "Browse", "forwards, backwards, by reference type and by node class", async ({ session }) => {
    const browse = async (more) => {
      const r = await session.browse({
        nodeId: ids.server, browseDirection: BrowseDirection.Forward, referenceTypeId: "HierarchicalReferences", includeSubtypes: true,
        nodeClassMask: 0, resultMask: 63, ...more,
      });
      assert.equal(status(r.statusCode), "Good");
      return r.references.map((x) => x.browseName.name);
    };
    assert.ok((await browse({})).includes("ServiceLevel"));
    assert.ok(!(await browse({ nodeClassMask: 1 })).includes("ServiceLevel"));
    assert.ok((await browse({ nodeClassMask: 4 })).includes("GetMonitoredItems"));
    assert.deepEqual(await browse({ referenceTypeId: "HasTypeDefinition" }), ["ServerType"]);
    assert.deepEqual(await browse({ browseDirection: BrowseDirection.Inverse }), ["Objects"]);
  }],
  ["View", "BrowseNext", "page by page, and a released continuation point", async ({ session }) => {
    const all = session.requestedMaxReferencesPerNode;
    const first = () => session.browse({
      nodeId: ids.server, browseDirection: BrowseDirection.Forward, referenceTypeId: "HierarchicalReferences", includeSubtypes: true,
      nodeClassMask: 0, resultMask: 63,
    });
    session.requestedMaxReferencesPerNode = 3;
    const seen = new Set();
    let r = await first();
    for (let pages = 1; ; pages++) {
      assert.ok(r.references.length <= 3);
      r.references.forEach((x) => (assert.ok(!seen.has(x.nodeId.toString())), seen.add(x.nodeId.toString())));
      if (!r.continuationPoint?.length) {
        assert.ok(pages > 2);
        break;
      }
      r = await session.browseNext(r.continuationPoint, false);
    }
    r = await first();
    const point = r.continuationPoint;
    await session.browseNext(point, true);
    assert.equal(status((await session.browseNext(point, false)).statusCode), "BadContinuationPointInvalid");
    session.requestedMaxReferencesPerNode = all;
  }],
  ["View", "TranslateBrowsePathsToNodeIds", "a path that is there, and one that is not", async ({ session }) => {
    const good = await session.translateBrowsePath(makeBrowsePath("RootFolder", "/Objects/Server.ServerStatus.CurrentTime"));
    assert.equal(good.targets[0].targetId.toString(), "ns=0;i=2258");
    const bad = await session.translateBrowsePath(makeBrowsePath("RootFolder", "/Objects/Nothing"));
    assert.equal(status(bad.statusCode), "BadNoMatch");
  }],
  ["View", "RegisterNodes", "registered nodes are read", async ({ session }) => {
    const [registered] = await session.registerNodes([ids.serviceLevel]);
    assert.equal((await attribute(session, registered, AttributeIds.Value)).value.value, 255);
  }],
  ["View", "UnregisterNodes", "registered nodes are given back", async ({ session }) => {
    await session.unregisterNodes(await session.registerNodes([ids.serviceLevel]));
  }],
  ["Query", "QueryFirst", "refused as not supported", async ({ session }) => {
    await fault("BadServiceUnsupported", () => session.queryFirst(new QueryFirstRequest({ nodeTypes: [], maxDataSetsToReturn: 1 })));
  }],

  ["Method", "Call", "GetMonitoredItems names the items of a subscription", async ({ session }) => {
    const sub = await subscribe(session);
    const item = await monitor(session, sub, ids.serviceLevel);
    const r = await session.call({
      objectId: ids.server, methodId: ids.getMonitoredItems, inputArguments: [new Variant({ dataType: DataType.UInt32, value: sub })],
    });
    assert.equal(status(r.statusCode), "Good");
    assert.deepEqual(r.outputArguments.map((a) => Array.from(a.value)), [[item], [7]]);
    await drop(session, sub);
  }],
  ["Method", "Call", "ResendData gives the values again", async ({ session }) => {
    const sub = await subscribe(session);
    await monitor(session, sub, ids.serviceLevel);
    const first = await publish(session);
    assert.deepEqual(values(first).map((v) => v.value), [255]);
    const r = await session.call({
      objectId: ids.server, methodId: ids.resendData, inputArguments: [new Variant({ dataType: DataType.UInt32, value: sub })],
    });
    assert.equal(status(r.statusCode), "Good");
    assert.deepEqual(values(await publish(session)).map((v) => v.value), [255]);
    await drop(session, sub);
  }],
  ["Method", "Call", "wrong methods and arguments are refused", async ({ session }) => {
    const call = async (more) => status((await session.call(new CallMethodRequest({ objectId: ids.server, methodId: ids.getMonitoredItems, inputArguments: [], ...more }))).statusCode);
    assert.equal(await call({}), "BadArgumentsMissing");
    assert.equal(await call({ inputArguments: [{ dataType: DataType.String, value: "x" }] }), "BadInvalidArgument");
    assert.equal(await call({ inputArguments: [{ dataType: DataType.UInt32, value: 0xffffffff }] }), "BadSubscriptionIdInvalid");
    assert.equal(await call({ methodId: ids.serviceLevel }), "BadMethodInvalid");
    assert.equal(await call({ objectId: "ns=2;s=nowhere" }), "BadNodeIdUnknown");
  }],

  ["MonitoredItem", "CreateMonitoredItems", "sampled, with a queue that keeps the newest values", async ({ session }) => {
    const sub = await subscribe(session, { requestedPublishingInterval: 600 });
    await monitor(session, sub, ids.currentTime, { samplingInterval: 100, queueSize: 3, discardOldest: true });
    await publish(session); // Whatever the first cycle found.
    const got = values(await publish(session));
    assert.equal(got.length, 3);
    // A full queue says so by the overflow bit beside what was lost: here at the oldest value.
    assert.deepEqual(got.map((v) => v.status.hasOverflowBit), [true, false, false]);
    assert.ok(got[0].value < got[1].value && got[1].value < got[2].value);
    await drop(session, sub);
  }],
  ["MonitoredItem", "CreateMonitoredItems", "sampled, with a queue that keeps the oldest values", async ({ session }) => {
    const sub = await subscribe(session, { requestedPublishingInterval: 600 });
    await monitor(session, sub, ids.currentTime, { samplingInterval: 100, queueSize: 3, discardOldest: false });
    await publish(session);
    const got = values(await publish(session));
    assert.deepEqual(got.map((v) => v.status.hasOverflowBit), [false, false, true]);
    await drop(session, sub);
  }],
  ["MonitoredItem", "CreateMonitoredItems", "with a data-change filter and a dead-band", async ({ session }) => {
    const sub = await subscribe(session);
    const filter = new DataChangeFilter({ trigger: DataChangeTrigger.StatusValue, deadbandType: DeadbandType.Absolute, deadbandValue: 1 });
    await monitor(session, sub, ids.serviceLevel, { filter });
    assert.deepEqual(values(await publish(session)).map((v) => v.value), [255]);
    await drop(session, sub);
  }],
  ["MonitoredItem", "CreateMonitoredItems", "dead-bands that a value can't have are refused", async ({ session }) => {
    const sub = await subscribe(session);
    const refused = async (nodeId, deadbandType, deadbandValue) => {
      const filter = new DataChangeFilter({ trigger: DataChangeTrigger.StatusValue, deadbandType, deadbandValue });
      const item = { itemToMonitor: { nodeId, attributeId: AttributeIds.Value }, monitoringMode: MonitoringMode.Reporting, requestedParameters: { clientHandle: 1, samplingInterval: 100, queueSize: 1, filter } };
      const r = await session.createMonitoredItems({ subscriptionId: sub, timestampsToReturn: TimestampsToReturn.Both, itemsToCreate: [item] });
      return status(r.results[0].statusCode);
    };
    assert.equal(await refused(ids.serviceLevel, DeadbandType.Absolute, -1), "BadDeadbandFilterInvalid");
    assert.equal(await refused(ids.namespaceArray, DeadbandType.Absolute, 1), "BadFilterNotAllowed"); // Not a number.
    assert.equal(await refused(ids.serviceLevel, DeadbandType.Percent, 10), "BadMonitoredItemFilterUnsupported"); // It has no EURange.
    await drop(session, sub);
  }],
  ["MonitoredItem", "CreateMonitoredItems", "an unknown node is refused, and the others are made", async ({ session }) => {
    const sub = await subscribe(session);
    const item = (nodeId) => ({ itemToMonitor: { nodeId, attributeId: AttributeIds.Value }, monitoringMode: MonitoringMode.Reporting, requestedParameters: { clientHandle: 1, samplingInterval: 100, queueSize: 1 } });
    const r = await session.createMonitoredItems({ subscriptionId: sub, timestampsToReturn: TimestampsToReturn.Both, itemsToCreate: [item("ns=2;s=nowhere"), item(ids.serviceLevel)] });
    assert.deepEqual(r.results.map((x) => status(x.statusCode)), ["BadNodeIdUnknown", "Good"]);
    await drop(session, sub);
  }],
  ["MonitoredItem", "ModifyMonitoredItems", "another handle, sampling interval and queue size", async ({ session }) => {
    const sub = await subscribe(session);
    const item = await monitor(session, sub, ids.currentTime, { samplingInterval: 10000 });
    assert.deepEqual(values(await publish(session)).map((v) => v.handle), [7]);
    const r = await session.modifyMonitoredItems({
      subscriptionId: sub, timestampsToReturn: TimestampsToReturn.Both,
      itemsToModify: [{ monitoredItemId: item, requestedParameters: { clientHandle: 8, samplingInterval: 100, queueSize: 5 } }],
    });
    assert.deepEqual([status(r.results[0].statusCode), r.results[0].revisedSamplingInterval, r.results[0].revisedQueueSize], ["Good", 100, 5]);
    assert.equal(values(await publish(session))[0].handle, 8);
    await drop(session, sub);
  }],
  ["MonitoredItem", "SetMonitoringMode", "disabled, sampling and reporting", async ({ session }) => {
    const sub = await subscribe(session, { requestedMaxKeepAliveCount: 4 });
    const item = await monitor(session, sub, ids.serviceLevel, {}, MonitoringMode.Disabled);
    const mode = async (monitoringMode) => {
      const r = await session.setMonitoringMode({ subscriptionId: sub, monitoringMode, monitoredItemIds: [item] });
      assert.deepEqual(r.results.map(status), ["Good"]);
    };
    assert.deepEqual(values(await publish(session)), []); // A keep-alive.
    await mode(MonitoringMode.Sampling);
    assert.deepEqual(values(await publish(session)), []);
    await mode(MonitoringMode.Reporting);
    assert.deepEqual(values(await publish(session)).map((v) => v.value), [255]);
    await drop(session, sub);
  }],
  ["MonitoredItem", "SetTriggering", "a sampled item is reported when another one changes", async ({ session }) => {
    const sub = await subscribe(session, { requestedMaxKeepAliveCount: 4 });
    const linked = await monitor(session, sub, ids.serviceLevel, { clientHandle: 9 }, MonitoringMode.Sampling);
    const trigger = await monitor(session, sub, ids.currentTime, { clientHandle: 10, samplingInterval: 10000 }, MonitoringMode.Disabled);
    assert.deepEqual(values(await publish(session)), []);
    const r = await session.setTriggering({ subscriptionId: sub, triggeringItemId: trigger, linksToAdd: [linked], linksToRemove: [] });
    assert.deepEqual(r.addResults.map(status), ["Good"]);
    await session.setMonitoringMode({ subscriptionId: sub, monitoringMode: MonitoringMode.Reporting, monitoredItemIds: [trigger] });
    assert.deepEqual(values(await publish(session)).map((v) => v.handle).sort(), [10, 9]);
    await drop(session, sub);
  }],
  ["MonitoredItem", "DeleteMonitoredItems", "once, and not twice", async ({ session }) => {
    const sub = await subscribe(session);
    const item = await monitor(session, sub, ids.serviceLevel);
    const remove = async () => (await session.deleteMonitoredItems({ subscriptionId: sub, monitoredItemIds: [item] })).results.map(status);
    assert.deepEqual(await remove(), ["Good"]);
    assert.deepEqual(await remove(), ["BadMonitoredItemIdInvalid"]);
    await drop(session, sub);
  }],

  ["Subscription", "CreateSubscription", "intervals and counts are revised", async ({ session }) => {
    const r = await session.createSubscription({ requestedPublishingInterval: 0, requestedLifetimeCount: 1, requestedMaxKeepAliveCount: 10, publishingEnabled: true });
    assert.ok(r.revisedPublishingInterval > 0);
    assert.ok(r.revisedLifetimeCount >= 3 * r.revisedMaxKeepAliveCount);
    await drop(session, r.subscriptionId);
  }],
  ["Subscription", "Publish", "a keep-alive in the first cycle, and then values", async ({ session }) => {
    const sub = await subscribe(session);
    assert.deepEqual(values(await publish(session)), []);
    await monitor(session, sub, ids.serviceLevel);
    assert.deepEqual(values(await publish(session)).map((v) => v.value), [255]);
    await drop(session, sub);
  }],
  ["Subscription", "Publish", "acknowledgements", async ({ session }) => {
    const sub = await subscribe(session);
    await monitor(session, sub, ids.currentTime, { samplingInterval: 50 });
    const r = await publish(session);
    const sequenceNumber = r.notificationMessage.sequenceNumber;
    const acknowledged = await publish(session, [{ subscriptionId: sub, sequenceNumber }, { subscriptionId: sub, sequenceNumber: 1000000 }]);
    assert.deepEqual(acknowledged.results.map(status), ["Good", "BadSequenceNumberUnknown"]);
    assert.ok(!acknowledged.availableSequenceNumbers.includes(sequenceNumber));
    await drop(session, sub);
  }],
  ["Subscription", "Publish", "a value at every sampling interval", async ({ session }) => {
    const sub = await subscribe(session);
    await monitor(session, sub, ids.currentTime, { samplingInterval: 100 });
    let last = new Date(0);
    for (let seen = 0; seen < 10; ) {
      for (const { value } of values(await publish(session))) {
        assert.ok(value > last);
        last = value;
        seen++;
      }
    }
    await drop(session, sub);
  }],
  ["Subscription", "Publish", "BadTimeout for a subscription that nobody has asked about for its life-time", async ({ session }) => {
    const sub = await subscribe(session, { requestedLifetimeCount: 3, requestedMaxKeepAliveCount: 1 });
    await ended(session, sub);
    const { subscriptionId, notificationMessage } = await publish(session);
    const [change] = notificationMessage.notificationData;
    assert.equal(subscriptionId, sub);
    assert.ok(change instanceof StatusChangeNotification);
    assert.equal(status(change.status), "BadTimeout");
  }],
  ["Subscription", "ModifySubscription", "another publishing interval", async ({ session }) => {
    const sub = await subscribe(session, { requestedPublishingInterval: 60000 });
    const r = await session.modifySubscription({ subscriptionId: sub, requestedPublishingInterval: 100, requestedLifetimeCount: 600, requestedMaxKeepAliveCount: 2, maxNotificationsPerPublish: 0, priority: 1 });
    assert.equal(r.revisedPublishingInterval, 100);
    await monitor(session, sub, ids.serviceLevel);
    let got = [];
    while (got.length === 0) got = values(await publish(session));
    assert.deepEqual(got.map((v) => v.value), [255]);
    await drop(session, sub);
  }],
  ["Subscription", "SetPublishingMode", "off and on", async ({ session }) => {
    const sub = await subscribe(session, { publishingEnabled: false, requestedMaxKeepAliveCount: 3 });
    await monitor(session, sub, ids.serviceLevel);
    assert.deepEqual(values(await publish(session)), []);
    assert.deepEqual(values(await publish(session)), []);
    assert.deepEqual((await session.setPublishingMode(true, [sub])).map(status), ["Good"]);
    assert.deepEqual(values(await publish(session)).map((v) => v.value), [255]);
    await drop(session, sub);
  }],
  ["Subscription", "Republish", "a message once more, and one that is not there", async ({ session }) => {
    const sub = await subscribe(session);
    await monitor(session, sub, ids.serviceLevel);
    const { notificationMessage } = await publish(session);
    const again = await send(session, new RepublishRequest({ subscriptionId: sub, retransmitSequenceNumber: notificationMessage.sequenceNumber }));
    assert.deepEqual(values(again), values({ notificationMessage }));
    await fault("BadMessageNotAvailable", () => send(session, new RepublishRequest({ subscriptionId: sub, retransmitSequenceNumber: 1000000 })));
    await drop(session, sub);
  }],
  ["Subscription", "TransferSubscriptions", "after a broken connection, to another session", async ({ session, connect, options }) => {
    const cable = await breakable(options.endpoint);
    const lost = await connect({ connectionStrategy: { initialDelay: 100, maxDelay: 100, maxRetry: 0 } }, cable.endpoint);
    const sub = await subscribe(lost.session);
    await monitor(lost.session, sub, ids.serviceLevel);
    assert.deepEqual(values(await publish(lost.session)).map((v) => v.value), [255]);
    const broken = new Promise((resolve) => lost.client.once("connection_lost", resolve));
    cable.close();
    await broken;
    const r = await session.transferSubscriptions({ subscriptionIds: [sub], sendInitialValues: true });
    assert.equal(status(r.results[0].statusCode), "Good");
    assert.deepEqual(r.results[0].availableSequenceNumbers.length, 1); // It was not acknowledged.
    assert.deepEqual(values(await publish(session)).map((v) => v.value), [255]);
    await drop(session, sub);
    lost.client.disconnect().catch(() => {});
  }],
  ["Subscription", "DeleteSubscriptions", "once, and not twice", async ({ session }) => {
    const sub = await subscribe(session);
    assert.deepEqual((await drop(session, sub)).results.map(status), ["Good"]);
    assert.deepEqual((await drop(session, sub)).results.map(status), ["BadSubscriptionIdInvalid"]);
    await fault("BadNoSubscription", () => publish(session));
  }],

  ["Session", "ActivateSession", "on another channel after a broken connection", async ({ connect, options }) => {
    const cable = await breakable(options.endpoint);
    const { client, session } = await connect({ connectionStrategy: { initialDelay: 100, maxDelay: 200, maxRetry: 20 } }, cable.endpoint);
    const before = session.sessionId.toString();
    const back = new Promise((resolve) => session.once("session_restored", resolve));
    cable.break();
    await back;
    assert.equal(session.sessionId.toString(), before);
    assert.equal((await attribute(session, ids.serviceLevel, AttributeIds.Value)).value.value, 255);
    await session.close();
    await client.disconnect();
    cable.close();
  }],
  ["Session", "Cancel", "a parked Publish request", async ({ session }) => {
    const sub = await subscribe(session, { requestedPublishingInterval: 60000 });
    const request = new PublishRequest({ requestHeader: { timeoutHint: 60000 } });
    const waiting = fault("BadRequestCancelledByRequest|BadRequestCancelledByClient", () => send(session, request));
    const r = await send(session, new CancelRequest({ requestHandle: request.requestHeader.requestHandle }));
    assert.equal(r.cancelCount, 1);
    await waiting;
    await drop(session, sub);
  }],
  ["Session", "CloseSession", "and nothing after it", async ({ connect }) => {
    const { client, session } = await connect();
    await session.close();
    await assert.rejects(() => session.read({ nodeId: ids.serviceLevel, attributeId: AttributeIds.Value }));
    await client.disconnect();
  }],
];
