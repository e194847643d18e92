// Policies: pure functions of a configuration and a request.

import { called, optionalText, pairs, text, texts } from './checks.js';
import { WrongAnswer } from './errors.js';

/** @typedef {import('./request.js').Request} Request */

/**
 * A yes, with its conditions: the lease lives at most `maxTtlSeconds`; `role` of the same target instead of
 * the one asked for; `requires` says what the request must have (`reason`, `ticket`, `approval`); `reason`
 * and `labels` are for the audit record.
 *
 * @param {{ reason?: string, maxTtlSeconds?: number, role?: string, requires?: string[], labels?: Record<string, string> }} [conditions]
 */
export function allow(conditions = {}) {
  const known = ['reason', 'maxTtlSeconds', 'role', 'requires', 'labels'];
  const unknown = Object.keys(conditions).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new TypeError(`allow has no ${unknown}: there are ${known.join(', ')}`);
  const { maxTtlSeconds } = conditions;
  if (maxTtlSeconds !== undefined && !(Number.isSafeInteger(maxTtlSeconds) && maxTtlSeconds >= 1)) {
    throw new TypeError(`maxTtlSeconds is ${maxTtlSeconds}: it is a whole number of seconds, at least 1`);
  }
  const { reason = '', role, requires = [], labels = {} } = conditions;
  text('reason', reason);
  optionalText('role', role);
  texts('requires', requires);
  pairs('labels', labels);
  return { verdict: 'allow', ...conditions, reason, requires, labels };
}

/**
 * A no. The caller reads the reason: say what would help.
 *
 * @param {string} reason
 */
export function deny(reason) {
  return { verdict: 'deny', reason: text('reason', reason) };
}

/**
 * One mistake in a configuration: where (a dotted path, `rules[0].role`, empty for the whole), and what is
 * wrong and what to write instead.
 *
 * @param {string} path
 * @param {string} message
 */
export function problem(path, message) {
  return { path, message };
}

/**
 * Makes a policy; it is the module's default export. The same configuration and request must give the same
 * answer always: a decision is replayed from the audit record. An exception denies, with its text.
 *
 * `operations` are those that the policy knows, `issue` and `renew` unless it says otherwise; every other
 * operation is denied, so that a later broker's new operation is not allowed by a rule that was written before
 * it. `windows` gives the windows, in seconds, in which the host shall count requests for `request.usage`: at
 * most eight, each at most 31 days; with an empty list, live leases alone are counted; with none, nothing.
 *
 * @template C
 * @param {{
 *   config: import('./config.js').Type<C>,
 *   validate?: (config: C) => Iterable<{ path: string, message: string }>,
 *   operations?: string[],
 *   windows?: (config: C) => Iterable<number> | undefined,
 *   decide: (config: C, request: Request) => ReturnType<typeof allow> | ReturnType<typeof deny>,
 * }} rule
 */
export function policy(rule) {
  if (typeof rule.config !== 'function') throw new TypeError('say what its configuration is: config: table({ … })');
  if (typeof rule.decide !== 'function') throw new TypeError('a policy has a function decide(config, request)');
  return { validate: () => [], operations: ['issue', 'renew'], windows: () => undefined, ...rule };
}

/** Asks a policy as the host does: about the operations that it knows. */
export function ask(rule, config, request) {
  if (!rule.operations.includes(request.operation)) {
    const operation = JSON.stringify(request.operation);
    return deny(`this policy does not know the operation ${operation}, and denies what it does not know`);
  }
  return checked(rule.decide(config, request));
}

/** The answer, if it is one: a promise or a truth value is none. */
export function checked(answer) {
  if (answer?.verdict === 'allow' || answer?.verdict === 'deny') return answer;
  throw new WrongAnswer('decide', `must return allow(…) or deny(…), not ${called(answer)}`);
}
