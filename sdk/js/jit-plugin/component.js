// The policy as the contract's exports. Only within a component: `jit-broker plugin build` imports it.

import { inWords, parse } from './config.js';
import { log, sendTo } from './log.js';
import { checked } from './policy.js';

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

/** The first of each name counts, as in the other languages' SDKs. */
function named(pairs) {
  const made = Object.create(null);
  for (const [name, value] of pairs) if (!(name in made)) made[name] = value;
  return made;
}

const asked = (request) => ({
  ...request,
  time: Number(request.time),
  ttlSeconds: Number(request.ttlSeconds),
  attributes: named(request.attributes),
  metadata: named(request.metadata),
  facts: named(request.facts),
});

function toHost(answer) {
  const { verdict, reason, maxTtlSeconds, role, requires, labels } = checked(answer);
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
  return {
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
    decide(json, request) {
      try {
        const { config, problems } = parse(rule.config, json);
        if (problems.length > 0) throw new TypeError(inWords(problems));
        return toHost(rule.decide(config, asked(request)));
      } catch (error) {
        throw fails(tell(error));
      }
    },
  };
}
