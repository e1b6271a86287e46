// Preloaded into every program: refuses connections to other machines and records them.
import { appendFileSync } from "node:fs";
import net from "node:net";

const NEAR = new Set(["127.0.0.1", "::1", "localhost"]);
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...parameters) {
  const [first] = Array.isArray(parameters[0]) ? parameters[0] : parameters;
  const options = typeof first === "object" ? first : { port: first, host: parameters[1] };
  const host = options.host ?? "localhost";
  if (options.path === undefined && !NEAR.has(host)) {
    if (process.env.CHECKS_REFUSED) appendFileSync(process.env.CHECKS_REFUSED, `${host}\n`);
    process.nextTick(() => this.destroy(new Error(`refused to connect to ${host}`)));
    return this;
  }
  return connect.apply(this, parameters);
};
