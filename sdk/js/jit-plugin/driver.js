// Drivers: they make, change and remove accounts in one kind of backend.
//
// Every verb is idempotent by the account's name, which the host chose before the call, and may be cut off at any point
// and called again.

import { answering, called, optionalText, optionalWhole, pairs, problemList, table, texts, whole } from './checks.js';
import { parse } from './config.js';
import { Failed, InvalidConfig, WrongAnswer } from './errors.js';
import { isOwned, Secret } from './secret.js';

/** What a driver can do beyond creating and revoking (wit/driver.wit). A host calls nothing that is not named. */
export const FEATURES = [
  'renew',
  'rotate',
  'overlap',
  'backstop',
  'inspect',
  'list-accounts',
  'external-accounts',
  'standing-accounts',
  'maintain',
];

/** @typedef {import('./http.js').Http} Http */
/** @template C @typedef {{ name: string, config: C }} Named */
/**
 * An account of a lease. Times are seconds since the Unix epoch; `now` is when the host made the call: a driver has
 * no clock.
 *
 * @typedef {{
 *   name: string, leaseId: string, workload: string, expiresAt: number, externalId?: string, now: number,
 * }} Account
 */
/**
 * What creation gave, for backends that choose something themselves. `secret` is one that an answer withheld.
 *
 * @typedef {{
 *   username?: string, secret?: Secret, externalId?: string, expiresAt?: number, properties?: Record<string, string>,
 * }} Issued
 * @typedef {{ canLogin: boolean, expiresAt?: number, properties?: Record<string, string> }} State
 * @typedef {{ names: string[], next?: string }} Page
 */

const cannot = (what) => () => {
  throw new Failed(`this driver ${what}`);
};

/**
 * Makes a driver for a backend behind an HTTP API; it is the module's default export. Its project has
 * `"kind": "driver", "world": "http"` in package.json. Throw what errors.js has.
 *
 * `target` and `role` are the types of the target's `config` table and of a role's table. `describe` says what the
 * driver can do; its name and version are the manifest's. `rotate` has the steps `stage`, `commit`, `discard` and
 * `replace` (wit/driver.wit). Each call has a fresh instance: what must outlive one is kept by the host (`http.keep`) or
 * stands at the backend.
 *
 * @template T, R
 * @param {{
 *   target: import('./config.js').Type<T>,
 *   role: import('./config.js').Type<R>,
 *   describe: { maxNameLength: number, features?: string[], properties?: Record<string, string> },
 *   validate?: (http: Http, target: Named<T>, roles: Named<R>[]) => Iterable<{ path: string, message: string }>,
 *   create: (http: Http, target: Named<T>, role: Named<R>, account: Account, password: Secret) => Issued | undefined,
 *   renew?: (http: Http, target: Named<T>, role: Named<R>, account: Account) => number,
 *   rotate?: (http: Http, target: Named<T>, account: Account, step: string, password?: Secret) => void,
 *   revoke: (http: Http, target: Named<T>, account: Account) => void,
 *   inspect?: (http: Http, target: Named<T>, name: string) => State,
 *   listAccounts?: (http: Http, target: Named<T>, prefix: string, cursor?: string) => Page,
 *   maintain?: (http: Http, target: Named<T>) => number,
 *   place?: (http: Http, target: Named<T>) => Record<string, string>,
 * }} driver
 */
export function httpDriver(driver) {
  for (const name of ['target', 'role']) {
    if (typeof driver[name] !== 'function') throw new TypeError(`say what its configuration is: ${name}: table({ … })`);
  }
  for (const name of ['create', 'revoke']) {
    if (typeof driver[name] !== 'function') throw new TypeError(`a driver has a function ${name}`);
  }
  return {
    validate: () => [],
    renew: cannot('does not renew'),
    rotate: cannot('does not rotate'),
    inspect: cannot('does not inspect'),
    listAccounts: cannot('does not list accounts'),
    maintain: cannot('has nothing to maintain'),
    place: () => ({}),
    ...driver,
    describe: described(driver.describe),
  };
}

function described(said) {
  const { maxNameLength, features = [], properties = {} } = table('describe', said, [
    'maxNameLength',
    'features',
    'properties',
  ]);
  const unknown = texts('features', features).find((feature) => !FEATURES.includes(feature));
  if (unknown !== undefined) throw new TypeError(`there is no feature ${unknown}: there are ${FEATURES.join(', ')}`);
  whole('maxNameLength', maxNameLength, 1, 4096);
  return { maxNameLength, features, properties: pairs('properties', properties) };
}

