// What can go wrong, by what the host has to do about it.
//
// A driver throws one of these; everything else that is thrown is a mistake of the driver, and the host then decides
// by what was sent to the backend. Operators read the texts, and callers that of `Refused`: never put a secret into one.

/** What a plugin says on purpose. */
export class PluginError extends Error {
  constructor(reason = '') {
    super(String(reason));
    this.name = new.target.name;
  }
}

/** The account, role or group does not exist. Success when revoking. */
export class NotFound extends PluginError {}

/** The backend said no, and nothing was done. */
export class Refused extends PluginError {}

/** Nothing was done, and the same call may work later: after so many milliseconds, where the backend says when. */
export class Retryable extends PluginError {
  /** @param {string} reason @param {number} [afterMs] */
  constructor(reason, afterMs) {
    super(reason);
    if (afterMs !== undefined && !(Number.isSafeInteger(afterMs) && afterMs >= 0)) {
      throw new TypeError(`afterMs is ${afterMs}: it is a whole number of milliseconds`);
    }
    this.afterMs = afterMs;
  }
}

/** The call may or may not have taken effect. */
export class OutcomeUnknown extends PluginError {}

/** The account cannot go while these things depend on it. */
export class Dependents extends PluginError {
  /** @param {string[]} names */
  constructor(names) {
    super(names.join(', '));
    this.names = names.map(String);
  }
}

/** Something of that name exists already. */
export class Conflict extends PluginError {}

/** The configuration of the target or of a role is wrong: everything that is wrong with it. */
export class InvalidConfig extends PluginError {
  /** @param {{ path: string, message: string }[]} problems */
  constructor(problems) {
    super(problems.map(({ path, message }) => `${path}: ${message}`).join('; '));
    this.problems = problems;
  }
}

/** Anything else. */
export class Failed extends PluginError {}

/** A function of the plugin returned what it must not. A function's place in its file is not known to JavaScript. */
export class WrongAnswer extends TypeError {
  constructor(name, what) {
    super(`${name} ${what}`);
    this.name = 'WrongAnswer';
    this.function = name;
  }
}
