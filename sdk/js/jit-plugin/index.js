// Write jit-broker policies in JavaScript.
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
// What a policy cannot do: it has no network, files, environment, clock or randomness. The time is
// `request.time`; what else it must know is in its configuration, in `request.facts` and, for a policy with
// `windows`, in `request.usage`.

export { list, map, number, oneOf, optional, seconds, table, text, truth, whole } from './config.js';
export { log } from './log.js';
export { allow, deny, policy, problem } from './policy.js';
export { Uncounted } from './request.js';
