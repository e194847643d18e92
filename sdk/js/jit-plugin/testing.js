// For native unit tests: a policy is plain JavaScript, and needs neither Wasm nor a broker to be tried.

import { inWords, parse } from './config.js';
import { ask } from './policy.js';
import { Request } from './request.js';

export { records } from './log.js';

/** A request of `payment-service` for `app_read_only` of `inventory_db`, for an hour, but for the changes. */
export function request(changes = {}) {
  const usual = {
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
    callerAddress: undefined,
    resource: {},
  };
  const unknown = Object.keys(changes).find((name) => !(name in usual));
  if (unknown !== undefined) throw new TypeError(`a request has no ${unknown}: there are ${Object.keys(usual).join(', ')}`);
  const { attributes, metadata, facts, resource, ...fields } = { ...usual, ...changes };
  const source = Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, () => value]));
  const one = (pairs) => (name) => (Object.hasOwn(pairs, name) ? pairs[name] : undefined);
  const whole = (pairs) => () => Object.entries(pairs).sort();
  return new Request({
    ...source,
    attribute: one(attributes),
    attributes: whole(attributes),
    metadata: one(metadata),
    allMetadata: whole(metadata),
    fact: one(facts),
    facts: whole(facts),
    resource: one(resource),
    wholeResource: whole(resource),
  });
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
  return ask(rule, parse(rule.config, JSON.stringify(config)).config, asked);
}
