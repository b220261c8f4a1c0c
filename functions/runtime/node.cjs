// Imprint's runtime client for Node: it loads exports.handler (or an ES module's
// handler) and runs it for each event of the Lambda Runtime API.
"use strict";

const fs = require("fs");
const http = require("http");
const path = require("path");
const { pathToFileURL } = require("url");

const [address, secret] = process.env.AWS_LAMBDA_RUNTIME_API.split("/");
const [host, port] = address.split(":");
const prefix = "/" + secret + "/2018-06-01/runtime/";
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function request(method, where, body) {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
    const r = http.request({ host, port, method, path: prefix + where, agent, headers }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("end", () => resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts).toString() }));
      answer.on("error", reject);
    });
    r.on("error", reject);
    r.end(body);
  });
}

function errorOf(e) {
  if (e instanceof Error || (e && e.name && e.message)) {
    return JSON.stringify({ errorType: String(e.name), errorMessage: String(e.message), trace: String(e.stack || "").split("\n") });
  }
  return JSON.stringify({ errorType: typeof e, errorMessage: String(e), trace: [] });
}

async function load() {
  const root = process.env.LAMBDA_TASK_ROOT;
  const found = /^(.*\/)?([^/.]*)\.(.+)$/.exec(process.env._HANDLER || "");
  if (!found || process.env._HANDLER.includes("..")) {
    throw Object.assign(new Error("Bad handler " + process.env._HANDLER), { name: "Runtime.MalformedHandlerName" });
  }
  const base = path.join(root, found[1] || "", found[2]);
  const file = ["", ".js", ".mjs", ".cjs"].map((end) => base + end).find((f) => fs.existsSync(f) && fs.statSync(f).isFile());
  if (!file) {
    throw Object.assign(new Error("Cannot find module '" + found[2] + "'"), { name: "Runtime.ImportModuleError" });
  }
  let module;
  try {
    module = file.endsWith(".mjs") ? await import(pathToFileURL(file)) : require(file);
  } catch (e) {
    if (e.code !== "ERR_REQUIRE_ESM" && e.code !== "ERR_REQUIRE_ASYNC_MODULE" && !(e instanceof SyntaxError && /export|import/.test(e.message))) throw e;
    module = await import(pathToFileURL(file));
  }
  const handler = found[3].split(".").reduce((at, name) => at && at[name], module) || (module.default && module.default[found[3]]);
  if (typeof handler !== "function") {
    throw Object.assign(new Error(process.env._HANDLER + " is undefined or not exported"), { name: "Runtime.HandlerNotFound" });
  }
  return handler;
}

function contextOf(headers) {
  const deadline = Number(headers["lambda-runtime-deadline-ms"]);
  const env = process.env;
  return {
    callbackWaitsForEmptyEventLoop: true,
    awsRequestId: headers["lambda-runtime-aws-request-id"],
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
  };
}

// A handler answers by a promise, by its callback, or by what it returns.
function run(handler, event, context) {
  return new Promise((resolve, reject) => {
    const callback = (error, result) => (error === undefined || error === null ? resolve(result) : reject(error));
    context.succeed = resolve;
    context.fail = reject;
    context.done = callback;
    const result = handler(event, context, callback);
    if (result && typeof result.then === "function") result.then(resolve, reject);
    else if (handler.length < 3) resolve(result);
  });
}

async function main() {
  let handler;
  try {
    handler = await load();
  } catch (e) {
    console.error(e);
    await request("POST", "init/error", errorOf(e));
    process.exit(1);
  }
  for (;;) {
    const next = await request("GET", "invocation/next");
    if (next.status !== 200) process.exit(1);
    const id = next.headers["lambda-runtime-aws-request-id"];
    process.env._X_AMZN_TRACE_ID = next.headers["lambda-runtime-trace-id"] || "";
    let answer;
    try {
      const result = await run(handler, JSON.parse(next.body), contextOf(next.headers));
      const body = JSON.stringify(result === undefined ? null : result);
      answer = await request("POST", `invocation/${id}/response`, body === undefined ? "null" : body);
    } catch (e) {
      console.error(e);
      answer = await request("POST", `invocation/${id}/error`, errorOf(e));
    }
    if (answer.status !== 202 && answer.status !== 413) process.exit(1);
  }
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
