// For native unit tests: a plugin is plain JavaScript, and needs neither Wasm nor a broker to be tried.
//
// `decide` asks a policy, `gather` a context provider, `calls` a driver, each as a broker does: configurations are read
// and checked first, and answers afterwards. `FakeHttp` plays the server.

import { problemList } from './checks.js';
import { inWords, parse } from './config.js';
import { facts } from './context.js';
import { Calls } from './driver.js';
import { ask } from './policy.js';
import { Request } from './request.js';

export { records } from './log.js';
export { away, FakeHttp, lost, reply, secret } from './testing-http.js';

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

/** What is wrong with a configuration of a policy or a context provider. */
export function problems(plugin, config) {
  const read = parse(plugin.config, JSON.stringify(config));
  return read.problems.length > 0 ? read.problems : problemList('validate', plugin.validate(read.config));
}

/** Asks the policy as a broker does: the configuration is read and validated first. */
export function decide(rule, config, asked) {
  const found = problems(rule, config);
  if (found.length > 0) throw new TypeError(inWords(found));
  return ask(rule, parse(rule.config, JSON.stringify(config)).config, asked);
}

/** Asks the context provider as a broker does. One that asks a server gets `http`. */
export function gather(provider, config, asked, http) {
  const found = problems(provider, config);
  if (found.length > 0) throw new TypeError(inWords(found));
  return Object.fromEntries(facts(provider, http, parse(provider.config, JSON.stringify(config)).config, asked));
}

/** An account of `payment-service` that lives for an hour, but for the changes. */
export function account(name, changes = {}) {
  const usual = {
    leaseId: 'lease-1',
    workload: 'payment-service',
    expiresAt: 1_800_003_600,
    externalId: undefined,
    now: 1_800_000_000,
  };
  const unknown = Object.keys(changes).find((key) => !(key in usual));
  const there = Object.keys(usual).join(', ');
  if (unknown !== undefined) throw new TypeError(`an account has no ${unknown}: there are ${there}`);
  return { name, ...usual, ...changes };
}

/**
 * The driver's verbs as a broker calls them, with a target of that configuration and its roles:
 * `calls(driver, http, { roles: { reader: { … } } }).revoke(account('v-a'))`. A role is given by its name.
 */
export function calls(driver, http, { config = {}, roles = {} } = {}) {
  const made = new Calls(driver, http);
  const target = { name: 'target', config: JSON.stringify(config) };
  const role = (name) => ({ name, config: JSON.stringify(roles[name]) });
  return {
    describe: () => made.describe(),
    validate: () => made.validate(target, Object.keys(roles).map(role)),
    create: (name, account, password) => made.create(target, role(name), account, password),
    renew: (name, account) => made.renew(target, role(name), account),
    rotate: (account, step, password) => made.rotate(target, account, step, password),
    revoke: (account) => made.revoke(target, account),
    inspect: (name) => made.inspect(target, name),
    listAccounts: (prefix, cursor) => made.listAccounts(target, prefix, cursor),
    maintain: () => made.maintain(target),
    place: () => Object.fromEntries(made.place(target)),
  };
}
