// A third-party OPC UA client, node-opcua, driven by the interop tests: one scenario a run, named by the first argument, with
// its options as JSON in the second. Each result is one line of JSON on standard output; the exit code is 0 unless the
// scenario could not be carried through.
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { OPCUACertificateManager } from "node-opcua-certificate-manager";
import {
  AttributeIds,
  BrowseDirection,
  ClientMonitoredItem,
  ClientSubscription,
  constructEventFilter,
  DataType,
  MessageSecurityMode,
  ofType,
  OPCUAClient,
  SecurityPolicy,
  TimestampsToReturn,
} from "node-opcua-client";

import { attempt } from "./attempt.mjs";
import { watch } from "./partitions.mjs";
import { steps } from "./services.mjs";

const [, , scenario, json] = process.argv;
const options = JSON.parse(json ?? "{}");

// Standard output is for results alone; node-opcua tells of certificates and the like there.
console.log = console.error;

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

// client makes a client; the PKI folder in its options may hold its certificate, and is where one is made otherwise.
async function client(extra = {}, from = options) {
  const certificates = new OPCUACertificateManager({ rootFolder: from.pki ?? path.join(os.tmpdir(), "quorate-interop-pki"), automaticallyAcceptUnknownCertificate: true });
  await certificates.initialize();
  return OPCUAClient.create({
    applicationName: "interop",
    applicationUri: from.applicationUri,
    clientCertificateManager: certificates,
    securityMode: MessageSecurityMode[from.mode ?? "None"],
    securityPolicy: SecurityPolicy[from.policy ?? "None"],
    connectionStrategy: { initialDelay: 100, maxDelay: 500, maxRetry: from.maxRetry ?? 3 },
    endpointMustExist: false,
    keepSessionAlive: true,
    requestedSessionTimeout: 20000,
    ...extra,
  });
}

// connect makes a client with a session, by the security of the options or another.
async function connect(extra = {}, endpoint = options.endpoint) {
  const c = await client(extra);
  await c.connect(endpoint);
  return { client: c, session: await c.createSession() };
}

async function withSession(extra, body) {
  const { client: c, session } = await connect(extra);
  try {
    return await body(session, c);
  } finally {
    await session.close();
    await c.disconnect();
  }
}

const plain = (dataValue) => {
  const v = dataValue.value?.value;
  return v instanceof Date ? v.toISOString() : ArrayBuffer.isView(v) ? Array.from(v) : v;
};

async function browse(session, nodeId) {
  // Small, so that BrowseNext is used too.
  session.requestedMaxReferencesPerNode = 4;
  let result = await session.browse({
    nodeId,
    browseDirection: BrowseDirection.Forward,
    referenceTypeId: "HierarchicalReferences",
    includeSubtypes: true,
    nodeClassMask: 0,
    resultMask: 63,
  });
  const names = {};
  for (;;) {
    for (const r of result.references ?? []) {
      names[r.browseName.name] = { nodeId: r.nodeId.toString(), type: r.typeDefinition?.toString() };
    }
    if (!result.continuationPoint) return names;
    result = await session.browseNext(result.continuationPoint, false);
  }
}