/** The driver as the host calls it: configurations are JSON, and every answer is checked. */
export class Calls {
  #driver;
  #http;

  constructor(driver, http) {
    this.#driver = driver;
    this.#http = http;
  }

  #target({ name, config }) {
    return { name, config: typed(this.#driver.target, config, '') };
  }

  #role({ name, config }) {
    return { name, config: typed(this.#driver.role, config, `roles.${name}`) };
  }

  describe() {
    return this.#driver.describe;
  }

  validate(target, roles) {
    // Everything that is wrong with any of them: an operator mends all of it in one go.
    const problems = [];
    const attempt = (make) => {
      try {
        return make();
      } catch (error) {
        if (!(error instanceof InvalidConfig)) throw error;
        problems.push(...error.problems);
      }
    };
    const made = attempt(() => this.#target(target));
    const roleList = roles.map((role) => attempt(() => this.#role(role)));
    if (problems.length === 0) {
      problems.push(...problemList('validate', this.#driver.validate(this.#http, made, roleList)));
    }
    if (problems.length > 0) throw new InvalidConfig(problems);
  }

  create(target, role, account, password) {
    const issued = this.#driver.create(this.#http, this.#target(target), this.#role(role), account, password);
    return answering('create', () => checkedIssued(issued ?? {}));
  }

  renew(target, role, account) {
    const expiry = this.#driver.renew(this.#http, this.#target(target), this.#role(role), account);
    return answering('renew', () => whole('the expiry', expiry));
  }

  rotate(target, account, step, password) {
    nothing('rotate', this.#driver.rotate(this.#http, this.#target(target), account, step, password));
  }

  revoke(target, account) {
    nothing('revoke', this.#driver.revoke(this.#http, this.#target(target), account));
  }

  inspect(target, name) {
    const state = this.#driver.inspect(this.#http, this.#target(target), name);
    return answering('inspect', () => {
      const keys = ['canLogin', 'expiresAt', 'properties'];
      const { canLogin, expiresAt, properties = {} } = table('the state', state, keys);
      if (typeof canLogin !== 'boolean') throw new TypeError(`canLogin must be true or false, not ${called(canLogin)}`);
      const expiry = optionalWhole('expiresAt', expiresAt);
      return { canLogin, expiresAt: expiry, properties: pairs('properties', properties) };
    });
  }

  listAccounts(target, prefix, cursor) {
    const page = this.#driver.listAccounts(this.#http, this.#target(target), prefix, cursor);
    return answering('listAccounts', () => {
      const { names, next } = table('the page', page, ['names', 'next']);
      return { names: texts('names', names), next: optionalText('next', next) };
    });
  }

  maintain(target) {
    const seconds = this.#driver.maintain(this.#http, this.#target(target));
    return answering('maintain', () => whole('the number of seconds', seconds));
  }

  place(target) {
    const told = this.#driver.place(this.#http, this.#target(target));
    return answering('place', () => pairs('the place', told));
  }
}

/** A promise would be left alone: what it was to do would not be done. */
function nothing(name, answer) {
  if (typeof answer?.then === 'function') throw new WrongAnswer(name, 'must return nothing, and not a promise');
}

function checkedIssued(issued) {
  table('what was issued', issued, ['username', 'secret', 'externalId', 'expiresAt', 'properties']);
  const { username, secret, externalId, expiresAt, properties = {} } = issued;
  if (secret !== undefined && !(secret instanceof Secret)) {
    throw new TypeError(`secret must be a Secret that an answer withheld, not ${called(secret)}`);
  }
  if (secret !== undefined && !isOwned(secret)) {
    throw new TypeError('secret is the password that the host gave: leave it out, the host knows it');
  }
  return {
    username: optionalText('username', username),
    secret,
    externalId: optionalText('externalId', externalId),
    expiresAt: optionalWhole('expiresAt', expiresAt),
    properties: pairs('properties', properties),
  };
}

function typed(type, json, within) {
  const { config, problems } = parse(type, json);
  if (problems.length === 0) return config;
  const at = (path) => (within && path ? `${within}.${path}` : within || path);
  throw new InvalidConfig(problems.map(({ path, message }) => ({ path: at(path), message })));
}
