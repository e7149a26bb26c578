// One try after another to get in, as somebody, and to do what not everyone may: each is asked for by a line of JSON.
import { X509Certificate } from "node:crypto";
import fs from "node:fs";
import { AttributeIds, CallMethodRequest, DataType, UserTokenType, Variant } from "node-opcua-client";

const ids = { server: "i=2253", serviceLevel: "i=2267", requestServerStateChange: "i=12886" };
const states = { Running: 0, Suspended: 3 };

// identity is the user of an attempt, in the words of node-opcua.
function identity({ user, password, userCertificate, userKey }) {
  if (user) return { type: UserTokenType.UserName, userName: user, password };
  if (!userCertificate) return { type: UserTokenType.Anonymous };
  return {
    type: UserTokenType.Certificate,
    certificateData: new X509Certificate(fs.readFileSync(userCertificate)).raw,
    privateKey: fs.readFileSync(userKey, "utf8"),
  };
}

// refusal is the status that an error tells of, or all of it where it tells of none.
const refusal = (err) => String(err.message).match(/\bBad[A-Z]\w+/)?.[0] ?? String(err.stack);

// claim has node-opcua name an ApplicationUri that need not be its certificate's, as it would do itself.
const claim = (client, applicationUri) =>
  client.on("send_request", (request) => {
    if (request.clientDescription) request.clientDescription.applicationUri = applicationUri;
  });

// change asks for another state of the server.
async function change(session, state) {
  const answer = await session.call(new CallMethodRequest({
    objectId: ids.server, methodId: ids.requestServerStateChange,
    inputArguments: [
      { dataType: DataType.Int32, value: states[state] },
      { dataType: DataType.DateTime, value: new Date(Date.now() + 3600000) },
      { dataType: DataType.UInt32, value: 0 },
      { dataType: DataType.LocalizedText, value: { text: "new bearings" } },
      { dataType: DataType.Boolean, value: false },
    ].map((a) => new Variant(a)),
  }));
  return answer.statusCode.name;
}

// attempt connects by make, which makes a client of the attempt, and tells of each thing that was done which status answered it.
export async function attempt(wanted, make) {
  const client = await make(wanted);
  claim(client, wanted.applicationUri);
  try {
    await client.connect(wanted.endpoint);
    const session = await client.createSession(identity(wanted));
    const read = await session.read({ nodeId: ids.serviceLevel, attributeId: AttributeIds.Value });
    const write = await session.write({ nodeId: ids.serviceLevel, attributeId: AttributeIds.Value, value: { value: { dataType: DataType.Byte, value: 1 } } });
    const done = { read: read.statusCode.name, write: write.name, change: [] };
    for (const state of wanted.change ?? []) done.change.push(await change(session, state));
    await session.close();
    return done;
  } catch (err) {
    return { refused: refusal(err) };
  } finally {
    await client.disconnect();
  }
}
