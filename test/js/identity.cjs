// A device that is provisioned by claim with AWS's own identity client: the
// first argument says how it connects, which client it uses (version 4 or 5, api
// v1 or v2) and, for CreateCertificateFromCsr, its signing request. Each line of
// the output is one answer, or the error that the client made of a rejection.
// claimjs_test.go is the other end.
'use strict';

const { http, iot, iotidentity, mqtt, mqtt5 } = require('aws-iot-device-sdk-v2');

const config = JSON.parse(process.argv[2]);

// proxy leads to the server under names that this machine doesn't resolve.
function proxy() {
  return new http.HttpProxyOptions('127.0.0.1', config.proxy, undefined, undefined, undefined, undefined, http.HttpProxyConnectionType.Tunneling);
}

function say(what) {
  process.stdout.write(JSON.stringify(what) + '\n');
}

async function connect5() {
  const builder = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath(config.host, config.cert, config.key);
  builder.withCertificateAuthorityFromPath(undefined, config.ca);
  builder.withPort(config.port);
  if (config.proxy) {
    builder.withHttpProxyOptions(proxy());
  }
  builder.withConnectProperties({ keepAliveIntervalSeconds: 60, clientId: config.clientId });
  const client = new mqtt5.Mqtt5Client(builder.build());
  const on = new Promise((resolve, reject) => {
    client.on('connectionSuccess', resolve);
    client.on('connectionFailure', (e) => reject(e.error));
  });
  client.start();
  await on;
  return client;
}

async function connect311() {
  const builder = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(config.cert, config.key);
  builder.with_certificate_authority_from_path(undefined, config.ca);
  builder.with_endpoint(config.host);
  builder.with_port(config.port);
  if (config.proxy) {
    builder.with_http_proxy_options(proxy());
  }
  builder.with_client_id(config.clientId);
  builder.with_clean_session(true);
  const connection = new mqtt.MqttClient().new_connection(builder.build());
  await connection.connect();
  return connection;
}

// The request-response client: a promise for each call.
function v2(connection) {
  const options = { maxRequestResponseSubscriptions: 6, maxStreamingSubscriptions: 1, operationTimeoutInSeconds: 20 };
  const client = config.version === 5
    ? iotidentity.IotIdentityClientv2.newFromMqtt5(connection, options)
    : iotidentity.IotIdentityClientv2.newFromMqtt311(connection, options);
  return {
    keys: () => client.createKeysAndCertificate({}),
    csr: (request) => client.createCertificateFromCsr(request),
    register: (request) => client.registerThing(request),
  };
}

// The older client, for MQTT 3.1.1: subscriptions, then a publish.
function v1(connection) {
  const client = new iotidentity.IotIdentityClient(connection);
  const qos = mqtt.QoS.AtLeastOnce;
  const call = async (name, subscription, request) => {
    let settle;
    const answer = new Promise((resolve, reject) => {
      settle = (error, response) => (error ? reject(error) : resolve(response));
    });
    answer.catch(() => {}); // it may come before the PUBACK, when nobody awaits it yet
    await client[`subscribeTo${name}Accepted`](subscription, qos, settle);
    await client[`subscribeTo${name}Rejected`](subscription, qos, (error, response) => settle(error ?? { modeledError: response }));
    await client[`publish${name}`](request, qos);
    return answer;
  };
  return {
    keys: () => call('CreateKeysAndCertificate', {}, {}),
    csr: (request) => call('CreateCertificateFromCsr', {}, request),
    register: (request) => call('RegisterThing', { templateName: request.templateName }, request),
  };
}

// rejected is what the client says of an answer on .../rejected.
function rejected(error) {
  return error.modeledError ?? error.payload ?? error.inner_error?.payload ?? { message: String(error) };
}

async function main() {
  const connection = config.version === 5 ? await connect5() : await connect311();
  const api = config.api === 'v2' ? v2(connection) : v1(connection);
  const made = config.csr ? await api.csr({ certificateSigningRequest: config.csr }) : await api.keys();
  say({ made });
  const request = { templateName: 'sensors', certificateOwnershipToken: made.certificateOwnershipToken };
  try {
    await api.register({ ...request, certificateOwnershipToken: 'no token' });
    say({ rejected: {} });
  } catch (error) {
    say({ rejected: rejected(error) });
  }
  say({ registered: await api.register({ ...request, parameters: config.parameters }) });
}

main().then(() => process.exit(0), (error) => {
  say({ failed: String(error), modeled: rejected(error) });
  process.exit(1);
});
