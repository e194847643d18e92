// Write plugins for jit-broker in JavaScript.
//
// A policy is an object with typed configuration and one function:
//
//   import { allow, deny, policy, table, text } from './jit-plugin/index.js';
//
//   export default policy({
//     config: table({ environment: text }),
//     decide(config, request) {
//       if (request.attributes.env === config.environment) return allow();
//       return deny(`only workloads of env=${config.environment}`);
//     },
//   });
//
// It is plain JavaScript: `node --test` tests it without Wasm (testing.js), and `jit-broker plugin build`
// makes the component that a broker loads.
//
// A context provider is made by `context`, with a function `gather` that returns facts for policies to judge; one that
// asks a server by `httpContext`. A driver for a backend behind an HTTP API is made by `httpDriver`.
//
// What a plugin cannot do: it has no network, files, environment, clock or randomness of its own. A policy has the time
// as `request.time`; what else it must know is in its configuration, in `request.facts` and, with `windows`, in
// `request.usage`. A driver has the time as `account.now`, and its requests (http.js) are made by the host.

export { list, map, number, oneOf, optional, seconds, table, text, truth, whole } from './config.js';
export { context, httpContext } from './context.js';
export { httpDriver } from './driver.js';
export * as encode from './encode.js';
export {
  Conflict,
  Dependents,
  Failed,
  InvalidConfig,
  NotFound,
  OutcomeUnknown,
  PluginError,
  Refused,
  Retryable,
} from './errors.js';
export { key } from './http.js';
export { log } from './log.js';
export { allow, deny, policy, problem } from './policy.js';
export { Uncounted } from './request.js';
export { Secret } from './secret.js';