const scenarios = {
  // Reads and browses what a redundant client needs.
  async inspect() {
    await withSession({}, async (session) => {
      const ids = ["i=2267", "i=2254", "i=2255", "i=3709", "i=11314", "i=11313", "i=2259", "i=2258"];
      const values = await session.read(ids.map((nodeId) => ({ nodeId, attributeId: AttributeIds.Value })));
      const read = {};
      ids.forEach((id, i) => {
        read[id] = { status: values[i].statusCode.name, value: plain(values[i]), type: DataType[values[i].value?.dataType] };
      });
      const redundancyType = await session.browse({
        nodeId: "i=2296",
        browseDirection: BrowseDirection.Forward,
        referenceTypeId: "HasTypeDefinition",
        includeSubtypes: false,
        nodeClassMask: 0,
        resultMask: 63,
      });
      say({
        read,
        server: await browse(session, "i=2253"),
        redundancy: await browse(session, "i=2296"),
        redundancyType: redundancyType.references[0]?.nodeId.toString(),
      });
    });
  },

  // Says every value of ServiceLevel that its subscription is notified of, until standard input ends.
  async follow() {
    await withSession({}, async (session) => {
      const subscription = ClientSubscription.create(session, {
        requestedPublishingInterval: options.publishingInterval ?? 50,
        requestedLifetimeCount: 600,
        requestedMaxKeepAliveCount: 10,
        maxNotificationsPerPublish: 0,
        publishingEnabled: true,
        priority: 1,
      });
      const item = ClientMonitoredItem.create(
        subscription,
        { nodeId: options.nodeId ?? "i=2267", attributeId: AttributeIds.Value },
        { samplingInterval: 0, discardOldest: true, queueSize: 100 },
        TimestampsToReturn.Both,
      );
      item.on("changed", (dataValue) => say({ value: plain(dataValue), status: dataValue.statusCode.name, at: Date.now() }));
      item.on("err", (message) => say({ error: message }));
      for await (const _ of readline.createInterface({ input: process.stdin }));
      await subscription.terminate();
    });
  },

  // Says the level of every event that tells of a changed ServiceLevel, after the level at which it begins, until standard input ends.
  async events() {
    await withSession({}, async (session) => {
      const subscription = await session.createSubscription2({
        requestedPublishingInterval: 50, requestedLifetimeCount: 600, requestedMaxKeepAliveCount: 10, publishingEnabled: true,
      });
      const filter = constructEventFilter(["SourceName", "Severity", "Message", "2:Level"], ofType("ns=2;s=types/LevelChangedEventType"));
      const item = await subscription.monitor(
        { nodeId: "i=2253", attributeId: AttributeIds.EventNotifier },
        { samplingInterval: 0, discardOldest: true, queueSize: 1000, filter },
        TimestampsToReturn.Both,
      );
      item.on("changed", ([source, severity, message, level]) => {
        const complete = source.value === "m1" && severity.value > 0 && message.value?.text?.includes(String(level.value));
        say({ value: level.value, status: complete ? "Good" : `incomplete: ${source} ${severity} ${message}` });
      });
      item.on("err", (message) => say({ error: message }));
      const now = await session.read({ nodeId: "i=2267", attributeId: AttributeIds.Value });
      say({ value: plain(now), status: now.statusCode.name });
      for await (const _ of readline.createInterface({ input: process.stdin }));
      await subscription.terminate();
    });
  },

  // Reads all through a number of renewals of the secure channel's token.
  async renew() {
    await withSession({ defaultSecureTokenLifetime: options.tokenLife }, async (session, c) => {
      let [reads, failures, renewals] = [0, 0, 0];
      let lastError;
      c.on("security_token_renewed", () => renewals++);
      const until = Date.now() + options.duration;
      while (Date.now() < until) {
        try {
          const v = await session.read({ nodeId: "i=2267", attributeId: AttributeIds.Value });
          if (v.statusCode.name !== "Good") throw new Error(v.statusCode.toString());
          reads++;
        } catch (err) {
          failures++;
          lastError = err.message;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      say({ reads, failures, renewals, lastError });
    });
  },

  // Reads one node's value once from each endpoint.
  async read() {
    for (const endpoint of options.endpoints) {
      const c = await client();
      await c.connect(endpoint);
      const session = await c.createSession();
      const v = await session.read({ nodeId: options.nodeId ?? "i=2267", attributeId: AttributeIds.Value });
      say({ endpoint, value: plain(v), status: v.statusCode.name });
      await session.close();
      await c.disconnect();
    }
  },

  // Stays with one server of the set while it can be read, goes to the next when it can't, and says each change of server or
  // level, until standard input ends.
  async failover() {
    const finder = await client();
    await finder.connect(options.endpoint);
    const servers = await finder.findServers();
    await finder.disconnect();
    const urls = servers.map((s) => s.discoveryUrls[0]);
    urls.sort((a, b) => Number(b === options.endpoint) - Number(a === options.endpoint));
    let ended = false;
    process.stdin.on("end", () => (ended = true)).resume();
    let last = "";
    for (let i = 0; !ended; i++) {
      const endpoint = urls[i % urls.length];
      const c = await client({ connectionStrategy: { initialDelay: 100, maxDelay: 200, maxRetry: 0 }, transportTimeout: 2000 });
      let lost = false;
      c.on("connection_lost", () => (lost = true));
      try {
        await c.connect(endpoint);
        const session = await c.createSession();
        while (!ended) {
          // A connection that was lost would be waited for: a redundant client goes on to the next server instead.
          if (lost) throw new Error("connection lost");
          const v = await session.read({ nodeId: "i=2267", attributeId: AttributeIds.Value });
          const line = { endpoint, value: plain(v), status: v.statusCode.name };
          if (JSON.stringify(line) !== last) say({ ...line, at: new Date().toISOString() });
          last = JSON.stringify(line);
          await new Promise((resolve) => setTimeout(resolve, options.interval ?? 200));
        }
      } catch (err) {
        say({ endpoint, error: err.message.split("\n")[0], at: new Date().toISOString() });
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      c.disconnect().catch(() => {});
    }
  },

  // Is subscribed at the first of some servers, and goes to the next when it has heard nothing for three keep-alive intervals, or the connection is lost. Says at
  // which it is; until standard input ends.
  async consumer() {
    let ended = false;
    process.stdin.on("end", () => (ended = true)).resume();
    const keepAlive = options.publishingInterval * options.keepAliveCount;
    for (let i = 0; !ended; i++) {
      const endpoint = options.endpoints[i % options.endpoints.length];
      const c = await client({
        requestedSessionTimeout: options.sessionTimeout, keepSessionAlive: false, transportTimeout: keepAlive,
        connectionStrategy: { initialDelay: 50, maxDelay: 100, maxRetry: 0 },
      });
      let heard = Date.now();
      let lost = false;
      c.on("connection_lost", () => (lost = true)).on("close", () => (lost = true));
      try {
        await c.connect(endpoint);
        const session = await c.createSession();
        const subscription = await session.createSubscription2({
          requestedPublishingInterval: options.publishingInterval, requestedMaxKeepAliveCount: options.keepAliveCount,
          requestedLifetimeCount: 10 * options.keepAliveCount, publishingEnabled: true,
        });
        subscription.on("keepalive", () => (heard = Date.now()));
        const item = await subscription.monitor({ nodeId: "i=2267", attributeId: AttributeIds.Value }, { samplingInterval: 0, discardOldest: true, queueSize: 1 }, TimestampsToReturn.Both);
        item.on("changed", (v) => {
          heard = Date.now();
          say({ endpoint, value: plain(v), status: v.statusCode.name });
        });
        while (!ended && !lost && Date.now() - heard < 3 * keepAlive) await new Promise((resolve) => setTimeout(resolve, 20));
      } catch (err) {
        say({ endpoint, error: err.message.split("\n")[0] });
      }
      c.disconnect().catch(() => {});
    }
    process.exit(0); // A connection to a server that is silent would be waited for.
  },

  // Makes an attempt for each line of standard input, and says what came of it.
  async attempts() {
    for await (const line of readline.createInterface({ input: process.stdin })) {
      const wanted = { ...options, ...JSON.parse(line) };
      say(await attempt(wanted, () => client({ connectionStrategy: { initialDelay: 100, maxDelay: 100, maxRetry: 0 } }, wanted)));
    }
  },

  // Follows ServiceLevel at every endpoint, each of which has a name, and comes back where a connection is lost. Says each value, and each loss and why
  // there is no connection, once; until standard input ends.
  async levels() {
    let ended = false;
    const end = new Promise((resolve) => process.stdin.on("end", () => resolve((ended = true))).resume());
    await Promise.all(Object.entries(options.endpoints).map(async ([server, endpoint]) => {
      let last;
      while (!ended) {
        const c = await client({ connectionStrategy: { initialDelay: 50, maxDelay: 100, maxRetry: 0 }, transportTimeout: 4000, keepSessionAlive: false });
        let error;
        try {
          const lost = new Promise((resolve) => c.on("connection_lost", () => resolve("connection lost")).on("close", () => resolve("connection lost")));
          await c.connect(endpoint);
          const session = await c.createSession();
          session.on("session_closed", () => {});
          const subscription = await session.createSubscription2({
            requestedPublishingInterval: options.publishingInterval ?? 50, requestedLifetimeCount: 600, requestedMaxKeepAliveCount: 10, publishingEnabled: true,
          });
          const item = await subscription.monitor(
            { nodeId: "i=2267", attributeId: AttributeIds.Value }, { samplingInterval: 0, discardOldest: true, queueSize: 100 }, TimestampsToReturn.Both,
          );
          item.on("changed", (v) => {
            last = undefined;
            say({ server, value: plain(v), status: v.statusCode.name, at: Date.now() });
          });
          error = await Promise.race([lost, end]);
        } catch (err) {
          error = err.message.split("\n")[0];
        }
        if (!ended && error !== last) say({ server, error, at: Date.now() });
        last = error;
        c.disconnect().catch(() => {});
        if (!ended) await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }));
  },

  // Browses the folder of partitions, and follows one of them.
  async partitions() {
    await withSession({}, (session) => watch(session, options, say, readline.createInterface({ input: process.stdin })));
  },

  // Takes every step through the services, and says how each ended.
  async services() {
    await withSession({}, async (session) => {
      for (const [set, service, what, step] of steps) {
        let error;
        try {
          await step({ session, connect, options });
        } catch (err) {
          error = String(err.stack);
        }
        say({ set, service, what, error });
      }
    });
  },

  // Connects in every way that the endpoints offer, reads, and waits for the first value of a subscription.
  async matrix() {
    const finder = await client();
    await finder.connect(options.endpoint);
    const endpoints = await finder.getEndpoints();
    await finder.disconnect();
    for (const { securityPolicyUri, securityMode } of endpoints) {
      const mode = MessageSecurityMode[securityMode];
      const policy = securityPolicyUri.split("#")[1];
      let error;
      try {
        const { client: c, session } = await connect({ securityMode, securityPolicy: securityPolicyUri });
        const read = await session.read({ nodeId: "i=2267", attributeId: AttributeIds.Value });
        if (plain(read) !== 255) throw new Error(`ServiceLevel reads ${read}`);
        const subscription = await session.createSubscription2({
          requestedPublishingInterval: 50, requestedLifetimeCount: 600, requestedMaxKeepAliveCount: 10, publishingEnabled: true,
        });
        const item = ClientMonitoredItem.create(subscription, { nodeId: "i=2267", attributeId: AttributeIds.Value }, { samplingInterval: 0, queueSize: 1 }, TimestampsToReturn.Both);
        const first = await new Promise((resolve, reject) => item.once("changed", resolve).once("err", reject));
        if (plain(first) !== 255) throw new Error(`ServiceLevel is notified as ${first}`);
        await subscription.terminate();
        await session.close();
        await c.disconnect();
      } catch (err) {
        error = String(err.stack);
      }
      say({ policy, mode, error });
    }
  },

  // Asks for the servers of the set and for this server's endpoints.
  async discover() {
    const c = await client();
    await c.connect(options.endpoint);
    const servers = await c.findServers();
    const endpoints = await c.getEndpoints();
    await c.disconnect();
    say({
      servers: servers.map((s) => ({ uri: s.applicationUri, urls: s.discoveryUrls })),
      endpoints: endpoints.map((e) => ({
        url: e.endpointUrl,
        policy: e.securityPolicyUri,
        mode: MessageSecurityMode[e.securityMode],
        uri: e.server.applicationUri,
      })),
    });
  },
};

if (!scenarios[scenario]) throw new Error(`no scenario ${scenario}: one of ${Object.keys(scenarios).join(", ")}`);
await scenarios[scenario]();
process.exit(0);
