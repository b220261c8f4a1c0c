// A device with AWS's own SDK, driven through its standard streams: the first
// argument is its configuration, each line of the input a command, each line of
// the output the answer to one (n) or something that happened (event). Payloads
// are base64. jsdevice_test.go is the other end.
'use strict';

const { http, iot, mqtt, mqtt5 } = require('aws-iot-device-sdk-v2');
const readline = require('readline');

const config = JSON.parse(process.argv[2]);

// proxy leads to the server under names that this machine doesn't resolve.
function proxy() {
  return new http.HttpProxyOptions('127.0.0.1', config.proxy, undefined, undefined, undefined, undefined, http.HttpProxyConnectionType.Tunneling);
}

function say(what) {
  process.stdout.write(JSON.stringify(what) + '\n');
}

function base64(payload) {
  // The SDK gives an empty payload as a buffer that can't be read.
  return payload === undefined || payload.byteLength === 0 ? '' : Buffer.from(payload).toString('base64');
}

function bytes(text) {
  return Buffer.from(text ?? '', 'base64');
}

// Properties as the SDK names them, but for binary ones.
function outgoing(packet) {
  const out = { ...packet, payload: bytes(packet.payload) };
  if (packet.correlationData !== undefined) {
    out.correlationData = bytes(packet.correlationData);
  }
  return out;
}

function incoming(packet) {
  const { payload, correlationData, type, ...rest } = packet;
  const out = { ...rest, payload: base64(payload) };
  if (correlationData !== undefined) {
    out.correlationData = base64(correlationData);
  }
  return out;
}

const behaviors = {
  clean: mqtt5.ClientSessionBehavior.Clean,
  rejoin: mqtt5.ClientSessionBehavior.RejoinPostSuccess,
  always: mqtt5.ClientSessionBehavior.RejoinAlways,
};

function device5() {
  const builder = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath(config.host, config.cert, config.key);
  builder.withCertificateAuthorityFromPath(undefined, config.ca);
  builder.withPort(config.port);
  if (config.proxy) {
    builder.withHttpProxyOptions(proxy());
  }
  builder.withMinReconnectDelayMs(50);
  builder.withMaxReconnectDelayMs(500);
  builder.withSessionBehavior(behaviors[config.behavior ?? 'clean']);
  builder.withTopicAliasingOptions({
    outboundBehavior: config.aliases ? mqtt5.OutboundTopicAliasBehaviorType.LRU : mqtt5.OutboundTopicAliasBehaviorType.Disabled,
    inboundBehavior: config.aliases ? mqtt5.InboundTopicAliasBehaviorType.Enabled : mqtt5.InboundTopicAliasBehaviorType.Disabled,
  });
  const connect = { keepAliveIntervalSeconds: config.keepAlive ?? 60, clientId: config.clientId };
  for (const name of ['sessionExpiryIntervalSeconds', 'receiveMaximum', 'willDelayIntervalSeconds', 'userProperties']) {
    if (config[name] !== undefined) {
      connect[name] = config[name];
    }
  }
  if (config.will) {
    connect.will = outgoing(config.will);
  }
  builder.withConnectProperties(connect);
  const client = new mqtt5.Mqtt5Client(builder.build());
  client.on('messageReceived', (e) => say({ event: 'message', message: incoming(e.message) }));
  client.on('connectionSuccess', (e) => say({ event: 'connected', sessionPresent: e.connack.sessionPresent, connack: e.connack }));
  client.on('connectionFailure', (e) => say({ event: 'refused', error: String(e.error), reason: e.connack?.reasonCode }));
  client.on('disconnection', (e) => say({ event: 'disconnected', error: String(e.error), reason: e.disconnect?.reasonCode }));
  client.on('stopped', () => say({ event: 'stopped' }));
  client.on('error', (e) => say({ event: 'error', error: String(e) }));
  return {
    start: async () => client.start(),
    stop: async (c) => client.stop(c.packet),
    subscribe: async (c) => (await client.subscribe({ subscriptions: c.subscriptions })).reasonCodes,
    unsubscribe: async (c) => (await client.unsubscribe({ topicFilters: c.filters })).reasonCodes,
    publish: async (c) => (await client.publish(outgoing(c.packet)))?.reasonCode ?? 0,
  };
}

// MQTT 3.1.1 with the SDK's older client.
function device311() {
  const builder = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(config.cert, config.key);
  builder.with_certificate_authority_from_path(undefined, config.ca);
  builder.with_endpoint(config.host);
  builder.with_port(config.port);
  if (config.proxy) {
    builder.with_http_proxy_options(proxy());
  }
  builder.with_client_id(config.clientId);
  builder.with_clean_session(config.behavior !== 'always');
  builder.with_keep_alive_seconds(config.keepAlive ?? 60);
  builder.with_reconnect_min_sec(1);
  builder.with_reconnect_max_sec(1);
  if (config.will) {
    const { topicName, payload, qos, retain } = config.will;
    builder.with_will(new mqtt.MqttWill(topicName, qos, bytes(payload), retain ?? false));
  }
  const connection = new mqtt.MqttClient().new_connection(builder.build());
  connection.on('message', (topicName, payload, dup, qos, retain) =>
    say({ event: 'message', message: { topicName, payload: base64(payload), dup, qos, retain } }));
  connection.on('connection_success', (e) => say({ event: 'connected', sessionPresent: e.session_present }));
  connection.on('connection_failure', (e) => say({ event: 'refused', error: String(e.error) }));
  connection.on('interrupt', (e) => say({ event: 'disconnected', error: String(e) }));
  connection.on('closed', () => say({ event: 'stopped' }));
  connection.on('error', (e) => say({ event: 'error', error: String(e) }));
  return {
    start: () => connection.connect(),
    stop: () => connection.disconnect(),
    subscribe: async (c) => {
      const codes = [];
      for (const s of c.subscriptions) {
        const answer = await connection.subscribe(s.topicFilter, s.qos);
        codes.push(answer.error_code ? 0x80 : answer.qos);
      }
      return codes;
    },
    unsubscribe: async (c) => {
      for (const filter of c.filters) {
        await connection.unsubscribe(filter);
      }
      return [];
    },
    publish: async (c) => {
      await connection.publish(c.packet.topicName, bytes(c.packet.payload), c.packet.qos, c.packet.retain ?? false);
      return 0;
    },
  };
}

const commands = config.version === 5 ? device5() : device311();
const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const command = JSON.parse(line);
  commands[command.do](command).then(
    (result) => say({ n: command.n, result: result ?? null }),
    (error) => say({ n: command.n, error: String(error) }),
  );
});
// The Go side closes the input when it is done; what is open is cut.
lines.on('close', () => process.exit(0));
