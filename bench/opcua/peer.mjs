// The server to measure beside Quorate's: node-opcua's, with anonymous users, no security and Basic256Sha256, and room for all
// sessions of the benchmark. Its options are JSON in the first argument: the port, and a folder for its certificates. When it
// can be reached it prints its endpoint as one line of JSON; it ends when standard input does.
import path from "node:path";
import { OPCUACertificateManager } from "node-opcua-certificate-manager";
import { OPCUAServer } from "node-opcua-server";
import { DataType, Variant } from "node-opcua-variant";

const { port, data, sessions } = JSON.parse(process.argv[2]);

// Standard output is for the endpoint alone.
console.log = console.error;

const manager = async (name) => {
  const m = new OPCUACertificateManager({ rootFolder: path.join(data, name), automaticallyAcceptUnknownCertificate: true });
  await m.initialize();
  return m;
};

const server = new OPCUAServer({
  port,
  hostname: "127.0.0.1",
  serverCertificateManager: await manager("pki"),
  userCertificateManager: await manager("users"),
  securityModes: [1, 3], // None and SignAndEncrypt (Part 4 §7.20)
  securityPolicies: ["http://opcfoundation.org/UA/SecurityPolicy#None", "http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256"],
  allowAnonymous: true,
  maxConnectionsPerEndpoint: sessions + 100,
  serverCapabilities: { maxSessions: sessions + 100, maxSubscriptions: sessions + 100, maxMonitoredItems: sessions + 100 },
});
await server.initialize();
// Its CurrentTime may be sampled once a second only, so a clock stands beside it.
const clock = server.engine.addressSpace.getOwnNamespace().addVariable({
  organizedBy: server.engine.addressSpace.rootFolder.objects,
  browseName: "Clock",
  nodeId: "s=clock",
  dataType: "DateTime",
  minimumSamplingInterval: 100,
  value: { get: () => new Variant({ dataType: DataType.DateTime, value: new Date() }) },
});
await server.start();
process.stdout.write(JSON.stringify({ endpoint: `opc.tcp://127.0.0.1:${port}`, clock: clock.nodeId.toString() }) + "\n");
process.stdin.on("end", () => process.exit(0)).resume();
