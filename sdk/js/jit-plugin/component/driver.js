// The driver for a backend behind an HTTP API as the contract's exports.

import { Calls } from '../driver.js';
import * as errors from '../errors.js';
import { handleOf, Secret } from '../secret.js';
import { begin, fails, tell } from './common.js';

function toHost(error) {
  const reason = String(error?.message || error?.name);
  if (error instanceof errors.NotFound) return { tag: 'not-found' };
  if (error instanceof errors.Refused) return { tag: 'refused', val: reason };
  if (error instanceof errors.Retryable) {
    const afterMs = error.afterMs === undefined ? undefined : BigInt(error.afterMs);
    return { tag: 'retryable', val: { reason, afterMs } };
  }
  if (error instanceof errors.OutcomeUnknown) return { tag: 'outcome-unknown', val: reason };
  if (error instanceof errors.Dependents) return { tag: 'dependents', val: error.names };
  if (error instanceof errors.Conflict) return { tag: 'conflict', val: reason };
  if (error instanceof errors.InvalidConfig) return { tag: 'invalid-config', val: error.problems };
  if (error instanceof errors.PluginError) return { tag: 'other', val: reason };
  return { tag: 'other', val: tell(error) };
}

/** Calls the driver; what it throws is an error of the contract. */
function calling(call) {
  try {
    return call();
  } catch (error) {
    throw fails(toHost(error));
  }
}

const seconds = (value) => (value === undefined ? undefined : BigInt(value));
const accountOf = ({ name, leaseId, workload, expiresAt, externalId, now }) =>
  Object.freeze({ name, leaseId, workload, expiresAt: Number(expiresAt), externalId, now: Number(now) });

/**
 * @param {ReturnType<typeof import('../driver.js').httpDriver>} made
 * @param {import('../http.js').Http} http The host's.
 */
export function exported(made, host, project, http) {
  begin(host, project);
  if (typeof made?.create !== 'function') {
    throw new TypeError('the module exports no driver: export default httpDriver({ … })');
  }
  const calls = new Calls(made, http);
  const { name, version } = project;
  const driver = {
    describe: () => ({ name, version, ...calls.describe() }),
    validate: (target, roles) => calling(() => calls.validate(target, roles)),
    create: (target, role, account, password) =>
      calling(() => {
        const issued = calls.create(target, role, accountOf(account), new Secret(password));
        const secret = issued.secret && handleOf(issued.secret);
        return { ...issued, secret, expiresAt: seconds(issued.expiresAt) };
      }),
    renew: (target, role, account) => calling(() => seconds(calls.renew(target, role, accountOf(account)))),
    rotate: (target, account, step, password) =>
      calling(() => calls.rotate(target, accountOf(account), step, password && new Secret(password))),
    revoke: (target, account) => calling(() => calls.revoke(target, accountOf(account))),
    inspect: (target, name) =>
      calling(() => {
        const state = calls.inspect(target, name);
        return { ...state, expiresAt: seconds(state.expiresAt) };
      }),
    listAccounts: (target, prefix, cursor) => calling(() => calls.listAccounts(target, prefix, cursor)),
    maintain: (target) => calling(() => seconds(calls.maintain(target))),
    place: (target) => calling(() => calls.place(target)),
  };
  return { driver };
}
