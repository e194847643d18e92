// The policy as the contract's exports.

import { answering, whole } from '../checks.js';
import { ask } from '../policy.js';
import { Request } from '../request.js';
import { begin, configured, fails, tell } from './common.js';

function toHost({ verdict, reason, maxTtlSeconds, role, requires, labels }) {
  if (verdict === 'deny') return { tag: 'deny', val: reason };
  const val = {
    reason,
    maxTtlSeconds: maxTtlSeconds === undefined ? undefined : BigInt(maxTtlSeconds),
    role,
    requires,
    labels: Object.entries(labels),
  };
  return { tag: 'allow', val };
}

/** @param {ReturnType<typeof import('../policy.js').policy>} rule */
export function exported(rule, host, project) {
  begin(host, project);
  if (typeof rule?.decide !== 'function') throw new TypeError('the module exports no policy: export default policy({ … })');
  const { config, validate, prepare } = configured(rule);
  const policy = {
    validate,
    prepare,
    decide(request) {
      try {
        return toHost(ask(rule, config(), new Request(request)));
      } catch (error) {
        throw fails(tell(error));
      }
    },
  };
  const usage = {
    windows() {
      try {
        const windows = rule.windows(config());
        if (windows === undefined) return undefined;
        const seconds = answering('windows', () => [...windows].map((window) => whole('a window', window, 1)));
        return BigUint64Array.from(seconds.map(BigInt));
      } catch (error) {
        throw fails(tell(error));
      }
    },
  };
  return { policy, usage };
}
