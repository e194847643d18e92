// The policy as the contract's exports. Only within a component: `jit-broker plugin build` imports it.

import { parse } from './config.js';
import { log, sendTo } from './log.js';
import { ask } from './policy.js';
import { Request } from './request.js';

const MAX_STACK = 3000;

// Without them in the sandbox, the engine would give a constant instead: a mistake that nobody sees.
const absent = (what, instead) => () => {
  throw new TypeError(`a policy has no ${what}: ${instead}`);
};
Math.random = absent('randomness', 'the same request must get the same answer');
if (globalThis.crypto) {
  for (const name of ['getRandomValues', 'randomUUID']) {
    Object.defineProperty(crypto, name, { value: absent('randomness', 'the same request must get the same answer') });
  }
}
const TheDate = Date;
globalThis.Date = new Proxy(TheDate, {
  construct: (target, values, self) =>
    values.length === 0 ? absent('clock', 'use request.time')() : Reflect.construct(target, values, self),
  apply: absent('clock', 'use request.time'),
  get: (target, name) => (name === 'now' ? absent('clock', 'use request.time') : Reflect.get(target, name)),
});

function toHost({ verdict, reason, maxTtlSeconds, role, requires, labels }) {
  if (verdict === 'deny') return { tag: 'deny', val: String(reason) };
  const val = {
    reason: String(reason),
    maxTtlSeconds: maxTtlSeconds === undefined ? undefined : BigInt(maxTtlSeconds),
    role,
    requires,
    labels: Object.entries(labels).map(([name, value]) => [name, String(value)]),
  };
  return { tag: 'allow', val };
}

/** An exception in a line; where it was goes to the log. */
function tell(error) {
  log.error('the policy threw an exception', { stack: String(error?.stack ?? '').slice(0, MAX_STACK) });
  return String(error);
}

/** What the contract calls an error is thrown with `payload`. */
const fails = (payload) => Object.assign(new Error('the policy fails'), { payload });

/**
 * @param {ReturnType<typeof import('./policy.js').policy>} rule
 * @param {(level: string, message: string, fields: [string, string][]) => void} write
 */
export function exported(rule, write) {
  sendTo((level, message, fields) => write(level, message, Object.entries(fields)));
  if (typeof rule?.decide !== 'function') throw new TypeError('the module exports no policy: export default policy({ … })');
  let prepared;
  const policy = {
    validate(json) {
      let problems;
      try {
        const read = parse(rule.config, json);
        problems = read.problems.length > 0 ? read.problems : [...rule.validate(read.config)];
      } catch (error) {
        problems = [{ path: '', message: tell(error) }];
      }
      if (problems.length > 0) throw fails(problems);
    },
    prepare(json) {
      const { config, problems } = parse(rule.config, json);
      if (problems.length > 0) throw fails(problems);
      prepared = config;
    },
    decide(request) {
      try {
        return toHost(ask(rule, prepared, new Request(request)));
      } catch (error) {
        throw fails(tell(error));
      }
    },
  };
  const usage = {
    windows() {
      try {
        const windows = rule.windows(prepared);
        return windows === undefined ? undefined : BigUint64Array.from([...windows].map(BigInt));
      } catch (error) {
        throw fails(tell(error));
      }
    },
  };
  return { policy, usage };
}
