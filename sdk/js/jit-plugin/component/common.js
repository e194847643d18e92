// What components of every kind share: what the sandbox does not have, the host's log, exceptions in words. Only within
// a component: the entry that `jit-broker plugin build` writes imports the module of its kind.

import { problemList } from '../checks.js';
import { parse } from '../config.js';
import { log, sendTo } from '../log.js';
import { inALine } from '../places.js';

const MAX_STACK = 3000;

// Without them in the sandbox, the engine would give a constant instead: a mistake that nobody sees.
const absent = (what, instead) => () => {
  throw new TypeError(`a plugin has no ${what}: ${instead}`);
};
const noClock = absent('clock', 'use request.time, in a driver account.now');
const noChance = absent('randomness', 'the same call must give the same answer');
Math.random = noChance;
if (globalThis.crypto) {
  for (const name of ['getRandomValues', 'randomUUID']) {
    Object.defineProperty(crypto, name, { value: noChance });
  }
}
const TheDate = Date;
globalThis.Date = new Proxy(TheDate, {
  construct: (target, values, self) => (values.length === 0 ? noClock() : Reflect.construct(target, values, self)),
  apply: noClock,
  get: (target, name) => (name === 'now' ? noClock : Reflect.get(target, name)),
});

/** The module of the project that has the plugin, for mistakes whose line JavaScript does not know. */
let module;

/** @param {{ write: Function }} host @param {{ module: string }} project */
export function begin(host, project) {
  sendTo((level, message, fields) => host.write(level, message, Object.entries(fields)));
  module = project.module;
}

/** The exception in a line, with its place in the author's files; how it came there goes to the log. */
export function tell(error) {
  const line = inALine(error, module);
  const stack = String(error?.stack ?? '').slice(0, MAX_STACK);
  log.error('the plugin threw an exception', { exception: line.slice(0, 500), stack });
  return line;
}

/** What the contract calls an error is thrown with `payload`. */
export const fails = (payload) => Object.assign(new Error('the plugin fails'), { payload });

/** `validate` and `prepare` of a plugin that is prepared with its configuration, and that configuration. */
export function configured(plugin) {
  let prepared;
  return {
    config: () => prepared,
    validate(json) {
      let problems;
      try {
        const read = parse(plugin.config, json);
        problems = read.problems.length > 0 ? read.problems : problemList('validate', plugin.validate(read.config));
      } catch (error) {
        problems = [{ path: '', message: tell(error) }];
      }
      if (problems.length > 0) throw fails(problems);
    },
    prepare(json) {
      const { config, problems } = parse(plugin.config, json);
      if (problems.length > 0) throw fails(problems);
      prepared = config;
    },
  };
}
