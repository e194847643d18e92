// For native unit tests: a policy is plain JavaScript, and needs neither Wasm nor a broker to be tried.

import { inWords, parse } from './config.js';
import { checked } from './policy.js';

export { records } from './log.js';

/** A request of `payment-service` for `app_read_only` of `inventory_db`, for an hour, but for the changes. */
export function request(changes = {}) {
  return {
    operation: 'issue',
    time: 1_800_000_000,
    workload: 'payment-service',
    issuer: 'https://issuer.test',
    target: 'inventory_db',
    role: 'app_read_only',
    ttlSeconds: 3600,
    attributes: {},
    reason: undefined,
    ticket: undefined,
    metadata: {},
    facts: {},
    ...changes,
  };
}

/** What is wrong with a configuration. */
export function problems(rule, config) {
  const read = parse(rule.config, JSON.stringify(config));
  return read.problems.length > 0 ? read.problems : [...rule.validate(read.config)];
}

/** Asks the policy as a broker does: the configuration is read and validated first. */
export function decide(rule, config, asked) {
  const found = problems(rule, config);
  if (found.length > 0) throw new TypeError(inWords(found));
  return checked(rule.decide(parse(rule.config, JSON.stringify(config)).config, asked));
}
